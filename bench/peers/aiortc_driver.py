"""aiortc's ``MediaRelay`` (PyPI) as a peer: what one gets by following aiortc's examples.

It decodes what comes and encodes it anew for every receiver, at a bit rate of its own: it must be sent real pictures,
and what it sends is another number of packets than came in.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.peer import RemoteParameters
from bench.peers import LocalParameters, Running, Session, Subscription, sdp
from bench.rtp import StreamFormat

_TIMEOUT: Final = 20.0


class AiortcError(Exception):
    """What the relay answered instead."""


class AiortcSession:
    """See :class:`bench.peers.Session`."""

    _numbers = itertools.count(1)

    def __init__(self, path: str) -> None:
        self.number = next(self._numbers)
        self.streams: tuple[StreamFormat, ...] = ()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_TIMEOUT)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")

    def publish(self, local: LocalParameters, streams: Sequence[StreamFormat]) -> RemoteParameters:
        self.streams = tuple(streams)
        reply = self._request({"publish": sdp.offer(local, streams), "id": self.number})
        return sdp.parse(reply["sdp"])[0]

    def subscribe(self, local: LocalParameters, publishers: Sequence[Session]) -> Subscription:
        others = [other for other in publishers if isinstance(other, AiortcSession)]
        wanted = [stream for other in others for stream in other.streams]
        offer = sdp.offer(local, wanted, sending=False)
        reply = self._request({"subscribe": offer, "from": [other.number for other in others]})
        return sdp.subscription(*sdp.parse(reply["sdp"]))

    def fileno(self) -> int:
        return self._socket.fileno()

    def read_waiting(self) -> None:
        """Nothing comes unasked."""

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        reply: dict[str, Any] = json.loads(self._lines.readline() or b'{"error": "the relay ended"}')
        if "error" in reply:
            raise AiortcError(reply["error"])
        return reply


class AiortcServer:
    """See :class:`bench.peers.Running`. It has no rooms: who wants whom is said each time."""

    def __init__(self, path: str, pid: int) -> None:
        self.pids = (pid,)
        self._path = path

    def join(self, room: str) -> Session:
        return AiortcSession(self._path)


class AiortcDriver:
    """See :class:`bench.peers.Driver`."""

    name = "aiortc"
    real_media = True

    def missing(self) -> str | None:
        absent = [name for name in ("aiortc", "av") if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    @contextmanager
    def start(self, cpu: int | None) -> Iterator[Running]:
        everywhere = os.sched_getaffinity(0)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.peers.aiortc_relay"],
                cwd=Path(__file__).parent.parent.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        finally:
            os.sched_setaffinity(0, everywhere)
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            path = process.stdout.readline().strip()
            if not path:
                raise AiortcError("the relay did not start")
            yield AiortcServer(path, process.pid)
        finally:
            process.stdin.close()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


DRIVER = AiortcDriver()
