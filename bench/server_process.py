"""The server under measurement: a process of its own, on a CPU of its own, and what it costs.

Used by every part of the benchmark that starts the server.
"""

from __future__ import annotations

import collections
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Final

_START_TIMEOUT: Final = 20.0
_READY: Final = "listening on http"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class ServerStartError(Exception):
    """The sentence says what it printed instead of the ready line."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of one process, all threads, since its start; ``waited`` is what it was ready but not run."""

    user: float
    system: float
    waited: float

    @classmethod
    def read(cls, pid: int) -> CpuTime:
        # proc(5): the command's name, in brackets, may hold spaces; utime and stime are fields 14 and 15.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return cls(int(fields[11]) / _TICKS, int(fields[12]) / _TICKS, _waited(pid))


def _waited(pid: int) -> float:
    return sum(waited for _, waited in thread_times(pid)) / 1e9


def thread_times(pid: int) -> Iterator[tuple[int, int]]:
    """For each thread, in ns: time on the CPU, and time waiting on a run queue (the kernel's sched-stats)."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            run, waited, _ = (task / "schedstat").read_text(encoding="ascii").split()
            yield int(run), int(waited)
        except (OSError, ValueError):
            continue


def resident_memory(pid: int) -> int:
    """Bytes of VmRSS."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def allow_files(count: int) -> None:
    """Raise the soft limit of open files as far as that is allowed; servers started from now on inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def split_cpus() -> tuple[int, int] | None:
    """(the server's CPU, the generator's), or None where there is only one to use."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[-1], cpus[0]) if len(cpus) > 1 else None


@dataclass(frozen=True, slots=True)
class RunningServer:
    url: str
    pid: int


@contextmanager
def running_server(
    arguments: Sequence[str] = (),
    *,
    cpu: int | None = None,
    module: Sequence[str] = ("trio_sfu",),
    tree: Path | None = None,
) -> Iterator[RunningServer]:
    """Start ``python -m trio_sfu`` on free ports of 127.0.0.1; SIGTERM, then SIGKILL after 5 s, ends it.

    :param module: what to run in its place, with arguments before the server's.
    :param tree: another checkout whose server it is to be.

    Its output is always read on; the last 50 lines are kept for the error message. Raises ServerStartError.
    """
    tree = (tree or Path(__file__).parent.parent).absolute()
    command = [sys.executable, "-m", *module, "--host", "127.0.0.1", "--port", "0", "--media-port", "0"]
    everywhere = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})  # The child inherits it, its threads too.
    try:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=tree,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(tree)},
        )
    finally:
        os.sched_setaffinity(0, everywhere)
    lines: Queue[str] = Queue()
    last: collections.deque[str] = collections.deque(maxlen=50)
    reader = threading.Thread(target=_read_on, args=(process, lines, last), daemon=True)
    reader.start()
    try:
        yield RunningServer(_wait_until_ready(lines, last), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(5)


def _read_on(process: subprocess.Popen[str], lines: Queue[str], last: collections.deque[str]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            last.append(line)
            if line.startswith(_READY):
                lines.put(line)
    lines.put("")


def _wait_until_ready(lines: Queue[str], last: collections.deque[str]) -> str:
    deadline = time.monotonic() + _START_TIMEOUT
    try:
        line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        line = ""
    for word in line.split():
        if word.startswith("http://"):
            return word.rstrip("/.,")
    raise ServerStartError(f"no {_READY!r} line; the last it printed:\n{''.join(last)}")
