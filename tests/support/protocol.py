"""What the protocol tests share: a server in this process, payloads, fences, and a call next door.

Everything goes through real sockets; :func:`holds` alone looks inside the server.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import trio

from tests.support.front_door import nothing_left
from tests.support.media_client import IncomingStream, OutgoingStream, media_user
from tests.support.socketio_client import SocketIOClient, connect_socketio
from tests.support.until import until
from trio_sfu.config import Config
from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.server import Server, open_server

Json = dict[str, Any]

_CODE: Final = re.compile(r"[a-z]+(-[a-z]+)*")

LOCAL: Final = Config(host="127.0.0.1", port=0, media_port=0, hls=None)
CAPABILITIES: Final[Json] = msgspec.json.decode(msgspec.json.encode(router_rtp_capabilities()))
DTLS: Final[Json] = {"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": ":".join(["AB"] * 32)}]}
#: Requests that are about one producer or consumer of the caller.
ABOUT_PRODUCER: Final = ("closeProducer", "pauseProducer", "resumeProducer")
ABOUT_CONSUMER: Final = ("closeConsumer", "pauseConsumer", "resumeConsumer", "requestKeyFrame")


def opus(ssrc: int = 1111, mid: str = "0") -> Json:
    """RtpParameters of a microphone."""
    codec = {"mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000, "channels": 2}
    return {"mid": mid, "codecs": [codec], "encodings": [{"ssrc": ssrc}], "rtcp": {"cname": "someone"}}


def vp8(ssrc: int = 2222, mid: str = "1", rtx: int | None = None) -> Json:
    """RtpParameters of a camera; ``rtx`` is the SSRC of its retransmissions."""
    feedback = [{"type": "nack"}, {"type": "nack", "parameter": "pli"}]
    codecs: list[Json] = [{"mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000, "rtcpFeedback": feedback}]
    encoding: Json = {"ssrc": ssrc}
    if rtx is not None:
        codecs.append({"mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000, "parameters": {"apt": 96}})
        encoding["rtx"] = {"ssrc": rtx}
    return {"mid": mid, "codecs": codecs, "encodings": [encoding]}


def payload_of(event: str) -> Json:
    """What the request needs besides a room: right in form, though its ids name nothing."""
    if event.startswith("connect"):
        return {"dtlsParameters": DTLS}
    if event in ABOUT_PRODUCER:
        return {"producerId": "nobody's"}
    if event in ABOUT_CONSUMER:
        return {"consumerId": "nobody's"}
    payloads: dict[str, Json] = {
        "restartIce": {"transportId": "nobody's"},
        "produce": {"kind": "audio", "rtpParameters": opus(), "appData": {"source": "mic"}},
        "consume": {"producerId": "nobody's", "rtpCapabilities": CAPABILITIES, "paused": False},
        "setPreferredLayers": {"consumerId": "nobody's", "spatialLayer": 0},
        "setConsumerPriority": {"consumerId": "nobody's", "priority": 1},
        "setMaxIncomingBitrate": {"bitrate": 1_000_000},
    }
    return payloads.get(event, {})


async def told(client: SocketIOClient) -> list[tuple[str, Json]]:
    """All events for this client since the last look, but for scores, which the clock brings.

    A fence makes that exact: the server answers in order, so what came before this ack is here now.
    """
    assert (await client.request("anEventNobodyKnows"))["code"] == "unknown-event"
    events: list[tuple[str, Json]] = []
    with contextlib.suppress(trio.WouldBlock):
        while True:
            name, args = client.events.receive_nowait()
            assert len(args) == 1
            if name != "score":
                events.append((name, args[0]))
    return events


async def refused(client: SocketIOClient, event: str, *args: Any) -> str:
    """The code of a refusal, whose form is checked."""
    ack = await client.request(event, *args)
    assert set(ack) == {"error", "code"}, ack
    assert 0 < len(ack["error"]) < 600
    return str(ack["code"])


def holds(server: Server) -> Json:
    """How much there is of everything that users own."""
    rooms, counts = server.rooms.counts()
    return {
        "rooms": rooms,
        "peers": counts.peers,
        "transports": counts.transports,
        "producers": counts.producers,
        "consumers": counts.consumers,
        "registered": server.endpoint.transport_count,
        "routes": sum(len(each.routes) for each in (*server.endpoint.sockets, *server.endpoint.tcp)),
    }


NOTHING: Final[Mapping[str, int]] = dict.fromkeys(
    ("rooms", "peers", "transports", "producers", "consumers", "registered", "routes"), 0
)


@contextlib.contextmanager
def the_one_error() -> Iterator[None]:
    """Takes an error out of the groups in groups that the clients' nurseries make: pytest shows ten levels."""
    leaf: BaseException
    try:
        yield
    except BaseExceptionGroup as group:
        leaf = group
        while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
            leaf = leaf.exceptions[0]
    else:
        return
    raise leaf from leaf.__cause__


@asynccontextmanager
async def a_server(config: Config = LOCAL) -> AsyncIterator[Server]:
    """A server in this process, of which nothing is left when the block ends."""
    with the_one_error():
        async with nothing_left(), open_server(config, dist=Path("/nonexistent")) as server:
            yield server
        assert holds(server) == NOTHING


@asynccontextmanager
async def a_room(server: Server) -> AsyncIterator[tuple[SocketIOClient, SocketIOClient, Json]]:
    """Two users in a room, and ``{"roomId": …}``; nothing is waiting in their events."""
    async with connect_socketio(server.url) as a, connect_socketio(server.url) as b:
        room = await a.request("createRoom", {})
        assert await b.request("joinRoom", room) == room
        await told(a)
        await told(b)
        yield a, b, room


@dataclass(slots=True)
class Call:
    """Somebody else's call: one sends numbered packets, one receives them."""

    room_id: str
    sent: OutgoingStream
    received: IncomingStream
    _seen: int = 0

    async def goes_on(self) -> None:
        """Asserts that more has arrived since the last look, and nothing is missing; waits for it a little."""
        await self.received.wait_received(self._seen + 1)
        self._seen = len(self.received.received)
        assert self.received.missing() == []


@asynccontextmanager
async def a_call_next_door(server: Server, *, pps: float = 100) -> AsyncIterator[Call]:
    """A call that lasts as long as the block; at its end each packet has arrived, once and in order."""
    async with media_user(server.url) as sender, media_user(server.url, room=sender.room_id) as viewer:
        video = await sender.produce_video(size=200)
        call = Call(sender.room_id, video, await viewer.consume(video.producer_id))
        sender.start_sending(pps)
        await call.goes_on()
        yield call
        await call.goes_on()
        sender.stop_sending()
        await call.received.wait_number(video.sent - 1)
        assert call.received.missing() == []
        # It begins with a keyframe, on a busy machine with a later one than the first.
        assert call.received.numbers == list(range(call.received.numbers[0], video.sent))


def complaints(caplog: pytest.LogCaptureFixture) -> Sequence[str]:
    """What the server logged that should not be there. The small socket buffers of a test machine may be."""
    return [
        record.getMessage()
        for record in caplog.records
        if (record.levelname not in ("DEBUG", "INFO") or record.exc_info) and "kernel granted" not in record.message
    ]


@dataclass(slots=True)
class Scene:
    """A server, a call that must not notice anything, and those who try. Made by :func:`a_scene`."""

    server: Server
    call: Call
    producer_id: str = ""  # the latest attacker's

    @asynccontextmanager
    async def attacker(self, transport: Any = "websocket") -> AsyncIterator[SocketIOClient]:
        """A user with a room, both transports, a producer and a consumer: requests get far. It ends usable."""
        async with connect_socketio(self.server.url, transport=transport) as client:
            room = await client.request("createRoom", {})
            for direction in ("Producer", "Consumer"):
                await client.request(f"create{direction}Transport", room)
            self.producer_id = (await client.request("produce", payload_of("produce")))["id"]
            consume = {"producerId": self.producer_id, "rtpCapabilities": CAPABILITIES}
            assert "id" in await client.request("consume", consume)
            yield client
            await self.is_usable(client)

    async def is_usable(self, client: SocketIOClient) -> None:
        """The socket does what it did before, and the others' call goes on."""
        room = await client.request("createRoom", {})
        assert set(room) == {"roomId"}, room
        assert await client.request("listProducers", room) == {"producers": []}
        assert await client.request("leaveRoom", room) == {"left": True}
        await self.call.goes_on()


@asynccontextmanager
async def a_scene(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    """At the end nothing that the attackers had is left, and the server has nothing to complain about."""
    caplog.set_level(logging.INFO)
    async with a_server() as server:
        async with a_call_next_door(server) as call:
            before = holds(server)
            yield Scene(server, call)
            await until(lambda: holds(server) == before)
        await until(lambda: holds(server)["rooms"] == 0)
        failed = [line for line in server.metrics.render().splitlines() if "failed_events_total" in line]
        assert failed[-1].endswith(" 0")
    assert complaints(caplog) == []


async def answers(client: SocketIOClient, event: str, *args: Any) -> str:
    """The ack of whatever was asked is in order; its code, "" for a success."""
    ack = await client.request(event, *args)
    if "error" not in ack:
        assert "code" not in ack
        return ""
    assert set(ack) == {"error", "code"}
    assert _CODE.fullmatch(ack["code"]), ack
    assert 0 < len(ack["error"]) < 600
    assert "Traceback" not in ack["error"]
    assert ack["code"] not in ("internal", "timeout", "rate-limited"), (event, str(args)[:200], ack)
    return str(ack["code"])
