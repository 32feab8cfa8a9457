"""What a plain transport puts on the wire, and what its consumers are promised."""

import socket
from typing import cast

import pytest
from pylibsrtp import Policy, Session

from tests.support.media_core import FakeSession, audio, rtp, video, video_parameters
from tests.support.plain_remote import LiveCall, keys, open_socket, remote, running
from trio_sfu.media.capabilities import (
    AUDIO_LEVEL_ID,
    VIDEO_ORIENTATION_ID,
    VIDEO_ORIENTATION_URI,
    router_rtp_capabilities,
)
from trio_sfu.media.ortc import validate_rtp_capabilities
from trio_sfu.media.packet import runs_of
from trio_sfu.media.parameters import RtcpFeedback
from trio_sfu.transport.plain import PlainTransport, plain_rtp_capabilities
from trio_sfu.transport.plain_sink import PlainSink
from trio_sfu.wire.rtcp import ReceiverReport
from trio_sfu.wire.rtp import parse_rtp


@pytest.fixture
async def call() -> LiveCall:
    return LiveCall()


@pytest.fixture
async def sender(call: LiveCall) -> FakeSession:
    return call.session()


async def test_no_header_extension_leaves(call: LiveCall, sender: FakeSession) -> None:
    """The producer's extensions lie in the packet for all consumers; this receiver has negotiated none."""
    extensions = [(9, b"0"), (12, b"\x01"), (7, bytes(8))]
    parameters = video_parameters()
    parameters["headerExtensions"].append({"uri": VIDEO_ORIENTATION_URI, "id": 12})
    parameters["headerExtensions"].append({"uri": "urn:unknown", "id": 13})
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            producer = call.produce(sender, "video", parameters)
            consumer = call.watch(transport, producer)
            transport.connect(*there.address)
            plain_packet = video(1)
            sender.feed(video(0, 0, key=True, extensions=extensions), plain_packet, video(2, marker=True))
            laid_out = producer.streams[0].cache.get(0)
            assert laid_out is not None
            assert bytes((VIDEO_ORIENTATION_ID << 4, 1)) in laid_out.body
            packets = await there.receive(3)
            assert [data[0] for data in packets] == [0x80] * 3
            assert [parse_rtp(data).extensions for data in packets] == [{}] * 3
            assert [parse_rtp(data).ssrc for data in packets] == [consumer.ssrc] * 3
            assert [parse_rtp(data).marker for data in packets] == [False, False, True]
            assert len(packets[1]) == len(plain_packet)
            payload_type = consumer.rtp_parameters.codecs[0].payload_type
            assert {parse_rtp(data).payload_type for data in packets} == {payload_type}
            assert consumer.rtp_parameters.header_extensions == ()


async def test_wide_extensions_are_taken_out_too(call: LiveCall, sender: FakeSession) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            producer = call.produce_audio(sender)
            call.watch(transport, producer)
            transport.connect(*there.address)
            # Two-byte elements (RFC 8285, section 4.3): one of no length does not fit the one-byte form.
            elements = bytes((6, 0, 7, 8)) + bytes(8)
            packet = audio(1)
            sender.feed(bytes((0x90,)) + packet[1:12] + b"\x10\x00\x00\x03" + elements + packet[12:])
            group = producer.streams[0].cache.get(1)
            assert group is not None
            assert group.wide
            assert AUDIO_LEVEL_ID in group.body
            (data,) = await there.receive(1)
            assert data[0] == 0x80
            assert data[12:] == b"1"


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "srtp"])
async def test_any_rtp_packet_can_be_sent(keyed: bool) -> None:
    """A wrapped sink may lay packets out otherwise: with no extension, with CSRCs, with an empty extension."""
    secret = keys("AEAD_AES_128_GCM", 28) if keyed else None
    with remote() as there, open_socket("127.0.0.1") as sock:
        sink = PlainSink(sock, sock, secret)
        sink.remote = there.address[:2]
        header = bytes(range(2, 12))
        csrcs = bytes(range(50, 58))
        given = [
            b"\x80\x60" + header + b"payload",
            b"\x90\x60" + header + b"\xbe\xde\x00\x00" + b"payload",
            b"\x90\xe0" + header + b"\xbe\xde\x00\x02" + bytes(range(8)) + b"payload",
            b"\x92\x60" + header + csrcs + b"\xbe\xde\x00\x01" + bytes(4) + b"payload",
            b"\x80\x60" + header,
        ]
        wanted = [
            b"\x80\x60" + header + b"payload",
            b"\x80\x60" + header + b"payload",
            b"\x80\xe0" + header + b"payload",
            b"\x82\x60" + header + csrcs + b"payload",
            b"\x80\x60" + header,
        ]
        # Each its own number: SRTP takes none twice.
        given, wanted = (
            [each[:3] + bytes((at,)) + each[4:] for at, each in enumerate(some)] for some in (given, wanted)
        )
        image = b"".join(each + bytes(sink.overhead) for each in given)
        start = sink.reserve(len(image))
        sink.arena[start : start + len(image)] = image
        sizes = [len(each) for each in given]
        sink.send_rtp(start, sizes, runs_of(sizes))
        packets = await there.receive(len(given))
        if secret is not None:
            session = Session(
                Policy(
                    key=secret.local,
                    ssrc_type=Policy.SSRC_ANY_INBOUND,
                    srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
                )
            )
            packets = [session.unprotect(data) for data in packets]
        assert packets == wanted
        with pytest.raises(ValueError, match="more than the arena holds"):
            sink.reserve(len(sink.arena) + 1)


@pytest.mark.parametrize(
    ("error", "counter"),
    [
        (BlockingIOError(11, "Resource temporarily unavailable"), "congested"),
        (OSError(105, "No buffer space available"), "congested"),
        (ConnectionRefusedError(111, "Connection refused"), "failed"),
        (OSError(90, "Message too long"), "failed"),
        (OSError(9, "Bad file descriptor"), "failed"),
    ],
    ids=["queue full", "no buffers", "refused", "too long", "closed"],
)
async def test_what_the_kernel_does_not_take_is_counted(error: OSError, counter: str) -> None:
    class Refusing:
        calls = 0

        def sendto(self, data: memoryview, address: tuple[str, int]) -> None:
            self.calls += 1
            raise error

    sock = Refusing()
    sink = PlainSink(cast(socket.socket, sock), cast(socket.socket, sock), None)
    sink.remote = sink.rtcp_remote = ("127.0.0.1", 9)
    sink.arena[:40] = rtp(1, 1, payload=bytes(8)) * 2
    sink.send_rtp(0, (20, 20), ((2, 20, 40),))
    sink.send_rtcp(ReceiverReport(1).to_bytes())
    assert sock.calls == 3
    assert getattr(sink.counters, counter) == 3
    assert sink.counters.datagrams == sink.counters.octets == 0


async def test_consumers_parameters(call: LiveCall, sender: FakeSession) -> None:
    transport = PlainTransport(call.router)
    for producer in (call.produce_video(sender), call.produce_audio(sender)):
        consumer = call.watch(transport, producer)
        (codec,) = consumer.rtp_parameters.codecs
        assert codec.mime_type in ("video/VP8", "audio/opus")
        assert {each.parameter for each in codec.rtcp_feedback} == (
            {"pli", "fir"} if codec.media_kind == "video" else set()
        )
        assert consumer.rtp_parameters.header_extensions == ()
        assert consumer.rtx_ssrc is None
    transport.close()


async def test_capabilities() -> None:
    capabilities = router_rtp_capabilities()
    ours = plain_rtp_capabilities(capabilities)
    validate_rtp_capabilities(ours)
    assert [codec.mime_type for codec in ours.codecs] == [
        codec.mime_type for codec in capabilities.codecs if codec.mime_type != "video/rtx"
    ]
    assert ours.header_extensions == ()
    feedback = {codec.kind: codec.rtcp_feedback for codec in ours.codecs}
    assert feedback == {"audio": (), "video": (RtcpFeedback("nack", "pli"), RtcpFeedback("ccm", "fir"))}
