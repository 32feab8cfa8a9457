"""How the packets of a batch are written into the arena, for one consumer after the other.

A packet's body is the same for all. What differs sits in a prefix of fixed length before it: sequence number,
timestamp, SSRC, and the three extensions that belong to a transport::

     0        2        4            8            12       14      16
    +--------+--------+------------+------------+--------+-------+---------------+-------------+--------+------
    | V,X,PT | seq.   | timestamp  | SSRC       | 0xBEDE | words | abs-send-time | transport-cc| MID    | body
    +--------+--------+------------+------------+--------+-------+---------------+-------------+--------+------
                                                                   4 bytes         3             5

An extension that a consumer has not negotiated is all zeros, which is padding (RFC 8285, section 4.2). Where an
element of the producer's does not fit the one-byte form, the prefix has the two-byte form and 32 bytes.

The packets of one frame differ by their two numbers only, and most are equally long. So a consumer's prefix is made
once and joins their bodies, and the numbers are written column by column: a tenth of what one call a packet costs.
"""

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from trio_sfu.media.frame_mark import shifted, write_ids
from trio_sfu.wire.rtp import ONE_BYTE_PROFILE, TWO_BYTE_PROFILE

if TYPE_CHECKING:
    from trio_sfu.media.packet import Packet

__all__ = ["NARROW_PREFIX", "WIDE_PREFIX", "Layout", "Stamp", "lay_out", "shift_ids"]

NARROW_PREFIX: Final = 28
WIDE_PREFIX: Final = 32
_NARROW = struct.Struct("!HHIIHHIBHBI")
_WIDE = struct.Struct("!HHIIHHBBBHHHHIx")
_SEQUENCE_AT: Final = 2
_TRANSPORT_AT: Final = 21  # the transport-wide number, in the narrow prefix
_MARKER: Final = 0x80
# Columns of numbers as they go on, with room for a wrap-around within one: the high bytes and the low ones.
_HIGH: Final = bytes(number >> 8 for number in range(0x10000)) * 2
_LOW: Final = bytes(range(256)) * 512
# Of fewer packets, or with fewer of them a run, one call a packet is as good.
_LEAST_ALIKE: Final = 16
_LEAST_RUN: Final = 4


class Frame(NamedTuple):
    """Packets that differ by their two numbers only, which go on one by one."""

    bodies: list[bytes]
    gap: bytes
    """Behind each."""
    head: int
    first_number: int
    """The first one's sequence number."""
    timestamp: int
    words: int
    columns: list[tuple[int, int, int]]
    """Runs: the offset of the first, from one to the next, and how many."""
    marked: list[int]
    """Offsets of packets with the marker."""


class Layout(NamedTuple):
    """A batch as it lies in the arena: all that does not depend on the consumer, made once for all of them."""

    size: int
    rows: list[tuple[int, int, int, int, int, bool]]
    """For each packet: its offset, head, sequence number, timestamp, words, and whether it is wide."""
    image: bytes
    """The packets end to end, prefixes zero, each followed by the gap for its authentication tag. Empty where there is
    a frame."""
    frame: Frame | None


def lay_out(packets: "Sequence[Packet]", gap: int, runs: "Sequence[tuple[int, int, int]]") -> Layout:
    """Lay packets out with ``gap`` bytes behind each; ``runs`` is what :func:`trio_sfu.media.packet.runs_of` says."""
    count = len(packets)
    rows: list[tuple[int, int, int, int, int, bool]] = []
    offset = 0
    for sequence_number, timestamp, head, words, wide, _, size, _, _, _ in packets:
        rows.append((offset, head, sequence_number, timestamp, words, wide))
        offset += size + gap
    if count >= _LEAST_ALIKE and len(runs) * _LEAST_RUN <= count and _alike(rows):
        return Layout(offset, rows, b"", _frame(packets, rows, gap, runs))
    narrow, wide_prefix, behind = bytes(NARROW_PREFIX), bytes(WIDE_PREFIX), bytes(gap)
    parts: list[bytes] = []
    for packet in packets:
        parts += (wide_prefix if packet.wide else narrow, packet.body, behind)
    return Layout(offset, rows, b"".join(parts), None)


def _alike(rows: list[tuple[int, int, int, int, int, bool]]) -> bool:
    first = rows[0][2]
    return (
        len({(head & ~_MARKER, timestamp, words, wide) for _, head, _, timestamp, words, wide in rows}) == 1
        and not rows[0][5]
        and [row[2] for row in rows] == list(range(first, first + len(rows)))  # across the wrap-around they are not
    )


def _frame(
    packets: "Sequence[Packet]",
    rows: list[tuple[int, int, int, int, int, bool]],
    gap: int,
    runs: "Sequence[tuple[int, int, int]]",
) -> Frame:
    _, head, first_number, timestamp, words, _ = rows[0]
    columns = []
    at = 0
    for count, size, _ in runs:
        columns.append((rows[at][0], size + gap, count))
        at += count
    marked = [row[0] for row in rows if row[1] & _MARKER]
    bodies = [packet.body for packet in packets]
    return Frame(bodies, bytes(gap), head & ~_MARKER, first_number, timestamp, words, columns, marked)


def shift_ids(
    arena: memoryview, start: int, layout: Layout, packets: "Sequence[Packet]", picture_offset: int, tl0_offset: int
) -> None:
    """Raise the picture ids of packets that have just been written by ``layout`` into ``arena``, at ``start``."""
    for packet, row in zip(packets, layout.rows, strict=True):
        mark = packet.mark
        if mark is not None and mark.ids is not None:
            payload = start + row[0] + 16 + packet.words * 4
            write_ids(arena, payload, shifted(mark.ids, picture_offset, tl0_offset))


class Stamp:
    """What one consumer writes into the prefix, apart from what a batch gives it.

    ``abs_send_time_id`` and ``transport_cc_id`` are 0 where the consumer has not negotiated the extension. ``mid``
    is four ASCII characters long, so that the prefix has the same length for all.
    """

    __slots__ = ("abs_send_time_id", "counts", "mid", "mid_head", "ssrc", "transport_cc_head", "wide_heads")

    def __init__(self, *, ssrc: int, mid: str, mid_id: int, abs_send_time_id: int, transport_cc_id: int) -> None:
        encoded = mid.encode("ascii")
        if len(encoded) != 4:
            raise ValueError("a MID of four characters is needed")
        self.ssrc: Final = ssrc
        self.abs_send_time_id: Final = abs_send_time_id
        self.counts: Final = 1 if transport_cc_id else 0
        """How far the transport-wide sequence number moves on with each packet."""
        self.transport_cc_head: Final = transport_cc_id << 4 | 1 if transport_cc_id else 0
        self.mid_head: Final = mid_id << 4 | 3 if mid_id else 0
        self.mid: Final = int.from_bytes(encoded, "big") if mid_id else 0
        self.wide_heads: Final = (
            transport_cc_id << 8 | 2 if transport_cc_id else 0,
            mid_id << 8 | 4 if mid_id else 0,
        )

    def write(
        self,
        arena: memoryview,
        start: int,
        layout: Layout,
        sequence_offset: int,
        timestamp_offset: int,
        transport_sequence: int,
        now: float,
    ) -> int:
        """Write the packets of ``layout`` into ``arena`` from ``start`` on.

        ``transport_sequence`` is the last transport-wide number used; returns the new last one. This is the
        innermost loop of the server.
        """
        size, rows, image, frame = layout
        ssrc = self.ssrc
        mid = self.mid
        mid_head = self.mid_head
        transport_head = self.transport_cc_head
        counts = self.counts
        number = transport_sequence if counts else 0
        # 24 bits of seconds in 6.18 fixed point (the abs-send-time extension).
        send_time = int(now * 262144.0) & 0xFFFFFF
        identifier = self.abs_send_time_id
        abs_send_time = (identifier << 28 | 2 << 24 | send_time) if identifier else 0
        if frame is not None:
            last = self._write_frame(
                arena, start, size, frame, sequence_offset, timestamp_offset, number, abs_send_time
            )
            return last if counts else transport_sequence
        arena[start : start + size] = image
        pack = _NARROW.pack_into
        for offset, head, sequence_number, timestamp, words, wide in rows:
            number = number + counts & 0xFFFF
            if not wide:
                pack(
                    arena,
                    start + offset,
                    head,
                    sequence_number + sequence_offset & 0xFFFF,
                    timestamp + timestamp_offset & 0xFFFFFFFF,
                    ssrc,
                    ONE_BYTE_PROFILE,
                    words,
                    abs_send_time,
                    transport_head,
                    number,
                    mid_head,
                    mid,
                )
            else:
                transport_wide, mid_wide = self.wide_heads
                _WIDE.pack_into(
                    arena,
                    start + offset,
                    head,
                    sequence_number + sequence_offset & 0xFFFF,
                    timestamp + timestamp_offset & 0xFFFFFFFF,
                    ssrc,
                    TWO_BYTE_PROFILE,
                    words,
                    identifier,
                    3 if identifier else 0,
                    send_time >> 16 if identifier else 0,
                    send_time & 0xFFFF if identifier else 0,
                    transport_wide,
                    number,
                    mid_wide,
                    mid,
                )
        return number if counts else transport_sequence

    def _write_frame(
        self,
        arena: memoryview,
        start: int,
        size: int,
        frame: Frame,
        sequence_offset: int,
        timestamp_offset: int,
        number: int,
        abs_send_time: int,
    ) -> int:
        """As :meth:`write`, column by column; ``number`` is the last transport-wide one."""
        bodies, gap, head, first_number, timestamp, words, columns, marked = frame
        prefix = _NARROW.pack(
            head,
            0,
            timestamp + timestamp_offset & 0xFFFFFFFF,
            self.ssrc,
            ONE_BYTE_PROFILE,
            words,
            abs_send_time,
            self.transport_cc_head,
            0,
            self.mid_head,
            self.mid,
        )
        body, behind = start + NARROW_PREFIX, start + size - len(gap)
        arena[start:body] = prefix
        arena[body:behind] = (gap + prefix).join(bodies)
        arena[behind : start + size] = gap
        for offset in marked:
            arena[start + offset + 1] |= _MARKER
        sequence = first_number + sequence_offset & 0xFFFF
        number = number + 1 & 0xFFFF
        for offset, stride, count in columns:
            at = start + offset
            end = at + (count - 1) * stride + NARROW_PREFIX
            arena[at + _SEQUENCE_AT : end : stride] = _HIGH[sequence : sequence + count]
            arena[at + _SEQUENCE_AT + 1 : end : stride] = _LOW[sequence : sequence + count]
            sequence = sequence + count & 0xFFFF
            if self.counts:
                arena[at + _TRANSPORT_AT : end : stride] = _HIGH[number : number + count]
                arena[at + _TRANSPORT_AT + 1 : end : stride] = _LOW[number : number + count]
                number = number + count & 0xFFFF
        return number - 1 & 0xFFFF
