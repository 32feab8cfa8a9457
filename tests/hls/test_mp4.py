"""The splitter of fragmented MP4: real output of FFmpeg's, boxes of every shape, and whatever bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fragmented_mp4 import (
    AUDIO,
    EACH_TIME,
    EVERY_FRAME,
    FTYP,
    INIT,
    MOOV,
    NON_SYNC,
    SYNC,
    VIDEO,
    audio,
    box,
    ffmpeg_output,
    moof,
    traf,
    trak,
    trex,
    u32,
    video,
)
from trio_sfu.hls.mp4 import MAX_BOX, BadMp4, Fragment, Init, Mp4Splitter, Track

MDAT = box(b"mdat", bytes(10))


def fragments(data: bytes) -> list[Fragment]:
    return [item for item in Mp4Splitter().feed(data) if isinstance(item, Fragment)]


def only(data: bytes, init: bytes = INIT) -> Fragment:
    (fragment,) = fragments(init + data)
    return fragment


def test_output_of_ffmpeg() -> None:
    output = ffmpeg_output(*EVERY_FRAME)
    items = Mp4Splitter().feed(output)
    init = items[0]
    assert isinstance(init, Init)
    assert [track.kind for track in init.tracks.values()] == ["video", "audio"]
    joined = b"".join(item.data for item in items)
    assert output.startswith(joined)
    assert output[len(joined) + 4 :].startswith(b"mfra")
    frames = [item for item in items if isinstance(item, Fragment) and item.track == "video"]
    assert [index for index, frame in enumerate(frames) if frame.keyframe] == [0, 30, 60]
    assert len(frames) == 90
    assert not any(item.keyframe for item in items if isinstance(item, Fragment) and item.track == "audio")


def test_fragments_of_two_tracks_are_those_of_the_video() -> None:
    found = fragments(ffmpeg_output(*EACH_TIME))
    shared = [fragment for fragment in found if fragment.data.count(b"traf") == 2]
    assert len(shared) == 90
    assert {fragment.track for fragment in shared} == {"video"}
    # Here each begins where the one before it ended; with `frag_every_frame` FFmpeg 9.0 gets that wrong.
    end = 0.0
    for fragment in shared:
        assert fragment.start == pytest.approx(end)
        end += fragment.duration
    assert end == pytest.approx(3, abs=0.05)
    assert {fragment.track for fragment in found if fragment not in shared} == {"audio"}
    turned = moof(traf(AUDIO, 0, 960), traf(VIDEO, 90000, 3000, flags=SYNC)) + MDAT
    assert only(turned) == Fragment(turned, "video", 1.0, 3000 / 90000, keyframe=True)


@given(cuts=st.lists(st.integers(0, 20_000), max_size=30))
def test_however_the_bytes_come(cuts: list[int]) -> None:
    data = ffmpeg_output(*EVERY_FRAME)[:20_000]
    splitter, items, at = Mp4Splitter(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        items += splitter.feed(data[at:cut])
        at = cut
    assert items == Mp4Splitter().feed(data)


def test_one_byte_at_a_time() -> None:
    data = INIT + video(0, 1 / 30, keyframe=True) + audio(0)
    splitter = Mp4Splitter()
    items = [item for byte in data for item in splitter.feed(bytes([byte]))]
    assert items == Mp4Splitter().feed(data)
    assert len(items) == 3


@pytest.mark.parametrize("version", [0, 1])
def test_tracks(version: int) -> None:
    moov = box(
        b"moov",
        trak(7, b"soun", 44100, version=version),
        trak(8, b"text", 0),
        trak(9, b"vide", 90000, version=version),
        box(b"mvex", trex(9, 3000, NON_SYNC)),
    )
    (init,) = Mp4Splitter().feed(FTYP + moov)
    assert init == Init(FTYP + moov, {7: Track("audio", 44100), 9: Track("video", 90000, 3000, NON_SYNC)})


def test_what_is_left_out_and_what_is_not() -> None:
    styp, sidx, mfra = box(b"styp", b"msdh"), box(b"sidx", bytes(20)), box(b"mfra", bytes(8))
    frame = video(0, 1 / 30, keyframe=True)
    items = Mp4Splitter().feed(FTYP + box(b"free") + MOOV + styp + sidx + frame + mfra)
    assert [item.data for item in items] == [INIT, frame]


def test_boxes_with_long_sizes() -> None:
    contents = box(b"mfhd", u32(0, 1), large=True) + traf(VIDEO, 3000, 3000, flags=SYNC)
    data = box(b"moof", contents, large=True) + box(b"mdat", bytes(10), large=True)
    assert only(data) == Fragment(data, "video", 3000 / 90000, 3000 / 90000, keyframe=True)


def test_a_box_to_the_end_of_its_container() -> None:
    tail = bytearray(traf(VIDEO, 3000, 3000, flags=SYNC))
    tail[:4] = bytes(4)
    assert only(moof(bytes(tail)) + MDAT).start == 3000 / 90000


def test_a_short_decode_time() -> None:
    short = box(b"traf", box(b"tfhd", u32(0x8, VIDEO, 3000)), box(b"tfdt", u32(0, 90000)), box(b"trun", u32(0, 1)))
    assert only(moof(short) + MDAT).start == 1.0


TFDT = box(b"tfdt", u32(0, 0))


@pytest.mark.parametrize(
    ("tfhd", "truns", "duration", "keyframe"),
    [
        # where the duration is: nowhere but in trex, in tfhd, zero there, in trun for each sample
        (u32(0, VIDEO), [u32(0, 2)], 2000, False),
        (u32(0x8, VIDEO, 300), [u32(0, 2)], 600, False),
        (u32(0x8, VIDEO, 0), [u32(0, 2)], 2000, False),
        (u32(0x8, VIDEO, 300), [u32(0x100, 2, 5, 6)], 11, False),
        (u32(0x3A, VIDEO, 1, 300, 9, SYNC), [u32(0x301, 2, 0, 5, 1, 6, 1)], 11, True),
        (u32(0x8, VIDEO, 300), [u32(0, 2), u32(0x100, 1, 7)], 607, False),
        # where the first sample's flags are: tfhd, trun for the first, trun for each, the second trun
        (u32(0x20, VIDEO, SYNC), [u32(0, 2)], 2000, True),
        (u32(0x20, VIDEO, NON_SYNC), [u32(0x4, 2, SYNC)], 2000, True),
        (u32(0x20, VIDEO, SYNC), [u32(0x5, 2, 0, NON_SYNC)], 2000, False),
        (u32(0, VIDEO), [u32(0xF00, 2, 1, 9, SYNC, 0, 1, 9, NON_SYNC, 0)], 2, True),
        (u32(0x20, VIDEO, SYNC), [u32(0x400, 2, NON_SYNC, SYNC)], 2000, False),
        (u32(0x20, VIDEO, NON_SYNC), [u32(0x404, 2, SYNC, NON_SYNC, NON_SYNC)], 2000, True),
        (u32(0x20, VIDEO, SYNC), [u32(0x4, 0, NON_SYNC), u32(0, 1)], 1000, True),
        # no samples at all
        (u32(0x20, VIDEO, SYNC), [u32(0, 0)], 0, False),
        (u32(0x20, VIDEO, SYNC), [], 0, False),
        # many, in few bytes
        (u32(0x28, VIDEO, 2**32 - 1, SYNC), [u32(0, 2**32 - 1)], (2**32 - 1) ** 2, True),
    ],
)
def test_durations_and_flags(tfhd: bytes, truns: list[bytes], duration: int, keyframe: bool) -> None:
    moov = box(b"moov", trak(VIDEO, b"vide", 1000), box(b"mvex", trex(VIDEO, 1000, NON_SYNC)))
    contents = box(b"traf", box(b"tfhd", tfhd), TFDT, *(box(b"trun", trun) for trun in truns))
    fragment = only(moof(contents) + MDAT, FTYP + moov)
    assert (fragment.duration, fragment.keyframe) == (duration / 1000, keyframe)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (u32(MAX_BOX + 1) + b"mdat", "bytes"),
        (u32(1) + b"mdat" + (MAX_BOX + 1).to_bytes(8, "big"), "bytes"),
        (u32(1) + b"mdat" + (2**64 - 1).to_bytes(8, "big"), "bytes"),
        (u32(0) + b"mdat", "bytes"),
        (u32(7) + b"mdat", "bytes"),
        (u32(1) + b"mdat" + (15).to_bytes(8, "big"), "bytes"),
        (moof(traf(VIDEO, 0, 3000)) + MDAT, "before the moov"),
        (INIT + MOOV, "second moov"),
        (INIT + MDAT, "without its moof"),
        (INIT + moof(traf(VIDEO, 0, 3000)) + box(b"free") + MDAT, "between moof and mdat"),
        (INIT + 2 * moof(traf(VIDEO, 0, 3000)), "between moof and mdat"),
        (INIT + moof() + MDAT, "without a track"),
        (INIT + moof(traf(3, 0, 3000)) + MDAT, "not in the moov"),
        (INIT + moof(box(b"traf", TFDT)) + MDAT, "no b'tfhd'"),
        (INIT + moof(box(b"traf", box(b"tfhd", u32(0, VIDEO)))) + MDAT, "no b'tfdt'"),
        (INIT + moof(box(b"traf", box(b"tfhd", u32(0x1, VIDEO, 0, 0)), TFDT)) + MDAT, "from the file's beginning"),
        (INIT + moof(box(b"traf", box(b"tfhd", u32(0x8, VIDEO)), TFDT)) + MDAT, "too short"),
        (INIT + moof(box(b"traf", box(b"tfhd", u32(0, VIDEO)), box(b"tfdt"))) + MDAT, "too short"),
        (
            INIT + moof(box(b"traf", box(b"tfhd", u32(0, VIDEO)), TFDT, box(b"trun", u32(0x100, 2, 5)))) + MDAT,
            "shorter than its samples",
        ),
        (INIT + box(b"moof", u32(9) + b"traf") + MDAT, "not within its container"),
        (FTYP + box(b"moov"), "no b'mvex'"),
        (FTYP + box(b"moov", box(b"mvex"), trak(AUDIO, b"soun", 48000)), "no video"),
        (FTYP + box(b"moov", box(b"mvex"), trak(VIDEO, b"vide", 0)), "timescale"),
    ],
)
def test_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadMp4, match=why):
        Mp4Splitter().feed(data)


@given(data=st.binary(max_size=200))
def test_nothing_but_bad_mp4_comes_out(data: bytes) -> None:
    for before in (b"", INIT, INIT + moof(traf(VIDEO, 0, 3000))):
        with suppress(BadMp4):
            Mp4Splitter().feed(before + data)


@given(contents=st.binary(max_size=80), kind=st.sampled_from([b"moov", b"moof", b"traf", b"mdia", b"trak", b"mvex"]))
def test_nothing_but_bad_mp4_comes_out_of_boxes(contents: bytes, kind: bytes) -> None:
    inner = box(kind, contents)
    moov = box(b"moov", box(b"mvex"), box(b"trak", box(b"tkhd", contents), inner))
    for data in (moov, INIT + moof(inner) + MDAT, INIT + moof(box(b"traf", inner, contents)) + MDAT):
        with suppress(BadMp4):
            Mp4Splitter().feed(data)


@given(changes=st.lists(st.tuples(st.integers(0, 8_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_output_of_ffmpeg(changes: list[tuple[int, int]]) -> None:
    data = bytearray(ffmpeg_output(*EVERY_FRAME)[:12_000])
    for place, value in changes:
        data[place] = value
    with suppress(BadMp4):
        for item in Mp4Splitter().feed(bytes(data)):
            assert item.data in bytes(data)
