"""One participant's audio on its way to FFmpeg: Opus without a gap, from the start to the end of the pipeline's run."""

from typing import Final

from trio_sfu.hls.clocks import ClockOffset
from trio_sfu.hls.feed_base import START_LAG, Feed
from trio_sfu.hls.frames import Incoming
from trio_sfu.hls.opus import SAMPLE_RATE, SILENCE, duration
from trio_sfu.hls.reorder import Reorder
from trio_sfu.hls.timeline import Timeline

__all__ = ["AudioFeed"]

_REORDER_SECONDS: Final = 0.06
_MOST_HELD: Final = 64
_MOST_OCTETS: Final = 64_000
# Up to so long ago the timeline is always covered.
_LAG: Final = 0.1
# What is off by less than this stays where it follows on, so that an unbroken stream has unbroken timestamps.
_TOLERANCE: Final = SAMPLE_RATE // 100
_SILENCE_SAMPLES: Final = SILENCE[0][0]
# A server that stood still for longer does not make up for it with silence.
_MOST_FILL: Final = 5 * SAMPLE_RATE
# Frames of at most a byte are "nothing to say" (DTX), for which FFmpeg's decoder has no comfort noise.
_DTX_OCTETS: Final = 2
# Packets that are late again and again are late for a reason: the participant is put later, by at most this. Where it
# does not suffice, his reports are to blame: his voice is worth more than his lips.
_MOST_DELAY: Final = 0.5
_OFTEN_LATE: Final = 5.0
_FORGIVEN: Final = 0.1  # for each packet in time: as many as one in ten may be late
_BURST_SECONDS: Final = 0.015  # what comes at once is late once
# Delay that nobody has needed for so long is taken back, but for a margin.
_SPARE_SECONDS: Final = 10.0
_SPARE_MARGIN: Final = 0.03


class AudioFeed(Feed):
    """Every packet sent begins where the one before it ends: the timestamps say exactly what a decoder makes of them.

    Silence goes where there is nothing: at once where a packet shows a gap before it, otherwise when a place is more
    than 0.1 s in the past. Drop policy: a packet whose place is taken already is dropped.
    """

    def __init__(self, timeline: Timeline, clock: ClockOffset, *, payload_type: int, ssrc: int) -> None:
        super().__init__(
            timeline,
            clock,
            Reorder(_REORDER_SECONDS, _MOST_HELD, _MOST_OCTETS),
            payload_type=payload_type,
            ssrc=ssrc,
            clock_rate=SAMPLE_RATE,
        )
        self._edge = 0  # the position where what has been sent ends
        self._covered = True  # whether it ends with silence, put there because it was time
        self._late = 0.0
        self._late_at = float("-inf")
        self._spare = float("inf")
        self._spare_since = 0.0

    def _begin(self, now: float) -> None:
        self._edge = self._timeline.ticks(now - START_LAG, SAMPLE_RATE)
        self._fill(now)

    def _fill(self, now: float) -> None:
        missing = self._ahead(now - _LAG)
        if missing >= _SILENCE_SAMPLES:
            self._send_silence(missing - missing % _SILENCE_SAMPLES)
            self._covered = True

    def _interrupt(self, now: float) -> None:
        pass

    def _lose(self) -> None:
        pass  # the next packet shows the gap

    def _take(self, packet: Incoming, now: float) -> None:
        samples = duration(packet.payload)
        if not samples:
            self.counters.dropped += 1
            return
        if len(packet.payload) <= _DTX_OCTETS:
            return
        time = self._stream.time(packet.timestamp, now)
        self._take_back(time, now)
        ahead = self._ahead(time)
        if ahead > _TOLERANCE:
            self._send_silence(ahead)
        elif ahead < -_TOLERANCE and not self._put_later(-ahead / SAMPLE_RATE, now):
            self.counters.dropped += 1
            return
        self._late = max(0.0, self._late - _FORGIVEN)
        self._send((packet.payload,), self._edge)
        self._edge += samples
        self._covered = False
        self.counters.frames += 1

    def _ahead(self, time: float) -> int:
        """How many samples after what has been sent. What is too many is left out, so that there is less to fill."""
        ahead = self._timeline.ticks(time, SAMPLE_RATE) - self._edge
        if ahead > _MOST_FILL:
            self._edge += ahead - _SILENCE_SAMPLES
            return _SILENCE_SAMPLES
        return ahead

    def _send_silence(self, samples: int) -> None:
        """As much as packets of silence can be fitted: a rest of less than 2.5 ms stays."""
        for length, payload in SILENCE:
            while samples >= length:
                self._send((payload,), self._edge)
                self._edge += length
                samples -= length
                self.counters.silence += 1

    def _put_later(self, late: float, now: float) -> bool:
        """Whether a packet that came ``late`` seconds after silence took its place is reason to delay the participant.

        One that overlaps with a packet of his own is not: there the estimate of his clock has changed.
        """
        if not self._covered:
            return False
        if now - self._late_at >= _BURST_SECONDS:
            self._late += 1.0
            self._late_at = now
        if self._late < _OFTEN_LATE:
            return False
        self._late = 0.0
        if self._clock.delay + late > _MOST_DELAY:
            self._stream.distrust(now)
            return False
        self._clock.delay += late
        self._spare, self._spare_since = float("inf"), now
        return True

    def _take_back(self, time: float, now: float) -> None:
        """See how early packets come for their places, and take delay back that is not needed."""
        if not self._clock.delay:
            return
        self._spare = min(self._spare, time - now + _LAG)
        if now - self._spare_since >= _SPARE_SECONDS:
            spare = min(self._clock.delay, self._spare - _SPARE_MARGIN)
            if spare > _TOLERANCE / SAMPLE_RATE:
                self._clock.delay -= spare
            self._spare, self._spare_since = float("inf"), now
