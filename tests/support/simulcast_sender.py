"""A sender of several streams with three temporal layers each, over a path that loses and reorders, and its viewer.

The encoder's model is that of :mod:`tests.support.layered_sender`; payloads end with ``|stream.tick.part``. Everything
random comes from one seed, and whatever is lost is repaired by RTX unless it is said to be lost for good.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tests.support.layered_sender import PATTERN, STEP, references
from tests.support.media_core import WALL_CLOCK, Call, FakeSession, Sent, rtp, rtx
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import Layers
from trio_sfu.media.producer import Producer
from trio_sfu.wire.rtcp import GenericNack, PictureLossIndication, SenderReport
from trio_sfu.wire.vp8 import parse_vp8
from trio_sfu.wire.vp9 import parse_vp9

__all__ = ["Frame", "SimulcastSender", "Viewer"]

PARTS: Final = 2
SSRC: Final = 1000
RTX: Final = 2000


@dataclass
class _Encoder:
    number: int
    picture_id: int
    tl0: int
    clock: int
    rtx_number: int = 0
    key_tick: int = 0
    key_wanted: bool = True
    key_ticks: set[int] = field(default_factory=set)
    sent: dict[int, bytes] = field(default_factory=dict)


class SimulcastSender:
    """``loss`` and ``late`` are the shares of packets that are lost, or come up to three frames late."""

    def __init__(
        self, codec: str = "VP8", *, seed: int = 1, streams: int = 3, loss: float = 0.0, late: float = 0.0
    ) -> None:
        self.codec = codec
        self.call = Call(seed)
        self.rng = random.Random(seed)
        self.session: FakeSession = self.call.session()
        self.loss = loss
        self.late = late
        self.tick = 0
        self.requests = 0
        self._held: list[tuple[int, bytes]] = []
        self.encoders = [
            _Encoder(
                number=self.rng.choice((0, 0x7FF0, 0xFFE0)),
                picture_id=self.rng.choice((3, 0x3FF0, 0x7FF8)),
                tl0=self.rng.choice((0, 120, 252)),
                clock=self.rng.randrange(1 << 32),
            )
            for _ in range(streams)
        ]
        codecs: list[dict[str, Any]] = [
            {
                "mimeType": f"video/{codec}",
                "payloadType": 100,
                "clockRate": 90000,
                "parameters": {"profile-id": 0} if codec == "VP9" else {},
                "rtcpFeedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"}],
            },
            {"mimeType": "video/rtx", "payloadType": 101, "clockRate": 90000, "parameters": {"apt": 100}},
        ]
        encodings = [{"ssrc": SSRC + at, "rtx": {"ssrc": RTX + at}, "scalabilityMode": "L1T3"} for at in range(streams)]
        self.producer: Producer = self.call.produce_video(self.session, codecs=codecs, encodings=encodings)

    def _picture(self, index: int) -> list[tuple[int, bytes]]:
        encoder = self.encoders[index]
        key, encoder.key_wanted = encoder.key_wanted, False
        if key:
            encoder.key_tick = self.tick
            encoder.key_ticks.add(self.tick)
        since = (self.tick - encoder.key_tick) % 4
        temporal, sync = PATTERN[since], since in (1, 2)
        if temporal == 0:
            encoder.tl0 = encoder.tl0 + 1 & 0xFF
        packets = []
        for part in range(PARTS):
            first, last = part == 0, part == PARTS - 1
            ids = (0x8000 | encoder.picture_id).to_bytes(2, "big")
            if self.codec == "VP8":
                head = bytes((0x90 if first else 0x80, 0xE0)) + ids
                head += bytes((encoder.tl0, temporal << 6 | sync << 5, 0x00 if key else 0x01))
            else:
                head = bytes((0x80 | 0x20 | (0 if key else 0x40) | first << 3 | last << 2,)) + ids
                head += bytes((temporal << 5 | sync << 4, encoder.tl0))
            packet = rtp(
                SSRC + index,
                encoder.number,
                encoder.clock + 1800 * self.tick,
                marker=last,
                payload=head + f"|{index}.{self.tick}.{part}".encode(),
            )
            encoder.sent[encoder.number] = packet
            packets.append((index, packet))
            encoder.number = encoder.number + 1 & 0xFFFF
        encoder.picture_id = encoder.picture_id + 1 & 0x7FFF
        return packets

    def step(self) -> None:
        """One frame of each stream; time goes on by a frame."""
        if self.tick % 50 == 0:
            for index, encoder in enumerate(self.encoders):
                ntp = round((WALL_CLOCK + self.call.now) * (1 << 32))
                stamp = encoder.clock + 1800 * self.tick & 0xFFFFFFFF
                self.session.feed_rtcp(SenderReport(SSRC + index, ntp, stamp, 0, 0))
        due, self._held = self._held, []
        packets = []
        for index in range(len(self.encoders)):
            packets += self._picture(index)
        self.tick += 1
        if due and self.rng.random() < 0.5:
            packets, due = due + packets, []
        for each in (*packets, *due):
            chance = self.rng.random()
            if chance < self.loss and each in packets:
                continue
            if chance < self.loss + self.late:
                if self.rng.random() < 0.5:
                    self._held.append(each)
                    continue
                at = self.rng.randrange(len(packets))
                packets.remove(each) if each in packets else None
                packets.insert(at, each)
        ordered = [packet for _, packet in packets + due]
        if self.loss or self.late:
            ordered = [packet for packet in ordered if not self._is_lost(packet)]
        if ordered:
            self.session.feed(*ordered)
        self.call.pass_time(STEP)
        self._listen()

    def _is_lost(self, packet: bytes) -> bool:
        return self.rng.random() < self.loss

    def _listen(self) -> None:
        for item in self.session.sink.take_rtcp():
            if isinstance(item, PictureLossIndication):
                self.requests += 1
                self.encoders[item.media_ssrc - SSRC].key_wanted = True
            elif isinstance(item, GenericNack):
                index = item.media_ssrc - SSRC
                encoder = self.encoders[index]
                for number in item.lost:
                    if number in encoder.sent and self.rng.random() >= self.loss:
                        repair = rtx(encoder.rtx_number, encoder.sent[number], ssrc=RTX + index)
                        encoder.rtx_number += 1
                        self.session.feed(repair)


class Frame(NamedTuple):
    """One frame as it went out."""

    stream: int
    tick: int
    temporal: int
    picture_id: int
    tl0: int
    parts: int


class Viewer:
    """One consumer's receiver, which asks again for what is missing for two frames, and knows what can be decoded."""

    def __init__(self, sender: SimulcastSender, **more: Any) -> None:
        self.sender = sender
        self.session: FakeSession = sender.call.session()
        self.consumer: Consumer = sender.call.consume(self.session, sender.producer, **more)
        self.told: list[Layers | None] = []
        self.consumer.on_layers_change = self.told.append
        self.packets: dict[int, bytes] = {}  # by extended number
        self.marks: dict[int, bool] = {}
        self.repeats = 0
        self._seen = 0
        self._newest: int | None = None
        self._missing: dict[int, int] = {}

    def take(self) -> None:
        """What has come since the last call; asks again for what is missing."""
        sent = self.session.sink.rtp
        for packet in sent[self._seen :]:
            if packet.ssrc == self.consumer.ssrc:
                self._put(packet.sequence_number, packet.payload, packet)
            elif packet.ssrc == self.consumer.rtx_ssrc:
                self._put(int.from_bytes(packet.payload[:2], "big"), packet.payload[2:], packet)
        self._seen = len(sent)
        for number in self._missing:
            self._missing[number] += 1
        again = [number & 0xFFFF for number, age in self._missing.items() if age % 3 == 2]
        if again:
            self.session.feed_rtcp(GenericNack(1, self.consumer.ssrc, tuple(again)))

    def ask_again(self, back: int) -> None:
        """For what has come already: it must be the same."""
        if self._newest is not None and self._newest - back in self.packets:
            number = self._newest - back & 0xFFFF
            self.session.feed_rtcp(GenericNack(1, self.consumer.ssrc, (number,)))

    def _put(self, number: int, payload: bytes, packet: Sent) -> None:
        if self._newest is None:
            self._newest = 0x10000 + number
            extended = self._newest
        else:
            extended = self._newest + (number - self._newest + 0x8000 & 0xFFFF) - 0x8000
        before = self.packets.get(extended)
        assert before is None or before == payload, "two packets of one number"
        self.repeats += before is not None
        self.packets[extended] = payload
        self.marks[extended] = packet.marker
        self._missing.pop(extended, None)
        for hole in range(self._newest + 1, extended):
            self._missing[hole] = 0
        self._newest = max(self._newest, extended)

    @property
    def missing(self) -> list[int]:
        return sorted(self._missing)

    def frames(self) -> list[Frame]:
        """In the order of the numbers; a frame's packets lie together and have the same ids."""
        frames: list[Frame] = []
        for _, payload in sorted(self.packets.items()):
            if not payload:
                continue
            stream, tick, _ = (int(text) for text in payload.rsplit(b"|", 1)[1].split(b"."))
            parsed = parse_vp8(payload) if self.sender.codec == "VP8" else parse_vp9(payload)
            assert parsed.picture_id is not None
            assert parsed.tl0_pic_idx is not None
            assert parsed.temporal_layer is not None
            frame = Frame(stream, tick, parsed.temporal_layer, parsed.picture_id, parsed.tl0_pic_idx, 1)
            if frames and frames[-1][:2] == frame[:2]:
                assert frames[-1][:5] == frame[:5], "a frame with two ids"
                frames[-1] = frame._replace(parts=frames[-1].parts + 1)
            else:
                frames.append(frame)
        return frames

    def is_key(self, frame: Frame) -> bool:
        return frame.tick in self.sender.encoders[frame.stream].key_ticks

    def broken(self) -> list[Frame]:
        """Frames of which a packet or a reference is missing."""
        broken: list[Frame] = []
        decoded: set[tuple[int, int]] = set()
        current = -1
        key_tick = 0
        for frame in self.frames():
            if self.is_key(frame):
                current, key_tick = frame.stream, frame.tick
                decoded.clear()  # nothing after a keyframe refers to what is before it
            needed = {(tick, 0) for tick, _ in references(frame.tick, 0, key_tick, key_only=False)}
            if frame.stream == current and frame.parts == PARTS and needed <= decoded:
                decoded.add((frame.tick, 0))
            else:
                broken.append(frame)
        return broken
