"""Playlists as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.playlist_reader import attributes, read_playlist
from trio_sfu.hls.playlist import Part, Segment, Snapshot, render

START = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def segment(msn: int, *, parts: int = 4, run: int = 0, discontinuity: bool = False) -> Segment:
    """``parts`` of half a second."""
    made = tuple(Part(b"data", START + 2 * msn + n / 2, 0.5, n == 0) for n in range(parts))
    return Segment(msn, run, discontinuity, made)


def snapshot(
    segments: int, *, first: int = 0, opening: Segment | None = None, hint: str | None = None, ended: bool = False
) -> Snapshot:
    listed = [segment(msn) for msn in range(first, first + segments)]
    return Snapshot("tok", 0.5, 3, 0, listed, opening, hint, ended)


def test_the_whole_text() -> None:
    stream = Snapshot(
        token="tok",
        part_target=1 / 3,
        target_duration=3,
        discontinuity_sequence=4,
        segments=[segment(7, parts=2), segment(8, parts=2, run=1, discontinuity=True)],
        opening=segment(9, parts=1, run=1),
        hint="9.1.m4s",
        ended=False,
    )
    assert (
        render(stream)
        == """\
#EXTM3U
#EXT-X-VERSION:9
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-TARGETDURATION:3
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.00002,CAN-SKIP-UNTIL=18.0
#EXT-X-PART-INF:PART-TARGET=0.33334
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-DISCONTINUITY-SEQUENCE:4
#EXT-X-MAP:URI="tok/init0.mp4"
#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:34.000Z
#EXT-X-PART:DURATION=0.50000,URI="tok/7.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.50000,URI="tok/7.1.m4s"
#EXTINF:1.00000,
tok/7.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="tok/init1.mp4"
#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:36.000Z
#EXT-X-PART:DURATION=0.50000,URI="tok/8.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.50000,URI="tok/8.1.m4s"
#EXTINF:1.00000,
tok/8.m4s
#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:38.000Z
#EXT-X-PART:DURATION=0.50000,URI="tok/9.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="tok/9.1.m4s"
"""
    )


@pytest.mark.parametrize("part_target", [0.2, 0.25, 0.3, 1 / 3, 1 / 7, 1.0, 1.5])
def test_targets(part_target: float) -> None:
    text = render(replace(snapshot(1), part_target=part_target))
    tags = read_playlist(text).tags
    target = float(attributes(tags["EXT-X-PART-INF"])["PART-TARGET"])
    control = attributes(tags["EXT-X-SERVER-CONTROL"])
    assert part_target <= target < part_target + 0.00002
    assert float(control["PART-HOLD-BACK"]) >= round(3 * target, 5)
    assert float(control["CAN-SKIP-UNTIL"]) >= 6 * int(tags["EXT-X-TARGETDURATION"])


def test_parts_are_listed_for_three_target_durations() -> None:
    playlist = read_playlist(render(snapshot(10, opening=segment(10, parts=3))))
    # 1.5 s are open: segments 6 to 9 begin within the last 9 s, segment 6 in part
    assert [len(each.parts) for each in playlist.segments] == [0] * 6 + [4] * 4 + [3]
    assert [each.uri for each in playlist.segments] == [*(f"tok/{msn}.m4s" for msn in range(10)), None]


def test_a_delta_update() -> None:
    stream = snapshot(20, first=5, opening=segment(25, parts=1), hint="25.1.m4s")
    full = read_playlist(render(stream))
    text = render(stream, skip=True)
    delta = read_playlist(text, full)
    # 18 s before the last segment's end is where the tenth from the end begins; what ends there is not older
    assert delta.skipped == 10
    assert delta.segments == full.segments
    assert (delta.media_sequence, delta.hint, delta.tags) == (full.media_sequence, full.hint, full.tags)
    assert text.index("EXT-X-SKIP") < text.index("EXT-X-MAP") < text.index("EXTINF")
    assert text.count("EXTINF") == 10


def test_a_delta_update_knows_what_came_before() -> None:
    """Discontinuities and init segments on both sides of the boundary."""
    runs = [0] * 5 + [1] * 8 + [2] * 7
    listed = [segment(msn, run=run, discontinuity=msn in (5, 13)) for msn, run in enumerate(runs)]
    stream = replace(snapshot(0), segments=listed, discontinuity_sequence=3)
    full = read_playlist(render(stream))
    delta = read_playlist(render(stream, skip=True), full)
    assert delta.skipped == 10
    assert delta.segments == full.segments
    assert [each.discontinuity for each in full.segments] == [3 + run for run in runs]
    assert [each.map_uri for each in full.segments] == [f"tok/init{run}.mp4" for run in runs]


def test_nothing_to_skip() -> None:
    for count in range(11):
        assert render(snapshot(count), skip=True) == render(snapshot(count))
    assert "SKIPPED-SEGMENTS=1\n" in render(snapshot(11), skip=True)


def test_an_ended_stream() -> None:
    stream = snapshot(20, ended=True)
    text = render(stream)
    assert text.endswith("#EXT-X-ENDLIST\n")
    assert "PRELOAD-HINT" not in text
    assert attributes(read_playlist(text).tags["EXT-X-SERVER-CONTROL"]).keys() == {"PART-HOLD-BACK"}
    assert render(stream, skip=True) == text


def test_a_playlist_that_goes_on_never_ends_in_a_segment() -> None:
    """hls.js takes what its last line names for the segment that is being made."""
    assert render(snapshot(3)).splitlines()[-1].startswith("#")
    assert render(snapshot(3, hint="3.0.m4s")).splitlines()[-1].startswith("#EXT-X-PRELOAD-HINT")
