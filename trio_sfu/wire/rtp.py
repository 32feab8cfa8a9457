"""RTP packets (RFC 3550, section 5.1) and their header extensions (RFC 8285).

Pure functions over one datagram's bytes. Called once per incoming packet, so the result is a plain
named tuple of integers and offsets into the caller's buffer; nothing but the extensions is copied, and where their
elements lie is worked out once for all packets that have the same ones.
"""

import struct
from typing import Final, NamedTuple

from trio_sfu.wire.errors import BadPacket

__all__ = ["ONE_BYTE_PROFILE", "TWO_BYTE_PROFILE", "RtpPacket", "pack_extensions", "parse_rtp", "unpack_extensions"]

ONE_BYTE_PROFILE = 0xBEDE  # RFC 8285, section 4.2
TWO_BYTE_PROFILE = 0x1000  # RFC 8285, section 4.3: the low four bits are "appbits"

_HEADER = struct.Struct("!BBHII")
_LONG_HEADER = struct.Struct("!BBHIIHH")  # with an extension's, where no CSRC lies between
_EXTENSION_HEADER = struct.Struct("!HH")
_HEADS = [bytes((head,)) for head in range(256)]
_PADDING = (b"", bytes(3), bytes(2), bytes(1))

Places = dict[int, slice]
"""Where in an extension block the element of each identifier lies."""
_NOWHERE: Final[Places] = {}


class RtpPacket(NamedTuple):
    """One parsed RTP packet.

    ``payload_start`` and ``payload_end`` are offsets into the parsed buffer; CSRCs, header extension and
    padding lie outside them. ``block`` is the header extension without its own header; ``places`` maps local
    identifiers to where their elements' bytes lie in it, and is shared: not to be changed.
    """

    payload_type: int
    marker: bool
    sequence_number: int
    timestamp: int
    ssrc: int
    block: bytes
    places: Places
    payload_start: int
    payload_end: int

    @property
    def extensions(self) -> dict[int, bytes]:
        """The elements' bytes by local identifier."""
        return {identifier: self.block[place] for identifier, place in self.places.items()}


def parse_rtp(data: memoryview | bytes) -> RtpPacket:
    """Parse one unprotected RTP packet that fills ``data``. Raises :class:`BadPacket`."""
    size = len(data)
    if size >= 16 and data[0] == 0x90:  # an extension, no CSRC, no padding: nearly all
        _, second, sequence_number, timestamp, ssrc, profile, words = _LONG_HEADER.unpack_from(data)
        start, end = 16, size
    else:
        if size < 12:
            raise BadPacket("RTP packet shorter than its fixed header")
        first, second, sequence_number, timestamp, ssrc = _HEADER.unpack_from(data)
        if first >> 6 != 2:
            raise BadPacket("RTP version is not 2")
        start = 12 + 4 * (first & 0x0F)
        profile = words = 0
        if first & 0x10:
            if size < start + 4:
                raise BadPacket("RTP header extension truncated")
            profile, words = _EXTENSION_HEADER.unpack_from(data, start)
            start += 4
        end = size
        if first & 0x20:
            padding = data[-1]
            if not 0 < padding <= size - start - 4 * words:
                raise BadPacket("RTP padding longer than the packet")
            end -= padding
    behind = start + 4 * words
    if behind > end:
        raise BadPacket("RTP packet shorter than its CSRC list or header extension")
    block, places = b"", _NOWHERE
    if words:
        block = bytes(data[start:behind])
        places = _places(profile, block)
    # RtpPacket(…) itself is a function in Python around this.
    return tuple.__new__(
        RtpPacket, (second & 0x7F, second > 0x7F, sequence_number, timestamp, ssrc, block, places, behind, end)
    )


class _Shape(NamedTuple):
    """Blocks that agree with ``heads`` in the bits of ``mask``, all but the elements' values, have the same places."""

    mask: int
    heads: int
    places: Places


# By profile, length and first byte: the last shape seen. Senders have few, and keep to them.
_shapes: dict[tuple[int, int, int], _Shape] = {}
_MAX_SHAPES: Final = 1024
_MAX_SHAPED: Final = 64  # bytes; what is longer is rare


def _places(profile: int, block: bytes) -> Places:
    """Where the elements lie; nowhere in a profile that is not known. Raises :class:`BadPacket`."""
    key = (profile, len(block), block[0])
    shape = _shapes.get(key)
    if shape is not None and int.from_bytes(block, "big") & shape.mask == shape.heads:
        return shape.places
    if profile == ONE_BYTE_PROFILE:
        places, ignored = _one_byte_places(block)
    elif profile & 0xFFF0 == TWO_BYTE_PROFILE:
        places, ignored = _two_byte_places(block)
    else:
        return _NOWHERE
    if len(block) <= _MAX_SHAPED:
        mask = bytearray(b"\xff" * len(block))
        for place in ignored:
            mask[place] = bytes(place.stop - place.start)
        bits = int.from_bytes(mask, "big")
        if len(_shapes) >= _MAX_SHAPES:
            _shapes.clear()
        _shapes[key] = _Shape(bits, int.from_bytes(block, "big") & bits, places)
    return places


def _one_byte_places(block: bytes) -> tuple[Places, list[slice]]:
    """The places by identifier, and what of the block does not say where they are: the values."""
    places: Places = {}
    values: list[slice] = []
    offset, end = 0, len(block)
    while offset < end:
        head = block[offset]
        offset += 1
        if not head:  # a padding byte
            continue
        # Reserved, or padding that says it has a length: processing ends there (RFC 8285, section 4.2).
        if head < 0x10 or head >= 0xF0:
            values.append(slice(offset, end))
            break
        behind = offset + (head & 0x0F) + 1
        if behind > end:
            raise BadPacket("RTP header extension element truncated")
        places[head >> 4] = slice(offset, behind)
        values.append(slice(offset, behind))
        offset = behind
    return places, values


def _two_byte_places(block: bytes) -> tuple[Places, list[slice]]:
    """As :func:`_one_byte_places`."""
    places: Places = {}
    values: list[slice] = []
    offset, end = 0, len(block)
    while offset < end:
        identifier = block[offset]
        offset += 1
        if not identifier:  # a padding byte
            continue
        if offset == end:
            raise BadPacket("RTP header extension element truncated")
        behind = offset + 1 + block[offset]
        if behind > end:
            raise BadPacket("RTP header extension element truncated")
        places[identifier] = slice(offset + 1, behind)
        values.append(slice(offset + 1, behind))
        offset = behind
    return places, values


def pack_extensions(elements: list[tuple[int, bytes]]) -> tuple[bool, bytes]:
    """Pack header extension elements, padded to whole words, without the four-byte extension header.

    Returns whether the two-byte form (RFC 8285, section 4.3) was needed, which is so when an element is
    empty or longer than 16 bytes, and the bytes. Identifiers are 1 to 14, elements at most 255 bytes.
    """
    wide = False
    packed = b""
    for identifier, value in elements:
        if not 0 < len(value) <= 16:
            wide = True
            break
        packed += _HEADS[identifier << 4 | len(value) - 1] + value
    if wide:
        packed = b"".join([bytes((identifier, len(value))) + value for identifier, value in elements])
    return wide, packed + _PADDING[len(packed) & 3]


def unpack_extensions(wide: bool, packed: bytes) -> list[tuple[int, bytes]]:
    """The elements that :func:`pack_extensions` packed."""
    places, _ = (_two_byte_places if wide else _one_byte_places)(packed)
    return [(identifier, packed[place]) for identifier, place in places.items()]
