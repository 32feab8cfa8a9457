"""Fragmented MP4 for tests: made box by box, or by FFmpeg."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from typing import Final

import imageio_ffmpeg

VIDEO, AUDIO = 1, 2
#: Units in a second of the tracks made here.
TIMESCALES: Final = {VIDEO: 90000, AUDIO: 48000}

SYNC, NON_SYNC = 0x02000000, 0x01010000


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def box(kind: bytes, *payload: bytes, large: bool = False) -> bytes:
    """``large``: with a 64-bit size."""
    data = b"".join(payload)
    if large:
        return u32(1) + kind + (16 + len(data)).to_bytes(8, "big") + data
    return u32(8 + len(data)) + kind + data


def trak(track: int, handler: bytes, timescale: int, *, version: int = 0) -> bytes:
    times = bytes(16 if version else 8)
    head = bytes([version, 0, 0, 0]) + times
    return box(
        b"trak",
        box(b"tkhd", head, u32(track), bytes(68)),
        box(b"mdia", box(b"mdhd", head, u32(timescale), bytes(8)), box(b"hdlr", bytes(8), handler, bytes(13))),
    )


def trex(track: int, duration: int = 0, flags: int = 0) -> bytes:
    return box(b"trex", u32(0, track, 1, duration, 0, flags))


FTYP: Final = box(b"ftyp", b"iso5", u32(512), b"iso5iso6mp41")
MOOV: Final = box(
    b"moov",
    box(b"mvhd", bytes(100)),
    trak(VIDEO, b"vide", TIMESCALES[VIDEO]),
    trak(AUDIO, b"soun", TIMESCALES[AUDIO]),
    box(b"mvex", trex(VIDEO), trex(AUDIO)),
)
INIT: Final = FTYP + MOOV


def traf(track: int, start: int, duration: int, *, flags: int = NON_SYNC, count: int = 1) -> bytes:
    """As FFmpeg writes it. ``start`` and ``duration`` (of each sample) in the track's units."""
    return box(
        b"traf",
        box(b"tfhd", u32(0x020038, track, duration, 100, flags)),
        box(b"tfdt", u32(0x01000000), start.to_bytes(8, "big")),
        box(b"trun", u32(1, count, 0)),
    )


def moof(*trafs: bytes) -> bytes:
    return box(b"moof", box(b"mfhd", u32(0, 1)), *trafs)


def video(start: float, duration: float, *, keyframe: bool = False, size: int = 100) -> bytes:
    """A frame in a fragment of its own; times in seconds, ``size`` of its data in bytes."""
    scale = TIMESCALES[VIDEO]
    flags = SYNC if keyframe else NON_SYNC
    return moof(traf(VIDEO, round(start * scale), round(duration * scale), flags=flags)) + box(b"mdat", bytes(size))


def audio(start: float, duration: float = 0.02, *, size: int = 50) -> bytes:
    scale = TIMESCALES[AUDIO]
    return moof(traf(AUDIO, round(start * scale), round(duration * scale), flags=SYNC)) + box(b"mdat", bytes(size))


@cache
def ffmpeg_output(*movflags: str, seconds: float = 3) -> bytes:
    """What FFmpeg writes for a small picture at 30 frames a second, a keyframe each second, and a tone.

    Not a fixture, which Hypothesis would print.
    """
    command: Sequence[str] = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-hide_banner", "-loglevel", "error", "-nostdin"),
        *("-f", "lavfi", "-i", "testsrc=size=320x180:rate=30", "-f", "lavfi", "-i", "sine=frequency=440"),
        *("-t", str(seconds), "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"),
        *("-pix_fmt", "yuv420p", "-threads", "1", "-g", "30", "-c:a", "aac", "-ar", "48000", "-f", "mp4", *movflags),
        "pipe:1",
    ]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


EVERY_FRAME: Final = ("-movflags", "+frag_every_frame+empty_moov+default_base_moof")
#: What the pipeline uses: frames of both tracks that come together share a fragment.
EACH_TIME: Final = ("-movflags", "+empty_moov+default_base_moof", "-frag_duration", "1")
