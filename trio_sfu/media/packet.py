"""A forwarded RTP packet, prepared once for all consumers, and the batch that one wake-up brought.

What every consumer sends alike (payload type, the producer's extensions under the router's identifiers, payload)
is laid out once per incoming packet. What differs (sequence number, timestamp, SSRC, and the three extensions
that belong to a transport) sits in a prefix of fixed length that each consumer packs in one call::

     0        2        4            8            12       14      16
    +--------+--------+------------+------------+--------+-------+---------------+-------------+--------+------
    | V,X,PT | seq.   | timestamp  | SSRC       | 0xBEDE | words | abs-send-time | transport-cc| MID    | body
    +--------+--------+------------+------------+--------+-------+---------------+-------------+--------+------
                                                                   4 bytes         3             5

An extension that a consumer has not negotiated is all zeros, which is padding (RFC 8285, section 4.2). Where an
element of the producer's does not fit the one-byte form, the prefix has the two-byte form and 32 bytes.
Owned by the incoming stream; consumers and the retransmission cache share the packets and never change them.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from trio_sfu.media.frame_mark import FrameIds, FrameMark
from trio_sfu.wire.rtp import ONE_BYTE_PROFILE, TWO_BYTE_PROFILE, pack_extensions, unpack_extensions

__all__ = [
    "Batch",
    "Layout",
    "Packet",
    "Stamp",
    "empty_packet",
    "lay_out",
    "make_packet",
    "runs_of",
    "shift_ids",
    "shifted",
    "with_extension",
    "with_ids",
]

NARROW_PREFIX: Final = 28
WIDE_PREFIX: Final = 32
_NARROW = struct.Struct("!HHIIHHIBHBI")
_WIDE = struct.Struct("!HHIIHHBBBHHHHIx")
_NUMBER = struct.Struct("!H")

MAX_RUN_PACKETS: Final = 64  # what the kernel takes in one segmented send
MAX_RUN_OCTETS: Final = 60_000
# Longer ones would not fit the path's MTU, where segmentation is refused: they go alone and are fragmented.
MAX_RUN_SIZE: Final = 1400


class Packet(NamedTuple):
    """One packet as all consumers send it. ``size`` is in bytes and counts the prefix."""

    sequence_number: int
    timestamp: int
    head: int
    """The first two bytes: version 2, extension bit, marker and the router's payload type."""
    words: int
    """Length of the extension block in 32-bit words."""
    wide: bool
    body: bytes
    """All that follows the prefix: the producer's extensions, then the payload."""
    size: int
    keyframe: bool
    """Whether a keyframe begins here."""
    arrival: float
    mark: FrameMark | None = None
    """Where it stands among its stream's layers, where they are told."""

    @property
    def elements_size(self) -> int:
        """The length of the producer's extensions at the beginning of ``body``."""
        return self.words * 4 - (16 if self.wide else 12)

    def extension(self, identifier: int) -> bytes | None:
        """One of the producer's extensions, by the router's identifier."""
        return dict(unpack_extensions(self.wide, self.body[: self.elements_size])).get(identifier)


def make_packet(
    sequence_number: int,
    timestamp: int,
    payload_type: int,
    marker: bool,
    extensions: tuple[bool, bytes],
    payload: memoryview | bytes,
    *,
    keyframe: bool,
    arrival: float,
    mark: FrameMark | None = None,
) -> Packet:
    """Lay out one packet; ``extensions`` is what :func:`trio_sfu.wire.rtp.pack_extensions` returned."""
    wide, elements = extensions
    prefix = WIDE_PREFIX if wide else NARROW_PREFIX
    body = b"".join((elements, payload))
    # Packet(…) itself is a function in Python around this.
    return tuple.__new__(
        Packet,
        (
            sequence_number,
            timestamp,
            0x9080 | payload_type if marker else 0x9000 | payload_type,
            (prefix - 16 + len(elements)) // 4,
            wide,
            body,
            prefix + len(body),
            keyframe,
            arrival,
            mark,
        ),
    )


def empty_packet(packet: Packet, sequence_number: int) -> Packet:
    """A packet without payload in the place of ``packet``, under ``sequence_number``: nobody needs to wait for it.

    Receivers take such packets for padding.
    """
    return make_packet(
        sequence_number,
        packet.timestamp,
        packet.head & 0x7F,
        False,
        (False, b""),
        b"",
        keyframe=False,
        arrival=packet.arrival,
    )


def with_extension(packet: Packet, identifier: int, value: bytes) -> Packet:
    """The packet with another ``value`` of an extension that it has; without it, the packet as it is."""
    size = packet.elements_size
    elements = dict(unpack_extensions(packet.wide, packet.body[:size]))
    if identifier not in elements:
        return packet
    elements[identifier] = value
    return make_packet(
        packet.sequence_number,
        packet.timestamp,
        packet.head & 0x7F,
        packet.head & 0x80 != 0,
        pack_extensions(list(elements.items())),
        packet.body[size:],
        keyframe=packet.keyframe,
        arrival=packet.arrival,
        mark=packet.mark,
    )


def with_ids(packet: Packet, ids: FrameIds) -> Packet:
    """The packet with these picture ids in its payload descriptor; ``ids`` says where they lie."""
    assert packet.mark is not None
    body = bytearray(packet.body)
    _write_ids(body, packet.elements_size, ids)
    return packet._replace(body=bytes(body), mark=packet.mark._replace(ids=ids))


def _write_ids(target: bytearray | memoryview, payload: int, ids: FrameIds) -> None:
    picture_id, bits, at, tl0_pic_idx, tl0_at = ids
    if bits == 15:
        _NUMBER.pack_into(target, payload + at, 0x8000 | picture_id)
    elif bits:
        target[payload + at] = picture_id
    if tl0_at:
        target[payload + tl0_at] = tl0_pic_idx


def shifted(ids: FrameIds, picture_offset: int, tl0_offset: int) -> FrameIds:
    """Ids that are so much higher, modulo their widths."""
    picture_id, bits, at, tl0_pic_idx, tl0_at = ids
    return FrameIds(picture_id + picture_offset & (1 << bits) - 1, bits, at, tl0_pic_idx + tl0_offset & 0xFF, tl0_at)


def runs_of(sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Cut consecutive packets into runs ``(count, size, octets)`` that one segmented send can take.

    All packets of a run are ``size`` bytes long but the last, which may be shorter.
    """
    runs: list[tuple[int, int, int]] = []
    count = size = octets = 0
    open_run = False
    for each in sizes:
        fits = open_run and each <= size and count < MAX_RUN_PACKETS and octets + each <= MAX_RUN_OCTETS
        if fits:
            count += 1
            octets += each
            open_run = each == size
            continue
        if count:
            runs.append((count, size, octets))
        count, size, octets = 1, each, each
        open_run = each <= MAX_RUN_SIZE
    if count:
        runs.append((count, size, octets))
    return runs


class Layout(NamedTuple):
    """A batch as it lies in the arena, all but the prefixes: one copy serves all packets of a consumer."""

    image: bytes
    """The packets end to end, prefixes zero, each followed by the gap for its authentication tag."""
    rows: list[tuple[int, int, int, int, int, bool]]
    """For each packet: its offset in the image, head, sequence number, timestamp, words, and whether it is wide."""


def lay_out(packets: Sequence[Packet], gap: int) -> Layout:
    """Lay packets out with ``gap`` bytes behind each."""
    parts: list[bytes] = []
    rows: list[tuple[int, int, int, int, int, bool]] = []
    offset = 0
    narrow, wide_prefix, behind = bytes(NARROW_PREFIX), bytes(WIDE_PREFIX), bytes(gap)
    for sequence_number, timestamp, head, words, wide, body, size, _, _, _ in packets:
        parts += (wide_prefix if wide else narrow, body, behind)
        rows.append((offset, head, sequence_number, timestamp, words, wide))
        offset += size + gap
    return Layout(b"".join(parts), rows)


def shift_ids(
    arena: memoryview, start: int, layout: Layout, packets: Sequence[Packet], picture_offset: int, tl0_offset: int
) -> None:
    """Raise the picture ids of packets that have just been written by ``layout`` into ``arena``, at ``start``."""
    for packet, row in zip(packets, layout.rows, strict=True):
        mark = packet.mark
        if mark is not None and mark.ids is not None:
            payload = start + row[0] + 16 + packet.words * 4
            _write_ids(arena, payload, shifted(mark.ids, picture_offset, tl0_offset))


class Batch:
    """The packets of one stream that one wake-up brought, in order of arrival.

    ``sizes`` and ``runs`` are the same for every consumer that sends them all, so they are made once.
    """

    __slots__ = ("_layouts", "count", "newest", "octets", "packets", "payload_octets", "runs", "sizes")

    def __init__(self, packets: list[Packet]) -> None:
        newest = packets[0]
        count = len(packets)
        self.packets: Final = packets
        self.count: Final = count
        if count == 1:
            octets = newest.size
            self.sizes: list[int] = [octets]
            self.runs: list[tuple[int, int, int]] = [(1, octets, octets)]
        else:
            self.sizes = [packet.size for packet in packets]
            self.runs = runs_of(self.sizes)
            octets = sum(self.sizes)
            for packet in packets:
                if packet.sequence_number - newest.sequence_number & 0xFFFF < 0x8000:
                    newest = packet
        self.octets: Final = octets
        self.payload_octets: Final = octets - NARROW_PREFIX * count
        """Without headers, as sender reports count; a few bytes of extensions are in it all the same."""
        self.newest: Final = newest
        """The last by number: the last by arrival may be one that was overtaken, or sent again."""
        self._layouts: dict[int, Layout] = {}

    @property
    def first_keyframe(self) -> int | None:
        """The index of the first packet that begins a keyframe."""
        return next((index for index, packet in enumerate(self.packets) if packet.keyframe), None)

    def layout(self, gap: int) -> Layout:
        """:func:`lay_out` of the packets, made once for all consumers with tags of the same length."""
        layout = self._layouts.get(gap)
        if layout is None:
            layout = self._layouts[gap] = lay_out(self.packets, gap)
        return layout

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Packet]:
        return iter(self.packets)

    def after(self, index: int) -> "Batch":
        """The batch from ``index`` on."""
        return Batch(self.packets[index:]) if index else self


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
        innermost loop of the server: one copy for all packets, and one ``pack_into`` for each of them.
        """
        image, rows = layout
        arena[start : start + len(image)] = image
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
