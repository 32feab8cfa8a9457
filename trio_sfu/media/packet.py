"""A forwarded RTP packet, prepared once for all consumers, and the batch that one wake-up brought.

What every consumer sends alike (payload type, the producer's extensions under the router's identifiers, payload) is
laid out once per incoming packet, as the body. Before it comes the prefix, which is each consumer's own: see
:mod:`trio_sfu.media.layout`.
Owned by the incoming stream; consumers and the retransmission cache share the packets and never change them.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from trio_sfu.media.frame_mark import FrameIds, FrameMark, write_ids
from trio_sfu.media.layout import NARROW_PREFIX, WIDE_PREFIX, Layout, lay_out
from trio_sfu.wire.rtp import pack_extensions, unpack_extensions

__all__ = [
    "Batch",
    "Packet",
    "empty_packet",
    "make_packet",
    "runs_of",
    "with_extension",
    "with_ids",
]

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
    write_ids(body, packet.elements_size, ids)
    return packet._replace(body=bytes(body), mark=packet.mark._replace(ids=ids))


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
            layout = self._layouts[gap] = lay_out(self.packets, gap, self.runs)
        return layout

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Packet]:
        return iter(self.packets)
