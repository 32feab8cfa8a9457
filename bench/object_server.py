"""The server with a count of its objects: what :mod:`bench.churn` runs in place of ``python -m trio_sfu``.

    python -m bench.object_server FILE [the server's options]

On SIGUSR1 it collects garbage and writes FILE: how many objects of each of the server's classes are alive.
"""

from __future__ import annotations

import collections
import gc
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from trio_sfu.__main__ import main


def count_objects() -> dict[str, int]:
    """Live objects that the collector knows, by class, of classes defined in the server."""
    gc.collect()
    counts = collections.Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in map(type, gc.get_objects())
        if kind.__module__.startswith("trio_sfu.")
    )
    return dict(sorted(counts.items()))


def install(path: Path) -> None:
    """Answer SIGUSR1."""

    def write(_number: int, _frame: FrameType | None) -> None:
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(count_objects()), encoding="utf-8")
        unfinished.rename(path)

    signal.signal(signal.SIGUSR1, write)


if __name__ == "__main__":
    install(Path(sys.argv.pop(1)))
    main()
