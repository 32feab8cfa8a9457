"""Segments as FFmpeg makes them, tiny ones, and what FFmpeg makes of files that hold them."""

from __future__ import annotations

import struct
import subprocess
from functools import cache
from pathlib import Path

from imageio_ffmpeg import get_ffmpeg_exe

from trio_sfu.hls.writer import Clip

FRAMES = 10  # in a segment of a second


@cache
def segments(seconds: int = 12, size: str = "64x36") -> tuple[bytes, tuple[bytes, ...]]:
    """A run of FFmpeg: its init segment, and a segment for each second of video and audio."""
    command = (
        f"-v error -f lavfi -i testsrc2=s={size}:r={FRAMES}:d={seconds} -f lavfi -i sine=r=16000:d={seconds} "
        f"-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g {FRAMES} -bf 0 -c:a aac -b:a 16k "
        "-movflags frag_keyframe+empty_moov+default_base_moof -f mp4 -"
    )
    data = subprocess.run([get_ffmpeg_exe(), *command.split()], stdout=subprocess.PIPE, check=True).stdout
    init, made, offset = b"", [], 0
    while offset < len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        box = data[offset : offset + length]
        offset += length
        match kind:
            case b"ftyp" | b"moov":
                init += box
            case b"moof":
                made.append(box)
            case b"mdat":
                made[-1] += box
    assert len(made) == seconds
    return init, tuple(made)


def clips(seconds: int = 12, *, size: str = "64x36", run: int = 0, msn: int = 0, first: bool = True) -> list[Clip]:
    """The same, ready to be written; ``first``: of a stream."""
    init, made = segments(seconds, size)
    return [
        Clip(
            msn=msn + number,
            run=run,
            discontinuity=number == 0 and not first,
            start=1_700_000_000.0 + msn + number,
            duration=1.0,
            init=init,
            data=data,
        )
        for number, data in enumerate(made)
    ]


def decode(path: Path) -> int:
    """How many pictures are in it. AssertionError where FFmpeg has the least to complain about."""
    command = [get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", str(path), "-map", "0:v", "-map", "0:a"]
    done = subprocess.run([*command, "-f", "framecrc", "-"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return sum(line.startswith("0,") for line in done.stdout.splitlines())
