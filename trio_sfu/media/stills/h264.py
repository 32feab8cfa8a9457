"""H.264: a P slice whose macroblocks are all skipped, of a picture that no other refers to (ITU-T H.264, RFC 6184).

A skipped macroblock beside the picture's edge, or beside one without motion, has no motion: so the whole picture is
the first one of the reference list, the newest of the reference frames. A picture that is no reference leaves the
decoded picture buffer and the numbering of the pictures after it alone.
"""

import re
from functools import lru_cache
from typing import Final

from trio_sfu.media.stills.parameter_sets import Pps, Slice, Sps, read_pps, read_slice, read_sps
from trio_sfu.wire.bits import BitWriter
from trio_sfu.wire.errors import BadPacket

__all__ = ["H264Repeater"]

_SLICE, _IDR, _SPS, _PPS, _STAP_A, _FU_A = 1, 5, 7, 8, 24, 28
_MAX_FRAGMENTED: Final = 4096  # bytes of a parameter set that comes in fragments
_TO_ESCAPE: Final = re.compile(rb"\x00\x00(?=[\x00-\x03])")

# Table 9-45, rangeTabLPS, of the states 42 to 62, the only ones that a row of most probable symbols passes from 42 on.
_FIRST_STATE: Final = 42
_LAST_STATE: Final = 62
_LEAST_PROBABLE: Final = bytes.fromhex(
    "1014171b 0f131619 0e121518 0e111417 0d101316 0c0f1215 0c0e1114 0b0e1013 0b0d0f12 0a0c0f11 0a0c0e10"
    "090b0d0f 090b0c0e 080a0c0e 08090b0d 07090b0c 07090a0c 07080a0b 0608090b 0607090a 06070809"
)
_CABAC_QP: Final = 51  # with it, the context of mb_skip_flag begins in state 42, most probable 1 (table 9-13)


class H264Repeater:
    """Knows the parameter sets and the last slice's header. See :class:`trio_sfu.media.stills.Repeater`."""

    __slots__ = ("_fragments", "_last", "_pps", "_reference_frame_num", "_reordered", "_sps")

    def __init__(self) -> None:
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, Pps] = {}
        self._fragments: bytearray | None = None  # of a parameter set
        self._last: Slice | None = None
        self._reordered = False  # B slices were seen: a decoder's reordering would swallow or misplace a repeat
        self._reference_frame_num: int | None = None  # frame_num of the last reference frame since a keyframe

    def observe(self, payload: bytes, *, marker: bool, first: bool) -> None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        if len(payload) < 3:
            return
        kind = payload[0] & 0x1F
        if kind == _FU_A:
            self._fragment(payload)
        elif kind == _STAP_A:
            at = 1
            while at + 2 < len(payload):
                end = at + 2 + (payload[at] << 8 | payload[at + 1])
                self._unit(payload[at + 2 : end])
                at = end
        else:
            self._unit(payload)

    def repeat(self) -> list[bytes] | None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        if self._last is None or self._reference_frame_num is None or self._reordered:
            return None
        pps = self._pps.get(self._last.pps_id)
        sps = self._sps.get(pps.sps_id) if pps is not None else None
        if pps is None or sps is None:
            return None
        return [_still(sps, pps, self._reference_frame_num, self._last.order_count)]

    def forget(self) -> None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        self._sps.clear()
        self._pps.clear()
        self._fragments = None
        self._last = None
        self._reference_frame_num = None

    def _fragment(self, payload: bytes) -> None:
        """FU-A (RFC 6184, section 5.8): ``|F|NRI|28|``, ``|S|E|0| type |``, then a part of the NAL unit."""
        head = payload[1]
        kind = head & 0x1F
        if head & 0x80:
            unit = bytes((payload[0] & 0xE0 | kind,)) + payload[2:]
            self._fragments = bytearray(unit) if kind in (_SPS, _PPS) else None
            if self._fragments is None:
                self._unit(unit)
        elif self._fragments is not None:
            self._fragments += payload[2:]
            if head & 0x40 or len(self._fragments) > _MAX_FRAGMENTED:
                unit, self._fragments = bytes(self._fragments), None
                self._unit(unit)

    def _unit(self, nal: bytes) -> None:
        """A NAL unit, or the beginning of one."""
        kind = nal[0] & 0x1F if nal else 0
        try:
            if kind in (_SLICE, _IDR):
                if len(nal) > 1 and nal[1] & 0x80:  # first_mb_in_slice is 0
                    self._slice(read_slice(nal, self._sps, self._pps), kind == _IDR)
            elif kind == _SPS:
                sps = read_sps(nal)
                self._sps[sps.sps_id] = sps
            elif kind == _PPS:
                pps = read_pps(nal)
                self._pps[pps.pps_id] = pps
        except BadPacket:
            self.forget()  # the next keyframe brings its parameter sets

    def _slice(self, header: Slice, idr: bool) -> None:
        self._last = header
        self._reordered = self._reordered or header.b
        if idr or (header.reference and self._reference_frame_num is not None):
            self._reference_frame_num = header.frame_num


def _still(sps: Sps, pps: Pps, reference_frame_num: int, order_count: int) -> bytes:
    """The NAL unit (section 7.3.3)."""
    bits = BitWriter()
    bits.ue(0)  # first_mb_in_slice
    bits.ue(5)  # slice_type: P, all slices of the picture
    bits.ue(pps.pps_id)
    bits.u(sps.frame_num_bits, (reference_frame_num + 1) % (1 << sps.frame_num_bits))
    if sps.order_count_type == 0:
        # Just after the last picture, and before the next one, which usually counts on by two.
        bits.u(sps.order_count_bits, (order_count + 1) % (1 << sps.order_count_bits))
        if pps.bottom_order:
            bits.se(0)
    elif sps.order_count_type == 1 and not sps.always_zero:
        bits.se(0)
        if pps.bottom_order:
            bits.se(0)
    if pps.redundant:
        bits.ue(0)
    bits.u(1, 1)  # num_ref_idx_active_override_flag: one reference
    bits.ue(0)
    bits.u(1, 0)  # ref_pic_list_modification_flag_l0
    if pps.weighted:  # pred_weight_table: no weights
        bits.ue(0)
        if sps.chroma:
            bits.ue(0)
        bits.u(2 if sps.chroma else 1, 0)
    if pps.cabac:
        bits.ue(0)  # cabac_init_idc
    bits.se(_CABAC_QP - pps.qp if pps.cabac else 0)  # slice_qp_delta
    if pps.deblocking_control:
        bits.ue(1)  # no filter
    if pps.cabac:
        bits.align(1)
        data = bits.to_bytes() + _skipped_by_cabac(sps.macroblocks)
    else:
        bits.ue(sps.macroblocks)  # mb_skip_run
        bits.stop()
        data = bits.to_bytes()
    return bytes((_SLICE,)) + _TO_ESCAPE.sub(b"\x00\x00\x03", data)


@lru_cache(maxsize=32)
def _skipped_by_cabac(macroblocks: int) -> bytes:
    """For each macroblock mb_skip_flag 1 and end_of_slice_flag, 1 for the last; with the stop bit (section 9.3.4).

    All but the last bin are the most probable ones, which leave the low end of the interval at 0: only its width
    is to be followed. All flags have the same context, because the neighbours are skipped or missing.
    """
    width, shift, state = 510, 0, _FIRST_STATE
    for number in range(macroblocks):
        width -= _LEAST_PROBABLE[4 * (state - _FIRST_STATE) + (width >> 6 & 3)]
        state = min(state + 1, _LAST_STATE)
        if width < 256:
            width <<= 1
            shift += 1
        width -= 2
        if number < macroblocks - 1 and width < 256:
            width <<= 1
            shift += 1
    # The last bin says 1: the interval is the upper 2 of what was left. Nine bits wide at first, it is output down to
    # its last bit but one, and a stop bit; what precedes is 0.
    count = 9 + shift
    padding = -count % 8
    return ((width | 1) << padding).to_bytes((count + padding) // 8)
