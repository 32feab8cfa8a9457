"""The folder for a CDN: a playlist that always holds, whatever happens to the disk and to us."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clips import FRAMES, clips, decode
from trio_sfu.hls.plain_folder import PLAYLIST, PlainFolder, end_of
from trio_sfu.hls.writer import Clip

FULL = OSError(errno.ENOSPC, "No space left on device")


class Crash(BaseException):
    """The process dies here."""


@dataclass(frozen=True)
class Listed:
    """A segment as a playlist names it. Its numbers are the media sequence and the discontinuity sequence."""

    name: str
    init: str
    number: int
    discontinuity: int


@dataclass(frozen=True)
class Playlist:
    segments: tuple[Listed, ...]
    ended: bool

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.segments]

    @property
    def numbers(self) -> list[int]:
        return [each.number for each in self.segments]

    @property
    def discontinuities(self) -> list[int]:
        return [each.discontinuity for each in self.segments]


def read(folder: Path) -> Playlist:
    """The playlist as a player understands it."""
    number = discontinuity = 0
    init = ""
    found: list[Listed] = []
    lines = (folder / PLAYLIST).read_text().splitlines()
    assert lines[0] == "#EXTM3U"
    for line in lines:
        tag, _, value = line.partition(":")
        match tag:
            case "#EXT-X-MEDIA-SEQUENCE":
                number = int(value)
            case "#EXT-X-DISCONTINUITY-SEQUENCE":
                discontinuity = int(value)
            case "#EXT-X-DISCONTINUITY":
                discontinuity += 1
            case "#EXT-X-MAP":
                init = value.removeprefix('URI="').removesuffix('"')
            case _ if not line.startswith("#"):
                found.append(Listed(line, init, number, discontinuity))
                number += 1
    return Playlist(tuple(found), lines[-1] == "#EXT-X-ENDLIST")


def missing(folder: Path) -> set[str]:
    """What the playlist names and is not there, whole."""
    names = {name for each in read(folder).segments for name in (each.name, each.init)}
    return {name for name in names if not (folder / name).is_file()}


def plain_folder(base: Path, window: float = 4.0) -> PlainFolder:
    return PlainFolder(base, "room", window=window, target_duration=1)


def clip(msn: int, *, run: int = 0, discontinuity: bool = False) -> Clip:
    return Clip(msn, run, discontinuity, 1.7e9 + msn, 1.0, b"init of run %d" % run, b"segment %d" % msn)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, function: str, error: BaseException) -> Iterator[None]:
    def fail(*arguments: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        yield


def test_a_stream_plays(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path, window=60.0)
    for each in clips(5):
        folder.add(each, each.start)
    folder.finish()
    assert decode(tmp_path / "room" / PLAYLIST) == 5 * FRAMES


def test_a_crash_leaves_a_playlist_that_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = plain_folder(tmp_path, window=60.0)
    for each in clips(3):
        folder.add(each, each.start)
    for function in ("pwrite", "replace"):
        with failing(monkeypatch, function, Crash()), pytest.raises(Crash):
            folder.add(clips(4)[3], 0.0)
        assert missing(tmp_path / "room") == set()
    path = tmp_path / "room" / PLAYLIST
    path.write_text(path.read_text() + "#EXT-X-ENDLIST\n")  # FFmpeg would wait for more
    assert decode(path) == 3 * FRAMES


def test_two_runs(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path, window=60.0)
    for each in clips(3, msn=7) + clips(2, size="32x32", run=1, msn=10, first=False):
        folder.add(each, each.start)
    playlist = read(tmp_path / "room")
    assert playlist.numbers == [7, 8, 9, 10, 11]
    assert playlist.discontinuities == [0, 0, 0, 1, 1]
    assert not playlist.ended
    folder.finish()
    assert read(tmp_path / "room") == replace(playlist, ended=True)
    # FFmpeg as a player does not take in a second init segment, so each run for itself.
    for run, seconds in ((playlist.segments[:3], 3), (playlist.segments[3:], 2)):
        assert len({each.init for each in run}) == 1
        data = [(tmp_path / "room" / name).read_bytes() for name in (run[0].init, *(each.name for each in run))]
        (tmp_path / "run.mp4").write_bytes(b"".join(data))
        assert decode(tmp_path / "run.mp4") == seconds * FRAMES


def test_tags(tmp_path: Path) -> None:
    folder = PlainFolder(tmp_path, "room", window=10.0, target_duration=2)
    folder.add(replace(clip(3), start=1_700_000_000.5, duration=1.98), 0.0)
    text = re.sub(r"[0-9a-f]{8}\.", "TOKEN.", (tmp_path / "room" / PLAYLIST).read_text())
    assert text == (
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:3\n"
        "#EXT-X-DISCONTINUITY-SEQUENCE:0\n"
        '#EXT-X-MAP:URI="init0-TOKEN.mp4"\n'
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.500Z\n"
        "#EXTINF:1.98000,\n3-TOKEN.m4s\n"
    )


def test_the_window_slides(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path, window=4.0)
    for msn in range(20):
        folder.add(clip(msn, run=msn // 8, discontinuity=msn in (8, 16)), float(msn))
        assert missing(tmp_path / "room") == set()
    playlist = read(tmp_path / "room")
    assert playlist.numbers == [16, 17, 18, 19]
    assert playlist.discontinuities == [2, 2, 2, 2]
    # Those that a player may still load, by an older playlist, are there: a window and a segment long.
    present = os.listdir(tmp_path / "room")
    assert sorted(int(name.split("-")[0]) for name in present if name.endswith(".m4s")) == [*range(11, 20)]
    assert sorted(name.split("-")[0] for name in present if name.startswith("init")) == ["init1", "init2"]
    folder.finish()
    assert sorted(os.listdir(tmp_path / "room")) == sorted([PLAYLIST, *playlist.names, playlist.segments[0].init])


def test_at_least_three_target_durations(tmp_path: Path) -> None:
    folder = PlainFolder(tmp_path, "room", window=1.0, target_duration=2)
    for msn in range(20):
        folder.add(clip(msn), float(msn))
    assert read(tmp_path / "room").numbers == [*range(14, 20)]


def test_a_missing_segment_is_a_discontinuity(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    for msn in (0, 1, 3, 4):
        folder.add(clip(msn), float(msn))
    playlist = read(tmp_path / "room")
    assert playlist.numbers == [0, 1, 2, 3]
    assert playlist.discontinuities == [0, 0, 1, 1]
    assert (tmp_path / "room" / playlist.names[2]).read_bytes() == b"segment 3"


@pytest.mark.parametrize("function", ["pwrite", "replace", "listdir"])
def test_a_segment_that_is_tried_again(function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = plain_folder(tmp_path)
    folder.add(clip(0), 0.0)
    before = read(tmp_path / "room")
    with failing(monkeypatch, function, FULL), pytest.raises(OSError, match="No space left"):
        folder.add(clip(1), 1.0)
    assert read(tmp_path / "room") == before
    folder.add(clip(1), 2.0)
    assert read(tmp_path / "room").discontinuities == [0, 0]
    assert missing(tmp_path / "room") == set()


def test_a_stream_goes_on_where_the_one_before_ended(tmp_path: Path) -> None:
    first = plain_folder(tmp_path)
    for msn in range(7):
        first.add(clip(msn, discontinuity=msn in (1, 5)), float(msn))
    first.finish()
    old = read(tmp_path / "room")
    assert (old.numbers, old.discontinuities) == ([3, 4, 5, 6], [1, 1, 2, 2])
    second = plain_folder(tmp_path)
    second.add(clip(0), 10.0)
    new = read(tmp_path / "room")
    assert (new.numbers, new.discontinuities, new.ended) == ([7], [3], False)
    second.add(clip(1), 14.0)
    assert all((tmp_path / "room" / name).exists() for name in old.names)
    second.add(clip(2), 15.0)
    assert not any((tmp_path / "room" / name).exists() for name in old.names)
    assert missing(tmp_path / "room") == set()


def test_old_files_stay_while_the_old_playlist_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plain_folder(tmp_path)
    first.add(clip(0), 0.0)
    second = plain_folder(tmp_path)
    for now in (10.0, 20.0, 30.0):
        with failing(monkeypatch, "replace", FULL), pytest.raises(OSError, match="No space left"):
            second.add(clip(0), now)
        assert missing(tmp_path / "room") == set()


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:x\n"])
def test_a_damaged_playlist(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / PLAYLIST).write_bytes(content)
    seen = set()
    for _ in range(3):
        plain_folder(tmp_path).add(clip(5), 0.0)
        playlist = read(tmp_path / "room")
        assert playlist.numbers == [5]
        seen |= {playlist.names[0], playlist.segments[0].init}
        (tmp_path / "room" / PLAYLIST).write_bytes(content)
    assert len(seen) == 6  # the numbers are used again, the names are not


def test_only_files_of_ours_are_swept(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    others = {"poster.jpg", "index.html", "12.m4s", ".htaccess", "init.mp4"}
    ours = {"12-0123abcd.m4s", "init0-0123abcd.mp4", ".index.m3u8.tmp", ".12-0123abcd.m4s.tmp"}
    for name in others | ours:
        (tmp_path / "room" / name).touch()
    folder = plain_folder(tmp_path)
    folder.add(clip(0), 0.0)
    folder.finish()
    playlist = read(tmp_path / "room")
    assert set(os.listdir(tmp_path / "room")) == others | {PLAYLIST, playlist.names[0], playlist.segments[0].init}


def delete_everything(room: Path) -> None:
    shutil.rmtree(room)


def delete_a_segment(room: Path) -> None:
    (room / read(room).names[1]).unlink()


def delete_the_init(room: Path) -> None:
    (room / read(room).segments[0].init).unlink()


@pytest.mark.parametrize(
    ("delete", "numbers"),
    [(delete_everything, [3]), (delete_a_segment, [2, 3]), (delete_the_init, [0, 1, 2, 3])],
)
def test_deleted_meanwhile(delete: Callable[[Path], None], numbers: list[int], tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    for msn in range(3):
        folder.add(clip(msn), float(msn))
    delete(tmp_path / "room")
    folder.add(clip(3), 3.0)
    assert read(tmp_path / "room").numbers == numbers
    assert missing(tmp_path / "room") == set()
    delete_everything(tmp_path / "room")
    folder.finish()
    assert read(tmp_path / "room") == Playlist((), ended=True)


def test_a_stream_without_segments_leaves_nothing(tmp_path: Path) -> None:
    plain_folder(tmp_path).finish()
    assert os.listdir(tmp_path) == []


@given(st.text(st.sampled_from("#EXT-X-MEDIA-SEQUENCE:DISCONTINUITY\n0123456789,INF\0"), max_size=200))
def test_any_playlist(text: str) -> None:
    for each in (text, f"#EXT-X-MEDIA-SEQUENCE:7\n{text}"):
        end = end_of(each)
        assert end is None or min(end) >= 0
    assert end_of(f"#EXT-X-MEDIA-SEQUENCE:7\n{text}") is not None


@dataclass
class World:
    """A disk on which any call may fail, and a player that looks at it before and after each."""

    room: Path
    fail_after: int | None = None
    error: BaseException = FULL
    numbers: dict[str, tuple[int, int]] = field(default_factory=dict)  # the two of each name ever seen
    last: int = -1

    def look(self) -> None:
        if not (self.room / PLAYLIST).exists():
            return
        assert missing(self.room) == set()
        playlist = read(self.room)
        for each in playlist.segments:
            assert self.numbers.setdefault(each.name, (each.number, each.discontinuity)) == (
                each.number,
                each.discontinuity,
            )
            assert (self.room / each.name).read_bytes().startswith(b"segment")
        if playlist.numbers:
            assert playlist.numbers[-1] >= self.last
            self.last = playlist.numbers[-1]

    def hook(self, patch: pytest.MonkeyPatch, function: str) -> None:
        real = getattr(os, function)

        def call(*arguments: object) -> object:
            if self.fail_after is not None:
                self.fail_after -= 1
                if self.fail_after < 0:
                    raise self.error
            self.look()
            result = real(*arguments)
            self.look()
            return result

        patch.setattr(os, function, call)


steps = st.lists(
    st.tuples(
        st.sampled_from(["next", "next", "next", "skip", "run", "finish"]),
        st.none() | st.integers(0, 8),
        st.sampled_from([FULL, Crash()]),
        st.floats(0, 4),
    ),
    max_size=25,
)


@given(steps)
def test_whatever_fails_the_playlist_holds(script: list[tuple[str, int | None, BaseException, float]]) -> None:
    with TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patch:
        world = World(Path(base) / "room")
        for function in ("pwrite", "replace", "unlink"):
            world.hook(patch, function)
        folder, msn, run, now = plain_folder(Path(base)), 0, 0, 0.0
        for step, world.fail_after, world.error, seconds in script:
            now += seconds
            msn += 1 + (step == "skip")
            run += step == "run"
            ended = step == "finish"
            try:
                if step == "finish":
                    folder.finish()
                else:
                    folder.add(clip(msn, run=run, discontinuity=step == "run"), now)
            except OSError:
                pass
            except Crash:
                ended = True
            if ended:  # the room's next stream
                folder, msn, run = plain_folder(Path(base)), 0, 0
            world.look()
