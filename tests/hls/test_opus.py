"""How long Opus packets last (RFC 6716, section 3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.hls.opus import SILENCE, duration


@pytest.mark.parametrize(
    ("packet", "milliseconds"),
    [
        (b"\x00x", 10),  # SILK, narrow band
        (b"\x08x", 20),
        (b"\x10x", 40),
        (b"\x18x", 60),
        (b"\x58x", 60),  # SILK, wide band
        (b"\x60x", 10),  # hybrid
        (b"\x78x", 20),
        (b"\x80x", 2.5),  # CELT
        (b"\xe8x", 5),
        (b"\xfcx", 20),  # stereo
        (b"\xf8", 20),
        (b"\xfdxx", 40),  # two frames
        (b"\xfexxx", 40),
        (b"\xff\x03xxx", 60),
        (b"\xff\xc6xxx", 120),  # padded, of variable size
        (b"\x1b\x02xx", 120),
        (b"\x1b\x03xx", 0),  # more than 120 ms
        (b"\xff\x00", 0),
        (b"\xff", 0),
        (b"", 0),
    ],
)
def test_duration(packet: bytes, milliseconds: float) -> None:
    assert duration(packet) == milliseconds * 48


def test_silence_lasts_what_it_says() -> None:
    assert [length for length, _ in SILENCE] == [duration(packet) for _, packet in SILENCE]


@given(st.binary(max_size=20))
def test_any_bytes_last_between_nothing_and_120_ms(packet: bytes) -> None:
    assert 0 <= duration(packet) <= 5760
