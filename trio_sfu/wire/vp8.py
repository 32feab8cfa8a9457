"""The VP8 payload descriptor (RFC 7741, section 4.2): read, and its ids rewritten in place.

Pure functions over one RTP payload's bytes, called for each packet of a stream from which temporal layers are left
out, and by whoever needs to know where the frame's data begins.
"""

from typing import NamedTuple

from trio_sfu.wire.errors import BadPacket

__all__ = ["Vp8Payload", "parse_vp8", "with_vp8_ids"]


class Vp8Payload(NamedTuple):
    """One parsed descriptor. What the descriptor does not hold is None, and its offset 0.

    ``size`` is the descriptor's, in bytes; offsets are into the payload. ``picture_id_bits`` is 15, 7, or 0 where
    there is no picture id. ``layer_sync`` is the Y bit: the frame refers to the base layer only, so a receiver may
    go up to ``temporal_layer`` here. ``begins_frame`` says that it is the frame's first packet.
    """

    size: int
    begins_frame: bool
    keyframe: bool
    picture_id: int | None
    picture_id_bits: int
    picture_id_at: int
    tl0_pic_idx: int | None
    tl0_at: int
    temporal_layer: int | None
    layer_sync: bool


def parse_vp8(payload: memoryview | bytes) -> Vp8Payload:
    """Parse the descriptor that a payload without padding begins with. Raises :class:`BadPacket`.

    ``keyframe`` is what :func:`trio_sfu.wire.keyframe.keyframe_test` says too: the first packet of a keyframe.
    A descriptor that nothing follows is refused.
    """
    picture_id = tl0_pic_idx = temporal_layer = None
    picture_id_bits = picture_id_at = tl0_at = 0
    layer_sync = False
    at = 1
    try:
        first = payload[0]
        if first & 0x80:  # X: |I|L|T|K|
            extension = payload[1]
            at = 2
            if extension & 0x80:  # I: |M| picture id |, another byte of it where M
                picture_id_at = 2
                picture_id = payload[2]
                if picture_id & 0x80:
                    picture_id = (picture_id & 0x7F) << 8 | payload[3]
                    picture_id_bits = 15
                    at = 4
                else:
                    picture_id_bits = 7
                    at = 3
            if extension & 0x40:  # L
                tl0_pic_idx = payload[at]
                tl0_at = at
                at += 1
            if extension & 0x30:  # T or K: |TID|Y| KEYIDX |
                if extension & 0x20:
                    layers = payload[at]
                    temporal_layer = layers >> 6
                    layer_sync = layers & 0x20 != 0
                at += 1
        begins_frame = first & 0x17 == 0x10  # S=1, PID=0
        keyframe = not payload[at] & 0x01 and begins_frame  # section 4.3: P
    except IndexError:
        raise BadPacket("short VP8 payload") from None
    return Vp8Payload(
        at,
        begins_frame,
        keyframe,
        picture_id,
        picture_id_bits,
        picture_id_at,
        tl0_pic_idx,
        tl0_at,
        temporal_layer,
        layer_sync,
    )


def with_vp8_ids(payload: memoryview | bytes, parsed: Vp8Payload, picture_id: int, tl0_pic_idx: int) -> bytes:
    """The payload with other ids in their places, as long as before. ``parsed`` is what was parsed from it.

    Ids are cut to the width that they have in the payload; one that the payload does not have is left out.
    """
    rewritten = bytearray(payload)
    at = parsed.picture_id_at
    if parsed.picture_id_bits == 15:
        rewritten[at] = 0x80 | picture_id >> 8 & 0x7F
        rewritten[at + 1] = picture_id & 0xFF
    elif parsed.picture_id_bits:
        rewritten[at] = picture_id & 0x7F
    if parsed.tl0_pic_idx is not None:
        rewritten[parsed.tl0_at] = tl0_pic_idx & 0xFF
    return bytes(rewritten)
