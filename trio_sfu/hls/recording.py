"""``--record-dir``: what a room showed, in files that play at any moment.

A target of a DiskWriter (writer.py), which is the only one to call it. Each stream gets a folder of its own,
``<room>/<UTC start>/``, and in it a fragmented MP4 for each run of FFmpeg: ``001.mp4``, ``002.mp4``, … (a run has its
own codec parameters and its own timestamps from zero).

A segment is appended in such an order that the file plays whenever the process may die:

    ... │ moof mdat │ size 0 "free" │                              1. a box that reaches to the file's end: skipped
    ... │ moof mdat │ size 0 "free" · rest of moof · mdat ·        2. the segment without its first 8 bytes
    ... │ moof mdat │ moof · · · · · · · · · · · · mdat ·          3. these, which makes it one

(ISO/IEC 14496-12, section 4.2: size 0 means to the end of the file.) A file begins under a temporary name and has its
name once its first segment is in it. So nothing has to be repaired afterwards.
"""

import errno
import os
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

from trio_sfu.hls.files import room_name, write_all, write_whole
from trio_sfu.hls.writer import Clip

_SKIPPED: Final = b"\0\0\0\0free"


class Recording:
    """The recording of one stream below ``base``. Nothing is made before the first segment comes."""

    def __init__(self, base: Path, room_id: str) -> None:
        # given
        self._room: Final = base / room_name(room_id)
        # owned
        self._folder: Path | None = None
        self._files = 0
        self._file: Path | None = None
        self._run = 0
        self._size = 0  # of the file, what a failed write left at its end not counted

    def add(self, clip: Clip, now: float) -> None:
        """Append the segment, or begin the next file with it. OSError."""
        if self._file is None or clip.run != self._run or not self._append(self._file, clip.data):
            self._begin(clip)

    def finish(self) -> None:
        """Nothing to do: a file is open only while a segment is appended."""

    def _begin(self, clip: Clip) -> None:
        if self._folder is None:
            self._folder = _new_folder(self._room, clip.start)
        os.makedirs(self._folder, exist_ok=True)  # somebody may have deleted it
        path = self._folder / f"{self._files + 1:03}.mp4"
        content = clip.init + clip.data
        write_whole(path, content)
        self._files += 1
        self._file, self._run, self._size = path, clip.run, len(content)

    def _append(self, path: Path, data: bytes) -> bool:
        """False: this file cannot grow any more; it was deleted, or is as large as files may be here."""
        head = len(_SKIPPED)
        try:
            descriptor = os.open(path, os.O_WRONLY)
            try:
                write_all(descriptor, _SKIPPED, self._size)
                write_all(descriptor, data[head:], self._size + head)
                write_all(descriptor, data[:head], self._size)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, self._size)
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EFBIG):
                return False
            raise
        self._size += len(data)
        return True


def _new_folder(room: Path, start: float) -> Path:
    """A folder named after the start; with a number where there has been one in this second."""
    os.makedirs(room, exist_ok=True)
    name = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    for number in count(1):
        folder = room / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            os.mkdir(folder)
            return folder
    raise AssertionError("count() ends")
