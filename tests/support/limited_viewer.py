"""A viewer behind a simulated link, and senders of simulcast, for what consumers are sent of it: no sockets.

What the viewer's sink is given goes over a :class:`~tests.support.bandwidth_link.Link`; the viewer answers as a browser
does, with transport-wide feedback or with REMB. Everything random comes from one seed.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final, Literal

import msgspec

from tests.support.bandwidth_link import Link
from tests.support.media_core import VIDEO_TYPE, Call, FakeSession, Sent, audio, rtp
from trio_sfu.media.capabilities import TRANSPORT_CC_ID, TRANSPORT_CC_URI
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import Layers
from trio_sfu.media.parameters import RtpCapabilities
from trio_sfu.media.producer import Producer
from trio_sfu.wire.rtcp import PictureLossIndication, Remb
from trio_sfu.wire.transport_feedback import build

__all__ = ["RATES", "LimitedViewer", "Scene", "VideoSender", "capabilities_for"]

RATES: Final = (80_000, 240_000, 800_000)
STEP: Final = 0.02
_FRAME: Final = 0.04
_PACKET: Final = 1000
_KEYFRAME: Final = 3  # times an ordinary frame

Answers = Literal["transport-cc", "goog-remb", "nothing"]


def capabilities_for(call: Call, answers: Answers) -> RtpCapabilities:
    """The router's, as an endpoint has them that tells of what arrives in this way only."""
    whole = call.router.rtp_capabilities
    left_out = {"transport-cc", "goog-remb"} - {answers}
    codecs = tuple(
        msgspec.structs.replace(
            codec, rtcp_feedback=tuple(each for each in codec.rtcp_feedback if each.type not in left_out)
        )
        for codec in whole.codecs
    )
    extensions = tuple(
        each for each in whole.header_extensions if answers == "transport-cc" or each.uri != TRANSPORT_CC_URI
    )
    return msgspec.structs.replace(whole, codecs=codecs, header_extensions=extensions)


class VideoSender:
    """Streams of ``rates`` bit/s, SSRCs ``100 + index``; a PLI is answered by a keyframe of that stream."""

    def __init__(self, call: Call, rates: tuple[int, ...] = RATES) -> None:
        self.call = call
        self.session: FakeSession = call.session()
        self.rates = rates
        self.producer: Producer = call.produce_video(
            self.session, encodings=[{"ssrc": 100 + index, "rtx": {"ssrc": 200 + index}} for index in range(len(rates))]
        )
        self.key_wanted = set(range(len(rates)))
        self.requests: list[int] = []
        self.silent = False
        self.keyframe = _KEYFRAME
        self._numbers = [0] * len(rates)
        self._ticks = 0

    def frame(self) -> None:
        """One frame of each stream."""
        if self.silent:
            return
        self._ticks += 1
        for index, rate in enumerate(self.rates):
            key = index in self.key_wanted
            self.key_wanted.discard(index)
            size = round(rate * _FRAME / 8) * (self.keyframe if key else 1)
            packets = []
            for at in range(0, size, _PACKET):
                head = bytes((0x10 if at == 0 else 0x00, 0x00 if key else 0x01, index))
                payload = head + bytes(min(_PACKET, size - at))
                number = self._numbers[index]
                self._numbers[index] = number + 1 & 0xFFFF
                packets.append(
                    rtp(
                        100 + index,
                        number,
                        3600 * self._ticks,
                        payload_type=VIDEO_TYPE,
                        marker=at + _PACKET >= size,
                        payload=payload,
                    )
                )
            self.session.feed(*packets)

    def listen(self) -> None:
        """Take in what has been asked for."""
        for item in self.session.sink.take_rtcp():
            if isinstance(item, PictureLossIndication):
                self.requests.append(item.media_ssrc - 100)
                self.key_wanted.add(item.media_ssrc - 100)


@dataclass
class LimitedViewer:
    """One transport towards a viewer, over ``link``."""

    call: Call
    link: Link
    answers: Answers = "transport-cc"
    seed: int = 1
    received: list[tuple[float, Sent]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session: FakeSession = self.call.session()
        self.capabilities = capabilities_for(self.call, self.answers)
        self.rng = random.Random(self.seed)
        self.seen = 0
        self._in_flight: list[tuple[float, int, Sent]] = []
        self._arrived: list[tuple[int, float]] = []
        self._base: int | None = None
        self._newest = 0
        self._count = 0
        self._steps = 0
        self._order = 0
        self._remb = 300_000.0

    def consume(
        self, producer: Producer, capabilities: RtpCapabilities | None = None, *, preferred: Layers | None = None
    ) -> Consumer:
        return self.call.router.consume(
            SimpleNamespace(session=self.session.session),
            producer,
            capabilities or self.capabilities,
            preferred_layers=preferred,
        )

    def step(self) -> None:
        """What has been sent goes on its way; what has arrived is answered every 60 ms."""
        now = self.call.now
        sent = self.session.sink.rtp
        for packet in sent[self.seen :]:
            arrival = self.link.arrival(packet.size, now, self.rng)
            if arrival is not None:
                self._order += 1
                heapq.heappush(self._in_flight, (arrival, self._order, packet))
        self.seen = len(sent)
        self._steps += 1
        if self._steps % 3:
            return
        octets = 0
        while self._in_flight and self._in_flight[0][0] <= now:
            arrival, _, packet = heapq.heappop(self._in_flight)
            self.received.append((arrival, packet))
            octets += packet.size
            number = packet.extensions.get(TRANSPORT_CC_ID)
            if number is not None and any(number):
                value = int.from_bytes(number, "big")
                if self._base is None:
                    self._base = self._newest = 0x10000 + value
                self._newest += (value - self._newest + 0x8000 & 0xFFFF) - 0x8000
                self._arrived.append((self._newest, 5000 + arrival))
        if self.answers == "transport-cc" and self._arrived and self._base is not None:
            messages = build(1, 2, self._count, self._arrived, self._base)
            self._count += len(messages)
            self._base = self._newest + 1
            self._arrived = []
            self.session.feed_rtcp(*messages)
        elif self.answers == "goog-remb":
            # A receiver's estimate: it follows what comes, up to what the link carries.
            rate = octets * 8 / (3 * STEP)
            self._remb = max(self._remb * 0.95, min(1.5 * rate, self._remb * 1.3), 50_000.0)
            if self.link.rate is not None:
                self._remb = min(self._remb, 0.9 * self.link.rate)
            self.session.feed_rtcp(Remb(1, round(self._remb), tuple(self.session.session._outgoing)))

    def between(self, first: float, consumer: Consumer) -> list[Sent]:
        """What of ``consumer`` has come since ``first``."""
        return [packet for at, packet in self.received if at >= first and packet.ssrc == consumer.ssrc]


class Scene:
    """Senders, audio that one of them sends, viewers, and the time."""

    def __init__(self) -> None:
        self.call = Call()
        self.senders: list[VideoSender] = []
        self.viewers: list[LimitedViewer] = []
        self.audio: tuple[FakeSession, Producer] | None = None
        self._steps = 0

    def sender(self, rates: tuple[int, ...] = RATES) -> VideoSender:
        sender = VideoSender(self.call, rates)
        self.senders.append(sender)
        return sender

    def speaker(self) -> Producer:
        session = self.call.session()
        self.audio = (session, self.call.produce_audio(session))
        return self.audio[1]

    def viewer(self, rate: float | None, answers: Answers = "transport-cc", **link: float) -> LimitedViewer:
        viewer = LimitedViewer(self.call, Link(rate, **link), answers)
        self.viewers.append(viewer)
        return viewer

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self._steps += 1
            if self._steps % 2:
                for sender in self.senders:
                    sender.frame()
            if self.audio is not None:
                self.audio[0].feed(audio(self._steps, payload=bytes(100)))
            for viewer in self.viewers:
                viewer.step()
            self.call.pass_time(STEP)
            for sender in self.senders:
                sender.listen()
        for viewer in self.viewers:
            assert viewer.session.faults == []
