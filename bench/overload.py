"""What more load than one core carries does to a call: sound, video, signalling, and how it recovers.

    python -m bench.overload --factors 1.5 3

The limit is what :mod:`bench.limit` asks for. The video's rate is raised from half of it to a multiple of it for some
seconds, by larger frames, and falls to the half again; the sound's stays. Meanwhile a client of its own thread makes a
cheap request every 50 ms. A frame counts as torn where its last packet, or any before it, has not come when the next
one begins. ``--tree`` measures another checkout's server.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cases import FRAMES_PER_SECOND, Case
from bench.cc import NoCompiler
from bench.gauge import Gauge
from bench.limit import LEAST_DELIVERED, MOST_LATENCY, rest, search
from bench.peers.trio_sfu_driver import TrioSfuDriver, TrioSfuServer
from bench.report import Cell, Section, run
from bench.result import percentile
from bench.scene import Scene
from bench.server_process import split_cpus
from bench.signalling_client import SignallingClient, SignallingError
from bench.trial import memory_of, pinned

_ASK_SECONDS: Final = 0.05
_WINDOW: Final = 0.5
_RECOVERED: Final = 0.99  # of the video, in a window
_LIGHT: Final = 0.5  # of the limit


@dataclass(frozen=True, slots=True)
class Episode:
    """Shares of the packets sent in the heavy phase. Seconds; bytes."""

    audio: float
    audio_worst: float  # in half a second
    video: float
    frames: int
    torn: int
    round_trips: tuple[float, ...]
    unanswered: int
    latency: float | None  # p99, s
    recovery: float | None
    memory: tuple[int, int, int]  # before, at the end of the load, afterwards


class Asker(threading.Thread):
    """One user in the room who asks again and again, and notes how long each answer took."""

    def __init__(self, url: str, room: str) -> None:
        super().__init__(daemon=True)
        self._room = room
        self._client = SignallingClient(url)
        self._client.request("joinRoom", {"roomId": room})
        self._ended = threading.Event()
        self.round_trips: list[float] = []
        self.unanswered = 0

    def run(self) -> None:
        while not self._ended.wait(_ASK_SECONDS):
            began = time.monotonic()
            try:
                self._client.request("getRouterRtpCapabilities", {"roomId": self._room})
            except SignallingError:
                self.unanswered += 1
                return
            self.round_trips.append(time.monotonic() - began)

    def end(self) -> None:
        self._ended.set()
        self.join(15)
        self._client.close()


class Windows:
    """The share of a kind's packets that has come, in windows of half a second."""

    def __init__(self, scene: Scene, kind: str) -> None:
        self._scene, self._kind = scene, kind
        self._counted = scene.counted(kind)
        self._next = time.monotonic() + _WINDOW
        self.shares: list[float] = []

    def poll(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next += _WINDOW
        before, self._counted = self._counted, self._scene.counted(self._kind)
        self.shares.append((self._counted[0] - before[0]) / max(1, self._counted[1] - before[1]))


def limit(scene: Scene, start: float) -> float:
    """The highest rate of the video, in packets a second, that holds what :mod:`bench.limit` asks for."""

    def holds(rate: float) -> bool:
        rest(scene, start)
        scene.set_rate(rate)
        scene.run(0.5, settle=False)
        scene.restart()
        scene.run(1.0)
        totals = scene.totals()
        late = percentile(totals.latencies, 0.99)
        return totals.ratio >= LEAST_DELIVERED and late is not None and late <= MOST_LATENCY * 1000

    return search(holds, start * 2, precision=1.1)


def episode(scene: Scene, peer: TrioSfuServer, room: str, full: float, factor: float, seconds: float) -> Episode:
    """Half of the limit, ``factor`` times the limit for ``seconds``, and half of it until all is well again."""
    light = full * _LIGHT
    scene.set_rate(light)
    scene.look_at_frames(int(light / FRAMES_PER_SECOND))
    scene.run(2.0)
    before = memory_of(peer.pids)
    scene.restart()
    asker = Asker(peer.url, room)
    asker.start()
    counted = {kind: scene.counted(kind) for kind in ("audio", "video")}
    frames = scene.frames()
    heard = Windows(scene, "audio")
    scene.set_rate(full * factor)
    scene.run(1.0, heard.poll, settle=False)
    scene.look_at_frames(int(full * factor / FRAMES_PER_SECOND))
    scene.run(seconds - 1.0, heard.poll, settle=False)
    scene.look_at_frames(int(light / FRAMES_PER_SECOND))
    latency = percentile(scene.totals().latencies, 0.99)
    loaded = memory_of(peer.pids)
    shares = {}
    for kind, (came, sent) in counted.items():
        now = scene.counted(kind)
        shares[kind] = (now[0] - came) / max(1, now[1] - sent)
    scene.set_rate(light)
    fell, seen = time.monotonic(), Windows(scene, "video")
    recovery = None
    while time.monotonic() < fell + 40:
        scene.run(_WINDOW, seen.poll, settle=False)
        if len(seen.shares) >= 2 and all(share >= _RECOVERED for share in seen.shares[-2:]):
            recovery = time.monotonic() - fell - 2 * _WINDOW
            break
    asker.end()
    scene.settle()
    ended, torn = (now - then for now, then in zip(scene.frames(), frames, strict=True))
    return Episode(
        audio=shares["audio"],
        audio_worst=min(heard.shares, default=1.0),
        video=shares["video"],
        frames=ended,
        torn=torn,
        round_trips=tuple(asker.round_trips),
        unanswered=asker.unanswered,
        latency=None if latency is None else latency / 1e6,
        recovery=recovery,
        memory=(before, loaded, memory_of(peer.pids)),
    )


def _row(name: str, found: Episode) -> tuple[Cell, ...]:
    trips = found.round_trips
    return (
        name,
        f"{found.audio:.1%}",
        f"{found.audio_worst:.0%}",
        f"{found.video:.1%}",
        f"{found.torn} of {found.frames}",
        None if found.latency is None else round(found.latency * 1000),
        round(statistics.median(trips) * 1000) if trips else None,
        f"{max(trips) * 1000:.0f}" if trips and not found.unanswered else "no answer",
        found.recovery,
        " → ".join(str(each >> 20) for each in found.memory),
    )


def _metrics(url: str) -> str:
    """What the server itself says of it; nothing where it is one that does not."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    said = [line.removeprefix("trio_sfu_") for line in lines if line.startswith("trio_sfu_overload")]
    kernel = [line for line in lines if "udp_received_drops" in line and "kernel" in line]
    return ", ".join([*said, *(line.removeprefix("trio_sfu_") for line in kernel)])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--factors", type=float, nargs="+", metavar="F", help="of the limit; default 1.5 and 3")
    parser.add_argument("--overload-seconds", type=float, metavar="S", help="of overload; default 12, quick 8")
    parser.add_argument("--overload-consumers", type=int, default=100, metavar="N", help="of the one room's sender")
    parser.add_argument("--overload-rooms", type=int, default=10, metavar="N", help="rooms of four; 0: none")
    parser.add_argument("--full", type=float, metavar="PPS", help="take this for the limit: packets/s of a video")
    parser.add_argument("--tree", type=Path, metavar="FOLDER", help="another checkout's server")


def _cases(arguments: argparse.Namespace) -> Sequence[tuple[Case, float]]:
    """With the video's packets a second to begin to look for the limit with."""
    consumers, rooms = arguments.overload_consumers, arguments.overload_rooms
    cases = (
        [(Case(f"1 → {consumers} and sound", 1, 1, consumers, 990.0, 50.0), 60_000 / consumers)] if consumers else []
    )
    if rooms:
        cases.append((Case(f"{rooms} rooms of 4", rooms, 4, 4, 250.0, 50.0, everyone=True), 250.0))
    return cases


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    seconds = arguments.overload_seconds or (8.0 if arguments.quick else 12.0)
    rows: list[tuple[Cell, ...]] = []
    said: list[str] = []
    cpus = split_cpus()
    for case, start in _cases(arguments):
        with ExitStack() as stack:
            try:
                driver = TrioSfuDriver(("--no-hls",), arguments.tree)
                peer = stack.enter_context(driver.start(cpus[0] if cpus else None))
                assert isinstance(peer, TrioSfuServer)
                if cpus is not None:
                    stack.enter_context(Gauge(cpus[0]))
                stack.enter_context(pinned(cpus[1] if cpus is not None else None))
                scene = stack.enter_context(Scene(peer, case))
            except NoCompiler as error:
                said.append(f"skipped: {error}")
                continue
            full = arguments.full or limit(scene, start)
            room = peer.name_of("bench0")
            said.append(f"{case.name}: the limit is {full:.0f} packets/s of each video.")
            for factor in arguments.factors or (1.5, 3.0):
                name = f"{case.name}, {factor:g} ×"
                rows.append(_row(name, episode(scene, peer, room, full, factor, seconds)))
                print(rows[-1], file=sys.stderr, flush=True)
            said.append(f"{case.name}: {_metrics(peer.url)}.")
    yield Section(
        "overload",
        "More than one core carries",
        "python -m bench.overload",
        (
            "load",
            "sound delivered",
            "worst 0.5 s",
            "video delivered",
            "torn frames",
            "p99 ms",
            "request, median ms",
            "longest ms",
            "all video again after s",
            "MiB before, under load, after",
        ),
        rows,
        said,
    )


def main(arguments: list[str] | None = None) -> int:
    return run("overload", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
