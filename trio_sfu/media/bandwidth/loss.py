"""The rate that loss allows.

Owned by :class:`~trio_sfu.media.bandwidth.estimator.BandwidthEstimator`. draft-ietf-rmcat-gcc-02, section 6: below
2 % loss the limit grows, above 10 % it falls. Radio loses packets without any queue being full, and sending less
would not help; so without a queue on the way only 20 % and more are taken for congestion. And it takes two stretches
of 0.3 s after each other.
"""

from math import sqrt
from typing import Final

__all__ = ["LossLimit"]

_GROW_BELOW: Final = 0.02
_FALL_ABOVE: Final = 0.1
_FALL_ABOVE_WITHOUT_QUEUE: Final = 0.2
_QUEUE_SECONDS: Final = 0.05
_LEAST_PACKETS: Final = 20
_LEAST_SECONDS: Final = 0.3
_MOST_SECONDS: Final = 2.0
_GROWTH: Final = 1.08  # a second
_SLOW_GROWTH: Final = 1.04  # while some loss goes on
_LEAST_BITRATE: Final = 30_000.0


class LossLimit:
    """``bitrate`` is None where loss sets no limit."""

    __slots__ = ("_lost", "_packets", "_since", "_suspected", "bitrate", "fraction")

    def __init__(self) -> None:
        self.bitrate: float | None = None
        self.fraction = 0.0
        """Of the last stretch of 20 packets and 0.3 s, 0 to 1."""
        self._lost = 0
        self._packets = 0
        self._since: float | None = None
        self._suspected = False

    def on_packets(self, received: int, lost: int, recovered: int = 0) -> None:
        """Count what one feedback message tells."""
        self._lost += lost - recovered
        self._packets += received + lost

    def update(
        self, current: float, acknowledged: float | None, queueing_delay: float, now: float, *, probing: bool = False
    ) -> bool:
        """Judge what has been counted, if it is enough. Returns whether the limit has fallen.

        ``current``: the estimate that was in force; ``acknowledged``: what arrives, the limit does not fall far below
        it. While ``probing``, loss is the probe's own.
        """
        if self._since is None:
            self._since = now
        elapsed = now - self._since
        if elapsed < _LEAST_SECONDS or (self._packets < _LEAST_PACKETS and elapsed < _MOST_SECONDS):
            return False
        packets, lost = self._packets, max(0, self._lost)
        self._packets = self._lost = 0
        self._since = now
        if packets < _LEAST_PACKETS // 2:
            return False
        self.fraction = lost / packets
        if probing and self.fraction > _GROW_BELOW:
            return False
        # Few packets make a wide guess: what is within twice its spread is chance.
        queue = queueing_delay > _QUEUE_SECONDS
        allowed = _FALL_ABOVE if queue else _FALL_ABOVE_WITHOUT_QUEUE
        allowed += 2 * sqrt(allowed * (1 - allowed) / packets)
        if self.fraction > allowed and not self._suspected:
            self._suspected = True  # one burst, a keyframe's maybe, that a short queue did not take
            return False
        self._suspected = self.fraction > allowed
        return self._judge(self.fraction, allowed, current, acknowledged, queue=queue, elapsed=min(elapsed, 1.0))

    def on_report(self, fraction: float, current: float, elapsed: float) -> bool:
        """A receiver report's fraction, where there is no feedback on single packets; about once a second."""
        self.fraction = fraction
        return self._judge(fraction, _FALL_ABOVE, current, None, queue=True, elapsed=min(elapsed, 1.0))

    def lift(self, bitrate: float) -> None:
        """A probe has come through at ``bitrate``."""
        if self.bitrate is not None and self.bitrate < bitrate:
            self.bitrate = bitrate

    def _judge(
        self,
        fraction: float,
        allowed: float,
        current: float,
        acknowledged: float | None,
        *,
        queue: bool,
        elapsed: float,
    ) -> bool:
        limit = self.bitrate
        if fraction > allowed:
            fallen = current * (1 - 0.5 * fraction)
            if acknowledged is not None:
                # Above 20 % what arrives is all that the link carries; never fall past it.
                arrives = 0.95 * acknowledged
                fallen = arrives if fraction > _FALL_ABOVE_WITHOUT_QUEUE else max(fallen, arrives)
            self.bitrate = max(_LEAST_BITRATE, min(fallen, current))
            return self.bitrate < current
        if limit is not None:
            growth = _GROWTH if fraction < _GROW_BELOW else _SLOW_GROWTH
            if fraction < _GROW_BELOW or not queue:
                limit *= growth**elapsed
            self.bitrate = None if limit > 4 * current else limit
        return False
