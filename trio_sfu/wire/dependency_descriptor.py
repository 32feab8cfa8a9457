"""The Dependency Descriptor header extension (AV1 RTP specification, appendix A): read, and parts of it rewritten.

It says of each packet which frame and which layers it belongs to and what the frame refers to. A keyframe's first
packet brings the structure, templates that the packets after it name by number; most of those have three bytes. Pure
functions over the extension element's bytes; whoever follows a stream keeps its newest structure and gives it back.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from trio_sfu.wire.bits import BitReader
from trio_sfu.wire.errors import BadPacket

__all__ = [
    "DISCARDABLE",
    "NOT_PRESENT",
    "REQUIRED",
    "SWITCH",
    "DependencyDescriptor",
    "DependencyStructure",
    "FrameTemplate",
    "parse_dependency_descriptor",
    "with_active_decode_targets",
    "with_frame_number",
]

# Decode target indications (table A.2): what a frame is to a decode target.
NOT_PRESENT: Final = 0
DISCARDABLE: Final = 1  # no frame of the target refers to it
SWITCH: Final = 2  # if it can be decoded, so can all frames of the target after it
REQUIRED: Final = 3

_MAX_TEMPLATES: Final = 64
_MAX_SPATIAL_ID: Final = 3
_MAX_TEMPORAL_ID: Final = 7

# The five flags of the extended fields.
_STRUCTURE, _ACTIVE, _DTIS, _FDIFFS, _CHAINS = 16, 8, 4, 2, 1
_FLAGS_END: Final = 29  # bits: the mandatory fields' 24, and the flags


class FrameTemplate(NamedTuple):
    """What many frames have in common. The fields are those of :class:`DependencyDescriptor`."""

    spatial_layer: int
    temporal_layer: int
    dtis: tuple[int, ...]
    frame_diffs: tuple[int, ...]
    chain_diffs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DependencyStructure:
    """The template dependency structure, and what follows from it.

    ``targets`` are the highest (spatial, temporal) layer of each decode target's frames. ``protected_by`` is the
    number of the chain that protects each decode target, nothing without chains. ``resolutions`` are the (width,
    height) of each spatial layer, or nothing where they are not said.
    """

    template_id_offset: int
    decode_target_count: int
    chain_count: int
    templates: tuple[FrameTemplate, ...]
    protected_by: tuple[int, ...]
    resolutions: tuple[tuple[int, int], ...]
    targets: tuple[tuple[int, int], ...]
    spatial_layers: int
    temporal_layers: int

    def template(self, template_id: int) -> FrameTemplate:
        """The template of a number. Raises :class:`BadPacket` where it is none of this structure's."""
        index = template_id - self.template_id_offset & 0x3F
        if index >= len(self.templates):
            raise BadPacket("a dependency descriptor of another structure")
        return self.templates[index]

    def targets_up_to(self, spatial_layer: int, temporal_layer: int) -> int:
        """The mask of the decode targets that need no layer above these."""
        return sum(
            1 << index
            for index, (spatial, temporal) in enumerate(self.targets)
            if spatial <= spatial_layer and temporal <= temporal_layer
        )


class DependencyDescriptor(NamedTuple):
    """One parsed descriptor.

    ``dtis`` say for each decode target what the frame is to it: :data:`NOT_PRESENT`, :data:`DISCARDABLE`,
    :data:`SWITCH` or :data:`REQUIRED`. ``frame_diffs`` are the distances of ``frame_number`` to those of the frames
    referred to, ``chain_diffs`` for each chain to that of its last frame, 0 where it begins here. ``structure`` is a
    new one that this packet brings. ``active_decode_targets`` is a mask of those that are sent from here on (bit i
    for target i), None where the packet says nothing of it; with a new structure that is all of them.
    """

    start_of_frame: bool
    end_of_frame: bool
    template_id: int
    frame_number: int
    spatial_layer: int
    temporal_layer: int
    dtis: tuple[int, ...]
    frame_diffs: tuple[int, ...]
    chain_diffs: tuple[int, ...]
    structure: DependencyStructure | None
    active_decode_targets: int | None


class _Extended(NamedTuple):
    """The extended fields. ``mask_at`` and ``mask_end`` are bit offsets, as is ``end``, of the padding."""

    structure: DependencyStructure | None
    active: int | None
    template: FrameTemplate
    mask_at: int
    mask_end: int
    end: int
    decode_target_count: int


def parse_dependency_descriptor(
    data: memoryview | bytes, structure: DependencyStructure | None
) -> DependencyDescriptor:
    """Parse the bytes of one extension element; ``structure`` is the newest one that the stream has brought.

    Raises :class:`BadPacket`, also where the descriptor needs a structure that is not there, or another one.
    """
    size = len(data)
    if size < 3:
        raise BadPacket("short dependency descriptor")
    first = data[0]
    template_id = first & 0x3F
    if size == 3:  # the common case, so without a call
        if structure is None:
            raise BadPacket("a dependency descriptor without a structure")
        index = template_id - structure.template_id_offset & 0x3F
        templates = structure.templates
        if index >= len(templates):
            raise BadPacket("a dependency descriptor of another structure")
        template = templates[index]
        new = active = None
    else:
        new, active, template, _, _, _, _ = _extended(data, structure)
    return DependencyDescriptor(
        first > 0x7F, first & 0x40 != 0, template_id, data[1] << 8 | data[2], *template, new, active
    )


def with_active_decode_targets(data: memoryview | bytes, structure: DependencyStructure | None, mask: int) -> bytes:
    """The descriptor, saying that the decode targets of ``mask`` are sent from here on. It may get longer.

    ``structure`` is the one in force before it, as for parsing. A structure and all else that the descriptor holds
    stays. ``mask`` is cut to the structure's decode targets. Raises :class:`BadPacket` as parsing does.
    """
    if len(data) < 3:
        raise BadPacket("short dependency descriptor")
    value, size = int.from_bytes(data), 8 * len(data)
    if len(data) == 3:
        if structure is None:
            raise BadPacket("a dependency descriptor without a structure")
        structure.template(data[0] & 0x3F)
        value, size = value << 5, _FLAGS_END  # no flags
        mask_at = mask_end = end = size
        count = structure.decode_target_count
    else:
        *_, mask_at, mask_end, end, count = _extended(data, structure)
    rest = end - mask_end
    before = value >> size - mask_at | _ACTIVE << mask_at - _FLAGS_END
    after = value >> size - end & (1 << rest) - 1
    rewritten = (before << count | mask & (1 << count) - 1) << rest | after
    length = mask_at + count + rest
    return (rewritten << -length % 8).to_bytes((length + 7) // 8)


def with_frame_number(data: memoryview | bytes, frame_number: int) -> bytes:
    """The descriptor with another frame number, cut to 16 bits. Raises :class:`BadPacket` where it is too short.

    References are distances of frame numbers, so all of a stream's numbers have to be moved by the same amount.
    """
    if len(data) < 3:
        raise BadPacket("short dependency descriptor")
    return bytes((data[0], frame_number >> 8 & 0xFF, frame_number & 0xFF)) + data[3:]


def _extended(data: memoryview | bytes, structure: DependencyStructure | None) -> _Extended:
    """Section A.4.1: extended_descriptor_fields, and frame_dependency_definition with what is custom."""
    bits = BitReader(bytes(data))
    template_id = bits.u(8) & 0x3F
    bits.u(16)
    flags = bits.u(5)
    new = active = None
    if flags & _STRUCTURE:
        new = structure = _read_structure(bits)
        active = (1 << structure.decode_target_count) - 1
    if structure is None:
        raise BadPacket("a dependency descriptor without a structure")
    count = structure.decode_target_count
    mask_at = bits.position()
    if flags & _ACTIVE:
        active = bits.u(count)
    mask_end = bits.position()
    template = structure.template(template_id)
    if flags & (_DTIS | _FDIFFS | _CHAINS):
        _, _, dtis, frame_diffs, chain_diffs = template
        if flags & _DTIS:
            dtis = bits.several(count, 2)
        if flags & _FDIFFS:
            frame_diffs = _read_frame_diffs(bits)
        if flags & _CHAINS:
            chain_diffs = bits.several(structure.chain_count, 8)
        template = FrameTemplate(template.spatial_layer, template.temporal_layer, dtis, frame_diffs, chain_diffs)
    return _Extended(new, active, template, mask_at, mask_end, bits.position(), count)


def _read_frame_diffs(bits: BitReader) -> tuple[int, ...]:
    """frame_fdiffs: each with its size in units of four bits before it, until a size of 0."""
    found = []
    while size := bits.u(2):
        found.append(bits.u(4 * size) + 1)
    return tuple(found)


def _read_structure(bits: BitReader) -> DependencyStructure:
    """template_dependency_structure."""
    offset = bits.u(6)
    count = bits.u(5) + 1
    layers = _read_layers(bits)
    dtis = [bits.several(count, 2) for _ in layers]
    frame_diffs = [_read_template_diffs(bits) for _ in layers]
    chain_count = bits.ns(count + 1)
    protected_by = tuple(bits.ns(chain_count) for _ in range(count)) if chain_count else ()
    chain_diffs = [bits.several(chain_count, 4) for _ in layers]
    spatial_layers = layers[-1][0] + 1
    resolutions: tuple[tuple[int, int], ...] = ()
    if bits.u(1):
        resolutions = tuple((bits.u(16) + 1, bits.u(16) + 1) for _ in range(spatial_layers))
    return DependencyStructure(
        template_id_offset=offset,
        decode_target_count=count,
        chain_count=chain_count,
        templates=tuple(
            FrameTemplate(*layer, *rest) for layer, *rest in zip(layers, dtis, frame_diffs, chain_diffs, strict=True)
        ),
        protected_by=protected_by,
        resolutions=resolutions,
        targets=_highest_layers(layers, dtis, count),
        spatial_layers=spatial_layers,
        temporal_layers=max(temporal for _, temporal in layers) + 1,
    )


def _read_layers(bits: BitReader) -> list[tuple[int, int]]:
    """template_layers: the (spatial, temporal) layer of each template."""
    spatial = temporal = 0
    layers = [(0, 0)]
    while (step := bits.u(2)) != 3:
        if step == 1:
            temporal += 1
        elif step == 2:
            spatial, temporal = spatial + 1, 0
        layers.append((spatial, temporal))
        if spatial > _MAX_SPATIAL_ID or temporal > _MAX_TEMPORAL_ID or len(layers) > _MAX_TEMPLATES:
            raise BadPacket("too large a dependency structure")
    return layers


def _read_template_diffs(bits: BitReader) -> tuple[int, ...]:
    """template_fdiffs of one template: each after a 1, until a 0."""
    found = []
    while bits.u(1):
        found.append(bits.u(4) + 1)
    return tuple(found)


def _highest_layers(
    layers: list[tuple[int, int]], dtis: list[tuple[int, ...]], count: int
) -> tuple[tuple[int, int], ...]:
    """decode_target_layers: of each target the highest spatial and the highest temporal layer with a frame in it."""
    spatials, temporals = [0] * count, [0] * count
    for (spatial, temporal), row in zip(layers, dtis, strict=True):
        for target, dti in enumerate(row):
            if dti:
                spatials[target] = spatial  # templates come in the order of spatial layers
                if temporal > temporals[target]:
                    temporals[target] = temporal
    return tuple(zip(spatials, temporals, strict=True))
