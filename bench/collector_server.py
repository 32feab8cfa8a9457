"""The server, its garbage collector as it sets it or as Python leaves it: what :mod:`bench.collector` runs.

    python -m bench.collector_server tuned|plain FILE [the server's options]

SIGUSR1 begins to note collections, a second one ends it and writes FILE: for each generation how many there were and
how long they held everything up.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

from trio_sfu import server
from trio_sfu.__main__ import main


class Pauses:
    """Seconds of each collection, by generation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running = False
        self._began = 0.0
        self.seconds: tuple[list[float], list[float], list[float]] = ([], [], [])

    def install(self) -> None:
        gc.callbacks.append(self.note)
        signal.signal(signal.SIGUSR1, self._toggle)

    def note(self, phase: str, info: Mapping[str, Any]) -> None:
        """For ``gc.callbacks``."""
        if phase == "start":
            self._began = time.perf_counter()
        elif self._running:
            self.seconds[info["generation"]].append(time.perf_counter() - self._began)

    def _toggle(self, _number: int, _frame: FrameType | None) -> None:
        self._running = not self._running
        if not self._running:
            unfinished = self._path.with_suffix(".part")
            unfinished.write_text(json.dumps(self.seconds), encoding="utf-8")
            unfinished.rename(self._path)


if __name__ == "__main__":
    plain = sys.argv.pop(1) == "plain"
    Pauses(Path(sys.argv.pop(1))).install()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    with ExitStack() as stack:
        if plain:
            stack.enter_context(patch.object(server, "_settle_garbage_collection"))
        main()
