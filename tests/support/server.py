"""A server in a process of its own, as users run it, and what it says of itself."""

import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["Server", "running_server"]

START_SECONDS = 30.0
STOP_SECONDS = 10.0
SETTLE_SECONDS = 15.0


class Server:
    """A running server. ``log`` collects what it writes to standard error."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: list[str]) -> None:
        self.process = process
        self.url = url
        self.log = log
        self.idle = self._settled_gauges()
        """The gauges of a server that nobody uses."""

    def _settled_gauges(self) -> dict[str, float]:
        # The connection that asked before may still be closing: the least of several readings is the rest state.
        readings = []
        for _ in range(5):
            readings.append(self.gauges())
            time.sleep(0.02)
        return {name: min(reading[name] for reading in readings) for name in readings[0]}

    @property
    def media_ports(self) -> list[int]:
        """The UDP ports that the process has bound (one an announced address)."""
        inodes = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
            except FileNotFoundError:
                continue
            if match:
                inodes.add(match[1])
        ports = []
        for table in ("/proc/net/udp", "/proc/net/udp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] in inodes:
                    ports.append(int(fields[1].rpartition(":")[2], 16))
        return ports

    def metrics(self) -> dict[str, float]:
        """All figures of ``/metrics``, by name with labels."""
        # A test's certificate is its own.
        trust = ssl._create_unverified_context() if self.url.startswith("https") else None
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5, context=trust) as response:
            text = response.read().decode()
        figures = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                figures[name] = float(value)
        return figures

    def gauges(self) -> dict[str, float]:
        """What a finished call must leave at zero, or where it was before."""
        figures = self.metrics()
        return {name: figures[name] for name in figures if name.removeprefix("trio_sfu_") in LEFTOVERS}

    def wait_gauge(self, name: str, wanted: float) -> None:
        """Wait until one gauge has a value, for at most ``SETTLE_SECONDS``."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (now := self.gauges()[f"trio_sfu_{name}"]) != wanted:
            assert time.monotonic() < deadline, f"{name} is {now}, not {wanted}"
            time.sleep(0.05)

    def wait_idle(self) -> None:
        """Wait until nothing is left of what was going on, for at most ``SETTLE_SECONDS``."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while any((now := self.gauges())[name] > least for name, least in self.idle.items()):
            assert time.monotonic() < deadline, f"left in the server: {_difference(now, self.idle)}"
            time.sleep(0.05)


LEFTOVERS = (
    "rooms",
    "peers",
    "parked_users",
    "transports",
    "producers",
    "consumers",
    "engineio_sessions",
    "tcp_connections",
    "media_tcp_connections",
    "tasks",
    "open_fds",
    "hls_pipelines",
    "hls_ffmpeg_processes",
    "hls_plain_transports",
    "hls_port_leases",
)


def _difference(now: dict[str, float], wanted: dict[str, float]) -> str:
    return ", ".join(f"{name} is {now[name]}, was {wanted[name]}" for name in wanted if now[name] > wanted[name])


def _collect(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line.rstrip("\n"))


@contextmanager
def running_server(*arguments: str, host: str = "127.0.0.1", hls: bool = False) -> Iterator[Server]:
    """Start a server on free ports of ``host`` and stop it by SIGTERM at the end; status 0 is asserted.

    Live streams only with ``hls``: each takes a good part of a core.
    """
    command = [sys.executable, "-m", "trio_sfu", "--host", host, "--port", "0", "--media-port", "0", *arguments]
    if not hls:
        command.append("--no-hls")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    output: list[str] = []
    drains = [threading.Thread(target=_collect, args=(process.stderr, log), daemon=True)]
    drains[0].start()
    try:
        url = ""
        for line in process.stdout:
            output.append(line.rstrip("\n"))
            if line.startswith("listening on http"):
                url = line.split()[2].rstrip("/")
                break
        assert url, "the server did not start:\n" + "\n".join(output + log)
        drains.append(threading.Thread(target=_collect, args=(process.stdout, output), daemon=True))
        drains[1].start()
        yield Server(process, url, log)
        assert process.poll() is None, "the server ended by itself:\n" + "\n".join(log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for drain in drains:
            drain.join()
        process.stdout.close()
        process.stderr.close()
