"""The whole benchmark: every part, one after the other, into one file.

    python -m bench
    python -m bench --quick --out results.md

Each part also runs by itself: ``python -m bench.PART --help``. A part that fails, or lacks something, says so in its
place and the others go on. A full run is the record: it replaces what is measured in ``bench/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.report import Section, shared_options, write

RECORD: Final = Path(__file__).parent / "RESULTS.md"
PARTS: Final = {
    "floor": "floor",
    "forward": "forward",
    "stages": "stages",
    "overload": "overload",
    "peers": "peers_run",
    "collector": "collector",
    "signalling": "signalling",
    "memory": "memory",
    "hls": "hls",
    "churn": "churn",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    shared_options(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="no more than these")
    parsed = parser.parse_args(arguments)
    if parsed.out is None and not parsed.quick:
        parsed.out = RECORD
    write(_sections(parsed), parsed.out)
    return 0


def _sections(parsed: argparse.Namespace) -> Iterator[Section]:
    for name in parsed.parts:
        try:
            part = importlib.import_module(f"bench.{PARTS[name]}")
            own = argparse.ArgumentParser()
            part.options(own)
            values = own.parse_args([])
            values.quick, values.out = parsed.quick, parsed.out
            for section in part.sections(values):
                yield replace(section, command=f"{section.command} --quick") if parsed.quick else section
        except Exception as error:
            yield Section(name, name, f"python -m bench.{name}", (), (), [f"failed or skipped: {error!r}"])


if __name__ == "__main__":
    sys.exit(main())
