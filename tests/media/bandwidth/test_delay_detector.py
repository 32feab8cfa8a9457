"""The delay-based detector, fed with groups by hand."""

from random import Random

import pytest

from trio_sfu.media.bandwidth.sent_history import GroupReport
from trio_sfu.media.bandwidth.trendline import DelayDetector, Usage

STEP = 1 / 30


def groups(delays: list[float], *, first: int = 1, clock: float = 7000.0, size: int = 6000) -> list[GroupReport]:
    """One group each frame, under way for so many seconds."""
    return [
        (first + index, (first + index) * STEP, clock + (first + index) * STEP + delay, size, 0)
        for index, delay in enumerate(delays)
    ]


def verdicts(detector: DelayDetector, delays: list[float], *, first: int = 1, clock: float = 7000.0) -> set[Usage]:
    """What is found over messages of three groups each."""
    reports = groups(delays, first=first, clock=clock)
    return {detector.update(reports[at : at + 3]) for at in range(0, len(reports), 3)}


def test_a_constant_delay_is_normal() -> None:
    detector = DelayDetector()
    assert verdicts(detector, [0.05] * 300) == {"normal"}
    assert detector.queueing_delay == pytest.approx(0)
    assert detector.busy_bitrate is None


def test_a_growing_delay_is_overuse_within_half_a_second() -> None:
    detector = DelayDetector()
    verdicts(detector, [0.05] * 60)
    assert "overuse" in verdicts(detector, [0.05 + 0.015 * index for index in range(15)], first=61)
    assert detector.queueing_delay > 0.1


def test_a_shrinking_delay_is_underuse() -> None:
    detector = DelayDetector()
    verdicts(detector, [0.05] * 60)
    verdicts(detector, [0.05 + 0.015 * index for index in range(20)], first=61)
    assert "underuse" in verdicts(detector, [0.35 - 0.015 * index for index in range(20)], first=81)


def test_a_single_burst_that_has_drained_is_no_overuse() -> None:
    """A keyframe queues, and its queue is gone with the next frames; the smoothed delay lags behind."""
    detector = DelayDetector()
    verdicts(detector, [0.05] * 60)
    assert "overuse" not in verdicts(detector, [0.13, 0.05, 0.05, 0.05, 0.05, 0.05], first=61)


def test_jitter_is_no_overuse() -> None:
    random = Random(4)
    detector = DelayDetector()
    seen = verdicts(detector, [0.02 + random.uniform(0, 0.03) for _ in range(2000)])
    assert "overuse" not in seen


def test_a_clock_that_jumps_is_no_overuse_and_does_not_blind() -> None:
    detector = DelayDetector()
    verdicts(detector, [0.05] * 60)
    for jump, first in ((100.0, 61), (-200.0, 121)):
        assert "overuse" not in verdicts(detector, [0.05] * 60, first=first, clock=7000 + jump)
    assert "overuse" in verdicts(detector, [0.05 + 0.015 * index for index in range(15)], first=181, clock=6800)


def test_the_two_parts_of_a_group_are_one() -> None:
    whole, parts = DelayDetector(), DelayDetector()
    delays = [0.05] * 60 + [0.05 + 0.01 * index for index in range(40)]
    for number, sent, arrival, size, probe in groups(delays):
        whole.update([(number, sent, arrival, size, probe)])
        parts.update([(number, sent, arrival - 0.004, size - 1000, probe)])
        parts.update([(number, sent, arrival, 1000, probe)])
    assert whole.queueing_delay == parts.queueing_delay > 0.3
    assert whole.busy_bitrate == parts.busy_bitrate


def test_a_busy_link_tells_its_rate() -> None:
    """6 kB each 33 ms over 1 Mb/s: 48 ms each, so every frame waits 15 ms longer than the one before."""
    detector = DelayDetector()
    verdicts(detector, [0.02] * 90)
    reports = groups([0.02 + 0.048 + (0.048 - STEP) * index for index in range(12)], first=91)
    detector.update(reports)
    assert detector.busy_bitrate == pytest.approx(1_000_000, rel=0.05)


def test_a_longer_way_is_usual_after_a_while() -> None:
    detector = DelayDetector()
    verdicts(detector, [0.02] * 90)
    verdicts(detector, [0.22] * 400, first=91)
    assert detector.queueing_delay == pytest.approx(0, abs=1e-9)
    assert detector.usage == "normal"
