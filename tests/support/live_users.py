"""Users in Python who are to be seen and heard in a live stream, on a real server: media that a decoder takes.

::

    async with live_user(server.url) as user:
        await user.produce()
        await user.is_live()

Their pictures are all the same keyframe, their sound is silence: what counts is that it is decoded. The server's own
processes are looked at from outside, through /proc.
"""

import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import trio

from bench import rtcp
from tests.support.http_client import fetch
from tests.support.media_client import MediaUser, OutgoingStream, media_user
from tests.support.media_core import rtp
from tests.support.playlist_reader import ReadPlaylist, read_playlist
from tests.support.server import Server
from trio_sfu.media.stills import card

__all__ = [
    "FIRST_PORT",
    "SMALL",
    "Ffmpeg",
    "LiveUser",
    "bound_ports",
    "children",
    "eventually",
    "ffmpegs",
    "gone",
    "live_user",
    "playlist",
]

#: Other tests on this machine may run servers at the same time: two that look for free ports at the same moment can
#: both find the same ones, and the FFmpeg that comes second fails (and is started anew).
FIRST_PORT = 10_000 + os.getpid() % 40 * 200
#: Small pictures, and ports that are our own.
SMALL = ("--hls-size", "320x180", "--hls-fps", "10", "--hls-ports", f"{FIRST_PORT}-{FIRST_PORT + 99}")
#: Two FFmpegs, or one and many, share two cores with everything else.
LIVE_SECONDS = 15.0
FRAME_RATE = 10
_PICTURE = card("video/VP8")
_SILENCE = b"\xf8\xff\xfe"


class LiveUser:
    """Made by :func:`live_user`. ``states``: what :meth:`note_states` has seen of the stream's, oldest first."""

    def __init__(self, user: MediaUser, url: str) -> None:
        self.user = user
        self.url = url
        self.states: list[dict[str, Any]] = []
        self._sending = trio.CancelScope()

    @property
    def room_id(self) -> str:
        return self.user.room_id

    @property
    def latest(self) -> str:
        return self.states[-1]["state"] if self.states else ""

    async def produce(self) -> tuple[OutgoingStream, OutgoingStream]:
        """Produce audio and video, and send them."""
        video, audio = await self.user.produce_video(), await self.user.produce_audio()
        self._sending = trio.CancelScope()
        self.user._nursery.start_soon(self._send, video, audio, self._sending)
        return video, audio

    async def stop(self) -> None:
        """Stop producing."""
        self._sending.cancel()
        await self.user.request("stopProducing")

    async def until(self, state: str, *, seconds: float = LIVE_SECONDS) -> dict[str, Any]:
        """The event that says so, where it is the latest. Raises TooSlowError."""
        await eventually(lambda: self.latest == state, seconds=seconds)
        return self.states[-1]

    async def is_live(self) -> ReadPlaylist:
        """Wait for the stream; then its playlist, which is there by now."""
        await self.until("live")
        return await playlist(self.url, self.room_id)

    async def note_states(self) -> None:
        """A task of :func:`live_user`."""
        async for name, (payload,) in self.user.socket.events:
            if name == "hlsStateChanged" and payload["roomId"] == self.room_id:
                self.states.append(payload)

    async def _send(self, video: OutgoingStream, audio: OutgoingStream, scope: trio.CancelScope) -> None:
        transport = self.user.send_transport
        assert transport is not None
        picture, sound = video.source.stream, audio.source.stream
        sequence = count()
        began = trio.current_time()
        with scope:
            for index in count():
                now = trio.current_time()
                if index % 50 == 0:
                    for stream, rate in ((picture, 90_000), (sound, 48_000)):
                        at = round((now - began) * rate)
                        transport.send_rtcp(rtcp.sender_report(stream.ssrc, now, at, index, 3 * index))
                transport.send_rtp(
                    rtp(sound.ssrc, index, index * 960, payload_type=sound.payload_type, payload=_SILENCE)
                )
                if index % (50 // FRAME_RATE) == 0:
                    for part, payload in enumerate(_PICTURE, 1):
                        transport.send_rtp(
                            rtp(
                                picture.ssrc,
                                next(sequence),
                                index * 1800,
                                payload_type=picture.payload_type,
                                marker=part == len(_PICTURE),
                                payload=payload,
                            )
                        )
                await trio.sleep_until(began + (index + 1) * 0.02)


@asynccontextmanager
async def live_user(url: str, room: str | None = None, *, create: str | None = None) -> AsyncIterator[LiveUser]:
    """A user in ``room``, or in a new one, which ``create`` names; has left when the block ends."""
    async with media_user(url, room) as user, trio.open_nursery() as nursery:
        if create is not None:
            assert await user.socket.request("createRoom", {"roomId": create}) == {"roomId": create}
            await user.request("leaveRoom")
            user.room_id = create
        live = LiveUser(user, url)
        nursery.start_soon(live.note_states)
        yield live
        live._sending.cancel()
        nursery.cancel_scope.cancel()


async def playlist(url: str, room_id: str) -> ReadPlaylist:
    """The room's playlist, which must be there."""
    answer = await fetch(f"{url}/hls/{room_id}/index.m3u8")
    assert answer.status == 200, answer.text
    return read_playlist(answer.text)


async def eventually(condition: Callable[[], object], *, seconds: float = LIVE_SECONDS) -> None:
    """Return when ``condition()`` holds, which may cost a little. Raises trio.TooSlowError."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - other processes have no event for us
            await trio.sleep(0.02)


# -- from outside ---


@dataclass(frozen=True, slots=True)
class Ffmpeg:
    """``ports``: what its SDP tells it to listen on."""

    pid: int
    sdp: Path
    ports: tuple[int, ...]


def children(pid: int) -> list[int]:
    """The processes whose parent this one is, those not reaped included."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found


def gone(pid: int) -> bool:
    """Whether the process has ended; somebody may not have reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def ffmpegs(server: Server) -> list[Ffmpeg]:
    """The server's children, all of which must be FFmpegs at work."""
    found = []
    for pid in children(server.process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            sdp = Path(command[command.index("-i") + 1])
            text = sdp.read_text()
        except (OSError, ValueError):  # just started, or just ending
            found.append(Ffmpeg(pid, Path("/nonexistent"), ()))
            continue
        ports = [int(port) for port in re.findall(r"^(?:m=\w+ |a=rtcp:)(\d+)", text, re.MULTILINE)]
        found.append(Ffmpeg(pid, sdp, tuple(ports)))
    return found


def bound_ports(pid: int) -> list[int]:
    """The UDP ports that a process has bound."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue
    ports = []
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports
