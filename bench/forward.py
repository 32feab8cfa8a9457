"""What forwarding costs: one producer to N consumers, over real UDP with real DTLS-SRTP.

    python -m bench.forward --consumers 10 50 100

Starts the server as a process of its own, pinned to one CPU, runs the load on another, and prints for each N
the server's CPU time per forwarded packet, the share delivered, and how long packets took to pass through
it. A forwarded packet is one that reached a consumer's socket. The server's CPU time is what /proc/PID/stat
says over the measured window, all threads: receiving, RTCP and reports are in it, and, on loopback, the
kernel's work of delivering into the consumers' sockets.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.dtls import CM, GCM, ClientIdentity
from bench.load import EVEN_RATE, FRAMES_PER_SECOND, Call, Shape, percentile
from bench.server_process import CpuTime, CpuWindows, kept_awake, resident_memory, running_server, split_cpus
from bench.users import PACKETS_PER_FRAME

_PROFILES = {"gcm": GCM, "cm": CM}


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the output; times per packet in µs, latencies in ms, memory in MiB."""

    consumers: int
    profile: str
    shape: str
    seconds: float
    packets_in: int
    packets_out: int
    delivery_ratio: float
    cpu_user_us: float | None
    cpu_system_us: float | None
    cpu_total_us: float | None
    cpu_median_second_us: float | None
    cpu_best_second_us: float | None
    server_cpu_share: float | None
    server_waited_share: float | None
    latency_p50_ms: float
    latency_p99_ms: float
    latency_max_ms: float
    memory_mib: float | None
    server_drops: int
    generator_drops: int
    generator_cpu_share: float
    generator_latest_burst_ms: float
    recovered: int
    duplicates: int
    samples: int
    bad_samples: int
    worst_consumer_ratio: float


def measure(
    url: str,
    pid: int | None,
    consumers: int,
    *,
    profile: str,
    shape: Shape,
    seconds: float,
    warm_up: float,
    feedback: bool,
) -> Result:
    """Run one call against the server at ``url`` and measure one window of it."""
    with Call(url, consumers, ClientIdentity(_PROFILES[profile]), feedback=feedback) as call:
        call.run(warm_up, shape)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            counts = call.restart_counts()
            server_drops, generator_drops = call.server_drops(), call.generator_drops()
            cpu = CpuTime.read(pid) if pid is not None else None
            own, start = time.process_time(), time.monotonic()
            with ExitStack() as stack:
                windows = stack.enter_context(CpuWindows(pid)) if pid is not None else None
                call.run(seconds, shape)
            wall = time.monotonic() - start
            own = time.process_time() - own
            cpu_after = CpuTime.read(pid) if pid is not None else None
        finally:
            gc.enable()
            gc.unfreeze()
        generator_drops = call.generator_drops() - generator_drops
        user = system = None
        out = counts.delivered + generator_drops
        if cpu is not None and cpu_after is not None and out:
            user = (cpu_after.user - cpu.user) * 1e6 / out
            system = (cpu_after.system - cpu.system) * 1e6 / out
        # The last second may be shorter than the load was.
        a_second = [each * 1e6 * seconds / max(1, out) for each in windows.seconds[:-1]] if windows else []
        latencies = sorted(counts.latencies)
        return Result(
            consumers=consumers,
            profile=profile,
            shape=shape,
            seconds=seconds,
            packets_in=counts.sent,
            packets_out=out,
            delivery_ratio=counts.delivered / max(1, counts.sent * consumers),
            cpu_user_us=user,
            cpu_system_us=system,
            cpu_total_us=user + system if user is not None and system is not None else None,
            cpu_median_second_us=statistics.median(a_second) if a_second else None,
            cpu_best_second_us=min(a_second) if a_second else None,
            server_cpu_share=(user + system) * out / 1e6 / wall if user is not None and system is not None else None,
            server_waited_share=(
                (cpu_after.waited - cpu.waited) / wall if cpu is not None and cpu_after is not None else None
            ),
            latency_p50_ms=percentile(latencies, 0.50),
            latency_p99_ms=percentile(latencies, 0.99),
            latency_max_ms=percentile(latencies, 1.0),
            memory_mib=resident_memory(pid) / (1 << 20) if pid is not None else None,
            server_drops=call.server_drops() - server_drops,
            generator_drops=generator_drops,
            generator_cpu_share=own / wall,
            generator_latest_burst_ms=counts.latest_burst * 1000,
            recovered=counts.recovered,
            duplicates=counts.duplicates,
            samples=counts.samples,
            bad_samples=counts.bad_samples,
            worst_consumer_ratio=min(consumer.delivered for consumer in call.consumers) / max(1, counts.sent),
        )


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": f"{model or platform.machine()}, {os.cpu_count()} CPUs",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


_COLUMNS = (
    ("N", "consumers", "d"),
    ("packets out", "packets_out", "d"),
    ("delivered", "delivery_ratio", ".4%"),
    ("µs user", "cpu_user_us", ".2f"),
    ("µs system", "cpu_system_us", ".2f"),
    ("µs a packet", "cpu_total_us", ".2f"),
    ("median s", "cpu_median_second_us", ".2f"),
    ("best s", "cpu_best_second_us", ".2f"),
    ("server CPU", "server_cpu_share", ".0%"),
    ("p50 ms", "latency_p50_ms", ".2f"),
    ("p99 ms", "latency_p99_ms", ".2f"),
    ("max ms", "latency_max_ms", ".2f"),
    ("RSS MiB", "memory_mib", ".0f"),
)


def heading() -> str:
    return "  ".join(title.rjust(11) for title, _, _ in _COLUMNS)


def row(result: Result) -> str:
    cells = []
    for _, name, form in _COLUMNS:
        value = getattr(result, name)
        cells.append("–".rjust(11) if value is None else format(value, form).rjust(11))
    return "  ".join(cells)


def remarks(result: Result) -> list[str]:
    """Sentences about anything that makes the row doubtful."""
    said = []
    if result.server_drops:
        said.append(f"the server's receive queue dropped {result.server_drops} packets")
    if result.server_waited_share is not None and result.server_waited_share > 0.02:
        said.append(
            f"other processes took the server's CPU: it was ready but not run {result.server_waited_share:.0%}"
            " of the time, and latency is the worse for it"
        )
    if result.generator_drops:
        said.append(f"the generator's own queues dropped {result.generator_drops} packets (they count as forwarded)")
    if result.generator_cpu_share > 0.85:
        said.append(f"the generator used {result.generator_cpu_share:.0%} of its core: it may be the bottleneck")
    if result.generator_latest_burst_ms > 20:
        said.append(f"a burst was sent {result.generator_latest_burst_ms:.0f} ms late: the machine was busy")
    if result.bad_samples:
        said.append(f"{result.bad_samples} of {result.samples} decrypted samples were wrong")
    if result.recovered or result.duplicates:
        said.append(f"{result.recovered} packets came by retransmission, {result.duplicates} came twice")
    return said


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    cpus = split_cpus()
    if cpus is None:
        print("only one CPU: server and generator share it, so the figures are too high", file=sys.stderr)
    for name, value in machine().items():
        print(f"{name}: {value}")
    rate = PACKETS_PER_FRAME * FRAMES_PER_SECOND if options.shape == "burst" else EVEN_RATE
    shape = f"{FRAMES_PER_SECOND} bursts of {PACKETS_PER_FRAME}" if options.shape == "burst" else "evenly spaced"
    feedback = "reports, transport feedback and NACKs from every consumer" if options.feedback else "no feedback"
    print(
        f"load: {rate} packets/s of 1200 B, {shape}; SRTP {options.profile}; {feedback}; "
        f"the server's core {'kept awake' if options.awake else 'may sleep'}; {options.seconds:g} s measured\n"
    )
    print(heading(), flush=True)
    results = []
    for consumers in options.consumers:
        with ExitStack() as stack:
            url, pid = options.url, options.pid
            if url is None:
                server = stack.enter_context(running_server(options.server_option, cpu=cpus[0] if cpus else None))
                url, pid = server.url, server.pid
            if cpus is not None:
                if options.awake:
                    stack.enter_context(kept_awake(cpus[0]))
                stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
                os.sched_setaffinity(0, {cpus[1]})
            result = measure(
                url,
                pid,
                consumers,
                profile=options.profile,
                shape=options.shape,
                seconds=options.seconds,
                warm_up=options.warm_up,
                feedback=options.feedback,
            )
        results.append(result)
        print(row(result), flush=True)
        for remark in remarks(result):
            print(f"{'':11}  {remark}", flush=True)
    if options.json is not None:
        report = {"machine": machine(), "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.forward", description=__doc__.splitlines()[0])
    parser.add_argument("--consumers", type=int, nargs="+", default=[10, 50, 100], metavar="N")
    parser.add_argument("--profile", choices=sorted(_PROFILES), default="gcm", help="the SRTP profile to offer")
    parser.add_argument("--shape", choices=("burst", "even"), default="burst")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the measured window")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds of load before it")
    parser.add_argument("--no-feedback", dest="feedback", action="store_false", help="mute the consumers")
    parser.add_argument(
        "--may-sleep", dest="awake", action="store_false", help="do not keep the server's core awake between bursts"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything counted there")
    parser.add_argument("--url", help="use a running server; its CPU is measured if --pid is given")
    parser.add_argument("--pid", type=int, help="the running server's process")
    parser.add_argument(
        "--server-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="one more argument for the server (repeatable)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
