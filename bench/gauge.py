"""How fast a core is at the moment: a spinner that runs when nothing else wants the core, and keeps it awake.

On a shared host the same work costs 1.4 to 1.8 times as much while somebody else uses the sibling hyper-thread, and
neither load nor steal show it. What shows it is work that fills the execution units, done on the same core at the
same time: :class:`Gauge` counts rounds of such work per second of CPU time that it got. It also keeps the core from
falling asleep between bursts, which would be charged to a lightly loaded server. Called by :mod:`bench.measure`.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import tempfile
from typing import Final, NamedTuple, Self

from bench.cc import NoCompiler, compiled

_PAIR = struct.Struct("=QQ")
_LEAST_CPU: Final = 0.01  # seconds; less says nothing

# The same in Python, where no compiler is there: slower rounds, so speeds of the two are not comparable.
_SPINNER = """
import mmap, struct, sys, time
file = open(sys.argv[1], "r+b")
shared = mmap.mmap(file.fileno(), 4096)
rounds = 0
while True:
    for i in range(2000):
        i * 3 ^ 77
    rounds += 1
    struct.pack_into("=QQ", shared, 0, rounds, time.process_time_ns())
"""


class GaugeReading(NamedTuple):
    """Rounds done and seconds of CPU time used, both since the gauge began."""

    rounds: int
    cpu: float


def speed_between(before: GaugeReading, after: GaugeReading) -> float | None:
    """Rounds a second of CPU time; None where the core left the gauge too little to tell."""
    cpu = after.cpu - before.cpu
    return (after.rounds - before.rounds) / cpu if cpu >= _LEAST_CPU else None


class Gauge:
    """A spinner of the lowest priority (SCHED_IDLE) on one CPU, for as long as the ``with`` block lasts."""

    def __init__(self, cpu: int) -> None:
        self._cpu = cpu

    def __enter__(self) -> Self:
        with tempfile.NamedTemporaryFile(prefix="trio-sfu-gauge-") as file:
            file.truncate(4096)
            self._shared = mmap.mmap(file.fileno(), 4096)
            path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
            self._process = subprocess.Popen([*_command(), path])
            try:
                os.sched_setscheduler(self._process.pid, os.SCHED_IDLE, os.sched_param(0))
                os.sched_setaffinity(self._process.pid, {self._cpu})
                while not self.read().rounds:  # it has opened the file
                    if self._process.poll() is not None:
                        raise RuntimeError("the gauge ended at once")
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._shared.close()

    def read(self) -> GaugeReading:
        rounds, nanoseconds = _PAIR.unpack_from(self._shared)
        return GaugeReading(rounds, nanoseconds / 1e9)


def _command() -> list[str]:
    try:
        return [str(compiled("gauge.c"))]
    except NoCompiler:
        return [sys.executable, "-c", _SPINNER]
