"""One FFmpeg process: found, started, read from, told what to change, and always reaped. Used by the pipeline.

The process dies with ours, however ours ends: the kernel sends it SIGKILL when the thread that started it is gone
(``PR_SET_PDEATHSIG``). That is why it is not started by way of trio, which forks in a worker thread that goes away
after some seconds of idleness.
"""

import ctypes
import logging
import os
import select
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Sequence
from typing import Final

import imageio_ffmpeg
import trio

__all__ = ["FfmpegMissing", "FfmpegProcess", "find_ffmpeg"]

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1
# Encoding may fall behind; forwarding must not.
_NICE: Final = 5
_CHUNK: Final = 65_536
_LAST_LINES: Final = 12
_MAX_LINE: Final = 500
# Lines of one process that are logged above debug level; FFmpeg can write hundreds a second.
_LOGGED_LINES: Final = 20

_libc = ctypes.CDLL(None, use_errno=True)


class FfmpegMissing(Exception):
    """There is no FFmpeg to run; the text says what to do."""


def find_ffmpeg(configured: str | None) -> str:
    """The program's path: what the operator named, else what the package ``imageio-ffmpeg`` brings.

    Raises :class:`FfmpegMissing`.
    """
    if configured is not None:
        found = shutil.which(configured)
        if found is None:
            raise FfmpegMissing(f"there is no program {configured!r} to run; see --ffmpeg")
        return found
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise FfmpegMissing(
            "FFmpeg is missing: reinstall the package imageio-ffmpeg, or name one by --ffmpeg"
        ) from None


class FfmpegProcess:
    """A running FFmpeg. Made by :meth:`launch`; :meth:`stop` must be awaited in the end, whatever happened."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        # Given
        self._popen: Final = popen
        self.pid: Final = popen.pid
        # Owned
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._pidfd = os.pidfd_open(popen.pid)
        self._output = trio.lowlevel.FdStream(os.dup(popen.stdout.fileno()))
        self._errors = trio.lowlevel.FdStream(os.dup(popen.stderr.fileno()))
        popen.stdout.close()
        popen.stderr.close()
        self._input = popen.stdin
        if self._input is not None:
            os.set_blocking(self._input.fileno(), False)
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._logged = 0
        self._closed = False

    @classmethod
    def launch(cls, command: Sequence[str], *, commanded: bool = False) -> "FfmpegProcess":
        """Start it, with its output and its errors on pipes, and its input where it is to be ``commanded``.

        Raises OSError where it cannot be started.
        """
        parent = os.getpid()

        def before_exec() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # gone before the kernel was told
                os._exit(1)
            os.nice(_NICE)

        return cls(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE if commanded else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                preexec_fn=before_exec,  # calls nothing that could take a lock
                start_new_session=True,  # a Ctrl-C in the terminal is for us to handle
            )
        )

    @property
    def returncode(self) -> int | None:
        """As of :class:`subprocess.Popen`; None while it runs."""
        return self._popen.poll()

    @property
    def last_lines(self) -> str:
        """The end of what it wrote to standard error, in one line."""
        return " / ".join(self._last_lines)

    def command(self, line: str) -> bool:
        """Write a line to its standard input, all of it or nothing, and never wait. Whether it was written.

        It was not where FFmpeg has ended, or has not read what came before. For one launched ``commanded`` only.
        Raises ValueError for what is not one line that a pipe takes as a whole.
        """
        data = line.encode()
        if not data.endswith(b"\n") or data.count(b"\n") > 1 or len(data) > select.PIPE_BUF:
            raise ValueError(f"not a command: {line!r}")
        assert self._input is not None, "it has no standard input"
        if self._closed:
            return False
        try:
            return os.write(self._input.fileno(), data) == len(data)
        except OSError:  # the pipe is full, or nobody has its other end any more
            return False

    async def receive_output(self) -> bytes:
        """The next piece of standard output; empty at its end."""
        return bytes(await self._output.receive_some(_CHUNK))

    async def drain_errors(self) -> None:
        """Read standard error until its end: into the log, its last lines for :attr:`last_lines`."""
        rest = b""
        while data := await self._errors.receive_some(_CHUNK):
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            rest = rest[-_MAX_LINE:]
            for line in lines:
                self._take_line(line[:_MAX_LINE].decode("utf-8", "replace").strip())
        self._take_line(rest.decode("utf-8", "replace").strip())

    def _take_line(self, line: str) -> None:
        if not line:
            return
        serious = any(mark in line for mark in ("[error]", "[fatal]", "[panic]"))
        if serious:
            self._last_lines.append(line)
        if serious and self._logged < _LOGGED_LINES:
            self._logged += 1
            logger.warning("FFmpeg %d: %s", self.pid, line)
            if self._logged == _LOGGED_LINES:
                logger.warning("FFmpeg %d: what follows is at debug level", self.pid)
        else:
            logger.debug("FFmpeg %d: %s", self.pid, line)

    async def wait(self) -> int:
        """Until it has ended and is reaped; its return code."""
        while (code := self._popen.poll()) is None:
            await trio.lowlevel.wait_readable(self._pidfd)
        return code

    async def stop(self, patience: float) -> int:
        """End it: SIGTERM, after ``patience`` seconds SIGKILL; returns when it is reaped. A second call does nothing.

        Not to be cancelled: the caller shields it.
        """
        if self._popen.poll() is None:
            self._popen.terminate()
            with trio.move_on_after(patience):
                await self.wait()
        if self._popen.poll() is None:
            logger.debug("FFmpeg %d does not heed SIGTERM", self.pid)
            self._popen.kill()
        code = await self.wait()
        if not self._closed:
            self._closed = True
            if self._input is not None:
                self._input.close()
            await self._output.aclose()
            await self._errors.aclose()
            os.close(self._pidfd)
        return code
