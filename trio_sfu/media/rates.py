"""How fast byte counters grow, for statistics: what counts costs nothing more than its counter.

The :class:`~trio_sfu.media.rtp_session.RtpSession` samples once a second what its transport carries, each incoming
stream and each consumer; media/stats.py reads.
"""

from collections.abc import Sequence

__all__ = ["Rates"]

# Less time than this says nothing: media come in bursts.
_LEAST_SECONDS = 0.1


class Rates:
    """The bit rates of some counters that never fall, always in the same order. Times are seconds, monotonic."""

    __slots__ = ("_newer", "_older")

    def __init__(self) -> None:
        self._older: tuple[float, tuple[int, ...]] | None = None
        self._newer: tuple[float, tuple[int, ...]] | None = None

    def sample(self, octets: tuple[int, ...], now: float) -> None:
        """Note the counters; to be called about once a second."""
        self._older, self._newer = self._newer, (now, octets)

    def read(self, octets: Sequence[int], now: float) -> tuple[int, ...]:
        """The bit rates (bit/s) since the last sample but one, one to two seconds ago; all 0 where that is too soon."""
        since = self._older or self._newer
        if since is None or now - since[0] < _LEAST_SECONDS:
            return (0,) * len(octets)
        seconds = now - since[0]
        return tuple(round((new - old) * 8 / seconds) for new, old in zip(octets, since[1], strict=True))
