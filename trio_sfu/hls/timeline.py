"""The time of one run of a room's pipeline: what RTP timestamps and sender reports say to FFmpeg.

Shared by all feeds of the run. FFmpeg lines streams up by their sender reports alone; these are all made here from one
linear function of the server's time, so the streams stay together exactly, whatever the participants' clocks say.
"""

from collections.abc import Callable
from typing import Final

__all__ = ["Timeline"]

_NTP_EPOCH: Final = 2208988800  # seconds from 1900 to 1970


class Timeline:
    """Begins now. ``clock``: the server's monotonic time in seconds; ``wall``: the Unix time as it begins.

    Positions are counted in ticks of a stream's clock rate since then, and do not wrap; they are below zero for what
    is from before.
    """

    __slots__ = ("_ntp", "clock", "epoch")

    def __init__(self, clock: Callable[[], float], wall: float) -> None:
        # Given
        self.clock: Final = clock
        """For those who are called without a time: :class:`trio_sfu.hls.feed_sink.FeedSink`."""
        # Derived
        self.epoch: Final = clock()
        self._ntp: Final = int((wall + _NTP_EPOCH) * 4294967296)

    def ticks(self, time: float, rate: int) -> int:
        """The position of a server time."""
        return round((time - self.epoch) * rate)

    def ntp(self, ticks: int, rate: int) -> int:
        """The NTP time of a position, 32.32 bits (RFC 3550, section 4)."""
        return self._ntp + (ticks << 32) // rate
