"""The highest rate that one core forwards: packets/s out of which 99.9 % arrive, 99 in a hundred within 20 ms.

    python -m bench.limit --limit-consumers 50 100

One call with N consumers stays up while the producer's rate is raised until the bound is broken, then halved in on.
What else goes on, on the host or on the server's core, can only lower what is found. So latency is that of the windows
without it; a rate holds that has held once, and has failed when it did so twice undisturbed; the limit is what held a
second time, some trials later. Called by :mod:`bench.forward`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bench.cases import FRAMES_PER_SECOND, one_to
from bench.cc import NoCompiler
from bench.gauge import Gauge
from bench.measure import WINDOW, Watch, Window
from bench.peers import Running
from bench.peers.trio_sfu_driver import TrioSfuDriver
from bench.plots import Plot
from bench.report import Cell, Section, run
from bench.result import percentile
from bench.scene import Scene
from bench.server_process import split_cpus
from bench.trial import pinned

LEAST_DELIVERED: Final = 0.999
MOST_LATENCY: Final = 20.0  # ms, p99
CASES: Final = ((100, "burst"), (100, "even"))
"""Consumers, and whether packets come in 30 bursts a second or evenly spaced."""

_PRECISION: Final = 1.05  # the bound that is broken, at most so many times the one that holds
_REST: Final = 0.7  # seconds of light load after a trial, at least
_MOST_RESTS: Final = 20
_LIGHT: Final = 300.0
_FAILURES: Final = 2  # undisturbed ones, until a rate has failed
_TRIES: Final = 4  # of one rate, at most
_STEPS_DOWN: Final = 8  # until a limit that does not hold again is given up
_SLOW: Final = 0.93  # of the gauge's best speed: below it a window does not count
_WAITED: Final = 0.04  # of a window: what the server may have been ready to run and not run
_DISTURBED: Final = 0.25  # of a trial's windows that do not count


@dataclass(frozen=True, slots=True)
class Trial:
    """What one rate gave.

    ``rate``: packets a second that were asked for. ``delivered``: the share. ``p99`` in ms, of the windows that count.
    ``cpu``: the server's share of its core. ``disturbed``: the share of windows that do not count.
    """

    rate: float
    delivered: float
    p99: float
    cpu: float
    disturbed: float = 0.0

    @property
    def holds(self) -> bool:
        return self.delivered >= LEAST_DELIVERED and self.p99 <= MOST_LATENCY

    @property
    def breach(self) -> str:
        """Which bound was broken; "" where none was."""
        said = [f"{self.delivered:.2%} delivered"] if self.delivered < LEAST_DELIVERED else []
        return ", ".join([*said, f"p99 {self.p99:.0f} ms"] if self.p99 > MOST_LATENCY else said)


def search(holds: Callable[[float], bool], start: float, *, most: float = 1e6, precision: float = 1.03) -> float:
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


class Judge:
    """Tries rates, each as often as it takes to know; ``trials`` holds all, in order."""

    def __init__(self, attempt: Callable[[float], Trial]) -> None:
        self._attempt = attempt
        self.trials: list[Trial] = []

    def holds(self, rate: float) -> bool:
        """Whether a rate holds: once is enough, failures of a disturbed core do not count."""
        failures = 0
        for _ in range(_TRIES):
            trial = self._attempt(rate)
            self.trials.append(trial)
            if trial.holds:
                return True
            failures += trial.disturbed <= _DISTURBED
            if failures == _FAILURES:
                return False
        return False

    def find(self, start: float) -> float:
        """The limit: the highest rate that held, and did so again; 0.0 where there is none."""
        rate = search(self.holds, start, precision=_PRECISION)
        held = 1  # trials of this rate
        for _ in range(_STEPS_DOWN if rate else 0):
            while held < 2 and self.holds(rate):
                held += 1
            if held == 2:
                return rate
            rate, held = rate / _PRECISION, 0
        return 0.0


class _Attempts:
    """Puts one rate after the other on a scene."""

    def __init__(self, scene: Scene, peer: Running, gauge: Gauge | None, seconds: float, *, even: bool) -> None:
        self._scene = scene
        self._peer = peer
        self._gauge = gauge
        self._seconds = seconds
        self._even = even
        self._best = 0.0  # of the gauge's speeds

    def __call__(self, rate: float) -> Trial:
        scene, seconds = self._scene, self._seconds
        rest(scene, _LIGHT)
        scene.set_rate(rate, frames=rate if self._even else FRAMES_PER_SECOND)
        scene.run(1.0)
        scene.restart()
        watch = Watch(self._peer.pids, lambda: scene.delivered, self._gauge)
        latencies: list[Sequence[int]] = []

        def look() -> None:
            watch.poll()
            if len(watch.windows) > len(latencies):
                latencies.append(scene.take_latencies())

        watch.start()
        scene.run(seconds, look, settle=False)
        scene.settle()
        self._best = max([self._best, *(window.speed or 0.0 for window in watch.windows)])
        counting = [self._counts(window) for window in watch.windows]
        chosen = (
            latencies
            if not any(counting)
            else [each for each, counts in zip(latencies, counting, strict=True) if counts]
        )
        p99 = percentile(sorted(value for each in chosen for value in each), 0.99)
        return Trial(
            rate,
            scene.totals().ratio,
            float("inf") if p99 is None else p99 / 1000,
            sum(window.cpu for window in watch.windows) / (WINDOW * max(1, len(counting))),
            counting.count(False) / max(1, len(counting)),
        )

    def _counts(self, window: Window) -> bool:
        slow = window.speed is not None and window.speed < _SLOW * self._best
        return not slow and window.waited <= _WAITED * WINDOW


def find(peer: Running, consumers: int, seconds: float, *, even: bool) -> tuple[float, Judge]:
    """The producer's highest rate, and all that was tried. Raises :class:`NoCompiler`."""
    cpus = split_cpus()
    with ExitStack() as stack:
        gauge = stack.enter_context(Gauge(cpus[0])) if cpus is not None else None
        stack.enter_context(pinned(cpus[1] if cpus is not None else None))
        scene = stack.enter_context(Scene(peer, one_to(consumers)))
        judge = Judge(_Attempts(scene, peer, gauge, seconds, even=even))
        return judge.find(100_000 / consumers), judge


def _row(name: str, consumers: int, rate: float, judge: Judge) -> tuple[Cell, ...]:
    at = [trial for trial in judge.trials if trial.rate == rate]
    held = [trial for trial in at if trial.holds]
    if not held:
        return name, 0, None, None, None, None, None
    above = min((t for t in judge.trials if not t.holds and t.rate > rate), key=lambda t: t.rate, default=None)
    return (
        name,
        round(rate * consumers),
        f"{len(held)} of {len(at)}",
        f"{min(trial.delivered for trial in held):.2%}",
        max(trial.p99 for trial in held),
        f"{statistics.median(trial.cpu for trial in held):.0%}",
        f"{above.rate * consumers:.0f}: {above.breach}" if above is not None else None,
    )


def section(cases: Sequence[tuple[int, str]], seconds: float, server_options: Sequence[str] = ()) -> Section:
    """:param cases: as :data:`CASES`. :param seconds: of a trial."""
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    said = []
    cpus = split_cpus()
    for count, shape in cases:
        name = f"1 → {count}, {'evenly spaced' if shape == 'even' else '30 bursts a second'}"
        try:
            with TrioSfuDriver(("--no-hls", *server_options)).start(cpus[0] if cpus else None) as peer:
                rate, judge = find(peer, count, seconds, even=shape == "even")
        except NoCompiler as error:
            said.append(f"skipped: {error}")
            continue
        lines[name] = _curve(judge.trials, count)
        rows.append(_row(name, count, rate, judge))
        said.append(_spread(name, count, judge))
        print(said[-1], file=sys.stderr, flush=True)
    return Section(
        "limit",
        f"The highest rate ({LEAST_DELIVERED:.1%} delivered, p99 ≤ {MOST_LATENCY:g} ms)",
        "python -m bench.limit",
        ("case", "packets/s out", "held", "delivered", "p99 ms", "server CPU", "the next rate that failed"),
        rows,
        said,
        [Plot("Latency by rate", "p99 ms (at most 100 is drawn)", "thousand packets/s out", lines=lines)]
        if lines
        else [],
    )


def _curve(trials: Sequence[Trial], consumers: int) -> list[tuple[float, float]]:
    """(thousand packets/s out, p99 in ms): of each rate the best trial."""
    best: dict[float, float] = {}
    for trial in trials:
        best[trial.rate] = min(trial.p99, best.get(trial.rate, 100.0))
    return sorted((rate * consumers / 1000, p99) for rate, p99 in best.items())


def _spread(name: str, consumers: int, judge: Judge) -> str:
    """What all trials say: from where on some failed, up to where some held, how many were slow."""
    held = max((trial.rate for trial in judge.trials if trial.holds), default=0.0) * consumers
    failed = min((trial.rate for trial in judge.trials if not trial.holds), default=0.0) * consumers
    disturbed = sum(not trial.holds and trial.disturbed > _DISTURBED for trial in judge.trials)
    return (
        f"{name}: {len(judge.trials)} trials, the highest that held {held:.0f}, the lowest that did not {failed:.0f}"
        f" packets/s; {disturbed} that did not were disturbed and did not count."
    )


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit-consumers", type=int, nargs="+", metavar="N", help="default 100")
    parser.add_argument("--limit-shapes", nargs="+", choices=("burst", "even"), help="default both; quick burst")
    parser.add_argument("--limit-seconds", type=float, metavar="S", help="of a trial; default 3, quick 2")
    parser.add_argument("--limit-server-option", action="append", default=[], metavar="OPTION", help="for the server")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    cases: Sequence[tuple[int, str]] = CASES[:1] if arguments.quick else CASES
    if arguments.limit_consumers or arguments.limit_shapes:
        shapes = arguments.limit_shapes or ("burst", "even")
        cases = [(count, shape) for count in arguments.limit_consumers or (100,) for shape in shapes]
    yield section(cases, arguments.limit_seconds or default_seconds(arguments.quick), arguments.limit_server_option)


def default_seconds(quick: bool) -> float:
    """Of a trial."""
    return 2.0 if quick else 3.0


def main(arguments: list[str] | None = None) -> int:
    return run("limit", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
