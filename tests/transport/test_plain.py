"""Plain transports over real sockets on loopback, against sockets of the test and against each other."""

import socket
from functools import partial
from typing import Any, cast

import pytest
import trio
from pylibsrtp import Policy, Session
from trio.testing import wait_all_tasks_blocked

from tests.support.media_core import AUDIO_SSRC, VIDEO_SSRC, FakeSession, audio, rtp, video
from tests.support.plain_remote import (
    AUDIO,
    REPORT,
    LiveCall,
    Remote,
    keys,
    numbers,
    payloads,
    received,
    remote,
    running,
    state,
    waiting,
)
from tests.support.until import until
from trio_sfu.media.errors import MediaError
from trio_sfu.media.sink import Sink
from trio_sfu.protocols.dtls import SrtpKeys
from trio_sfu.transport.plain import PlainTransport
from trio_sfu.transport.srtp import SrtpProfile
from trio_sfu.wire.rtcp import (
    Goodbye,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    parse_compound,
)
from trio_sfu.wire.rtp import parse_rtp

PROFILES: list[tuple[SrtpProfile, int, int]] = [
    ("AEAD_AES_128_GCM", Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    ("AEAD_AES_256_GCM", Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
    ("AES128_CM_SHA1_80", Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
]
every_profile = pytest.mark.parametrize(("profile", "number", "key_size"), PROFILES, ids=["gcm", "gcm256", "cm"])
muxed_or_not = pytest.mark.parametrize("mux", [False, True], ids=["separate", "muxed"])


@pytest.fixture
async def call() -> LiveCall:
    return LiveCall()


@pytest.fixture
async def sender(call: LiveCall) -> FakeSession:
    return call.session()


def mirrored(own: SrtpKeys) -> SrtpKeys:
    return SrtpKeys(own.profile, local=own.remote, remote=own.local)


@muxed_or_not
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
async def test_media_goes_out(call: LiveCall, sender: FakeSession, host: str, mux: bool) -> None:
    with remote(mux=mux, host=host) as there:
        transport = PlainTransport(call.router, host=host, rtcp_mux=mux)
        async with running(transport):
            assert state(transport) == "new"
            picture = call.watch(transport, call.produce_video(sender))
            sound = call.watch(transport, call.produce_audio(sender))
            transport.connect(*there.address)
            assert state(transport) == "connected"
            sender.feed(*[video(number, key=number == 0) for number in range(20)])
            sender.feed(audio(7), audio(8))
            packets = await there.receive(22)
            pictures = [data for data in packets if parse_rtp(data).ssrc == picture.ssrc]
            sounds = [data for data in packets if parse_rtp(data).ssrc == sound.ssrc]
            assert [text[2:] for text in payloads(pictures)] == [str(number).encode() for number in range(20)]
            assert payloads(sounds) == [b"7", b"8"]
            assert numbers(pictures) == list(range(20))
            assert numbers(sounds) == [0, 1]
            assert transport.sink.counters.datagrams == 22
            assert transport.sink.counters.octets == sum(map(len, packets))
            assert transport.tuple.local_ip == transport.tuple.remote_ip == host
            assert transport.tuple.remote_port == there.address[1]
            assert transport.rtcp_tuple.remote_port == there.address[2]
            assert (transport.tuple == transport.rtcp_tuple) == mux


def has_reports(there: Remote, count: int) -> bool:
    return len(there.of(SenderReport)) >= count


async def test_reports_at_once_and_every_second(call: LiveCall, sender: FakeSession) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            producer = call.produce_video(sender)
            consumer = call.watch(transport, producer)
            sender.feed(video(0, key=True))
            sender.feed_rtcp(REPORT)
            transport.connect(*there.address)  # which sends the keyframe that has just come
            start = trio.current_time()
            for after, reports in ((0, 1), (0.9, 1), (1.05, 2), (1.9, 2), (2.1, 3)):
                call.router.tick(start + after)
                await there.until(partial(has_reports, there, reports))
                assert len(there.of(SenderReport)) == reports, after
            assert {report.ssrc for report in there.of(SenderReport)} == {consumer.ssrc}
            (names,) = {each.chunks for each in there.of(SourceDescription)}
            assert names == ((consumer.ssrc, producer.cname),)
            assert len(there.packets) == 1


async def test_numbers_go_on_across_pauses(call: LiveCall, sender: FakeSession) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            producer = call.produce_video(sender)
            consumer = call.watch(transport, producer)
            transport.connect(*there.address)
            sender.feed(*[video(number, key=number == 0) for number in range(3)])
            producer.pause()
            sender.feed(*[video(number) for number in range(3, 50)])
            producer.resume()
            sender.feed(*[video(number, key=number == 60) for number in range(58, 63)])
            consumer.pause()
            sender.feed(video(63))
            consumer.resume()
            sender.feed(video(70, key=True), video(71))
            packets = await there.receive(8)
            assert numbers(packets) == list(range(8))
            assert [int(text[2:]) for text in payloads(packets)] == [0, 1, 2, 60, 61, 62, 70, 71]
            assert [parse_rtp(data).timestamp // 3000 for data in packets] == [0, 1, 2, 60, 61, 62, 70, 71]


async def test_the_receivers_rtcp_reaches_the_consumer(call: LiveCall, sender: FakeSession) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            consumer = call.watch(transport, call.produce_video(sender))
            transport.connect(*there.address)
            sender.feed(*[video(number, key=number == 0) for number in range(3)])
            # Older than what would be answered with the keyframe that has come.
            consumer._began_at -= 10
            sender.sink.take_rtcp()
            block = ReportBlock(consumer.ssrc, 64, 1, 2, 3, 4, 5)
            there.send_rtcp(
                transport,
                ReceiverReport(99, (block,)).to_bytes() + PictureLossIndication(99, consumer.ssrc).to_bytes(),
            )
            await received(transport, 1)
            assert consumer.fraction_lost == 0.25
            sender.call.router.tick(trio.current_time() + 1)
            assert PictureLossIndication(sender.session.ssrc, VIDEO_SSRC) in sender.sink.take_rtcp()


async def test_closing_a_consumer_says_bye(call: LiveCall, sender: FakeSession) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            first = call.watch(transport, call.produce_video(sender))
            second = call.watch(transport, call.produce_audio(sender))
            transport.connect(*there.address)
            first.close()
            await there.until(lambda: there.of(Goodbye))
            transport.close()
            await there.until(lambda: len(there.of(Goodbye)) == 2)
            assert [each.ssrcs for each in there.of(Goodbye)] == [(first.ssrc,), (second.ssrc,)]
            assert second.closed


async def test_the_session_sends_through_the_wrapped_sink(call: LiveCall, sender: FakeSession) -> None:
    given: list[Sink] = []

    def wrap(sink: Sink) -> Sink:
        given.append(sink)
        return sender.sink

    with remote() as there:
        transport = PlainTransport(call.router, wrap=wrap)
        async with running(transport):
            consumer = call.watch(transport, call.produce_audio(sender))
            transport.connect(*there.address)
            sender.feed(audio(1))
            assert given == [transport.sink]
            assert [each.payload for each in sender.sink.of(consumer.ssrc)] == [b"1"]
            assert transport.sink.counters.datagrams == 0


async def test_nobody_listens(call: LiveCall, sender: FakeSession) -> None:
    with remote() as there:
        address = there.address
    transport = PlainTransport(call.router)
    async with running(transport):
        consumer = call.watch(transport, call.produce_video(sender))
        transport.connect(*address)
        for number in range(50):
            sender.feed(video(number, key=number == 0))
            await trio.lowlevel.checkpoint()
        call.router.tick(trio.current_time() + 3)
        await wait_all_tasks_blocked()
        assert state(transport) == "connected"
        assert consumer.packets == 50
        assert transport.sink.counters.datagrams >= 50


async def test_errors_of_the_socket_are_passed_over(call: LiveCall, sender: FakeSession) -> None:
    """An ICMP message about an earlier datagram shows as an error of the next receive."""

    class Disturbed:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.errors = 3

        def recvfrom_into(self, buffer: bytearray) -> tuple[int, Any]:
            if self.errors:
                self.errors -= 1
                raise ConnectionRefusedError(111, "Connection refused")
            return self.sock.recvfrom_into(buffer)

    with remote(mux=True) as there:
        transport = PlainTransport(call.router, rtcp_mux=True)
        transport.connect(*there.address)
        there.send_rtp(transport, audio(1))
        transport._receive_batch(cast(socket.socket, Disturbed(transport._rtp)), trio.current_time())
        assert transport.counters.received == 1
        transport.close()


@muxed_or_not
async def test_media_comes_in(call: LiveCall, mux: bool) -> None:
    viewer = call.session(connected=False)
    with remote(mux=mux) as there, remote(mux=mux) as stranger:
        transport = PlainTransport(call.router, rtcp_mux=mux)
        async with running(transport):
            producer = call.router.produce(transport, "audio", AUDIO)
            consumer = call.consume(viewer, producer)
            viewer.connect()
            there.send_rtp(transport, audio(1))
            await received(transport, 1)
            assert transport.counters.early == 1
            transport.connect(*there.address)
            for other in (stranger, there, stranger):
                other.send_rtp(transport, audio(2 if other is there else 3))
                other.send_rtcp(transport, REPORT.to_bytes())
            await received(transport, 7)
            assert transport.counters.unknown == 4
            assert transport.counters.invalid == 0
            assert [each.payload for each in viewer.sink.of(consumer.ssrc)] == [b"2"]
            call.router.tick(trio.current_time() + 1)
            await there.until(lambda: there.of(ReceiverReport))
            (report,) = there.of(ReceiverReport)
            assert [block.ssrc for block in report.reports] == [AUDIO_SSRC]
            stranger_got = [*waiting(stranger.rtp), *waiting(stranger.rtcp)]
            assert stranger_got == []


async def test_ports_are_not_mixed_up(call: LiveCall) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            producer = call.router.produce(transport, "audio", AUDIO)
            transport.connect(*there.address)
            there.send_rtp(transport, REPORT.to_bytes())
            there.send_rtcp(transport, audio(1))
            await received(transport, 2)
            assert transport.counters.invalid == 2
            # RTP from the remote RTCP port.
            there.rtcp.sendto(audio(1), (transport.tuple.local_ip, transport.tuple.local_port))
            await received(transport, 3)
            assert transport.counters.unknown == 1
            assert producer.streams[0].packets == 0


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\x80\x60" + bytes(5), b"\x00\x01" + bytes(18), b"\x16\xfe\xfd" + bytes(20), b"\x80" + bytes(2048)],
    ids=["empty", "byte", "short", "stun", "dtls", "long"],
)
async def test_other_datagrams_are_counted(call: LiveCall, data: bytes) -> None:
    with remote(mux=True) as there:
        transport = PlainTransport(call.router, rtcp_mux=True)
        async with running(transport):
            transport.connect(*there.address)
            there.send_rtp(transport, data)
            await received(transport, 1)
            assert transport.counters.invalid == 1
            assert transport.session.packets_received == 0
            there.send_rtp(transport, (b"\x80\x60" + bytes(2046))[:2048])
            await received(transport, 2)
            assert transport.session.packets_received == 1


async def test_more_than_a_batch(call: LiveCall) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            producer = call.router.produce(transport, "audio", AUDIO)
            transport.connect(*there.address)
            there.send_rtp(transport, *[audio(number) for number in range(150)])
            await received(transport, 150)
            assert producer.streams[0].packets == 150


@muxed_or_not
async def test_comedia_with_a_receiver(call: LiveCall, sender: FakeSession, mux: bool) -> None:
    with remote(mux=mux) as there, remote(mux=mux) as stranger:
        transport = PlainTransport(call.router, rtcp_mux=mux, comedia=True)
        async with running(transport):
            call.watch(transport, call.produce_audio(sender))
            with pytest.raises(MediaError, match="takes its remote address") as caught:
                transport.connect(*there.address)
            assert caught.value.code == "comedia"
            # Nothing that is no RTP, however well it begins.
            stranger.send_rtp(transport, b"\x90\x60" + bytes(12) + b"\xff\xff" + bytes(3))
            stranger.send_rtcp(transport, b"\x80\xc8\x00\xff" + bytes(8))
            await received(transport, 2)
            assert transport.counters.invalid == 2
            assert state(transport) == "new"
            sender.feed(audio(1))
            there.send_rtp(transport, rtp(5, 5))
            await received(transport, 3)
            assert state(transport) == "connected"
            assert transport.tuple.remote_port == there.address[1]
            assert transport.rtcp_tuple.remote_port == (there.address[1] if mux else None)
            sender.feed(audio(2))
            sender.feed_rtcp(SenderReport(AUDIO_SSRC, 1 << 32, 3000, 1, 1))
            stranger.send_rtp(transport, rtp(6, 6))
            assert payloads(await there.receive(1)) == [b"2"]
            await received(transport, 4)
            assert transport.counters.unknown == 1
            assert transport.tuple.remote_port == there.address[1]
            # What cannot be sent anywhere yet.
            start = trio.current_time()
            call.router.tick(start)
            assert transport.sink.counters.failed == (0 if mux else 1)
            there.send_rtcp(transport, ReceiverReport(5).to_bytes())
            await received(transport, 5)
            assert transport.rtcp_tuple.remote_port == there.address[2]
            call.router.tick(start + 1.1)
            await there.until(lambda: there.of(SenderReport))


async def test_comedia_where_rtcp_comes_first(call: LiveCall) -> None:
    with remote() as there:
        transport = PlainTransport(call.router, comedia=True)
        async with running(transport):
            there.send_rtcp(transport, ReceiverReport(5).to_bytes())
            await received(transport, 1)
            assert transport.rtcp_tuple.remote_port == there.address[2]
            assert state(transport) == "new"
            there.send_rtp(transport, rtp(5, 5))
            await received(transport, 2)
            assert state(transport) == "connected"


@every_profile
@muxed_or_not
async def test_srtp_against_the_public_library(
    call: LiveCall, sender: FakeSession, mux: bool, profile: SrtpProfile, number: int, key_size: int
) -> None:
    own = keys(profile, key_size)
    outside = Session(Policy(key=own.local, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=number))
    inside = Session(Policy(key=own.remote, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=number))
    with remote(mux=mux) as there:
        transport = PlainTransport(call.router, rtcp_mux=mux, srtp=own, comedia=True)
        async with running(transport):
            consumer = call.watch(transport, call.produce_video(sender))
            producer = call.router.produce(transport, "audio", AUDIO)
            # Authentic packets only say where the remote end is.
            there.send_rtp(transport, audio(1))
            there.send_rtcp(transport, ReceiverReport(5).to_bytes() * 5)
            await received(transport, 2)
            assert transport.counters.unauthentic == 2
            assert state(transport) == "new"
            there.send_rtcp(transport, inside.protect_rtcp(ReceiverReport(5).to_bytes()))
            there.send_rtp(transport, *[inside.protect(audio(2))] * 2)
            await received(transport, 5)
            assert transport.counters.replayed == 1
            assert state(transport) == "connected"
            assert producer.streams[0].packets == 1
            sender.feed(*[video(number, key=number == 0) for number in range(3)])
            await there.until(lambda: len(there.packets) == 3)
            clear = [outside.unprotect(data) for data in there.packets]
            assert [text[2:] for text in payloads(clear)] == [b"0", b"1", b"2"]
            assert [data[0] for data in clear] == [0x80] * 3
            call_count = transport.sink.counters.datagrams
            consumer.close()
            assert transport.sink.counters.datagrams == call_count + 1
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(there.rtcp)
            goodbye = parse_compound(outside.unprotect_rtcp(there.rtcp.recv(2048)))
            assert goodbye == (ReceiverReport(transport.session.ssrc), Goodbye((consumer.ssrc,), ""))


@pytest.mark.parametrize("secret", [None, keys("AEAD_AES_128_GCM", 28), keys("AES128_CM_SHA1_80", 30)])
@muxed_or_not
async def test_two_transports(call: LiveCall, sender: FakeSession, mux: bool, secret: SrtpKeys | None) -> None:
    """A room that is shared by two servers: the consumer here is the producer there."""
    second = LiveCall(seed=2)
    viewer = second.session(connected=False)
    near = PlainTransport(call.router, rtcp_mux=mux, srtp=secret)
    far = PlainTransport(second.router, rtcp_mux=mux, srtp=mirrored(secret) if secret else None)
    async with running(near, far):
        for one, other in ((near, far), (far, near)):
            one.connect(other.tuple.local_ip, other.tuple.local_port, other.rtcp_tuple.local_port)
        consumer = call.watch(near, call.produce_video(sender))
        producer = second.router.produce(far, "video", consumer.rtp_parameters)
        watcher = second.consume(viewer, producer)
        viewer.connect()
        # The viewer's wish for a keyframe goes from server to server.
        await until(lambda: far.counters.received or near.counters.received)
        consumer._begin_at = 0  # an answer to `consume` is not under way here
        sender.feed(*[video(number, key=number == 0) for number in range(100)])
        await until(lambda: len(viewer.sink.of(watcher.ssrc)) == 100)
        assert [each.payload[2:] for each in viewer.sink.of(watcher.ssrc)] == [str(n).encode() for n in range(100)]
        sender.feed_rtcp(REPORT)
        call.router.tick(trio.current_time() + 2)
        await until(lambda: producer.streams[0].sender_report)
