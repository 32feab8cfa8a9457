"""How well a stream arrives, from 0 (nothing comes) to 10 (all of it): mediasoup's score.

What was lost and not repaired counts fully, what was repaired a little: repairs come late. Kept for each incoming
stream and each consumer, updated once a second from counters that there are anyway.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

__all__ = ["BEST", "StreamScore", "interval_score"]

BEST: Final = 10
# Intervals that the score is made from, the newer the weightier; mediasoup's 24 of about a second.
_INTERVALS: Final = 24


def interval_score(received: int, lost: int, repaired: int, retransmitted: int) -> int:
    """The score of one interval: packets that came by themselves, were missing then, came by RTX, were sent by RTX.

    ``repaired`` of ``retransmitted`` were of use. An interval in which nothing came scores 0.
    """
    if received <= 0:
        return 0
    lost = min(max(lost, 0), received)
    repaired = min(max(repaired, 0), lost)
    weight = (1 / (repaired / received + 1)) ** 4
    if retransmitted > repaired > 0:
        weight *= repaired / retransmitted
    delivered = (received - (lost - repaired * weight)) / received
    return _rounded(delivered**4 * BEST)


def _rounded(score: float) -> int:
    """Halves up, as in C."""
    return int(score + 0.5)


class StreamScore:
    """The weighted mean over the last intervals. Counters are totals that never fall."""

    __slots__ = ("_counters", "_scores", "value")

    def __init__(self) -> None:
        self.value = BEST
        self._counters: Sequence[int] | None = None
        self._scores: deque[int] = deque(maxlen=_INTERVALS)

    def update(self, received: int, lost: int, repaired: int, retransmitted: int) -> bool:
        """Take the counters, once a second; whether :attr:`value` is another one now.

        A stream of which nothing has come in the interval is at 0 at once, and one that is back begins anew.
        """
        counters = (received, lost, repaired, retransmitted)
        before, self._counters = self._counters or (0, 0, 0, 0), counters
        old = self.value
        score = interval_score(*(new - last for new, last in zip(counters, before, strict=True)))
        if received <= before[0]:
            self._scores.clear()
            self.value = 0
            return self.value != old
        self._scores.append(score)
        weights = range(1, len(self._scores) + 1)
        self.value = _rounded(sum(map(int.__mul__, weights, self._scores)) / sum(weights))
        return self.value != old
