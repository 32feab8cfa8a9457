"""Whether a queue is growing on the way: the delay-based detector of Google Congestion Control.

Owned by :class:`~trio_sfu.media.bandwidth.estimator.BandwidthEstimator`. Inter-group delay variation, a line fitted
to the smoothed accumulated delay, and an adaptive threshold: draft-ietf-rmcat-gcc-02, sections 5.1 to 5.4, with the
trendline filter that libwebrtc has put in place of the draft's Kalman filter (TrendlineEstimator, InterArrival) and
its constants.
"""

from collections import deque
from typing import Final, Literal

from trio_sfu.media.bandwidth.sent_history import GroupReport

__all__ = ["DelayDetector", "Usage"]

Usage = Literal["normal", "overuse", "underuse"]

_WINDOW: Final = 20  # groups
_SMOOTHING: Final = 0.9
_GAIN: Final = 4.0
_MIN_DELTAS: Final = 60  # the slope is scaled by how many groups were seen, up to so many
_OVERUSE_MS: Final = 10.0
_THRESHOLD_MS: Final = 12.5
_THRESHOLD_LEAST: Final = 6.0
_THRESHOLD_MOST: Final = 600.0
_K_UP: Final = 0.0087
_K_DOWN: Final = 0.039
_MAX_ADAPT_MS: Final = 15.0
# An arrival further off than this is a clock that has jumped or a message made up: begin anew.
_MAX_JUMP_SECONDS: Final = 3.0
_MAX_REORDERED: Final = 3
_DELAY_SECONDS: Final = 5.0  # the least delay is that of this long ago at most twice
# A group that took so much longer than is usual on this path has waited in a queue: the link was busy all the time.
_BUSY_SECONDS: Final = 0.01
_USUAL_SECONDS: Final = 3.0  # time constant of what is usual: jitter is, a queue that grows is not
_BUSY_LEAST_SECONDS: Final = 0.06
_BUSY_LEAST_BYTES: Final = 3000


class DelayDetector:
    """State of one path. ``usage`` is the verdict after the last :meth:`update`."""

    __slots__ = (
        "_accumulated",
        "_arrival",
        "_busy_bytes",
        "_busy_since",
        "_busy_until",
        "_count",
        "_epoch",
        "_group",
        "_least",
        "_least_before",
        "_least_since",
        "_over_count",
        "_over_ms",
        "_points",
        "_previous",
        "_reordered",
        "_sent",
        "_size",
        "_smoothed",
        "_threshold",
        "_threshold_at",
        "_trend",
        "_usual",
        "queueing_delay",
        "usage",
    )

    def __init__(self) -> None:
        self.usage: Usage = "normal"
        self.queueing_delay = 0.0
        """How much longer the last group was under way than the fastest one of the last 5 to 10 s, in seconds."""
        self._least: float | None = None
        self._least_before: float | None = None
        self._least_since = 0.0
        self._threshold = _THRESHOLD_MS
        self._threshold_at: float | None = None
        self._usual = 0.0
        self._reset()

    def _reset(self) -> None:
        self._group = 0  # of the group that is still open
        self._sent = 0.0
        self._arrival = 0.0
        self._size = 0
        self._busy_since: float | None = None
        self._busy_until = 0.0
        self._busy_bytes = 0
        self._previous: tuple[float, float] | None = None  # sent and arrival of the last complete group
        self._reordered = 0
        self._points: deque[tuple[float, float]] = deque(maxlen=_WINDOW)  # arrival and smoothed delay, in ms
        self._epoch = 0.0
        self._count = 0
        self._accumulated = 0.0
        self._smoothed = 0.0
        self._trend = 0.0
        self._over_ms = 0.0
        self._over_count = 0

    def update(self, groups: list[GroupReport]) -> Usage:
        """Take in what one feedback message reports, in order of sending; the verdict is about the last of it."""
        spread = 0.0
        complete = 0
        for number, sent, arrival, size, _ in groups:
            if number == self._group:
                self._size += size
                if arrival > self._arrival:
                    self._arrival = arrival
                continue
            if self._group:
                step = self._complete()
                if step:
                    spread += step
                    complete += 1
            self._group = number
            self._sent = sent
            self._arrival = arrival
            self._size = size
        if complete and len(self._points) == _WINDOW:
            self._detect(spread, complete)
        return self.usage

    def _complete(self) -> float:
        """The open group is over: a point of the line. Returns how long after the one before it was sent, in ms."""
        sent, arrival = self._sent, self._arrival
        previous = self._previous
        if previous is None:
            self._previous = (sent, arrival)
            self._epoch = arrival
            self._measure_delay(sent, arrival)
            return 0.0
        send_step = sent - previous[0]
        arrival_step = arrival - previous[1]
        if not -_MAX_JUMP_SECONDS < arrival_step - send_step < _MAX_JUMP_SECONDS:
            self._reset()
            self._least = self._least_before = None
            self.queueing_delay = 0.0
            self.usage = "normal"
            return 0.0
        if arrival_step < 0:
            self._reordered += 1
            if self._reordered >= _MAX_REORDERED:
                self._reset()
            return 0.0
        self._reordered = 0
        self._measure_delay(sent, arrival)
        self._previous = (sent, arrival)
        self._count = min(self._count + 1, _MIN_DELTAS)
        self._accumulated += (arrival_step - send_step) * 1000
        self._smoothed = _SMOOTHING * self._smoothed + (1 - _SMOOTHING) * self._accumulated
        self._points.append(((arrival - self._epoch) * 1000, self._smoothed))
        return send_step * 1000

    def _measure_delay(self, sent: float, arrival: float) -> None:
        """The clocks' difference is in every delay alike; the least of the last seconds stands for an empty queue."""
        delay = arrival - sent
        least = self._least
        if least is None:
            self._least = least = delay
            self._least_since = sent
        elif sent - self._least_since > _DELAY_SECONDS:
            self._least_before, self._least = least, delay
            self._least_since = sent
            least = delay
        elif delay < least:
            self._least = least = delay
        if self._least_before is not None and self._least_before < least:
            least = self._least_before
        self.queueing_delay = waited = delay - least
        excess = waited - self._usual
        elapsed = sent - self._previous[0] if self._previous is not None else 0.0
        self._usual += excess * min(max(elapsed / _USUAL_SECONDS, 1 / (self._count + 1)), 1.0)
        if excess < _BUSY_SECONDS:
            self._busy_since = None
            return
        if self._busy_since is None:
            self._busy_since = arrival - excess  # when the first bit of it would have come through an empty link
            self._busy_bytes = 0
        self._busy_until = arrival
        self._busy_bytes += self._size

    @property
    def busy_bitrate(self) -> float | None:
        """What the link has carried since its queue was last empty: all that it could. None: it was empty just now.

        Our frames leave as bursts, so this is known even where much less is sent than the link carries, and a drop of
        its rate shows without what arrived before it.
        """
        if self._busy_since is None or self._busy_bytes < _BUSY_LEAST_BYTES:
            return None
        seconds = self._busy_until - self._busy_since
        return self._busy_bytes * 8 / seconds if seconds >= _BUSY_LEAST_SECONDS else None

    def _detect(self, spread: float, complete: int) -> None:
        trend = self._slope()
        modified = trend * self._count * _GAIN
        # The smoothed delay still rises when a burst's queue is gone already; and one frame is no queue.
        since = self._busy_since
        if modified > self._threshold and since is not None and self._busy_until - since >= _BUSY_LEAST_SECONDS:
            # The first time counts half: nothing is known of when it began.
            self._over_ms += spread if self._over_count else spread / 2
            self._over_count += complete
            if self._over_ms > _OVERUSE_MS and self._over_count > 1 and trend >= self._trend:
                self._over_ms = 0.0
                self._over_count = 0
                self.usage = "overuse"
        else:
            self._over_ms = 0.0
            self._over_count = 0
            self.usage = "underuse" if modified < -self._threshold else "normal"
        self._trend = trend
        self._adapt(modified)

    def _slope(self) -> float:
        """The least-squares line through the points, in ms of delay a ms."""
        points = self._points
        count = len(points)
        middle = sum([x for x, _ in points]) / count
        across = along = 0.0
        for x, y in points:
            x -= middle
            across += x * y
            along += x * x
        return across / along if along else 0.0

    def _adapt(self, modified: float) -> None:
        """Section 5.4: follow what is seen slowly, or a TCP flow beside us would take everything."""
        now = self._previous[0] * 1000 if self._previous else 0.0
        if self._threshold_at is None:
            self._threshold_at = now
        size = abs(modified)
        if size <= self._threshold + _MAX_ADAPT_MS:
            gain = _K_DOWN if size < self._threshold else _K_UP
            elapsed = min(max(now - self._threshold_at, 0.0), 100.0)
            threshold = self._threshold + gain * (size - self._threshold) * elapsed
            self._threshold = min(max(threshold, _THRESHOLD_LEAST), _THRESHOLD_MOST)
        self._threshold_at = now
