"""Datagrams on a stream: each behind its length (RFC 4571), as ICE-TCP has them (RFC 6544, section 3).

::

    | length, 16 bits, big-endian | so many bytes: one STUN, DTLS or (S)RTP packet | length | …
"""

import struct
from typing import Final

from trio_sfu.wire.errors import BadPacket

__all__ = ["HEADER", "split_frames"]

HEADER: Final = struct.Struct("!H")


def split_frames(stream: memoryview, end: int, limit: int) -> tuple[list[tuple[int, int]], int]:
    """The whole frames in ``stream[:end]``, as offset and size of each one's content; then where the rest begins.

    The rest is shorter than a frame of ``limit`` bytes. Empty frames are left out: they say nothing (RFC 4571,
    section 2). Raises :class:`BadPacket` for one that is to be longer than ``limit``, and for nothing else.
    """
    frames: list[tuple[int, int]] = []
    at = 0
    while end - at >= 2:
        (size,) = HEADER.unpack_from(stream, at)
        if size > limit:
            raise BadPacket("a frame is too long")
        if end - at < 2 + size:
            break
        if size:
            frames.append((at + 2, size))
        at += 2 + size
    return frames, at
