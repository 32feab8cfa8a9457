"""One run of FFmpeg's output, made into the parts and segments of a live stream.

Made by the room's pipeline for each run. What comes out of FFmpeg is put together, never changed: a part is the
fragments that came in its time, a segment is its parts.
"""

from typing import Final

from trio_sfu.hls.live_stream import LiveStream, Part
from trio_sfu.hls.mp4 import BadMp4, Fragment, Init, Mp4Splitter

__all__ = ["BadOutput", "Packager"]

#: A segment above this, in bytes, is no stream of ours.
MAX_SEGMENT: Final = 16 << 20
#: Rounding of a part's duration, in seconds.
_EPSILON: Final = 1e-6


class BadOutput(BadMp4):
    """It is MP4, but nothing that a live stream can be made of."""


class Packager:
    """Parts end at a video frame, when another frame as long would not fit. Segments begin with a keyframe, the first
    one when the target is reached, to half a frame.

    Where none comes for so long that the segment would be longer than the playlist's target duration allows, it is cut
    without one: who watches goes on watching, and only who joins right there waits for a picture. A frame longer than
    the part target is a part of its own. Audio goes where it came.

    The part that would complete a segment is held until the next frame shows whether it does: so the part that the
    playlist announces as the next one is the next one.
    """

    def __init__(self, stream: LiveStream, *, max_segment: int = MAX_SEGMENT) -> None:
        # given
        self._stream: Final = stream
        self._max_segment: Final = max_segment
        # owned
        self._splitter: Final = Mp4Splitter()
        self._pieces: list[bytes] = []  # the open part
        # derived
        self.parts = 0
        """How many have gone to the stream."""
        self._date: float | None = None  # the wall clock at the open part's beginning
        self._part = 0.0  # its duration: video only
        self._independent = False
        self._earlier = 0.0  # duration of the segment's parts before it
        self._bytes = 0  # of the open segment, with the open part

    def feed(self, data: bytes, now_wall: float) -> None:
        """What FFmpeg wrote; ``now_wall``: seconds since the epoch. Raises BadMp4; then the run is of no more use."""
        for item in self._splitter.feed(data):
            if isinstance(item, Init):
                self._stream.begin_run(item.data)
            else:
                self._add(item, now_wall)

    def finish(self) -> None:
        """FFmpeg has gone: the stream gets what there is of a part, and the run ends."""
        self._close_part()
        self._stream.end_run()

    def _add(self, fragment: Fragment, now_wall: float) -> None:
        if self._date is None:
            # No run seems to begin before the end of the one before it, whatever was done to the clock.
            self._date = max(now_wall, self._stream.end_date)
        if fragment.track == "video":
            if not self.parts and not self._part and not fragment.keyframe:
                return  # nothing could show it
            self._before_frame(fragment)
            self._part += fragment.duration
            self._independent |= fragment.keyframe
        self._pieces.append(fragment.data)
        self._bytes += len(fragment.data)
        if self._bytes > self._max_segment:
            raise BadOutput(f"a segment of more than {self._max_segment} bytes")
        if fragment.track == "video" and self._is_full(fragment) and not self._is_due(fragment):
            self._close_part()

    def _before_frame(self, frame: Fragment) -> None:
        """End what ends with the frame before this one."""
        longest = self._stream.settings.longest_segment
        if frame.duration > longest:
            raise BadOutput(f"a frame of {frame.duration:g} s")
        length = self._earlier + self._part
        if (frame.keyframe and self._is_due(frame)) or length + frame.duration > longest:
            self._close_part()
            self._stream.end_segment()
            self._earlier, self._bytes = 0.0, sum(map(len, self._pieces))
        elif self._is_full(frame):
            self._close_part()

    def _is_full(self, frame: Fragment) -> bool:
        return self._part > 0 and self._part + frame.duration > self._stream.settings.part_target + _EPSILON

    def _is_due(self, frame: Fragment) -> bool:
        return self._earlier + self._part >= self._stream.settings.segment_target - frame.duration / 2

    def _close_part(self) -> None:
        """Audio alone is kept for the next part."""
        if not self._part or self._date is None:
            return
        self._stream.add_part(Part(b"".join(self._pieces), self._date, self._part, self._independent))
        self.parts += 1
        self._date += self._part
        self._earlier += self._part
        self._pieces.clear()
        self._part, self._independent = 0.0, False
