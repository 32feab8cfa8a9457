"""The one line between server time, RTP timestamps and NTP."""

from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.hls.timeline import Timeline


def test_positions() -> None:
    timeline = Timeline(lambda: 50.0, 1_700_000_000.5)
    assert timeline.ticks(50.0, 48_000) == 0
    assert timeline.ticks(51.5, 48_000) == 72_000
    assert timeline.ticks(49.0, 90_000) == -90_000
    assert timeline.ntp(0, 90_000) == int((1_700_000_000.5 + 2_208_988_800) * 2**32)
    assert timeline.ntp(45_000, 90_000) - timeline.ntp(0, 90_000) == 1 << 31
    assert timeline.ntp(-90_000, 90_000) - timeline.ntp(0, 90_000) == -(1 << 32)


@given(seconds=st.floats(-10, 1e6))
def test_streams_of_different_rates_stay_together(seconds: float) -> None:
    timeline = Timeline(lambda: 1000.0, 1_700_000_000.0)
    audio, video = (timeline.ntp(timeline.ticks(1000.0 + seconds, rate), rate) for rate in (48_000, 90_000))
    assert abs(audio - video) / 2**32 < 1 / 48_000
