"""What fan-out costs at the least on this machine: the same load in C, in the same units.

    python -m bench.floor --floor-peers 50

One producer of 990 packets/s x 1200 B, in 30 bursts a second, to N peers over loopback UDP: received, decrypted and
encrypted for each peer (or not), sent with sendto, sendmmsg, or sendmmsg with UDP_SEGMENT in runs of 8 and 33. No
signalling, no RTCP, no choice of anything: nothing that forwards can cost less, so the other parts say what they cost
as a multiple of it. Written in C (``bench/floor.c``) and compiled when it runs; without a compiler there is no floor.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.cc import NoCompiler, compiled
from bench.gauge import Gauge, speed_between
from bench.measure import Cost, Window, cost, sibling_slowdown
from bench.plots import Plot
from bench.report import Section, run
from bench.server_process import split_cpus

WAYS: Final = {"one": "sendto", "many": "sendmmsg", "8": "sendmmsg, GSO runs of 8", "33": "sendmmsg, GSO runs of 33"}


@dataclass(frozen=True, slots=True)
class Floor:
    """One way of sending. ``user`` and ``system`` are CPU µs a packet of the whole run, ``cost`` by windows."""

    way: str
    encrypted: bool
    peers: int
    cost: Cost
    user: float
    system: float
    delivered: float


def parse_output(text: str, speeds: list[float | None]) -> tuple[list[Window], float, float, int, int]:
    """Windows, user and system CPU seconds, packets out and delivered, of what ``floor.c`` printed.

    :param speeds: the gauge's, one a window.
    """
    windows: list[Window] = []
    total = None
    for line in text.splitlines():
        name, *figures = line.split()
        if name == "window":
            cpu, packets = map(int, figures)
            windows.append(Window(cpu / 1e9, packets, speeds[len(windows)] if len(windows) < len(speeds) else None))
        elif name == "total":
            total = [int(figure) for figure in figures]
    if total is None:
        raise ValueError("the floor's program ended without its total")
    user, system, out, delivered = total
    return windows, user / 1e6, system / 1e6, out, delivered


def measure(way: str, *, encrypted: bool, peers: int, seconds: float) -> Floor:
    """Run one way. Raises :class:`NoCompiler`."""
    program = compiled("floor.c", crypto=True)
    server, others = split_cpus() or (0, 0)
    command = [str(program), way, str(int(encrypted)), str(peers), str(seconds), str(server), str(others)]
    lines, speeds = [], []
    with Gauge(server) as gauge, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        before = gauge.read()
        assert process.stdout is not None
        for line in process.stdout:
            now = gauge.read()
            if line.startswith("window"):
                speeds.append(speed_between(before, now))
            before = now
            lines.append(line)
    windows, user, system, out, delivered = parse_output("".join(lines), speeds)
    found = cost(windows[1:] or windows)  # the first one is warm-up
    assert found is not None
    return Floor(way, encrypted, peers, found, user * 1e6 / out, system * 1e6 / out, delivered / out)


@dataclass(frozen=True, slots=True)
class FloorPair:
    """What others are compared with, CPU µs a packet: sendmmsg, and GSO in runs of 8, both with AES-128-GCM."""

    plain: float | None
    segmented: float | None

    def multiple(self, value: float | None) -> float | None:
        """``value`` as a multiple of sendmmsg with GCM."""
        return value / self.plain if value is not None and self.plain else None

    def multiple_of_segmented(self, value: float | None) -> float | None:
        return value / self.segmented if value is not None and self.segmented else None


def floor_pair(peers: int = 50, seconds: float = 4.0) -> FloorPair:
    """Measure both, or say on standard error why not."""
    try:
        plain, segmented = (measure(way, encrypted=True, peers=peers, seconds=seconds) for way in ("many", "8"))
    except NoCompiler as error:
        print(f"no floor: {error}", file=sys.stderr)
        return FloorPair(None, None)
    return FloorPair(plain.cost.median, segmented.cost.median)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--floor-peers", type=int, default=50, metavar="N")
    parser.add_argument("--floor-seconds", type=float, metavar="S", help="for each way; default 5, quick 3")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    seconds = arguments.floor_seconds or (3.0 if arguments.quick else 5.0)
    cpus = split_cpus()
    found, remarks = [], []
    try:
        found = [
            measure(way, encrypted=encrypted, peers=arguments.floor_peers, seconds=seconds)
            for way in WAYS
            for encrypted in (False, True)
        ]
    except NoCompiler as error:
        remarks.append(f"skipped: {error}")
    if cpus is not None:
        remarks.append(f"The server's core is {sibling_slowdown(cpus):.2f} × slower while the generator's is busy.")
    names = [f"{WAYS[each.way]}, {'AES-128-GCM' if each.encrypted else 'bare'}" for each in found]
    yield Section(
        "floor",
        f"Floor: 1 → {arguments.floor_peers} in C",
        f"python -m bench.floor --floor-peers {arguments.floor_peers}",
        ("way", "median µs a packet", "best µs", "µs user", "µs system", "delivered", "windows kept"),
        [
            (
                name,
                each.cost.median,
                each.cost.best,
                each.user,
                each.system,
                f"{each.delivered:.2%}",
                f"{each.cost.kept} of {each.cost.total}",
            )
            for name, each in zip(names, found, strict=True)
        ],
        remarks,
        [
            Plot(
                f"Floor: 1 → {arguments.floor_peers} in C",
                "CPU µs per packet",
                bars={name: each.cost.median for name, each in zip(names, found, strict=True)},
            )
        ]
        if found
        else [],
    )


def main(arguments: list[str] | None = None) -> int:
    return run("floor", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
