"""Bits, most significant first, with Exp-Golomb and non-symmetric codes.

What the headers of H.264, VP9 and AV1 and the dependency descriptor are written in. A reader raises
:class:`BadPacket` past its end and nothing else.
"""

from typing import Final

from trio_sfu.wire.errors import BadPacket

__all__ = ["BitReader", "BitWriter"]

_LONGEST_PREFIX: Final = 32  # of an Exp-Golomb code, in zero bits


class BitReader:
    """Reads ``data`` from its first bit on."""

    __slots__ = ("_left", "_size", "_value")

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data)
        self._size = self._left = 8 * len(data)

    def u(self, count: int) -> int:
        """The next ``count`` bits as an unsigned number."""
        self._left -= count
        if self._left < 0:
            raise BadPacket("the header ends too early")
        return self._value >> self._left & (1 << count) - 1

    def several(self, count: int, width: int) -> tuple[int, ...]:
        """The next ``count`` unsigned numbers of ``width`` bits each."""
        size = count * width
        value, mask = self.u(size), (1 << width) - 1
        return tuple([value >> shift & mask for shift in range(size - width, -1, -width)])

    def ue(self) -> int:
        """An unsigned Exp-Golomb code (ITU-T H.264, section 9.1)."""
        rest = self._value & (1 << self._left) - 1
        zeros = self._left - rest.bit_length()
        if zeros > _LONGEST_PREFIX:
            raise BadPacket("too long an Exp-Golomb code")
        return self.u(2 * zeros + 1) - 1

    def se(self) -> int:
        """A signed Exp-Golomb code (section 9.1.1)."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def ns(self, count: int) -> int:
        """One of ``count`` values, the lower ones a bit shorter (AV1 bitstream specification, section 4.10.7)."""
        width = count.bit_length()
        short = (1 << width) - count
        value = self.u(width - 1)
        return value if value < short else (value << 1) - short + self.u(1)

    def position(self) -> int:
        """How many bits have been read."""
        return self._size - self._left


class BitWriter:
    """Collects bits; :meth:`to_bytes` ends them."""

    __slots__ = ("_count", "_value")

    def __init__(self) -> None:
        self._value = 0
        self._count = 0

    def u(self, count: int, value: int) -> None:
        """``count`` bits of an unsigned number."""
        self._value = self._value << count | value
        self._count += count

    def ue(self, value: int) -> None:
        """An unsigned Exp-Golomb code."""
        self.u(2 * (value + 1).bit_length() - 1, value + 1)

    def se(self, value: int) -> None:
        """A signed Exp-Golomb code."""
        self.ue(2 * value - 1 if value > 0 else -2 * value)

    def align(self, bit: int) -> None:
        """Fill up the byte with ``bit``."""
        while self._count % 8:
            self.u(1, bit)

    def stop(self) -> None:
        """End with a one and zeros up to the byte's end (trailing bits, in H.264 and in AV1)."""
        self.u(1, 1)
        self.align(0)

    def to_bytes(self) -> bytes:
        """What was written; the number of bits must be a whole number of bytes."""
        assert self._count % 8 == 0
        return self._value.to_bytes(self._count // 8)
