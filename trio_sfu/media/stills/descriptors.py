"""The payload descriptors of VP8 and VP9: where the frame's data begins, and the plainest form of them.

FFmpeg's depacketizers need that plainest form. The one for VP8 gives up until the next keyframe where a picture id
is not the last one's successor, and an inserted frame or a temporal layer left out makes that so. The one for VP9
follows an early draft: it does not know TL0PICIDX nor today's reference indices, and takes them for the frame's
first bytes. Nothing is lost by leaving them out: sequence numbers tell of losses, and the frames themselves say the
rest.
"""

from typing import NamedTuple

from trio_sfu.wire.errors import BadPacket

__all__ = ["Vp9Descriptor", "plain_vp8", "plain_vp9", "read_vp8", "read_vp9"]


def read_vp8(payload: bytes) -> int:
    """The length of the descriptor in bytes (RFC 7741, section 4.2). Raises :class:`BadPacket`."""
    try:
        at = 1
        if payload[0] & 0x80:  # X
            extension = payload[1]
            at = 2
            if extension & 0x80:  # I: the picture id, two bytes where its M bit is set
                at = 4 if payload[2] & 0x80 else 3
            if extension & 0x40:  # L
                at += 1
            if extension & 0x30:  # T or K
                at += 1
    except IndexError:
        raise BadPacket("short VP8 descriptor") from None
    if at >= len(payload):
        raise BadPacket("no VP8 data")
    return at


class Vp9Descriptor(NamedTuple):
    """What matters here of RFC 9628, section 4.2. ``length`` is in bytes."""

    length: int
    begins_frame: bool
    spatial_id: int


def read_vp9(payload: bytes) -> Vp9Descriptor:
    """Read a descriptor ``|I|P|L|F|B|E|V|Z|`` … (RFC 9628, section 4.2). Raises :class:`BadPacket`."""
    try:
        first = payload[0]
        at = 1
        spatial_id = 0
        if first & 0x80:  # I: the picture id, two bytes where its M bit is set
            at += 2 if payload[at] & 0x80 else 1
        if first & 0x20:  # L: | TID |U| SID |D|, and TL0PICIDX where not in flexible mode
            spatial_id = payload[at] >> 1 & 7
            at += 1 if first & 0x10 else 2
        if first & 0x50 == 0x50:  # F and P: | P_DIFF |N| as long as N, three at most
            for _ in range(3):
                at += 1
                if not payload[at - 1] & 1:
                    break
        if first & 0x02:  # V: the scalability structure
            at = _after_structure(payload, at)
    except IndexError:
        raise BadPacket("short VP9 descriptor") from None
    if at >= len(payload):
        raise BadPacket("no VP9 data")
    return Vp9Descriptor(at, bool(first & 0x08), spatial_id)


def _after_structure(payload: bytes, at: int) -> int:
    """``| N_S |Y|G|-|-|-|``, N_S + 1 resolutions where Y; where G: N_G, and for each ``|TID|U|R|-|-|`` and R bytes."""
    head = payload[at]
    at += 1
    if head & 0x10:
        at += 4 * ((head >> 5) + 1)
    if head & 0x08:
        pictures = payload[at]
        at += 1
        for _ in range(pictures):
            at += 1 + (payload[at] >> 2 & 3)
    return at


def plain_vp8(payload: bytes) -> bytes:
    """The payload with a descriptor of one byte. One that is no VP8 stays as it is."""
    if not payload or not payload[0] & 0x80:
        return payload
    try:
        return bytes((payload[0] & 0x7F,)) + payload[read_vp8(payload) :]
    except BadPacket:
        return payload


def plain_vp9(payload: bytes) -> bytes:
    """The payload with a descriptor of one byte: P, B, E and Z. One that is no VP9 stays as it is."""
    try:
        return bytes((payload[0] & 0x4D,)) + payload[read_vp9(payload).length :]
    except (BadPacket, IndexError):
        return payload
