"""Janus's VideoRoom (https://janus.conf.meetecho.com), Debian's package `janus`, as a peer.

Started with a configuration of its own in a folder that goes again: ICE-lite, the VideoRoom plugin and the Unix-socket
transport only, everything else as it comes. No service of the system is touched. Janus never uses the loopback
interface's addresses, so it gets another of the machine's own: the packets stay on the machine all the same.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import ifaddr

from bench.peer import RemoteParameters
from bench.peers import LocalParameters, Running, Session, Subscription, sdp
from bench.rtp import StreamFormat

_LIBRARIES: Final = "*/janus"
_TIMEOUT: Final = 10.0
_STARTS: Final = 20

_CONFIGURATION: Final = """
general: {{
    configs_folder = "{folder}"
    plugins_folder = "{folder}/plugins"
    transports_folder = "{folder}/transports"
    events_folder = "{folder}/none"
    loggers_folder = "{folder}/none"
    debug_level = 3
    session_timeout = 0
    server_name = "bench"
}}
media: {{
    ipv6 = false
    no_media_timer = 0
}}
nat: {{
    ice_lite = true
    ice_enforce_list = "{address}"
    full_trickle = false
}}
"""
_UNIX_SOCKET: Final = """
general: {{
    enabled = true
    json = "compact"
    path = "{folder}/socket"
    type = "SOCK_SEQPACKET"
}}
admin: {{
    admin_enabled = false
}}
"""


class JanusError(Exception):
    """What Janus answered instead."""


class JanusSession:
    """One user of a room: a Unix socket, a Janus session, a handle to send and one to receive."""

    def __init__(self, path: Path, room: int) -> None:
        self._room = room
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(path))
        self._session = self._request({"janus": "create"})["data"]["id"]
        self.feed = 0

    def make_room(self) -> None:
        """Janus has no rooms that make themselves."""
        body = {
            "request": "create",
            "room": self._room,
            "publishers": 1000,
            "bitrate": 20_000_000,
            "videocodec": "vp8",
            "audiocodec": "opus",
            "notify_joining": False,
        }
        self._message(self._attach(), body)

    def publish(self, local: LocalParameters, streams: Sequence[StreamFormat]) -> RemoteParameters:
        body = {"request": "joinandconfigure", "ptype": "publisher", "room": self._room}
        jsep = {"type": "offer", "sdp": sdp.offer(local, streams, host=_address() or "")}
        event = self._message(self._attach(), body, jsep)
        self.feed = event["plugindata"]["data"]["id"]
        return sdp.parse(event["jsep"]["sdp"])[0]

    def subscribe(self, local: LocalParameters, publishers: Sequence[Session]) -> Subscription:
        handle = self._attach()
        streams = [{"feed": other.feed} for other in publishers if isinstance(other, JanusSession)]
        body = {"request": "join", "ptype": "subscriber", "room": self._room, "streams": streams}
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                event = self._message(handle, body)
                break
            except JanusError:  # A feed is there a moment after its transport is.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        remote, media = sdp.parse(event["jsep"]["sdp"])
        jsep = {"type": "answer", "sdp": sdp.answer(local, media, host=_address() or "")}
        self._message(handle, {"request": "start"}, jsep)
        return sdp.subscription(remote, media)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read_waiting(self) -> None:
        self._socket.settimeout(0.0)
        try:
            while self._socket.recv(1 << 18):
                pass
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()  # Janus ends the session with its connection.

    def _attach(self) -> int:
        request = {"janus": "attach", "session_id": self._session, "plugin": "janus.plugin.videoroom"}
        handle: int = self._request(request)["data"]["id"]
        return handle

    def _message(self, handle: int, body: dict[str, Any], jsep: dict[str, str] | None = None) -> dict[str, Any]:
        request = {"janus": "message", "session_id": self._session, "handle_id": handle, "body": body}
        reply = self._request({**request, "jsep": jsep} if jsep else request)
        data = reply.get("plugindata", {}).get("data", {})
        if "error" in data:
            raise JanusError(f"{body['request']}: {data['error']}")
        return reply

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        transaction = secrets.token_hex(6)
        self._socket.settimeout(_TIMEOUT)
        self._socket.send(json.dumps({**request, "transaction": transaction}).encode())
        while True:
            reply: dict[str, Any] = json.loads(self._socket.recv(1 << 18) or b"null") or {"janus": "closed"}
            if reply["janus"] in ("error", "closed"):
                raise JanusError(f"{request['janus']}: {reply.get('error', 'the connection was closed')}")
            if reply.get("transaction") == transaction and reply["janus"] != "ack":
                return reply


class JanusServer:
    """See :class:`bench.peers.Running`."""

    def __init__(self, path: Path, pid: int) -> None:
        self.pids = (pid,)
        self._path = path
        self._rooms: dict[str, int] = {}

    def join(self, room: str) -> Session:
        known = room in self._rooms
        number = self._rooms.setdefault(room, 1000 + len(self._rooms))
        session = JanusSession(self._path, number)
        if not known:
            session.make_room()
        return session


class JanusDriver:
    """See :class:`bench.peers.Driver`."""

    name = "janus"
    real_media = False

    def missing(self) -> str | None:
        if not shutil.which("janus") or not _libraries():
            return "Debian's package janus is not installed"
        return None if _address() else "Janus needs an IPv4 address besides loopback"

    @contextmanager
    def start(self, cpu: int | None) -> Iterator[Running]:
        with ExitStack() as stack:
            for attempt in range(_STARTS):
                try:
                    server = stack.enter_context(self._start(cpu))
                    break
                except JanusError:
                    # A race of its own: its transport ends at once where its thread runs too early.
                    if attempt == _STARTS - 1:
                        raise
            yield server

    @contextmanager
    def _start(self, cpu: int | None) -> Iterator[Running]:
        libraries = _libraries()
        assert libraries is not None
        with tempfile.TemporaryDirectory(prefix="trio-sfu-janus-") as name:
            folder = Path(name)
            for kind, library in (("plugins", "libjanus_videoroom.so"), ("transports", "libjanus_pfunix.so")):
                (folder / kind).mkdir()
                (folder / kind / library).symlink_to(libraries / kind / library)
            (folder / "none").mkdir()
            (folder / "janus.jcfg").write_text(_CONFIGURATION.format(folder=folder, address=_address()))
            (folder / "janus.transport.pfunix.jcfg").write_text(_UNIX_SOCKET.format(folder=folder))
            (folder / "janus.plugin.videoroom.jcfg").write_text("general: {}\n")
            log = folder / "log"
            everywhere = os.sched_getaffinity(0)
            with log.open("wb") as output:
                if cpu is not None:
                    os.sched_setaffinity(0, {cpu})  # The child inherits it, its threads too.
                try:
                    command = ["janus", "--config", str(folder / "janus.jcfg"), "--configs-folder", str(folder)]
                    process = subprocess.Popen(
                        [*command, "--disable-colors"], stdout=output, stderr=subprocess.STDOUT, cwd=folder
                    )
                finally:
                    os.sched_setaffinity(0, everywhere)
            try:
                _wait(folder / "socket", process, log)
                yield JanusServer(folder / "socket", process.pid)
            finally:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _libraries() -> Path | None:
    return next((path for path in Path("/usr/lib").glob(_LIBRARIES) if (path / "plugins").is_dir()), None)


def _address() -> str | None:
    """An IPv4 address of the machine's own that is not loopback."""
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            if isinstance(each.ip, str) and not ipaddress.ip_address(each.ip).is_loopback:
                return each.ip
    return None


def _wait(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the socket takes a connection. Raises JanusError with what was printed."""
    deadline = time.monotonic() + _TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                time.sleep(0.05)
            else:
                return
    raise JanusError(f"Janus did not start: {log.read_text(errors='replace')[-2000:]}")


DRIVER = JanusDriver()
