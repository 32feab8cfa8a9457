"""What is running, written down for the server that comes after one that was killed.

:class:`RunFolder` is opened by the server once; a room's pipeline keeps its SDP file and its :class:`RunState` there.
A server that ends removes its folder. One that was killed cannot: the next one to start sweeps the folder, and kills
the FFmpeg processes that are still at work on it (a second net: the kernel should have killed them with their parent).

All of it blocks, for a moment.
"""

import logging
import os
import re
import shutil
import signal
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from trio_sfu.hls.files import room_name, write_whole

__all__ = ["STATE_FILE", "RunFolder", "RunState", "load", "save"]

logger = logging.getLogger(__name__)

STATE_FILE: Final = "state.json"
_MAX_STATE: Final = 1 << 20  # bytes; a room of hundreds needs less
_FOLDER = re.compile(r"(\d{1,10})-(\d{1,20})", re.ASCII)


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a room's pipeline. ``ports`` are those for RTP, ``started_at`` is Unix time."""

    room_id: str
    ffmpeg_pid: int
    ports: tuple[int, ...]
    producers: tuple[str, ...]
    started_at: float
    restarts: int = 0


def save(path: Path, state: RunState) -> None:
    """Write it, whole or not at all, to the disk itself. OSError."""
    write_whole(path, msgspec.json.encode(state), sync=True)


def load(path: Path) -> RunState | None:
    """What :func:`save` wrote; None where there is nothing that could be read as that, whatever the bytes."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_STATE)
        return msgspec.json.decode(content, type=RunState)
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


class RunFolder:
    """A private folder of this process, below one that all servers of a user share.

    A context manager: made at the beginning, when the leavings of dead servers are swept too, and removed at the end.
    It is named after the process's id and the time of its start: who gets a dead one's id is not taken for it.
    """

    def __init__(self, base: Path | None = None) -> None:
        """``base``: by default ``trio-sfu-<user id>`` where the system keeps temporary files. Does nothing yet."""
        # given
        self._base: Final = base or Path(tempfile.gettempdir()) / f"trio-sfu-{os.geteuid()}"
        # owned
        self.path: Final = self._base.absolute() / f"{os.getpid()}-{_start_of(os.getpid()) or 0}"

    def __enter__(self) -> "RunFolder":
        """OSError where the folder cannot be made, or where others could put their own things in its place."""
        self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = self._base.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise PermissionError(f"{self._base} is not a folder that only this user can write to")
        shutil.rmtree(self.path, ignore_errors=True)
        _sweep(self._base)
        self.path.mkdir(mode=0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def room(self, room_id: str) -> Path:
        """Where a room's files are to be; its pipeline makes the folder, and removes it."""
        return self.path / room_name(room_id)


def _sweep(base: Path) -> None:
    """Remove the folders of servers that are dead, and end what those have left running."""
    for folder in base.iterdir():
        match = _FOLDER.fullmatch(folder.name)
        if match is None or folder.is_symlink() or _start_of(int(match[1])) == int(match[2]):
            continue
        for path in folder.glob(f"*/{STATE_FILE}"):
            state = load(path)
            if state is not None and _works_on(state.ffmpeg_pid, folder):
                with suppress(OSError):
                    os.kill(state.ffmpeg_pid, signal.SIGKILL)
                    logger.warning("FFmpeg %d of a server that was killed is ended", state.ffmpeg_pid)
        shutil.rmtree(folder, ignore_errors=True)


def _start_of(pid: int) -> int | None:
    """When a process started, in the kernel's clock ticks since it booted; None if it does not run (any more).

    Source: proc(5), /proc/[pid]/stat, fields 3 (state) and 22 (starttime).
    """
    try:
        # The name, field 2, is in parentheses and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _works_on(pid: int, folder: Path) -> bool:
    """Whether the process still is the one that was given a file of this folder: its command line names it.

    No other process that may have got the id has a path on it that is made of the dead server's id and start.
    """
    if pid <= 1:
        return False  # not a process, to kill(2)
    try:
        return os.fsencode(f"{folder.absolute()}/") in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
