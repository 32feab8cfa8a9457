"""The bandwidth towards one viewer, from the feedback that it sends: the face of this package's estimate.

Owned by whoever owns the transport's RTP session, which reports what leaves, passes on feedback, calls
:meth:`BandwidthEstimator.tick` and sends the padding that :meth:`BandwidthEstimator.take_probe` asks for. The estimate
is the least of what delay (trendline.py, aimd.py), loss (loss.py) and the receiver (REMB) allow.
"""

from collections.abc import Callable
from typing import Final, Literal

from trio_sfu.media.bandwidth.aimd import LEAST_BITRATE, AcknowledgedRate, AimdController
from trio_sfu.media.bandwidth.loss import LossLimit
from trio_sfu.media.bandwidth.probing import Probe, ProbeController
from trio_sfu.media.bandwidth.sent_history import SentHistory
from trio_sfu.media.bandwidth.trendline import DelayDetector, Usage
from trio_sfu.wire.transport_feedback import TransportFeedback

__all__ = ["BandwidthEstimator", "EstimateState"]

EstimateState = Literal["unknown", "starting", "normal", "overuse", "underuse", "remb", "silent"]

START_BITRATE: Final = 600_000
# As long as nothing contradicts it, the start holds; who has sent no feedback by then will not send any.
_NEVER_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 3.0
_DECAY: Final = 0.9  # a second of silence
_FRESH_SECONDS: Final = 5.0  # how long what was said last rules out the other kind of feedback
# With a queue this long the estimate does not grow, though the queue may not be growing any more.
_LONG_QUEUE_SECONDS: Final = 0.1
_STANDING_QUEUE_SECONDS: Final = 0.2
_SHORT_QUEUE_SECONDS: Final = 0.06
_CALM_LOSS: Final = 0.1
_PROBE_QUEUE_SECONDS: Final = 0.05  # a probe that leaves so much behind was more than the link carries
_ROUND_TRIP_WEIGHT: Final = 0.125


class BandwidthEstimator:
    """The estimate of one transport. All calls with ``now``, ascending."""

    __slots__ = (
        "_acknowledged",
        "_aimd",
        "_delay",
        "_expected",
        "_feedback_at",
        "_given_up",
        "_history",
        "_loss",
        "_probes",
        "_remb",
        "_remb_at",
        "_report_at",
        "_round_trip",
        "_start",
        "_ticked_at",
        "fell_at",
        "on_sent",
    )

    def __init__(self, start_bitrate: int = START_BITRATE) -> None:
        # Given
        self._start: Final = float(start_bitrate)
        # Owned
        self._history: Final = SentHistory()
        self._delay: Final = DelayDetector()
        self._acknowledged: Final = AcknowledgedRate()
        self._aimd: Final = AimdController(float(start_bitrate))
        self._loss: Final = LossLimit()
        self._probes: Final = ProbeController()
        self._expected = False
        self._given_up = False
        self._feedback_at: float | None = None
        self._remb: float | None = None
        self._remb_at: float | None = None
        self._report_at: float | None = None
        self._round_trip: float | None = None
        self._ticked_at: float | None = None
        self.fell_at = float("-inf")
        """When delay or loss has shown the last time that the path carries less than was thought."""
        self.on_sent: Final[Callable[[int, int, int, float], None]] = self._history.on_sent
        """``on_sent(first, size, count, now)``: ``count`` packets, ``size`` bytes in all, have left together under the
        transport-wide numbers from ``first`` (16 bits) on. Only for packets that carry such a number."""

    def on_sent_unnumbered(self, first: int, size: int, count: int, now: float) -> None:
        """As :attr:`on_sent`, for packets without a number: no feedback tells of them, and by REMB probes are no longer
        than asked for."""
        if not self._expected:
            self._history.bytes_sent += size

    # -- what is known ---

    @property
    def bitrate(self) -> int | None:
        """The estimate in bit/s; None is no limit: nothing is known, and nothing will be."""
        current = self._current()
        return None if current is None else int(current)

    def _current(self) -> float | None:
        if self._feedback_at is not None:
            current = self._aimd.bitrate
            if self._remb is not None:
                current = min(current, self._remb)
        elif self._remb is not None:
            current = self._remb
        elif self._expected and not self._given_up:
            return self._start
        else:
            return None
        limit = self._loss.bitrate
        return max(LEAST_BITRATE, current if limit is None else min(current, limit))

    @property
    def state(self) -> EstimateState:
        """For statistics: what the estimate rests on, or what the delay says."""
        if self._feedback_at is not None:
            if self._ticked_at is not None and self._is_silent(self._ticked_at):
                return "silent"
            return self._delay.usage
        if self._remb is not None:
            return "remb"
        return "starting" if self._expected and not self._given_up else "unknown"

    @property
    def is_calm(self) -> bool:
        """Whether nothing that has been heard says that too much is sent."""
        return (
            self._remb is None
            and self._delay.usage == "normal"
            and self._delay.queueing_delay < _SHORT_QUEUE_SECONDS
            and self._loss.fraction < _CALM_LOSS
            and not (self._ticked_at is not None and self._is_silent(self._ticked_at))
        )

    @property
    def queueing_delay(self) -> float:
        """How many seconds longer than the fastest of the last 5 to 10 s the last packets were under way."""
        return self._delay.queueing_delay

    @property
    def acknowledged_bitrate(self) -> int | None:
        """What has arrived lately, in bit/s."""
        bitrate = self._acknowledged.bitrate
        return None if bitrate is None else int(bitrate)

    @property
    def fraction_lost(self) -> float:
        """Of the last 0.3 s or so, 0 to 1."""
        return self._loss.fraction

    @property
    def round_trip(self) -> float | None:
        """Smoothed, in seconds."""
        return self._round_trip

    # -- what comes in ---

    def expect_feedback(self) -> None:
        """A consumer has negotiated transport-wide feedback: the start bit rate holds until there is some.

        Where none comes within 5 s of sending, there is no limit after all.
        """
        self._expected = True

    def set_wanted(self, bitrate: int) -> None:
        """What the consumers could use in all: the sum of their best options."""
        self._probes.wanted = float(bitrate)

    def on_feedback(self, feedback: TransportFeedback, now: float) -> None:
        """Transport-wide feedback has come; whatever it says, nothing is raised."""
        summary = self._history.on_feedback(feedback, now)
        groups = summary.groups
        received, lost = summary.received, summary.lost
        if summary.recovered:
            self._loss.on_packets(0, 0, summary.recovered)
        if not received and not lost:
            return
        current = self._current() or self._start
        self._feedback_at = now
        if received:
            presumed = summary.presumed * received // (received + lost)
            self._acknowledged.update(groups[-1][2], summary.size + presumed)
            if summary.round_trip is not None:
                self.on_round_trip(summary.round_trip)
        usage = self._delay.update(groups)
        self._loss.on_packets(received, lost)
        result = self._probes.on_groups(groups, now, lost=summary.probe_lost)
        if result is not None and result.bitrate is not None:
            if result.bitrate > current:
                self._aimd.set_bitrate(result.bitrate, now)
                self._loss.lift(result.bitrate)
            elif self._delay.queueing_delay > _PROBE_QUEUE_SECONDS:
                self._aimd.set_bitrate(result.bitrate, now)  # not even what was taken for granted came through
        self._judge(usage, current, now)

    def _judge(self, usage: Usage, current: float, now: float) -> None:
        acknowledged = self._acknowledged.bitrate
        waiting = self._delay.queueing_delay
        if usage == "normal" and waiting > _LONG_QUEUE_SECONDS:
            # It grows too slowly for the detector, or drains: hold, and let nothing stand that is very long.
            usage = "overuse" if waiting > _STANDING_QUEUE_SECONDS else "underuse"
        fallen = self._aimd.update(usage, acknowledged, now, busy=self._delay.busy_bitrate)
        if usage == "normal" and waiting < _SHORT_QUEUE_SECONDS and acknowledged is not None:
            # What arrives without a queue is carried: much more may be sent than the estimate was, at the start.
            self._aimd.raise_to(acknowledged, now)
        # A probe that was too much may lose packets, which says nothing of the media beside it. The queue that it
        # leaves is a queue all the same; the busy link's rate is then what holds the estimate.
        probing = self._probes.disturbs(now)
        if self._loss.update(current, acknowledged, waiting, now, probing=probing) or fallen:
            self.fell_at = now
            self._probes.on_drop(now)

    def on_remb(self, bitrate: int, now: float) -> None:
        """The receiver's own estimate (draft-alvestrand-rmcat-remb-03): ours where nothing else comes, else a cap."""
        self._remb = float(bitrate)
        self._remb_at = now

    def on_report(self, fraction_lost: float, now: float) -> None:
        """A receiver report's loss, 0 to 1, the worst of those in one compound. Used where only REMB comes."""
        elapsed = now - self._report_at if self._report_at is not None else 1.0
        self._report_at = now
        current = self._current()
        if self._feedback_at is None and self._remb is not None and current is not None:
            self._loss.on_report(fraction_lost, current, elapsed)

    def on_round_trip(self, seconds: float) -> None:
        """A round trip measured here or elsewhere."""
        before = self._round_trip
        self._round_trip = seconds if before is None else before + _ROUND_TRIP_WEIGHT * (seconds - before)
        self._aimd.round_trip = self._round_trip

    # -- what the clock brings ---

    def tick(self, now: float) -> None:
        """To be called some times a second."""
        elapsed = now - self._ticked_at if self._ticked_at is not None else 0.0
        self._ticked_at = now
        self._probes.expire(now)
        if self._feedback_at is None:
            since = self._history.waiting_since
            if self._expected and since is not None and now - since > _NEVER_SECONDS:
                self._given_up = True
            return
        if self._remb is not None and self._remb_at is not None and now - self._remb_at > _FRESH_SECONDS:
            self._remb = None
        if self._is_silent(now):
            self._aimd.bitrate = max(LEAST_BITRATE, self._aimd.bitrate * _DECAY ** min(elapsed, 1.0))

    def _is_silent(self, now: float) -> bool:
        """Whether packets have been sent, and nothing was heard of them for long."""
        since = self._history.waiting_since
        return (
            self._feedback_at is not None
            and since is not None
            and now - max(since, self._feedback_at) > _SILENT_SECONDS
        )

    def take_probe(self, now: float) -> Probe | None:
        """The padding to send now, to be asked for every 20 ms and sent at once, reported by :meth:`on_sent`.

        Its ``size`` is what the media sent since the last call leave to be filled, so it may be 0. None: no probe is
        going on. What is sent between the first call that returns a probe and the first that does not belongs to it.
        """
        history = self._history
        current = self._current()
        if current is None or (self._feedback_at is None and self._remb is None):
            return None
        calm = (
            self._delay.usage == "normal"
            and self._delay.queueing_delay < _SHORT_QUEUE_SECONDS
            and not self._is_silent(now)
        )
        probe = self._probes.take(current, now, history.bytes_sent, calm=calm)
        history.probe = 0 if probe is None else probe.id
        return probe
