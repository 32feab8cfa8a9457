"""The rates that delay and loss allow, and what arrives."""

import pytest

from trio_sfu.media.bandwidth.aimd import AcknowledgedRate, AimdController
from trio_sfu.media.bandwidth.loss import LossLimit


def test_what_arrives() -> None:
    rate = AcknowledgedRate()
    for index in range(3):
        rate.update(50 + index * 0.05, 10_000)
    assert rate.bitrate is None  # too little to say
    for index in range(3, 40):
        rate.update(50 + index * 0.05, 10_000)
    assert rate.bitrate == pytest.approx(10_000 * 8 / 0.05)
    for index in range(40, 52):
        rate.update(50 + index * 0.05, 1_000)
    assert rate.bitrate == pytest.approx(1_000 * 8 / 0.05)


def test_a_receivers_clock_that_jumps_begins_anew() -> None:
    rate = AcknowledgedRate()
    for base in (50.0, 5000.0, 10.0):
        for index in range(10):
            rate.update(base + index * 0.05, 10_000)
        assert rate.bitrate == pytest.approx(10_000 * 8 / 0.05)


def run(controller: AimdController, acknowledged: float, seconds: float, start: float) -> None:
    for index in range(int(seconds * 20)):
        controller.update("normal", acknowledged, start + index / 20)


def test_growth_is_eight_per_cent_a_second_where_nothing_is_known() -> None:
    controller = AimdController(1_000_000)
    run(controller, 1_000_000, 1.05, 0)
    assert controller.bitrate == pytest.approx(1_080_000, rel=0.01)


def test_what_is_not_sent_cannot_vouch() -> None:
    controller = AimdController(1_000_000)
    run(controller, 300_000, 60, 0)
    assert controller.bitrate == 1_000_000  # neither grown nor fallen
    run(controller, 800_000, 60, 60)
    assert controller.bitrate == 800_000 * 1.5 + 10_000


def test_overuse_falls_below_what_arrives_and_growth_near_it_is_slow() -> None:
    controller = AimdController(2_000_000)
    assert controller.update("overuse", 1_000_000, 1.0)
    assert controller.bitrate == 850_000
    assert not controller.update("overuse", 900_000, 1.01)  # not twice in a round trip
    run(controller, 850_000, 5, 1.2)
    assert 850_000 < controller.bitrate < 850_000 * 1.08**5 - 50_000


def test_growth_is_fast_again_where_far_more_arrives_than_the_link_carried_before() -> None:
    controller = AimdController(2_000_000)
    controller.update("overuse", 1_000_000, 1.0)
    controller.set_bitrate(3_000_000, 2.0)
    run(controller, 4_000_000, 2.05, 2.0)  # the first verdict after overuse holds
    assert controller.bitrate == pytest.approx(3_000_000 * 1.08**2, rel=0.02)


def test_growth_waits_for_a_second_normal_verdict() -> None:
    controller = AimdController(1_000_000)
    controller.update("underuse", 1_000_000, 1.0)
    controller.update("normal", 1_000_000, 1.1)
    assert controller.bitrate == 1_000_000
    controller.update("normal", 1_000_000, 1.2)
    assert controller.bitrate > 1_000_000


def test_what_the_busy_link_carried_counts_more() -> None:
    controller = AimdController(2_000_000)
    controller.update("overuse", 200_000, 1.0, busy=1_500_000)
    assert controller.bitrate == 0.85 * 1_500_000


def test_underuse_holds() -> None:
    controller = AimdController(1_000_000)
    for index in range(100):
        controller.update("underuse", 1_000_000, index / 20)
    assert controller.bitrate == 1_000_000


def test_an_overuse_never_raises() -> None:
    controller = AimdController(300_000)
    assert not controller.update("overuse", 5_000_000, 1.0)
    assert controller.bitrate == 300_000


def lossy(limit: LossLimit, fraction: float, *, current: float = 1e6, acknowledged: float = 1e6, queue: float) -> None:
    start = 100.0
    for index in range(100):
        limit.on_packets(round(100 * (1 - fraction)), round(100 * fraction))
        limit.update(limit.bitrate or current, acknowledged, queue, start + index / 20)


@pytest.mark.parametrize(
    ("fraction", "queue", "falls"),
    [
        (0.0, 0.0, False),
        (0.05, 0.3, False),
        (0.1, 0.3, False),
        (0.1, 0.0, False),
        (0.15, 0.0, False),
        (0.17, 0.3, True),
        (0.4, 0.0, True),
        (0.4, 0.3, True),
    ],
)
def test_loss_counts_more_where_there_is_a_queue(fraction: float, queue: float, falls: bool) -> None:
    limit = LossLimit()
    lossy(limit, fraction, queue=queue)
    assert (limit.bitrate is not None) == falls


def fallen() -> LossLimit:
    """Three quarters lost, twice: the limit is down."""
    limit = LossLimit()
    limit.update(2e6, 400_000, 0.3, 10.0)
    limit.on_packets(50, 150)
    limit.update(2e6, 400_000, 0.3, 10.4)
    limit.on_packets(50, 150)
    assert limit.update(2e6, 400_000, 0.3, 10.8)
    return limit


def test_heavy_loss_falls_to_what_arrives() -> None:
    limit = fallen()
    assert limit.bitrate == 0.95 * 400_000
    assert limit.fraction == 0.75


def test_one_bursts_losses_are_no_evidence() -> None:
    limit = LossLimit()
    limit.update(2e6, 400_000, 0.3, 10.0)
    for index in range(20):
        limit.on_packets(*((50, 150) if index % 2 else (200, 0)))
        assert not limit.update(2e6, 400_000, 0.3, 10.4 + index * 0.4)
    assert limit.bitrate is None


def test_the_limit_grows_while_nothing_is_lost_and_is_lifted_in_the_end() -> None:
    limit = fallen()
    before = limit.bitrate
    assert before is not None
    for index in range(10):
        limit.on_packets(100, 0)
        limit.update(before, 400_000, 0.0, 11.3 + index / 2)
    assert limit.bitrate == pytest.approx(before * 1.08**5, rel=0.02)
    limit.lift(2_000_000)
    assert limit.bitrate == 2_000_000
    limit.on_packets(100, 0)
    limit.update(400_000, 400_000, 0.0, 30)
    assert limit.bitrate is None


def test_moderate_loss_does_not_fall_past_what_arrives() -> None:
    limit = LossLimit()
    lossy(limit, 0.17, acknowledged=800_000, queue=0.3)
    assert limit.bitrate == pytest.approx(0.95 * 800_000)


def test_some_loss_that_goes_on_holds_the_limit_only_while_there_is_a_queue() -> None:
    for queue, grows in ((0.3, False), (0.0, True)):
        limit = LossLimit()
        lossy(limit, 0.5, acknowledged=400_000, queue=0.3)
        before = limit.bitrate
        assert before is not None
        for index in range(100):
            limit.on_packets(95, 5)
            limit.update(before, 400_000, queue, 200 + index / 20)
        assert limit.bitrate is not None
        assert (limit.bitrate > before * 1.1) == grows


def test_a_probes_losses_are_its_own() -> None:
    limit = LossLimit()
    limit.update(1e6, 1e6, 0.3, 10.0)
    limit.on_packets(50, 150)
    assert not limit.update(1e6, 1e6, 0.3, 10.4, probing=True)
    assert limit.bitrate is None


def test_few_packets_are_no_evidence() -> None:
    limit = LossLimit()
    limit.update(1e6, 1e6, 0.3, 10.0)
    limit.on_packets(2, 3)
    assert not limit.update(1e6, 1e6, 0.3, 20.0)
    limit.on_packets(18, 5)  # 22 %, but of 23 packets
    assert not limit.update(1e6, 1e6, 0.3, 20.4)
