"""Real VP8 for servers that decode: a second of moving noise, in packets. Made by PyAV, which is optional.

Used by :mod:`bench.peers_run`. The last frame is followed by the first again, a key frame.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

_WIDTH: Final = 640
_HEIGHT: Final = 360
_FRAMES: Final = 30
_PAYLOAD: Final = 1170  # of a packet of 1200 bytes


def vp8_clip(packets_per_second: float) -> list[list[bytes]]:
    """Payloads of one second, frame by frame, about as many as are asked for. Raises ImportError without PyAV."""
    import av

    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
    encoder.time_base = Fraction(1, _FRAMES)
    encoder.bit_rate = int(packets_per_second * _PAYLOAD * 8)
    encoder.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "g": "3000"}
    rng = random.Random(1)
    noise = rng.randbytes(_WIDTH * _HEIGHT)
    frames: list[list[bytes]] = []
    for number in range(_FRAMES):
        picture = av.VideoFrame(_WIDTH, _HEIGHT, "yuv420p")
        shift = number * 4 * _WIDTH
        picture.planes[0].update(noise[shift:] + noise[:shift])
        for plane in picture.planes[1:]:
            plane.update(bytes((128 + number,)) * plane.buffer_size)
        picture.pts = number
        frames += [payloads(bytes(packet)) for packet in encoder.encode(picture)]
    frames += [payloads(bytes(packet)) for packet in encoder.encode(None)]
    return frames


def payloads(frame: bytes, size: int = _PAYLOAD) -> list[bytes]:
    """A VP8 frame with RFC 7741's shortest descriptor: S on the first packet of its first partition."""
    cut: Sequence[bytes] = [frame[at : at + size] for at in range(0, len(frame), size)]
    return [(b"\x10" if place == 0 else b"\x00") + piece for place, piece in enumerate(cut)]
