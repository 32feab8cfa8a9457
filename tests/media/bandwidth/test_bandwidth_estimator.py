"""The estimator's face: what holds before, without and besides transport-wide feedback."""

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.media.bandwidth.estimator import BandwidthEstimator
from trio_sfu.wire.transport_feedback import TransportFeedback, build


def send(estimator: BandwidthEstimator, now: float, seconds: float, *, number: int = 0) -> None:
    for step in range(int(seconds * 50)):
        estimator.on_sent(number + step & 0xFFFF, 1000, 1, now + step / 50)
        estimator.tick(now + step / 50)


def answer(estimator: BandwidthEstimator, first: int, count: int, now: float) -> None:
    for message in build(1, 2, 0, [(0x10000 + first + index, now + index / 50) for index in range(count)], 0):
        estimator.on_feedback(message, now + count / 50)


def test_who_has_negotiated_nothing_is_not_limited() -> None:
    estimator = BandwidthEstimator(300_000)
    send(estimator, 10.0, 20)
    assert estimator.bitrate is None
    assert estimator.state == "unknown"
    assert estimator.take_probe(30.0) is None


def test_the_start_holds_until_there_is_feedback() -> None:
    estimator = BandwidthEstimator(300_000)
    estimator.expect_feedback()
    estimator.tick(1000.0)
    send(estimator, 1000.0, 0.2)
    assert (estimator.bitrate, estimator.state) == (300_000, "starting")
    answer(estimator, 0, 10, 1000.0)
    assert estimator.bitrate is not None
    assert estimator.state == "normal"


def test_who_never_sends_feedback_is_not_limited_after_all() -> None:
    estimator = BandwidthEstimator(300_000)
    estimator.expect_feedback()
    send(estimator, 10.0, 4.9)
    assert estimator.bitrate == 300_000
    send(estimator, 14.9, 1, number=245)
    assert estimator.bitrate is None
    estimator.expect_feedback()  # another consumer of the same client
    assert estimator.bitrate is None
    answer(estimator, 200, 10, 16)
    assert estimator.bitrate is not None


def test_nothing_is_probed_for_before_feedback_shows_that_packets_arrive() -> None:
    estimator = BandwidthEstimator(300_000)
    estimator.expect_feedback()
    estimator.set_wanted(2_000_000)
    send(estimator, 10.0, 0.2)
    assert estimator.take_probe(10.2) is None
    answer(estimator, 0, 10, 10.0)
    probe = estimator.take_probe(10.3)
    assert probe is not None
    assert probe.bitrate > 600_000


def test_a_transport_that_was_idle_is_not_silent() -> None:
    estimator = BandwidthEstimator(300_000)
    estimator.expect_feedback()
    send(estimator, 10.0, 0.2)
    answer(estimator, 0, 10, 10.0)
    before = estimator.bitrate
    estimator.tick(40.0)
    send(estimator, 50.0, 2.9, number=10)
    assert (estimator.bitrate, str(estimator.state)) == (before, "normal")
    send(estimator, 52.9, 2, number=155)
    assert estimator.state == "silent"
    assert before is not None
    assert (estimator.bitrate or 0) < before


def test_lost_feedback_does_not_make_it_look_as_if_less_arrived() -> None:
    estimator = BandwidthEstimator(300_000)
    estimator.expect_feedback()
    for step in range(100):
        now = 10 + step / 20
        send(estimator, now, 0.04, number=2 * step)
        if step % 3:
            answer(estimator, 2 * step, 2, now)
    acknowledged = estimator.acknowledged_bitrate
    assert acknowledged is not None
    assert abs(acknowledged - 2000 * 8 * 20) < 60_000


def test_remb_is_the_estimate_where_nothing_else_comes() -> None:
    estimator = BandwidthEstimator()
    estimator.on_remb(700_000, 5.0)
    assert estimator.bitrate == 700_000
    assert estimator.state == "remb"
    estimator.on_report(0.5, 6.0)
    assert estimator.bitrate == 525_000
    for second in range(7, 40):
        estimator.on_report(0.0, float(second))
    assert estimator.bitrate == 700_000
    estimator.on_remb(900_000, 40.0)
    assert estimator.bitrate == 900_000


def test_remb_is_a_cap_beside_feedback_as_long_as_it_is_repeated() -> None:
    estimator = BandwidthEstimator(600_000)
    estimator.expect_feedback()
    send(estimator, 10.0, 0.2)
    answer(estimator, 0, 10, 10.0)
    estimator.on_remb(200_000, 10.3)
    assert estimator.bitrate == 200_000
    estimator.on_report(0.9, 10.4)  # feedback counts losses itself
    assert estimator.bitrate == 200_000
    estimator.tick(16.0)
    assert estimator.bitrate is not None
    assert estimator.bitrate >= 500_000


def test_the_bitrate_never_falls_below_what_audio_needs() -> None:
    estimator = BandwidthEstimator()
    estimator.on_remb(1, 1.0)
    assert estimator.bitrate == 30_000


delta = st.one_of(st.none(), st.integers(0, 255), st.integers(-0x8000, 0x7FFF))
messages = st.builds(
    TransportFeedback,
    st.just(1),
    st.just(2),
    st.one_of(st.integers(0, 0xFFFF), st.integers(0, 2000)),
    st.one_of(st.integers(-0x800000, 0x7FFFFF), st.integers(0, 100)),
    st.integers(0, 255),
    st.lists(delta, max_size=200).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(messages, max_size=30), st.integers(0, 1 << 40), st.floats(0, 1))
def test_fuzz(feedback: list[TransportFeedback], remb: int, lost: float) -> None:
    """Whatever the receiver says, nothing is raised and the estimate stays within its bounds."""
    estimator = BandwidthEstimator()
    estimator.expect_feedback()
    estimator.set_wanted(3_000_000)
    number = 0
    now = 50.0
    for message in feedback:
        for _ in range(5):
            now += 0.02
            estimator.on_sent(number & 0xFFFF, 12_000, 10, now)
            number += 10
            estimator.tick(now)
            probe = estimator.take_probe(now)
            if probe is not None:
                assert 0 <= probe.size <= 3_000_000 * 1.5 * 0.06 / 8
                estimator.on_sent(number & 0xFFFF, probe.size + 1, 1, now)
                number += 1
        estimator.on_feedback(message, now)
        bitrate = estimator.bitrate
        assert bitrate is not None
        assert 30_000 <= bitrate <= 100_000_000
        assert estimator.queueing_delay >= 0
    estimator.on_remb(remb, now)
    estimator.on_report(lost, now)
    bitrate = estimator.bitrate
    assert bitrate is not None
    assert bitrate >= 30_000
