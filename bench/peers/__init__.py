"""What the benchmark needs of a server to put its load on it; one module here for each server.

To add one: a module with a :class:`Driver`, its name in :data:`DRIVERS`. The load generator does ICE (as the
controlling agent), DTLS and media by itself; a driver starts the server on loopback and speaks its signalling.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol, cast

from bench.peer import RemoteParameters
from bench.rtp import StreamFormat

__all__ = ["DRIVERS", "Driver", "Expected", "LocalParameters", "Running", "Session", "Subscription", "driver"]


@dataclass(frozen=True, slots=True)
class LocalParameters:
    """The generator's end of one transport, as signalling has to tell it; the DTLS role is client.

    Its socket is bound to ``port`` of every IPv4 address of the machine.
    """

    username_fragment: str
    password: str
    fingerprint: str
    port: int


@dataclass(frozen=True, slots=True)
class Expected:
    """One stream that will come."""

    kind: str
    ssrc: int
    rtx_ssrc: int | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """The server's end of a receiving transport, and what will come on it.

    ``transport_cc_id`` is the header extension with the transport-wide number; 0 where there is none.
    """

    remote: RemoteParameters
    streams: tuple[Expected, ...]
    transport_cc_id: int = 0


class Session(Protocol):
    """One user's signalling, in one room. Requests block; each raises an exception with a sentence on failure."""

    def publish(self, local: LocalParameters, streams: Sequence[StreamFormat]) -> RemoteParameters:
        """Announce what this user will send, all on one transport."""

    def subscribe(self, local: LocalParameters, publishers: Sequence[Session]) -> Subscription:
        """Ask for all that these users of the same room send, all on one transport."""

    def fileno(self) -> int:
        """What to wait for; :meth:`read_waiting` when it is readable."""

    def read_waiting(self) -> None:
        """Take what has come, answer heartbeats. Never blocks."""

    def close(self) -> None:
        """Leave. A second call does nothing."""


class Running(Protocol):
    """A started server."""

    @property
    def pids(self) -> Sequence[int]:
        """The processes whose CPU time and memory are the server's."""

    def join(self, room: str) -> Session:
        """A new user in a room, which is made if it is not there."""


class Driver(Protocol):
    """How to start one server."""

    name: str
    real_media: bool
    """Whether it decodes what it gets, so that packets must hold pictures."""

    def missing(self) -> str | None:
        """What has to be installed first, in words; None where all is there."""

    def start(self, cpu: int | None) -> AbstractContextManager[Running]:
        """Run it on loopback, pinned to ``cpu``, until the block ends; it leaves nothing behind."""


DRIVERS: Final = ("trio_sfu", "janus", "aiortc")


def driver(name: str) -> Driver:
    """The driver of that name."""
    return cast("Driver", importlib.import_module(f"bench.peers.{name}_driver").DRIVER)
