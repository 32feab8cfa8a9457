"""What one case gave, its row in a table, and the sentences that make it doubtful.

Pure. Made by :mod:`bench.trial`, shown by :mod:`bench.forward` and :mod:`bench.peers_run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.floor import FloorPair
from bench.report import Cell


@dataclass(frozen=True, slots=True)
class Result:
    """Per packet: CPU µs of the server (``median`` over the windows that count). Latencies in ms, memory in MiB.

    ``packets_timely`` came before the load ended, and the costs are theirs; ``packets_out`` holds the later ones too.
    ``memory_per_transport`` is in KiB: a receiving transport beyond the first, with its user's signalling session and
    consumers, connected and not yet loaded.
    """

    server: str
    case: str
    generator: str
    seconds: float
    packets_in: int
    packets_out: int
    packets_timely: int
    delivery_ratio: float
    worst_ratio: float
    median: float | None
    best: float | None
    user: float | None
    system: float | None
    windows_kept: int
    windows: int
    speed: float | None
    server_cpu_share: float | None
    server_waited_share: float | None
    latency_p50: float | None
    latency_p99: float | None
    latency_max: float | None
    memory: float | None
    memory_per_transport: float | None
    server_drops: int
    generator_drops: int
    generator_cpu_share: float
    latest_burst: float
    recovered: int
    duplicates: int
    samples: int
    bad_samples: int


MOST_LATE: Final = 0.1
"""Seconds a burst may be late until a run is made again."""

HEADER: Final = (
    "case",
    "packets/s out",
    "delivered",
    "µs a packet",
    "best",
    "user",
    "system",
    "× floor",
    "× GSO floor",
    "server CPU",
    "p50 ms",
    "p99 ms",
    "max ms",
    "MiB",
    "KiB a transport",
)


def percentile(sorted_values: Sequence[int], share: float) -> float | None:
    """Nearest-rank; None of nothing."""
    if not sorted_values:
        return None
    return float(sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))])


def row(result: Result, floor: FloorPair) -> tuple[Cell, ...]:
    """Under :data:`HEADER`."""
    return (
        result.case,
        round(result.packets_timely / result.seconds),
        f"{result.delivery_ratio:.2%}",
        result.median,
        result.best,
        *_split(result),
        floor.multiple(result.median),
        floor.multiple_of_segmented(result.median),
        None if result.server_cpu_share is None else f"{result.server_cpu_share:.0%}",
        result.latency_p50,
        result.latency_p99,
        result.latency_max,
        None if result.memory is None else round(result.memory),
        None if result.memory_per_transport is None else round(result.memory_per_transport),
    )


def _split(result: Result) -> tuple[float | None, float | None]:
    """The median in user and system mode, by their shares of the whole run."""
    if result.median is None or result.user is None or result.system is None:
        return None, None
    share = result.user / ((result.user + result.system) or 1.0)
    return result.median * share, result.median * (1 - share)


def steady(measure: Callable[[], Result]) -> Result:
    """What ``measure`` gives, once more where the generator could not send in time: that was not the server's load."""
    result = measure()
    if result.latest_burst <= MOST_LATE:
        return result
    return min(result, measure(), key=lambda each: each.latest_burst)


def remarks(result: Result, best_speed: float | None = None) -> list[str]:
    """Sentences about anything that makes the row doubtful.

    :param best_speed: the highest gauge speed of the whole run.
    """
    said = []
    if result.windows_kept < result.windows:
        said.append(f"{result.windows - result.windows_kept} of {result.windows} windows were slow and do not count")
    if best_speed and result.speed and result.speed < 0.9 * best_speed:
        said.append(f"the core was at {result.speed / best_speed:.0%} of the run's best speed throughout")
    if result.delivery_ratio < 0.99 and (result.server_cpu_share or 0.0) > 0.9:
        said.append("more than one core carries: what is not delivered costs nothing, so the row is no measure")
    if result.server_drops:
        said.append(f"the server's receive queue dropped {result.server_drops} packets")
    # A server of many threads waits for itself, too: nothing can be said of it.
    if result.server == "trio_sfu" and result.server_waited_share is not None and result.server_waited_share > 0.02:
        said.append(
            f"other processes took the server's CPU: it was ready but not run {result.server_waited_share:.0%}"
            " of the time, and latency is the worse for it"
        )
    if result.generator_drops:
        said.append(f"the generator's own queues dropped {result.generator_drops} packets (they count as forwarded)")
    if result.generator_cpu_share > 0.85:
        said.append(f"the generator used {result.generator_cpu_share:.0%} of its core: it may be the bottleneck")
    if result.latest_burst > 0.02:
        said.append(f"a burst was sent {result.latest_burst * 1000:.0f} ms late: the machine was busy")
    if result.bad_samples:
        said.append(f"{result.bad_samples} of {result.samples} decrypted samples were wrong")
    if result.recovered or result.duplicates:
        said.append(f"{result.recovered} packets came by retransmission, {result.duplicates} came twice")
    return said


def described(results: Sequence[Result]) -> list[str]:
    """Each remark once, with its case."""
    speeds = {result.case: result.speed for result in results if result.speed}
    best = max(speeds.values(), default=None)
    return [
        f"{result.server}, {result.case}: {'; '.join(said)}." for result in results if (said := remarks(result, best))
    ]
