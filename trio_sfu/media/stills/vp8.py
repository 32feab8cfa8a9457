"""VP8: an inter frame whose macroblocks all show the LAST frame's, and which changes nothing (RFC 6386, RFC 7741).

It refreshes no buffer and keeps no probability, so the frame after it decodes as if it had not been there.
Segmentation is on with nothing updated: that is the one way by which every decoder carries the segment map over
to the next frame. The sign biases, filter deltas' use and quantizers are said anew in each frame's header and need
not be known. So the frame depends on the size of the picture only.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from trio_sfu.media.stills.limits import MAX_MACROBLOCKS
from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.vp8 import parse_vp8

__all__ = ["Vp8Repeater"]

_DESCRIPTOR: Final = b"\x30"  # S: begins partition 0; N: no other frame refers to it
_START_CODE: Final = b"\x9d\x01\x2a"

# Section 13.4, coeff_update_probs: 4 x 8 x 3 rows of 11, in hexadecimal without the 255s they end with.
_COEFFICIENT_UPDATES: Final = """
. . . b0f6 dff1fc f9fdfd fff4fc eafefe fd fff6fe effdfe fefffe fff8fe fbfffe . fffdfe fbfefe fefffe fffefdfffe
fafffefffe fe . . . d9 e1fcf1fdfffffe eafaf1fafdfffdfe fffe dffefe eefdfefe fff8fe f9fe . fffd f7fe . fffdfe fc .
fffefe fd . fffefd fa fe . . . bafbfa eafbf4fe fbfbf3fdfefffe fffdfe ecfdfe fbfdfdfefe fffefe fefefe . fffe fefe
fe . fe . . . . . . . . . . f8 fafefcfe f8fef9fd fffdfd f6fdfd fcfefbfefe fffefc f8fefd fdfffefe fffbfe f5fbfe
fdfdfe fffbfd fcfdfe fffe fffc f9fffe fffffe fffffd fa . . fe .
"""
# Section 17.2, mv_update_probs, rows then columns.
_VECTOR_UPDATES: Final = bytes.fromhex("edf6fdfdfefefefefefefefefefefafafcfefe e7f3f5fdfefefefefefefefefefefbfbfefefe")
# Section 16.3, mode_contexts: how likely the vector is no zero vector, by the weight of the neighbours' zero vectors
# (none; left 2, above 2, above left 1).
_NOT_ZERO: Final = {"first": 7, "edge": 135, "inside": 234}
_UPDATE_PROBABILITIES: Final = bytes(
    value for row in _COEFFICIENT_UPDATES.split() for value in bytes.fromhex(row.strip(".")).ljust(11, b"\xff")
)


class Vp8Repeater:
    """Knows the size of the last keyframe. See :class:`trio_sfu.media.stills.Repeater`."""

    __slots__ = ("_size",)

    def __init__(self) -> None:
        self._size: tuple[int, int, int] | None = None  # columns and rows of macroblocks, version

    def observe(self, payload: bytes, *, marker: bool, first: bool) -> None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        if len(payload) < 2 or payload[0] & 0x17 != 0x10:  # S is 1 and PID is 0 where a frame begins
            return
        try:
            at = parse_vp8(payload).size
        except BadPacket:
            return
        if not payload[at] & 1:  # P: 0 for a keyframe
            self._size = _keyframe_size(payload[at : at + 10])

    def repeat(self) -> list[bytes] | None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        return None if self._size is None else [_DESCRIPTOR + _still(*self._size)]

    def forget(self) -> None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        self._size = None


def _keyframe_size(header: bytes) -> tuple[int, int, int] | None:
    """Section 9.1. None for what is no keyframe's header, or of a picture too large."""
    if len(header) < 10 or header[3:6] != _START_CODE:
        return None
    columns, rows = (((header[at] | header[at + 1] << 8) & 0x3FFF) + 15 >> 4 for at in (6, 8))
    if not 0 < columns * rows <= MAX_MACROBLOCKS:
        return None
    return columns, rows, header[0] >> 1 & 7


@lru_cache(maxsize=32)  # its making takes 10 ms for a picture of 1280 x 720
def _still(columns: int, rows: int, version: int) -> bytes:
    """The whole frame: the tag of three bytes (section 9.1), the first partition, and a token partition unused."""
    first_partition = _encode(_bools(columns, rows)) + bytes(2)  # some decoders read ahead
    tag = 0x11 | version << 1 | len(first_partition) << 5  # an inter frame that is shown
    return tag.to_bytes(3, "little") + first_partition + bytes(4)


def _bools(columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """Pairs of a bool and the probability, of 256, that it is 0. Section 19.2 for the header, 19.3 and 16 after it."""

    def literal(count: int, value: int = 0) -> Iterator[tuple[int, int]]:
        return ((value >> at & 1, 128) for at in reversed(range(count)))

    yield from literal(3, 0b100)  # segmentation_enabled; update neither its map nor its data
    yield from literal(1 + 6 + 3)  # filter_type, loop_filter_level 0: no filter, sharpness_level
    yield from literal(1 + 2)  # loop_filter_adj_enable, log2_nbr_of_dct_partitions
    yield from literal(7 + 5)  # y_ac_qi, none of the five deltas
    yield from literal(1 + 1 + 2 + 2)  # refresh_golden_frame, refresh_alternate_frame, copy to neither
    yield from literal(2)  # sign biases
    yield from literal(2)  # refresh_entropy_probs, refresh_last
    yield from ((0, probability) for probability in _UPDATE_PROBABILITIES)
    yield from literal(1 + 8, 0x101)  # mb_no_coeff_skip; prob_skip_false 1: skipping is nearly certain
    yield from literal(8, 1)  # prob_intra 1: inter prediction is nearly certain
    yield from literal(8, 255)  # prob_last: LAST is nearly certain
    yield from literal(8)  # prob_gf
    yield from literal(2)  # neither luma nor chroma intra modes' probabilities
    yield from ((0, probability) for probability in _VECTOR_UPDATES)
    macroblock = [(1, 1), (1, 1), (0, 255)]  # mb_skip_coeff, is_inter_mb, from LAST
    for row in range(rows):
        for column in range(columns):
            yield from macroblock
            neighbours = "inside" if row and column else "edge" if row or column else "first"
            yield 0, _NOT_ZERO[neighbours]  # mv_mode: mv_zero


def _encode(bools: Iterator[tuple[int, int]]) -> bytes:
    """The bool encoder of section 7.3; the number ``low`` is as long as the output, so carries need no care."""
    low, width, shift = 0, 255, 0
    for value, probability in bools:
        split = 1 + ((width - 1) * probability >> 8)
        if value:
            low += split
            width -= split
        else:
            width = split
        step = 8 - width.bit_length()
        if step:
            width <<= step
            low <<= step
            shift += step
    padding = -shift % 8
    return (low << padding).to_bytes((shift + padding) // 8 + 1)
