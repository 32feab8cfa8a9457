"""When a participant's media was captured, in the server's time.

One :class:`ClockOffset` a participant, with a :class:`StreamClock` for each of his streams; owned by his feeds. A
participant's clock may be off by minutes: all that is taken from it is how times relate to each other. Where it stands
is found from what comes earliest: the least delay of the last seconds is taken for the way that everything takes.
"""

from collections import deque
from typing import Final

__all__ = ["ClockOffset", "SlidingMin", "StreamClock"]

_WINDOW: Final = 10.0
_BUCKETS: Final = 10
# Streams of one participant whose offsets are closer than this go by one clock, and by the better offset of the two.
# Others do not: a consumer whose producer has sent no report yet makes its reports from the server's clock.
_SAME_CLOCK: Final = 0.25
# A report that is off by more than this is from another clock; a network is not that slow.
_STEP: Final = 1.0
_DISTRUST_SECONDS: Final = 60.0


class SlidingMin:
    """The least of the values of the last ten seconds, to a second."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, float]] = deque(maxlen=_BUCKETS + 1)

    def add(self, value: float, now: float) -> None:
        """Take a value; times do not go back."""
        bucket = int(now * _BUCKETS / _WINDOW)
        buckets = self._buckets
        if not buckets or buckets[-1][0] != bucket:
            buckets.append((bucket, value))
        elif value < buckets[-1][1]:
            buckets[-1] = (bucket, value)

    def get(self, now: float) -> float | None:
        """The least value, None where there is none."""
        oldest = int(now * _BUCKETS / _WINDOW) - _BUCKETS
        buckets = self._buckets
        while buckets and buckets[0][0] < oldest:
            buckets.popleft()
        return min([value for _, value in buckets], default=None)

    def clear(self) -> None:
        """Forget all values."""
        self._buckets.clear()


class ClockOffset:
    """What has to be added to a participant's NTP time to get the server's. As old as the run of the pipeline."""

    __slots__ = ("_streams", "delay")

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds by which all of the participant is put later, for a jittery path: set by his audio feed, which has
        more to lose than the picture. On all streams, so that they stay together."""
        self._streams: list[StreamClock] = []

    def stream(self, rate: int) -> "StreamClock":
        """The clock of another stream of the participant."""
        stream = StreamClock(self, rate)
        self._streams.append(stream)
        return stream

    def offset(self, of: "StreamClock", own: float, now: float) -> float:
        """The offset for a stream whose own is ``own``."""
        best = own
        if of.reported:
            for stream in self._streams:
                other = stream.own_offset(now) if stream.reported else None
                if other is not None and own - _SAME_CLOCK < other < best:
                    best = other
        return best


class StreamClock:
    """From the RTP timestamps of one stream to server time; made by :meth:`ClockOffset.stream`.

    Before the first report, the stream's timestamps are its only clock. The result of :meth:`time` is never in the
    future, but for :attr:`ClockOffset.delay`.
    """

    __slots__ = ("_distrusted", "_heard", "_last", "_ntp", "_offsets", "_owner", "_rate", "_reference", "reported")

    def __init__(self, owner: ClockOffset, rate: int) -> None:
        # Given
        self._owner: Final = owner
        self._rate: Final = rate
        # Owned
        self.reported = False
        """Whether a sender report has said what the timestamps mean."""
        self._offsets: Final = SlidingMin()
        self._ntp: float | None = None  # of the extended timestamp `_reference`
        self._reference = 0
        self._last = 0
        self._heard = 0.0
        self._distrusted = float("-inf")  # until when reports are not listened to

    def own_offset(self, now: float) -> float | None:
        """The offset that this stream alone has seen."""
        return self._offsets.get(now)

    def observe(self, timestamp: int, now: float) -> None:
        """A packet has come."""
        extended = self._extend(timestamp)
        if self._ntp is None:
            self._ntp, self._reference = now, extended
        offset = now - self._ntp_of(extended)
        least = self._offsets.get(now)
        if least is not None and offset > least + _STEP and now > self._heard + _STEP:
            self._offsets.clear()  # the sender's clock stood still while it sent nothing
        self._offsets.add(offset, now)
        self._last = extended
        self._heard = now

    def report(self, ntp: float, timestamp: int, now: float) -> None:
        """A sender report: ``ntp`` in seconds is the time of ``timestamp`` on the sender's clock."""
        if now < self._distrusted:
            return
        extended = self._extend(timestamp)
        offset = now - ntp
        least = self._offsets.get(now)
        if not self.reported or (least is not None and abs(offset - least) > _STEP):
            self._offsets.clear()
        self._offsets.add(offset, now)
        self._ntp, self._reference, self._last = ntp, extended, extended
        self.reported = True

    def distrust(self, now: float) -> None:
        """The reports cannot be true, going by when packets come: do without for a minute."""
        self._distrusted = now + _DISTRUST_SECONDS
        self.reported = False
        self._offsets.clear()

    def time(self, timestamp: int, now: float) -> float:
        """The server time of a packet that has been observed."""
        ntp = self._ntp_of(self._extend(timestamp))
        own = self._offsets.get(now)
        if own is None:
            own = now - ntp
        # A report that has come since may say anything.
        return min(ntp + self._owner.offset(self, own, now), now) + self._owner.delay

    def _extend(self, timestamp: int) -> int:
        """The unwrapped timestamp nearest to the last one."""
        last = self._last
        return last + (timestamp - last + 0x80000000 & 0xFFFFFFFF) - 0x80000000

    def _ntp_of(self, extended: int) -> float:
        assert self._ntp is not None
        return self._ntp + (extended - self._reference) / self._rate
