"""The contract's requests about rooms and producers, row by row, through real sockets: acks, events, errors."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.protocol import (
    ABOUT_CONSUMER,
    ABOUT_PRODUCER,
    CAPABILITIES,
    LOCAL,
    Json,
    a_room,
    a_server,
    holds,
    opus,
    payload_of,
    refused,
    told,
    vp8,
)
from tests.support.socketio_client import SocketIOClient, connect_socketio
from trio_sfu.config import Config
from trio_sfu.rooms.messages import REQUESTS
from trio_sfu.rooms.room import RoomLimits

IN_A_ROOM = sorted(set(REQUESTS) - {"createRoom", "joinRoom"})


def peers_changed(room: Json, *clients: SocketIOClient) -> tuple[str, Json]:
    return "peersChanged", {**room, "peers": [{"userId": client.sid, "name": None} for client in clients]}


def producers_changed(room: Json, *producers: Json) -> tuple[str, Json]:
    return "roomProducersChanged", {**room, "producers": list(producers)}


async def produce(client: SocketIOClient, kind: str, parameters: Json, app_data: Json | None = None) -> Json:
    """Produce, and give the entry that events and lists hold."""
    payload: Json = {"kind": kind, "rtpParameters": parameters}
    if app_data is not None:
        payload["appData"] = app_data
    ack = await client.request("produce", payload)
    assert set(ack) == {"id"}, ack
    return {"userId": client.sid, "producerId": ack["id"], "kind": kind}


def test_every_request_of_the_contract_exists() -> None:
    rows = (
        "createRoom joinRoom getRouterRtpCapabilities createProducerTransport connectProducerTransport produce "
        "stopProducing listProducers createConsumerTransport connectConsumerTransport consume"
    )
    more = {
        *("leaveRoom", "getStats", "setPreferredLayers", "setConsumerPriority", "setMaxIncomingBitrate", "restartIce"),
    }
    assert set(rows.split()) | {*more, *ABOUT_PRODUCER, *ABOUT_CONSUMER} == set(REQUESTS)


# Rooms


async def test_create_room() -> None:
    async with a_server() as server, connect_socketio(server.url) as a, connect_socketio(server.url) as b:
        room = await a.request("createRoom", {})
        assert set(room) == {"roomId"}
        assert re.fullmatch(r"room_[a-z0-9]{6}", room["roomId"])
        assert await told(a) == [peers_changed(room, a), producers_changed(room)]
        assert await told(b) == []
        # The caller is in the room.
        assert await a.request("listProducers", room) == {"producers": []}
        # A name of one's own; no payload is an empty one.
        assert await b.request("createRoom", {"roomId": "Tea_time-5"}) == {"roomId": "Tea_time-5"}
        assert set(await b.request("createRoom")) == {"roomId"}
        assert await refused(a, "createRoom", {"roomId": "Tea_time-5"}) == "room-exists"
        for name in ("", "a/b", "ä", "x" * 65, "a\n", "..", "a b", "%2e"):
            assert await refused(a, "createRoom", {"roomId": name}) == "invalid-payload"
        assert holds(server)["rooms"] == 3


async def test_join_room() -> None:
    async with a_server() as server, connect_socketio(server.url) as a, connect_socketio(server.url) as b:
        room = await a.request("createRoom", {})
        await a.request("createProducerTransport", room)
        mic = await produce(a, "audio", opus())
        await told(a)
        assert await b.request("joinRoom", room) == room
        # Everyone, the newcomer too.
        assert await told(a) == [peers_changed(room, a, b), producers_changed(room, mic)]
        assert await told(b) == [peers_changed(room, a, b), producers_changed(room, mic)]
        # Twice is no error, and nobody came.
        assert await b.request("joinRoom", room) == room
        assert await told(a) == [producers_changed(room, mic)]
        assert holds(server)["peers"] == 2
        # Errors.
        unknown = {"error": "Room does not exist", "code": "room-not-found"}
        assert await b.request("joinRoom", {"roomId": "room_x7k2p9"}) == unknown
        assert await b.request("joinRoom", {"roomId": "../" * 20}) == unknown
        await b.request("leaveRoom", room)
        assert await refused(b, "joinRoom", {}) == "invalid-payload"
        assert await refused(b, "joinRoom", {"roomId": None}) == "invalid-payload"
        assert await refused(b, "joinRoom", {"roomId": "x" * 65}) == "invalid-payload"


async def test_leave_room() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        await b.request("createConsumerTransport", room)
        mic = await produce(a, "audio", opus())
        consume = {"producerId": mic["producerId"], "rtpCapabilities": CAPABILITIES}
        consumer = await b.request("consume", consume)
        await told(a)
        await told(b)
        assert await a.request("leaveRoom", room) == {"left": True}
        assert holds(server)["registered"] == 1  # answered when all is closed
        closed = {**room, "producerId": mic["producerId"]}
        assert await told(b) == [
            ("consumerClosed", {**closed, "consumerId": consumer["id"]}),
            ("producerClosed", {**closed, "userId": a.sid}),
            producers_changed(room),
            peers_changed(room, b),
            producers_changed(room),
        ]
        assert await told(a) == []
        assert await refused(a, "leaveRoom", room) == "not-in-room"
        # Back again.
        assert await a.request("joinRoom", room) == room
        # The last one out ends the room.
        for client in (a, b):
            await client.request("leaveRoom", {})
        assert holds(server)["rooms"] == 0
        assert await refused(a, "joinRoom", room) == "room-not-found"


async def test_not_in_that_room() -> None:
    """Whether there is such a room is nobody's business who is not in it."""
    async with a_server() as server, connect_socketio(server.url) as a, connect_socketio(server.url) as b:
        room = await a.request("createRoom", {})
        for event in IN_A_ROOM:
            payload = payload_of(event)
            assert await b.request(event, payload) == {"error": "You are not in this room", "code": "not-in-room"}
        own = await b.request("createRoom", {})
        for event in IN_A_ROOM:
            payload = payload_of(event)
            assert await refused(b, event, {**payload, **room}) == "not-in-room"
            assert await refused(b, event, {**payload, "roomId": "room_x7k2p9"}) == "not-in-room"
        await told(a)
        await b.request("joinRoom", room)
        await b.request("leaveRoom", room)
        for event in IN_A_ROOM:
            assert await refused(b, event, {**payload_of(event), **room}) == "not-in-room"
        assert {name for name, _ in await told(a)} == {"peersChanged", "roomProducersChanged"}
        assert await b.request("listProducers", own) == {"producers": []}


async def test_room_id_is_optional() -> None:
    async with a_server() as server, connect_socketio(server.url) as client:
        for event in (*IN_A_ROOM, "joinRoom"):
            one = await client.request("createRoom", {})
            ack = await client.request(event, payload_of(event))
            assert ack.get("code") not in ("not-in-room", "invalid-payload"), event
            if event == "leaveRoom":
                one = await client.request("createRoom", {})
            two = await client.request("createRoom", {})
            ambiguous = await client.request(event, payload_of(event))
            assert ambiguous["code"] == "invalid-payload", event
            assert "roomId" in ambiguous["error"]
            ack = await client.request(event, {**payload_of(event), **two})
            assert ack.get("code") not in ("not-in-room", "invalid-payload"), event
            for room in (one, two):
                await client.request("leaveRoom", room)


async def test_unknown_events() -> None:
    payloads: list[Any] = [{}, None, [], "x"]
    async with a_server() as server, connect_socketio(server.url) as client:
        for name in ("", "createroom", "message", "ping", "error", "__proto__", "_reply", "x" * 10_000, "é\u2028"):
            for payload in payloads:
                assert await refused(client, name, payload) == "unknown-event"


async def test_requests_without_an_ack_are_carried_out() -> None:
    async with a_server() as server, connect_socketio(server.url) as a, connect_socketio(server.url) as b:
        await a.emit("createRoom", {"roomId": "tea"})
        await b.emit("noSuchEvent", {})
        await b.emit("joinRoom", {"roomId": "nowhere"})
        await b.emit("joinRoom", 5)
        room = {"roomId": "tea"}
        assert [name for name, _ in await told(a)] == ["peersChanged", "roomProducersChanged"]
        await b.emit("joinRoom", room)
        await b.emit("createProducerTransport")
        await b.emit("produce", {"kind": "audio", "rtpParameters": opus()})
        # The results are dropped: of the acks nothing is left but that of the fence.
        assert [name for name, _ in await told(b)] == ["peersChanged", "roomProducersChanged", "roomProducersChanged"]
        assert [name for name, _ in await told(a)][-2:] == ["newProducer", "roomProducersChanged"]
        assert holds(server)["producers"] == 1
        await b.emit("leaveRoom")
        assert await told(b) == []
        assert holds(server)["peers"] == 1


async def test_names_are_shown_to_all() -> None:
    async with a_server() as server, connect_socketio(server.url) as a, connect_socketio(server.url) as b:
        room = await a.request("createRoom", {"name": "Ann"})
        await b.request("joinRoom", {**room, "name": "Bob \u2603"})
        peers = [{"userId": a.sid, "name": "Ann"}, {"userId": b.sid, "name": "Bob \u2603"}]
        for client in (a, b):
            assert ("peersChanged", {**room, "peers": peers}) in await told(client)


# Producers


async def test_router_capabilities() -> None:
    async with a_server() as server, connect_socketio(server.url) as client:
        await client.request("createRoom", {})
        assert await client.request("getRouterRtpCapabilities", {}) == {"rtpCapabilities": CAPABILITIES}
    mime_types = {codec["mimeType"].lower() for codec in CAPABILITIES["codecs"]}
    assert {"audio/opus", "video/vp8", "video/rtx"} < mime_types
    for codec in CAPABILITIES["codecs"]:
        required = {"kind", "mimeType", "preferredPayloadType", "clockRate", "parameters", "rtcpFeedback"}
        assert set(codec) == required | ({"channels"} if codec["kind"] == "audio" else set())
    for extension in CAPABILITIES["headerExtensions"]:
        assert set(extension) == {"kind", "uri", "preferredId", "preferredEncrypt", "direction"}


async def test_produce() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        assert await refused(a, "produce", payload_of("produce")) == "transport-not-found"
        await a.request("createProducerTransport", room)
        mic = await produce(a, "audio", opus(), {"source": "mic", "nested": {"a": [1, None]}})
        app_data = {"appData": {"source": "mic", "nested": {"a": [1, None]}}}
        assert await told(b) == [("newProducer", {**room, **mic, **app_data}), producers_changed(room, mic)]
        assert await told(a) == [producers_changed(room, mic)]
        # Without appData there is none; another kind replaces nothing.
        camera = await produce(a, "video", vp8())
        assert await told(b) == [("newProducer", {**room, **camera}), producers_changed(room, mic, camera)]
        # Nor does another source.
        screen = await produce(a, "video", vp8(4444, "2"), {"source": "screen"})
        assert holds(server)["producers"] == 3
        listed = [{**mic, **app_data}, camera, {**screen, "appData": {"source": "screen"}}]
        assert await b.request("listProducers", room) == {"producers": [{**each, "paused": False} for each in listed]}
        assert await a.request("listProducers", room) == {"producers": []}
        assert await a.request("stopProducing", room) == {"stopped": True}
        assert await b.request("listProducers", room) == {"producers": []}
        assert await a.request("stopProducing", room) == {"stopped": True}


async def test_produce_replaces() -> None:
    """The same kind and source again: the older one is closed, whose SSRC and MID the new one may have."""
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        await b.request("createConsumerTransport", room)
        for app_data in (None, {"source": "camera"}):
            old = await produce(a, "video", vp8(), app_data)
            consume = {"producerId": old["producerId"], "rtpCapabilities": CAPABILITIES}
            consumer = await b.request("consume", consume)
            await told(a)
            await told(b)
            new = await produce(a, "video", vp8(), app_data)
            assert new["producerId"] != old["producerId"]
            closed = {**room, "producerId": old["producerId"]}
            extra = {} if app_data is None else {"appData": app_data}
            assert await told(b) == [
                ("consumerClosed", {**closed, "consumerId": consumer["id"]}),
                ("producerClosed", {**closed, "userId": a.sid}),
                ("newProducer", {**room, **new, **extra}),
                producers_changed(room, new),
            ]
            # Its owner asked for a new one, not for this.
            assert await told(a) == [("producerClosed", {**closed, "userId": a.sid}), producers_changed(room, new)]
            assert await refused(a, "closeProducer", closed) == "producer-not-found"
            await a.request("stopProducing", room)
            await told(b)


async def test_a_refused_produce_changes_nothing() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        mic = await produce(a, "audio", opus())
        await told(b)
        bad = opus()
        bad["codecs"][0]["mimeType"] = "audio/unheard-of"
        assert await refused(a, "produce", {"kind": "audio", "rtpParameters": bad}) == "unsupported-codec"
        assert await refused(a, "produce", {"kind": "video", "rtpParameters": vp8(1111)}) == "duplicate-ssrc"
        assert await refused(a, "produce", {"kind": "video", "rtpParameters": vp8(9, rtx=1111)}) == "duplicate-ssrc"
        assert await refused(a, "produce", {"kind": "video", "rtpParameters": vp8(9, "0")}) == "invalid-rtp-parameters"
        assert await told(b) == []
        listed = await b.request("listProducers", room)
        assert [each["producerId"] for each in listed["producers"]] == [mic["producerId"]]
        # Another user's SSRCs are their own.
        await b.request("createProducerTransport", room)
        await produce(b, "audio", opus())


@pytest.mark.parametrize("event", ABOUT_PRODUCER)
async def test_requests_about_a_producer(event: str) -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        mic = await produce(a, "audio", opus())
        mine = {**room, "producerId": mic["producerId"]}
        assert await refused(b, event, mine) == "producer-not-found"  # somebody else's
        assert await refused(a, event, {**room, "producerId": "nobody's"}) == "producer-not-found"
        if event == "resumeProducer":
            await a.request("pauseProducer", mine)
        await told(a)
        await told(b)
        ack, name, listed = {
            "closeProducer": ({"closed": True}, "producerClosed", []),
            "pauseProducer": ({"paused": True}, "producerPaused", [{**mic, "paused": True}]),
            "resumeProducer": ({"resumed": True}, "producerResumed", [{**mic, "paused": False}]),
        }[event]
        assert await a.request(event, mine) == ack
        changed = [producers_changed(room)] if event == "closeProducer" else []
        assert await told(b) == [(name, {**mine, "userId": a.sid}), *changed]
        assert await told(a) == changed
        assert await b.request("listProducers", room) == {"producers": listed}
        # Once more: closed is closed, the others are what they are.
        if event == "closeProducer":
            assert await refused(a, event, mine) == "producer-not-found"
        else:
            assert await a.request(event, mine) == ack
        assert await told(b) == []


async def test_limits_have_codes() -> None:
    limits = RoomLimits(rooms=3, rooms_per_user=2, peers=2, producers=2, consumers=1)
    config = Config(host=LOCAL.host, port=0, media_port=0, hls=None, limits=limits)
    async with a_server(config) as server, a_room(server) as (a, b, room), connect_socketio(server.url) as c:
        assert await refused(c, "joinRoom", room) == "room-full"
        # Many rooms: of one user, and of all.
        other = await a.request("createRoom", {})
        for event, payload in (("createRoom", {}), ("joinRoom", {"roomId": "third"})):
            if event == "joinRoom":
                assert await c.request("createRoom", payload) == payload
            assert await refused(a, event, payload) == "too-many-rooms"
        assert await refused(b, "createRoom", {}) == "too-many-rooms"
        assert await a.request("joinRoom", other) == other  # one that it is in already
        await a.request("leaveRoom", other)
        assert await a.request("joinRoom", {"roomId": "third"}) == {"roomId": "third"}
        # Many producers and consumers.
        await a.request("createProducerTransport", room)
        await a.request("createConsumerTransport", room)
        for ssrc in (1, 2, 3):
            produce_ = {
                **room,
                "kind": "audio",
                "rtpParameters": opus(ssrc, str(ssrc)),
                "appData": {"source": str(ssrc)},
            }
            ack = await a.request("produce", produce_)
            assert ack.get("code") == (None if ssrc < 3 else "too-many-producers")
        producer = (await b.request("listProducers", room))["producers"][0]
        consume = {**room, "producerId": producer["producerId"], "rtpCapabilities": CAPABILITIES}
        assert "id" in await a.request("consume", consume)
        assert await refused(a, "consume", consume) == "too-many-consumers"
