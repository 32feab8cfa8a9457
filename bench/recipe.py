"""How the compiled generator makes the packets of one stream: templates and where in them to write.

Pure. The templates are packets of :class:`bench.rtp.PacketSource`, so both generators send the same; what changes
from packet to packet (number, timestamp, times, mark) is written by ``bench/generator.c``. Used by
:mod:`bench.scene`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.rtp import (
    ABS_SEND_TIME_ID,
    MARK_SIZE,
    TRANSPORT_CC_ID,
    PacketSource,
    StreamFormat,
    TransportSequence,
)

FIRST: Final = 1
LAST: Final = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """Offsets are of the whole packet, -1 where there is no such thing; ``mark_at`` counts from the end."""

    packets: tuple[bytes, ...]
    flags: tuple[int, ...]
    video: bool
    clip: bool
    transport_cc_at: int
    send_time_at: int
    picture_at: int
    mark_at: int
    clock_rate: int
    first_number: int


def recipe(stream: StreamFormat) -> Recipe:
    """Of a stream of equal packets: a key frame's first, another frame's first, any further one."""
    source = PacketSource(stream, TransportSequence())
    source.start_frame(0.0)
    shapes = ((True, True), (True, False), (False, False)) if stream.kind == "video" else ((True, False),)
    packets = tuple(source.packet(0.0, 0, first=first, last=False, key_frame=key) for first, key in shapes)
    payload = 16 + 4 * int.from_bytes(packets[0][14:16])
    picture_at = payload + 2 if stream.kind == "video" else -1
    return _recipe(stream, packets, (0,) * len(packets), picture_at=picture_at, mark_at=MARK_SIZE)


def recording(stream: StreamFormat, frames: Sequence[Sequence[bytes]]) -> Recipe:
    """Of real payloads, frame by frame, the first a key frame; they are played in a circle and carry no marks."""
    source = PacketSource(stream, TransportSequence())
    whole = source.packet(0.0, 0, first=True, last=False, key_frame=False)
    header = whole[: 16 + 4 * int.from_bytes(whole[14:16])]
    packets = tuple(header + payload for frame in frames for payload in frame)
    flags = tuple(
        (FIRST if place == 0 else 0) | (LAST if place == len(frame) - 1 else 0)
        for frame in frames
        for place in range(len(frame))
    )
    return _recipe(stream, packets, flags, clip=True)


def _recipe(
    stream: StreamFormat,
    packets: tuple[bytes, ...],
    flags: tuple[int, ...],
    *,
    clip: bool = False,
    picture_at: int = -1,
    mark_at: int = -1,
) -> Recipe:
    return Recipe(
        packets=packets,
        flags=flags,
        video=stream.kind == "video",
        clip=clip,
        transport_cc_at=extension_at(packets[0], TRANSPORT_CC_ID),
        send_time_at=extension_at(packets[0], ABS_SEND_TIME_ID),
        picture_at=picture_at,
        mark_at=mark_at,
        clock_rate=stream.clock_rate,
        first_number=random.randrange(1 << 15),  # below the half: the rollover counter cannot be misjudged
    )


def extension_at(packet: bytes, identifier: int) -> int:
    """Where the value of a one-byte header extension (RFC 8285) begins; -1 where the packet has none."""
    if packet[0] & 0x1F != 0x10:
        return -1
    at, end = 16, 16 + 4 * int.from_bytes(packet[14:16])
    while at < end:
        if packet[at] >> 4 == identifier:
            return at + 1
        at += 1 if packet[at] == 0 else 2 + (packet[at] & 0x0F)
    return -1
