"""Holds back video that comes faster than a narrow path carries it, so that sound does not wait behind a keyframe.

Owned by the :class:`~trio_sfu.media.bandwidth.control.BandwidthControl` of a transport. Packets wait before they get
their numbers and send times: what is dropped here leaves no gap, and the estimate sees when packets really left.
A wide path holds nothing, and costs one comparison for each batch. After draft-ietf-rmcat-gcc-02, section 4.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from trio_sfu.media.packet import Batch

if TYPE_CHECKING:
    from trio_sfu.media.consumer import Consumer

__all__ = ["Pacer"]

# What may go at once after a while of less: ordinary frames are not to wait.
_BURST_SECONDS: Final = 0.04
_LEAST_BURST: Final = 2500.0  # bytes
# Longer than this nothing waits: who sends so much for so long is to be given less by the allocation, not later.
_MOST_SECONDS: Final = 0.6


class Pacer:
    """Of all videos of one transport, in the order in which their packets came."""

    __slots__ = ("_credit", "_credit_at", "_held", "rate")

    def __init__(self) -> None:
        self.rate: float | None = None
        """Bytes a second; None: batches need not pass here. See :meth:`set_rate`."""
        self._held: deque[tuple[float, Consumer, Batch]] = deque()  # since when each waits
        self._credit = 0.0  # bytes
        self._credit_at = 0.0

    @property
    def is_holding(self) -> bool:
        """Whether anything waits."""
        return bool(self._held)

    def set_rate(self, bitrate: float | None, now: float) -> None:
        """Let through ``bitrate`` bit/s from now on; None: everything, also what waits."""
        self._refill(now)
        begins = self.rate is None
        self.rate = None if bitrate is None else bitrate / 8
        if begins:
            self._credit = self._burst
        self.release(now)

    def send(self, consumer: "Consumer", batch: Batch, now: float) -> None:
        """Have ``consumer`` send as much of ``batch`` as may go now, by :meth:`Consumer.send`; the rest waits."""
        self._held.append((now, consumer, batch))
        self.release(now)

    def release(self, now: float) -> None:
        """Have sent what may go now; to be called every 20 ms, since what waits may be the last for a while."""
        self._refill(now)
        while self._held and (part := self._take(now)) is not None:
            _send(*part, now)

    def flush(self, consumer: "Consumer", now: float) -> None:
        """Send what waits of ``consumer``: other packets than those that follow are to come next."""
        for batch in self.drop(consumer):
            _send(consumer, batch, now)

    def drop(self, consumer: "Consumer") -> list[Batch]:
        """Let nothing of ``consumer`` wait any longer; returns what did."""
        dropped = [batch for _, owner, batch in self._held if owner is consumer]
        if dropped:
            self._held = deque(item for item in self._held if item[1] is not consumer)
        return dropped

    @property
    def _burst(self) -> float:
        return max(_LEAST_BURST, (self.rate or 0.0) * _BURST_SECONDS)

    def _refill(self, now: float) -> None:
        if self.rate is not None:
            self._credit = min(self._burst, self._credit + self.rate * (now - self._credit_at))
        self._credit_at = now

    def _take(self, now: float) -> "tuple[Consumer, Batch] | None":
        """Of the batch that has waited the longest: all where it is time, else as much as there is credit for."""
        since, consumer, batch = self._held[0]
        if self.rate is None or now - since >= _MOST_SECONDS:
            self._held.popleft()
            self._credit = max(self._credit - batch.octets, -self._burst)
            return consumer, batch
        count = 0
        for size in batch.sizes:
            if self._credit <= 0:
                break
            self._credit -= size
            count += 1
        if not count:
            return None
        self._held.popleft()
        if count < batch.count:
            self._held.appendleft((since, consumer, Batch(batch.packets[count:])))
            batch = Batch(batch.packets[:count])
        return consumer, batch


def _send(consumer: "Consumer", batch: Batch, now: float) -> None:
    try:
        consumer.send(batch, now)
    except Exception as error:
        consumer.fault(error)
