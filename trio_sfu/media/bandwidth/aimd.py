"""The rate that delay allows, and how much really arrives.

Owned by :class:`~trio_sfu.media.bandwidth.estimator.BandwidthEstimator`. draft-ietf-rmcat-gcc-02, section 5.5, with
libwebrtc's constants (AimdRateControl).
"""

from collections import deque
from math import sqrt
from typing import Final

from trio_sfu.media.bandwidth.trendline import Usage

__all__ = ["AcknowledgedRate", "AimdController"]

LEAST_BITRATE: Final = 30_000.0
MOST_BITRATE: Final = 100_000_000.0

_WINDOW_SECONDS: Final = 0.5
_LEAST_SPAN: Final = 0.15
_MAX_SILENCE: Final = 2.0

_BETA: Final = 0.85
_GROWTH: Final = 1.08  # a second, far from what the link is known to carry
_HEADROOM: Final = 1.5  # what is sent cannot vouch for more than this
_HEADROOM_MORE: Final = 10_000.0
_PACKET_BITS: Final = 1200 * 8
_LEAST_STEP: Final = 4_000.0  # a second
_LEAST_PAUSE: Final = 0.01
_MOST_PAUSE: Final = 0.2


class AcknowledgedRate:
    """The rate at which packets have arrived over the last half second of the receiver's time."""

    __slots__ = ("_size", "_window", "bitrate")

    def __init__(self) -> None:
        self.bitrate: float | None = None
        """None while too little has arrived to say."""
        self._window: deque[tuple[float, int]] = deque()  # arrival and bytes of each message
        self._size = 0

    def update(self, arrival: float, size: int) -> None:
        """One message has reported ``size`` bytes, the last of which have arrived at ``arrival``."""
        window = self._window
        if window:
            step = arrival - window[-1][0]
            if step < 0 or step > _MAX_SILENCE:
                if step < -_LEAST_SPAN or step > _MAX_SILENCE:
                    window.clear()
                    self._size = 0
                else:
                    arrival = window[-1][0]
        window.append((arrival, size))
        self._size += size
        since = arrival - _WINDOW_SECONDS
        while len(window) > 2 and window[0][0] < since:
            self._size -= window.popleft()[1]
        # What came with the first one came in the time before it.
        span = arrival - window[0][0]
        if span >= _LEAST_SPAN:
            self.bitrate = (self._size - window[0][1]) * 8 / span


class AimdController:
    """The delay-based estimate. It grows by 8 % a second, by about a packet a round trip where the link was full
    before, and falls to 0.85 of what arrives when a queue grows.
    """

    __slots__ = ("_capacity", "_decreased_at", "_holding", "_updated_at", "_variance", "bitrate", "round_trip")

    def __init__(self, bitrate: float) -> None:
        self.bitrate = bitrate
        self.round_trip = 0.2
        self._capacity: float | None = None  # kbit/s, smoothed over decreases, with its relative variance
        self._variance = 0.4
        self._holding = False
        self._updated_at: float | None = None
        self._decreased_at = -1e9

    def set_bitrate(self, bitrate: float, now: float) -> None:
        """A probe has measured ``bitrate``."""
        self.bitrate = min(max(bitrate, LEAST_BITRATE), MOST_BITRATE)
        self._updated_at = now

    def raise_to(self, bitrate: float, now: float) -> None:
        """The path carries ``bitrate``, and does so easily."""
        if self.bitrate < bitrate:
            self.set_bitrate(bitrate, now)

    def update(self, usage: Usage, acknowledged: float | None, now: float, *, busy: float | None = None) -> bool:
        """One verdict of the detector. Returns whether the estimate has fallen.

        ``acknowledged`` is what arrives; ``busy`` what the full link has carried, where that is known.
        """
        elapsed = min(now - self._updated_at, 1.0) if self._updated_at is not None else 0.0
        self._updated_at = now
        if usage == "overuse":
            self._holding = True
            carried = busy if busy is not None else acknowledged
            if carried is None or now - self._decreased_at < min(max(self.round_trip, _LEAST_PAUSE), _MOST_PAUSE):
                return False
            return self._decrease(carried, now)
        if usage == "underuse":
            self._holding = True  # the queue drains: let it
            return False
        if self._holding:
            self._holding = False
            return False
        self._increase(acknowledged, elapsed)
        return False

    def _increase(self, acknowledged: float | None, elapsed: float) -> None:
        if acknowledged is None:
            return
        ceiling = _HEADROOM * acknowledged + _HEADROOM_MORE
        if self.bitrate >= ceiling:
            return
        if self._capacity is not None and acknowledged / 1000 > self._upper(self._capacity):
            self._capacity = None  # the link has become faster
        if self._capacity is not None:
            response = self.round_trip + 0.1
            step = max(_LEAST_STEP, _PACKET_BITS / response) * elapsed
        else:
            step = max(self.bitrate * (_GROWTH**elapsed - 1), 1000.0 * elapsed)
        self.bitrate = min(self.bitrate + step, ceiling, MOST_BITRATE)

    def _decrease(self, carried: float, now: float) -> bool:
        capacity = self._capacity
        if capacity is not None and carried / 1000 < self._lower(capacity):
            self._capacity = None
        self._note_capacity(carried / 1000)
        bitrate = max(_BETA * carried, LEAST_BITRATE)
        if bitrate >= self.bitrate:
            return False
        self.bitrate = bitrate
        self._decreased_at = now
        return True

    # What the link carries, seen when it was full (libwebrtc's LinkCapacityEstimator).

    def _note_capacity(self, sample: float) -> None:
        capacity = self._capacity
        self._capacity = capacity = sample if capacity is None else 0.95 * capacity + 0.05 * sample
        norm = max(capacity, 1.0)
        self._variance = min(max(0.95 * self._variance + 0.05 * (capacity - sample) ** 2 / norm, 0.4), 2.5)

    def _upper(self, capacity: float) -> float:
        return capacity + 3 * sqrt(self._variance * capacity)

    def _lower(self, capacity: float) -> float:
        return max(0.0, capacity - 3 * sqrt(self._variance * capacity))
