"""A simulated link with a viewer behind it, for the bandwidth estimator: no sockets, no clock of its own.

:class:`Link` is a rate-limited drop-tail queue with delay and jitter; :class:`Scene` sends audio and simulcast
videos over it as the server would, with estimator and allocator in the loop, and answers with the feedback that a
browser sends. Everything random comes from one seed.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from trio_sfu.media.bandwidth.allocation import Allocator, Claim, wanted_bitrate
from trio_sfu.media.bandwidth.estimator import BandwidthEstimator
from trio_sfu.wire.transport_feedback import build, parse

LAYERS: Final = (150_000, 500_000, 1_700_000)
AUDIO: Final = 40_000
_PACKET: Final = 1200
_KEYFRAME: Final = 4  # times an ordinary frame


@dataclass
class Link:
    """``rate`` in bit/s, None is no limit; ``queue`` in seconds of waiting, beyond which packets are dropped;
    ``cross`` is the bit rate of another's traffic in the same queue."""

    rate: float | None = None
    delay: float = 0.02
    queue: float = 0.4
    jitter: float = 0.0
    loss: float = 0.0
    cross: float = 0.0
    feedback_loss: float = 0.0
    skew: float = 0.0
    free_at: float = 0.0
    last_arrival: float = 0.0
    crossed_at: float = 0.0

    def arrival(self, size: int, now: float, rng: random.Random) -> float | None:
        """When a packet sent now arrives; None where it is lost."""
        if rng.random() < self.loss:
            return None
        start = now
        if self.rate is not None:
            if self.cross:
                # Ours and the other's packets take turns: theirs wait in front of this one.
                self.free_at = max(self.free_at, self.crossed_at)
                self.free_at += self.cross * (now - self.crossed_at) / self.rate
                self.crossed_at = now
            start = max(now, self.free_at)
            if start - now > self.queue:
                return None
            start = self.free_at = start + size * 8 / self.rate
        arrived = start + self.delay + self.jitter * rng.random()
        self.last_arrival = max(arrived, self.last_arrival)
        return self.last_arrival


@dataclass
class Scene:
    """One viewer. After :meth:`run` the lists hold a row for each 0.1 s."""

    link: Link
    seed: int = 1
    first_number: int = 0
    layers: tuple[int, ...] = LAYERS
    videos: int = 1
    feedback_seconds: float = 0.05
    now: float = 100.0
    estimator: BandwidthEstimator = field(default_factory=BandwidthEstimator)
    allocator: Allocator = field(default_factory=Allocator)

    def __post_init__(self) -> None:
        self.began = self.now
        self.rng = random.Random(self.seed)
        self.number = self.first_number
        self.chosen: list[int | None] = [None] * self.videos
        self._frames = [100 * index for index in range(self.videos)]
        self.rows: list[Row] = []
        self.changes = 0
        self._keyframes = [True] * self.videos
        self._base = 0x10000 + self.first_number
        self._count = 0
        self._in_flight: list[tuple[float, int, float]] = []  # arrival, extended number, sent
        self._arrived: list[tuple[int, float]] = []
        self._answers: deque[tuple[float, list[bytes]]] = deque()
        self._extended = 0x10000 + self.first_number
        self._sent = 0
        self._padding = 0
        self._delays: list[float] = []
        self._turn = 0
        self._next = {"video": self.now, "audio": self.now + 0.003, "tick": self.now, "feedback": self.now + 0.03}
        self._next_row = self.now + 0.1
        self._next_decision = self.now
        self.estimator.expect_feedback()

    @property
    def layer(self) -> int | None:
        """What the first video gets."""
        return self.chosen[0]

    @property
    def time(self) -> float:
        return self.now - self.began

    def run(self, until: float) -> None:
        """Go on until ``until`` seconds after the beginning."""
        stop = self.began + until
        due = self._next
        while True:
            kind = min(due, key=lambda each: due[each])
            if due[kind] > stop:
                self.now = stop
                return
            self.now = due[kind]
            match kind:
                case "video":
                    due[kind] += 1 / 30 / self.videos
                    self._turn = (self._turn + 1) % self.videos
                    self._send_frame(self._turn)
                case "audio":
                    due[kind] += 0.02
                    self._send([AUDIO // 400])
                case "feedback":
                    due[kind] += self.feedback_seconds
                    self._report()
                case _:
                    due[kind] += 0.02
                    self._tick()

    def _send_frame(self, video: int) -> None:
        layer = self.chosen[video]
        if layer is None:
            return
        size = self.layers[layer] // 240
        if self._keyframes[video] or self._frames[video] % 300 == 0:
            size *= _KEYFRAME
            self._keyframes[video] = False
        self._frames[video] += 1
        size = round(size * self.rng.uniform(0.8, 1.2))
        self._send([_PACKET] * (size // _PACKET) + [max(60, size % _PACKET)])

    def _send(self, sizes: list[int]) -> None:
        self.estimator.on_sent(self.number, sum(sizes), len(sizes), self.now)
        for size in sizes:
            arrival = self.link.arrival(size, self.now, self.rng)
            if arrival is not None:
                heapq.heappush(self._in_flight, (arrival, self._extended, self.now))
                self._delays.append(arrival - self.now - self.link.delay)
            self.number = self.number + 1 & 0xFFFF
            self._extended += 1
            self._sent += size

    def _report(self) -> None:
        while self._in_flight and self._in_flight[0][0] <= self.now:
            arrival, number, _ = heapq.heappop(self._in_flight)
            self._arrived.append((number, 5000 + arrival * (1 + self.link.skew)))
        if self._arrived:
            messages = build(1, 2, self._count, self._arrived, self._base)
            self._count += len(messages)
            self._base = max(number for number, _ in self._arrived) + 1
            self._arrived = []
            sent = [each.to_bytes() for each in messages if self.rng.random() >= self.link.feedback_loss]
            self._answers.append((self.now + self.link.delay, sent))

    def _tick(self) -> None:
        estimator = self.estimator
        while self._answers and self._answers[0][0] <= self.now:
            for data in self._answers.popleft()[1]:
                estimator.on_feedback(parse(data), self.now)
        estimator.tick(self.now)
        if self.now >= self._next_decision:
            self._next_decision = self.now + 0.1
            self._decide()
        probe = estimator.take_probe(self.now)
        if probe is not None and probe.size:
            self._padding += probe.size
            self._send([_PACKET] * (probe.size // _PACKET) + [max(60, probe.size % _PACKET)])
        if self.now >= self._next_row:
            self._next_row += 0.1
            self.rows.append(
                Row(
                    self.time,
                    self.layer,
                    estimator.bitrate or 0,
                    self._sent * 80,
                    self._padding * 80,
                    max(self._delays, default=0.0),
                )
            )
            self._sent = self._padding = 0
            self._delays.clear()

    def _decide(self) -> None:
        claims = [Claim("a", "audio", (AUDIO,)), *(Claim(f"v{at}", "video", self.layers) for at in range(self.videos))]
        self.estimator.set_wanted(wanted_bitrate(claims))
        decisions = self.allocator.decide(self.estimator.bitrate, claims, self.now)
        for video, decision in enumerate(decisions[1:]):
            if decision.index != self.chosen[video]:
                self.chosen[video] = decision.index
                self._keyframes[video] = True
                self.changes += 1

    def between(self, first: float, last: float) -> list[Row]:
        """The rows of that time, at least one."""
        rows = [row for row in self.rows if first < row.time <= last]
        assert rows
        return rows

    def first_time(self, layer: int, after: float = 0.0) -> float:
        """When the video has reached ``layer``; infinity if it never has."""
        return next((row.time for row in self.rows if row.layer == layer and row.time > after), float("inf"))


@dataclass(frozen=True, slots=True)
class Row:
    """A tenth of a second: rates in bit/s, the longest wait in seconds."""

    time: float
    layer: int | None
    estimate: int
    sent: int
    padding: int
    wait: float


def mean_sent(rows: list[Row]) -> float:
    """Average bit rate, padding included."""
    return sum(row.sent for row in rows) / len(rows)
