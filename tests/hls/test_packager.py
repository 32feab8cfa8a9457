"""From FFmpeg's fragments to parts and segments."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fragmented_mp4 import EACH_TIME, INIT, audio, ffmpeg_output, video
from trio_sfu.hls.live_stream import LiveSettings, LiveStream, Part, Segment
from trio_sfu.hls.mp4 import BadMp4, Fragment, Mp4Splitter
from trio_sfu.hls.packager import BadOutput, Packager

NOW = 1_700_000_000.0
FRAME = 1 / 30


class Collector:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.inits: list[tuple[int, bytes]] = []
        self.segments: list[Segment] = []
        self.ended = 0

    def on_init(self, run: int, init: bytes) -> None:
        self.inits.append((run, init))

    def on_segment(self, segment: Segment) -> None:
        self.segments.append(segment)

    def on_end(self) -> None:
        self.ended += 1


def new_stream(settings: LiveSettings | None = None) -> tuple[LiveStream, Collector]:
    stream, collector = LiveStream(settings or LiveSettings()), Collector()
    stream.listeners.append(collector)
    return stream, collector


def frames(count: int, *, first: int = 0, every: int = 60, rate: int = 30, sound: bool = True) -> bytes:
    """Frames from number ``first`` on, a keyframe ``every`` so many, with audio in between."""
    out = []
    for index in range(first, first + count):
        out.append(video(index / rate, 1 / rate, keyframe=index % every == 0))
        if sound:
            out.append(audio(index / rate, 1 / rate))
    return b"".join(out)


def durations(segment: Segment) -> list[float]:
    return [round(part.duration, 4) for part in segment.parts]


def test_output_of_ffmpeg() -> None:
    stream, collector = new_stream(LiveSettings(segment_target=1.0))
    packager = Packager(stream)
    output = ffmpeg_output(*EACH_TIME)
    for at in range(0, len(output), 1000):
        packager.feed(output[at : at + 1000], NOW)
    packager.finish()
    init, *fragments = Mp4Splitter().feed(output)
    assert collector.inits == [(0, init.data)]
    assert b"".join(segment.data for segment in collector.segments) == b"".join(each.data for each in fragments)
    assert [round(segment.duration, 1) for segment in collector.segments] == [1.0, 1.0, 1.0]
    assert packager.parts == sum(len(segment.parts) for segment in collector.segments)
    for segment in collector.segments:
        first = Mp4Splitter().feed(init.data + segment.data)[1]
        assert isinstance(first, Fragment)
        assert first.keyframe
        assert [part.independent for part in segment.parts] == [True, *[False] * (len(segment.parts) - 1)]


def test_parts_and_segments() -> None:
    stream, collector = new_stream()
    packager = Packager(stream)
    packager.feed(INIT + frames(121), NOW)
    assert [durations(segment) for segment in collector.segments] == [[0.3333] * 6] * 2
    assert [segment.discontinuity for segment in collector.segments] == [False, False]
    assert [segment.start - NOW for segment in collector.segments] == pytest.approx([0, 2])
    assert [part.start - NOW for part in collector.segments[1].parts] == pytest.approx([2 + n / 3 for n in range(6)])
    assert packager.parts == 12
    packager.finish()
    assert durations(collector.segments[2]) == [0.0333]


def test_the_announced_part_is_the_one_that_comes() -> None:
    stream, _ = new_stream()
    packager = Packager(stream)
    packager.feed(INIT, NOW)
    announced: list[str] = []
    for index in range(200):
        packager.feed(frames(1, first=index), NOW)
        if (hint := hinted(stream)) is not None and hint not in announced:
            announced.append(hint)
    assert announced == [f"{msn}.{part}.m4s" for msn in range(4) for part in range(6)][1 : len(announced) + 1]
    assert len(announced) > 18
    assert all(stream.media(name) for name in announced[:-1])


def hinted(stream: LiveStream) -> str | None:
    names = [f"{msn}.{part}.m4s" for msn in range(5) for part in range(9)]
    return next((name for name in names if stream.announces(name)), None)


def test_a_part_is_there_with_its_last_frame() -> None:
    stream, _ = new_stream()
    packager = Packager(stream)
    packager.feed(INIT + frames(9), NOW)
    assert packager.parts == 0
    packager.feed(frames(1, first=9), NOW)
    assert packager.parts == 1


def test_a_keyframe_before_the_target_makes_no_segment() -> None:
    stream, collector = new_stream()
    packager = Packager(stream)
    packager.feed(INIT + frames(121, every=15), NOW)
    assert [durations(segment) for segment in collector.segments] == [[0.3333] * 6] * 2
    assert [part.independent for part in collector.segments[0].parts] == [True, True, False, True, True, False]


def test_a_keyframe_that_is_late() -> None:
    stream, collector = new_stream()
    Packager(stream).feed(INIT + frames(151, every=75), NOW)
    assert [durations(segment) for segment in collector.segments] == [[*[0.3333] * 7, 0.1667]] * 2


def test_no_keyframe_for_too_long() -> None:
    """It is cut where the target duration would no longer hold, and goes on."""
    stream, collector = new_stream()
    Packager(stream).feed(INIT + frames(400, every=1000), NOW)
    assert [round(segment.duration, 3) for segment in collector.segments] == [3.467] * 3
    assert [segment.parts[0].independent for segment in collector.segments] == [True, False, False]
    assert all(round(segment.duration) <= stream.settings.target_duration for segment in collector.segments)


def test_nothing_before_the_first_keyframe() -> None:
    stream, collector = new_stream()
    packager = Packager(stream)
    packager.feed(INIT + audio(0) + video(0, FRAME) + video(FRAME, FRAME) + frames(61, first=60), NOW)
    assert collector.segments[0].data == audio(0) + frames(60, first=60)
    assert collector.segments[0].start == NOW


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"".join(video(n * FRAME, FRAME, keyframe=not n, size=1000) for n in range(50)), "20000 bytes"),
        (b"".join(audio(n * 0.02, size=1000) for n in range(50)), "20000 bytes"),
        (b"".join(video(0, 0, keyframe=True, size=1000) for n in range(50)), "20000 bytes"),
        (video(0, 4, keyframe=True), "a frame of 4 s"),
        (b"\0\0\0\x10abcd" + bytes(8) + b"\0\0\0\0efgh", "bytes"),
        (INIT, "second moov"),
    ],
)
def test_useless_output(data: bytes, why: str) -> None:
    stream, _ = new_stream()
    with pytest.raises(BadMp4, match=why):
        Packager(stream, max_segment=20_000).feed(INIT + data, NOW)
    assert issubclass(BadOutput, BadMp4)


def test_bytes_are_counted_for_each_segment() -> None:
    stream, collector = new_stream()
    Packager(stream, max_segment=30_000).feed(INIT + frames(601), NOW)
    assert len(collector.segments) == 10
    assert all(20_000 < segment.size <= 30_000 for segment in collector.segments)


def test_a_part_may_be_as_long_as_the_target() -> None:
    """Three tenths of a second are a little more than 0.3, for a computer."""
    stream, collector = new_stream(LiveSettings(part_target=0.3))
    Packager(stream).feed(INIT + frames(21, every=20, rate=10), NOW)
    assert durations(collector.segments[0]) == [*[0.3] * 6, 0.2]


def test_a_second_run() -> None:
    stream, collector = new_stream()
    first, second = Packager(stream), Packager(stream)
    first.feed(INIT + frames(75), NOW)
    first.finish()
    first.finish()
    second.feed(INIT + frames(61), NOW + 1)  # by a clock that was set back in the meantime
    assert [segment.run for segment in collector.segments] == [0, 0, 1]
    assert [segment.discontinuity for segment in collector.segments] == [False, False, True]
    assert [segment.start - NOW for segment in collector.segments] == pytest.approx([0, 2, 2.5])
    later = Packager(stream)
    later.feed(INIT + frames(61), NOW + 10)
    assert collector.segments[-1].start == NOW + 10


def test_output_that_ends_early() -> None:
    stream, collector = new_stream()
    Packager(stream).finish()
    silent = Packager(stream)
    silent.feed(INIT + audio(0), NOW)
    silent.finish()
    assert (collector.segments, stream.progress) == ([], 0)


@given(
    rate=st.sampled_from([10, 15, 20, 24, 25, 30, 50, 60]),
    keyframes=st.sets(st.integers(1, 500)),
    sound=st.booleans(),
    count=st.integers(1, 500),
)
def test_whatever_the_keyframes(rate: int, keyframes: set[int], sound: bool, count: int) -> None:
    stream, collector = new_stream(LiveSettings(segment_target=1.0))
    settings = stream.settings
    packager, sent = Packager(stream), b""
    packager.feed(INIT, NOW)
    for index in range(count):
        data = video(index / rate, 1 / rate, keyframe=not index or index in keyframes, size=8)
        data += audio(index / rate, 1 / rate, size=4) if sound else b""
        packager.feed(data, NOW)
        sent += data
    packager.finish()
    packed = b"".join(segment.data for segment in collector.segments)
    assert sent in (packed, packed + audio((count - 1) / rate, 1 / rate, size=4))
    assert sum(segment.duration for segment in collector.segments) == pytest.approx(count / rate)
    for segment in collector.segments:
        assert round(segment.duration) <= settings.target_duration
        assert all(part.duration <= settings.part_target + 1e-6 for part in segment.parts)
        assert all(part.duration >= 0.85 * settings.part_target for part in segment.parts[:-1])
        assert all(one.start + one.duration == pytest.approx(two.start) for one, two in pairwise(segment.parts))
    for segment, following in pairwise(collector.segments):
        assert segment.duration >= settings.segment_target - 0.5 / rate - 1e-6
        assert following.parts[0].independent or segment.duration + 1 / rate > settings.longest_segment


@given(changes=st.lists(st.tuples(st.integers(1_200, 30_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_output_of_ffmpeg(changes: list[tuple[int, int]]) -> None:
    """Only BadMp4 comes out, and what it leaves behind can be listed."""
    data = bytearray(ffmpeg_output(*EACH_TIME))
    for place, value in changes:
        data[place] = value
    stream, collector = new_stream(LiveSettings(segment_target=1.0))
    packager = Packager(stream)
    with suppress(BadMp4):
        for at in range(0, len(data), 1000):
            packager.feed(bytes(data[at : at + 1000]), NOW)
    packager.finish()
    assert stream.playlist().count(b"#EXTINF:") == len(collector.segments)
    for segment in collector.segments:
        assert round(segment.duration) <= stream.settings.target_duration
        assert isinstance(segment.parts[0], Part)
    for _, init in collector.inits:
        assert [item.data for item in Mp4Splitter().feed(init)] == [init]
