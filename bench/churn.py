"""Whether memory stays flat while people come and go: calls with media, one after the other, for an hour.

    python -m bench.churn --minutes 60

Each round is a room of its own with one who sends and some who watch; it goes on for a moment and ends, every second
time without a goodbye. After a round the server's memory is read, and from time to time how many of its objects are
alive. The generator is the one in Python: it needs no compiler, and the load is small.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.dtls import ClientIdentity
from bench.load import Call
from bench.plots import Plot
from bench.report import Section, run
from bench.server_process import RunningServer, resident_memory, running_server

HELD: Final = ("rooms", "peers", "transports", "producers", "consumers", "udp_transports")
"""The server's gauges that must be 0 when nobody is there."""

_TIMEOUT: Final = 20.0
_WARM_UP: Final = 0.1  # of the run: what the allocator takes at first is not growth


@dataclass(frozen=True, slots=True)
class Point:
    """Seconds since the beginning, joins so far, MiB resident, the server's live objects (None: not counted)."""

    seconds: float
    joins: int
    memory: float
    objects: int | None = None


class ChurnServer:
    """A server that counts its objects when asked."""

    def __init__(self, server: RunningServer, path: Path) -> None:
        self.url = server.url
        self.pid = server.pid
        self._path = path

    def objects(self) -> dict[str, int]:
        """Live objects by class, after a garbage collection."""
        self._path.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        _wait_for(self._path.exists, "the server did not count its objects")
        found: dict[str, int] = json.loads(self._path.read_text(encoding="utf-8"))
        return found

    def held(self) -> dict[str, int]:
        """What the gauges of :data:`HELD` say."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=_TIMEOUT) as reply:
            text = reply.read().decode()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: int(float(values[f"trio_sfu_{name}"])) for name in HELD}

    def wait_empty(self) -> None:
        """Until nobody is there any more. Raises TimeoutError."""
        _wait_for(lambda: not any(self.held().values()), "the server holds on to those who have left")


@contextmanager
def churn_server() -> Iterator[ChurnServer]:
    with tempfile.TemporaryDirectory(prefix="trio-sfu-churn-") as folder:
        path = Path(folder) / "objects.json"
        with running_server(["--no-hls"], module=("bench.object_server", str(path))) as server:
            yield ChurnServer(server, path)


def cycle(server: ChurnServer, identity: ClientIdentity, *, consumers: int, seconds: float, polite: bool) -> int:
    """One call from beginning to end; how many packets were delivered."""
    with Call(server.url, consumers, identity) as call:
        call.run(seconds, "burst")
        if not polite:
            for signalling in (call.producer.signalling, *(consumer.signalling for consumer in call.consumers)):
                signalling.abort()
        return call.counts.delivered


def slope(points: Sequence[Point]) -> float:
    """Least squares: bytes a join that memory grows by, after the warm-up."""
    chosen = points[int(len(points) * _WARM_UP) :]
    if len(chosen) < 2:
        return 0.0
    x = sum(point.joins for point in chosen) / len(chosen)
    y = sum(point.memory for point in chosen) / len(chosen)
    spread = sum((point.joins - x) ** 2 for point in chosen)
    return sum((p.joins - x) * (p.memory - y) for p in chosen) / spread * (1 << 20) if spread else 0.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="default 10, quick 0.5; the record is of 60")
    parser.add_argument("--churn-consumers", type=int, default=4, metavar="N")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    minutes = arguments.minutes or (0.5 if arguments.quick else 10.0)
    points = list(_points(minutes * 60, arguments.churn_consumers))
    shown = [points[int((len(points) - 1) * part / 6)] for part in range(7)]
    counted = [point.objects for point in points if point.objects is not None]
    yield Section(
        "churn",
        f"Churn: {points[-1].joins} joins in {minutes:g} minutes",
        f"python -m bench.churn --minutes {minutes:g}",
        ("minute", "joins so far", "MiB"),
        [(point.seconds / 60, point.joins, point.memory) for point in shown],
        [
            f"Growth after the first tenth: {slope(points):.0f} bytes a join.",
            f"Live objects of the server's classes, nobody there: {counted[0]} at first, {counted[-1]} at last.",
        ],
        [
            Plot(
                "Memory while people come and go",
                "MiB resident",
                "minutes",
                lines={"server": [(point.seconds / 60, point.memory) for point in points]},
            )
        ],
    )


def _points(seconds: float, consumers: int) -> Iterator[Point]:
    identity = ClientIdentity()
    with churn_server() as server:
        began = time.monotonic()
        joins = rounds = 0
        next_count = 0.0
        while (passed := time.monotonic() - began) < seconds or not rounds:
            cycle(server, identity, consumers=consumers, seconds=0.3, polite=rounds % 2 == 0)
            joins += consumers + 1
            rounds += 1
            server.wait_empty()
            objects = None
            if passed >= next_count:
                objects = sum(server.objects().values())
                next_count = passed + seconds / 20
            yield Point(passed, joins, resident_memory(server.pid) / (1 << 20), objects)
        yield Point(passed, joins, resident_memory(server.pid) / (1 << 20), sum(server.objects().values()))


def _wait_for(ready: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(failure)
        time.sleep(0.02)


def main(arguments: list[str] | None = None) -> int:
    return run("churn", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
