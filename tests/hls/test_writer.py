"""The queue and the task between a live stream and the disk."""

import errno
import logging
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.clips import FRAMES, clips, decode
from tests.support.until import until
from trio_sfu.hls.live_stream import LiveSettings, LiveStream, Part
from trio_sfu.hls.plain_folder import PLAYLIST, PlainFolder
from trio_sfu.hls.recording import Recording
from trio_sfu.hls.writer import Clip, DiskWriter, WriterCounters

FULL = OSError(errno.ENOSPC, "No space left on device")


@dataclass(frozen=True)
class Piece:
    """A segment."""

    msn: int
    run: int = 0
    discontinuity: bool = False
    start: float = 0.0
    duration: float = 1.0
    data: bytes = b"data"


@dataclass
class Disk:
    """A target that notes what it is given; ``errors`` are raised by its next calls, ``open`` lets calls through."""

    errors: list[Exception] = field(default_factory=list)
    always: Exception | None = None
    clips: list[Clip] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    finished: int = 0
    open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def numbers(self) -> list[int]:
        return [clip.msn for clip in self.clips]

    def add(self, clip: Clip, now: float) -> None:
        self.tried.append(clip.msn)
        self._work()
        self.clips.append(clip)

    def finish(self) -> None:
        self._work()
        self.finished += 1

    def _work(self) -> None:
        assert self.open.wait(60)
        error = self.errors.pop(0) if self.errors else self.always
        if error is not None:
            raise error


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.open.set()  # a thread that was left to itself ends


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sfu.hls.writer.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("trio_sfu.hls.writer.LONGEST_PAUSE", 0.002)


@pytest.fixture
def counters() -> WriterCounters:
    return WriterCounters()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "trio_sfu.hls.writer")
    return lambda: [record.getMessage() for record in caplog.records]


@asynccontextmanager
async def running(writer: DiskWriter) -> AsyncIterator[None]:
    """The writer's task, with a first run begun; the stream ends with the block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.on_init(0, b"init")
        yield
        writer.on_end()


async def test_all_is_written_in_order(disk: Disk, counters: WriterCounters) -> None:
    writer = DiskWriter(disk, "it", counters)
    async with running(writer):
        for msn in range(3):
            writer.on_segment(Piece(msn))
        writer.on_init(1, b"another")
        writer.on_segment(Piece(3, run=1, discontinuity=True, start=7.0, duration=0.5, data=b"x"))
        await until(lambda: len(disk.clips) == 4)
        assert disk.finished == 0
    assert disk.clips[0] == Clip(0, 0, False, 0.0, 1.0, b"init", b"data")
    assert disk.clips[1:3] == [Clip(msn, 0, False, 0.0, 1.0, b"init", b"data") for msn in (1, 2)]
    assert disk.clips[3] == Clip(3, 1, True, 7.0, 0.5, b"another", b"x")
    assert disk.finished == 1
    assert counters == WriterCounters(written=4, octets=13)


async def test_what_cannot_be_played_is_not_written(disk: Disk, counters: WriterCounters) -> None:
    writer = DiskWriter(disk, "it", counters)
    writer.on_segment(Piece(0))  # no init segment has come
    async with running(writer):
        writer.on_segment(Piece(1, run=1))  # nor this one's
        writer.on_segment(Piece(2))
    writer.on_segment(Piece(3))  # after the end
    assert disk.numbers == [2]


async def test_a_slow_disk_costs_the_oldest(
    disk: Disk, counters: WriterCounters, said: Callable[[], list[str]]
) -> None:
    writer = DiskWriter(disk, "Room r", counters, max_segments=3)
    disk.open.clear()
    async with running(writer):
        writer.on_segment(Piece(0))
        await until(lambda: disk.tried == [0])
        for msn in range(1, 10):
            writer.on_segment(Piece(msn))
        assert said() == ["Room r: the disk is too slow; segments are dropped"]
        disk.open.set()
        await until(lambda: counters.written == 4)
        assert disk.numbers == [0, 7, 8, 9]
        assert said()[1:] == ["Room r: written again; 6 segments are missing"]
        assert counters.lost == 6


async def test_the_queue_is_bounded_in_bytes(disk: Disk, counters: WriterCounters) -> None:
    writer = DiskWriter(disk, "it", counters, max_bytes=1000)
    disk.open.clear()
    async with running(writer):
        writer.on_segment(Piece(0, data=bytes(400)))
        await until(lambda: disk.tried == [0])
        for msn in (1, 2, 3):
            writer.on_segment(Piece(msn, data=bytes(400)))
        writer.on_segment(Piece(4, data=bytes(100)))
        writer.on_segment(Piece(5, data=bytes(100)))
        disk.open.set()
        await until(lambda: counters.written == 5)
        assert disk.numbers == [0, 2, 3, 4, 5]
        disk.open.clear()
        writer.on_segment(Piece(6))
        await until(lambda: disk.tried[-1] == 6)
        writer.on_segment(Piece(7, data=bytes(400)))
        writer.on_segment(Piece(8, data=bytes(2000)))  # larger than the queue: it goes alone
        disk.open.set()
    assert disk.numbers[5:] == [6, 8]
    assert counters.lost == 2


async def test_a_full_disk_is_tried_again(disk: Disk, counters: WriterCounters, said: Callable[[], list[str]]) -> None:
    writer = DiskWriter(disk, "Room r", counters)
    denied = OSError(errno.EACCES, "Permission denied")
    disk.errors = [FULL, FULL, denied, FULL]
    async with running(writer):
        writer.on_segment(Piece(0))
        writer.on_segment(Piece(1))
        await until(lambda: counters.written == 2)
        again = "the live stream goes on, and this is tried again"
        assert said() == [
            f"Room r: cannot be written: No space left on device; {again}",
            f"Room r: cannot be written: Permission denied; {again}",
            "Room r: written again; 0 segments are missing",
        ]
        disk.errors = [FULL]  # another episode
        writer.on_segment(Piece(2))
        await until(lambda: counters.written == 3)
        assert len(said()) == 5
    assert disk.tried == [0, 0, 0, 0, 0, 1, 2, 2]
    assert counters == WriterCounters(written=3, octets=12, failures=5)


async def test_a_disk_that_stays_full_costs_the_oldest(
    disk: Disk, counters: WriterCounters, said: Callable[[], list[str]]
) -> None:
    writer = DiskWriter(disk, "it", counters, max_segments=2)
    disk.always = FULL
    async with running(writer):
        for msn in range(6):
            writer.on_segment(Piece(msn))
        await until(lambda: 4 in disk.tried)
        disk.always = None
        await until(lambda: counters.written == 2)
        assert disk.numbers == [4, 5]
        assert said()[-1] == "it: written again; 4 segments are missing"
    assert counters.lost == 4


async def test_the_end_on_a_full_disk(disk: Disk, counters: WriterCounters, said: Callable[[], list[str]]) -> None:
    writer = DiskWriter(disk, "it", counters, finish_seconds=0.2)
    disk.always = FULL
    async with running(writer):
        for msn in range(3):
            writer.on_segment(Piece(msn))
    assert set(disk.tried) == {0, 1, 2}
    assert disk.finished == 0
    assert counters.lost == 3
    assert said()[-1] == "it: not finished within 0.2 s; the end is missing"


async def test_the_last_is_not_tried_again(disk: Disk, counters: WriterCounters, said: Callable[[], list[str]]) -> None:
    writer = DiskWriter(disk, "it", counters)
    disk.errors = [FULL]
    writer.on_init(0, b"init")
    writer.on_segment(Piece(0))
    writer.on_end()
    await writer.run()
    assert disk.tried == [0]
    assert disk.finished == 1
    assert said()[-1] == "it: written again; 1 segments are missing"


async def test_the_end_is_tried_again(disk: Disk, counters: WriterCounters) -> None:
    disk.errors = [FULL, FULL]
    async with running(DiskWriter(disk, "it", counters)):
        pass
    assert disk.finished == 1


async def test_a_disk_that_hangs(disk: Disk, counters: WriterCounters, said: Callable[[], list[str]]) -> None:
    writer = DiskWriter(disk, "it", counters, finish_seconds=0.1)
    disk.open.clear()
    async with running(writer):
        for msn in range(3):
            writer.on_segment(Piece(msn))
        await until(lambda: disk.tried == [0])
    assert not disk.open.is_set()
    assert counters == WriterCounters(lost=3)
    assert said() == ["it: not finished within 0.1 s; the end is missing"]


async def test_cancellation_waits_for_what_is_queued(disk: Disk, counters: WriterCounters) -> None:
    writer = DiskWriter(disk, "it", counters)
    disk.open.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.on_init(0, b"init")
        for msn in range(3):
            writer.on_segment(Piece(msn))
        await until(lambda: disk.tried == [0])
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
        # The stream ends a little later, with a last segment.
        writer.on_segment(Piece(3))
        writer.on_end()
        disk.open.set()
    assert disk.numbers == [0, 1, 2, 3]
    assert disk.finished == 1


async def test_cancellation_does_not_wait_for_a_stream_that_never_ends(
    disk: Disk, counters: WriterCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_sfu.hls.writer.LAST_SECONDS", 0.05)
    writer = DiskWriter(disk, "it", counters)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.on_init(0, b"init")
        writer.on_segment(Piece(0))
        nursery.cancel_scope.cancel()
    assert disk.numbers == [0]
    assert disk.finished == 1


async def test_a_bug_in_the_target_stays_inside(
    disk: Disk, counters: WriterCounters, said: Callable[[], list[str]]
) -> None:
    disk.errors = [ZeroDivisionError()]
    writer = DiskWriter(disk, "it", counters)
    async with running(writer):
        writer.on_segment(Piece(0))
        await until(lambda: said() == ["it: nothing more is written"])
        writer.on_segment(Piece(1))
    assert disk.tried == [0]
    assert disk.finished == 0


def live_stream() -> LiveStream:
    return LiveStream(LiveSettings(segment_target=1.0), first_msn=5)


def feed(stream: LiveStream, some: list[Clip]) -> None:
    """One run, two parts a segment (cut anywhere: nobody looks inside)."""
    stream.begin_run(some[0].init)
    for clip in some:
        middle = len(clip.data) // 2
        stream.add_part(Part(clip.data[:middle], clip.start, 0.5, True))
        stream.add_part(Part(clip.data[middle:], clip.start + 0.5, 0.5, False))
        stream.end_segment()


def recording_in(base: Path) -> Path:
    (path,) = base.glob("room/*/*")
    return path


async def test_a_live_stream_on_two_disks(tmp_path: Path, counters: WriterCounters) -> None:
    stream = live_stream()
    hls = PlainFolder(tmp_path / "hls", "room", window=60.0, target_duration=stream.settings.target_duration)
    writers = [DiskWriter(hls, "hls", counters), DiskWriter(Recording(tmp_path / "rec", "room"), "rec", counters)]
    stream.listeners.extend(writers)
    async with trio.open_nursery() as nursery:
        for writer in writers:
            nursery.start_soon(writer.run)
        feed(stream, clips(3))
        stream.end()
    assert decode(tmp_path / "hls" / "room" / PLAYLIST) == 3 * FRAMES
    assert decode(recording_in(tmp_path / "rec")) == 3 * FRAMES
    assert counters.written == 6
    assert counters.lost == counters.failures == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not permitted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kind", ["hls", "recording"])
async def test_a_disk_that_is_really_full(
    kind: str, small_disk: Path, counters: WriterCounters, said: Callable[[], list[str]]
) -> None:
    target = (
        PlainFolder(small_disk, "room", window=60.0, target_duration=2)
        if kind == "hls"
        else Recording(small_disk, "room")
    )
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(40 << 10))
    writer = DiskWriter(target, "it", counters, max_segments=2)
    stream = live_stream()
    stream.listeners.append(writer)
    some = clips(12)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        stream.begin_run(some[0].init)
        for number, clip in enumerate(some[:10]):
            stream.add_part(Part(clip.data, clip.start, 1.0, True))
            stream.end_segment()
            await until(lambda number=number: counters.written == number + 1 or counters.failures > 0)  # type: ignore[misc]
        before = counters.written
        assert 0 < before < 10
        assert said() == [
            "it: cannot be written: No space left on device; the live stream goes on, and this is tried again"
        ]
        os.unlink(ballast)
        for clip in some[10:]:
            stream.add_part(Part(clip.data, clip.start, 1.0, True))
            stream.end_segment()
        stream.end()
    assert counters.written + counters.lost == 12
    assert counters.written > before
    path = small_disk / "room" / PLAYLIST if kind == "hls" else recording_in(small_disk)
    if kind == "recording":
        assert decode(path) == counters.written * FRAMES
    else:
        assert path.read_text().count("#EXT-X-DISCONTINUITY\n") == (counters.lost > 0)
        assert path.read_text().endswith("#EXT-X-ENDLIST\n")
