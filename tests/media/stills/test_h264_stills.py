"""H.264's repeat: how parameter sets may come, and what is not repeated."""

from tests.support.coded_video import encode, packetize
from trio_sfu.media.stills.h264 import H264Repeater
from trio_sfu.media.stills.parameter_sets import read_sps
from trio_sfu.wire.bits import BitWriter

CHROMIUM = "-c:v libopenh264 -profile:v constrained_baseline -coder cavlc -g 300"
REORDERED = "-c:v libx264 -preset fast -x264-params bframes=1:b-adapt=0 -g 300"


def repeat_after(*payloads: bytes) -> list[bytes] | None:
    repeater = H264Repeater()
    for each in payloads:
        repeater.observe(each, marker=False, first=False)
    return repeater.repeat()


def unit(kind: int, *fields: tuple[str, int]) -> bytes:
    """A NAL unit of Exp-Golomb codes ("ue", "se") and numbers of so many bits ("8")."""
    bits = BitWriter()
    bits.u(8, 0x60 | kind)
    for code, value in fields:
        if code == "ue":
            bits.ue(value)
        elif code == "se":
            bits.se(value)
        else:
            bits.u(int(code), value)
    bits.stop()
    return bits.to_bytes()


def sps(*, progressive: int = 1, width: int = 11, lists: bool = False) -> bytes:
    high = [("ue", 1), ("ue", 0), ("ue", 0), ("1", 0), ("1", 1)] if lists else []
    if high:  # a list of 16 that goes on, one that ends at its third number, one of 64, the others left out
        high += [("1", 1), *[("se", 1)] * 16, ("1", 1), ("se", 2), ("se", 0), ("se", -10), *[("1", 0)] * 4]
        high += [("1", 1), *[("se", 0)] * 64, ("1", 0)]
    return unit(
        7,
        *[("8", 100 if lists else 66), ("8", 0), ("8", 30), ("ue", 0), *high],
        *[("ue", 0), ("ue", 1), ("1", 0), ("se", -3), ("se", 4), ("ue", 2), ("se", 2), ("se", 3)],  # order count type 1
        *[("ue", 1), ("1", 0), ("ue", width - 1), ("ue", 8), ("1", progressive)],
    )


def pps(*, slice_groups: int = 0) -> bytes:
    head = [("ue", 0), ("ue", 0), ("1", 0), ("1", 1), ("ue", slice_groups), ("ue", 0), ("ue", 0), ("1", 0), ("2", 0)]
    return unit(8, *head, ("se", 0), ("se", 0), ("se", 0), ("1", 1), ("1", 0), ("1", 1))


IDR = unit(5, ("ue", 0), ("ue", 7), ("ue", 0), ("4", 0), ("ue", 0), ("se", 0), ("32", 0))


def p_slice(frame_num: int) -> bytes:
    return unit(1, ("ue", 0), ("ue", 5), ("ue", 0), ("4", frame_num), ("se", 0), ("32", 0))


def test_the_slice_header() -> None:
    """All of the optional fields, field by field (section 7.3.3)."""
    fields = [("ue", 0), ("ue", 5), ("ue", 0), ("4", 0), ("se", 0), ("se", 0), ("ue", 0), ("1", 1), ("ue", 0)]
    expected = unit(1, *fields, ("1", 0), ("se", 0), ("ue", 1), ("ue", 99))
    assert repeat_after(sps(), pps(), IDR, p_slice(15)) == [b"\x01" + expected[1:]]


def test_parameter_sets_alone_together_and_in_fragments() -> None:
    expected = repeat_after(sps(), pps(), IDR)
    assert expected is not None
    first, second = sps(), pps()
    together = b"\x78" + len(first).to_bytes(2) + first + len(second).to_bytes(2) + second
    assert repeat_after(together, IDR) == expected
    half = len(first) // 2
    fragments = b"\x7c\x87" + first[1:half], b"\x7c\x47" + first[half:]
    assert repeat_after(*fragments, second, b"\x7c\x85" + IDR[1:]) == expected
    assert repeat_after(first, second, b"\x7c\x05" + IDR[1:]) is None  # not the IDR's beginning


def test_scaling_lists_are_skipped() -> None:
    assert read_sps(sps(lists=True)) == read_sps(sps())
    assert repeat_after(sps(lists=True), pps(), IDR) == repeat_after(sps(), pps(), IDR)


def test_frame_num_wraps_and_waits_for_a_reference() -> None:
    assert repeat_after(sps(), pps(), p_slice(3)) is None
    no_reference = bytes((p_slice(4)[0] & 0x1F,)) + p_slice(4)[1:]
    assert repeat_after(sps(), pps(), IDR, p_slice(3), no_reference) == repeat_after(sps(), pps(), IDR, p_slice(3))
    assert repeat_after(sps(), pps(), IDR, p_slice(15)) != repeat_after(sps(), pps(), IDR, p_slice(14))


def test_what_is_not_covered_is_not_repeated() -> None:
    assert repeat_after(sps(), pps(), IDR) is not None
    assert repeat_after(sps(progressive=0), pps(), IDR) is None
    assert repeat_after(sps(width=4097), pps(), IDR) is None
    assert repeat_after(sps(), pps(slice_groups=1), IDR) is None
    assert repeat_after(pps(), IDR) is None
    assert repeat_after(sps(), IDR) is None


def test_a_stream_with_b_slices_is_not_repeated_from_the_first_of_them_on() -> None:
    repeater = H264Repeater()
    could = []
    for frame in encode("H264", REORDERED, frames=8):
        for payload in packetize("H264", frame):
            repeater.observe(payload, marker=False, first=False)
        could.append(repeater.repeat() is not None)
    assert could == [True, True, *[False] * 6]


def test_no_start_code_in_a_repeat() -> None:
    """Emulation prevention (section 7.4.1)."""
    large = encode("H264", "-c:v libx264 -preset fast -tune zerolatency -g 300", frames=1, size="1280x720")
    (repeat,) = repeat_after(*packetize("H264", large[0])) or [b""]
    assert 20 < len(repeat) < 60
    assert not any(start in repeat for start in (b"\0\0\0", b"\0\0\1", b"\0\0\2"))
    assert b"\0\0\3" in repeat
