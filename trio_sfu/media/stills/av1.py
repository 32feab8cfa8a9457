"""AV1: a frame header OBU that says "show what is in that slot again" (AV1 specification, section 5.9.2).

The slot is one that the last shown frame went into. Where that is a keyframe, showing it again also writes it into
all slots (section 7.21), which is no change only as long as it still is in all of them.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from trio_sfu.wire.bits import BitReader, BitWriter
from trio_sfu.wire.errors import BadPacket

__all__ = ["Av1Repeater"]

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _SWITCH = 0, 3
_SELECT: Final = 2  # "each frame says": seq_force_screen_content_tools and seq_force_integer_mv
_AGGREGATION_HEADER: Final = b"\x10"  # W is 1: one OBU element, without a length
_ALL: Final = 0xFF


class _Sequence(NamedTuple):
    """What a frame header's reading needs of the sequence header (section 5.5)."""

    screen_content_tools: int
    integer_mv: int
    order_hint_bits: int
    frame_id_bits: int


class Av1Repeater:
    """Knows the sequence header and what the slots hold. See :class:`trio_sfu.media.stills.Repeater`."""

    __slots__ = ("_frame_id", "_keys", "_sequence", "_slots")

    def __init__(self) -> None:
        self._sequence: _Sequence | None = None
        self._slots = 0  # those that hold the last picture shown, as a mask; 0: none known
        self._keys = 0  # those that hold a keyframe
        self._frame_id = 0  # of the last picture shown

    def observe(self, payload: bytes, *, marker: bool, first: bool) -> None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        if payload and payload[0] & 0xB0 == 0x90:  # nothing but the middle or the end of one OBU
            return
        try:
            for obu in _obus(payload):
                self._read(obu)
        except BadPacket:
            self._slots = 0

    def repeat(self) -> list[bytes] | None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        if self._sequence is None or not self._slots or (self._keys & self._slots and self._slots != _ALL):
            return None
        obu = BitWriter()
        obu.u(8, _FRAME_HEADER << 3)
        obu.u(1, 1)  # show_existing_frame
        obu.u(3, self._slots.bit_length() - 1)
        obu.u(self._sequence.frame_id_bits, self._frame_id)
        obu.stop()
        return [_AGGREGATION_HEADER + obu.to_bytes()]

    def forget(self) -> None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        self._sequence = None
        self._slots = self._keys = 0

    def _read(self, obu: bytes) -> None:
        """Section 5.3: ``|0| type |X|S|0|``, an extension byte where X, a size where S."""
        kind = obu[0] >> 3 & 15
        if kind not in (_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME):
            return
        at = 1
        if obu[0] & 0x04:
            if len(obu) < 2 or obu[1] >> 3 & 3:  # several layers make one picture: which is shown is not said here
                raise BadPacket("a spatial layer")
            at = 2
        if obu[0] & 0x02:
            _, at = _leb128(obu, at)
        if kind == _SEQUENCE_HEADER:
            self._sequence = None
            self._sequence = _read_sequence(BitReader(obu[at : at + 512]))
        elif self._sequence is not None:
            self._read_frame(BitReader(obu[at : at + 16]), self._sequence)

    def _read_frame(self, bits: BitReader, sequence: _Sequence) -> None:
        """The uncompressed header up to refresh_frame_flags (section 5.9.2)."""
        if bits.u(1):  # show_existing_frame
            self._slots = 1 << bits.u(3)
            self._frame_id = bits.u(sequence.frame_id_bits)
            if self._keys & self._slots:
                self._slots = self._keys = _ALL
            return
        kind, shown = bits.u(2), bits.u(1)
        if not shown:
            bits.u(1)  # showable_frame
        error_resilient = 1 if kind == _SWITCH or (kind == _KEY and shown) else bits.u(1)
        bits.u(1)  # disable_cdf_update
        tools = bits.u(1) if sequence.screen_content_tools == _SELECT else sequence.screen_content_tools
        if tools and sequence.integer_mv == _SELECT:
            bits.u(1)  # force_integer_mv
        frame_id = bits.u(sequence.frame_id_bits)
        if kind != _SWITCH:
            bits.u(1)  # frame_size_override_flag
        bits.u(sequence.order_hint_bits)
        if kind % 2 and not error_resilient:  # an inter frame
            bits.u(3)  # primary_ref_frame
        refresh = _ALL if kind == _SWITCH or (kind == _KEY and shown) else bits.u(8)
        self._slots &= ~refresh
        self._keys = self._keys | refresh if kind == _KEY else self._keys & ~refresh
        if shown and refresh:
            self._slots, self._frame_id = refresh, frame_id


def _obus(payload: bytes) -> Iterator[bytes]:
    """The OBUs that begin in a payload, without their continuation (AV1 RTP specification, section 4).

    ``|Z|Y|W W|N|-|-|-|``, then elements, each with its length in front; where W is not 0 there are W of them, the
    last one without a length.
    """
    if not payload:
        raise BadPacket("an empty payload")
    continues, count = payload[0] & 0x80, payload[0] >> 4 & 3
    at, number = 1, 0
    while at < len(payload):
        number += 1
        if number == count:
            size = len(payload) - at
        else:
            size, at = _leb128(payload, at)
        if not 0 < size <= len(payload) - at:
            raise BadPacket("an OBU element's length does not fit")
        if number > 1 or not continues:
            yield payload[at : at + size]
        at += size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends (section 4.10.5)."""
    value = 0
    for number, byte in enumerate(data[at : at + 8]):
        value |= (byte & 0x7F) << 7 * number
        if not byte & 0x80:
            return value, at + number + 1
    raise BadPacket("no leb128 number")


def _read_sequence(bits: BitReader) -> _Sequence:
    """Section 5.5. Raises :class:`BadPacket` too for what no conference sends and a simple reading does not cover."""
    bits.u(3 + 1)  # seq_profile, still_picture
    if bits.u(1):
        raise BadPacket("a still picture")
    if bits.u(1):  # timing_info_present_flag
        bits.u(32 + 32)
        if bits.u(1):  # equal_picture_interval
            bits.ue()  # uvlc() is the same code
        if bits.u(1):
            raise BadPacket("a decoder model")
    delays = bits.u(1)  # initial_display_delay_present_flag
    for _ in range(bits.u(5) + 1):  # operating points
        bits.u(12)
        if bits.u(5) > 7:
            bits.u(1)  # seq_tier
        if delays and bits.u(1):
            bits.u(4)
    width_bits, height_bits = bits.u(4) + 1, bits.u(4) + 1
    bits.u(width_bits + height_bits)
    frame_id_bits = bits.u(4) + bits.u(3) + 3 if bits.u(1) else 0
    bits.u(3 + 4)  # superblocks, intra filters; inter-intra, masks, warps, dual filters
    order_hints = bits.u(1)
    if order_hints:
        bits.u(2)
    tools = _SELECT if bits.u(1) else bits.u(1)
    integer_mv = _SELECT
    if tools and not bits.u(1):  # seq_choose_integer_mv
        integer_mv = bits.u(1)
    return _Sequence(tools, integer_mv, bits.u(3) + 1 if order_hints else 0, frame_id_bits)
