"""Frames on a stream: whole ones come out, whatever the pieces they came in."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.framing import HEADER, split_frames

LIMIT = 50


def framed(*datagrams: bytes) -> bytes:
    return b"".join(HEADER.pack(len(each)) + each for each in datagrams)


def split(data: bytes) -> tuple[list[bytes], bytes]:
    frames, end = split_frames(memoryview(data), len(data), LIMIT)
    return [data[start : start + size] for start, size in frames], data[end:]


def test_whole_frames_and_the_rest() -> None:
    assert split(b"") == ([], b"")
    assert split(b"\0") == ([], b"\0")
    assert split(b"\0\3ab") == ([], b"\0\3ab")
    assert split(framed(b"abc")) == ([b"abc"], b"")
    assert split(framed(b"abc", b"d") + b"\0\2e") == ([b"abc", b"d"], b"\0\2e")
    assert split(framed(bytes(LIMIT))) == ([bytes(LIMIT)], b"")


def test_empty_frames_say_nothing() -> None:
    assert split(framed(b"", b"a", b"", b"")) == ([b"a"], b"")


def test_only_so_much_of_the_buffer_counts() -> None:
    data = framed(b"abc", b"def")
    assert split_frames(memoryview(data), 6, LIMIT) == ([(2, 3)], 5)


def test_a_frame_too_long() -> None:
    for data in (b"\0\x33", b"\xff\xff", framed(b"fine") + b"\1\0rest"):
        with pytest.raises(BadPacket):
            split(data)


@given(st.lists(st.binary(max_size=LIMIT), max_size=20), st.lists(st.integers(0, 200), max_size=20))
def test_pieces_make_no_difference(datagrams: list[bytes], cuts: list[int]) -> None:
    """What was framed comes out, once and in order, wherever the stream is cut."""
    stream = framed(*datagrams)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    found: list[bytes] = []
    rest = b""
    for begin, end in pairwise(places):
        frames, rest = split(rest + stream[begin:end])
        found += frames
        assert len(rest) < 2 + LIMIT
    assert found == [each for each in datagrams if each]
    assert rest == b""


@given(st.binary(max_size=300))
def test_whatever_comes_only_bad_packet_comes_out(data: bytes) -> None:
    """Frames lie within what came, none is empty or too long, and the rest is less than one."""
    try:
        frames, end = split_frames(memoryview(data), len(data), LIMIT)
    except BadPacket:
        return
    at = 0
    for start, size in frames:
        assert start >= at + 2
        assert 0 < size <= LIMIT
        at = start + size
    assert at <= end <= len(data)
    assert len(data) - end < 2 + LIMIT
