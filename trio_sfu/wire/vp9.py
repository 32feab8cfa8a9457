"""The VP9 payload descriptor (RFC 9628, section 4.2): read, and its ids rewritten in place.

Pure functions over one RTP payload's bytes, called for each packet of a stream from which spatial or temporal layers
are left out, and by whoever needs to know where the frame's data begins.
"""

from typing import NamedTuple

from trio_sfu.wire.errors import BadPacket

__all__ = ["Vp9Payload", "Vp9Structure", "parse_vp9", "with_vp9_ids"]

_MOST_REFERENCES = 3  # P_DIFFs of a frame


class Vp9Structure(NamedTuple):
    """The scalability structure (section 4.2.1): how many spatial layers, and each one's (width, height) if said."""

    spatial_layers: int
    resolutions: tuple[tuple[int, int], ...]


class Vp9Payload(NamedTuple):
    """One parsed descriptor. What the descriptor does not hold is None, and its offset 0.

    ``size`` is the descriptor's, in bytes; offsets are into the payload. A frame is one spatial layer of a picture
    here: ``begins_frame`` (B) and ``ends_frame`` (E) mark its first and last packet. ``inter_picture_predicted`` (P)
    frames refer to pictures before theirs, ``inter_layer_predicted`` (D) ones to the spatial layer below; one that is
    ``not_reference_for_upper`` (Z) is not referred to by the layers above. At a ``switching_up_point`` (U) a receiver
    may go up to ``temporal_layer``: the frames after it refer to none of that layer before it. ``picture_id_bits`` is
    15, 7, or 0 where there is no picture id. ``p_diffs`` are the picture id's distances to the pictures referred to,
    said in ``flexible`` mode (F) only, TL0PICIDX otherwise only.
    """

    size: int
    begins_frame: bool
    ends_frame: bool
    keyframe: bool
    inter_picture_predicted: bool
    not_reference_for_upper: bool
    flexible: bool
    picture_id: int | None
    picture_id_bits: int
    picture_id_at: int
    temporal_layer: int | None
    switching_up_point: bool
    spatial_layer: int | None
    inter_layer_predicted: bool
    tl0_pic_idx: int | None
    tl0_at: int
    p_diffs: tuple[int, ...]
    structure: Vp9Structure | None


def parse_vp9(payload: memoryview | bytes) -> Vp9Payload:
    """Parse the descriptor that a payload without padding begins with. Raises :class:`BadPacket`.

    ``keyframe`` is what :func:`trio_sfu.wire.keyframe.keyframe_test` says too: the first packet of a keyframe's base
    layer. A descriptor that nothing follows is refused.
    """
    picture_id = temporal_layer = spatial_layer = tl0_pic_idx = structure = None
    picture_id_bits = picture_id_at = tl0_at = layers = 0
    p_diffs: tuple[int, ...] = ()
    at = 1
    try:
        first = payload[0]  # |I|P|L|F|B|E|V|Z|
        if first & 0x80:  # I: |M| picture id |, another byte of it where M
            picture_id_at = 1
            picture_id = payload[1]
            if picture_id & 0x80:
                picture_id = (picture_id & 0x7F) << 8 | payload[2]
                picture_id_bits = 15
                at = 3
            else:
                picture_id_bits = 7
                at = 2
        if first & 0x20:  # L: | TID |U| SID |D|, and TL0PICIDX where not in flexible mode
            layers = payload[at]
            temporal_layer = layers >> 5
            spatial_layer = layers >> 1 & 7
            at += 1
            if not first & 0x10:
                tl0_pic_idx = payload[at]
                tl0_at = at
                at += 1
        if first & 0x50 == 0x50:  # F and P
            p_diffs = _p_diffs(payload, at)
            at += len(p_diffs)
        if first & 0x02:  # V
            structure, at = _structure(payload, at)
    except IndexError:
        raise BadPacket("short VP9 descriptor") from None
    if at >= len(payload):
        raise BadPacket("no VP9 data")
    return Vp9Payload(
        at,
        first & 0x08 != 0,
        first & 0x04 != 0,
        first & 0x48 == 0x08 and not layers & 0x0E,
        first & 0x40 != 0,
        first & 0x01 != 0,
        first & 0x10 != 0,
        picture_id,
        picture_id_bits,
        picture_id_at,
        temporal_layer,
        layers & 0x10 != 0,
        spatial_layer,
        layers & 0x01 != 0,
        tl0_pic_idx,
        tl0_at,
        p_diffs,
        structure,
    )


def with_vp9_ids(payload: memoryview | bytes, parsed: Vp9Payload, picture_id: int, tl0_pic_idx: int) -> bytes:
    """The payload with other ids in their places, as long as before. ``parsed`` is what was parsed from it.

    Ids are cut to the width that they have in the payload; one that the payload does not have is left out. References
    are distances of picture ids, so all of a stream's ids have to be moved by the same amount.
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


def _p_diffs(payload: memoryview | bytes, at: int) -> tuple[int, ...]:
    """``| P_DIFF |N|``, as long as N, three at most."""
    found = []
    for each in range(at, at + _MOST_REFERENCES):
        value = payload[each]
        found.append(value >> 1)
        if not value & 0x01:
            break
    return tuple(found)


def _structure(payload: memoryview | bytes, at: int) -> tuple[Vp9Structure, int]:
    """``| N_S |Y|G|-|-|-|``, N_S + 1 resolutions where Y; where G: N_G, and for each ``|TID|U|R|-|-|`` and R bytes.

    Returns the offset of what follows too.
    """
    head = payload[at]
    spatial_layers = (head >> 5) + 1
    at += 1
    resolutions = []
    if head & 0x10:
        for each in range(at, at + 4 * spatial_layers, 4):
            width = payload[each] << 8 | payload[each + 1]
            resolutions.append((width, payload[each + 2] << 8 | payload[each + 3]))
        at += 4 * spatial_layers
    if head & 0x08:
        pictures = payload[at]
        at += 1
        for _ in range(pictures):
            at += 1 + (payload[at] >> 2 & 3)
    return Vp9Structure(spatial_layers, tuple(resolutions)), at
