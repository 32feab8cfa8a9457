"""RTP packets (RFC 3550, section 5.1) and their header extensions (RFC 8285).

Pure functions over one datagram's bytes. Called once per incoming packet, so the result is a plain
named tuple of integers and offsets into the caller's buffer; nothing but the extensions is copied.
"""

import struct
from typing import NamedTuple

from trio_sfu.wire.errors import BadPacket

__all__ = ["ONE_BYTE_PROFILE", "TWO_BYTE_PROFILE", "RtpPacket", "pack_extensions", "parse_rtp", "unpack_extensions"]

ONE_BYTE_PROFILE = 0xBEDE  # RFC 8285, section 4.2
TWO_BYTE_PROFILE = 0x1000  # RFC 8285, section 4.3: the low four bits are "appbits"

_HEADER = struct.Struct("!BBHII")
_EXTENSION_HEADER = struct.Struct("!HH")
_HEADS = [bytes((head,)) for head in range(256)]
_PADDING = (b"", bytes(3), bytes(2), bytes(1))


class RtpPacket(NamedTuple):
    """One parsed RTP packet.

    ``payload_start`` and ``payload_end`` are offsets into the parsed buffer; CSRCs, header extension and
    padding lie outside them. ``extensions`` maps local identifiers to the elements' bytes.
    """

    payload_type: int
    marker: bool
    sequence_number: int
    timestamp: int
    ssrc: int
    extensions: dict[int, bytes]
    payload_start: int
    payload_end: int


def parse_rtp(data: memoryview | bytes) -> RtpPacket:
    """Parse one unprotected RTP packet that fills ``data``. Raises :class:`BadPacket`."""
    size = len(data)
    if size < 12:
        raise BadPacket("RTP packet shorter than its fixed header")
    first, second, sequence_number, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != 2:
        raise BadPacket("RTP version is not 2")
    offset = 12 + 4 * (first & 0x0F)
    extensions: dict[int, bytes] = {}
    if first & 0x10:
        if size < offset + 4:
            raise BadPacket("RTP header extension truncated")
        profile, words = _EXTENSION_HEADER.unpack_from(data, offset)
        start = offset + 4
        offset = start + 4 * words
        if size < offset:
            raise BadPacket("RTP header extension truncated")
        # Copied as one: slices of bytes cost half of what copies from a memoryview do.
        if profile == ONE_BYTE_PROFILE:
            _read_one_byte(bytes(data[start:offset]), extensions)
        elif profile & 0xFFF0 == TWO_BYTE_PROFILE:
            _read_two_byte(bytes(data[start:offset]), extensions)
    end = size
    if first & 0x20:
        padding = data[-1]
        if not 0 < padding <= size - offset:
            raise BadPacket("RTP padding longer than the packet")
        end -= padding
    if offset > end:
        raise BadPacket("RTP packet shorter than its CSRC list")
    # RtpPacket(…) itself is a function in Python around this.
    return tuple.__new__(
        RtpPacket, (second & 0x7F, second > 0x7F, sequence_number, timestamp, ssrc, extensions, offset, end)
    )


def _read_one_byte(data: bytes, found: dict[int, bytes]) -> None:
    offset, end = 0, len(data)
    while offset < end:
        head = data[offset]
        offset += 1
        if not head:  # a padding byte
            continue
        # Reserved, or padding that says it has a length: processing ends there (RFC 8285, section 4.2).
        if head < 0x10 or head >= 0xF0:
            return
        behind = offset + (head & 0x0F) + 1
        if behind > end:
            raise BadPacket("RTP header extension element truncated")
        found[head >> 4] = data[offset:behind]
        offset = behind


def _read_two_byte(data: bytes, found: dict[int, bytes]) -> None:
    offset, end = 0, len(data)
    while offset < end:
        identifier = data[offset]
        offset += 1
        if not identifier:  # a padding byte
            continue
        if offset == end:
            raise BadPacket("RTP header extension element truncated")
        length = data[offset]
        offset += 1
        if offset + length > end:
            raise BadPacket("RTP header extension element truncated")
        found[identifier] = data[offset : offset + length]
        offset += length


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
    found: dict[int, bytes] = {}
    (_read_two_byte if wide else _read_one_byte)(packed, found)
    return list(found.items())
