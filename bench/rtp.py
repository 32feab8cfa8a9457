"""The RTP that the load generator and the tests' media client send and check.

Owns the packets' layout: headers as Chrome sends them, VP8 payloads a keyframe test recognises, and at the
end of every payload a mark (running number, time of sending) by which a receiver tells exactly which packet
it holds, whatever was rewritten on the way. Written apart from ``trio_sfu.wire`` so that the two check
each other. Called by :mod:`bench.users` and ``tests/support/media_client.py``.
"""

from __future__ import annotations

import random
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

MID_URI: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
ABS_SEND_TIME_URI: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
TRANSPORT_CC_URI: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"

# Chrome's own numbers for them.
MID_ID: Final = 4
ABS_SEND_TIME_ID: Final = 2
TRANSPORT_CC_ID: Final = 3

_MARK = struct.Struct("!4sQQ")
_MAGIC = b"mark"
MARK_SIZE: Final = _MARK.size
_CACHE = 1024

# RFC 7741, section 4.2: X and S set, I with a 15-bit PictureID; then 4.3's payload header.
_KEY_FRAME = bytes((0x10, 0x02, 0x00, 0x9D, 0x01, 0x2A)) + struct.pack("<HH", 1280, 720)
_INTER_FRAME = bytes((0x11, 0x02, 0x00))


class RtpError(ValueError):
    """The bytes are not an RTP packet as RFC 3550 and RFC 8285 have it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What the sender wrote at the end of the payload: running number from 0, ns of the sender's clock."""

    number: int
    sent_ns: int


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One decrypted RTP packet; ``extensions`` maps id to value (RFC 8285, one-byte form)."""

    payload_type: int
    marker: bool
    sequence_number: int
    timestamp: int
    ssrc: int
    extensions: dict[int, bytes]
    payload: bytes

    @property
    def mark(self) -> Mark | None:
        """The sender's mark, or None where the payload carries none (padding, a stranger's packet)."""
        if len(self.payload) < MARK_SIZE:
            return None
        magic, number, sent_ns = _MARK.unpack_from(self.payload, len(self.payload) - MARK_SIZE)
        return Mark(number, sent_ns) if magic == _MAGIC else None


def parse_rtp(data: bytes) -> RtpPacket:
    """Read an RTP packet (RFC 3550, section 5.1). Raises RtpError."""
    if len(data) < 12 or data[0] >> 6 != 2:
        raise RtpError("not RTP version 2")
    offset = 12 + 4 * (data[0] & 0x0F)
    extensions: dict[int, bytes] = {}
    if data[0] & 0x10:
        if len(data) < offset + 4:
            raise RtpError("header extension cut short")
        profile, words = struct.unpack_from("!HH", data, offset)
        end = offset + 4 + 4 * words
        if len(data) < end:
            raise RtpError("header extension cut short")
        if profile == 0xBEDE:
            extensions = _parse_one_byte_extensions(data[offset + 4 : end])
        offset = end
    stop = len(data)
    if data[0] & 0x20:
        stop -= data[-1]
    if offset > stop:
        raise RtpError("header or padding longer than the packet")
    _, second, sequence_number, timestamp, ssrc = struct.unpack_from("!BBHII", data)
    return RtpPacket(
        payload_type=second & 0x7F,
        marker=second >= 0x80,
        sequence_number=sequence_number,
        timestamp=timestamp,
        ssrc=ssrc,
        extensions=extensions,
        payload=data[offset:stop],
    )


def _parse_one_byte_extensions(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    i = 0
    while i < len(data):
        if data[i] == 0:
            i += 1
            continue
        identifier, size = data[i] >> 4, (data[i] & 0x0F) + 1
        if identifier == 15:
            break
        if i + 1 + size > len(data):
            raise RtpError("header extension element cut short")
        found[identifier] = data[i + 1 : i + 1 + size]
        i += 1 + size
    return found


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """One outgoing stream: what the packets carry and what ``produce`` is told of it.

    :param size: bytes of a whole RTP packet before protection.
    """

    kind: str
    mime_type: str
    payload_type: int
    clock_rate: int
    ssrc: int
    rtx_payload_type: int | None
    rtx_ssrc: int | None
    mid: str
    size: int

    @classmethod
    def vp8(cls, *, size: int = 1200, mid: str = "0", rng: random.Random | None = None) -> StreamFormat:
        rng = rng or random.Random()
        return cls("video", "video/VP8", 96, 90000, _ssrc(rng), 97, _ssrc(rng), mid, size)

    @classmethod
    def opus(cls, *, size: int = 120, mid: str = "1", rng: random.Random | None = None) -> StreamFormat:
        rng = rng or random.Random()
        return cls("audio", "audio/opus", 111, 48000, _ssrc(rng), None, None, mid, size)

    def rtp_parameters(self) -> dict[str, Any]:
        """mediasoup's RtpParameters as mediasoup-client makes them from Chrome's offer."""
        encoding: dict[str, Any] = {"ssrc": self.ssrc, "dtx": False}
        codec: dict[str, Any] = {
            "mimeType": self.mime_type,
            "payloadType": self.payload_type,
            "clockRate": self.clock_rate,
            "parameters": {},
        }
        codecs = [codec]
        if self.kind == "audio":
            codec["channels"] = 2
            codec["parameters"] = {"minptime": 10, "useinbandfec": 1}
            codec["rtcpFeedback"] = [{"type": "transport-cc", "parameter": ""}]
        else:
            codec["rtcpFeedback"] = [
                {"type": "goog-remb", "parameter": ""},
                {"type": "transport-cc", "parameter": ""},
                {"type": "ccm", "parameter": "fir"},
                {"type": "nack", "parameter": ""},
                {"type": "nack", "parameter": "pli"},
            ]
        if self.rtx_ssrc is not None:
            encoding["rtx"] = {"ssrc": self.rtx_ssrc}
            codecs.append(
                {
                    "mimeType": f"{self.kind}/rtx",
                    "payloadType": self.rtx_payload_type,
                    "clockRate": self.clock_rate,
                    "parameters": {"apt": self.payload_type},
                    "rtcpFeedback": [],
                }
            )
        return {
            "mid": self.mid,
            "codecs": codecs,
            "headerExtensions": [
                {"uri": uri, "id": identifier, "encrypt": False, "parameters": {}}
                for uri, identifier in (
                    (MID_URI, MID_ID),
                    (ABS_SEND_TIME_URI, ABS_SEND_TIME_ID),
                    (TRANSPORT_CC_URI, TRANSPORT_CC_ID),
                )
            ],
            "encodings": [encoding],
            "rtcp": {"cname": f"cname{self.ssrc:08x}", "reducedSize": True},
        }


def _ssrc(rng: random.Random) -> int:
    return rng.randrange(1, 1 << 32)


class TransportSequence:
    """The transport-wide sequence number that all streams of one transport share."""

    def __init__(self) -> None:
        self._next = 0

    def take(self) -> int:
        value = self._next
        self._next = (value + 1) & 0xFFFF
        return value


class PacketSource:
    """Makes the plain RTP packets of one stream, numbered without a gap.

    ``packets`` and ``octets`` count what was made, for sender reports. The last 1024 packets are kept for
    retransmission; older ones are dropped.
    """

    def __init__(self, stream: StreamFormat, sequence: TransportSequence, *, rng: random.Random | None = None) -> None:
        rng = rng or random.Random()
        self.stream = stream
        self.packets = 0
        self.octets = 0
        self.timestamp = rng.randrange(1 << 32)
        self._sequence = sequence
        self._sequence_number = rng.randrange(1 << 16)
        self._rtx_sequence_number = rng.randrange(1 << 16)
        self._first_timestamp = self.timestamp
        self._picture = rng.randrange(1 << 15)
        self._filler = rng.randbytes(1500)
        self._cache: OrderedDict[int, tuple[int, int, bytes]] = OrderedDict()

    def frame(self, count: int, now: float, clock_ns: int, *, key_frame: bool = False) -> list[bytes]:
        """One frame of ``count`` packets with one RTP timestamp, the marker on the last.

        :param now: seconds, any steady clock: the media time of the frame.
        :param clock_ns: ns written into the marks.
        """
        self.start_frame(now)
        return [
            self.packet(now, clock_ns, first=i == 0, last=i == count - 1, key_frame=key_frame) for i in range(count)
        ]

    def start_frame(self, now: float) -> None:
        """Give the packets that follow the RTP timestamp of ``now`` (and the next picture id)."""
        self.timestamp = (self._first_timestamp + int(now * self.stream.clock_rate)) & 0xFFFFFFFF
        self._picture = (self._picture + 1) & 0x7FFF

    def packet(self, now: float, clock_ns: int, *, first: bool, last: bool, key_frame: bool) -> bytes:
        """One packet of the frame in hand."""
        if self.stream.kind == "video":
            # RFC 7741: X=1 S=first PID=0; then I=1 and the PictureID with its M bit.
            head = struct.pack("!BBH", 0x90 if first else 0x80, 0x80, 0x8000 | self._picture)
            if first:
                head += _KEY_FRAME if key_frame else _INTER_FRAME
        else:
            head = b"\xfc"
            last = False
        mark = _MARK.pack(_MAGIC, self.packets, clock_ns)
        extensions = self._extensions(now)
        fill = self.stream.size - 12 - len(extensions) - len(head) - MARK_SIZE
        payload = head + self._filler[: max(0, fill)] + mark
        number = self._sequence_number
        self._sequence_number = (number + 1) & 0xFFFF
        second = self.stream.payload_type | (0x80 if last else 0)
        self.packets += 1
        self.octets += len(payload)
        self._cache[number] = (second & 0x80, self.timestamp, payload)
        if len(self._cache) > _CACHE:
            self._cache.popitem(last=False)
        header = struct.pack("!BBHII", 0x90, second, number, self.timestamp, self.stream.ssrc)
        return header + extensions + payload

    def retransmission(self, sequence_number: int, now: float) -> bytes | None:
        """The RTX packet (RFC 4588) for a lost one; None where it is too old or RTX is not negotiated."""
        kept = self._cache.get(sequence_number)
        if kept is None or self.stream.rtx_payload_type is None or self.stream.rtx_ssrc is None:
            return None
        marker, timestamp, payload = kept
        number = self._rtx_sequence_number
        self._rtx_sequence_number = (number + 1) & 0xFFFF
        second = marker | self.stream.rtx_payload_type
        header = struct.pack("!BBHII", 0x90, second, number, timestamp, self.stream.rtx_ssrc)
        return header + self._extensions(now) + struct.pack("!H", sequence_number) + payload

    def _extensions(self, now: float) -> bytes:
        mid = self.stream.mid.encode("ascii")
        sent = int(now * (1 << 18)) & 0xFFFFFF
        elements = (
            bytes((MID_ID << 4 | len(mid) - 1,))
            + mid
            + bytes((ABS_SEND_TIME_ID << 4 | 2, sent >> 16, sent >> 8 & 0xFF, sent & 0xFF))
            + struct.pack("!BH", TRANSPORT_CC_ID << 4 | 1, self._sequence.take())
        )
        elements += bytes(-len(elements) % 4)
        return struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements
