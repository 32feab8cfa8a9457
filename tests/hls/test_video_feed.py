"""Whole frames, repeats and cards. What a network does to them is in test_feeds.py."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.feed_scene import (
    CARD,
    START,
    WALL,
    FfmpegSink,
    StillRepeater,
    check_numbers,
    check_video,
    frame_payloads,
    most_behind,
)
from trio_sfu.hls.feed import ClockOffset, Timeline, VideoFeed
from trio_sfu.media.stills import card, make_repeater

FRAME = 0.04
DELAY = 0.05


class Scene:
    """A feed that has started, with a tick every 20 ms. Frame n of three packets is captured 40 * n ms after that."""

    def __init__(self, *, first: int = 0, base: int = 0, repeater: bool = True, card_after: float = 5.0) -> None:
        self.now = START
        self.out = FfmpegSink(lambda: self.now, 90_000)
        self.feed = VideoFeed(
            Timeline(lambda: self.now, WALL),
            ClockOffset(),
            mime_type="video/VP8",
            payload_type=96,
            ssrc=7,
            repeater=StillRepeater() if repeater else None,
            card=CARD,
            card_after=card_after,
        )
        self.feed.sink(self.out)
        self.feed.start(self.now)
        self.number = first
        self.base = base

    def pass_time(self, until: float) -> None:
        """Up to so many seconds after the start."""
        while self.now < START + until - 1e-9:
            self.now = min(START + until, self.now + 0.02)
            self.feed.tick(self.now)

    def send(self, frame: int, *, key: bool = False, parts: Iterable[int] = (0, 1, 2), marker: bool = True) -> None:
        """These packets of a frame arrive now; all are numbered."""
        payloads = frame_payloads(frame, key=key)
        for part in parts:
            timestamp = self.base + round(frame * FRAME * 90_000) & 0xFFFFFFFF
            last = marker and part == len(payloads) - 1
            self.feed.receive(self.number + part & 0xFFFF, timestamp, last, payloads[part], self.now)
        self.number += len(payloads)

    def stream(self, frames: Iterable[int], *, key: Iterable[int] = (), marker: bool = True) -> None:
        """Each at its time."""
        for frame in frames:
            self.pass_time(frame * FRAME + DELAY)
            self.send(frame, key=frame in key, marker=marker)

    def names(self) -> list[str]:
        return [shown.name for shown in check_video(self.out)]

    def own(self) -> list[str]:
        """Without what is the feed's."""
        return [name for name in self.names() if name not in ("card", "repeat")]


def test_cards_from_the_start() -> None:
    scene = Scene()
    scene.pass_time(0.24)
    assert scene.names() == []  # a keyframe may still come in time
    scene.pass_time(0.28)
    assert scene.names() == ["card"]
    assert not scene.feed.forwarded_keyframe
    assert scene.feed.wants_keyframe
    scene.pass_time(3.0)
    shown = check_video(scene.out)
    assert {frame.name for frame in shown} == {"card"}
    assert 20 < len(shown) < 30
    assert scene.feed.counters.cards == len(shown)
    assert most_behind(scene.out) < 0.3
    check_numbers(scene.out)
    assert len(scene.out.reports) == 3


@pytest.mark.parametrize("marker", [True, False])
@pytest.mark.parametrize("first", [0, 0xFFF0])
@pytest.mark.parametrize("base", [0, 0xFFFFF000])
def test_a_stream_in_order(first: int, base: int, marker: bool) -> None:
    scene = Scene(first=first, base=base)
    scene.stream(range(50), key=[0], marker=marker)
    assert scene.own() == ["0k", *map(str, range(1, 50 if marker else 49))]
    assert scene.feed.forwarded_keyframe
    assert not scene.feed.wants_keyframe
    assert scene.feed.counters.dropped == 0
    assert scene.feed.counters.repeats == 0
    check_numbers(scene.out)
    times = {frame.number: scene.out.server_time_of(frame.packet) for frame in check_video(scene.out)}
    for frame in range(1, 40):
        assert abs(times[frame] - times[0] - frame * FRAME) < 1e-4


def test_nothing_before_a_keyframe() -> None:
    scene = Scene()
    scene.stream(range(10), key=[5])
    assert scene.own() == ["5k", "6", "7", "8", "9"]
    assert scene.feed.counters.dropped == 15


def test_packets_out_of_order_and_twice() -> None:
    scene = Scene()
    scene.stream([0], key=[0])
    scene.pass_time(0.1)
    scene.send(1, parts=(2, 0, 1, 1, 0))
    scene.send(2, parts=(0, 1))
    number = scene.number
    scene.pass_time(0.14)
    scene.send(3)
    assert scene.own() == ["0k", "1"]
    scene.number = number - 3
    scene.pass_time(0.25)
    scene.send(2, parts=(2,))
    assert scene.own() == ["0k", "1", "2", "3"]
    assert scene.feed.counters.dropped == 2
    assert scene.feed.counters.holes == 0


def test_after_a_hole_a_keyframe_is_wanted_and_waited_for() -> None:
    scene = Scene()
    scene.stream(range(5), key=[0])
    scene.pass_time(5 * FRAME + DELAY)
    scene.send(5, parts=(0, 2))
    scene.stream(range(6, 9))
    assert not scene.feed.wants_keyframe
    scene.stream(range(9, 20))
    assert scene.feed.wants_keyframe
    assert scene.feed.counters.holes == 1
    scene.stream(range(20, 25), key=[20])
    assert not scene.feed.wants_keyframe
    assert scene.own() == ["0k", "1", "2", "3", "4", "20k", "21", "22", "23", "24"]
    assert "repeat" in scene.names()
    assert "card" not in scene.names()[5:]
    assert scene.feed.counters.dropped == 2 + 14 * 3


def test_a_stop_is_filled_with_repeats_and_then_with_cards() -> None:
    scene = Scene()
    scene.stream(range(10), key=[0])
    scene.pass_time(1.0)
    assert scene.names()[-3:] == ["repeat"] * 3
    assert not scene.feed.wants_keyframe
    scene.pass_time(4.0)
    # A participant with a still picture answers to this.
    assert scene.feed.wants_keyframe
    assert scene.names()[-1] == "repeat"
    scene.pass_time(6.0)
    assert scene.names()[-3:] == ["card"] * 3
    assert scene.feed.counters.repeats > 35
    assert most_behind(scene.out) < 0.45
    scene.stream(range(150, 155), key=[153])
    assert scene.own()[-2:] == ["153k", "154"]
    scene.pass_time(7.0)
    assert scene.names()[-1] == "repeat"
    check_numbers(scene.out)


def test_without_repeats_there_are_cards() -> None:
    scene = Scene(repeater=False)
    scene.stream(range(5), key=[0])
    scene.pass_time(0.8)
    assert scene.names()[-3:] == ["card"] * 3
    assert scene.feed.wants_keyframe
    scene.stream(range(20, 25), key=[22])
    assert scene.own() == ["0k", "1", "2", "3", "4", "22k", "23", "24"]


def test_one_frame_a_second() -> None:
    scene = Scene()
    for frame in range(20):
        scene.pass_time(frame + 0.1)
        scene.send(frame, key=frame == 0)
    assert scene.own() == ["0k", *map(str, range(1, 20))]
    assert 6 * 19 <= scene.names().count("repeat") <= 8 * 19
    assert most_behind(scene.out) < 0.45
    check_numbers(scene.out)


def test_pause_and_resume() -> None:
    scene = Scene()
    scene.stream(range(10), key=[0])
    scene.feed.pause(scene.now)
    scene.feed.pause(scene.now)
    assert scene.names()[-2:] == ["9", "card"]
    assert not scene.feed.wants_keyframe
    scene.stream(range(10, 15), key=[11])
    scene.pass_time(3.0)
    assert scene.own()[-1] == "9"
    assert scene.names()[-20:] == ["card"] * 20
    scene.feed.resume(scene.now)
    assert scene.feed.wants_keyframe
    scene.number = 40_000
    scene.stream(range(80, 90), key=[82])
    assert scene.own()[-9:] == ["9", "82k", *map(str, range(83, 90))]
    check_numbers(scene.out)


def test_paused_before_the_start() -> None:
    scene = Scene()
    feed = VideoFeed(
        Timeline(lambda: START, WALL),
        ClockOffset(),
        mime_type="video/vp8",
        payload_type=96,
        ssrc=7,
        repeater=None,
        card=CARD,
    )
    feed.pause(START)
    feed.sink(scene.out)
    assert not feed.wants_keyframe
    feed.start(START)
    assert feed.counters.cards == 1


def test_a_consumer_that_goes_over_to_another_stream() -> None:
    """In the middle of a frame, at a keyframe, with unbroken numbers."""
    scene = Scene()
    scene.stream(range(5), key=[0])
    scene.send(5, parts=(0, 1))
    scene.number -= 1
    scene.stream(range(6, 10), key=[6])
    assert scene.own() == ["0k", "1", "2", "3", "4", "6k", "7", "8", "9"]


def test_a_burst_of_old_frames_is_played_fast() -> None:
    """What a consumer begins with may be half a second old; the timeline is not behind for it."""
    scene = Scene()
    scene.pass_time(2.0)
    for frame in range(36, 50):
        scene.send(frame, key=frame == 36)
    scene.stream(range(50, 60))
    assert scene.own() == ["36k", *map(str, range(37, 60))]
    assert most_behind(scene.out) < 0.45


def test_frames_without_end_do_not_run_ahead() -> None:
    scene = Scene()
    scene.stream([0], key=[0])
    for frame in range(1, 5000):
        scene.send(frame)
    assert scene.feed.wants_keyframe
    assert scene.out.server_time_of(scene.out.rtp[-1]) - scene.now < 0.6
    assert scene.feed.counters.dropped > 10_000


def test_a_frame_without_end_is_given_up() -> None:
    scene = Scene()
    scene.stream([0], key=[0])
    for number in range(10_000):
        scene.feed.receive(scene.number + number & 0xFFFF, 90_000, False, b"\x00" * 1000, scene.now)
        assert len(scene.feed._frames) <= 2048
    assert scene.feed.wants_keyframe
    assert scene.feed.counters.holes > 0


def test_what_waits_is_bounded() -> None:
    scene = Scene()
    scene.stream([0], key=[0])
    for number in range(2, 5000):
        scene.feed.receive(scene.number + 2 * number & 0xFFFF, 90_000, False, b"\x00" * 1000, scene.now)
        assert len(scene.feed._reorder) <= 1025


def test_a_frame_marked_in_parts_has_one_timestamp() -> None:
    scene = Scene()
    feed = scene.feed
    for number, payload in enumerate((b"\x10\x00one", b"\x10\x01two", b"\x10\x01three")):
        feed.receive(number, 9000, True, payload, scene.now)
    assert len({packet.timestamp for packet in scene.out.rtp[-3:]}) == 1
    assert all(packet.marker for packet in scene.out.rtp[-3:])


def test_large_frames_and_small_arenas() -> None:
    scene = Scene()
    payloads = [b"\x10\x00k"] + [b"\x00" + bytes(1200)] * 1500
    for number, payload in enumerate(payloads):
        scene.feed.receive(number, 9000, number == 1500, payload, scene.now)
    assert [packet.payload for packet in scene.out.rtp[-1501:]] == payloads
    assert [packet.marker for packet in scene.out.rtp[-1501:]] == [False] * 1500 + [True]
    check_numbers(scene.out)


def test_a_codec_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="video/mystery"):
        VideoFeed(
            Timeline(lambda: START, WALL),
            ClockOffset(),
            mime_type="video/mystery",
            payload_type=96,
            ssrc=7,
            repeater=None,
            card=CARD,
        )


events = st.lists(
    st.tuples(
        st.integers(0, 300) | st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.booleans(),
        st.binary(max_size=30),
        st.floats(0, 0.4),
        st.none() | st.floats(0, 8e9),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(codec=st.sampled_from(["VP8", "VP9", "H264", "AV1"]), sent=events)
def test_whatever_is_sent_the_stream_goes_on(
    codec: str, sent: list[tuple[int, int, bool, bytes, float, float | None]]
) -> None:
    scene = Scene()
    mime_type = f"video/{codec}"
    feed = scene.feed = VideoFeed(
        Timeline(lambda: scene.now, WALL),
        ClockOffset(),
        mime_type=mime_type,
        payload_type=96,
        ssrc=7,
        repeater=make_repeater(mime_type),
        card=card(mime_type),
    )
    out = scene.out = FfmpegSink(lambda: scene.now, 90_000)
    feed.sink(out)
    feed.start(scene.now)
    scene.pass_time(0.3)
    for number, timestamp, marker, payload, pause, ntp in sent:
        scene.pass_time(scene.now - START + pause)
        feed.receive(number, timestamp, marker, payload, scene.now)
        if ntp is not None:
            feed.report(ntp, timestamp, scene.now)
        feed.tick(scene.now)
        assert -0.6 < scene.now - out.server_time_of(out.rtp[-1]) < 0.7
    check_numbers(out)
