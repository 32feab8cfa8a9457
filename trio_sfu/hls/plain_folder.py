"""``--hls-dir``: a live stream as plain HLS in a folder, for a web server or a CDN to serve.

A target of a DiskWriter (writer.py), which is the only one to call it. In ``<room>/`` there are ``index.m3u8`` and what
it names: ``<number>-<token>.m4s`` and ``init<run>-<token>.mp4``. Every file is written under a temporary name and
renamed, and the playlist comes last: it never names a file that is not there.

The folder has media sequence numbers of its own, one after another: a playlist has no place for a number that is
missing (RFC 8216, section 4.3.3.2), so a segment that could not be written is a discontinuity here. It goes on where
the playlist of an earlier stream ended: numbers never go back. The token is random, so that no name ever means two
things to a cache.

Source: RFC 8216, sections 4.3 (tags) and 6.2.2 (live playlists).
"""

import os
import re
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from trio_sfu.hls.files import TEMPORARY, room_name, write_whole
from trio_sfu.hls.writer import Clip

PLAYLIST: Final = "index.m3u8"
_MAX_PLAYLIST: Final = 1 << 20

_OURS: Final = re.compile(rf"\d+-[0-9a-f]{{8}}\.m4s|init\d+-[0-9a-f]{{8}}\.mp4|\..*{re.escape(TEMPORARY)}", re.ASCII)
_FIRST: Final = re.compile(r"^#EXT-X-MEDIA-SEQUENCE:(\d{1,18})\s*$", re.ASCII | re.MULTILINE)
_PASSED: Final = re.compile(r"^#EXT-X-DISCONTINUITY-SEQUENCE:(\d{1,18})\s*$", re.ASCII | re.MULTILINE)
_SEGMENT: Final = re.compile(r"^#EXTINF:", re.MULTILINE)
_BREAK: Final = re.compile(r"^#EXT-X-DISCONTINUITY\s*$", re.MULTILINE)


def end_of(playlist: str) -> tuple[int, int] | None:
    """The number of the segment that would come next in this playlist, and how many discontinuities came before.

    None where it does not look like a playlist. Never raises, whatever the text.
    """
    first = _FIRST.search(playlist)
    if first is None:
        return None
    passed = _PASSED.search(playlist)
    segments, breaks = len(_SEGMENT.findall(playlist)), len(_BREAK.findall(playlist))
    return int(first[1]) + segments, int(passed[1] if passed else 0) + breaks


@dataclass(frozen=True, slots=True)
class _Entry:
    """A segment in the playlist, and the init segment that it needs: names of files."""

    name: str
    init: str
    discontinuity: bool
    start: float
    duration: float


@dataclass(frozen=True, slots=True)
class _Window:
    """What a playlist holds: the number of its first segment, how many discontinuities came before, its segments."""

    sequence: int
    discontinuities: int
    entries: tuple[_Entry, ...] = ()

    @property
    def next_sequence(self) -> int:
        return self.sequence + len(self.entries)

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.entries} | {each.init for each in self.entries}

    def without_first(self, number: int) -> "_Window":
        breaks = sum(each.discontinuity for each in self.entries[:number])
        return _Window(self.sequence + number, self.discontinuities + breaks, self.entries[number:])

    def complete(self, present: Collection[str]) -> "_Window":
        """Those after the last one of which a file is missing."""
        missing = [i for i, each in enumerate(self.entries) if each.name not in present or each.init not in present]
        return self.without_first(missing[-1] + 1) if missing else self

    def slide(self, entry: _Entry, seconds: float) -> "_Window":
        """With this one at its end, and as many at its beginning as it takes for ``seconds`` at least."""
        window = replace(self, entries=(*self.entries, entry))
        total = sum(each.duration for each in window.entries)
        number = 0
        while total - window.entries[number].duration >= seconds:
            total -= window.entries[number].duration
            number += 1
        return window.without_first(number)


class PlainFolder:
    """The folder of one stream below ``base``. Only one may be at work on a room's folder at a time.

    ``window`` and ``target_duration`` in seconds; no segment, rounded, is longer than the latter.

    The playlist holds ``window`` seconds (three target durations at least). A file that has left it is deleted when as
    much time has gone by again (RFC 8216, section 6.2.2), or at the end of the stream. The playlist of an ended stream
    stays, with what it names, until the room's next stream takes its place.
    """

    def __init__(self, base: Path, room_id: str, *, window: float, target_duration: int) -> None:
        # given
        self._folder: Final = base / room_name(room_id)
        self._seconds: Final = max(window, 3.0 * target_duration)
        self._target_duration: Final = target_duration
        # owned
        self._token: Final = secrets.token_hex(4)
        self._window: _Window | None = None  # what the playlist on disk holds, once it is ours
        self._last_msn = 0
        self._leaving: dict[str, float] = {}  # files that no playlist names any more, and when they may go

    def add(self, clip: Clip, now: float) -> None:
        """Write the segment, and the playlist with it at its end; delete what is old. OSError: then it is not in it."""
        os.makedirs(self._folder, exist_ok=True)
        for name in [name for name, time in self._leaving.items() if time <= now]:
            self._delete(name)
        present = set(os.listdir(self._folder))
        init = f"init{clip.run}-{self._token}.mp4"
        if init not in present:
            write_whole(self._folder / init, clip.init)
            present.add(init)
        if self._window is not None:
            window = self._window.complete(present)
            discontinuity = clip.discontinuity or clip.msn != self._last_msn + 1
        else:
            earlier = self._end_of_earlier()
            window = _Window(*earlier) if earlier else _Window(clip.msn, 0)
            discontinuity = clip.discontinuity or earlier is not None
        name = f"{window.next_sequence}-{self._token}.m4s"
        write_whole(self._folder / name, clip.data)
        window = window.slide(_Entry(name, init, discontinuity, clip.start, clip.duration), self._seconds)
        self._publish(window)
        self._window, self._last_msn = window, clip.msn
        # The listing finds everything: what an earlier stream left, what could not be finished or deleted.
        keep_until = now + self._seconds + clip.duration
        self._leaving = {each: self._leaving.get(each, keep_until) for each in _unnamed(window, present)}

    def finish(self) -> None:
        """Say in the playlist that nothing more will come, and delete all that it does not name. OSError."""
        if self._window is None:
            return
        os.makedirs(self._folder, exist_ok=True)
        present = set(os.listdir(self._folder))
        window = self._window.complete(present)
        self._publish(window, ended=True)
        for name in _unnamed(window, present):
            self._delete(name)

    def _end_of_earlier(self) -> tuple[int, int] | None:
        try:
            with open(self._folder / PLAYLIST, "rb") as file:
                return end_of(file.read(_MAX_PLAYLIST).decode("utf-8", "replace"))
        except FileNotFoundError:
            return None

    def _delete(self, name: str) -> None:
        """What cannot be deleted is found again in the next listing."""
        self._leaving.pop(name, None)
        with suppress(OSError):
            os.unlink(self._folder / name)

    def _publish(self, window: _Window, *, ended: bool = False) -> None:
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:6",
            "#EXT-X-INDEPENDENT-SEGMENTS",
            f"#EXT-X-TARGETDURATION:{self._target_duration}",
            f"#EXT-X-MEDIA-SEQUENCE:{window.sequence}",
            f"#EXT-X-DISCONTINUITY-SEQUENCE:{window.discontinuities}",
        ]
        init = None
        for entry in window.entries:
            if entry.discontinuity:
                lines.append("#EXT-X-DISCONTINUITY")
            if entry.init != init:
                init = entry.init
                lines.append(f'#EXT-X-MAP:URI="{init}"')
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{_date_time(entry.start)}")
            lines += [f"#EXTINF:{entry.duration:.5f},", entry.name]
        if ended:
            lines.append("#EXT-X-ENDLIST")
        write_whole(self._folder / PLAYLIST, ("\n".join(lines) + "\n").encode())


def _date_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unnamed(window: _Window, present: Collection[str]) -> list[str]:
    """The files of ours, of this stream or an earlier one, that a playlist of this window does not name."""
    names = window.names
    return [each for each in present if each not in names and _OURS.fullmatch(each)]
