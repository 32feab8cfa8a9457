"""WebRTC transports over real sockets: an endpoint, transports and clients in one process."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
import trio
from aioice import stun
from trio.testing import wait_all_tasks_blocked

from bench.dtls import CM, GCM
from tests.support.media_core import AUDIO_SSRC, VIDEO_SSRC, audio, audio_parameters, rtp, rtx, video, video_parameters
from tests.support.webrtc_peer import WebRtcPeer, loopback, webrtc_peer
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.errors import MediaError
from trio_sfu.media.parameters import DtlsFingerprint, DtlsParameters, IceParameters, RtpParameters
from trio_sfu.media.producer import Producer
from trio_sfu.media.router import Router
from trio_sfu.transport.udp import Path, UdpEndpoint, open_udp_endpoint
from trio_sfu.transport.webrtc import WebRtcTransport
from trio_sfu.wire.rtcp import GenericNack, Goodbye, PictureLossIndication, ReceiverReport, SenderReport
from trio_sfu.wire.rtp import parse_rtp

OTHER_FINGERPRINT = DtlsParameters(
    role="client", fingerprints=(DtlsFingerprint(algorithm="sha-256", value=":".join(["AB"] * 32)),)
)


class Server:
    """An endpoint and one router; its ``transport`` are run in the nursery. Counts what is left."""

    def __init__(self, endpoint: UdpEndpoint, nursery: trio.Nursery) -> None:
        self.endpoint = endpoint
        self.router = Router()
        self.nursery = nursery

    async def transport(self, *, connect_timeout: float = 30.0) -> WebRtcTransport:
        transport = WebRtcTransport(self.endpoint, self.router, connect_timeout=connect_timeout)
        await self.nursery.start(transport.run)
        return transport

    @property
    def left(self) -> tuple[int, int, int]:
        """Routes, registered username fragments, sessions that are ticked."""
        routes = sum(len(each.routes) for each in (*self.endpoint.sockets, *self.endpoint.tcp))
        return routes, self.endpoint.transport_count, len(self.router._sessions)

    def produce(self, transport: WebRtcTransport, kind: str = "video") -> Producer:
        parameters = video_parameters() if kind == "video" else audio_parameters()
        return self.router.produce(
            SimpleNamespace(session=transport.session),
            "video" if kind == "video" else "audio",
            msgspec.convert(parameters, RtpParameters),
        )

    def consume(self, transport: WebRtcTransport, producer: Producer) -> Consumer:
        return self.router.consume(SimpleNamespace(session=transport.session), producer, self.router.rtp_capabilities)


@asynccontextmanager
async def server(*hosts: str) -> AsyncIterator[Server]:
    """A server whose router ticks. Nothing may be left when the block ends but what still runs."""
    async with open_udp_endpoint(loopback(*(hosts or ("127.0.0.1",)))) as endpoint, trio.open_nursery() as nursery:
        made = Server(endpoint, nursery)

        async def tick() -> None:
            while True:
                made.router.tick(trio.current_time())
                await trio.sleep(0.02)

        nursery.start_soon(tick)
        yield made
        nursery.cancel_scope.cancel()
    assert made.left == (0, 0, 0)


@asynccontextmanager
async def connected(
    made: Server, *, candidate: int = 0, profiles: tuple[str, ...] = GCM
) -> AsyncIterator[tuple[WebRtcTransport, WebRtcPeer]]:
    """A transport and its client, connected."""
    transport = await made.transport()
    async with webrtc_peer(transport, candidate=candidate, profiles=profiles) as peer:
        transport.connect(peer.dtls_parameters)
        await peer.until(lambda: peer.client.state == "connected")
        await until(lambda: transport.state == "connected")
        yield transport, peer


async def until(ready: Callable[[], bool]) -> None:
    """What follows from datagrams that are on their way already."""
    with trio.fail_after(10):
        while not ready():
            await wait_all_tasks_blocked(0.001)


async def ended(made: Server, parameters: IceParameters) -> None:
    """Until these credentials name no transport any more."""
    await until(lambda: made.endpoint.owner_of(parameters.username_fragment) is None)


async def handled() -> None:
    """Let everybody handle what has been sent."""
    for _ in range(3):
        await wait_all_tasks_blocked(0.01)


def texts(packets: list[bytes], ssrc: int) -> list[bytes]:
    parsed = [(parse_rtp(data), data) for data in packets]
    return [data[each.payload_start : each.payload_end] for each, data in parsed if each.ssrc == ssrc]


# -- connecting


@pytest.mark.parametrize("profiles", [GCM, CM, ("SRTP_AEAD_AES_256_GCM",)], ids=["gcm", "cm", "gcm256"])
@pytest.mark.parametrize("candidate", [0, 1], ids=["ipv4", "ipv6"])
async def test_media_is_forwarded(candidate: int, profiles: tuple[str, ...]) -> None:
    async with (
        server("127.0.0.1", "::1") as made,
        connected(made, candidate=candidate, profiles=profiles) as (sending, sender),
        connected(made, candidate=1 - candidate) as (receiving, viewer),
    ):
        assert sending.failure is None
        sound = made.consume(receiving, made.produce(sending, "audio"))
        picture = made.consume(receiving, made.produce(sending, "video"))
        await sender.until(lambda: any(isinstance(item, PictureLossIndication) for item in sender.rtcp))
        with trio.fail_after(10):
            while not sound.packets:
                await sender.send_rtp(audio(sender.client.counters["rtcp"]))
                await trio.sleep(0.01)
        await sender.send_rtp(*[video(number, key=number == 0) for number in range(50)])
        await viewer.until(lambda: len(texts(viewer.rtp, picture.ssrc)) == 50)
        assert [int(text[2:]) for text in texts(viewer.rtp, picture.ssrc)] == list(range(50))
        numbers = [parse_rtp(data).sequence_number for data in viewer.rtp if parse_rtp(data).ssrc == picture.ssrc]
        # A retransmission, and a keyframe request that goes through to the sender.
        await viewer.send_rtcp(GenericNack(1, picture.ssrc, (numbers[10],)))
        assert picture.rtx_ssrc is not None
        await viewer.until(lambda: bool(texts(viewer.rtp, picture.rtx_ssrc or 0)))
        assert texts(viewer.rtp, picture.rtx_ssrc)[0][2:] == texts(viewer.rtp, picture.ssrc)[10]
        # Reports in both directions.
        await sender.send_rtcp(SenderReport(VIDEO_SSRC, 1 << 40, 0, 1, 1), SenderReport(AUDIO_SSRC, 1 << 40, 0, 1, 1))
        await viewer.until(lambda: {picture.ssrc} <= {i.ssrc for i in viewer.rtcp if isinstance(i, SenderReport)})
        await sender.until(lambda: any(isinstance(item, ReceiverReport) and item.reports for item in sender.rtcp))
        assert made.endpoint.counters.unauthentic == made.endpoint.counters.early == 0
        assert viewer.client.counters["undecryptable"] == sender.client.counters["undecryptable"] == 0
        assert made.left == (2, 2, 2)


async def test_the_task_sleeps_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connected transport wakes up for its timers, not in a loop."""
    async with server() as made, connected(made) as (transport, _):
        await handled()
        woken = 0
        real = transport._handle_timers

        def count(now: float, connect_by: float) -> None:
            nonlocal woken
            woken += 1
            real(now, connect_by)

        monkeypatch.setattr(transport, "_handle_timers", count)
        await trio.sleep(0.3)
        assert woken <= 3


async def test_candidates_and_parameters() -> None:
    async with server("127.0.0.1", "::1") as made:
        transport = await made.transport()
        assert [(each.ip, each.address, each.protocol, each.type) for each in transport.ice_candidates] == [
            ("127.0.0.1", "127.0.0.1", "udp", "host"),
            ("::1", "::1", "udp", "host"),
        ]
        first, second = transport.ice_candidates
        assert first.priority > second.priority
        assert first.foundation != second.foundation
        assert transport.ice_parameters.ice_lite
        assert transport.dtls_parameters.role == "auto"
        assert transport.state == "new"


async def test_dtls_before_connect_is_kept() -> None:
    async with server() as made:
        transport = await made.transport()
        async with webrtc_peer(transport) as peer:
            await until(lambda: len(transport._early) == 1)
            assert transport.state == "connecting"
            transport.connect(peer.dtls_parameters)
            await peer.until(lambda: peer.client.state == "connected")
            await until(lambda: transport.state == "connected")


async def test_a_flood_of_dtls_before_connect_is_bounded() -> None:
    async with server() as made:
        transport = await made.transport()
        async with webrtc_peer(transport) as peer:
            await until(lambda: transport.state == "connecting")
            for _ in range(20):
                await peer.send(b"\x16\xfe\xfd" + bytes(1000))
            await handled()
            assert len(transport._early) == 4
            transport.connect(peer.dtls_parameters)
            await peer.until(lambda: peer.client.state == "connected")


async def test_media_before_dtls_is_dropped() -> None:
    async with server() as made:
        transport = await made.transport()
        async with webrtc_peer(transport) as peer:
            await until(lambda: transport.state == "connecting")
            await peer.send(rtp(VIDEO_SSRC, 1, payload=bytes(30)))
            await until(lambda: made.endpoint.counters.early == 1)


async def test_a_wrong_fingerprint_fails_and_nothing_is_forwarded() -> None:
    async with server() as made, connected(made) as (receiving, viewer):
        transport = await made.transport()
        consumer = made.consume(receiving, made.produce(transport, "audio"))
        async with webrtc_peer(transport) as peer:
            transport.connect(OTHER_FINGERPRINT)
            await until(lambda: transport.state == "failed")
            assert transport.failure is not None
            assert "fingerprint" in transport.failure
            assert transport.sink is None
            # The client has keys: what it sends is for nobody.
            if peer.client.dtls.outbound is not None:
                await peer.send_rtp(audio(1), audio(2))
            await handled()
            assert texts(viewer.rtp, consumer.ssrc) == []
            assert consumer.closed
            assert made.left == (1, 1, 1)
            assert receiving.state == "connected"


async def test_no_common_srtp_profile_fails() -> None:
    async with server() as made:
        transport = await made.transport()
        async with webrtc_peer(transport, profiles=("SRTP_AES128_CM_SHA1_32",)) as peer:
            transport.connect(peer.dtls_parameters)
            await until(lambda: transport.state == "failed")
            assert "SRTP" in (transport.failure or "")


async def test_never_connected_fails() -> None:
    async with server() as made:
        transports = [await made.transport(connect_timeout=0.05) for _ in range(3)]
        # One gets nothing at all, one is told of fingerprints, one has a path.
        transports[1].connect(OTHER_FINGERPRINT)
        async with webrtc_peer(transports[2]):
            await until(lambda: all(transport.state == "failed" for transport in transports))
        assert {transport.failure for transport in transports} == {"not connected within 0.05 s"}
        await handled()
        assert made.left == (0, 0, 0)


async def test_connect_twice_and_after_the_end() -> None:
    async with server() as made:
        transport = await made.transport()
        transport.connect(OTHER_FINGERPRINT)
        with pytest.raises(MediaError) as error:
            transport.connect(OTHER_FINGERPRINT)
        assert error.value.code == "already-connected"
        other = await made.transport()
        other.close()
        with pytest.raises(MediaError) as error:
            other.connect(OTHER_FINGERPRINT)
        assert error.value.code == "transport-closed"


async def test_malformed_fingerprints_are_refused() -> None:
    async with server() as made:
        transport = await made.transport()
        bad = DtlsParameters(fingerprints=(DtlsFingerprint(algorithm="sha-256", value="AB:CD"),))
        with pytest.raises(MediaError) as error:
            transport.connect(bad)
        assert error.value.code == "invalid-dtls-parameters"
        assert transport.state == "new"


# -- the end


async def test_close_frees_everything_and_tells_the_client() -> None:
    async with server() as made, connected(made) as (transport, peer), connected(made) as (receiving, viewer):
        producer = made.produce(transport)
        consumer = made.consume(receiving, producer)
        transport.close()
        transport.close()
        assert made.left == (1, 1, 1)
        assert producer.closed
        assert consumer.closed
        await peer.until(lambda: peer.client.dtls.state == "closed")
        await viewer.until(lambda: any(isinstance(item, Goodbye) for item in viewer.rtcp))
        await peer.send_rtp(video(1, key=True))
        await handled()
        assert made.endpoint.counters.unknown >= 1
        assert transport.state == "closed"


async def test_cancelling_run_frees_everything() -> None:
    async with server() as made:
        transport = WebRtcTransport(made.endpoint, made.router)
        async with trio.open_nursery() as nursery:
            await nursery.start(transport.run)
            async with webrtc_peer(transport) as peer:
                transport.connect(peer.dtls_parameters)
                await until(lambda: transport.state == "connected")
                nursery.cancel_scope.cancel()
        assert transport.state == "closed"
        assert made.left == (0, 0, 0)


async def test_closed_before_it_runs() -> None:
    async with server() as made:
        transport = WebRtcTransport(made.endpoint, made.router)
        transport.close()
        await transport.run()
        assert made.left == (0, 0, 0)


async def test_the_clients_close_notify_closes() -> None:
    async with server() as made:
        async with connected(made) as (transport, peer):
            peer.client.close()
            await peer.flush()
            await until(lambda: transport.state == "closed")
        assert transport.failure is None
        await handled()
        assert made.left == (0, 0, 0)


async def test_lost_consent_fails() -> None:
    async with server() as made, connected(made) as (transport, _):
        transport._ice._consent_timeout = 0.1
        transport._wake.set()
        await until(lambda: transport.state == "failed")
        assert transport.failure == "the connection was lost: nothing has been heard for 30 s"
        await handled()
        assert made.left == (0, 0, 0)


# -- paths


async def test_the_client_moves_to_another_port() -> None:
    async with server() as made, connected(made) as (sending, sender), connected(made) as (receiving, viewer):
        consumer = made.consume(receiving, made.produce(sending, "audio"))
        await trio.sleep(0.06)
        await sender.send_rtp(audio(1))
        await viewer.until(lambda: len(texts(viewer.rtp, consumer.ssrc)) == 1)
        await viewer.move()
        await sender.move()
        await handled()
        await sender.send_rtp(audio(2))
        await viewer.until(lambda: len(texts(viewer.rtp, consumer.ssrc)) == 2)
        assert made.left == (4, 2, 2)


async def test_ice_restarts_while_media_goes_on() -> None:
    """Any number of times: the old credentials hold until the client comes with the new ones, DTLS is not touched."""
    async with server() as made, connected(made) as (sending, sender), connected(made) as (receiving, viewer):
        consumer = made.consume(receiving, made.produce(sending, "audio"))
        await trio.sleep(0.06)
        handshakes = sender.client.counters["dtls"], viewer.client.counters["dtls"]
        number = 0

        async def goes_on() -> None:
            nonlocal number
            number += 1
            await sender.send_rtp(audio(number))
            await viewer.until(lambda: len(texts(viewer.rtp, consumer.ssrc)) == number)

        await goes_on()
        for moves in (False, True, False):
            for transport, peer in ((sending, sender), (receiving, viewer)):
                first = transport.ice_parameters
                answers = [transport.restart_ice() for _ in range(5)]
                assert len({first.username_fragment, *(each.username_fragment for each in answers)}) == 6
                assert answers[-1] == transport.ice_parameters
                assert len(transport._ice.local_ufrags) == 3
                assert made.endpoint.owner_of(first.username_fragment) is transport
                await goes_on()
                # Consent by the old credentials, and by the old path.
                rejected = transport._ice.rejected_requests
                peer.client._check(trio.current_time())
                await peer.flush()
                await goes_on()
                if moves:
                    await peer.move()
                    await goes_on()
                await peer.restart(answers[-1])
                await ended(made, first)
                assert len(transport._ice.local_ufrags) == 1
                assert made.endpoint.owner_of(answers[-1].username_fragment) is transport
                assert transport._ice.rejected_requests == rejected
                await goes_on()
        assert made.endpoint.transport_count == 2
        assert (sender.client.counters["dtls"], viewer.client.counters["dtls"]) == handshakes
        assert made.endpoint.counters.unauthentic == 0


async def test_an_ice_restart_by_another_port() -> None:
    """A network that has changed: nothing comes by the old path, and media follows the new credentials."""
    async with server() as made, connected(made) as (sending, sender), connected(made) as (receiving, viewer):
        consumer = made.consume(receiving, made.produce(sending, "audio"))
        await trio.sleep(0.06)
        for transport, peer in ((sending, sender), (receiving, viewer)):
            before, first = transport.ice_selected_tuple, transport.ice_parameters
            parameters = transport.restart_ice()
            peer.client.remote = replace(
                peer.client.remote, username_fragment=parameters.username_fragment, password=parameters.password
            )
            await peer.move()
            await ended(made, first)
            assert transport.ice_selected_tuple != before
            assert len(transport._ice.local_ufrags) == 1
        await sender.send_rtp(audio(1))
        await viewer.until(lambda: len(texts(viewer.rtp, consumer.ssrc)) == 1)


async def test_an_ice_restart_before_the_first_path() -> None:
    async with server() as made:
        transport = await made.transport()
        parameters = transport.restart_ice()
        async with webrtc_peer(transport) as peer:
            assert peer.client.remote.username_fragment == parameters.username_fragment
            transport.connect(peer.dtls_parameters)
            await until(lambda: transport.state == "connected")
            assert made.left == (1, 1, 1)


async def test_what_has_ended_cannot_restart_ice() -> None:
    async with server() as made:
        closed = await made.transport()
        closed.restart_ice()
        closed.close()
        assert made.left == (0, 0, 0)
        failed = await made.transport(connect_timeout=0.02)
        await until(lambda: failed.state == "failed")
        for transport in (closed, failed):
            before = transport.ice_parameters
            with pytest.raises(MediaError) as error:
                transport.restart_ice()
            assert error.value.code == "transport-closed"
            assert transport.ice_parameters == before
        # Made, but not run yet.
        early = WebRtcTransport(made.endpoint, made.router)
        parameters = early.restart_ice()
        assert made.left == (0, 0, 0)
        await made.nursery.start(early.run)
        assert made.endpoint.owner_of(parameters.username_fragment) is early


async def test_many_paths_are_bounded() -> None:
    async with server() as made, connected(made) as (transport, peer):
        for _ in range(20):
            await peer.move()
            await handled()
        assert made.left[0] <= 8
        producer = made.produce(transport, "audio")
        await peer.send_rtp(audio(1))
        await until(lambda: producer.streams[0].packets == 1)


async def test_a_route_taken_by_another_transport_comes_back() -> None:
    """Somebody who forges our client's source address gets its route until its next binding request."""
    async with server() as made, connected(made) as (transport, peer):
        other = await made.transport()
        (udp_socket,) = made.endpoint.sockets
        ((key, (_, path)),) = udp_socket.routes.items()
        made.endpoint.add_route(Path(udp_socket, key), other)
        producer = made.produce(transport, "audio")
        await peer.send_rtp(audio(1))
        await handled()
        assert producer.streams[0].packets == 0
        peer.client._check(trio.current_time())
        await peer.flush()
        await peer.send_rtp(audio(2))
        await until(lambda: producer.streams[0].packets == 1)
        assert udp_socket.routes[key] == (transport, path)


async def test_a_request_with_a_wrong_password_gains_nothing() -> None:
    async with server() as made:
        transport = await made.transport()
        async with webrtc_peer(transport, start=False) as peer:
            message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
            message.attributes["USERNAME"] = f"{transport.ice_parameters.username_fragment}:x"
            message.attributes["USE-CANDIDATE"] = None
            message.add_message_integrity(b"not the password, not at all")
            await peer.send(bytes(message))
            await peer.send(b"\x16\xfe\xfd" + bytes(20))
            await until(lambda: made.endpoint.counters.received == 2)
            assert transport.state == "new"
            assert made.left == (0, 1, 1)
            assert made.endpoint.counters.unknown == 1
            assert transport._early == []


# -- hostile, though authenticated


async def test_an_ssrc_that_is_used_again_after_its_numbers_have_wrapped() -> None:
    """The sender's SRTP goes on with its rollover counter, whatever signalling calls the stream meanwhile."""
    async with server() as made, connected(made) as (transport, peer):
        first = made.produce(transport, "audio")
        for number in (0, 20_000, 40_000, 60_000, 70_000, 70_001):
            await peer.send(peer.client.protect_rtp(audio(number & 0xFFFF)))
        await until(lambda: transport.session.packets_received == 6)
        first.close()
        second = made.produce(transport, "audio")
        await peer.send(peer.client.protect_rtp(audio(70_002 & 0xFFFF)))
        await until(lambda: second.streams[0].packets == 1)
        assert made.endpoint.counters.unauthentic == 0


async def test_replayed_and_forged_srtp_is_counted() -> None:
    async with server() as made, connected(made) as (transport, peer):
        producer = made.produce(transport, "audio")
        protected = peer.client.protect_rtp(audio(1))
        for _ in range(3):
            await peer.send(protected)
        forged = peer.client.protect_rtp(audio(2))
        await peer.send(forged[:-1] + bytes((forged[-1] ^ 1,)))
        await peer.send(rtp(AUDIO_SSRC, 9, payload=bytes(40)))
        await peer.send(b"\x80\xc9" + bytes(30))
        await handled()
        assert made.endpoint.counters.replayed == 2
        assert made.endpoint.counters.unauthentic == 3
        assert producer.streams[0].packets == 1
        assert transport.state == "connected"


async def test_streams_without_end_end_the_transport() -> None:
    async with server() as made, connected(made) as (transport, peer):
        for ssrc in range(1, 100):
            await peer.send_rtp(rtp(ssrc, 1))
        await until(lambda: transport.state == "failed")
        assert transport.failure == "too many RTP streams that were not announced"
        await handled()
        assert made.left == (0, 0, 0)


async def test_old_rtx_and_jumps_do_not_hurt_the_viewers() -> None:
    """libsrtp refuses to protect what lies before its window: such numbers must not get that far."""
    async with server() as made, connected(made) as (sending, sender), connected(made) as (receiving, viewer):
        faults: list[Exception] = []
        receiving.on_fault = faults.append
        sound = made.consume(receiving, made.produce(sending, "audio"))
        picture = made.consume(receiving, made.produce(sending, "video"))
        # From there on SRTP takes a step of 40,000 for one back.
        sound._numbers.last = picture._numbers.last = 0x18000
        await trio.sleep(0.06)
        for base in (0, 40_000, 60_000):
            for number in range(base, base + 20):
                await sender.send_rtp(audio(number))
            await handled()
        for number in range(1500):
            if number != 1:
                await sender.send_rtp(video(number, key=number == 0))
            if number % 50 == 0:
                await handled()
        await sender.send_rtp(rtx(1, video(1)), rtx(2, video(1400)), rtx(3, video(2)))
        await handled()
        assert len(texts(viewer.rtp, sound.ssrc)) == 20 + 19 + 19
        assert [int(text[2:]) for text in texts(viewer.rtp, picture.ssrc)] == [0, *range(2, 1500)]
        assert faults == []
        assert receiving.state == sending.state == "connected"
        assert viewer.client.counters["undecryptable"] == 0


@pytest.mark.parametrize("observed", [True, False])
async def test_a_bug_is_told(caplog: pytest.LogCaptureFixture, *, observed: bool) -> None:
    async with server() as made, connected(made) as (transport, peer):
        faults: list[Exception] = []
        if observed:
            transport.on_fault = faults.append
        transport.session.receive_rtp = lambda *_: 1 // 0  # type: ignore[assignment,method-assign]
        await peer.send_rtp(audio(1))
        if observed:
            await until(lambda: bool(faults))
            assert isinstance(faults[0], ZeroDivisionError)
            assert transport.state == "connected"
            assert not caplog.records
        else:
            await until(lambda: transport.state == "failed")
            assert transport.failure == "internal error"
            assert "because of a bug" in caplog.text
