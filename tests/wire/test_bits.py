"""Bits, read and written (ITU-T H.264 section 9.1, AV1 bitstream specification section 4.10.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.wire.bits import BitReader, BitWriter
from trio_sfu.wire.errors import BadPacket


def reader(bits: str) -> BitReader:
    return BitReader(int(bits.ljust(32, "0"), 2).to_bytes(4))


def test_fields_follow_each_other() -> None:
    bits = BitReader(bytes.fromhex("a5 f0"))
    assert [bits.u(1), bits.u(3), bits.u(0), bits.u(6), bits.position()] == [1, 0b010, 0, 0b010111, 10]


def test_several_numbers_at_once() -> None:
    bits = BitReader(bytes.fromhex("12 34 56"))
    assert [bits.several(3, 4), bits.several(0, 5), bits.several(2, 1), bits.position()] == [(1, 2, 3), (), (0, 1), 14]
    with pytest.raises(BadPacket):
        bits.several(2, 6)


@pytest.mark.parametrize(("bits", "value"), [("1", 0), ("010", 1), ("011", 2), ("00100", 3), ("0001001", 8)])
def test_exp_golomb(bits: str, value: int) -> None:
    assert reader(bits).ue() == value


@pytest.mark.parametrize(
    ("count", "bits", "value"),
    [
        # The specification's example of five values: 00, 01, 10, 110, 111.
        *((5, "00", 0), (5, "01", 1), (5, "10", 2), (5, "110", 3), (5, "111", 4)),
        *((1, "", 0), (2, "0", 0), (2, "1", 1), (3, "0", 0), (3, "10", 1), (3, "11", 2), (4, "11", 3)),
    ],
)
def test_non_symmetric(count: int, bits: str, value: int) -> None:
    read = reader(bits)
    assert read.ns(count) == value
    assert read.position() == len(bits)


def test_reading_past_the_end() -> None:
    bits = BitReader(b"\xff")
    assert bits.u(7) == 127
    with pytest.raises(BadPacket):
        bits.u(2)
    with pytest.raises(BadPacket):
        BitReader(b"").ns(3)
    with pytest.raises(BadPacket):
        BitReader(b"\0").ue()


@given(st.lists(st.tuples(st.integers(1, 16), st.integers(0, 0xFFFF))))
def test_what_is_written_is_read(fields: list[tuple[int, int]]) -> None:
    bits = BitWriter()
    for width, value in fields:
        bits.u(width, value & (1 << width) - 1)
        bits.ue(value)
        bits.se(value - 0x8000)
    bits.stop()
    read = BitReader(bits.to_bytes())
    for width, value in fields:
        assert (read.u(width), read.ue(), read.se()) == (value & (1 << width) - 1, value, value - 0x8000)
