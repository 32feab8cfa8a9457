"""The window of segments: what it holds, for how long, and what viewers are told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.playlist_reader import ReadPlaylist, read_playlist
from trio_sfu.hls.live_stream import LiveSettings, LiveStream, LiveStreams, Part, Segment

NOW = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Trace:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_init(self, run: int, init: bytes) -> None:
        self.heard.append((run, init))

    def on_segment(self, segment: Segment) -> None:
        self.heard.append(segment.msn)

    def on_end(self) -> None:
        self.heard.append("end")


def add(stream: LiveStream, *, segments: int = 0, parts: int = 0, size: int = 10) -> None:
    """Segments of six parts, and then parts."""
    for _ in range(segments):
        add(stream, parts=6, size=size)
        stream.end_segment()
    for _ in range(parts):
        stream.add_part(Part(bytes(size), NOW + stream.progress / 3, 1 / 3, independent=False))


def live(settings: LiveSettings | None = None, *, segments: int = 0, parts: int = 0) -> LiveStream:
    stream = LiveStream(settings or LiveSettings())
    stream.begin_run(b"init")
    add(stream, segments=segments, parts=parts)
    return stream


def read(stream: LiveStream, before: ReadPlaylist | None = None) -> ReadPlaylist:
    return read_playlist(stream.playlist(skip=before is not None).decode(), before)


def test_from_the_beginning_to_the_end() -> None:
    stream, trace = LiveStream(LiveSettings()), Trace()
    stream.listeners.append(trace)
    states: list[str] = [stream.state]
    assert stream.begin_run(b"first") == 0
    states.append(stream.state)
    add(stream, segments=1, parts=1)
    states.append(stream.state)
    assert stream.progress == 7
    assert stream.begin_run(b"second") == 1  # ends the first
    stream.end_run()  # and had nothing
    assert stream.begin_run(b"third") == 2
    add(stream, parts=2)
    stream.end()
    stream.end()
    assert trace.heard == [(0, b"first"), 0, 1, (1, b"second"), (2, b"third"), 2, "end"]
    assert [*states, stream.state] == ["starting", "starting", "live", "ended"]
    playlist = read(stream)
    assert playlist.ended
    assert [each.discontinuity for each in playlist.segments] == [0, 0, 1]
    assert [each.map_uri for each in playlist.segments] == [f"{stream.token}/init{run}.mp4" for run in (0, 0, 2)]
    assert [len(each.parts) for each in playlist.segments] == [6, 1, 2]


def test_misuse() -> None:
    stream = LiveStream(LiveSettings())
    with pytest.raises(RuntimeError, match="outside a run"):
        add(stream, parts=1)
    stream.begin_run(b"init")
    stream.end_segment()  # there is none
    assert stream.segments_held == 0
    stream.end()
    stream.end_run()
    for change in (lambda: stream.begin_run(b"init"), lambda: add(stream, parts=1)):
        with pytest.raises(RuntimeError, match="has ended"):
            change()


def test_names() -> None:
    stream = live(segments=2, parts=1)
    assert stream.media("init0.mp4") == b"init"
    assert stream.media("0.m4s") == bytes(60)
    assert stream.media("1.5.m4s") == bytes(10)
    assert stream.media("2.0.m4s") == bytes(10)
    missing = [
        "2.m4s",
        "2.1.m4s",
        "1.6.m4s",
        "3.m4s",
        "3.0.m4s",
        "init1.mp4",
        "",
        "index.m3u8",
        "m4s",
        ".m4s",
        "-1.m4s",
    ]
    missing += ["00.m4s", "0.00.m4s", "init00.mp4", "٠.m4s", "0.m4s\n", "../0.m4s", "0.0.0.m4s", "9" * 5000 + ".m4s"]
    assert [name for name in missing if stream.media(name) is not None] == []


def test_what_is_announced() -> None:
    stream = LiveStream(LiveSettings())

    def announced() -> str | None:
        hint = read(stream).hint
        assert hint is None or stream.announces(hint.removeprefix(f"{stream.token}/"))
        return hint and hint.removeprefix(f"{stream.token}/")

    stream.begin_run(b"init")
    assert announced() is None
    assert not stream.announces("0.0.m4s")
    add(stream, parts=1)
    assert announced() == "0.1.m4s"
    stream.end_segment()
    assert announced() == "1.0.m4s"
    stream.end_run()
    assert announced() is None
    stream.begin_run(b"init")
    assert announced() is None
    assert not stream.announces("1.0.m4s")
    add(stream, parts=1)
    assert announced() == "1.1.m4s"
    stream.end()
    assert announced() is None


def test_what_is_there() -> None:
    stream = live(segments=2, parts=2)  # 0 and 1 are complete, 2 has two parts

    def there(*wanted: tuple[int, int | None]) -> list[bool]:
        return [stream.has(msn, part) for msn, part in wanted]

    assert there((0, None), (1, None), (2, None), (3, None)) == [True, True, False, False]
    assert there((1, 5), (2, 0), (2, 1), (2, 2), (3, 0)) == [True, True, True, False, False]
    # Beyond a segment's last part is the next one's first.
    assert there((1, 6), (0, 99)) == [True, True]
    stream.end_segment()
    assert there((2, None), (2, 1), (2, 2), (2, 99), (3, 0)) == [True, True, False, False, False]
    stream.end_run()
    assert there((2, None), (2, 2), (3, 0)) == [True, False, False]
    stream.begin_run(b"again")
    assert there((2, 2), (3, 0)) == [False, False]
    add(stream, parts=1)
    assert there((2, 2), (2, 99), (3, 0), (3, 1), (3, None)) == [True, True, True, False, False]
    stream.end()
    assert there((3, 1), (99, 99), (99, None)) == [True, True, True]


def test_what_is_long_gone_is_there() -> None:
    """The playlist of now is the answer (the draft, section 6.2.5.2)."""
    stream = live(LiveSettings(window=6), segments=40)
    assert read(stream).media_sequence > 30
    assert stream.has(0, None)
    assert stream.has(0, 99)


def test_what_is_too_far() -> None:
    stream = live(segments=5, parts=2)  # 4 is the last complete one; parts of a third: nine more
    assert [stream.is_far(msn, None) for msn in (0, 5, 6, 7, 10**15)] == [False, False, False, True, True]
    assert [stream.is_far(5, part) for part in (2, 10, 11)] == [False, False, True]
    assert [stream.is_far(6, part) for part in (0, 8, 9)] == [False, False, True]
    assert [stream.is_far(4, part) for part in (5, 10**15)] == [False, False]
    assert [live(LiveSettings(part_target=1.5)).is_far(0, part) for part in (2, 3)] == [False, True]


def test_the_window_over_ten_minutes() -> None:
    """A new run each 50 s. What is held stays bounded; what has left the playlist stays for a while."""
    settings = LiveSettings(window=60)
    stream = LiveStream(settings)
    names: list[str] = []
    for second in range(0, 600, 2):
        if second % 50 == 0:
            stream.begin_run(f"init at {second}".encode())
        add(stream, segments=1, size=1000)
        assert stream.bytes_held == 6000 * stream.segments_held
        assert stream.bytes_held <= 6000 * 36  # 60 s, three target durations, one more for rounding
        playlist = read(stream)
        duration = sum(each.duration or 0 for each in playlist.segments)
        assert min(second + 2, 60) <= duration + 0.01 < 62.1
        assert [each.discontinuity for each in playlist.segments] == [each.msn // 25 for each in playlist.segments]
        for uri in playlist.uris():
            assert stream.media(uri.removeprefix(f"{stream.token}/")) is not None
        names = [*names[-4:], playlist.segments[0].uri or ""]
        assert all(stream.media(name.removeprefix(f"{stream.token}/")) for name in names)
    assert stream.media("0.m4s") is None
    assert stream.media("init0.mp4") is None
    assert sum(stream.media(f"init{run}.mp4") is not None for run in range(12)) <= 3


def test_bytes_are_bounded_before_all_else() -> None:
    stream = live(LiveSettings(max_bytes=100_000), segments=3)
    for _ in range(50):
        add(stream, segments=1, size=5000)
        assert stream.bytes_held <= 100_000
    assert [each.msn for each in read(stream).segments] == [50, 51, 52]
    stream.begin_run(b"another")
    add(stream, segments=1, size=20_000)  # a segment of its own
    assert (stream.segments_held, stream.bytes_held) == (1, 120_000)
    playlist = read(stream)
    assert (playlist.media_sequence, playlist.segments[0].discontinuity) == (53, 1)


def test_one_playlist_for_all() -> None:
    stream = live(segments=15, parts=1)
    version = stream.version
    assert stream.playlist() is stream.playlist()
    assert stream.playlist(skip=True) is stream.playlist(skip=True)
    assert stream.playlist(skip=True) != stream.playlist()
    assert stream.version == version
    before = stream.playlist()
    add(stream, parts=1)
    assert stream.version != version
    assert stream.playlist() != before


async def test_waiting(autojump_clock: trio.testing.MockClock) -> None:
    stream = live(segments=1)
    answers: list[tuple[int, bool]] = []

    async def viewer(number: int) -> None:
        answers.append((number, await stream.wait(lambda: stream.has(1, number))))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(viewer, number)
        await trio.testing.wait_all_tasks_blocked()
        assert stream.waiting == 3
        for count in range(1, 4):
            add(stream, parts=1)
            await trio.testing.wait_all_tasks_blocked()
            assert answers == [(number, True) for number in range(count)]
            assert stream.waiting == 3 - count


async def test_waiting_over_a_restart(autojump_clock: trio.testing.MockClock) -> None:
    stream = live(segments=1, parts=2)
    answered = trio.Event()

    async def viewer() -> None:
        assert await stream.wait(lambda: stream.has(1, 2))
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer)
        await trio.testing.wait_all_tasks_blocked()
        stream.end_run()
        await trio.sleep(2)
        stream.begin_run(b"again")
        await trio.testing.wait_all_tasks_blocked()
        assert not answered.is_set()
        add(stream, parts=1)
        await answered.wait()
    last = read(stream).segments[-1]
    assert (last.msn, last.discontinuity, last.map_uri) == (2, 1, f"{stream.token}/init1.mp4")


async def test_waiting_has_its_bounds(autojump_clock: trio.testing.MockClock) -> None:
    stream = live(LiveSettings(max_waiting=2), segments=1)

    async def viewer() -> None:
        began = trio.current_time()
        assert not await stream.wait(lambda: stream.has(1, 0))
        assert trio.current_time() - began == pytest.approx(9)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer)
        nursery.start_soon(viewer)
        await trio.testing.wait_all_tasks_blocked()
        assert not await stream.wait(lambda: stream.has(1, 0))
        assert stream.waiting == 2
    assert stream.waiting == 0
    with trio.move_on_after(1) as scope:
        await stream.wait(lambda: stream.has(1, 0))
    assert scope.cancelled_caught
    assert stream.waiting == 0


def test_streams_of_rooms() -> None:
    clock = Clock()
    streams = LiveStreams(LiveSettings(window=20), grace=60, clock=clock)
    assert streams.get("a") is None
    stream = streams.create("a")
    other = streams.create("b")
    assert (streams.get("a"), streams.get("b"), streams.get("c")) == (stream, other, None)
    assert stream.token != other.token
    stream.begin_run(b"init")
    add(stream, segments=1, parts=2)
    assert (len(streams), streams.segments, streams.bytes, streams.waiting) == (2, 2, 80, 0)
    stream.end()
    clock.now += 59
    assert streams.get("a") is stream
    clock.now += 1
    assert streams.get("a") is None
    assert len(streams) == 1
    other.end()
    clock.now += 60
    streams.sweep()
    assert len(streams) == 0


def test_a_successor_goes_on() -> None:
    streams = LiveStreams(clock=Clock())
    first = streams.create("a")
    first.begin_run(b"init")
    add(first, segments=2)
    first.begin_run(b"init")
    add(first, segments=1, parts=1)
    second = streams.create("a")
    assert first.state == "ended"
    assert second.token != first.token
    third = streams.create("a")  # the second had nothing
    third.begin_run(b"init")
    add(third, segments=1)
    before, after = read(first).segments, read(third).segments
    assert [(each.msn, each.discontinuity) for each in before] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert [(each.msn, each.discontinuity) for each in after] == [(4, 2)]
    assert len(streams) == 1


Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("parts"), st.integers(1, 8)),
        st.tuples(st.just("segments"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["end segment", "begin run", "end run", "reload", "delta"]), st.just(0)),
    ),
    max_size=40,
)


def take(stream: LiveStream, step: Step, running: bool) -> bool:
    """Returns whether a run is on."""
    kind, count = step
    if kind == "begin run":
        stream.begin_run(b"init")
        return True
    if kind == "end run":
        stream.end_run()
        return False
    if kind == "end segment":
        stream.end_segment()
    elif running and kind == "parts":
        add(stream, parts=count)
    elif running and kind == "segments":
        add(stream, segments=count)
    return running


def known(playlist: ReadPlaylist) -> list[object]:
    """What a player must know of each segment. It may go on knowing parts of older ones."""
    return [replace(each, parts=()) if each.uri else each for each in playlist.segments]


@given(steps=STEPS, window=st.sampled_from([4.0, 20.0, 60.0]), max_bytes=st.sampled_from([500, 2000, 10**6]))
def test_whatever_happens(steps: list[Step], window: float, max_bytes: int) -> None:
    """A player reloads, fully or by delta updates, at any time: all that it is told fits together."""
    stream = LiveStream(LiveSettings(window=window, max_bytes=max_bytes))
    running, seen = False, read(stream)
    identities: dict[int, tuple[int, str, float]] = {}
    for step in [*steps, ("delta", 0), ("end", 0), ("reload", 0)]:
        if step[0] == "end":
            stream.end()
        running = take(stream, step, running)
        assert stream.bytes_held <= max_bytes + 60 * 8
        if step[0] not in ("reload", "delta"):
            continue
        full = read(stream)
        if step[0] == "delta" and covers(stream, seen):
            delta = read(stream, seen)
            assert known(delta) == known(full)
            assert (delta.hint, delta.tags, delta.media_sequence) == (full.hint, full.tags, full.media_sequence)
        assert full.media_sequence >= seen.media_sequence
        for uri in full.uris():
            assert stream.media(uri.removeprefix(f"{stream.token}/")) is not None, uri
        for index, each in enumerate(full.segments):
            assert each.msn == full.media_sequence + index
            if each.duration is not None and each.parts:
                assert sum(one.duration for one in each.parts) == pytest.approx(
                    each.duration, abs=1e-5 * len(each.parts)
                )
            identity = (each.discontinuity, each.map_uri, each.date)
            assert identities.setdefault(each.msn, identity) == identity
        seen = full
    assert seen.ended


def covers(stream: LiveStream, seen: ReadPlaylist) -> bool:
    """Does the player know all that a delta update would leave out now?"""
    text = stream.playlist(skip=True).decode()
    if "SKIPPED-SEGMENTS=" not in text:
        return True
    skipped = int(text.partition("SKIPPED-SEGMENTS=")[2].partition("\n")[0])
    first = int(text.partition("EXT-X-MEDIA-SEQUENCE:")[2].partition("\n")[0])
    complete = {each.msn for each in seen.segments if each.uri is not None}
    return complete >= set(range(first, first + skipped))
