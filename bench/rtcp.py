"""The little RTCP that a light client speaks: reports, feedback, and reading requests of the server.

Written apart from ``trio_sfu.wire.rtcp`` so that the two check each other. Called by :mod:`bench.users`,
:mod:`bench.endpoint` and ``tests/support/media_client.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SENDER_REPORT = 200
RECEIVER_REPORT = 201
GOODBYE = 203
TRANSPORT_LAYER_FEEDBACK = 205
PAYLOAD_FEEDBACK = 206

_NTP_EPOCH = 2_208_988_800


class RtcpError(ValueError):
    """The bytes are not an RTCP packet as RFC 3550, section 6, has it."""


@dataclass(frozen=True, slots=True)
class RtcpItem:
    """One packet of a compound: ``count`` is the 5-bit field (report count, feedback format)."""

    packet_type: int
    count: int
    body: bytes

    @property
    def is_key_frame_request(self) -> bool:
        """PLI (RFC 4585) or FIR (RFC 5104)."""
        return self.packet_type == PAYLOAD_FEEDBACK and self.count in (1, 4)

    @property
    def media_ssrc(self) -> int | None:
        """The media source that feedback is about, an FIR's first entry; None for all else."""
        if self.packet_type not in (TRANSPORT_LAYER_FEEDBACK, PAYLOAD_FEEDBACK) or len(self.body) < 8:
            return None
        # RFC 5104, section 4.3.1: FIR leaves the header's field zero and names the source in its entries.
        offset = 8 if self.packet_type == PAYLOAD_FEEDBACK and self.count == 4 else 4
        return int.from_bytes(self.body[offset : offset + 4])

    @property
    def lost(self) -> tuple[int, ...]:
        """The sequence numbers a generic NACK asks for (RFC 4585, section 6.2.1); empty for all else."""
        if self.packet_type != TRANSPORT_LAYER_FEEDBACK or self.count != 1:
            return ()
        numbers: list[int] = []
        for offset in range(8, len(self.body) - 3, 4):
            first, mask = struct.unpack_from("!HH", self.body, offset)
            numbers.append(first)
            numbers.extend((first + 1 + bit) & 0xFFFF for bit in range(16) if mask >> bit & 1)
        return tuple(numbers)


def parse_rtcp(data: bytes) -> list[RtcpItem]:
    """Split a compound packet. Raises RtcpError."""
    return list(_items(data))


def _items(data: bytes) -> Iterator[RtcpItem]:
    offset = 0
    while offset < len(data):
        if len(data) - offset < 4 or data[offset] >> 6 != 2:
            raise RtcpError("not RTCP version 2")
        first, packet_type, words = struct.unpack_from("!BBH", data, offset)
        end = offset + 4 + 4 * words
        if end > len(data):
            raise RtcpError("RTCP packet cut short")
        yield RtcpItem(packet_type, first & 0x1F, data[offset + 4 : end])
        offset = end


def sender_report(ssrc: int, unix_time: float, rtp_timestamp: int, packets: int, octets: int) -> bytes:
    """RFC 3550, section 6.4.1, without report blocks."""
    ntp = int((unix_time + _NTP_EPOCH) * (1 << 32)) & 0xFFFFFFFFFFFFFFFF
    return struct.pack(
        "!BBHIQIII",
        0x80,
        SENDER_REPORT,
        6,
        ssrc,
        ntp,
        rtp_timestamp,
        packets & 0xFFFFFFFF,
        octets & 0xFFFFFFFF,
    )


def receiver_report(
    sender_ssrc: int, media_ssrc: int, *, highest_sequence: int, lost: int = 0, lsr: int = 0, dlsr: int = 0
) -> bytes:
    """RFC 3550, section 6.4.2, with one report block; ``highest_sequence`` is the extended number."""
    return struct.pack(
        "!BBHIIIIIII",
        0x81,
        RECEIVER_REPORT,
        7,
        sender_ssrc,
        media_ssrc,
        lost & 0xFFFFFF,
        highest_sequence & 0xFFFFFFFF,
        0,
        lsr,
        dlsr,
    )


@dataclass(frozen=True, slots=True)
class Block:
    """A report block; ``highest_sequence`` is the extended number (RFC 3550, section 6.4.1)."""

    media_ssrc: int
    highest_sequence: int
    lost: int = 0
    lsr: int = 0
    dlsr: int = 0


def receiver_reports(sender_ssrc: int, blocks: Sequence[Block]) -> bytes:
    """RFC 3550, section 6.4.2, with up to 31 report blocks."""
    head = struct.pack("!BBHI", 0x80 | len(blocks), RECEIVER_REPORT, 1 + 6 * len(blocks), sender_ssrc)
    return head + b"".join(
        struct.pack(
            "!IIIIII", block.media_ssrc, block.lost, block.highest_sequence & 0xFFFFFFFF, 0, block.lsr, block.dlsr
        )
        for block in blocks
    )


def nack(sender_ssrc: int, media_ssrc: int, lost: Sequence[int]) -> bytes:
    """RFC 4585, section 6.2.1, one entry a number."""
    entries = b"".join(struct.pack("!HH", number, 0) for number in lost)
    head = struct.pack("!BBHII", 0x81, TRANSPORT_LAYER_FEEDBACK, 2 + len(lost), sender_ssrc, media_ssrc)
    return head + entries


def picture_loss_indication(sender_ssrc: int, media_ssrc: int) -> bytes:
    """RFC 4585, section 6.3.1."""
    return struct.pack("!BBHII", 0x81, PAYLOAD_FEEDBACK, 2, sender_ssrc, media_ssrc)


def transport_feedback(
    sender_ssrc: int,
    media_ssrc: int,
    *,
    base_sequence: int,
    feedback_count: int,
    reference_time: int,
    deltas: bytes,
) -> bytes:
    """Transport-wide feedback for a run of packets that all arrived.

    draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1, as one run-length chunk of small deltas.

    :param reference_time: multiples of 64 ms.
    :param deltas: a byte a packet, 250 µs units; at most 8191.
    """
    body = struct.pack(
        "!IIHHIH",
        sender_ssrc,
        media_ssrc,
        base_sequence,
        len(deltas),
        (reference_time & 0xFFFFFF) << 8 | feedback_count & 0xFF,
        0x2000 | len(deltas),
    )
    body += deltas
    body += bytes(-len(body) % 4)
    return struct.pack("!BBH", 0x80 | 15, TRANSPORT_LAYER_FEEDBACK, len(body) // 4) + body
