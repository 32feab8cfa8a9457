"""What the aiortc user of the tests sends, and how to tell it from anything else once it is decoded again."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from av import AudioFrame, VideoFrame
from av.frame import Frame
from av.video.plane import VideoPlane

__all__ = ["FRAME_TICKS", "PictureTrack", "ToneTrack", "is_picture", "is_tone"]

FRAME_TICKS = 3000
"""90 kHz clock ticks from one frame of a PictureTrack to the next (30 a second)."""

_CHROMA = (90, 200)
_CHROMA_TOLERANCE = 6
_RAMP = bytes(range(256)) * 8

_RATE = 48000
_SAMPLES = 960
_CYCLES = 9  # whole ones in a frame of 20 ms: one frame's samples do for all of them
_TONE = array.array("h", (round(8000 * math.sin(2 * math.pi * _CYCLES * n / _SAMPLES)) for n in range(_SAMPLES)))


class PictureTrack(VideoStreamTrack):
    """A grey ramp that moves, in one colour, at 30 frames a second."""

    def __init__(self, width: int = 320, height: int = 240) -> None:
        super().__init__()
        self.width = width
        self.height = height
        self.sent = 0

    async def recv(self) -> Frame:
        frame = VideoFrame(width=self.width, height=self.height)
        frame.pts, frame.time_base = await self.next_timestamp()
        luma, *chroma = frame.planes
        shift = self.sent * 4 % 256
        luma.update(_RAMP[shift : shift + luma.line_size] * self.height)
        for plane, value in zip(chroma, _CHROMA, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        self.sent += 1
        return frame


class ToneTrack(AudioStreamTrack):
    """A sine wave, 48 kHz mono, in frames of 20 ms."""

    async def recv(self) -> Frame:
        silence = await super().recv()  # keeps the time: 160 samples at 8 kHz
        frame = AudioFrame(format="s16", layout="mono", samples=_SAMPLES)
        frame.planes[0].update(_TONE.tobytes())
        assert silence.pts is not None
        frame.pts = silence.pts * _RATE // 8000
        frame.sample_rate = _RATE
        frame.time_base = Fraction(1, _RATE)
        return frame


def is_picture(frame: VideoFrame) -> bool:
    """Whether this is a decoded frame of a PictureTrack, by its colour."""
    if frame.format.name != "yuv420p":
        return False
    rows = (_middle_row(plane) for plane in frame.planes[1:])
    return all(
        abs(sum(row) / len(row) - wanted) <= _CHROMA_TOLERANCE for row, wanted in zip(rows, _CHROMA, strict=True)
    )


def _middle_row(plane: VideoPlane) -> bytes:
    start = plane.height // 2 * plane.line_size  # which is padded
    return bytes(plane)[start : start + plane.width]


def is_tone(frames: Sequence[AudioFrame]) -> bool:
    """Whether these are decoded frames of a ToneTrack: loud enough, and of its pitch."""
    samples = array.array("h")
    for frame in frames:
        assert frame.format.name == "s16"
        samples.frombytes(bytes(frame.planes[0])[: frame.samples * len(frame.layout.channels) * 2])
    left = samples[:: len(frames[0].layout.channels)]
    crossings = sum(1 for before, after in pairwise(left) if before < 0 <= after)
    pitch = crossings / (len(left) / frames[0].sample_rate)
    return max(left) > 4000 and abs(pitch - _CYCLES * _RATE / _SAMPLES) < 15
