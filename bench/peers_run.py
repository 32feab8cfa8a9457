"""The same load against other servers, each on the same core, one after the other.

    python -m bench.peers --peers trio_sfu janus aiortc

1 → 10 (990 packets/s of video), and 10 rooms of four with audio and video. See :mod:`bench.peers` for who is there and
how to add one. A server that decodes (aiortc) is sent real VP8 of about the same rate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.cases import Case, one_to, rooms_of_four
from bench.cc import NoCompiler
from bench.clip import vp8_clip
from bench.floor import floor_pair
from bench.peers import DRIVERS, Driver, driver
from bench.plots import Plot
from bench.report import Section, run
from bench.result import HEADER, Result, described, row, steady
from bench.scene import Clip
from bench.server_process import split_cpus
from bench.trial import Plan, measure

CASES: Final = (one_to(10), rooms_of_four(10))


@dataclass(frozen=True, slots=True)
class _Outcome:
    results: Sequence[Result]
    notes: Sequence[str]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", nargs="+", choices=DRIVERS, default=list(DRIVERS))
    parser.add_argument("--peer-seconds", type=float, metavar="S", help="of load measured; default 8, quick 4")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    seconds = arguments.peer_seconds or (4.0 if arguments.quick else 8.0)
    plan = Plan(seconds=seconds, warm_up=1.5 if arguments.quick else 2.0)
    floor = floor_pair(peers=10, seconds=3.0 if arguments.quick else 6.0)
    outcomes = [_run(driver(name), plan) for name in arguments.peers]
    results = [result for outcome in outcomes for result in outcome.results]
    notes = [note for outcome in outcomes for note in outcome.notes]
    if any(driver(name).real_media for name in arguments.peers):
        notes.append(
            "aiortc encodes anew, at its own bit rate: its packets are other ones, and its share delivered "
            "compares their number with what was sent."
        )
    yield Section(
        "peers",
        "Other servers under the same load",
        "python -m bench.peers",
        ("server", *HEADER),
        [(result.server, *row(result, floor)) for result in results],
        [*notes, *described(results)],
        [
            Plot(
                "CPU per forwarded packet",
                "CPU µs per packet",
                bars={f"{r.case}: {r.server}": r.median for r in sorted(results, key=_by_case) if r.median is not None},
                log=True,
            )
        ]
        if results
        else [],
    )


def _by_case(result: Result) -> tuple[str, float]:
    return result.case, result.median or 0.0


def _run(peer: Driver, plan: Plan) -> _Outcome:
    missing = peer.missing()
    if missing:
        return _Outcome((), [f"{peer.name}: skipped, {missing}."])
    results, notes = [], []
    for case in CASES:
        try:
            clip = vp8_clip(case.video) if peer.real_media else None
            results.append(steady(partial(_measure, peer, case, plan, clip)))
        except NoCompiler as error:
            notes.append(f"{peer.name}, {case.name}: skipped, {error}.")
        except Exception as error:  # Another project's server: what breaks there must not end the run.
            notes.append(f"{peer.name}, {case.name}: failed, {error!r}.")
    return _Outcome(results, notes)


def _measure(peer: Driver, case: Case, plan: Plan, clip: Clip | None) -> Result:
    cpus = split_cpus()
    with peer.start(cpus[0] if cpus else None) as running:
        return measure(peer.name, running, case, plan, clip)


def main(arguments: list[str] | None = None) -> int:
    return run("peers", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
