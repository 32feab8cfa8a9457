"""VP8's repeat: its size, its limits, and what it must leave alone though no encoder here makes use of it."""

import random
from collections.abc import Iterable, Iterator

import pytest

from tests.support.coded_video import decode, encode, packetize
from trio_sfu.media.stills import vp8
from trio_sfu.media.stills.vp8 import Vp8Repeater


def keyframe(width: int, height: int) -> bytes:
    """A payload with the first bytes of a keyframe."""
    return b"\x10\x10\x02\x00\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes(20)


def repeat_of(payload: bytes) -> list[bytes] | None:
    repeater = Vp8Repeater()
    repeater.observe(payload, marker=True, first=True)
    return repeater.repeat()


@pytest.mark.parametrize("size", ["16x16", "34x18", "178x130", "1280x720"])
def test_pictures_of_any_size(size: str) -> None:
    frames = encode("VP8", "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 500k", frames=3, size=size)
    repeat = repeat_of(packetize("VP8", frames[0])[0])
    assert repeat is not None
    (payload,) = repeat
    assert len(payload) < 300
    shown = [each.digest for each in decode("VP8", [frames[0], payload[1:], *frames[1:]])]
    assert shown[0] == shown[1]
    assert [shown[0], *shown[2:]] == [each.digest for each in decode("VP8", frames)]


def test_a_size_too_large_is_not_repeated() -> None:
    assert repeat_of(keyframe(4096, 2304)) is not None
    assert repeat_of(keyframe(4096, 2305)) is None
    assert repeat_of(keyframe(16383, 16383)) is None
    assert repeat_of(keyframe(0, 16)) is None


def test_upscaling_hints_are_no_part_of_the_size() -> None:
    assert repeat_of(keyframe(0x4000 | 320, 0xC000 | 180)) == repeat_of(keyframe(320, 180))


def test_what_begins_no_keyframe_says_nothing() -> None:
    whole = keyframe(320, 180)
    assert repeat_of(whole) is not None
    assert repeat_of(b"\x00" + whole[1:]) is None  # S
    assert repeat_of(b"\x11" + whole[1:]) is None  # PID
    assert repeat_of(b"\x10\x11" + whole[2:]) is None  # P
    assert repeat_of(whole[:4] + b"\x9e" + whole[5:]) is None  # the start code
    assert repeat_of(whole[:9]) is None


def test_the_segment_map_survives() -> None:
    """A frame that sets the map, then one whose loop filter goes by that map without setting it (section 9.3)."""
    (key,) = encode("VP8", "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 100k", frames=1)
    repeat = repeat_of(packetize("VP8", key)[0])
    assert repeat is not None
    still = repeat[0][1:]
    chance = random.Random(5)
    segments = [chance.randrange(4) for _ in range(11 * 9)]
    sets, uses = segmented(segments), segmented(None)
    alone = decode("VP8", [key, sets, uses, uses])
    between = decode("VP8", [key, still, sets, still, still, uses, still, uses])
    assert len({each.digest for each in alone}) == 2  # as it is, and filtered
    assert [between[at].digest for at in (0, 2, 5, 7)] == [each.digest for each in alone]
    assert {between[at].digest for at in (1, 3, 4, 6)} == {alone[0].digest}
    unsegmented = decode("VP8", [key, segmented([0] * 99), uses])
    assert unsegmented[2].digest != alone[2].digest  # so the map matters here


def segmented(segments: list[int] | None) -> bytes:
    """A frame like a repeat, but filtered, by levels for each segment. It sets the map (all 176 x 144), or does not."""

    def literal(count: int, value: int) -> Iterator[tuple[int, int]]:
        return ((value >> at & 1, 128) for at in reversed(range(count)))

    def bools() -> Iterable[tuple[int, int]]:
        yield 1, 128
        if segments is None:
            yield from literal(2, 0)
        else:
            yield from literal(3, 0b111)  # update both; absolute levels
            yield from literal(4, 0)  # no quantizers
            for level in (0, 63, 20, 40):
                yield from literal(8, 0x80 | level << 1)
            yield from literal(3, 0)  # the map's probabilities: 255
        yield from literal(1 + 6 + 3, 1 << 3)  # filter level 1: the segments' own count
        plain = list(vp8._bools(11, 9))
        macroblocks = plain[-4 * 99 :]
        yield from plain[13 : -4 * 99]
        for number in range(99):
            if segments is not None:
                yield segments[number] >> 1, 255
                yield segments[number] & 1, 255
            yield from macroblocks[4 * number : 4 * number + 4]

    first_partition = vp8._encode(iter(bools())) + bytes(2)
    return (0x11 | len(first_partition) << 5).to_bytes(3, "little") + first_partition + bytes(4)
