"""What the feeds for audio and video have in common: the way in, the way out, and the sender reports."""

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trio_sfu.hls.clocks import ClockOffset
from trio_sfu.hls.feed_sink import FeedSink
from trio_sfu.hls.frames import Incoming
from trio_sfu.hls.reorder import Reorder
from trio_sfu.hls.timeline import Timeline
from trio_sfu.media.packet import runs_of
from trio_sfu.media.sink import Sink
from trio_sfu.wire.rtcp import SenderReport, SourceDescription, pack_compound

__all__ = ["START_LAG", "Feed", "FeedCounters"]

START_LAG: Final = 0.15
"""Seconds before :meth:`Feed.start` at which every stream begins on the timeline."""

_HEADER = struct.Struct("!HHII")
_REPORT_SECONDS: Final = 1.0
# Reports speak of a time that is over: FFmpeg counts from the first one, and nothing is to be before its zero.
_REPORT_LAG: Final = 1.0
_CNAME: Final = "trio-sfu"
# Packets handed to the transport at once: its arena need not hold a large frame.
_BATCH: Final = 32


@dataclass(slots=True)
class FeedCounters:
    """What a feed has done. ``packets`` and ``octets`` (payload) were sent to FFmpeg in all; ``dropped`` are packets of
    the participant that were not passed on."""

    packets: int = 0
    octets: int = 0
    frames: int = 0
    """The participant's own, a packet of audio each."""
    repeats: int = 0
    cards: int = 0
    silence: int = 0
    dropped: int = 0
    holes: int = 0


class Feed(ABC):
    """One stream to FFmpeg that never stops. The owner calls :meth:`tick` every 20 ms; times are the timeline's.

    Order: :meth:`sink` when the transport connects, then :meth:`start`; what comes earlier starts the feed itself. It
    owns nothing that needs closing. One consumer a feed: its numbers are taken to go on without a break.
    """

    def __init__(
        self,
        timeline: Timeline,
        clock: ClockOffset,
        reorder: Reorder[Incoming],
        *,
        payload_type: int,
        ssrc: int,
        clock_rate: int,
    ) -> None:
        # Given
        self.ssrc: Final = ssrc
        self._payload_type: Final = payload_type
        self._rate: Final = clock_rate
        self._timeline: Final = timeline
        self._clock: Final = clock
        self._reorder: Final = reorder
        # Owned
        self.counters: Final = FeedCounters()
        self.paused = False
        """Whether the participant sends nothing, by his own will."""
        self._stream: Final = clock.stream(clock_rate)
        self._inner: Sink | None = None
        self._started = False
        self._number = 0
        self._next_report = 0.0

    def sink(self, inner: Sink) -> Sink:
        """The sink for the consumer's session; ``inner`` is where the feed sends to."""
        self._inner = inner
        return FeedSink(self, self._timeline.clock)

    def start(self, now: float) -> None:
        """Send the first report, then what there is to send before the participant has sent anything."""
        if not self._started:
            self._started = True
            self._send_report(now)
            self._begin(now)

    def tick(self, now: float) -> None:
        """What is due by the clock: packets that have waited long enough, filling in, a report."""
        if not self._started:
            return
        self._release(now)
        self._fill(now)
        if now >= self._next_report:
            self._send_report(now)

    def pause(self, now: float) -> None:
        """The producer is paused: nothing comes, and what is on its way is dropped. A second call does nothing."""
        if not self.paused:
            self.paused = True
            self.counters.dropped += len(self._reorder)
            self._reorder.clear()
            self._interrupt(now)

    def resume(self, now: float) -> None:
        """Take packets again; does nothing where the feed is not paused."""
        self.paused = False

    def receive(self, number: int, timestamp: int, marker: bool, payload: bytes, now: float) -> None:
        """One packet of the consumer."""
        self.start(now)
        if self.paused:
            self.counters.dropped += 1
            return
        self._stream.observe(timestamp, now)
        if self._reorder.push(number, Incoming(timestamp, marker, payload), len(payload), now):
            self._release(now)
        else:
            self.counters.dropped += 1

    def report(self, ntp: float, timestamp: int, now: float) -> None:
        """A sender report of the consumer: the producer's NTP time, in seconds, of a timestamp."""
        self._stream.report(ntp, timestamp, now)

    def _release(self, now: float) -> None:
        for packet in self._reorder.pop(now):
            if packet is None:
                self.counters.holes += 1
                self._lose()
            else:
                self._take(packet, now)

    @abstractmethod
    def _begin(self, now: float) -> None:
        """Send the first packets."""

    @abstractmethod
    def _fill(self, now: float) -> None:
        """Send something where the participant has not."""

    @abstractmethod
    def _interrupt(self, now: float) -> None:
        """The stream has just been paused."""

    @abstractmethod
    def _lose(self) -> None:
        """Packets are missing for good before the next one."""

    @abstractmethod
    def _take(self, packet: Incoming, now: float) -> None:
        """The next packet, in order."""

    def _send(self, payloads: Sequence[bytes], ticks: int) -> None:
        """One frame: packets with plain headers, the marker on the last."""
        inner = self._inner
        assert inner is not None, "the feed is not connected"
        overhead = inner.overhead
        for at in range(0, len(payloads), _BATCH):
            some = payloads[at : at + _BATCH]
            sizes = [12 + len(payload) for payload in some]
            start = offset = inner.reserve(sum(sizes) + overhead * len(some))
            arena = inner.arena
            left = len(payloads) - at
            for payload, size in zip(some, sizes, strict=True):
                left -= 1
                head = 0x8000 | self._payload_type if left else 0x8080 | self._payload_type
                _HEADER.pack_into(arena, offset, head, self._number, ticks & 0xFFFFFFFF, self.ssrc)
                arena[offset + 12 : offset + size] = payload
                offset += size + overhead
                self._number = self._number + 1 & 0xFFFF
                self.counters.octets += len(payload)
            inner.send_rtp(start, sizes, runs_of(sizes))
        self.counters.packets += len(payloads)

    def _send_report(self, now: float) -> None:
        assert self._inner is not None, "the feed is not connected"
        self._next_report = now + _REPORT_SECONDS
        ticks = self._timeline.ticks(now - _REPORT_LAG, self._rate)
        report = SenderReport(
            self.ssrc,
            self._timeline.ntp(ticks, self._rate),
            ticks & 0xFFFFFFFF,
            self.counters.packets & 0xFFFFFFFF,
            self.counters.octets & 0xFFFFFFFF,
        )
        self._inner.send_rtcp(pack_compound((report, SourceDescription(((self.ssrc, _CNAME),)))))
