"""Recordings: what is in the files, and that they play whenever the writing may stop."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.clips import FRAMES, clips, decode
from trio_sfu.hls.recording import Recording
from trio_sfu.hls.writer import Clip

START = "2023-11-14T22-13-20Z"  # of the clips


class Crash(BaseException):
    """The process dies here."""


@contextmanager
def failing_writes(
    monkeypatch: pytest.MonkeyPatch, before: int, error: BaseException, *, truncating: bool = False
) -> Iterator[None]:
    """Each call writes 1000 bytes at most; after so many of them it fails, and ``truncating`` fails as well."""
    write, left = os.pwrite, before

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal left
        if left == 0:
            raise error
        left -= 1
        return write(descriptor, data[:1000], offset)

    def ftruncate(descriptor: int, length: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        if truncating:
            patch.setattr(os, "ftruncate", ftruncate)
        yield


def record(recording: Recording, some: list[Clip]) -> None:
    for clip in some:
        recording.add(clip, clip.start)


def files(base: Path) -> list[str]:
    return sorted(str(each.relative_to(base)) for each in base.rglob("*") if each.is_file())


def test_a_file_for_each_run(tmp_path: Path) -> None:
    recording = Recording(tmp_path, "room")
    assert files(tmp_path) == []
    first, second = clips(3), clips(2, size="32x32", run=1, msn=3, first=False)
    record(recording, first + second)
    recording.finish()
    assert files(tmp_path) == [f"room/{START}/001.mp4", f"room/{START}/002.mp4"]
    one, two = (tmp_path / each for each in files(tmp_path))
    assert one.read_bytes() == first[0].init + b"".join(clip.data for clip in first)
    assert [decode(one), decode(two)] == [3 * FRAMES, 2 * FRAMES]


def test_streams_that_start_in_one_second(tmp_path: Path) -> None:
    for _ in range(3):
        record(Recording(tmp_path, "room"), clips(1))
    assert files(tmp_path) == [f"room/{START}{suffix}/001.mp4" for suffix in ("-2", "-3", "")]


def test_odd_rooms_stay_inside(tmp_path: Path) -> None:
    base = tmp_path / "base"
    for room_id in ("..", "../up", "/etc", "a/b", "\0"):
        record(Recording(base, room_id), clips(1))
    assert os.listdir(tmp_path) == ["base"]
    assert sorted(os.listdir(base)) == ["%00", "%2E%2E", "%2E%2E%2Fup", "%2Fetc", "a%2Fb"]


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_crash_at_each_write(writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path, "room")
    some = clips(3)
    assert len(some[2].data) > 1008  # so that several writes are needed
    record(recording, some[:2])
    with failing_writes(monkeypatch, writes, Crash()), suppress(Crash):
        recording.add(some[2], 0.0)
        pytest.fail("this is too many writes to end in a crash")
    (path,) = (tmp_path / each for each in files(tmp_path))
    whole = len(some[0].init + some[0].data + some[1].data)
    left = path.read_bytes()[whole:]
    assert left[:8] == (b"\0\0\0\0free" if writes else b"")
    assert (len(left) > 8) == (writes > 1)
    assert decode(path) == 2 * FRAMES


def test_a_crash_at_the_first_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing_writes(monkeypatch, 2, Crash()), suppress(Crash):
        Recording(tmp_path, "room").add(clips(1)[0], 0.0)
    assert list(tmp_path.rglob("*.mp4")) == []


@pytest.mark.parametrize("truncating", [False, True])
@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_full_disk(writes: int, truncating: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path, "room")
    some = clips(4)
    record(recording, some[:2])
    (path,) = (tmp_path / each for each in files(tmp_path))
    size = path.stat().st_size
    error = OSError(errno.ENOSPC, "No space left on device")
    with (
        failing_writes(monkeypatch, writes, error, truncating=truncating),
        pytest.raises(OSError, match="No space left"),
    ):
        recording.add(some[2], 0.0)
    assert (path.stat().st_size == size) == (not truncating or writes == 0)
    assert decode(path) == 2 * FRAMES
    recording.add(some[3], 0.0)  # the one before is given up: a gap
    assert path.read_bytes() == some[0].init + some[0].data + some[1].data + some[3].data
    assert decode(path) == 3 * FRAMES


def test_a_full_disk_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path, "room")
    error = OSError(errno.ENOSPC, "No space left on device")
    with failing_writes(monkeypatch, 1, error), pytest.raises(OSError, match="No space left"):
        recording.add(clips(2)[0], 0.0)
    assert files(tmp_path) == []
    record(recording, clips(2))
    assert files(tmp_path) == [f"room/{START}/001.mp4"]


def test_a_file_as_large_as_files_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path, "room")
    some = clips(4)
    record(recording, some[:2])
    whole = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if offset + len(data) > len(some[0].init + some[0].data + some[1].data) + 1000:
            raise OSError(errno.EFBIG, "File too large")
        return whole(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        recording.add(some[2], 0.0)
    recording.add(some[3], 0.0)
    assert [decode(tmp_path / each) for each in files(tmp_path)] == [2 * FRAMES, 2 * FRAMES]


def delete_file(room: Path) -> None:
    (room / START / "001.mp4").unlink()


def delete_folder(room: Path) -> None:
    delete_file(room)
    (room / START).rmdir()
    room.rmdir()


@pytest.mark.parametrize("delete", [delete_file, delete_folder])
def test_deleted_meanwhile(delete: Callable[[Path], None], tmp_path: Path) -> None:
    recording = Recording(tmp_path, "room")
    some = clips(3)
    record(recording, some[:1])
    delete(tmp_path / "room")
    record(recording, some[1:])
    assert files(tmp_path) == [f"room/{START}/002.mp4"]
    assert decode(tmp_path / files(tmp_path)[0]) == 2 * FRAMES


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from tests.support.clips import clips
from trio_sfu.hls.recording import Recording

recording = Recording(Path(sys.argv[1]), "room")
for clip in clips(60):
    recording.add(clip, clip.start)
    print(clip.msn, flush=True)
input()
"""


def test_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        try:
            for _ in range(5):
                assert process.stdout.readline()
        finally:
            process.send_signal(signal.SIGKILL)
    pictures = decode(tmp_path / "room" / START / "001.mp4")
    assert pictures >= 5 * FRAMES
    assert pictures % FRAMES == 0
