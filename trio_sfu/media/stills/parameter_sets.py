"""H.264's parameter sets and slice headers: the fields that a repeat's own slice header depends on (ITU-T H.264).

For :mod:`trio_sfu.media.stills.h264`. All functions take a NAL unit with its header, emulation prevention included,
and raise :class:`BadPacket`, also for what a repeat cannot be made for.
"""

from typing import Final, NamedTuple

from trio_sfu.media.stills.limits import MAX_MACROBLOCKS
from trio_sfu.wire.bits import BitReader
from trio_sfu.wire.errors import BadPacket

__all__ = ["Pps", "Slice", "Sps", "read_pps", "read_slice", "read_sps"]

# Those whose SPS says the chroma format and may have scaling lists (section 7.3.2.1.1).
_HIGH_PROFILES: Final = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
_MAX_LENGTH: Final = 2048  # bytes of a parameter set
_SLICE_HEADER_LENGTH: Final = 40  # bytes that hold the fields that are read


class Sps(NamedTuple):
    """A sequence parameter set (section 7.3.2.1.1)."""

    sps_id: int
    chroma: bool
    frame_num_bits: int
    order_count_type: int
    order_count_bits: int
    """Of pic_order_cnt_lsb, where the type is 0."""
    always_zero: bool
    """delta_pic_order_always_zero_flag, where the type is 1."""
    macroblocks: int


class Pps(NamedTuple):
    """A picture parameter set (section 7.3.2.2)."""

    pps_id: int
    sps_id: int
    cabac: bool
    bottom_order: bool
    """bottom_field_pic_order_in_frame_present_flag"""
    weighted: bool
    """weighted_pred_flag"""
    qp: int
    """26 + pic_init_qp_minus26"""
    deblocking_control: bool
    """deblocking_filter_control_present_flag"""
    redundant: bool
    """redundant_pic_cnt_present_flag"""


class Slice(NamedTuple):
    """What is kept of a slice header (section 7.3.3)."""

    pps_id: int
    b: bool
    """Whether it is a B slice."""
    reference: bool
    frame_num: int
    order_count: int
    """pic_order_cnt_lsb; 0 where the type is not 0."""


def _payload(nal: bytes) -> BitReader:
    """The bits after the NAL unit's header, without emulation prevention (section 7.4.1.1)."""
    return BitReader(nal[1:].replace(b"\x00\x00\x03", b"\x00\x00"))


def read_sps(nal: bytes) -> Sps:
    """Raises :class:`BadPacket` also for interlaced video, separate colour planes and pictures too large."""
    bits = _payload(nal[:_MAX_LENGTH])
    profile = bits.u(8)
    bits.u(8 + 8)  # constraints, level_idc
    sps_id = _id(bits.ue(), 31)
    chroma_format = 1
    if profile in _HIGH_PROFILES:
        chroma_format = bits.ue()
        if chroma_format == 3 and bits.u(1):
            raise BadPacket("separate colour planes")
        bits.ue()  # bit_depth_luma_minus8
        bits.ue()
        bits.u(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.u(1):
            _skip_scaling_lists(bits, 8 if chroma_format != 3 else 12)
    frame_num_bits = bits.ue() + 4
    order_count_type = bits.ue()
    order_count_bits = 0
    always_zero = False
    if order_count_type == 0:
        order_count_bits = bits.ue() + 4
    elif order_count_type == 1:
        always_zero = bool(bits.u(1))
        bits.se()  # offset_for_non_ref_pic
        bits.se()
        for _ in range(_id(bits.ue(), 255)):
            bits.se()
    if frame_num_bits > 16 or order_count_bits > 16 or order_count_type > 2:
        raise BadPacket("no SPS")
    bits.ue()  # max_num_ref_frames
    bits.u(1)
    macroblocks = (bits.ue() + 1) * (bits.ue() + 1)
    if not bits.u(1):
        raise BadPacket("interlaced video")
    if macroblocks > MAX_MACROBLOCKS:
        raise BadPacket("too large a picture")
    return Sps(sps_id, chroma_format != 0, frame_num_bits, order_count_type, order_count_bits, always_zero, macroblocks)


def read_pps(nal: bytes) -> Pps:
    """Raises :class:`BadPacket` also for slice groups."""
    bits = _payload(nal[:_MAX_LENGTH])
    pps_id, sps_id = _id(bits.ue(), 255), _id(bits.ue(), 31)
    cabac, bottom_order = bool(bits.u(1)), bool(bits.u(1))
    if bits.ue():
        raise BadPacket("slice groups")
    bits.ue()  # num_ref_idx_l0_default_active_minus1
    bits.ue()
    weighted = bool(bits.u(1))
    bits.u(2)  # weighted_bipred_idc
    qp = 26 + bits.se()
    bits.se()  # pic_init_qs_minus26
    bits.se()  # chroma_qp_index_offset
    deblocking_control = bool(bits.u(1))
    bits.u(1)  # constrained_intra_pred_flag
    return Pps(pps_id, sps_id, cabac, bottom_order, weighted, qp, deblocking_control, bool(bits.u(1)))


def read_slice(nal: bytes, spss: dict[int, Sps], ppss: dict[int, Pps]) -> Slice:
    """Raises :class:`BadPacket` also for a slice whose parameter sets are not known."""
    bits = _payload(nal[:_SLICE_HEADER_LENGTH])
    bits.ue()  # first_mb_in_slice
    b = bits.ue() % 5 == 1  # slice_type
    pps = ppss.get(bits.ue())
    sps = spss.get(pps.sps_id) if pps is not None else None
    if pps is None or sps is None:
        raise BadPacket("a slice without parameter sets")
    frame_num = bits.u(sps.frame_num_bits)
    if nal[0] & 0x1F == 5:
        bits.ue()  # idr_pic_id
    return Slice(pps.pps_id, b, bool(nal[0] & 0x60), frame_num, bits.u(sps.order_count_bits))


def _id(value: int, largest: int) -> int:
    if value > largest:
        raise BadPacket("a parameter set's number is too large")
    return value


def _skip_scaling_lists(bits: BitReader, count: int) -> None:
    """Section 7.3.2.1.1.1: six lists of 16, then lists of 64."""
    for number in range(count):
        if not bits.u(1):
            continue
        scale = 8
        for _ in range(16 if number < 6 else 64):
            scale = (scale + bits.se()) % 256
            if not scale:
                break
