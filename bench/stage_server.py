"""The server with a sampler in it: what :mod:`bench.stages` runs in place of ``python -m trio_sfu``.

    python -m bench.stage_server FILE [the server's options]

SIGUSR1 begins sampling, a second one ends it and writes FILE. Each 4 ms (a tick) of CPU time the kernel's SIGPROF has
Python look which functions it is in. Time in C, libsrtp's or the kernel's, shows as its caller's.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from bench.stage_table import place, stage_of
from trio_sfu.__main__ import main

_INTERVAL: Final = 0.002


class Sampler:
    """Counts stages, and the functions that hold most samples of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running = False
        self.stages: collections.Counter[str] = collections.Counter()
        self.functions: collections.Counter[tuple[str, str, str]] = collections.Counter()

    def install(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR1, self._toggle)

    def _toggle(self, _number: int, _frame: FrameType | None) -> None:
        self._running = not self._running
        interval = _INTERVAL if self._running else 0.0
        signal.setitimer(signal.ITIMER_PROF, interval, interval)
        if not self._running:
            functions = [[*key, count] for key, count in self.functions.most_common(40)]
            text = json.dumps({"stages": self.stages, "functions": functions})
            unfinished = self._path.with_suffix(".part")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.rename(self._path)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        frames = []
        while frame is not None:
            code = frame.f_code
            frames.append((place(code.co_filename), code.co_name))
            frame = frame.f_back
        stage = stage_of(frames)
        self.stages[stage] += 1
        innermost = next((each for each in frames if each[0]), ("", ""))
        self.functions[(stage, *innermost)] += 1


if __name__ == "__main__":
    Sampler(Path(sys.argv.pop(1))).install()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
