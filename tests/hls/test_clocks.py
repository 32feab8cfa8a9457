"""When media was captured, from clocks that are off."""

import pytest

from trio_sfu.hls.clocks import ClockOffset, SlidingMin, StreamClock

AUDIO = 48_000
VIDEO = 90_000
#: Seconds since 1900 on a participant's clock at the server's time 0.
NTP = 3_900_000_000.0


def test_sliding_min() -> None:
    least = SlidingMin()
    assert least.get(0.0) is None
    least.add(3.0, 100.0)
    least.add(1.0, 101.0)
    least.add(2.0, 101.5)
    least.add(5.0, 108.0)
    assert least.get(108.0) == 1.0
    assert least.get(113.0) == 5.0
    assert least.get(130.0) is None
    least.add(7.0, 130.0)
    least.clear()
    assert least.get(130.0) is None


class Sender:
    """One stream that begins with the timestamp ``base``; what it sends is captured on the server's time ``at``."""

    def __init__(self, clock: ClockOffset, rate: int, base: int, ntp: float = NTP) -> None:
        self.clock: StreamClock = clock.stream(rate)
        self.rate = rate
        self.base = base
        self.ntp = ntp

    def timestamp(self, at: float) -> int:
        return self.base + round(at * self.rate) & 0xFFFFFFFF

    def packet(self, at: float, delay: float) -> float:
        """The server time that is taken for it."""
        self.clock.observe(self.timestamp(at), at + delay)
        return self.clock.time(self.timestamp(at), at + delay)

    def report(self, at: float, delay: float) -> None:
        self.clock.report(self.ntp + at, self.timestamp(at), at + delay)


@pytest.mark.parametrize("base", [0, 12345, 0x7FFFFF00, 0xFFFFFF00])
def test_before_the_first_report_the_earliest_arrival_counts(base: int) -> None:
    sender = Sender(ClockOffset(), VIDEO, base)
    assert sender.packet(1.0, 0.05) == pytest.approx(1.05)
    assert sender.packet(1.1, 0.09) == pytest.approx(1.15)
    assert sender.packet(1.2, 0.03) == pytest.approx(1.23)
    assert sender.packet(1.3, 0.08) == pytest.approx(1.33)


@pytest.mark.parametrize("skew", [0.0, 300.0, -86_400.0])
def test_streams_of_one_participant_share_the_best_offset(skew: float) -> None:
    clock = ClockOffset()
    audio, video = Sender(clock, AUDIO, 0xFFFFFFF0, NTP + skew), Sender(clock, VIDEO, 77, NTP + skew)
    audio.packet(1.0, 0.05)
    video.packet(1.0, 0.12)
    audio.report(1.5, 0.08)
    video.report(1.5, 0.03)
    assert audio.packet(2.0, 0.06) == pytest.approx(2.03, abs=1e-6)
    assert video.packet(2.0, 0.11) == pytest.approx(2.03, abs=1e-6)
    clock.delay = 0.1
    assert audio.packet(2.1, 0.06) == pytest.approx(2.23, abs=1e-6)
    assert video.packet(2.1, 0.11) == pytest.approx(2.23, abs=1e-6)


def test_a_packet_is_never_later_than_it_came() -> None:
    sender = Sender(ClockOffset(), VIDEO, 0)
    sender.packet(1.0, 0.5)
    sender.report(1.2, 0.6)
    assert sender.packet(1.3, 0.04) == pytest.approx(1.34, abs=1e-6)


def test_a_report_from_another_clock_is_kept_apart() -> None:
    """A consumer makes one up of the server's clock where the producer has not reported yet."""
    clock = ClockOffset()
    audio, video = Sender(clock, AUDIO, 5, NTP + 60.0), Sender(clock, VIDEO, 5)
    for at in (1.0, 2.0):
        audio.packet(at, 0.05)
        video.packet(at, 0.05)
    audio.report(2.5, 0.01)
    video.report(2.5, 0.02)
    assert audio.packet(3.0, 0.05) == pytest.approx(3.01, abs=1e-6)
    assert video.packet(3.0, 0.05) == pytest.approx(3.02, abs=1e-6)
    # The real one comes, of the clock that the audio goes by.
    video.ntp = NTP + 60.0
    video.report(3.5, 0.02)
    assert video.packet(4.0, 0.05) == pytest.approx(4.01, abs=1e-6)


@pytest.mark.parametrize("step", [-3600.0, -3.0, 3.0, 3600.0])
def test_a_clock_that_is_set_takes_effect_with_its_report(step: float) -> None:
    sender = Sender(ClockOffset(), AUDIO, 5)
    sender.packet(1.0, 0.05)
    sender.report(1.0, 0.02)
    sender.ntp += step
    sender.report(2.0, 0.02)
    assert sender.packet(2.1, 0.05) == pytest.approx(2.12, abs=1e-6)


def test_timestamps_that_stood_still_during_a_pause() -> None:
    sender = Sender(ClockOffset(), AUDIO, 5)
    sender.report(0.5, 0.02)
    sender.packet(1.0, 0.05)
    sender.base -= 4 * AUDIO
    assert sender.packet(5.0, 0.05) == pytest.approx(5.05, abs=1e-6)
    assert sender.packet(5.02, 0.04) == pytest.approx(5.06, abs=1e-6)
    sender.report(6.0, 0.01)
    assert sender.packet(6.1, 0.05) == pytest.approx(6.11, abs=1e-6)


def test_after_a_route_got_longer_the_least_of_the_last_seconds_counts() -> None:
    sender = Sender(ClockOffset(), AUDIO, 0xFFFFF000)
    sender.packet(1.0, 0.03)
    sender.report(1.0, 0.02)
    times = {at: sender.packet(at, 0.23) for at in range(2, 20)}
    assert times[5] == pytest.approx(5.02, abs=1e-6)
    assert times[19] == pytest.approx(19.23, abs=1e-6)


def test_timestamps_wrap_around() -> None:
    sender = Sender(ClockOffset(), VIDEO, 0)
    sender.report(0.0, 0.02)
    for hour in range(40):  # the timestamps of video wrap after 13 hours
        for minute in range(60):
            at = hour * 3600.0 + minute * 60.0
            assert sender.packet(at, 0.02) == pytest.approx(at + 0.02, abs=1e-5)


def test_no_report_puts_a_packet_into_the_future() -> None:
    sender = Sender(ClockOffset(), AUDIO, 5)
    sender.packet(1.0, 0.05)
    sender.clock.report(NTP + 1.1, sender.timestamp(-3600.0), 1.1)
    assert sender.clock.time(sender.timestamp(1.0), 1.2) == 1.2


def test_reports_that_are_not_trusted() -> None:
    sender = Sender(ClockOffset(), AUDIO, 5)
    sender.packet(1.0, 0.9)
    sender.report(2.0, 0.02)
    assert sender.packet(2.0, 0.9) == pytest.approx(2.02, abs=1e-6)
    sender.clock.distrust(2.9)
    sender.report(2.95, 0.02)
    assert sender.packet(2.1, 0.9) == pytest.approx(3.0, abs=1e-6)
    sender.packet(60.0, 0.9)
    sender.report(70.0, 0.02)
    assert sender.packet(70.0, 0.9) == pytest.approx(70.02, abs=1e-6)
