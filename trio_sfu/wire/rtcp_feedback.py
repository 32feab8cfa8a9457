"""RTCP feedback messages: NACK and PLI (RFC 4585), FIR (RFC 5104), REMB (draft-alvestrand-rmcat-remb-03).

Used through :mod:`trio_sfu.wire.rtcp`, which re-exports all of it; only the transport-wide feedback lives
elsewhere (:mod:`trio_sfu.wire.transport_feedback`).

All share one layout::

    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P|   FMT   |   PT 205/206  |          length               |
    |                  SSRC of packet sender                        |
    |                  SSRC of media source                         |
    :            Feedback Control Information (FCI)                 :
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from trio_sfu.wire import transport_feedback
from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.transport_feedback import TransportFeedback

RTPFB = 205
PSFB = 206

_HEADER = Struct("!BBHII")
_U32 = Struct("!I")
_TWO_U32 = Struct("!II")
_NACK = Struct("!HH")
_REMB = Struct("!4sI")


def pack_nack_lost(lost: Iterable[int]) -> bytes:
    """16-bit sequence numbers to the FCI of a generic NACK (RFC 4585, section 6.2.1): 4 bytes for up to 17.

    Most compact for numbers in ascending order (across the wrap-around too); repeated ones are written once
    where they follow each other closely.
    """
    fci = bytearray()
    pid = -1
    blp = 0
    for sequence in lost:
        if pid >= 0:
            distance = sequence - pid & 0xFFFF
            if distance <= 16:
                if distance:
                    blp |= 1 << distance - 1
                continue
            fci += _NACK.pack(pid, blp)
        pid = sequence
        blp = 0
    if pid >= 0:
        fci += _NACK.pack(pid, blp)
    return bytes(fci)


def unpack_nack_lost(fci: bytes | memoryview) -> tuple[int, ...]:
    """The FCI of a generic NACK to sequence numbers, each item's in ascending order. Raises BadPacket."""
    if len(fci) & 3:
        raise BadPacket("a NACK's size is not a multiple of four")
    lost: list[int] = []
    for pid, blp in _NACK.iter_unpack(fci):
        lost.append(pid)
        while blp:
            pid = pid + 1 & 0xFFFF
            if blp & 1:
                lost.append(pid)
            blp >>= 1
    return tuple(lost)


@dataclass(frozen=True, slots=True)
class GenericNack:
    """RTPFB, FMT 1 (RFC 4585, section 6.2.1). ``lost``: at least one 16-bit sequence number."""

    sender_ssrc: int
    media_ssrc: int
    lost: tuple[int, ...]

    def to_bytes(self) -> bytes:
        fci = pack_nack_lost(self.lost)
        return _HEADER.pack(0x81, RTPFB, 2 + len(fci) // 4, self.sender_ssrc, self.media_ssrc) + fci


@dataclass(frozen=True, slots=True)
class PictureLossIndication:
    """PSFB, FMT 1 (RFC 4585, section 6.3.1)."""

    sender_ssrc: int
    media_ssrc: int

    def to_bytes(self) -> bytes:
        return _HEADER.pack(0x81, PSFB, 2, self.sender_ssrc, self.media_ssrc)


@dataclass(frozen=True, slots=True)
class FullIntraRequest:
    """PSFB, FMT 4 (RFC 5104, section 4.3.1). ``entries``: one or more (media SSRC, sequence number)."""

    sender_ssrc: int
    entries: tuple[tuple[int, int], ...]

    def to_bytes(self) -> bytes:
        # The header's media SSRC is unused and 0.
        head = _HEADER.pack(0x84, PSFB, 2 + 2 * len(self.entries), self.sender_ssrc, 0)
        return head + b"".join(_TWO_U32.pack(ssrc, sequence << 24) for ssrc, sequence in self.entries)


@dataclass(frozen=True, slots=True)
class Remb:
    """PSFB, FMT 15 (draft-alvestrand-rmcat-remb-03, section 2.2).

    ``bitrate``: bits a second, for all of ``ssrcs`` together. The wire has 18 significant bits: ``to_bytes``
    rounds down. At most 255 SSRCs.
    """

    sender_ssrc: int
    bitrate: int
    ssrcs: tuple[int, ...]

    def to_bytes(self) -> bytes:
        exponent = max(0, self.bitrate.bit_length() - 18)
        head = _HEADER.pack(0x8F, PSFB, 4 + len(self.ssrcs), self.sender_ssrc, 0)
        rate = len(self.ssrcs) << 24 | exponent << 18 | self.bitrate >> exponent
        return b"".join((head, _REMB.pack(b"REMB", rate), *map(_U32.pack, self.ssrcs)))


Feedback = GenericNack | PictureLossIndication | FullIntraRequest | Remb | TransportFeedback


def parse_body(data: bytes, fmt: int, payload_type: int, start: int, end: int) -> Feedback | None:
    """Read the feedback message whose bytes after the common header are ``data[start:end]``, padding removed.

    None for a kind not known here. Raises BadPacket.
    """
    if end - start < 8:
        raise BadPacket("a feedback message is shorter than its two SSRCs")
    if payload_type == RTPFB:
        if fmt == transport_feedback.FMT:
            return transport_feedback.parse_body(data, start, end)
        if fmt == 1:
            sender_ssrc, media_ssrc = _TWO_U32.unpack_from(data, start)
            lost = unpack_nack_lost(data[start + 8 : end])
            if not lost:
                raise BadPacket("a NACK names no packet")
            return GenericNack(sender_ssrc, media_ssrc, lost)
    elif payload_type == PSFB:
        sender_ssrc, media_ssrc = _TWO_U32.unpack_from(data, start)
        if fmt == 1:
            return PictureLossIndication(sender_ssrc, media_ssrc)
        if fmt == 4:
            fci = data[start + 8 : end]
            if not fci or len(fci) & 7:
                raise BadPacket("a FIR's size does not match its entries")
            return FullIntraRequest(sender_ssrc, tuple((s, n >> 24) for s, n in _TWO_U32.iter_unpack(fci)))
        if fmt == 15 and data[start + 8 : min(start + 12, end)] == b"REMB":
            return _parse_remb(data, sender_ssrc, start + 12, end)
    return None


def _parse_remb(data: bytes, sender_ssrc: int, start: int, end: int) -> Remb:
    if end - start < 4:
        raise BadPacket("a REMB is shorter than its header")
    (rate,) = _U32.unpack_from(data, start)
    start += 4
    count = rate >> 24
    if end - start != 4 * count:
        raise BadPacket("a REMB's size does not match its number of SSRCs")
    bitrate = (rate & 0x3FFFF) << (rate >> 18 & 0x3F)
    if bitrate >> 64:
        raise BadPacket("a REMB's bitrate exceeds 64 bits")
    return Remb(sender_ssrc, bitrate, tuple(ssrc for (ssrc,) in _U32.iter_unpack(data[start:end])))
