"""RTCP: compound packets, and sender and receiver reports, SDES, BYE (RFC 3550, section 6), XR (RFC 3611).

The one module to import for RTCP: feedback messages (:mod:`trio_sfu.wire.rtcp_feedback`,
:mod:`trio_sfu.wire.transport_feedback`) are re-exported. Called for each incoming RTCP packet after SRTCP.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.rtcp_feedback import (
    PSFB,
    RTPFB,
    FullIntraRequest,
    GenericNack,
    PictureLossIndication,
    Remb,
    pack_nack_lost,
    unpack_nack_lost,
)
from trio_sfu.wire.rtcp_feedback import parse_body as _parse_feedback
from trio_sfu.wire.transport_feedback import TransportFeedback

__all__ = [
    "Dlrr",
    "ExtendedReport",
    "FullIntraRequest",
    "GenericNack",
    "Goodbye",
    "PictureLossIndication",
    "ReceiverReferenceTime",
    "ReceiverReport",
    "Remb",
    "ReportBlock",
    "RtcpPacket",
    "SenderReport",
    "SourceDescription",
    "TransportFeedback",
    "UnknownPacket",
    "pack_compound",
    "pack_nack_lost",
    "parse_compound",
    "unpack_nack_lost",
]

SR = 200
RR = 201
SDES = 202
BYE = 203
XR = 207

_HEADER = Struct("!BBH")
_HEADER_SSRC = Struct("!BBHI")
_U32 = Struct("!I")
_BLOCK = Struct("!IIIIII")
_SENDER_INFO = Struct("!IQIII")
_DLRR_ITEM = Struct("!III")
_RRTR = Struct("!BBHQ")

_CNAME = 1
_XR_RECEIVER_REFERENCE_TIME = 4
_XR_DLRR = 5


class ReportBlock(NamedTuple):
    """RFC 3550, section 6.4.1. A plain tuple: they come by the thousand.

    ``fraction_lost``: 8 bits, in 1/256. ``packets_lost``: signed 24 bits. ``highest_sequence``: extended, 32
    bits. ``jitter``: RTP timestamp units. ``lsr``: the middle 32 bits of the last SR's NTP time; ``dlsr``: in
    1/65536 s; both 0 where no SR has come.
    """

    ssrc: int
    fraction_lost: int
    packets_lost: int
    highest_sequence: int
    jitter: int
    lsr: int
    dlsr: int

    def to_bytes(self) -> bytes:
        lost = self.fraction_lost << 24 | self.packets_lost & 0xFFFFFF
        return _BLOCK.pack(self.ssrc, lost, self.highest_sequence, self.jitter, self.lsr, self.dlsr)


@dataclass(frozen=True, slots=True)
class SenderReport:
    """PT 200 (RFC 3550, section 6.4.1). ``ntp_time``: 32.32 bits, seconds since 1900. At most 31 reports."""

    ssrc: int
    ntp_time: int
    rtp_timestamp: int
    packet_count: int
    octet_count: int
    reports: tuple[ReportBlock, ...] = ()

    def to_bytes(self) -> bytes:
        info = _SENDER_INFO.pack(self.ssrc, self.ntp_time, self.rtp_timestamp, self.packet_count, self.octet_count)
        return _packet(len(self.reports), SR, info + b"".join([block.to_bytes() for block in self.reports]))


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """PT 201 (RFC 3550, section 6.4.2). At most 31 reports."""

    ssrc: int
    reports: tuple[ReportBlock, ...] = ()

    def to_bytes(self) -> bytes:
        body = _U32.pack(self.ssrc) + b"".join([block.to_bytes() for block in self.reports])
        return _packet(len(self.reports), RR, body)


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """PT 202 (RFC 3550, section 6.5). ``chunks``: (SSRC, CNAME), at most 31; other items are not kept.

    A CNAME is at most 255 bytes of UTF-8; an empty one stands for a chunk without.
    """

    chunks: tuple[tuple[int, str], ...]

    def to_bytes(self) -> bytes:
        body = bytearray()
        for ssrc, cname in self.chunks:
            text = cname.encode()
            if len(text) > 255:
                raise ValueError("a CNAME has at most 255 bytes")
            body += _U32.pack(ssrc)
            if text:
                body += bytes((_CNAME, len(text)))
                body += text
            body += bytes(4 - len(body) % 4)  # at least one null ends the chunk
        return _packet(len(self.chunks), SDES, body)


@dataclass(frozen=True, slots=True)
class Goodbye:
    """PT 203 (RFC 3550, section 6.6). At most 31 SSRCs; a reason of at most 255 bytes, empty for none."""

    ssrcs: tuple[int, ...]
    reason: str = ""

    def to_bytes(self) -> bytes:
        body = bytearray().join(map(_U32.pack, self.ssrcs))
        if self.reason:
            text = self.reason.encode()
            if len(text) > 255:
                raise ValueError("a reason has at most 255 bytes")
            body.append(len(text))
            body += text
            body += bytes(-len(body) & 3)
        return _packet(len(self.ssrcs), BYE, body)


@dataclass(frozen=True, slots=True)
class ReceiverReferenceTime:
    """XR block type 4 (RFC 3611, section 4.4). ``ntp_time``: 64 bits, 32.32 seconds since 1900."""

    ntp_time: int

    def to_bytes(self) -> bytes:
        return _RRTR.pack(_XR_RECEIVER_REFERENCE_TIME, 0, 2, self.ntp_time)


@dataclass(frozen=True, slots=True)
class Dlrr:
    """XR block type 5 (RFC 3611, section 4.5). ``items``: (SSRC, last RR, delay since it in 1/65536 s)."""

    items: tuple[tuple[int, int, int], ...]

    def to_bytes(self) -> bytes:
        return b"".join(
            (_HEADER.pack(_XR_DLRR, 0, 3 * len(self.items)), *[_DLRR_ITEM.pack(*item) for item in self.items])
        )


@dataclass(frozen=True, slots=True)
class ExtendedReport:
    """PT 207 (RFC 3611, section 2). Blocks of other types are not kept."""

    ssrc: int
    blocks: tuple[ReceiverReferenceTime | Dlrr, ...]

    def to_bytes(self) -> bytes:
        return _packet(0, XR, _U32.pack(self.ssrc) + b"".join([block.to_bytes() for block in self.blocks]))


@dataclass(frozen=True, slots=True)
class UnknownPacket:
    """A well-framed packet of a type or feedback format not known here. ``data``: the whole packet."""

    payload_type: int
    data: bytes

    def to_bytes(self) -> bytes:
        return self.data


RtcpPacket = (
    SenderReport
    | ReceiverReport
    | SourceDescription
    | Goodbye
    | GenericNack
    | PictureLossIndication
    | FullIntraRequest
    | Remb
    | TransportFeedback
    | ExtendedReport
    | UnknownPacket
)


def _packet(count: int, payload_type: int, body: bytes | bytearray) -> bytes:
    if count > 31:
        raise ValueError("an RTCP packet has at most 31 reports or sources")
    return _HEADER.pack(0x80 | count, payload_type, len(body) // 4) + body


def pack_compound(packets: Iterable[RtcpPacket]) -> bytes:
    """One compound packet; keeping it under the MTU is the caller's part."""
    return b"".join([packet.to_bytes() for packet in packets])


def parse_compound(data: bytes | memoryview) -> tuple[RtcpPacket, ...]:
    """The packets of a compound, at least one. Raises BadPacket for all of it where any part is malformed.

    Reduced-size compounds (RFC 5506) are accepted: nothing is required of the first packet. So is padding in
    a packet that is not the last, and padding that is not a multiple of four: libwebrtc pads transport-wide
    feedback that way.
    """
    data = bytes(data)
    size = len(data)
    if not size:
        raise BadPacket("an RTCP packet is empty")
    packets: list[RtcpPacket] = []
    start = 0
    while start < size:
        if size - start < 4:
            raise BadPacket("an RTCP packet is shorter than its header")
        first, payload_type, length = _HEADER.unpack_from(data, start)
        if first & 0xC0 != 0x80:
            raise BadPacket("an RTCP packet is not of version 2")
        body = start + 4
        next_start = end = body + 4 * length
        if end > size:
            raise BadPacket("an RTCP packet is longer than its datagram")
        if first & 0x20:
            padding = data[end - 1]
            if not padding or padding > 4 * length:
                raise BadPacket("an RTCP packet's padding count is invalid")
            end -= padding
        packet: RtcpPacket | None
        if payload_type == RR:
            packet = _parse_receiver_report(data, first & 0x1F, body, end)
        elif payload_type in (RTPFB, PSFB):
            packet = _parse_feedback(data, first & 0x1F, payload_type, body, end)
        elif payload_type == SR:
            packet = _parse_sender_report(data, first & 0x1F, body, end)
        elif payload_type == SDES:
            packet = _parse_source_description(data, first & 0x1F, body, end)
        elif payload_type == XR:
            packet = _parse_extended_report(data, body, end)
        elif payload_type == BYE:
            packet = _parse_goodbye(data, first & 0x1F, body, end)
        else:
            packet = None
        packets.append(UnknownPacket(payload_type, data[start:next_start]) if packet is None else packet)
        start = next_start
    return tuple(packets)


def _parse_blocks(data: bytes, count: int, start: int, end: int) -> tuple[ReportBlock, ...]:
    if end - start < _BLOCK.size * count:
        raise BadPacket("a report is shorter than its report blocks")
    blocks: list[ReportBlock] = []
    # What follows the blocks is a profile-specific extension: ignored.
    for ssrc, lost, highest, jitter, lsr, dlsr in _BLOCK.iter_unpack(data[start : start + _BLOCK.size * count]):
        packets_lost = lost & 0xFFFFFF
        if packets_lost & 0x800000:
            packets_lost -= 0x1000000
        blocks.append(ReportBlock(ssrc, lost >> 24, packets_lost, highest, jitter, lsr, dlsr))
    return tuple(blocks)


def _parse_sender_report(data: bytes, count: int, start: int, end: int) -> SenderReport:
    if end - start < _SENDER_INFO.size:
        raise BadPacket("a sender report is shorter than its sender info")
    reports = _parse_blocks(data, count, start + _SENDER_INFO.size, end) if count else ()
    ssrc, ntp_time, rtp_timestamp, packet_count, octet_count = _SENDER_INFO.unpack_from(data, start)
    return SenderReport(ssrc, ntp_time, rtp_timestamp, packet_count, octet_count, reports)


def _parse_receiver_report(data: bytes, count: int, start: int, end: int) -> ReceiverReport:
    if end - start < 4:
        raise BadPacket("a receiver report is shorter than its SSRC")
    (ssrc,) = _U32.unpack_from(data, start)
    return ReceiverReport(ssrc, _parse_blocks(data, count, start + 4, end) if count else ())


def _parse_source_description(data: bytes, count: int, start: int, end: int) -> SourceDescription:
    chunks: list[tuple[int, str]] = []
    for _ in range(count):
        if end - start < 8:
            raise BadPacket("an SDES chunk is too short")
        (ssrc,) = _U32.unpack_from(data, start)
        cname = ""
        at = start + 4
        while True:
            if at >= end:
                raise BadPacket("an SDES chunk is not ended by a null")
            kind = data[at]
            if not kind:
                break
            item = at + 2
            if item > end or item + data[at + 1] > end:
                raise BadPacket("an SDES item is longer than its packet")
            at = item + data[at + 1]
            if kind == _CNAME:
                cname = data[item:at].decode(errors="replace")
        chunks.append((ssrc, cname))
        # Nulls go on to the next 32-bit boundary; packets begin at one.
        start += at - start + 4 & ~3
        if start > end:
            raise BadPacket("an SDES chunk is not padded to 32 bits")
    return SourceDescription(tuple(chunks))


def _parse_goodbye(data: bytes, count: int, start: int, end: int) -> Goodbye:
    reason_at = start + 4 * count
    if reason_at > end:
        raise BadPacket("a BYE is shorter than its sources")
    reason = ""
    if reason_at < end:
        reason_end = reason_at + 1 + data[reason_at]
        if reason_end > end:
            raise BadPacket("a BYE's reason is longer than its packet")
        reason = data[reason_at + 1 : reason_end].decode(errors="replace")
    return Goodbye(tuple([ssrc for (ssrc,) in _U32.iter_unpack(data[start:reason_at])]), reason)


def _parse_extended_report(data: bytes, start: int, end: int) -> ExtendedReport:
    if end - start < 4:
        raise BadPacket("an XR is shorter than its SSRC")
    (ssrc,) = _U32.unpack_from(data, start)
    start += 4
    blocks: list[ReceiverReferenceTime | Dlrr] = []
    while start < end:
        if end - start < 4:
            raise BadPacket("an XR block is shorter than its header")
        kind, _, length = _HEADER.unpack_from(data, start)
        body = start + 4
        start = body + 4 * length
        if start > end:
            raise BadPacket("an XR block is longer than its packet")
        if kind == _XR_RECEIVER_REFERENCE_TIME:
            if length != 2:
                raise BadPacket("an XR receiver reference time block has the wrong size")
            blocks.append(ReceiverReferenceTime(int.from_bytes(data[body:start], "big")))
        elif kind == _XR_DLRR:
            if length % 3:
                raise BadPacket("an XR DLRR block has the wrong size")
            blocks.append(Dlrr(tuple(_DLRR_ITEM.iter_unpack(data[body:start]))))
    return ExtendedReport(ssrc, tuple(blocks))
