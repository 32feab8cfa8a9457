"""The media layer without sockets: sessions on a clock that the test moves, sinks that keep what is sent.

::

    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    sender.feed(video(0, key=True))
    assert len(viewer.sink.of(consumer.ssrc)) == 1
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from trio_sfu.media.capabilities import (
    ABS_CAPTURE_TIME_URI,
    ABS_SEND_TIME_URI,
    AUDIO_LEVEL_URI,
    MID_URI,
    REPAIRED_RID_URI,
    RID_URI,
    TRANSPORT_CC_URI,
)
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.packet import runs_of
from trio_sfu.media.parameters import RtpCapabilities, RtpParameters
from trio_sfu.media.producer import Producer
from trio_sfu.media.router import Router
from trio_sfu.media.rtp_session import RtpSession
from trio_sfu.wire.rtcp import GenericNack, RtcpPacket, parse_compound
from trio_sfu.wire.rtp import parse_rtp

__all__ = ["Call", "FakeSession", "FakeSink", "Sent", "audio", "rtp", "rtx", "video", "video_payload"]

VIDEO_SSRC: Final = 0x11111111
VIDEO_RTX_SSRC: Final = 0x22222222
AUDIO_SSRC: Final = 0x33333333
VIDEO_TYPE: Final = 100
VIDEO_RTX_TYPE: Final = 101
AUDIO_TYPE: Final = 111
# The client's own extension ids, none of them the router's.
IDS: Final = {
    MID_URI: 9,
    RID_URI: 10,
    REPAIRED_RID_URI: 11,
    ABS_SEND_TIME_URI: 2,
    TRANSPORT_CC_URI: 3,
    AUDIO_LEVEL_URI: 6,
    ABS_CAPTURE_TIME_URI: 7,
}
WALL_CLOCK: Final = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One RTP packet that a sink was given."""

    ssrc: int
    sequence_number: int
    timestamp: int
    payload_type: int
    marker: bool
    extensions: dict[int, bytes]
    payload: bytes
    size: int


class FakeSink:
    """A :class:`trio_sfu.media.sink.Sink` that protects nothing and keeps everything."""

    def __init__(self, overhead: int = 16) -> None:
        self.arena = memoryview(bytearray(b"\xaa" * (1 << 20)))
        self.overhead = overhead
        self.transport_sequence = 0
        self.rtp: list[Sent] = []
        self.rtcp: list[RtcpPacket] = []
        self.rtcp_sizes: list[int] = []
        self.forgotten: list[int] = []

    def forget(self, ssrc: int) -> None:
        self.forgotten.append(ssrc)

    def reserve(self, size: int) -> int:
        assert size <= len(self.arena)
        return 0

    def send_rtp(self, start: int, sizes: Sequence[int], runs: Sequence[tuple[int, int, int]]) -> None:
        assert list(runs) == runs_of(sizes)
        for size in sizes:
            data = bytes(self.arena[start : start + size])
            packet = parse_rtp(data)
            self.rtp.append(
                Sent(
                    packet.ssrc,
                    packet.sequence_number,
                    packet.timestamp,
                    packet.payload_type,
                    packet.marker,
                    packet.extensions,
                    data[packet.payload_start : packet.payload_end],
                    size,
                )
            )
            start += size + self.overhead

    def send_rtcp(self, data: bytes) -> None:
        self.rtcp_sizes.append(len(data))
        self.rtcp += parse_compound(data)

    def of(self, ssrc: int) -> list[Sent]:
        """The packets of one SSRC, in the order in which they were sent."""
        return [packet for packet in self.rtp if packet.ssrc == ssrc]

    def take_rtcp(self) -> list[RtcpPacket]:
        """The RTCP since the last call."""
        taken, self.rtcp = self.rtcp, []
        return taken


class FakeSession:
    """An RtpSession with its sink, on the clock of its :class:`Call`; what goes wrong is in the lists."""

    def __init__(self, call: Call, *, connected: bool = True) -> None:
        self.call = call
        self.faults: list[Exception] = []
        self.abuses: list[str] = []
        self.sink = FakeSink()
        self.session = RtpSession(
            clock=lambda: call.now,
            wall_clock=lambda: WALL_CLOCK + call.now,
            on_fault=self.faults.append,
            on_abuse=self.abuses.append,
            random=Random(call.random.random()),
        )
        call.router.add_session(self.session)
        if connected:
            self.connect()

    def connect(self) -> None:
        self.session.connect(self.sink, self.call.now)

    def feed(self, *packets: bytes) -> None:
        """Packets that one wake-up brings."""
        for packet in packets:
            self.session.receive_rtp(memoryview(packet), self.call.now)
        self.session.flush(self.call.now)

    def feed_rtcp(self, *packets: RtcpPacket) -> None:
        self.session.receive_rtcp(b"".join(packet.to_bytes() for packet in packets), self.call.now)

    def ask_again(self, consumer: Consumer, packet: Sent) -> Sent:
        """NACK a packet of ``consumer``; what is sent again for it."""
        assert consumer.rtx_ssrc is not None
        before = len(self.sink.of(consumer.rtx_ssrc))
        self.feed_rtcp(GenericNack(1, consumer.ssrc, (packet.sequence_number,)))
        (again,) = self.sink.of(consumer.rtx_ssrc)[before:]
        return again

    def close(self) -> None:
        self.session.close()
        self.call.router.remove_session(self.session)


class Call:
    """One router, its sessions, and the time."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 1000.0
        self.random = Random(seed)
        self.router = Router(Random(seed))

    def session(self, *, connected: bool = True) -> FakeSession:
        return FakeSession(self, connected=connected)

    def pass_time(self, seconds: float) -> None:
        """Move the clock on in steps of 20 ms, with a tick at each."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(end, self.now + 0.02)
            self.router.tick(self.now)

    def produce(self, session: FakeSession, kind: str, parameters: dict[str, Any]) -> Producer:
        return self.router.produce(
            SimpleNamespace(session=session.session),
            "video" if kind == "video" else "audio",
            msgspec.convert(parameters, RtpParameters),
        )

    def produce_video(self, session: FakeSession, **changes: Any) -> Producer:
        return self.produce(session, "video", video_parameters(**changes))

    def produce_audio(self, session: FakeSession, **changes: Any) -> Producer:
        return self.produce(session, "audio", audio_parameters(**changes))

    def consume(
        self,
        session: FakeSession,
        producer: Producer,
        capabilities: RtpCapabilities | None = None,
        *,
        paused: bool = False,
    ) -> Consumer:
        return self.router.consume(
            SimpleNamespace(session=session.session),
            producer,
            capabilities or self.router.rtp_capabilities,
            paused=paused,
        )

    def without_rtx(self) -> RtpCapabilities:
        """The capabilities of an endpoint that knows no RTX."""
        capabilities = self.router.rtp_capabilities
        return msgspec.structs.replace(
            capabilities, codecs=tuple(codec for codec in capabilities.codecs if not codec.mime_type.endswith("/rtx"))
        )


def video_parameters(**changes: Any) -> dict[str, Any]:
    """A VP8 producer's RtpParameters, as mediasoup-client makes them."""
    return {
        "mid": "0",
        "codecs": [
            {
                "mimeType": "video/VP8",
                "payloadType": VIDEO_TYPE,
                "clockRate": 90000,
                "rtcpFeedback": [
                    {"type": "goog-remb"},
                    {"type": "transport-cc"},
                    {"type": "ccm", "parameter": "fir"},
                    {"type": "nack"},
                    {"type": "nack", "parameter": "pli"},
                ],
            },
            {
                "mimeType": "video/rtx",
                "payloadType": VIDEO_RTX_TYPE,
                "clockRate": 90000,
                "parameters": {"apt": VIDEO_TYPE},
            },
        ],
        "headerExtensions": [{"uri": uri, "id": id_} for uri, id_ in IDS.items() if uri != AUDIO_LEVEL_URI],
        "encodings": [{"ssrc": VIDEO_SSRC, "rtx": {"ssrc": VIDEO_RTX_SSRC}}],
        "rtcp": {"cname": "c"},
        **changes,
    }


def audio_parameters(**changes: Any) -> dict[str, Any]:
    """An Opus producer's RtpParameters."""
    return {
        "mid": "1",
        "codecs": [
            {
                "mimeType": "audio/opus",
                "payloadType": AUDIO_TYPE,
                "clockRate": 48000,
                "channels": 2,
                "rtcpFeedback": [{"type": "transport-cc"}],
            }
        ],
        "headerExtensions": [
            {"uri": uri, "id": id_} for uri, id_ in IDS.items() if uri not in (RID_URI, REPAIRED_RID_URI)
        ],
        "encodings": [{"ssrc": AUDIO_SSRC}],
        "rtcp": {"cname": "c"},
        **changes,
    }


def rtp(
    ssrc: int,
    number: int,
    timestamp: int = 0,
    *,
    payload_type: int = VIDEO_TYPE,
    marker: bool = False,
    extensions: Sequence[tuple[int, bytes]] = (),
    payload: bytes = b"payload",
    padding: int = 0,
) -> bytes:
    """One RTP packet, with one-byte extension elements; ``padding`` counts the byte that says so."""
    first = 0x80 | (0x10 if extensions else 0) | (0x20 if padding else 0)
    header = struct.pack(
        "!BBHII", first, marker << 7 | payload_type, number & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc & 0xFFFFFFFF
    )
    if extensions:
        elements = b"".join(bytes((id_ << 4 | len(value) - 1,)) + value for id_, value in extensions)
        elements += bytes(-len(elements) % 4)
        header += struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements
    return header + payload + (bytes(padding - 1) + bytes((padding,)) if padding else b"")


def video_payload(text: str = "", *, key: bool = False, first: bool = True) -> bytes:
    """A VP8 payload (RFC 7741) that ends with ``text``; ``first``: the frame's first packet."""
    if not first:
        return b"\x00" + text.encode()
    return bytes((0x10, 0x00 if key else 0x01)) + text.encode()


def video(
    number: int, timestamp: int | None = None, *, key: bool = False, ssrc: int = VIDEO_SSRC, **more: Any
) -> bytes:
    """One packet of the video producer; its payload ends with its number."""
    more.setdefault("payload", video_payload(f"{number & 0xFFFF}", key=key))
    return rtp(ssrc, number, 3000 * number if timestamp is None else timestamp, **more)


def audio(number: int, timestamp: int | None = None, **more: Any) -> bytes:
    """One packet of the audio producer; its payload is its number."""
    more.setdefault("payload", f"{number & 0xFFFF}".encode())
    return rtp(AUDIO_SSRC, number, 960 * number if timestamp is None else timestamp, payload_type=AUDIO_TYPE, **more)


def rtx(number: int, original: bytes, *, ssrc: int = VIDEO_RTX_SSRC) -> bytes:
    """``original`` once more, as RTX (RFC 4588) with the sequence number ``number``; for packets without extensions."""
    second = original[1] & 0x80 | VIDEO_RTX_TYPE
    header = bytes((original[0], second)) + struct.pack("!H", number & 0xFFFF) + original[4:8]
    return header + struct.pack("!I", ssrc) + original[2:4] + original[12:]
