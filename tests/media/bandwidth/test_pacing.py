"""What waits where a path is narrow: order, how long, and that nothing is lost or sent twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.limited_viewer import Scene
from trio_sfu.media.bandwidth.pacing import Pacer
from trio_sfu.media.packet import Batch, make_packet


class Taker:
    """Stands for a consumer: takes what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, int, int]] = []  # when, number, bytes
        self.faults: list[Exception] = []
        self.broken = False
        self.on_fault: Callable[[], object] = lambda: None

    def send(self, batch: Batch, now: float) -> None:
        if self.broken:
            raise ValueError("a bug")
        self.sent += [(now, packet.sequence_number, packet.size) for packet in batch]

    def fault(self, error: Exception) -> None:
        self.faults.append(error)
        self.on_fault()

    @property
    def numbers(self) -> list[int]:
        return [number for _, number, _ in self.sent]


def batch(*numbers: int, size: int = 1000) -> Batch:
    return Batch(
        [
            make_packet(number, 0, 96, False, (False, b""), bytes(size), keyframe=False, arrival=0.0)
            for number in numbers
        ]
    )


def offer(pacer: Pacer, taker: Any, packets: Batch, now: float) -> None:
    if pacer.rate is not None:
        pacer.send(taker, packets, now)
    else:
        taker.send(packets, now)


def test_a_burst_goes_out_at_the_rate() -> None:
    pacer, taker = Pacer(), Taker()
    pacer.set_rate(400_000, 0)
    offer(pacer, taker, batch(*range(20)), 0)
    at_once = len(taker.sent)
    assert 0 < at_once < 5
    for step in range(1, 11):
        pacer.release(step * 0.02)
    # 50 bytes a millisecond, a packet of credit more or less
    assert abs(sum(size for _, _, size in taker.sent[at_once:]) - 0.2 * 50_000) <= 2000
    for step in range(11, 100):
        pacer.release(step * 0.02)
    assert taker.numbers == list(range(20))
    assert max(at for at, _, _ in taker.sent) <= 0.62
    assert not pacer.is_holding


def test_ordinary_frames_do_not_wait() -> None:
    pacer, taker = Pacer(), Taker()
    pacer.set_rate(400_000, 0)
    for step in range(50):
        offer(pacer, taker, batch(step, size=1500), step * 0.04)
        assert not pacer.is_holding
    assert len(taker.sent) == 50


def test_no_rate_holds_nothing_any_more() -> None:
    pacer, taker = Pacer(), Taker()
    assert pacer.rate is None
    pacer.set_rate(100_000, 0)
    offer(pacer, taker, batch(*range(10)), 0)
    assert pacer.is_holding
    pacer.set_rate(None, 0.01)
    assert taker.numbers == list(range(10))
    assert pacer.rate is None


def test_what_is_dropped_is_not_sent_and_what_is_flushed_is() -> None:
    pacer, one, other = Pacer(), Taker(), Taker()
    pacer.set_rate(100_000, 0)
    offer(pacer, one, batch(*range(10)), 0)
    offer(pacer, other, batch(*range(50, 60)), 0)
    sent = len(one.sent)
    assert not other.sent
    pacer.drop(one)  # type: ignore[arg-type]
    pacer.flush(other, 0.01)  # type: ignore[arg-type]
    assert not pacer.is_holding
    pacer.release(1)
    assert one.numbers == list(range(sent))
    assert other.numbers == list(range(50, 60))


def test_a_bug_of_one_is_told_and_others_are_served() -> None:
    pacer, one, other = Pacer(), Taker(), Taker()
    pacer.set_rate(100_000, 0)
    offer(pacer, one, batch(*range(10)), 0)
    offer(pacer, other, batch(50), 0)
    one.broken = True
    pacer.release(1)
    assert len(one.faults) == 1
    assert other.numbers == [50]


def test_who_is_closed_for_a_bug_while_others_wait_changes_nothing_for_them() -> None:
    pacer, one, other = Pacer(), Taker(), Taker()
    pacer.set_rate(100_000, 0)
    for number in range(5):
        offer(pacer, one, batch(number), 0)
        offer(pacer, other, batch(50 + number), 0)
    sent = len(one.sent), len(other.sent)
    one.broken = True
    one.on_fault = lambda: pacer.drop(one)  # type: ignore[arg-type]
    pacer.release(1)
    assert len(one.faults) == 1
    assert len(one.sent) == sent[0]
    assert other.numbers == list(range(50, 55))
    assert not pacer.is_holding


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 15), st.floats(0, 0.05), st.sampled_from([None, 1e5, 5e5, 5e6])),
        max_size=40,
    )
)
def test_order_holds_and_nothing_waits_for_long(steps: list[tuple[int, int, float, float | None]]) -> None:
    pacer, takers = Pacer(), (Taker(), Taker())
    now = 0.0
    offered: dict[int, float] = {}
    rate: float | None = None
    for which, count, wait, rate in steps:
        pacer.set_rate(rate, now)
        numbers = range(len(offered), len(offered) + count)
        offered |= dict.fromkeys(numbers, now)
        packets = Batch([each._replace(timestamp=which) for each in batch(*numbers)])
        offer(pacer, takers[which], packets, now)
        now += wait
        pacer.release(now)
    for _ in range(40):
        now += 0.02
        pacer.release(now)
    sent = sorted(takers[0].sent + takers[1].sent, key=lambda each: each[1])
    assert [number for _, number, _ in sent] == list(offered)
    assert [at for at, _, _ in sent] == sorted(at for at, _, _ in sent)
    assert all(at - offered[number] <= 0.6 + 0.051 for at, number, _ in sent)
    assert not pacer.is_holding


def test_a_keyframe_does_not_fill_the_queue_of_a_narrow_path() -> None:
    """Somebody else has asked for a keyframe, ten times a frame: a third of a second for the path."""
    scene = Scene()
    sender, viewer = scene.sender((80_000, 240_000, 900_000)), scene.viewer(400_000)
    sender.keyframe = 10
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    viewer.consume(scene.speaker())
    scene.run(10)
    control = viewer.session.session.bandwidth
    assert control is not None
    assert control.pacer.rate is not None
    longest = 0.0
    for _ in range(5):
        sender.key_wanted |= {0, 1, 2}
        for _ in range(100):
            scene.run(0.02)
            longest = max(longest, viewer.link.free_at - scene.call.now)
    assert 0.05 < longest < 0.2
    numbers = [packet.sequence_number for packet in viewer.session.sink.of(consumer.ssrc)]
    assert numbers == [number & 0xFFFF for number in range(numbers[0], numbers[0] + len(numbers))]
    viewer.link.rate = None
    scene.run(20)
    assert control.pacer.rate is None
