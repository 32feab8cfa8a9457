"""What forwarding costs: over real UDP with real DTLS-SRTP, by case, beside the floor of the same run.

    python -m bench.forward --consumers 10 50 100

Starts the server as a process of its own, pinned to one CPU, and runs the load on another. A forwarded packet is one
that reached a consumer's socket. The server's CPU time is the scheduler's, of all its threads: receiving, RTCP and
reports are in it, and, on loopback, the kernel's work of delivering into the consumers' sockets. Latency is from the
producer's `send` to the consumer's socket. Every consumer sends receiver reports and transport-wide feedback ten times
a second. See :mod:`bench.measure` for which windows count, :mod:`bench.limit` for the highest rate.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from bench import limit
from bench.cases import FULL, QUICK, ROOM_RATES, VIDEO_RATE, Case, audio_to, one_to, rooms_of_four
from bench.cc import NoCompiler
from bench.dtls import CM, GCM, ClientIdentity
from bench.floor import FloorPair, floor_pair
from bench.machine import machine
from bench.peers import Running
from bench.peers.trio_sfu_driver import TrioSfuDriver, TrioSfuServer
from bench.plots import Plot
from bench.report import Section, run
from bench.result import HEADER, Result, described, row, steady
from bench.server_process import allow_files, split_cpus
from bench.trial import Plan, measure

_PROFILES: Final = {"gcm": GCM, "cm": CM}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--consumers", type=int, nargs="+", metavar="N", help="one video to each of these many")
    parser.add_argument("--rate", type=float, default=VIDEO_RATE, help="packets/s of that video; default 990")
    parser.add_argument("--rooms", type=int, nargs="+", metavar="N", help="so many rooms of four")
    parser.add_argument(
        "--room-rates", type=float, nargs=2, default=ROOM_RATES, metavar="R", help="of video and audio; default 250 50"
    )
    parser.add_argument("--audio", type=int, nargs="+", metavar="N", help="one audio to each of these many")
    parser.add_argument("--seconds", type=float, help="of load that is measured; default 6, quick 4")
    parser.add_argument("--warm-up", type=float, help="seconds of load before it; default 2, quick 1.5")
    parser.add_argument("--profile", choices=sorted(_PROFILES), default="gcm", help="cm: the generator in Python")
    parser.add_argument("--shape", choices=("burst", "even"), default="burst", help="even: the generator in Python")
    parser.add_argument("--python", action="store_true", help="the generator in Python, even where a compiler is there")
    parser.add_argument("--offload", action="store_true", help="receive with UDP_GRO, which spares the server work too")
    parser.add_argument("--no-feedback", dest="feedback", action="store_false", help="mute Python's consumers")
    parser.add_argument("--may-sleep", dest="awake", action="store_false", help="let the server's core sleep")
    parser.add_argument("--no-floor", dest="floor", action="store_false", help="do not measure the floor")
    parser.add_argument("--no-limit", dest="limit", action="store_false", help="do not look for the highest rate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything counted there")
    parser.add_argument("--url", help="use a running server; its CPU is measured if --pid is given")
    parser.add_argument("--pid", type=int, help="the running server's process")
    parser.add_argument("--server-option", action="append", default=[], metavar="OPTION", help="for the server")


def chosen(arguments: argparse.Namespace) -> Sequence[Case]:
    """The cases that were asked for, or those of the mode."""
    cases = [
        *(one_to(count, arguments.rate) for count in arguments.consumers or ()),
        *(rooms_of_four(count, *arguments.room_rates) for count in arguments.rooms or ()),
        *(audio_to(count) for count in arguments.audio or ()),
    ]
    return cases or (QUICK if arguments.quick else FULL)


def plan_of(arguments: argparse.Namespace) -> Plan:
    return Plan(
        seconds=arguments.seconds or (4.0 if arguments.quick else 6.0),
        warm_up=arguments.warm_up or (1.5 if arguments.quick else 2.0),
        awake=arguments.awake,
        python=arguments.python or arguments.profile == "cm" or arguments.shape == "even",
        even=arguments.shape == "even",
        feedback=arguments.feedback,
        offload=arguments.offload,
        identity=ClientIdentity(_PROFILES[arguments.profile]),
    )


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    plan = plan_of(arguments)
    floor = floor_pair(seconds=3.0 if arguments.quick else 6.0) if arguments.floor else FloorPair(None, None)
    results, notes = [], []
    cases = chosen(arguments)
    allow_files(3 * max(case.transports for case in cases))
    for case in cases:
        try:
            result = steady(partial(_measure, arguments, case, plan))
        except NoCompiler as error:
            notes.append(f"skipped: {error}")
            continue
        results.append(result)
        print(f"{case.name}: {result.median or 0:.2f} µs, {result.delivery_ratio:.2%}", file=sys.stderr, flush=True)
    if arguments.json is not None:
        report = {"machine": machine(), "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    yield _section(cases, results, floor, notes)
    if arguments.limit:
        limit_cases = limit.CASES[:1] if arguments.quick else limit.CASES
        yield limit.section(limit_cases, limit.default_seconds(arguments.quick), arguments.server_option)


def _measure(arguments: argparse.Namespace, case: Case, plan: Plan) -> Result:
    with ExitStack() as stack:
        return measure("trio_sfu", _server(arguments, stack), case, plan)


def _server(arguments: argparse.Namespace, stack: ExitStack) -> Running:
    if arguments.url is not None:
        return TrioSfuServer(arguments.url, [arguments.pid] if arguments.pid is not None else [])
    cpus = split_cpus()
    driver = TrioSfuDriver(("--no-hls", *arguments.server_option))
    return stack.enter_context(driver.start(cpus[0] if cpus is not None else None))


def _section(cases: Sequence[Case], results: Sequence[Result], floor: FloorPair, notes: Sequence[str]) -> Section:
    generators = {result.generator for result in results}
    said = [
        f"Floor of this run (C, 1 → 50, AES-128-GCM): {floor.plain:.2f} µs with sendmmsg, {floor.segmented:.2f} in GSO"
        " runs of 8."
        if floor.plain and floor.segmented
        else "No floor.",
        f"Generator: {', '.join(sorted(generators)) or 'none'}.",
    ]
    if split_cpus() is None:
        said.append("Only one CPU: server and generator share it, so the figures are too high.")
    return Section(
        "forward",
        "Forwarding",
        "python -m bench.forward",
        HEADER,
        [row(result, floor) for result in results],
        [*said, *notes, *described(results)],
        [
            Plot("CPU per forwarded packet", "CPU µs per packet", bars=_costs(results, floor)),
            *_by_consumers(cases, results, floor),
        ]
        if results
        else [],
    )


def _costs(results: Sequence[Result], floor: FloorPair) -> dict[str, float]:
    return {
        **{result.case: result.median for result in results if result.median is not None},
        **({"floor: C, sendmmsg, GCM": floor.plain} if floor.plain else {}),
        **({"floor: C, GSO runs of 8, GCM": floor.segmented} if floor.segmented else {}),
    }


def _by_consumers(cases: Sequence[Case], results: Sequence[Result], floor: FloorPair) -> Iterator[Plot]:
    """Of 1 → N: cost and latency by N, a line for each rate."""
    by_name = {case.name: case for case in cases}
    costs: dict[str, list[tuple[float, float]]] = {}
    late: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        case = by_name[result.case]
        if case.everyone or not case.video:
            continue
        for lines, value in ((costs, result.median), (late, result.latency_p99)):
            if value is not None:
                lines.setdefault(f"{case.video:g} packets/s", []).append((case.receivers, value))
    if not costs:
        return
    ends = [min(x for points in costs.values() for x, _ in points), max(x for line in costs.values() for x, _ in line)]
    if floor.plain:
        costs["floor: C, sendmmsg, GCM"] = [(x, floor.plain) for x in ends]
    yield Plot("CPU by consumers, 1 → N", "CPU µs per packet", "consumers", lines=costs)
    yield Plot("Latency by consumers, 1 → N", "p99 ms", "consumers", lines=late)


def main(arguments: list[str] | None = None) -> int:
    return run("forward", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
