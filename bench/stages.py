"""Where the server's time goes: CPU per stage of forwarding, per packet, with what each stage handled.

    python -m bench.stages --stage-consumers 50

Two runs of the same load: one measures what a packet costs (:mod:`bench.trial`), one samples where it goes
(:mod:`bench.stage_server`); sampling costs a few per cent, which is why the first is there. Per packet is per
forwarded packet, in all rows, so that the rows add up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.cases import Case, one_to, rooms_of_four
from bench.cc import NoCompiler
from bench.gauge import Gauge
from bench.peers.trio_sfu_driver import TrioSfuDriver, TrioSfuServer
from bench.plots import Plot
from bench.report import Cell, Section, run
from bench.scene import Scene, Totals
from bench.server_process import running_server, split_cpus
from bench.stage_table import STAGES
from bench.trial import Plan, measure, pinned


def sample(case: Case, seconds: float) -> tuple[dict[str, Any], Totals]:
    """What the sampler wrote, and what was forwarded meanwhile. Raises :class:`NoCompiler`."""
    cpus = split_cpus()
    cpu = cpus[0] if cpus is not None else None
    with tempfile.TemporaryDirectory(prefix="trio-sfu-stages-") as folder, ExitStack() as stack:
        path = Path(folder) / "samples.json"
        server = stack.enter_context(
            running_server(["--no-hls"], cpu=cpu, module=("bench.stage_server", str(path))),
        )
        if cpus is not None:
            stack.enter_context(Gauge(cpus[0]))
        stack.enter_context(pinned(cpus[1] if cpus is not None else None))
        scene = stack.enter_context(Scene(TrioSfuServer(server.url, [server.pid]), case))
        scene.run(1.5)
        scene.restart()
        os.kill(server.pid, signal.SIGUSR1)
        scene.run(seconds)
        os.kill(server.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 5
        while not path.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the sampler wrote nothing")
            time.sleep(0.01)
        return json.loads(path.read_text(encoding="utf-8")), scene.totals()


def table(samples: dict[str, int], cost: float, handled: dict[str, str]) -> list[tuple[Cell, ...]]:
    """Rows of stage, share, µs a forwarded packet, what it handled; the last one is the sum."""
    total = sum(samples.values()) or 1
    rows: list[tuple[Cell, ...]] = [
        (stage, f"{samples[stage] / total:.1%}", cost * samples[stage] / total, handled.get(stage, ""))
        for stage in STAGES
        if samples.get(stage)
    ]
    return [*rows, ("all", "100.0%", cost, f"{total} samples")]


def _handled(case: Case, totals: Totals, seconds: float) -> dict[str, str]:
    video_share = case.video / (case.video + case.audio)
    size = 1200 * video_share + 120 * (1 - video_share)
    into, out = totals.sent / seconds, totals.delivered / seconds
    feedback = case.rooms * case.receivers * 10
    came = f"{into:.0f} packets/s, {into * size / 1e6:.1f} MB/s"
    left = f"{out:.0f} packets/s, {out * (size + 16) / 1e6:.1f} MB/s"
    rtcp = f"{feedback} compounds/s"
    return {
        "receive": f"{came}; {rtcp}",
        "unprotect": came,
        "parse": came,
        "route": came,
        "rewrite": left,
        "protect": left,
        "send": left,
        "RTCP in": rtcp,
    }


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage-consumers", type=int, default=50, metavar="N")
    parser.add_argument("--stage-rooms", type=int, default=10, metavar="N", help="rooms of four; 0: none")
    parser.add_argument("--stage-seconds", type=float, metavar="S", help="of sampling; default 12, quick 8")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    seconds = arguments.stage_seconds or (8.0 if arguments.quick else 12.0)
    cases = [one_to(arguments.stage_consumers)]
    if arguments.stage_rooms:
        cases.append(rooms_of_four(arguments.stage_rooms))
    for case in cases:
        yield _section(case, seconds)


def _section(case: Case, seconds: float) -> Section:
    title, header = f"Stages: {case.name}", ("stage", "share", "µs a forwarded packet", "handled")
    cpus = split_cpus()
    try:
        with TrioSfuDriver().start(cpus[0] if cpus else None) as peer:
            result = measure("trio_sfu", peer, case, Plan(seconds=seconds / 2, warm_up=1.5))
        samples, totals = sample(case, seconds)
    except NoCompiler as error:
        return Section("stages", title, "python -m bench.stages", header, [], [f"skipped: {error}"])
    cost = result.median or 0.0
    largest = [
        f"{stage}: {function} ({where}) {count / sum(samples['stages'].values()):.1%}"
        for stage, where, function, count in samples["functions"][:12]
    ]
    return Section(
        f"stages-{case.name.replace(' ', '-').replace('→', 'to')}",
        title,
        "python -m bench.stages",
        header,
        table(samples["stages"], cost, _handled(case, totals, seconds)),
        [f"The largest functions: {'; '.join(largest)}."],
        [
            Plot(
                title,
                "CPU µs per forwarded packet",
                bars={
                    stage: cost * samples["stages"][stage] / sum(samples["stages"].values())
                    for stage in STAGES
                    if samples["stages"].get(stage)
                },
            )
        ],
    )


def main(arguments: list[str] | None = None) -> int:
    return run("stages", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
