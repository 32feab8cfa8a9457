"""``getStats`` through real sockets: the numbers are those of the packets, the answer is for their owner alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio

from bench.peer import ClientTransport, PacketKind
from tests.support.media_client import MediaTransport, MediaUser, media_user
from tests.support.protocol import (
    CAPABILITIES,
    DTLS,
    Json,
    a_room,
    a_scene,
    a_server,
    answers,
    payload_of,
    refused,
    vp8,
)
from tests.support.socketio_client import SocketIOClient, connect_socketio
from trio_sfu.rooms import peer

SIZE = 200  # of the senders' RTP packets


async def stats_of(client: SocketIOClient | MediaUser, payload: Json | None = None) -> list[Json]:
    ack = await client.request("getStats", payload or {})
    assert set(ack) == {"stats"}, ack
    stats: list[Json] = ack["stats"]
    assert len({each["timestamp"] for each in stats}) <= 1
    return stats


def types(stats: list[Json]) -> list[str]:
    return [each["type"] for each in stats]


def address(transport: MediaTransport | None) -> tuple[str, int]:
    assert transport is not None
    host, port = transport._socket.getsockname()
    return host, port


async def test_before_any_media() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        assert await stats_of(a, room) == await stats_of(a) == []
        sending = (await a.request("createProducerTransport", room))["id"]
        (stat,) = await stats_of(a, {**room, "transportId": sending})
        assert (stat["type"], stat["transportId"], stat["iceRole"]) == ("webrtc-transport", sending, "controlled")
        assert (stat["iceState"], stat["dtlsState"]) == ("new", "new")
        assert "iceSelectedTuple" not in stat
        assert (stat["bytesReceived"], stat["bytesSent"], stat["recvBitrate"]) == (0, 0, 0)
        await a.request("connectProducerTransport", {**room, "dtlsParameters": DTLS})
        assert (await stats_of(a, {"transportId": sending}))[0]["dtlsState"] == "new"
        # A producer is there at once, with nothing; a consumer comes with its producer's stream.
        video = {**room, "kind": "video", "rtpParameters": vp8(rtx=3333)}
        producer_id = (await a.request("produce", video))["id"]
        (stat,) = await stats_of(a, {**room, "producerId": producer_id})
        assert (stat["type"], stat["producerId"], stat["kind"]) == ("inbound-rtp", producer_id, "video")
        assert (stat["ssrc"], stat["rtxSsrc"], stat["mimeType"]) == (2222, 3333, "video/VP8")
        assert (stat["packetCount"], stat["pliCount"]) == (0, 0)
        receiving = (await b.request("createConsumerTransport", room))["id"]
        consume = {**room, "producerId": producer_id, "rtpCapabilities": CAPABILITIES}
        consumer = await b.request("consume", consume)
        first, second = await stats_of(b, {**room, "consumerId": consumer["id"]})
        assert (first["type"], first["consumerId"]) == ("outbound-rtp", consumer["id"])
        assert first["ssrc"] == consumer["rtpParameters"]["encodings"][0]["ssrc"]
        assert {**second, "timestamp": 0} == {**stat, "timestamp": 0}
        # Without an id: all of one's own.
        assert types(await stats_of(a, room)) == ["webrtc-transport", "inbound-rtp"]
        everything = await stats_of(b, room)
        assert types(everything) == ["webrtc-transport", "outbound-rtp", "inbound-rtp"]
        assert everything[0]["transportId"] == receiving
        # null is as good as left out.
        assert len(await stats_of(b, {**room, "transportId": None, "consumerId": None})) == 3


async def test_who_may_ask() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        transport = (await a.request("createProducerTransport", room))["id"]
        await b.request("createConsumerTransport", room)
        producer = (await a.request("produce", payload_of("produce")))["id"]
        consume = {**room, "producerId": producer, "rtpCapabilities": CAPABILITIES}
        consumer = (await b.request("consume", consume))["id"]
        mine: list[tuple[str, str, SocketIOClient, SocketIOClient]] = [
            ("transport", transport, a, b), ("producer", producer, a, b), ("consumer", consumer, b, a)
        ]  # fmt: skip
        async with connect_socketio(server.url) as stranger:
            other = await stranger.request("createRoom", {})
            assert await refused(stranger, "getStats", room) == "not-in-room"
            for kind, its_id, owner, somebody in mine:
                asked = {f"{kind}Id": its_id}
                assert len(await stats_of(owner, {**room, **asked})) == (2 if kind == "consumer" else 1)
                code = f"{kind}-not-found"
                assert await refused(somebody, "getStats", {**room, **asked}) == code
                assert await refused(stranger, "getStats", {**other, **asked}) == code
                assert await refused(stranger, "getStats", {**room, **asked}) == "not-in-room"
                for unknown in ("nobody's", "x" * 64, "é\u2028", other["roomId"]):
                    assert await refused(owner, "getStats", {**room, f"{kind}Id": unknown}) == code
            assert await stats_of(stranger) == []
        # The id of one thing is not another's.
        assert await refused(a, "getStats", {"transportId": producer}) == "transport-not-found"
        assert await refused(b, "getStats", {"consumerId": producer}) == "consumer-not-found"
        # One at a time.
        for payload in (
            {"transportId": transport, "producerId": producer},
            {"producerId": producer, "consumerId": consumer},
            {"transportId": transport, "producerId": producer, "consumerId": consumer},
        ):
            assert await refused(a, "getStats", {**room, **payload}) == "invalid-payload"
        # What is closed is gone.
        await a.request("closeProducer", {"producerId": producer})
        assert await refused(a, "getStats", {"producerId": producer}) == "producer-not-found"
        assert await refused(b, "getStats", {"consumerId": consumer}) == "consumer-not-found"
        await a.request("createProducerTransport", room)
        assert await refused(a, "getStats", {"transportId": transport}) == "transport-not-found"


WRONG: list[Any] = ["", "x" * 65, 5, 0, True, False, 1.5, [], ["a"], {}, {"id": "x"}, b"bytes", "\ud800"]


async def test_hostile_payloads(caplog: pytest.LogCaptureFixture) -> None:
    async with a_scene(caplog) as scene, scene.attacker() as client:
        for field in ("transportId", "producerId", "consumerId", "roomId"):
            for wrong in WRONG:
                assert await answers(client, "getStats", {field: wrong}) == "invalid-payload", (field, wrong)
        for wrong in ([], "x", 5, True, b""):
            assert await answers(client, "getStats", wrong) == "invalid-payload"
        ignored: list[Json] = [{"stats": []}, {"type": "webrtc-transport"}, {"__proto__": {"producerId": "x"}}]
        for strange in ignored:
            assert await answers(client, "getStats", strange) == ""
        # Ids of the call next door.
        for key, its_id in (
            ("producerId", scene.call.sent.producer_id),
            ("consumerId", scene.call.received.consumer_id),
        ):
            assert await answers(client, "getStats", {key: its_id}) == key.replace("Id", "-not-found")
            room = {"roomId": scene.call.room_id}
            assert await answers(client, "getStats", {**room, key: its_id}) == "not-in-room"
        streams = ["inbound-rtp", "outbound-rtp", "inbound-rtp"]
        assert types(await stats_of(client)) == ["webrtc-transport", "webrtc-transport", *streams]


async def test_how_much_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_STATS_BURST", 5.0)
    monkeypatch.setattr(peer, "_STATS_PER_SECOND", 0.0)
    async with a_server() as server, a_room(server) as (a, b, room):
        transport = (await a.request("createProducerTransport", room))["id"]
        await a.request("createConsumerTransport", room)
        for _ in range(2):
            assert len(await stats_of(a, room)) == 2
        assert await refused(a, "getStats", room) == "too-many-stats"
        assert len(await stats_of(a, {"transportId": transport})) == 1
        assert await refused(a, "getStats", {"transportId": transport}) == "too-many-stats"
        await b.request("createProducerTransport", room)
        assert len(await stats_of(b, room)) == 1
        # By and by more is granted.
        monkeypatch.setattr(peer, "_STATS_PER_SECOND", 1e9)
        assert len(await stats_of(a, room)) == 2


async def test_the_numbers_of_a_call() -> None:
    """Audio and video, counted by those who sent and received them."""
    async with (
        a_server() as server,
        media_user(server.url) as sender,
        media_user(server.url, room=sender.room_id) as viewer,
    ):
        video = await sender.produce_video(size=SIZE)
        voice = await sender.produce_audio(size=SIZE)
        streams = [await viewer.consume(each.producer_id) for each in (video, voice)]
        sender.start_sending(pps=100)
        await streams[0].wait_received(30)
        await streams[1].wait_received(30)
        sender.stop_sending()
        for source, stream in zip((video, voice), streams, strict=True):
            await stream.wait_number(source.sent - 1)

        for source, stream in zip((video, voice), streams, strict=True):
            (inbound,) = await stats_of(sender, {"producerId": source.producer_id})
            assert (inbound["packetCount"], inbound["byteCount"]) == (source.sent, source.source.octets)
            assert (inbound["packetsLost"], inbound["fractionLost"], inbound["packetsDiscarded"]) == (0, 0, 0)
            assert (inbound["packetsRetransmitted"], inbound["nackCount"]) == (0, 0)
            assert inbound["pliCount"] + inbound["firCount"] == source.key_frame_requests
            outbound, the_same = await stats_of(viewer, {"consumerId": stream.consumer_id})
            assert {**the_same, "timestamp": 0, "bitrate": 0} == {**inbound, "timestamp": 0, "bitrate": 0}
            assert outbound["packetCount"] == len(stream.received)
            assert outbound["byteCount"] == sum(len(packet.payload) for packet in stream.received)
            assert outbound["packetsRetransmitted"] == 0

        sending, *_ = await stats_of(sender)
        receiving, *_ = await stats_of(viewer)
        for stat, user in ((sending, sender.send_transport), (receiving, viewer.receive_transport)):
            assert (stat["iceState"], stat["dtlsState"]) == ("connected", "connected")
            host, port = address(user)
            assert stat["iceSelectedTuple"] == {
                "localIp": "127.0.0.1",
                "localAddress": "127.0.0.1",
                "localPort": server.media[0].port,
                "remoteIp": host,
                "remotePort": port,
                "protocol": "udp",
            }
        assert sending["rtpBytesReceived"] == SIZE * (video.sent + voice.sent)
        assert sending["rtpBytesSent"] == sending["rtxBytesReceived"] == receiving["rtpBytesReceived"] == 0
        # Tags, sender reports, STUN and DTLS come on top.
        assert sending["bytesReceived"] > sending["rtpBytesReceived"] + 10 * (video.sent + voice.sent)
        assert (
            receiving["bytesSent"]
            > receiving["rtpBytesSent"]
            > sum(len(packet.payload) for stream in streams for packet in stream.received)
        )
        assert sending["bytesSent"] > 0
        assert receiving["bytesReceived"] > 0


async def test_nobody_elses_address_is_told() -> None:
    async with (
        a_server() as server,
        media_user(server.url) as sender,
        media_user(server.url, room=sender.room_id) as viewer,
    ):
        video = await sender.produce_video(size=SIZE)
        stream = await viewer.consume(video.producer_id)
        sender.start_sending(pps=100)
        await stream.wait_received(5)
        tuples = [each["iceSelectedTuple"] for each in await stats_of(viewer) if "iceSelectedTuple" in each]
        assert [(each["remoteIp"], each["remotePort"]) for each in tuples] == [address(viewer.receive_transport)]


async def test_losses_and_requests() -> None:
    async with (
        a_server() as server,
        media_user(server.url) as sender,
        media_user(server.url, room=sender.room_id) as viewer,
    ):
        video = await sender.produce_video(size=SIZE)
        stream = await viewer.consume(video.producer_id)
        sender.start_sending(pps=100)
        await stream.wait_received(10)
        # One packet is lost on its way in: asked for, and sent again.
        source = video.source
        source.packet(trio.current_time(), 0, first=False, last=False, key_frame=False)
        lost = source.packets - 1
        await stream.wait_until(lambda: lost in stream.numbers)
        sender.stop_sending()
        await stream.wait_until(lambda: set(range(min(stream.numbers), video.sent)) <= set(stream.numbers))
        sending, inbound = await stats_of(sender)
        assert (inbound["packetsRepaired"], inbound["packetCount"]) == (1, video.sent)
        assert inbound["packetsLost"] == 1  # it came by RTX
        assert 1 <= inbound["packetsRetransmitted"] <= len(video.nacked) <= inbound["nackPacketCount"]
        assert inbound["nackPacketCount"] >= inbound["nackCount"] >= 1
        assert sending["rtxBytesReceived"] == (SIZE + 2) * inbound["packetsRetransmitted"]
        assert sending["rtpBytesReceived"] == SIZE * (video.sent - 1)
        # Two are lost on their way out.
        numbers = [packet.sequence_number for packet in stream.received][:2]
        count = len(stream.received)
        stream.nack(numbers)
        await stream.wait_received(count + 2)
        outbound, _ = await stats_of(viewer, {"consumerId": stream.consumer_id})
        assert (outbound["nackCount"], outbound["nackPacketCount"]) == (1, 2)
        assert (outbound["packetsRetransmitted"], outbound["packetsRepaired"]) == (2, 2)
        assert (outbound["packetCount"], outbound["pliCount"]) == (count, 0)
        receiving, *_ = await stats_of(viewer)
        assert receiving["rtxBytesSent"] > 2 * SIZE
        stream.request_key_frame()
        with trio.fail_after(5):
            while not outbound["pliCount"]:
                outbound, _ = await stats_of(viewer, {"consumerId": stream.consumer_id})
        assert (outbound["pliCount"], outbound["firCount"]) == (1, 0)


async def test_bitrates_while_a_call_runs() -> None:
    async with (
        a_server() as server,
        media_user(server.url) as sender,
        media_user(server.url, room=sender.room_id) as viewer,
    ):
        video = await sender.produce_video(size=SIZE)
        stream = await viewer.consume(video.producer_id)
        sender.start_sending(pps=100)
        # Each is that of its own last seconds, so at first they are of different times.
        with trio.fail_after(20):
            while True:
                await stream.wait_received(len(stream.received) + 20)
                sending, inbound = await stats_of(sender)
                receiving, outbound, _ = await stats_of(viewer)
                into = sending["recvBitrate"] > sending["rtpRecvBitrate"] > inbound["bitrate"] > 0
                if into and receiving["sendBitrate"] > receiving["rtpSendBitrate"] > outbound["bitrate"] > 0:
                    break
        # Bits a second, not bytes or packets; how exactly is for tests whose clock is not the machine's.
        assert inbound["byteCount"] * 100 > inbound["bitrate"] > 2_000


async def test_every_byte_of_a_transport_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """STUN, DTLS, RTCP and SRTP with its tags: what the client's socket has sent and got is what the server says."""
    sent: Counter[ClientTransport] = Counter()
    got: Counter[ClientTransport] = Counter()
    send, receive = MediaTransport._send, ClientTransport.receive_datagram

    def counted_send(self: MediaTransport, datagram: bytes) -> None:
        sent[self.client] += len(datagram)
        send(self, datagram)

    def counted_receive(self: ClientTransport, data: bytes, now: float) -> tuple[PacketKind, bytes] | None:
        got[self] += len(data)
        return receive(self, data, now)

    monkeypatch.setattr(MediaTransport, "_send", counted_send)
    monkeypatch.setattr(ClientTransport, "receive_datagram", counted_receive)
    async with (
        a_server() as server,
        media_user(server.url) as sender,
        media_user(server.url, room=sender.room_id) as viewer,
    ):
        video = await sender.produce_video(size=SIZE)
        stream = await viewer.consume(video.producer_id)
        sender.start_sending(pps=100)
        await stream.wait_received(20)
        sender.stop_sending()
        stream.nack([stream.received[5].sequence_number])
        for user, transport in ((sender, sender.send_transport), (viewer, viewer.receive_transport)):
            assert transport is not None
            with trio.fail_after(10):  # what is on its way when the server reads its counters has arrived the next time
                while True:
                    stat, *_ = await stats_of(user)
                    if (stat["bytesReceived"], stat["bytesSent"]) == (sent[transport.client], got[transport.client]):
                        break
            assert stat["bytesSent"] > 500  # the handshake alone is more
