"""The round trip to a sender: from the references that were sent, whatever comes back."""

import pytest

from tests.support.media_core import Call, FakeSession, video
from trio_sfu.media.round_trip import RoundTrip
from trio_sfu.wire.rtcp import Dlrr, ExtendedReport, GenericNack, ReceiverReferenceTime, ReceiverReport


def ntp(seconds: float) -> int:
    return int((3_900_000_000 + seconds) * 4294967296)


def middle(seconds: float) -> int:
    return ntp(seconds) >> 16 & 0xFFFFFFFF


def units(seconds: float) -> int:
    return round(seconds * 65536)


def test_nothing_is_known_before_an_answer() -> None:
    trip = RoundTrip()
    trip.refer(ntp(0), 100.0)
    assert (trip.latest, trip.patience) == (None, 0.0)


def test_the_time_that_the_answer_lay_there_does_not_count() -> None:
    trip = RoundTrip()
    trip.refer(ntp(0), 100.0)
    trip.on_answer(middle(0), units(0.4), 100.48)
    assert trip.latest == pytest.approx(0.08, abs=0.001)
    assert 0.08 <= trip.patience <= 0.13


def test_patience_comes_down_to_a_steady_round_trip_and_goes_up_with_an_unsteady_one() -> None:
    steady, unsteady = RoundTrip(), RoundTrip()
    for second in range(60):
        for trip, took in ((steady, 0.2), (unsteady, 0.2 + second % 2 * 0.1)):
            trip.refer(ntp(second), 100.0 + second)
            trip.on_answer(middle(second), units(0.5), 100.5 + second + took)
    assert steady.patience == pytest.approx(0.2, abs=0.005)
    assert unsteady.patience > 0.3


@pytest.mark.parametrize(
    ("reference", "delay"),
    [(middle(5), 0), (0, 0), (middle(0), units(0.6)), (middle(0), 0xFFFFFFFF)],
    ids=["unknown", "none", "longer than it was", "far longer"],
)
def test_what_cannot_be_is_not_believed(reference: int, delay: int) -> None:
    trip = RoundTrip()
    trip.refer(ntp(0), 100.0)
    trip.on_answer(reference, delay, 100.5)
    assert trip.latest is None


def test_references_are_bounded_and_the_oldest_go() -> None:
    trip = RoundTrip()
    for second in range(100):
        trip.refer(ntp(second), 100.0 + second)
    trip.on_answer(middle(80), 0, 200.0)
    assert trip.latest is None
    trip.on_answer(middle(90), 0, 190.25)
    assert trip.latest == 0.25


def test_patience_has_an_end() -> None:
    trip = RoundTrip()
    trip.refer(ntp(0), 100.0)
    trip.on_answer(middle(0), 0, 130.0)
    assert trip.patience == 1.0


# -- in a session


def answer(sender: FakeSession, call: Call, round_trip: float) -> None:
    """The sender answers the latest reference after ``round_trip``, of which it had it for no time at all."""
    references = [
        block.ntp_time
        for item in sender.sink.take_rtcp()
        if isinstance(item, ExtendedReport)
        for block in item.blocks
        if isinstance(block, ReceiverReferenceTime)
    ]
    call.pass_time(round_trip)
    item = (sender.session.ssrc, references[-1] >> 16 & 0xFFFFFFFF, 0)
    sender.feed_rtcp(ReceiverReport(1), ExtendedReport(1, (Dlrr((item,)),)))


def wait_for_reference(call: Call, sender: FakeSession) -> None:
    """Until one has just been sent."""
    sender.sink.take_rtcp()
    for _ in range(200):
        call.pass_time(0.01)
        if any(isinstance(item, ExtendedReport) for item in sender.sink.rtcp):
            return
    raise AssertionError("no reference time in 2 s")


@pytest.mark.parametrize("round_trip", [0.03, 0.3])
def test_nacks_are_repeated_after_the_round_trip(round_trip: float) -> None:
    call = Call()
    sender = call.session()
    producer = call.produce_video(sender)
    sender.feed(video(0, key=True))
    for _ in range(20):
        wait_for_reference(call, sender)
        answer(sender, call, round_trip)
    assert producer.round_trip == pytest.approx(round_trip, abs=0.002)
    sender.sink.take_rtcp()
    asked: list[float] = []
    sender.feed(video(2))
    begin = call.now
    while len(asked) < 4:
        asked += [call.now - begin for item in sender.sink.take_rtcp() if isinstance(item, GenericNack)]
        call.pass_time(0.005)
        assert call.now < begin + 3
    assert asked == pytest.approx([n * round_trip for n in range(4)], abs=0.025 * 3 + 0.01)


def test_references_go_to_those_who_send_only() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    call.consume(viewer, producer)
    sender.feed(video(0, key=True))
    call.pass_time(3.0)
    assert [item for item in sender.sink.rtcp if isinstance(item, ExtendedReport)]
    assert not [item for item in viewer.sink.rtcp if isinstance(item, ExtendedReport)]
    assert viewer.session.round_trip.latest is None


def test_answers_to_somebody_else_are_not_ours() -> None:
    call = Call()
    sender = call.session()
    producer = call.produce_video(sender)
    sender.feed(video(0, key=True))
    wait_for_reference(call, sender)
    reference = [
        block.ntp_time
        for item in sender.sink.take_rtcp()
        if isinstance(item, ExtendedReport)
        for block in item.blocks
        if isinstance(block, ReceiverReferenceTime)
    ][-1]
    other = sender.session.ssrc ^ 1
    sender.feed_rtcp(ReceiverReport(1), ExtendedReport(1, (Dlrr(((other, reference >> 16 & 0xFFFFFFFF, 0),)),)))
    assert producer.round_trip is None
    assert not sender.faults + sender.abuses
