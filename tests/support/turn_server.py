"""Debian's coturn on loopback, with a secret of the test's choice."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from aioice import stun

START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class TurnServer:
    """``port``: where it listens at 127.0.0.1, UDP and TCP. ``log``: its lines so far."""

    port: int
    log: list[str]

    @property
    def url(self) -> str:
        return f"turn:127.0.0.1:{self.port}?transport=udp"


@contextmanager
def running_turn_server(secret: str) -> Iterator[TurnServer]:
    """Start one, which relays to loopback too, and end it with the block."""
    executable = shutil.which("turnserver")
    assert executable, "Debian's coturn is needed: apt-get install coturn"
    port = _free_port()
    with TemporaryDirectory() as folder:
        options = {
            "listening-ip": "127.0.0.1",
            "relay-ip": "127.0.0.1",
            "listening-port": port,
            "realm": "test",
            "static-auth-secret": secret,
            "userdb": f"{folder}/turndb",
            "pidfile": f"{folder}/pid",
            "log-file": "stdout",
        }
        switches = ("use-auth-secret", "allow-loopback-peers", "no-tls", "no-dtls", "no-cli", "verbose")
        # Without a configuration file every option is here.
        command = [executable, "-n", *(f"--{each}" for each in switches)]
        command += [f"--{name}={value}" for name, value in options.items()]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=Path(folder)
        )
        log: list[str] = []
        assert process.stdout is not None
        stream = process.stdout
        drain = threading.Thread(target=lambda: log.extend(line.rstrip("\n") for line in stream), daemon=True)
        drain.start()
        try:
            _wait_until_it_answers(port, process, log)
            yield TurnServer(port, log)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            drain.join()
            stream.close()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port: int = udp.getsockname()[1]
        return port


def _wait_until_it_answers(port: int, process: subprocess.Popen[str], log: list[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(0.1)
        while True:
            assert process.poll() is None, "coturn ended:\n" + "\n".join(log)
            assert time.monotonic() < deadline, "coturn does not answer:\n" + "\n".join(log)
            try:
                client.send(bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)))
                client.recv(2048)
                return
            except ConnectionRefusedError:
                time.sleep(0.02)
            except TimeoutError:
                pass
