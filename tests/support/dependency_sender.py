"""A sender whose layers are told by the dependency descriptor only: AV1, or H.264 with temporal ones."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.dependency_writer import L3T3, Structure, Template, descriptor
from tests.support.layered_sender import PATTERN, SSRC, LayeredSender
from tests.support.media_core import IDS
from trio_sfu.media.capabilities import DEPENDENCY_DESCRIPTOR_URI

__all__ = ["L1T3", "L3T3_KEY", "THEIR_ID", "DependencySender"]

THEIR_ID: Final = 12

# As libwebrtc has them: one template for each layer and kind of reference, targets from the highest to the lowest.
L3T3_KEY: Final = Structure(
    templates=(
        Template(0, 0, "SSSSSSSSS"),
        Template(0, 0, "------SSS", (12,)),
        Template(0, 1, "------SD-", (6,)),
        Template(0, 2, "------D--", (3,)),
        Template(0, 2, "------D--", (3,)),
        Template(1, 0, "SSSSSS---", (1,)),
        Template(1, 0, "---SSS---", (12,)),
        Template(1, 1, "---SD----", (6,)),
        Template(1, 2, "---D-----", (3,)),
        Template(1, 2, "---D-----", (3,)),
        Template(2, 0, "SSS------", (1,)),
        Template(2, 0, "SSS------", (12,)),
        Template(2, 1, "SD-------", (6,)),
        Template(2, 2, "D--------", (3,)),
        Template(2, 2, "D--------", (3,)),
    )
)
L1T3: Final = Structure(
    templates=(
        Template(0, 0, "SSS"),
        Template(0, 0, "SSS", (4,)),
        Template(0, 1, "SD-", (2,)),
        Template(0, 2, "D--", (1,)),
        Template(0, 2, "D--", (1,)),
    )
)


@dataclass
class DependencySender(LayeredSender):
    """``structure`` goes with each keyframe; the packets' ends are as in :class:`LayeredSender`."""

    codec: str = "AV1"
    spatial_layers: int = 3
    structure: Structure = L3T3
    rids: tuple[str, ...] = ()
    frame_number: int = 0xFFF0
    key_ticks: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.session = self.call.session()
        mode = f"L{self.spatial_layers}T3" + ("_KEY" if self.key_only else "")
        parameters: dict[str, Any] = {}
        if self.codec == "H264":
            parameters = {"packetization-mode": 1, "level-asymmetry-allowed": 1, "profile-level-id": "42e01f"}
        codecs = [
            {
                "mimeType": f"video/{self.codec}",
                "payloadType": 100,
                "clockRate": 90000,
                "parameters": parameters,
                "rtcpFeedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"}],
            },
            {"mimeType": "video/rtx", "payloadType": 101, "clockRate": 90000, "parameters": {"apt": 100}},
        ]
        encodings = [{"ssrc": SSRC, "rtx": {"ssrc": SSRC + 1}, "scalabilityMode": mode}]
        if self.rids:
            encodings = [{"ssrc": SSRC + 10 * at, "scalabilityMode": mode} for at in range(len(self.rids))]
        ids = {**IDS, DEPENDENCY_DESCRIPTOR_URI: THEIR_ID}
        self.producer = self.call.produce_video(
            self.session,
            codecs=codecs,
            encodings=encodings,
            headerExtensions=[{"uri": uri, "id": id_} for uri, id_ in ids.items()],
        )

    def picture(self) -> list[bytes]:
        key, self.key_wanted = self.key_wanted, False
        if key:
            self.key_tick = self.tick
            self.key_ticks.add(self.tick)
        since = (self.tick - self.key_tick) % 4
        kind = 0 if key else (1, 3, 2, 4)[since]  # of the five templates of each spatial layer
        assert self.structure.templates[kind].temporal == PATTERN[since]
        packets = []
        for spatial in self._present():
            for part in range(self.parts):
                first, last = part == 0, part == self.parts - 1
                value = descriptor(
                    self.structure.offset + 5 * spatial + kind & 0x3F,
                    self.frame_number,
                    start=first,
                    end=last,
                    structure=self.structure if key and spatial == 0 and first else None,
                )
                begins = key and spatial == 0 and first
                payload = bytes((0x18 if begins else 0x10, 0))
                if self.codec == "H264":
                    payload = b"\x65\x88" if key else b"\x41\x9a"
                payload += f"|{self.tick}.{spatial}.{part}".encode()
                packets.append(_wide_rtp(self.number, 3000 * self.tick, last and self._ends(spatial), value, payload))
                self.number = self.number + 1 & 0xFFFF
            self.frame_number = self.frame_number + 1 & 0xFFFF
        self.tick += 1
        return packets


def _wide_rtp(number: int, timestamp: int, marker: bool, value: bytes, payload: bytes) -> bytes:
    """With the two-byte form of extensions (RFC 8285, section 4.3), which a structure needs."""
    elements = bytes((THEIR_ID, len(value))) + value
    elements += bytes(-len(elements) % 4)
    header = struct.pack("!BBHII", 0x90, marker << 7 | 100, number, timestamp & 0xFFFFFFFF, SSRC)
    return header + struct.pack("!HH", 0x1000, len(elements) // 4) + elements + payload
