"""`setPreferredLayers`, `preferredLayers` of `consume` and `layersChanged`, through real sockets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from bench.rtp import PacketSource, StreamFormat
from tests.support.media_client import MediaUser, OutgoingStream, media_user
from tests.support.protocol import CAPABILITIES, Json, a_room, a_server, payload_of, refused, told, vp8

SIMULCAST: Json = {**vp8(), "encodings": [{"ssrc": 2222}, {"ssrc": 2223}, {"ssrc": 2224}]}


async def test_requests() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        await b.request("createConsumerTransport", room)
        produce = {**room, "kind": "video", "rtpParameters": SIMULCAST}
        consume = {
            **room,
            "producerId": (await a.request("produce", produce))["id"],
            "rtpCapabilities": CAPABILITIES,
            "preferredLayers": {"spatialLayer": 200, "temporalLayer": 1},
        }
        consumed = await b.request("consume", consume)
        assert consumed["type"] == "simulcast"
        mine = {**room, "consumerId": consumed["id"]}
        await told(a)
        await told(b)
        for wanted, answer in ((0, 0), (1, 1), (2, 2), (3, 2), (255, 2), (0, 0)):
            ack = await b.request("setPreferredLayers", {**mine, "spatialLayer": wanted, "temporalLayer": 0})
            assert ack == {"spatialLayer": answer, "temporalLayer": 0}
        ack = await b.request("setPreferredLayers", {**mine, "spatialLayer": 1, "temporalLayer": None})
        assert ack == {"spatialLayer": 1, "temporalLayer": 0}
        # Nothing is forwarded: nothing has changed, for nobody.
        assert await told(a) == await told(b) == []
        of_nobody = {**room, **payload_of("setPreferredLayers")}
        assert await refused(b, "setPreferredLayers", of_nobody) == "consumer-not-found"
        assert await refused(a, "setPreferredLayers", {**mine, "spatialLayer": 0}) == "consumer-not-found"
        elsewhere = {**mine, "spatialLayer": 0, "roomId": "elsewhere"}
        assert await refused(b, "setPreferredLayers", elsewhere) == "not-in-room"
        await b.request("closeConsumer", mine)
        assert await refused(b, "setPreferredLayers", {**mine, "spatialLayer": 0}) == "consumer-not-found"


async def test_a_producer_of_one_stream_has_no_layers() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        await b.request("createConsumerTransport", room)
        producer_id = (await a.request("produce", {**room, "kind": "video", "rtpParameters": vp8()}))["id"]
        consume = {"producerId": producer_id, "rtpCapabilities": CAPABILITIES, "preferredLayers": {"spatialLayer": 1}}
        mine = {"consumerId": (await b.request("consume", {**room, **consume}))["id"]}
        assert await b.request("setPreferredLayers", {**room, **mine, "spatialLayer": 1}) == {}


@pytest.mark.parametrize(
    "layers",
    [
        {},
        {"spatialLayer": None},
        {"spatialLayer": -1},
        {"spatialLayer": 256},
        {"spatialLayer": 1 << 80},
        {"spatialLayer": 1.5},
        {"spatialLayer": "1"},
        {"spatialLayer": True},
        {"spatialLayer": [1]},
        {"spatialLayer": {"spatialLayer": 1}},
        {"temporalLayer": 1},
        {"spatialLayer": 1, "temporalLayer": -1},
        {"spatialLayer": 1, "temporalLayer": "all"},
        {"spatialLayer": 1, "temporalLayer": 256},
    ],
)
async def test_hostile_payloads(layers: Json) -> None:
    async with a_server() as server, a_room(server) as (_, b, room):
        assert await refused(b, "setPreferredLayers", {**room, "consumerId": "x", **layers}) == "invalid-payload"
        consume = {**room, **payload_of("consume"), "preferredLayers": layers}
        assert await refused(b, "consume", consume) == "invalid-payload"
        for consumer_id in (None, 5, "", "x" * 65, ["x"]):
            odd = {**room, "spatialLayer": 1, "consumerId": consumer_id}
            assert await refused(b, "setPreferredLayers", odd) == "invalid-payload"
        for wrong in ([], "layers", 1, [layers]):
            odd = {**room, **payload_of("consume"), "preferredLayers": wrong}
            assert await refused(b, "consume", odd) == "invalid-payload"


async def produce_simulcast(user: MediaUser) -> list[OutgoingStream]:
    """A producer of three streams by SSRC, the lowest first; each sends packets of another size."""
    transport = user.send_transport = await user._open_transport("Producer")
    formats = [StreamFormat.vp8(size=size) for size in (150, 250, 350)]
    encodings: list[Any] = [each.rtp_parameters()["encodings"][0] for each in formats]
    parameters = {**formats[0].rtp_parameters(), "encodings": encodings}
    reply = await user.request("produce", {"kind": "video", "rtpParameters": parameters})
    transport.ssrc = formats[0].ssrc
    for each in formats:
        source = PacketSource(replace(each, mid=formats[0].mid), transport.sequence)
        outgoing = OutgoingStream(reply["id"], source, transport)
        transport.outgoing.append(outgoing)
        user.outgoing.append(outgoing)
    return user.outgoing


async def next_change(user: MediaUser) -> Json:
    with trio.fail_after(10):
        while True:
            name, args = await user.socket.events.receive()
            if name == "layersChanged":
                payload: Json = args[0]
                return payload


async def test_media_and_events_follow() -> None:
    async with (
        a_server() as server,
        media_user(server.url) as sender,
        media_user(server.url, room=sender.room_id) as viewer,
        media_user(server.url, room=sender.room_id) as witness,
    ):
        streams = await produce_simulcast(sender)
        sender.start_sending(pps=100)
        received = await viewer.consume(streams[0].producer_id)
        mine = {"roomId": sender.room_id, "consumerId": received.consumer_id}

        def is_of(layer: int) -> Callable[[], bool]:
            sizes = (range(100, 151), range(200, 251), range(300, 351))
            return lambda: bool(received.received) and len(received.received[-1].payload) in sizes[layer]

        first = await next_change(viewer)
        assert set(first) == {"roomId", "consumerId", "spatialLayer", "temporalLayer"}
        for layer in (0, 1, 0, 1):
            ack = await viewer.request("setPreferredLayers", {**mine, "spatialLayer": layer})
            assert ack == {"spatialLayer": layer, "temporalLayer": 0}
            while first["spatialLayer"] != layer:
                first = await next_change(viewer)
            assert first == {**mine, "spatialLayer": layer, "temporalLayer": 0}
            await received.wait_until(is_of(layer))
        await viewer.request("pauseConsumer", mine)
        assert await next_change(viewer) == {**mine, "spatialLayer": None, "temporalLayer": None}
        numbers = [packet.sequence_number for packet in received.received]
        assert [number - numbers[0] & 0xFFFF for number in numbers] == list(range(len(numbers)))
        assert "layersChanged" not in [name for name, _ in await told(witness.socket)]
        assert "layersChanged" not in [name for name, _ in await told(sender.socket)]


# -- priority and limits


async def test_priority_and_limit() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        assert await refused(a, "setMaxIncomingBitrate", {**room, "bitrate": 1}) == "transport-not-found"
        await a.request("createProducerTransport", room)
        await b.request("createConsumerTransport", room)
        for bitrate in (300_000, 0, 1_000_000_000):
            assert await a.request("setMaxIncomingBitrate", {**room, "bitrate": bitrate}) == {"bitrate": bitrate}
        producer_id = (await a.request("produce", {**room, "kind": "video", "rtpParameters": vp8()}))["id"]
        consume = {**room, "producerId": producer_id, "rtpCapabilities": CAPABILITIES}
        mine = {**room, "consumerId": (await b.request("consume", consume))["id"]}
        for priority in (1, 255):
            assert await b.request("setConsumerPriority", {**mine, "priority": priority}) == {"priority": priority}
        assert await refused(a, "setConsumerPriority", {**mine, "priority": 1}) == "consumer-not-found"
        assert await refused(b, "setConsumerPriority", {**mine, "priority": 1, "roomId": "x"}) == "not-in-room"
        wrong: list[Any] = [-1, 1_000_000_001, 1.5, "1", None, True, [1], {}, 1 << 70]
        for value in (0, 256, *wrong):
            assert await refused(b, "setConsumerPriority", {**mine, "priority": value}) == "invalid-payload"
        for value in wrong:
            assert await refused(a, "setMaxIncomingBitrate", {**room, "bitrate": value}) == "invalid-payload"
