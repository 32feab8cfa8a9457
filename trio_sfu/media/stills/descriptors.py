"""The plainest form of the payload descriptors of VP8 and VP9.

FFmpeg's depacketizers need that plainest form. The one for VP8 gives up until the next keyframe where a picture id
is not the last one's successor, and an inserted frame or a temporal layer left out makes that so. The one for VP9
follows an early draft: it does not know TL0PICIDX nor today's reference indices, and takes them for the frame's
first bytes. Nothing is lost by leaving them out: sequence numbers tell of losses, and the frames themselves say the
rest.
"""

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.vp8 import parse_vp8
from trio_sfu.wire.vp9 import parse_vp9

__all__ = ["plain_vp8", "plain_vp9"]


def plain_vp8(payload: bytes) -> bytes:
    """The payload with a descriptor of one byte. One that is no VP8 stays as it is."""
    if not payload or not payload[0] & 0x80:
        return payload
    try:
        return bytes((payload[0] & 0x7F,)) + payload[parse_vp8(payload).size :]
    except BadPacket:
        return payload


def plain_vp9(payload: bytes) -> bytes:
    """The payload with a descriptor of one byte: P, B, E and Z. One that is no VP9 stays as it is."""
    try:
        return bytes((payload[0] & 0x4D,)) + payload[parse_vp9(payload).size :]
    except (BadPacket, IndexError):
        return payload
