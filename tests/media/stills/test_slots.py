"""Which slot VP9's and AV1's repeats show, from headers written here."""

from trio_sfu.media.stills.av1 import Av1Repeater
from trio_sfu.media.stills.vp9 import Vp9Repeater
from trio_sfu.wire.bits import BitWriter


def vp9(*, key: bool = False, shown: bool = True, refresh: int = 0, spatial_id: int = 0, profile: int = 0) -> bytes:
    """A payload with the beginning of a frame (flexible mode, layer indices)."""
    bits = BitWriter()
    bits.u(2, 2)
    bits.u(2, (profile & 1) << 1 | profile >> 1)
    if profile == 3:
        bits.u(1, 0)
    bits.u(1, 0)
    bits.u(3, (not key) << 2 | shown << 1 | 1)
    if not key:
        if not shown:
            bits.u(1, 0)  # intra_only
        bits.u(8, refresh)
    bits.stop()
    return bytes((0x3C, spatial_id << 1)) + bits.to_bytes() + bytes(10)


def vp9_slot(*payloads: bytes) -> int | None:
    """The slot that a repeat after these shows."""
    repeater = Vp9Repeater()
    for each in payloads:
        repeater.observe(each, marker=True, first=True)
    repeat = repeater.repeat()
    if repeat is None:
        return None
    ((descriptor, header),) = repeat
    assert descriptor == 0x4C
    assert header & 0xF8 == 0x88
    return header & 7


def test_vp9_shows_a_slot_of_the_last_shown_frame() -> None:
    key = vp9(key=True)
    assert vp9_slot() is None
    assert vp9_slot(vp9(refresh=1)) is None
    assert vp9_slot(key) == 0
    assert vp9_slot(key, vp9(refresh=0x02)) == 1
    assert vp9_slot(key, vp9(refresh=0x06)) == 1
    assert vp9_slot(key, vp9(refresh=0x02), vp9(refresh=0)) == 1  # the last one cannot be shown again
    assert vp9_slot(key, vp9(refresh=0x02), vp9(refresh=0x08, shown=False)) == 1
    assert vp9_slot(key, vp9(refresh=0x0A), vp9(refresh=0x02, shown=False)) == 3  # no longer in slot 1
    assert vp9_slot(key, vp9(refresh=0x02), vp9(refresh=0x02, shown=False)) is None


def test_vp9_with_several_spatial_layers_is_not_repeated() -> None:
    key = vp9(key=True)
    assert vp9_slot(key, vp9(refresh=2, spatial_id=1)) is None
    assert vp9_slot(key, vp9(refresh=2, spatial_id=1), vp9(refresh=4)) == 2


def test_vp9_keeps_its_profile() -> None:
    repeater = Vp9Repeater()
    repeater.observe(vp9(key=True, profile=3), marker=True, first=True)
    assert repeater.repeat() == [b"\x4c" + bytes((0b10110100, 0b00000000))]


def sequence_header(*, timing: bool = False, decoder_model: bool = False, still: bool = False) -> bytes:
    bits = BitWriter()
    bits.u(8, 1 << 3)
    bits.u(3 + 1, 0)
    bits.u(1, still)
    bits.u(1, timing)
    if timing:
        bits.u(64, 1)
        bits.u(1, 1)
        bits.ue(300)
        bits.u(1, decoder_model)
    bits.u(1, 0)
    bits.u(5, 1)  # two operating points
    for idc in (0x103, 0x101):
        bits.u(12, idc)
        bits.u(5, 8)
        bits.u(1, 0)
    bits.u(8, 0xAA)  # 11 bits for the width and for the height
    bits.u(22, 0)
    bits.u(1 + 3 + 4, 0)
    bits.u(1 + 2, 0b100)
    bits.u(1, 1)  # seq_choose_screen_content_tools
    bits.u(1, 1)
    bits.u(3, 6)  # seven bits of order hint
    bits.u(8, 0)
    bits.stop()
    return bits.to_bytes()


def av1_frame(*, kind: int = 1, shown: bool = True, refresh: int = 0, spatial_id: int | None = None) -> bytes:
    bits = BitWriter()
    bits.u(8, 6 << 3 | (0 if spatial_id is None else 4))
    if spatial_id is not None:
        bits.u(8, spatial_id << 3)
    bits.u(1, 0)
    bits.u(2, kind)
    bits.u(1, shown)
    if not shown:
        bits.u(1, 1)
    if not (kind == 0 and shown):
        bits.u(1, 0)
    bits.u(1, 0)
    bits.u(1, 1)  # allow_screen_content_tools
    bits.u(1, 0)  # force_integer_mv
    bits.u(1, 0)
    bits.u(7, 99)
    if kind == 1:
        bits.u(3, 5)
    if not (kind == 0 and shown):
        bits.u(8, refresh)
    bits.stop()
    return bits.to_bytes() + bytes(30)


def av1(*obus: bytes) -> bytes:
    """A payload, each OBU with its length."""
    return b"\x00" + b"".join(bytes((len(obu),)) + obu for obu in obus)


KEY = av1(sequence_header(), av1_frame(kind=0))


def av1_slot(*payloads: bytes) -> int | None:
    repeater = Av1Repeater()
    for each in payloads:
        repeater.observe(each, marker=True, first=True)
    repeat = repeater.repeat()
    if repeat is None:
        return None
    ((aggregation, obu, header),) = repeat
    assert (aggregation, obu) == (0x10, 0x18)
    assert header & 0x8F == 0x88
    return header >> 4 & 7


def test_av1_shows_a_slot_of_the_last_shown_frame() -> None:
    assert av1_slot() is None
    assert av1_slot(av1(av1_frame(refresh=1))) is None
    assert av1_slot(KEY) == 7
    assert av1_slot(av1(sequence_header(timing=True), av1_frame(kind=0))) == 7
    assert av1_slot(KEY, av1(av1_frame(refresh=0x02, spatial_id=0))) == 1
    assert av1_slot(KEY, av1(av1_frame(refresh=0x20, kind=2))) == 5
    assert av1_slot(KEY, av1(av1_frame(refresh=0x02)), av1(av1_frame(refresh=0x08, shown=False))) == 1
    assert av1_slot(KEY, av1(av1_frame(refresh=0x02)), av1(av1_frame(refresh=0x02, shown=False))) is None
    assert av1_slot(KEY, av1(av1_frame(refresh=0x02), av1_frame(refresh=0x04))) == 2
    assert av1_slot(KEY, av1(av1_frame(refresh=0x02)), KEY) == 7


def test_av1_shows_a_keyframe_only_while_it_is_in_all_slots() -> None:
    """Else it would overwrite the others (section 7.21)."""
    assert av1_slot(KEY, av1(av1_frame(refresh=0))) == 7
    assert av1_slot(KEY, av1(av1_frame(refresh=0x01, shown=False))) is None
    shown_again = av1(b"\x18\x98")  # slot 1, which puts it everywhere
    assert av1_slot(KEY, av1(av1_frame(refresh=0x80, shown=False)), shown_again) == 7
    hidden_key = av1(av1_frame(kind=0, shown=False, refresh=0x10))
    assert av1_slot(KEY, av1(av1_frame(refresh=0x0F)), hidden_key) == 3
    assert av1_slot(KEY, av1(av1_frame(refresh=0xEF)), hidden_key, av1(b"\x18\xc8")) == 7


def test_av1_that_is_not_covered_is_not_repeated() -> None:
    assert av1_slot(av1(sequence_header(timing=True, decoder_model=True), av1_frame(kind=0))) is None
    assert av1_slot(av1(sequence_header(still=True), av1_frame(kind=0))) is None
    assert av1_slot(KEY, av1(av1_frame(refresh=2, spatial_id=1))) is None


def test_av1_fragments() -> None:
    """A frame in three payloads: its middle says nothing, and another OBU may follow its end."""
    frame = av1_frame(refresh=0x02)
    begin, middle, end = b"\x50" + frame[:20], b"\xd0" + b"\x32" * 20, b"\xa0\x02\x32\x32" + av1_frame(refresh=0x40)
    assert av1_slot(KEY, begin, middle) == 1
    assert av1_slot(KEY, begin, middle, end) == 6
