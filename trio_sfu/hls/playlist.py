"""Media playlists as text, and the values they are made of. Pure; used by :mod:`trio_sfu.hls.live_stream`.

Source: RFC 8216 and its second edition, draft-pantos-hls-rfc8216bis-22 ("the draft"), sections 4.4 (tags) and
6.2.5.1 (delta updates).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Final

__all__ = ["Part", "Segment", "Snapshot", "render"]

#: EXT-X-SKIP is what needs it.
_VERSION: Final = 9
#: The draft wants three part targets at least between a player and the end (4.4.3.8).
_HOLD_BACK_PARTS: Final = 3
#: In target durations: how far from the end segments are left out of delta updates (six at least, 4.4.3.8), and parts
#: of complete segments out of all playlists (6.2.2).
_SKIP_BOUNDARY: Final = 6
_PARTS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a segment. ``duration`` in seconds; ``start``: seconds since the epoch; ``independent``: has a
    keyframe.
    """

    data: bytes
    start: float
    duration: float
    independent: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment, complete or with the parts it has so far (one at least).

    ``msn``: its media sequence number; ``run``: which run of FFmpeg, and so which init segment;
    ``discontinuity``: it does not go on where the segment before it ended.
    """

    msn: int
    run: int
    discontinuity: bool
    parts: tuple[Part, ...]

    @property
    def start(self) -> float:
        """Wall clock, in seconds since the epoch."""
        return self.parts[0].start

    @property
    def duration(self) -> float:
        """In seconds."""
        return sum(part.duration for part in self.parts)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(len(part.data) for part in self.parts)

    @property
    def data(self) -> bytes:
        """Put together anew each time."""
        return b"".join(part.data for part in self.parts)

    @property
    def init_name(self) -> str:
        return f"init{self.run}.mp4"

    @property
    def name(self) -> str:
        return f"{self.msn}.m4s"

    def part_name(self, index: int) -> str:
        return f"{self.msn}.{index}.m4s"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a playlist shows of a stream. ``opening``: the segment being made; ``hint``: the next part's name."""

    token: str
    part_target: float
    target_duration: int
    discontinuity_sequence: int
    segments: Sequence[Segment]
    opening: Segment | None
    hint: str | None
    ended: bool


#: hls.js takes a segment on the last line for the one that is being made, and stalls at the next discontinuity.
_BETWEEN_RUNS: Final = "# to be continued"


def render(stream: Snapshot, *, skip: bool = False) -> str:
    """The playlist; with ``skip`` a delta update, where there is something to leave out.

    A delta update names the init segment again, which it need not: a player that mixes two documents up then still
    knows which one a segment needs.
    """
    part_target = ceil(stream.part_target * 1e5) / 1e5  # never below a part's duration, as it is printed
    hold_back = f"PART-HOLD-BACK={_HOLD_BACK_PARTS * part_target:.5f}"
    skip_boundary = _SKIP_BOUNDARY * stream.target_duration
    control = f"CAN-BLOCK-RELOAD=YES,{hold_back},CAN-SKIP-UNTIL={skip_boundary:.1f}"
    segments = [*stream.segments, *([stream.opening] if stream.opening else [])]
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f"#EXT-X-TARGETDURATION:{stream.target_duration}",
        f"#EXT-X-SERVER-CONTROL:{hold_back if stream.ended else control}",
        f"#EXT-X-PART-INF:PART-TARGET={part_target:.5f}",
        f"#EXT-X-MEDIA-SEQUENCE:{segments[0].msn if segments else 0}",
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{stream.discontinuity_sequence}",
    ]
    skipped = _older_than(stream.segments, skip_boundary) if skip and not stream.ended else 0
    if skipped:
        lines.append(f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")
    opening_duration = stream.opening.duration if stream.opening else 0.0
    without_parts = _older_than(stream.segments, _PARTS_SHOWN * stream.target_duration - opening_duration)
    run: int | None = None
    for index, segment in enumerate(segments[skipped:], skipped):
        if segment.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        if segment.run != run:
            run = segment.run
            lines.append(f'#EXT-X-MAP:URI="{stream.token}/{segment.init_name}"')
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{_date_time(segment.start)}")
        if index >= without_parts:
            lines += _parts(stream.token, segment)
        if segment is not stream.opening:
            lines += [f"#EXTINF:{segment.duration:.5f},", f"{stream.token}/{segment.name}"]
    if stream.ended:
        lines.append("#EXT-X-ENDLIST")
    elif stream.hint is not None:
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{stream.token}/{stream.hint}"')
    else:
        lines.append(_BETWEEN_RUNS)
    return "\n".join(lines) + "\n"


def _parts(token: str, segment: Segment) -> list[str]:
    return [
        f'#EXT-X-PART:DURATION={part.duration:.5f},URI="{token}/{segment.part_name(index)}"'
        + (",INDEPENDENT=YES" if part.independent else "")
        for index, part in enumerate(segment.parts)
    ]


def _older_than(segments: Sequence[Segment], seconds: float) -> int:
    """How many of the segments end more than so many seconds before the last one's end."""
    for index in range(len(segments) - 1, -1, -1):
        if seconds < 0:
            return index + 1
        seconds -= segments[index].duration
    return 0


def _date_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
