"""What the garbage collector does to latency: as the server sets it, and as Python leaves it.

    python -m bench.collector

The server freezes what is there at the start and has long thresholds. The same load with and without, in turn, so that
both see the same minutes of the machine; the pauses are measured inside the server (:mod:`bench.collector_server`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cases import Case, one_to, rooms_of_four
from bench.cc import NoCompiler
from bench.peers.trio_sfu_driver import TrioSfuServer
from bench.report import Cell, Section, run
from bench.result import Result
from bench.server_process import running_server, split_cpus
from bench.trial import Plan, measure

WAYS: Final = {"plain": "as Python leaves it", "tuned": "as the server sets it"}
_WRITES_WITHIN: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Round:
    """One run: what was measured from outside, and seconds of each collection by generation."""

    result: Result
    pauses: Sequence[Sequence[float]]


def measure_once(way: str, case: Case, plan: Plan) -> Round:
    """Raises :class:`NoCompiler`."""
    cpus = split_cpus()
    with tempfile.TemporaryDirectory(prefix="trio-sfu-collector-") as folder:
        path = Path(folder) / "pauses.json"
        module = ("bench.collector_server", way, str(path))
        with running_server(["--no-hls"], cpu=cpus[0] if cpus else None, module=module) as server:
            os.kill(server.pid, signal.SIGUSR1)
            result = measure("trio_sfu", TrioSfuServer(server.url, [server.pid]), case, plan)
            os.kill(server.pid, signal.SIGUSR1)
            deadline = time.monotonic() + _WRITES_WITHIN
            while not path.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError("the server wrote nothing of its collections")
                time.sleep(0.01)
            return Round(result, json.loads(path.read_text(encoding="utf-8")))


def row(case: Case, way: str, rounds: Sequence[Round]) -> tuple[Cell, ...]:
    """Figures of all rounds of one way, the latencies of each."""
    pauses = [seconds for each in rounds for generation in each.pauses for seconds in generation]
    return (
        case.name,
        WAYS[way],
        _each([each.result.median for each in rounds]),
        _each([each.result.latency_p50 for each in rounds]),
        _each([each.result.latency_p99 for each in rounds]),
        _each([each.result.latency_max for each in rounds]),
        " / ".join(str(sum(len(each.pauses[generation]) for each in rounds)) for generation in range(3)),
        max(pauses, default=0.0) * 1000,
        sum(pauses) * 1000 / len(rounds),
    )


def _each(values: Sequence[float | None]) -> str:
    return ", ".join("–" if value is None else f"{value:.2f}" for value in values)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--collector-rounds", type=int, metavar="N", help="of each way; default 2, quick 1")
    parser.add_argument("--collector-seconds", type=float, metavar="S", help="of load in each; default 4, quick 3")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    quick = arguments.quick
    plan = Plan(seconds=arguments.collector_seconds or (3.0 if quick else 4.0), warm_up=1.0)
    said = ["A collection's pause is in the latency of whatever comes meanwhile. Set-up and warm-up are in the counts."]
    rows: list[tuple[Cell, ...]] = []
    for case in (one_to(50), rooms_of_four(10)):
        found: dict[str, list[Round]] = {way: [] for way in WAYS}
        try:
            for _ in range(arguments.collector_rounds or (1 if quick else 2)):
                for way, rounds in found.items():
                    rounds.append(measure_once(way, case, plan))
        except NoCompiler as error:
            said.append(f"skipped: {error}")
            break
        rows += [row(case, way, rounds) for way, rounds in found.items()]
    yield Section(
        "collector",
        "The garbage collector",
        "python -m bench.collector",
        (
            "case",
            "collector",
            "µs a packet",
            "p50 ms",
            "p99 ms",
            "max ms",
            "collections by generation",
            "longest pause ms",
            "pauses ms a run",
        ),
        rows,
        said,
    )


def main(arguments: list[str] | None = None) -> int:
    return run("collector", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
