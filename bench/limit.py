"""The highest rate that one core forwards: packets/s out of which 99.9 % arrive, 99 in a hundred within 20 ms.

Owns the search. One call with N consumers stays up while the producer's rate is raised until the bound is broken, then
halved in on. Called by :mod:`bench.forward`; alone: ``python -m bench.limit``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bench.cases import FRAMES_PER_SECOND, one_to
from bench.cc import NoCompiler
from bench.gauge import Gauge
from bench.peers import Running
from bench.peers.trio_sfu_driver import TrioSfuDriver
from bench.plots import Plot
from bench.report import Cell, Section, run
from bench.result import percentile
from bench.scene import Scene
from bench.server_process import CpuTime, split_cpus
from bench.trial import pinned

LEAST_DELIVERED: Final = 0.999
MOST_LATENCY: Final = 20.0  # ms, p99
_PRECISION: Final = 1.03  # the bound that is broken, at most so many times the one that holds
_REST: Final = 1.0  # seconds of light load after a trial, at least
_MOST_RESTS: Final = 20
_LIGHT: Final = 300.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What one rate gave: packets a second in and out, the share delivered, p99 in ms, the server's CPU share."""

    rate: float
    out: float
    delivered: float
    p99: float
    cpu: float

    @property
    def holds(self) -> bool:
        return self.delivered >= LEAST_DELIVERED and self.p99 <= MOST_LATENCY


def search(holds: Callable[[float], bool], start: float, *, most: float = 1e6, precision: float = _PRECISION) -> float:
    """The highest rate found that ``holds``, to within 3 %; 0.0 where not even an eighth of ``start`` does."""
    low, high = 0.0, start
    while high < most and holds(high):
        low, high = high, high * 1.5
    if not low:
        low = start / 8
        if not holds(low):
            return 0.0
    while high / low > precision:
        middle = (low * high) ** 0.5
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def rest(scene: Scene, light: float) -> None:
    """Until so much is delivered whole: a server that has had too much to do may leave out video for some seconds."""
    scene.set_rate(light)
    for _ in range(_MOST_RESTS):
        scene.restart()
        scene.run(_REST)
        if scene.totals().ratio >= LEAST_DELIVERED:
            return


def find(peer: Running, consumers: int, seconds: float, *, even: bool) -> list[Trial]:
    """Every trial, in order; the best that holds is the limit."""
    cpus = split_cpus()
    trials: list[Trial] = []
    with ExitStack() as stack:
        if cpus is not None:
            stack.enter_context(Gauge(cpus[0]))
        stack.enter_context(pinned(cpus[1] if cpus is not None else None))
        scene = stack.enter_context(Scene(peer, one_to(consumers)))

        def holds(rate: float) -> bool:
            frames = rate if even else FRAMES_PER_SECOND
            rest(scene, _LIGHT)
            scene.set_rate(rate, frames=frames)
            scene.run(min(1.0, seconds / 2))
            scene.restart()
            before = [CpuTime.read(pid) for pid in peer.pids]
            scene.run(seconds)
            after = [CpuTime.read(pid) for pid in peer.pids]
            totals = scene.totals()
            used = sum(b.user + b.system - a.user - a.system for a, b in zip(before, after, strict=True))
            p99 = percentile(totals.latencies, 0.99)
            trial = Trial(
                totals.sent / seconds,
                totals.delivered / seconds,
                totals.ratio,
                float("inf") if p99 is None else p99 / 1000,
                used / seconds,
            )
            trials.append(trial)
            return trial.holds

        search(holds, 100_000 / consumers)
    return trials


def section(quick: bool, server_options: Sequence[str] = (), consumers: Sequence[int] | None = None) -> Section:
    """Both shapes for each N, or bursts only in the quick mode."""
    seconds = 2.0 if quick else 5.0
    counts = consumers or ((100,) if quick else (50, 100, 200))
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    said = []
    cpus = split_cpus()
    for count in counts:
        for even in (False,) if quick else (False, True):
            name = f"1 → {count}, {'evenly spaced' if even else '30 bursts a second'}"
            try:
                with TrioSfuDriver(("--no-hls", *server_options)).start(cpus[0] if cpus else None) as peer:
                    trials = find(peer, count, seconds, even=even)
            except NoCompiler as error:
                said.append(f"skipped: {error}")
                continue
            held = [trial for trial in trials if trial.holds]
            best = max(held, key=lambda trial: trial.out, default=None)
            lines[name] = sorted((trial.out / 1000, min(trial.p99, 100.0)) for trial in trials)
            if best is None:
                rows.append((name, 0, None, None, None))
            else:
                rows.append((name, round(best.out), f"{best.delivered:.2%}", best.p99, f"{best.cpu:.0%}"))
    return Section(
        "limit",
        f"The highest rate ({LEAST_DELIVERED:.1%} delivered, p99 ≤ {MOST_LATENCY:g} ms)",
        "python -m bench.limit",
        ("case", "packets/s out", "delivered", "p99 ms", "server CPU"),
        rows,
        said,
        [Plot("Latency by rate", "p99 ms (at most 100 is drawn)", "thousand packets/s out", lines=lines)]
        if lines
        else [],
    )


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit-consumers", type=int, nargs="+", metavar="N", help="default 50, 100, 200; quick 100")
    parser.add_argument("--limit-server-option", action="append", default=[], metavar="OPTION", help="for the server")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    yield section(arguments.quick, arguments.limit_server_option, arguments.limit_consumers)


def main(arguments: list[str] | None = None) -> int:
    return run("limit", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
