"""Where a packet stands among the layers of its stream: read once as it arrives, for everybody who gets a part of them.

Layers are told by the payload descriptor (VP8, VP9) or by the dependency descriptor extension (any codec; for H.264
and AV1 it is the only one who tells). Made by the incoming stream; :mod:`trio_sfu.media.layer_view` decides by it.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from trio_sfu.wire.dependency_descriptor import (
    SWITCH,
    DependencyDescriptor,
    DependencyStructure,
    parse_dependency_descriptor,
)
from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.vp8 import parse_vp8
from trio_sfu.wire.vp9 import parse_vp9

__all__ = ["EVERYTHING", "FrameIds", "FrameMark", "Layers", "MarkReader", "shifted", "write_ids"]

_NUMBER: Final = struct.Struct("!H")


class Layers(NamedTuple):
    """A spatial and a temporal layer, 0 the lowest: as a place in a stream, or as the highest ones that are wanted."""

    spatial: int
    temporal: int

    def hold(self, layers: "Layers") -> bool:
        """Whether what belongs to ``layers`` is part of what these ask for."""
        return layers.spatial <= self.spatial and layers.temporal <= self.temporal


EVERYTHING: Final = Layers(255, 255)


class FrameIds(NamedTuple):
    """The picture's numbers in a payload descriptor, and where in the payload they lie.

    ``picture_id_bits`` is 15, 7, or 0 where there is none; ``tl0_at`` is 0 where there is no TL0PICIDX.
    """

    picture_id: int
    picture_id_bits: int
    picture_id_at: int
    tl0_pic_idx: int
    tl0_at: int


def write_ids(target: bytearray | memoryview, payload: int, ids: FrameIds) -> None:
    """Write ``ids`` into the payload descriptor that begins at ``payload``."""
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
    shifted_id = picture_id + picture_offset & (1 << bits) - 1
    # For each consumer of each batch: FrameIds(…) itself is a function in Python around this.
    return tuple.__new__(FrameIds, (shifted_id, bits, at, tl0_pic_idx + tl0_offset & 0xFF, tl0_at))


class FrameMark(NamedTuple):
    """``layers``: the packet's own. ``sync``: a mask of temporal layers; who has those below may begin here."""

    layers: Layers
    begins_picture: bool
    ends_frame: bool
    """The last packet of this spatial layer's frame."""
    sync: int
    ids: FrameIds | None
    dependency: DependencyDescriptor | None


class MarkReader:
    """Reads the marks of one stream, where its packets tell of layers. Dependency descriptors refer to a structure that
    came with a keyframe: it is kept here.
    """

    __slots__ = (
        "_always",
        "_read",
        "_structure",
    )

    def __init__(self, mime_type: str, *, always: bool) -> None:
        """``always``: picture ids are wanted even of a stream without layers, since consumers go over to others."""
        self._read: Final[Callable[[memoryview, bool], FrameMark | None] | None] = {
            "video/vp8": self._vp8,
            "video/vp9": self._vp9,
        }.get(mime_type.lower())
        self._always: Final = always
        self._structure: DependencyStructure | None = None

    @property
    def structure(self) -> DependencyStructure | None:
        """What the last keyframe's dependency descriptor said of the layers."""
        return self._structure

    def read(self, payload: memoryview, marker: bool, descriptor: bytes | None) -> FrameMark | None:
        """The mark of one packet; None where nothing tells of layers. ``descriptor``: the extension's data, if any.

        What cannot be read has no mark, and is forwarded to whoever gets everything.
        """
        try:
            if self._read is not None:
                return self._read(payload, marker)
            return self._dependency(descriptor) if descriptor is not None else None
        except BadPacket:
            return None

    def _vp8(self, payload: memoryview, marker: bool) -> FrameMark | None:
        if len(payload) < 2 or not ((payload[0] & 0x80 and payload[1] & 0x20) or self._always):
            return None
        parsed = parse_vp8(payload)
        ids = None
        if parsed.picture_id is not None:
            ids = FrameIds(
                parsed.picture_id,
                parsed.picture_id_bits,
                parsed.picture_id_at,
                parsed.tl0_pic_idx or 0,
                parsed.tl0_at,
            )
        temporal = parsed.temporal_layer or 0
        sync = 1 << temporal if parsed.layer_sync else 0
        return FrameMark(Layers(0, temporal), parsed.begins_frame, marker, sync, ids, None)

    def _vp9(self, payload: memoryview, marker: bool) -> FrameMark | None:
        if not payload or not (payload[0] & 0x20 or self._always):
            return None
        parsed = parse_vp9(payload)
        ids = None
        if parsed.picture_id is not None:
            ids = FrameIds(
                parsed.picture_id,
                parsed.picture_id_bits,
                parsed.picture_id_at,
                parsed.tl0_pic_idx or 0,
                parsed.tl0_at,
            )
        layers = Layers(parsed.spatial_layer or 0, parsed.temporal_layer or 0)
        return FrameMark(
            layers,
            parsed.begins_frame and layers.spatial == 0,
            parsed.ends_frame,
            1 << layers.temporal if parsed.switching_up_point else 0,
            ids,
            None,
        )

    def _dependency(self, descriptor: bytes) -> FrameMark | None:
        parsed = parse_dependency_descriptor(descriptor, self._structure)
        if parsed.structure is not None:
            self._structure = parsed.structure
        structure = self._structure
        assert structure is not None
        layers = Layers(parsed.spatial_layer, parsed.temporal_layer)
        begins = parsed.start_of_frame and layers.spatial == 0
        sync = 0
        if begins:
            # A frame of the base layer mostly: discardable ones are no switches, though nothing is missing before them.
            for (spatial, temporal), indication in zip(structure.targets, parsed.dtis, strict=True):
                if spatial == 0 and indication == SWITCH:
                    sync |= 1 << temporal
        return FrameMark(layers, begins, parsed.end_of_frame, sync, None, parsed)
