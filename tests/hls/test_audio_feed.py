"""Opus without a gap: silence, lateness, durations. What a network does to it is in test_feeds.py."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.feed_scene import START, WALL, FfmpegSink, audio_payload, check_audio, check_numbers, number_of
from trio_sfu.hls.feed import AudioFeed, ClockOffset, Timeline
from trio_sfu.hls.opus import duration

RATE = 48_000


class Scene:
    """A feed that has started, with a tick every 20 ms. Packet n is captured n * 20 ms after the start."""

    def __init__(self, *, first: int = 0, base: int = 0, head: bytes = b"\xfc", milliseconds: float = 20) -> None:
        self.now = START
        self.out = FfmpegSink(lambda: self.now, RATE)
        self.clock = ClockOffset()
        self.feed = AudioFeed(Timeline(lambda: self.now, WALL), self.clock, payload_type=111, ssrc=7)
        self.feed.sink(self.out)
        self.feed.start(self.now)
        self.first = first
        self.base = base
        self.head = head
        self.seconds = milliseconds / 1000

    def pass_time(self, until: float) -> None:
        """Up to so many seconds after the start."""
        while self.now < START + until - 1e-9:
            self.now = min(START + until, self.now + 0.02)
            self.feed.tick(self.now)

    def send(self, number: int, payload: bytes | None = None) -> None:
        """Packet ``number`` arrives now."""
        self.feed.receive(
            self.first + number & 0xFFFF,
            self.base + round(number * self.seconds * RATE) & 0xFFFFFFFF,
            False,
            audio_payload(number, self.head) if payload is None else payload,
            self.now,
        )

    def stream(self, numbers: Iterable[int], delay: float = 0.045) -> None:
        """Each at its time, ``delay`` seconds after its capture."""
        for number in numbers:
            self.pass_time(number * self.seconds + delay)
            self.send(number)

    def texts(self) -> str:
        """What has been sent: a number, or a dot for 20 ms of silence."""
        return " ".join("." if (number := number_of(packet)) is None else str(number) for packet in self.out.rtp)

    def covered(self) -> float:
        """Seconds between now and the end of what has been sent."""
        last = self.out.rtp[-1]
        return self.now - self.out.server_time_of(last) - duration(last.payload) / RATE


def test_silence_from_the_start() -> None:
    scene = Scene()
    assert scene.texts() == ". ."
    for _ in range(100):
        scene.pass_time(scene.now - START + 0.02)
        assert 0.099 < scene.covered() < 0.121
    check_numbers(scene.out)
    check_audio(scene.out)
    assert len(scene.out.reports) == 2
    assert scene.feed.counters.silence == scene.feed.counters.packets == len(scene.out.rtp)


@pytest.mark.parametrize("first", [0, 0xFFF0])
@pytest.mark.parametrize("base", [0, 0xFFFFF000])
def test_a_stream_in_order(first: int, base: int) -> None:
    scene = Scene(first=first, base=base)
    scene.stream(range(100))
    assert scene.texts().endswith(" ".join(map(str, range(100))))
    check_numbers(scene.out)
    check_audio(scene.out)
    assert scene.feed.counters.dropped == 0
    assert scene.feed.counters.frames == 100


def test_order_and_duplicates() -> None:
    scene = Scene()
    scene.stream([0, 1, 2])
    scene.stream([4])
    for number in (3, 4, 1):
        scene.send(number)
    scene.stream([5])
    assert scene.texts().endswith("0 1 2 3 4 5")
    assert scene.feed.counters.dropped == 2
    assert scene.feed.counters.holes == 0


def test_what_is_lost_becomes_silence() -> None:
    scene = Scene()
    scene.stream([0, 1, 2, 5, 6, 7, 8, 9, 10])
    assert scene.texts().endswith("2 . . 5 6 7 8 9 10")
    assert scene.feed.counters.holes == 1
    check_audio(scene.out)


def test_a_gap_between_packets_is_filled_at_once() -> None:
    scene = Scene()
    scene.stream([0, 1])
    scene.pass_time(0.125)
    before = len(scene.out.rtp)
    # The numbers go on, the timestamps do not: the sender had nothing to say.
    scene.feed.receive(2, 4 * 960, False, b"\xfca4", scene.now)
    assert scene.texts().split()[before:] == [".", ".", "4"]
    check_audio(scene.out)


def test_a_stop_is_covered_and_the_stream_comes_back() -> None:
    scene = Scene()
    scene.stream(range(10))
    scene.pass_time(3.0)
    assert 0.099 < scene.covered() < 0.121
    scene.first = -140
    scene.stream(range(150, 160))
    check_numbers(scene.out)
    assert check_audio(scene.out) == [*range(10), *range(150, 160)]


def test_discontinuous_transmission() -> None:
    """Frames without content are silence: FFmpeg's decoder would have nothing to make noise of."""
    scene = Scene()
    scene.stream(range(3))
    for number in range(3, 6):
        scene.pass_time(number * 0.02 + 0.045)
        scene.send(number, b"\xf8\x01"[: 1 + number % 2])
    scene.stream(range(6, 9))
    assert scene.texts().endswith("2 . . . 6 7 8")
    check_audio(scene.out)


@pytest.mark.parametrize(
    ("head", "milliseconds"), [(b"\xf4", 10), (b"\xec", 5), (b"\xe0", 2.5), (b"\x1c", 60), (b"\xff\x05", 100)]
)
def test_other_durations(head: bytes, milliseconds: float) -> None:
    scene = Scene(head=head, milliseconds=milliseconds)
    numbers = range(round(3000 / milliseconds))
    # A packet can be sent when its last sample is there.
    scene.stream(numbers, delay=milliseconds / 1000 + 0.02)
    assert check_audio(scene.out)[-10:] == list(numbers)[-10:]
    check_numbers(scene.out)
    assert scene.feed.counters.dropped <= 5


def test_packets_that_are_none_are_dropped() -> None:
    scene = Scene()
    scene.stream([0])
    scene.send(1, b"")
    scene.send(2, b"\xff\x00x")
    assert scene.feed.counters.dropped == 2
    check_audio(scene.out)


def test_who_is_late_now_and_then_loses_it() -> None:
    scene = Scene()
    for number in range(200):
        scene.stream([number], delay=0.2 if number % 25 == 24 else 0.045)
    # Those that wait behind a late one are late too.
    assert scene.feed.counters.dropped > 0
    assert scene.clock.delay == 0.0
    check_audio(scene.out)


def test_who_is_late_again_and_again_is_put_later_and_taken_back() -> None:
    scene = Scene()
    scene.stream(range(50))
    scene.stream(range(50, 450), delay=0.2)
    assert 0.02 < scene.clock.delay < 0.1
    assert scene.feed.counters.dropped < 15
    delay = scene.clock.delay
    before = scene.feed.counters.frames
    scene.stream(range(450, 2000))
    assert scene.clock.delay < delay
    assert scene.feed.counters.frames - before > 1520
    check_audio(scene.out)
    check_numbers(scene.out)


@pytest.mark.parametrize("wrong", [0.7, 5.0, 3600.0])
def test_reports_that_would_make_everything_late_are_not_believed(wrong: float) -> None:
    scene = Scene()
    for number in range(500):
        scene.stream([number])
        if number % 50 == 10:
            captured = scene.now - 0.045
            scene.feed.report(4e9 + captured, round((captured - START + wrong) * RATE) & 0xFFFFFFFF, scene.now)
    assert scene.feed.counters.frames > 470
    assert scene.clock.delay < 0.5
    check_audio(scene.out)


def test_a_burst_after_a_freeze_is_dropped_and_puts_nobody_later() -> None:
    scene = Scene()
    scene.stream(range(50))
    scene.pass_time(2.5)
    for number in range(50, 123):
        scene.send(number)
    scene.stream(range(123, 200))
    assert scene.clock.delay == 0.0
    assert check_audio(scene.out)[-75:] == list(range(125, 200))
    assert 0.0 <= scene.covered() + 0.045 < 0.05


def test_pause() -> None:
    scene = Scene()
    scene.stream(range(5))
    scene.stream([7])
    scene.feed.pause(scene.now)
    scene.feed.pause(scene.now)
    scene.stream(range(8, 12))
    assert scene.feed.counters.dropped == 5
    scene.pass_time(1.0)
    scene.feed.resume(scene.now)
    scene.first = 30_000
    scene.stream(range(55, 60))
    assert check_audio(scene.out) == [*range(5), *range(55, 60)]
    check_numbers(scene.out)


@pytest.mark.parametrize("packet", [True, False])
def test_a_server_that_stood_still_does_not_make_up_for_all_of_it(packet: bool) -> None:
    scene = Scene()
    scene.send(0)
    before = len(scene.out.rtp)
    scene.now += 3600.0
    if packet:
        scene.feed.receive(1, 3600 * RATE, False, b"\xfca1", scene.now)
    else:
        scene.feed.tick(scene.now)
    assert len(scene.out.rtp) - before <= 2
    assert -0.021 < scene.covered() < 0.121


events = st.lists(
    st.tuples(
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=5),
        st.floats(0, 0.2),
        st.none() | st.floats(0, 8e9),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(events)
def test_whatever_is_sent_the_stream_is_whole(sent: list[tuple[int, int, bytes, float, float | None]]) -> None:
    scene = Scene()
    for number, timestamp, payload, pause, ntp in sent:
        scene.pass_time(scene.now - START + pause)
        scene.feed.receive(number, timestamp, False, payload, scene.now)
        if ntp is not None:
            scene.feed.report(ntp, timestamp, scene.now)
        scene.feed.tick(scene.now)
        assert -0.5 < scene.covered() < 0.13
    check_numbers(scene.out)
    for before, after in pairwise(scene.out.rtp):
        assert after.timestamp - before.timestamp & 0xFFFFFFFF == duration(before.payload)
