"""The rules of measuring: short windows, slow ones dropped, the median of the rest; processes pinned apart.

Owns what a window is and which of them count. Used by :mod:`bench.forward`, :mod:`bench.floor` and
:mod:`bench.peers`, so that their figures can be put side by side. What must not change a figure is what others do on
the same host: see :mod:`bench.gauge`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.gauge import Gauge, GaugeReading, speed_between
from bench.server_process import thread_times

WINDOW: Final = 0.5
"""Seconds of a window."""

_SLOW: Final = 0.93  # of the best speed: below it a window does not count
_BEST: Final = 0.9  # the quantile that is called the best: one lucky window is not


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a run: seconds of CPU time used in it, packets forwarded, the gauge's speed where known.

    ``waited``: seconds that the server was ready and did not run, all threads.
    """

    cpu: float
    packets: int
    speed: float | None = None
    waited: float = 0.0

    @property
    def cost(self) -> float:
        """CPU µs per packet."""
        return self.cpu * 1e6 / self.packets


@dataclass(frozen=True, slots=True)
class Cost:
    """What windows say: CPU µs per packet, over those that count.

    ``speed`` is the gauge's median speed in them, rounds a second; None where no window has one (a core that was
    busy all the time).
    """

    median: float
    best: float
    kept: int
    total: int
    speed: float | None


def kept(windows: Sequence[Window]) -> list[Window]:
    """The windows in which packets were forwarded and the core was not slowed down from outside.

    A window without a speed stays: the core had no time for the gauge, which is not the host's doing.
    """
    counted = [window for window in windows if window.packets > 0]
    speeds = sorted(window.speed for window in counted if window.speed is not None)
    if not speeds:
        return counted
    bound = _SLOW * speeds[min(len(speeds) - 1, int(len(speeds) * _BEST))]
    return [window for window in counted if window.speed is None or window.speed >= bound]


def cost(windows: Sequence[Window]) -> Cost | None:
    """The figures of a run; None of one without packets."""
    chosen = kept(windows)
    if not chosen:
        return None
    costs = [window.cost for window in chosen]
    speeds = [window.speed for window in chosen if window.speed is not None]
    return Cost(
        statistics.median(costs),
        min(costs),
        len(chosen),
        len(windows),
        statistics.median(speeds) if speeds else None,
    )


class Watch:
    """Cuts a run into windows. Whoever drives the load calls :meth:`poll` often; it looks when a window is over.

    :param pids: the processes whose CPU time counts, all threads.
    :param packets: how many have been forwarded so far.
    """

    def __init__(self, pids: Sequence[int], packets: Callable[[], int], gauge: Gauge | None = None) -> None:
        # Given.
        self._pids = tuple(pids)
        self._packets = packets
        self._gauge = gauge
        # Owned.
        self.windows: list[Window] = []
        self._last: tuple[float, float, int, GaugeReading | None] | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begin the first window, now."""
        self._last = self._read()
        self._due = time.monotonic() + WINDOW

    def poll(self) -> None:
        """End a window and begin the next, where its time has come."""
        if self._last is None or time.monotonic() < self._due:
            return
        before, self._last = self._last, self._read()
        cpu, waited, packets, reading = self._last
        speed = speed_between(before[3], reading) if before[3] is not None and reading is not None else None
        self.windows.append(Window(cpu - before[0], packets - before[2], speed, waited - before[1]))
        self._due = time.monotonic() + WINDOW

    def _read(self) -> tuple[float, float, int, GaugeReading | None]:
        times = [each for pid in self._pids for each in thread_times(pid)]
        cpu, waited = sum(run for run, _ in times) / 1e9, sum(waited for _, waited in times) / 1e9
        return cpu, waited, self._packets(), self._gauge.read() if self._gauge is not None else None


def sibling_slowdown(cpus: tuple[int, int], seconds: float = 0.3) -> float:
    """By how much the first CPU gets slower when the second one is busy: 1.0 where they share nothing.

    Two hyper-threads of one core show 1.4 to 1.8; a virtual machine may hide that they are.
    """
    with Gauge(cpus[0]) as gauge:
        alone = _speed(gauge, seconds)
        with Gauge(cpus[1]):
            together = _speed(gauge, seconds)
    return alone / together if alone and together else 1.0


def _speed(gauge: Gauge, seconds: float) -> float | None:
    before = gauge.read()
    time.sleep(seconds)
    return speed_between(before, gauge.read())
