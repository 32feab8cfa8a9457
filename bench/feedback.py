"""What transport-wide feedback costs the server: reading it, the estimate, and noting what is sent.

Run as ``python -m bench.feedback``; needs no server and no network.
"""

from __future__ import annotations

from random import Random
from time import perf_counter
from typing import Final, NamedTuple

from trio_sfu.media.bandwidth.estimator import BandwidthEstimator
from trio_sfu.wire.rtcp import TransportFeedback, parse_compound
from trio_sfu.wire.transport_feedback import build

_MESSAGES: Final = 400
_PER_MESSAGE: Final = 100
_REPEATS: Final = 7


class Load(NamedTuple):
    """``batch`` packets leave together each ``gap`` seconds; ``loss`` is a share."""

    name: str
    batch: int
    gap: float
    loss: float = 0.0


class Cost(NamedTuple):
    """Microseconds: of parsing and of the estimate for each packet reported, of ``on_sent`` for each call."""

    parse: float
    estimate: float
    sent: float


LOADS: Final = (
    Load("frames of 10 packets", 10, 0.033),
    Load("frames of 10 packets, 5 % lost", 10, 0.033, 0.05),
    Load("batches of 20, 10 ms apart", 20, 0.01),
    Load("batches of 2, 2 ms apart", 2, 0.002),
    Load("single packets, 20 ms apart", 1, 0.02),
)


def measure(load: Load) -> Cost:
    """The best of some runs."""
    return min((_run(load) for _ in range(_REPEATS)), key=sum)


def _run(load: Load) -> Cost:
    random = Random(1)
    estimator = BandwidthEstimator()
    now = 10.0
    number = base = 0x10000
    arrivals: list[tuple[int, float]] = []
    parsing = estimating = sending = 0.0
    reported = calls = 0
    for _ in range(_MESSAGES * _PER_MESSAGE // load.batch):
        begin = perf_counter()
        estimator.on_sent(number & 0xFFFF, load.batch * 1200, load.batch, now)
        sending += perf_counter() - begin
        calls += 1
        for index in range(load.batch):
            if random.random() >= load.loss:
                arrivals.append((number + index, now + 0.02 + index * 0.0001))
        number += load.batch
        if number - base >= _PER_MESSAGE:
            for message in build(1, 2, 0, arrivals, base):
                data = message.to_bytes()
                begin = perf_counter()
                (packet,) = parse_compound(data)
                read = perf_counter()
                assert isinstance(packet, TransportFeedback)
                estimator.on_feedback(packet, now + 0.04)
                estimating += perf_counter() - read
                parsing += read - begin
                reported += len(packet.deltas)
            base = number
            arrivals = []
        now += load.gap
    return Cost(parsing / reported * 1e6, estimating / reported * 1e6, sending / calls * 1e6)


def main() -> None:
    """Print a line for each kind of load."""
    print(f"feedback on {_PER_MESSAGE} packets a message; µs a packet reported, µs a call")
    for load in LOADS:
        cost = measure(load)
        print(
            f"{load.name:32} parse {cost.parse:.3f}  estimate {cost.estimate:.3f}  "
            f"together {cost.parse + cost.estimate:.3f}  on_sent {cost.sent:.2f}"
        )


if __name__ == "__main__":
    main()
