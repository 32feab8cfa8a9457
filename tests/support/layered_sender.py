"""A sender of temporal and spatial layers, and a decoder that knows what each frame refers to.

Payloads end with ``|tick.spatial.part``. The encoder's model: temporal layers in the pattern 0 2 1 2, where the first
frame of layer 2 and those of layer 1 refer to layer 0 only (they are switching-up points), the other one of layer 2 to
layers 1 and 2 too; spatial layers refer to the one below in the same picture, in key pictures only where ``key_only``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tests.support.media_core import Call, FakeSession, Sent, rtp
from trio_sfu.media.producer import Producer
from trio_sfu.wire.rtcp import PictureLossIndication

PATTERN: Final = (0, 2, 1, 2)
STEP: Final = 0.02
SSRC: Final = 0x11111111


BACK: Final[dict[int, tuple[int, ...]]] = {0: (4,), 1: (1,), 2: (2,), 3: (1, 2, 3)}
"""How many pictures back those lie that a picture refers to, by its place in the pattern."""
DISCARDABLE: Final[dict[int, tuple[int, ...]]] = {0: (4,), 1: (1,), 2: (2,), 3: (1,)}
"""Where nothing refers to the highest temporal layer."""


def references(
    tick: int, spatial: int, key_tick: int, *, key_only: bool, back: dict[int, tuple[int, ...]] = BACK
) -> set[tuple[int, int]]:
    """The frames that a frame refers to."""
    found: set[tuple[int, int]] = set()
    if tick == key_tick:
        return {(tick, spatial - 1)} if spatial else found
    since = (tick - key_tick) % 4
    found |= {(tick - each, spatial) for each in back[since]}
    if spatial and not key_only:
        found.add((tick, spatial - 1))
    return found


@dataclass
class LayeredSender:
    """``codec`` is VP8 (one spatial layer) or VP9; the sender answers a PLI with a key picture in the next tick."""

    codec: str = "VP8"
    spatial_layers: int = 1
    key_only: bool = False
    parts: int = 2
    call: Call = field(default_factory=Call)
    number: int = 0xFF80
    picture_id: int = 0x7FC0
    tl0: int = 250
    tick: int = 0
    key_tick: int = 0
    key_wanted: bool = True
    requests: int = 0
    left_out: frozenset[int] = frozenset()
    """Spatial layers that the next pictures do not have: for want of bits, as Chromium's encoders do."""
    ends_said: bool = True
    """Whether such a picture has a marker all the same (AV1), or not where the highest layer is left out (VP9)."""

    def __post_init__(self) -> None:
        self.session: FakeSession = self.call.session()
        mode = f"L{self.spatial_layers}T3" + ("_KEY" if self.key_only else "")
        codecs = [
            {
                "mimeType": f"video/{self.codec}",
                "payloadType": 100,
                "clockRate": 90000,
                "parameters": {"profile-id": 0} if self.codec == "VP9" else {},
                "rtcpFeedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"}],
            },
            {"mimeType": "video/rtx", "payloadType": 101, "clockRate": 90000, "parameters": {"apt": 100}},
        ]
        self.producer: Producer = self.call.produce_video(
            self.session, codecs=codecs, encodings=[{"ssrc": SSRC, "rtx": {"ssrc": SSRC + 1}, "scalabilityMode": mode}]
        )

    def picture(self) -> list[bytes]:
        """The packets of the next picture; the clock goes on by one frame."""
        key, self.key_wanted = self.key_wanted, False
        if key:
            self.key_tick = self.tick
        temporal = PATTERN[(self.tick - self.key_tick) % 4]
        if temporal == 0:
            self.tl0 = self.tl0 + 1 & 0xFF
        sync = (self.tick - self.key_tick) % 4 in (1, 2)
        packets = []
        for spatial in self._present():
            for part in range(self.parts):
                first, last = part == 0, part == self.parts - 1
                descriptor = self._vp8(key, temporal, sync, first)
                if self.codec == "VP9":
                    descriptor = self._vp9(key, temporal, spatial, sync, first, last)
                payload = descriptor + f"|{self.tick}.{spatial}.{part}".encode()
                marker = last and self._ends(spatial)
                packets.append(rtp(SSRC, self.number, 3000 * self.tick, marker=marker, payload=payload))
                self.number = self.number + 1 & 0xFFFF
        self.picture_id = self.picture_id + 1 & 0x7FFF
        self.tick += 1
        return packets

    def _present(self) -> list[int]:
        return [spatial for spatial in range(self.spatial_layers) if spatial not in self.left_out]

    def _ends(self, spatial: int) -> bool:
        return spatial == (self._present()[-1] if self.ends_said else self.spatial_layers - 1)

    def _vp8(self, key: bool, temporal: int, sync: bool, first: bool) -> bytes:
        ids = (0x8000 | self.picture_id).to_bytes(2, "big") + bytes((self.tl0, temporal << 6 | sync << 5))
        return bytes((0x90 if first else 0x80, 0xE0)) + ids + bytes((0x00 if key else 0x01,))

    def _vp9(self, key: bool, temporal: int, spatial: int, sync: bool, first: bool, last: bool) -> bytes:
        head = 0x80 | 0x20 | (0 if key else 0x40) | first << 3 | last << 2
        layer = temporal << 5 | sync << 4 | spatial << 1 | bool(spatial and (key or not self.key_only))
        return bytes((head,)) + (0x8000 | self.picture_id).to_bytes(2, "big") + bytes((layer, self.tl0))

    def step(self, *lost: int) -> None:
        """Send one picture without the packets at the places ``lost``; time goes on by a frame."""
        packets = [packet for place, packet in enumerate(self.picture()) if place not in lost]
        if packets:
            self.session.feed(*packets)
        self.call.pass_time(STEP)
        for item in self.session.sink.take_rtcp():
            if isinstance(item, PictureLossIndication):
                self.requests += 1
                self.key_wanted = True


@dataclass
class Decoder:
    """Takes what a consumer has sent. ``shown`` are the pictures whose highest layer could be decoded, with it."""

    key_only: bool
    parts: int
    key_ticks: set[int] = field(default_factory=set)
    back: dict[int, tuple[int, ...]] = field(default_factory=lambda: BACK)
    decoded: set[tuple[int, int]] = field(default_factory=set)
    shown: list[tuple[int, int]] = field(default_factory=list)
    broken: list[tuple[int, int]] = field(default_factory=list)

    def take(self, sent: list[Sent]) -> None:
        """All packets of whole pictures, in the order of their numbers."""
        frames: dict[tuple[int, int], int] = {}
        for packet in sent:
            if not packet.payload:
                continue
            tick, spatial, _ = (int(text) for text in packet.payload.rsplit(b"|", 1)[1].split(b"."))
            frames[tick, spatial] = frames.get((tick, spatial), 0) + 1
        key_tick = 0
        pictures: dict[int, int] = {}
        for (tick, spatial), count in frames.items():
            if tick in self.key_ticks:
                key_tick = tick
            pictures[tick] = max(spatial, pictures.get(tick, 0))
            needed = references(tick, spatial, key_tick, key_only=self.key_only, back=self.back)
            if count == self.parts and needed <= self.decoded:
                self.decoded.add((tick, spatial))
        for tick, spatial in pictures.items():
            (self.shown if (tick, spatial) in self.decoded else self.broken).append((tick, spatial))
