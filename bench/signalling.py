"""What signalling costs: connects, joins, whole set-ups, the first packet, and participants who do nothing.

    python -m bench.signalling

One client on a core of its own does one thing after the other, so a rate is that of one client; the server's CPU time
for each says how many a core could serve.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from bench.cases import MOST_IN_A_ROOM, Case, one_to, rooms_of_four
from bench.cc import NoCompiler
from bench.gauge import Gauge
from bench.peers import Running
from bench.peers.trio_sfu_driver import TrioSfuDriver, TrioSfuServer
from bench.plots import Plot
from bench.report import Cell, Section, run
from bench.scene import Scene
from bench.server_process import CpuTime, split_cpus
from bench.signalling_client import SignallingClient
from bench.trial import memory_of, pinned

_SETTLED: Final = 1.0  # seconds until what is set up is quiet


def _cpu(peer: Running) -> float:
    return sum(time.user + time.system for time in map(CpuTime.read, peer.pids))


@contextmanager
def _server() -> Iterator[TrioSfuServer]:
    """A fresh server, the generator pinned away from it."""
    cpus = split_cpus()
    with ExitStack() as stack:
        peer = stack.enter_context(TrioSfuDriver().start(cpus[0] if cpus else None))
        assert isinstance(peer, TrioSfuServer)
        if cpus is not None:
            stack.enter_context(Gauge(cpus[0]))
        stack.enter_context(pinned(cpus[1] if cpus is not None else None))
        yield peer


def _timed(peer: Running, count: int, what: str, do: Callable[[], None]) -> tuple[Cell, ...]:
    before, began = _cpu(peer), time.monotonic()
    do()
    took, cpu = time.monotonic() - began, _cpu(peer) - before
    return what, f"{count / took:.0f} a second", f"{cpu * 1000 / count:.2f} ms"


def connects_and_joins(count: int) -> Iterator[tuple[Cell, ...]]:
    """WebSocket, Engine.IO and Socket.IO; then joinRoom, ten to a room."""
    with _server() as peer:
        clients: list[SignallingClient] = []
        try:
            yield _timed(
                peer, count, "connect", lambda: clients.extend(SignallingClient(peer.url) for _ in range(count))
            )

            def join() -> None:
                for index, client in enumerate(clients):
                    event = "joinRoom" if index % 10 else "createRoom"
                    client.request(event, {"roomId": f"join{index // 10}"})

            yield _timed(peer, count, "join, 10 to a room", join)
        finally:
            for client in clients:
                client.close()


def set_ups(rooms: int) -> tuple[Cell, ...]:
    """A participant of a room of four: connect, join, two transports with DTLS, two producers, six consumers."""
    case = rooms_of_four(rooms)
    with _server() as peer, ExitStack() as stack:
        scene = Scene(peer, case)
        return _timed(peer, 4 * rooms, "full set-up, rooms of 4", lambda: _enter(stack, scene))


def _enter(stack: ExitStack, scene: Scene) -> None:
    stack.enter_context(scene)


def first_packets(count: int) -> tuple[Cell, ...]:
    """From before createConsumerTransport to the first packet of video, with ICE and DTLS, of one who has joined."""
    with _server() as peer, Scene(peer, one_to(1)) as scene:
        scene.run(1.0)
        times = [scene.first_packet() for _ in range(count)]
    times.sort()
    median = statistics.median(times) * 1000
    return "createConsumerTransport to first packet", f"median {median:.0f} ms, worst {times[-1] * 1000:.0f} ms", None


def idle(count: int, seconds: float) -> tuple[Cell, ...]:
    """Participants with a connected transport and nothing to receive: heartbeats and consent checks only."""
    rooms = -(-count // 100)
    case = Case(f"{count} idle", rooms, 0, min(count // rooms, MOST_IN_A_ROOM), 0.0, 0.0)
    with _server() as peer:
        empty = memory_of(peer.pids)
        with Scene(peer, case) as scene:
            scene.run(_SETTLED)
            before = _cpu(peer)
            scene.run(seconds)
            share = (_cpu(peer) - before) / seconds
            grown = memory_of(peer.pids) - empty
    total = case.rooms * case.receivers
    text = f"{share:.1%} of a core, {grown / (1 << 20):.0f} MiB ({grown / 1024 / total:.0f} KiB each)"
    return f"{total} idle participants, a transport each", text, None


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, metavar="N", help="who connect and join; default 500, quick 100")
    parser.add_argument("--idle", type=int, metavar="N", help="idle participants; default 1000, quick 200")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    quick = arguments.quick
    idlers = arguments.idle or (200 if quick else 1000)
    allow_files(4 * idlers)
    rows: list[tuple[Cell, ...]] = [*connects_and_joins(arguments.clients or (100 if quick else 500))]
    said = ["CPU a piece is the server's; the rate is one client's, who waits for each answer."]
    try:
        rows += [set_ups(5 if quick else 25), first_packets(5 if quick else 30), idle(idlers, 5.0 if quick else 20.0)]
    except NoCompiler as error:
        said.append(f"the rest was skipped: {error}")
    yield Section(
        "signalling",
        "Signalling",
        "python -m bench.signalling",
        ("what", "measured", "server CPU a piece"),
        rows,
        said,
        [
            Plot(
                "Server CPU of signalling",
                "ms a piece",
                bars={str(row[0]): float(str(row[2]).split()[0]) for row in rows if row[2] is not None},
            )
        ],
    )


def allow_files(count: int) -> None:
    """Raise the soft limit of open files as far as that is allowed; servers started from now on inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: list[str] | None = None) -> int:
    return run("signalling", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
