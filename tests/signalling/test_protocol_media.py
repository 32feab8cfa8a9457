"""The contract's requests about transports and consumers, and what the media do at each, through real sockets."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.media_client import media_user
from tests.support.protocol import (
    ABOUT_CONSUMER,
    CAPABILITIES,
    DTLS,
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
from tests.support.socketio_client import connect_socketio
from tests.support.until import until

DIRECTIONS = ("Producer", "Consumer")


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_create_transport(direction: str) -> None:
    create = f"create{direction}Transport"
    async with a_server() as server, a_room(server) as (a, b, room):
        first = await a.request(create, room)
        assert set(first) == {"id", "iceParameters", "iceCandidates", "dtlsParameters"}
        assert set(first["iceParameters"]) == {"usernameFragment", "password", "iceLite"}
        assert first["iceParameters"]["iceLite"] is True
        candidate, by_tcp = first["iceCandidates"]
        assert set(candidate) == {"foundation", "priority", "ip", "address", "protocol", "port", "type"}
        assert (candidate["address"], candidate["port"]) == ("127.0.0.1", server.media[0].port)
        assert (candidate["ip"], candidate["protocol"], candidate["type"]) == ("127.0.0.1", "udp", "host")
        assert set(by_tcp) == {*candidate, "tcpType"}
        assert (by_tcp["address"], by_tcp["port"]) == ("127.0.0.1", server.media_tcp[0].port)
        assert (by_tcp["protocol"], by_tcp["tcpType"], by_tcp["type"]) == ("tcp", "passive", "host")
        assert by_tcp["priority"] < candidate["priority"]
        assert first["dtlsParameters"]["role"] == "auto"
        assert "sha-256" in [each["algorithm"] for each in first["dtlsParameters"]["fingerprints"]]
        # One for each user, room and direction: the second replaces the first, also where that was connected.
        assert await a.request(f"connect{direction}Transport", {**room, "dtlsParameters": DTLS}) == {"connected": True}
        second = await a.request(create, room)
        assert second["id"] != first["id"]
        assert second["iceParameters"]["usernameFragment"] != first["iceParameters"]["usernameFragment"]
        assert holds(server)["registered"] == 1
        await b.request(create, room)
        other = await a.request("createRoom", {})
        await a.request(create, other)
        assert holds(server)["registered"] == holds(server)["transports"] == 3
        assert "transportClosed" not in [name for name, _ in await told(a)]


async def test_a_new_transport_closes_what_ran_on_the_old_one() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        await b.request("createConsumerTransport", room)
        producers = [
            (await a.request("produce", {**room, "kind": kind, "rtpParameters": parameters}))["id"]
            for kind, parameters in (("audio", opus()), ("video", vp8()))
        ]
        consume = {**room, "producerId": producers[0], "rtpCapabilities": CAPABILITIES}
        consumer = {**room, "consumerId": (await b.request("consume", consume))["id"]}
        # The consumer's: its owner knows.
        await told(b)
        await b.request("createConsumerTransport", room)
        assert await refused(b, "closeConsumer", consumer) == "consumer-not-found"
        assert holds(server)["consumers"] == 0
        assert await told(b) == []
        consumer_id = (await b.request("consume", consume))["id"]
        # The producer's: all are told.
        await told(a)
        await a.request("createProducerTransport", room)
        closed = [("producerClosed", {**room, "producerId": each, "userId": a.sid}) for each in producers]
        changed = ("roomProducersChanged", {**room, "producers": []})
        assert await told(a) == [*closed, changed]
        gone = ("consumerClosed", {**room, "producerId": producers[0], "consumerId": consumer_id})
        assert await told(b) == [gone, *closed, changed]
        assert (holds(server)["producers"], holds(server)["consumers"]) == (0, 0)


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_connect_transport(direction: str) -> None:
    connect = f"connect{direction}Transport"
    async with a_server() as server, a_room(server) as (a, _, room):
        assert await refused(a, connect, {"dtlsParameters": DTLS}) == "transport-not-found"
        await a.request(f"create{direction}Transport", room)
        assert await refused(a, connect, room) == "invalid-payload"
        fingerprints: list[Json] = [
            {"algorithm": "sha-256", "value": "AB"},
            {"algorithm": "sha-256", "value": "ab" * 32},
            {"algorithm": "md5", "value": "AB:CD"},
            {"algorithm": "SHA-256", "value": "\r\n"},
        ]
        for each in fingerprints:
            payload = {**room, "dtlsParameters": {"role": "client", "fingerprints": [each]}}
            assert await refused(a, connect, payload) == "invalid-dtls-parameters"
        no_parameters: list[Any] = [{"fingerprints": []}, {**DTLS, "role": "boss"}, {"role": "client"}, [], "x"]
        for bad in no_parameters:
            assert await refused(a, connect, {**room, "dtlsParameters": bad}) == "invalid-payload"
        # Answered at once: nobody is there for a handshake.
        assert await a.request(connect, {**room, "dtlsParameters": DTLS}) == {"connected": True}
        assert await refused(a, connect, {**room, "dtlsParameters": DTLS}) == "already-connected"


async def test_consume() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        payload = {**room, "kind": "video", "rtpParameters": vp8(rtx=3333), "appData": {"source": "camera"}}
        producer_id = (await a.request("produce", payload))["id"]
        consume = {**room, "producerId": producer_id, "rtpCapabilities": CAPABILITIES}
        assert await refused(b, "consume", consume) == "transport-not-found"
        await b.request("createConsumerTransport", room)
        assert await refused(b, "consume", {**consume, "producerId": "nobody's"}) == "producer-not-found"
        opus_only = [codec for codec in CAPABILITIES["codecs"] if codec["mimeType"] == "audio/opus"]
        for codecs in ([], opus_only):
            assert await refused(b, "consume", {**consume, "rtpCapabilities": {"codecs": codecs}}) == "cannot-consume"
        first = await b.request("consume", consume)
        assert set(first) == {
            "id", "producerId", "kind", "rtpParameters", "type", "paused", "producerPaused", "appData"
        }  # fmt: skip
        assert (first["producerId"], first["kind"], first["type"]) == (producer_id, "video", "simple")
        assert (first["paused"], first["producerPaused"]) == (False, False)
        assert first["appData"] == {"source": "camera"}
        parameters = first["rtpParameters"]
        assert set(parameters) >= {"mid", "codecs", "headerExtensions", "encodings", "rtcp"}
        assert [codec["mimeType"].lower() for codec in parameters["codecs"]] == ["video/vp8", "video/rtx"]
        (encoding,) = parameters["encodings"]
        assert encoding["ssrc"] not in (2222, 3333)
        assert encoding["rtx"]["ssrc"] != encoding["ssrc"]
        # Again, and paused: another consumer.
        await a.request("pauseProducer", {"producerId": producer_id})
        second = await b.request("consume", {**consume, "paused": True})
        assert (second["paused"], second["producerPaused"]) == (True, True)
        assert second["id"] != first["id"]
        assert second["rtpParameters"]["encodings"][0]["ssrc"] != encoding["ssrc"]
        assert second["rtpParameters"]["mid"] != parameters["mid"]
        assert holds(server)["consumers"] == 2
        # A producer of another room is not there.
        async with connect_socketio(server.url) as c:
            await c.request("createRoom", {})
            await c.request("createConsumerTransport", {})
            assert await refused(c, "consume", {**consume, "roomId": None}) == "producer-not-found"


@pytest.mark.parametrize("event", ABOUT_CONSUMER)
async def test_requests_about_a_consumer(event: str) -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        await a.request("createProducerTransport", room)
        await b.request("createConsumerTransport", room)
        producer_id = (await a.request("produce", payload_of("produce")))["id"]
        consume = {**room, "producerId": producer_id, "rtpCapabilities": CAPABILITIES}
        mine = {**room, "consumerId": (await b.request("consume", consume))["id"]}
        assert await refused(a, event, mine) == "consumer-not-found"  # somebody else's
        assert await refused(b, event, {**room, "consumerId": "nobody's"}) == "consumer-not-found"
        await told(a)
        await told(b)
        ack = {
            "closeConsumer": {"closed": True},
            "pauseConsumer": {"paused": True},
            "resumeConsumer": {"resumed": True},
            "requestKeyFrame": {"requested": True},
        }[event]
        assert await b.request(event, mine) == ack
        assert holds(server)["consumers"] == (event != "closeConsumer")
        if event == "closeConsumer":
            assert await refused(b, event, mine) == "consumer-not-found"
        else:
            assert await b.request(event, mine) == ack
        # Nobody else has to do with it.
        assert await told(a) == await told(b) == []


async def test_media_follow_the_requests() -> None:
    """What a paused or closed producer or consumer no longer gets, and the keyframe each begins with."""
    async with (
        a_server() as server,
        media_user(server.url) as sender,
        media_user(server.url, room=sender.room_id) as viewer,
        media_user(server.url, room=sender.room_id) as witness,
    ):
        video = await sender.produce_video(size=200)
        stream = await viewer.consume(video.producer_id)
        late = await viewer.consume(video.producer_id, paused=True)
        always = await witness.consume(video.producer_id)
        sender.start_sending(pps=200)
        await stream.wait_received(20)
        consumer = {"consumerId": stream.consumer_id}

        async def stops(event: str, payload: Json) -> None:
            await viewer.request(event, payload)
            # A packet sent before the ack may still be on its way; what the witness gets was sent after it.
            await always.wait_received(len(always.received) + 10)
            count = len(stream.received)
            await always.wait_received(len(always.received) + 20)
            assert len(stream.received) == count

        async def begins_with_a_key_frame(event: str, payload: Json) -> None:
            count = len(stream.received)
            await viewer.request(event, payload)
            await stream.wait_received(count + 10)
            # RFC 7741: a 4-byte descriptor, then a payload header whose lowest bit is 0 for keyframes.
            assert stream.received[count].payload[4] & 1 == 0

        await stops("pauseConsumer", consumer)
        await begins_with_a_key_frame("resumeConsumer", consumer)
        assert late.numbers == []  # asked to begin paused
        await viewer.request("resumeConsumer", {"consumerId": late.consumer_id})
        await late.wait_received(10)
        assert late.received[0].payload[4] & 1 == 0

        asked = video.key_frame_requests
        with trio.fail_after(5):
            while video.key_frame_requests == asked:  # one in half a second is made
                await viewer.request("requestKeyFrame", consumer)
                await always.wait_received(len(always.received) + 10)

        # The producer's own pause is for all.
        mine = {"producerId": video.producer_id}
        await sender.request("pauseProducer", mine)
        sent = video.sent
        await until(lambda: video.sent > sent + 10)
        count, sent = len(always.received), video.sent
        await until(lambda: video.sent > sent + 20)
        assert len(always.received) == count
        await sender.request("resumeProducer", mine)
        await always.wait_received(count + 10)
        assert always.received[count].payload[4] & 1 == 0
        await stream.wait_received(len(stream.received) + 10)

        await stops("closeConsumer", consumer)
        assert always.received[-1].number is not None
        # A new consumer transport closes what ran on the old one.
        await viewer.request("createConsumerTransport")
        await always.wait_received(len(always.received) + 10)
        count = len(late.received)
        await always.wait_received(len(always.received) + 20)
        assert len(late.received) == count
        assert holds(server)["consumers"] == 1
