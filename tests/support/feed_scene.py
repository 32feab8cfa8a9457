"""Feeds without sockets: a server's time that the test moves, participants behind a network, and FFmpeg's view.

::

    scene = FeedScene(seed=1)
    alice = scene.participant(skew=120.0, delay=0.05, jitter=0.03, loss=0.02)
    scene.run(10.0)
    check_numbers(alice.video_out)
    shown = check_video(alice.video_out)
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from random import Random
from typing import Final, Literal

from tests.support.media_core import FakeSink, Sent
from trio_sfu.hls.feed import AudioFeed, ClockOffset, Feed, Timeline, VideoFeed
from trio_sfu.hls.opus import duration
from trio_sfu.wire.rtcp import SenderReport

__all__ = [
    "CARD",
    "FeedScene",
    "FfmpegSink",
    "Participant",
    "Shown",
    "StillRepeater",
    "audio_payload",
    "check_audio",
    "check_numbers",
    "check_video",
    "frame_payloads",
    "longest_pause",
    "most_behind",
    "number_of",
]

VIDEO_RATE: Final = 90_000
AUDIO_RATE: Final = 48_000
FRAME_SECONDS: Final = 1 / 25
WALL: Final = 1_700_000_000.0
START: Final = 1000.0
CARD: Final = [b"\x10\x00card 0 2", b"\x00\x00card 1 2"]


def frame_payloads(number: int, *, key: bool = False, parts: int = 3, refers_to: int | None = None) -> list[bytes]:
    """The packets of a VP8 frame; what it is stands in them as text, the frame it refers to where not the last one."""
    name = f"{number}k" if key else f"{number}" if refers_to in (None, number - 1) else f"{number}<{refers_to}"
    return [
        bytes((0x00 if part else 0x10, 0x00 if key else 0x01)) + f"{name} {part} {parts}".encode()
        for part in range(parts)
    ]


def audio_payload(number: int, head: bytes = b"\xfc") -> bytes:
    """A packet of 20 ms, or what else ``head`` says."""
    return head + f"a{number}".encode()


def number_of(packet: Sent) -> int | None:
    """Which of :func:`audio_payload` it is; None for silence."""
    text = packet.payload.partition(b"a")[2]
    return int(text) if text else None


class FfmpegSink(FakeSink):
    """What FFmpeg gets, with the server times at which it does."""

    def __init__(self, clock: Callable[[], float], rate: int) -> None:
        super().__init__(overhead=0)
        self._clock = clock
        self.rate = rate
        self.sent_at: list[float] = []
        self.rtp_before_report = False

    def send_rtp(self, start: int, sizes: Sequence[int], runs: Sequence[tuple[int, int, int]]) -> None:
        super().send_rtp(start, sizes, runs)
        self.sent_at += [self._clock()] * len(sizes)
        self.rtp_before_report = self.rtp_before_report or not self.rtcp

    @property
    def reports(self) -> list[SenderReport]:
        return [packet for packet in self.rtcp if isinstance(packet, SenderReport)]

    def time_of(self, packet: Sent) -> float:
        """Its Unix time by the sender reports, the only clock that FFmpeg has."""
        report = self.reports[0]
        ticks = (packet.timestamp - report.rtp_timestamp + (1 << 31)) % (1 << 32) - (1 << 31)
        return report.ntp_time / 2**32 - 2208988800 + ticks / self.rate

    def server_time_of(self, packet: Sent) -> float:
        return self.time_of(packet) - WALL + START


class StillRepeater:
    """A :class:`trio_sfu.media.stills.Repeater` that can repeat what it has seen; it checks how it is used."""

    def __init__(self) -> None:
        self.has_picture = False
        self._open = False

    def observe(self, payload: bytes, *, marker: bool, first: bool) -> None:
        assert first is not self._open
        self._open = not marker
        self.has_picture = True

    def repeat(self) -> list[bytes] | None:
        assert not self._open
        return [b"\x10\x01repeat 0 1"] if self.has_picture else None

    def forget(self) -> None:
        self.has_picture = False


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame that FFmpeg has got."""

    name: str
    """``card``, ``repeat``, or the participant's number: with a ``k`` for a keyframe, or with an earlier reference."""
    packet: Sent
    sent_at: float

    @property
    def number(self) -> int | None:
        digits = self.name.partition("<")[0].removesuffix("k")
        return int(digits) if digits.isdigit() else None

    @property
    def refers_to(self) -> int | None:
        """The frame that has to be the one before it, where it needs any."""
        if self.number is None or self.name.endswith("k"):
            return None
        earlier = self.name.partition("<")[2]
        return int(earlier) if earlier else self.number - 1


def check_numbers(sink: FfmpegSink) -> None:
    """One stream without a hole, reports first and always on one line."""
    assert sink.rtp
    assert not sink.rtp_before_report
    assert len({(packet.ssrc, packet.payload_type) for packet in sink.rtp}) == 1
    assert all(not packet.extensions for packet in sink.rtp)
    for before, after in pairwise(sink.rtp):
        assert after.sequence_number == before.sequence_number + 1 & 0xFFFF
    for before_report, report in pairwise(sink.reports):
        seconds = (report.ntp_time - before_report.ntp_time) / 2**32
        ticks = report.rtp_timestamp - before_report.rtp_timestamp & 0xFFFFFFFF
        assert abs(seconds - ticks / sink.rate) < 1e-6
        assert report.packet_count >= before_report.packet_count


def check_video(sink: FfmpegSink) -> list[Shown]:
    """Whole frames, each after the one that it refers to, later than the one before. Returns them."""
    shown: list[Shown] = []
    reference: int | None = None
    at = 0
    while at < len(sink.rtp):
        first = sink.rtp[at]
        name, part, parts = first.payload[2:].decode().split()
        assert part == "0"
        group = sink.rtp[at : at + int(parts)]
        assert [packet.payload[2:].decode() for packet in group] == [f"{name} {i} {parts}" for i in range(int(parts))]
        assert {packet.timestamp for packet in group} == {first.timestamp}
        assert [packet.marker for packet in group] == [False] * (len(group) - 1) + [True]
        if shown:
            step = first.timestamp - shown[-1].packet.timestamp & 0xFFFFFFFF
            assert VIDEO_RATE // 1000 <= step < 1 << 31
        frame = Shown(name, first, sink.sent_at[at])
        if name == "repeat":
            assert reference is not None
        elif name == "card":
            reference = None
        else:
            assert frame.refers_to in (None, reference)
            reference = frame.number
        shown.append(frame)
        at += len(group)
    return shown


def check_audio(sink: FfmpegSink) -> list[int]:
    """Every packet begins where the one before ends. Returns the participant's numbers, which only rise."""
    for before, after in pairwise(sink.rtp):
        assert after.timestamp - before.timestamp & 0xFFFFFFFF == duration(before.payload)
    numbers = [number for packet in sink.rtp if (number := number_of(packet)) is not None]
    assert numbers == sorted(set(numbers))
    return numbers


@dataclass(frozen=True, slots=True)
class Path:
    """A network: seconds, and shares of the packets."""

    delay: float
    jitter: float
    loss: float
    duplicates: float


class Participant:
    """A client with a clock of his own, two streams, and the consumers between him and the feeds.

    Frame and packet number n were captured n frame times, or n times 20 ms, after the scene began; the capture takes
    place on the hour of the client's own clock, which is ``skew`` seconds ahead of the server's.
    """

    def __init__(self, scene: FeedScene, skew: float, path: Path, repeater: StillRepeater | None) -> None:
        self.scene = scene
        self.skew = skew
        self.path = path
        self.clock = ClockOffset()
        self.video_out = FfmpegSink(lambda: scene.now, VIDEO_RATE)
        self.audio_out = FfmpegSink(lambda: scene.now, AUDIO_RATE)
        self.video = VideoFeed(
            scene.timeline,
            self.clock,
            mime_type="video/VP8",
            payload_type=96,
            ssrc=0xABC,
            repeater=repeater,
            card=CARD,
        )
        self.audio = AudioFeed(scene.timeline, self.clock, payload_type=111, ssrc=0xDEF)
        self.sends: set[Literal["video", "audio", "reports"]] = {"video", "audio", "reports"}
        self.keyframes: set[int] = {0}
        """The frames that are keyframes; one that the feed asks for is added."""
        random = scene.random
        self._number = {"video": random.randrange(1 << 16), "audio": random.randrange(1 << 16)}
        self._base = {"video": random.randrange(1 << 32), "audio": random.randrange(1 << 32)}
        self._last_frame: int | None = None
        self._report: dict[str, tuple[float, int, float]] = {}
        self.lost: dict[str, set[int]] = {"video": set(), "audio": set()}
        """Frames and packets of which something has been lost."""
        self.video.sink(self.video_out)
        self.audio.sink(self.audio_out)
        self.feeds: list[Feed] = [self.video, self.audio]

    def begin(self) -> None:
        for feed in self.feeds:
            feed.start(self.scene.now)
        self._capture_video(0)
        self._capture_audio(0)
        self._send_report()
        self._consumer_report()

    # -- the client ---

    def _capture_video(self, number: int) -> None:
        scene = self.scene
        scene.at(START + (number + 1) * FRAME_SECONDS, lambda: self._capture_video(number + 1))
        if self.video.wants_keyframe:
            self.keyframes.add(number)
        if "video" not in self.sends:
            return
        payloads = frame_payloads(
            number, key=number in self.keyframes, parts=1 + number % 4, refers_to=self._last_frame
        )
        self._last_frame = number
        for part, payload in enumerate(payloads):
            marker = part == len(payloads) - 1
            self._transmit("video", number, self._timestamp("video"), marker, payload, processing=0.02)

    def _capture_audio(self, number: int) -> None:
        self.scene.at(START + (number + 1) * 0.02, lambda: self._capture_audio(number + 1))
        self._transmit("audio", number, self._timestamp("audio"), False, audio_payload(number), processing=0.025)

    def _timestamp(self, kind: str) -> int:
        rate = VIDEO_RATE if kind == "video" else AUDIO_RATE
        return self._base[kind] + round((self.scene.now - START) * rate) & 0xFFFFFFFF

    def _transmit(
        self,
        kind: Literal["video", "audio"],
        index: int,
        timestamp: int,
        marker: bool,
        payload: bytes,
        *,
        processing: float,
    ) -> None:
        if kind not in self.sends:
            return
        number = self._number[kind]
        self._number[kind] = number + 1 & 0xFFFF
        feed = self.video if kind == "video" else self.audio
        scene, random = self.scene, self.scene.random
        if random.random() < self.path.loss:
            self.lost[kind].add(index)
            return
        for _ in range(2 if random.random() < self.path.duplicates else 1):
            scene.at(
                scene.now + processing + self._way(),
                lambda: feed.receive(number, timestamp, marker, payload, scene.now),
            )

    def _way(self) -> float:
        """Most of what travels a network is hardly late, and some is very."""
        return self.path.delay + self.path.jitter * self.scene.random.random() ** 3

    def _send_report(self) -> None:
        scene = self.scene
        scene.at(scene.now + 1.0 + 0.5 * scene.random.random(), self._send_report)
        if "reports" in self.sends:
            for kind in ("video", "audio"):
                arrives = scene.now + self._way()
                report = (WALL + scene.now - START + self.skew, self._timestamp(kind), arrives)
                scene.at(arrives, partial(self._report.__setitem__, kind, report))

    # -- the server ---

    def _consumer_report(self) -> None:
        """As :meth:`trio_sfu.media.consumer.Consumer.sender_report` makes it: the last one, with the time since."""
        scene = self.scene
        scene.at(scene.now + 1.0, self._consumer_report)
        for kind, (ntp, timestamp, arrived) in self._report.items():
            elapsed = scene.now - arrived
            rate, feed = (VIDEO_RATE, self.video) if kind == "video" else (AUDIO_RATE, self.audio)
            feed.report(ntp + 2208988800 + elapsed, timestamp + round(elapsed * rate) & 0xFFFFFFFF, scene.now)


class FeedScene:
    """The server: its time, its timeline, its participants."""

    def __init__(self, seed: int = 1) -> None:
        self.now = START
        self.random = Random(seed)
        self.timeline = Timeline(lambda: self.now, WALL)
        self.participants: list[Participant] = []
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self.at(START, self._tick)

    def participant(
        self,
        *,
        skew: float = 0.0,
        delay: float = 0.03,
        jitter: float = 0.0,
        loss: float = 0.0,
        duplicates: float = 0.0,
        repeater: bool = True,
    ) -> Participant:
        path = Path(delay, jitter, loss, duplicates)
        participant = Participant(self, skew, path, StillRepeater() if repeater else None)
        self.participants.append(participant)
        self.at(self.now, participant.begin)
        return participant

    def at(self, time: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._events, (time, next(self._order), action))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = end

    def _tick(self) -> None:
        self.at(self.now + 0.02, self._tick)
        for participant in self.participants:
            for feed in participant.feeds:
                feed.tick(self.now)


def longest_pause(sink: FfmpegSink, end: float) -> float:
    """Seconds without a packet, from the start on."""
    return max(after - before for before, after in pairwise([START, *sink.sent_at, end]))


def most_behind(sink: FfmpegSink) -> float:
    """How far the timeline was behind the server's time, at worst, just before something was sent."""
    worst = -math.inf
    for before, sent_at in zip(sink.rtp, sink.sent_at[1:], strict=False):
        worst = max(worst, sent_at - sink.server_time_of(before))
    return worst
