"""VP9: a frame header that says "show what is in that slot again" (VP9 bitstream specification, section 7.2).

One byte, and the decoder's state stays as it is. The slot is one that the last shown frame went into. Of a superframe
(a hidden frame and a shown one, which conferences do not send) only the first header is read: the slot is the one
before then, whatever it has become.
"""

from trio_sfu.wire.bits import BitReader, BitWriter
from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.vp9 import parse_vp9

__all__ = ["Vp9Repeater"]

_DESCRIPTOR = b"\x4c"  # P: predicted; B and E: the whole frame
_HEADER_LENGTH = 16  # bytes that hold all the fields that are read
_SYNC_CODE = 0x498342
_RGB = 7


class Vp9Repeater:
    """Knows the profile, and the slots of the last shown picture. See :class:`trio_sfu.media.stills.Repeater`."""

    __slots__ = ("_profile", "_slots")

    def __init__(self) -> None:
        self._profile: int | None = None  # None: no keyframe yet
        self._slots = 0  # a mask; 0: nothing known that could be shown

    def observe(self, payload: bytes, *, marker: bool, first: bool) -> None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        if not payload or not payload[0] & 0x08:  # B
            return
        try:
            descriptor = parse_vp9(payload)
            if descriptor.spatial_layer:  # several layers make one picture: which of them is shown is not said here
                raise BadPacket("a spatial layer")
            self._read(BitReader(payload[descriptor.size : descriptor.size + _HEADER_LENGTH]))
        except BadPacket:
            self._slots = 0

    def repeat(self) -> list[bytes] | None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        if self._profile is None or not self._slots:
            return None
        header = BitWriter()
        header.u(2, 2)
        _write_profile(header, self._profile)
        header.u(1, 1)  # show_existing_frame
        header.u(3, (self._slots & -self._slots).bit_length() - 1)  # the lowest: it is LAST with most encoders
        header.align(0)
        return [_DESCRIPTOR + header.to_bytes()]

    def forget(self) -> None:
        """See :class:`trio_sfu.media.stills.Repeater`."""
        self._profile = None
        self._slots = 0

    def _read(self, bits: BitReader) -> None:
        """The uncompressed header up to refresh_frame_flags (sections 6.2 and 7.2)."""
        if bits.u(2) != 2:
            raise BadPacket("no VP9 frame")
        profile = bits.u(1) | bits.u(1) << 1
        if profile == 3:
            bits.u(1)
        if bits.u(1):  # show_existing_frame
            self._slots = 1 << bits.u(3)
            return
        inter, shown, error_resilient = bits.u(1), bits.u(1), bits.u(1)
        if not inter:
            self._profile = profile
        refresh = _refreshed(bits, profile, shown, error_resilient) if inter else 0xFF
        self._slots &= ~refresh
        if shown and refresh:
            self._slots = refresh


def _refreshed(bits: BitReader, profile: int, shown: int, error_resilient: int) -> int:
    """refresh_frame_flags of a frame that is no keyframe."""
    intra_only = 0 if shown else bits.u(1)
    if not error_resilient:
        bits.u(2)  # reset_frame_context
    if intra_only:
        if bits.u(24) != _SYNC_CODE:
            raise BadPacket("no VP9 sync code")
        if profile:
            if profile >= 2:
                bits.u(1)  # ten_or_twelve_bit
            if bits.u(3) != _RGB:
                bits.u(1)  # color_range
                if profile & 1:
                    bits.u(3)  # subsampling, reserved
            elif profile & 1:
                bits.u(1)  # reserved
    return bits.u(8)


def _write_profile(header: BitWriter, profile: int) -> None:
    header.u(1, profile & 1)
    header.u(1, profile >> 1)
    if profile == 3:
        header.u(1, 0)
