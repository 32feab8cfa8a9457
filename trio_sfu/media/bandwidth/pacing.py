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

    __slots__ = ("_credit", "_credit_at", "_held", "_rate", "active")

    def __init__(self) -> None:
        self.active = False
        """Whether batches are to pass by :meth:`admit`."""
        self._held: deque[tuple[float, Consumer, Batch]] = deque()  # since when each waits
        self._rate: float | None = None  # bytes a second
        self._credit = 0.0  # bytes
        self._credit_at = 0.0

    @property
    def is_holding(self) -> bool:
        """Whether anything waits."""
        return bool(self._held)

    def set_rate(self, bitrate: float | None, now: float) -> None:
        """Let through ``bitrate`` bit/s from now on; None: everything, also what waits."""
        if bitrate is None:
            if self.active:
                self._rate = None
                self.release(now)
                self.active = False
            return
        self._refill(now)
        self._rate = bitrate / 8
        if not self.active:
            self.active = True
            self._credit = self._burst
            self._credit_at = now

    def admit(self, consumer: "Consumer", batch: Batch, now: float) -> Batch | None:
        """The part of ``batch`` that ``consumer`` may send now; the rest waits, and is given to
        :meth:`Consumer.send` later."""
        if self._held:
            self._held.append((now, consumer, batch))
            return None
        self._refill(now)
        return self._take(now, consumer, batch)

    def release(self, now: float) -> None:
        """Have sent what has waited long enough; to be called every 20 ms."""
        self._refill(now)
        held = self._held
        while held:
            since, consumer, batch = held[0]
            overdue = self._rate is None or now - since >= _MOST_SECONDS
            if not overdue and self._credit <= 0:
                return
            held.popleft()
            part = batch if overdue else self._take(since, consumer, batch)
            if overdue:
                self._credit = max(self._credit - batch.octets, -self._burst)
            if part is not None:
                _send(consumer, part, now)

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
        return max(_LEAST_BURST, (self._rate or 0.0) * _BURST_SECONDS)

    def _refill(self, now: float) -> None:
        if self._rate is not None:
            self._credit = min(self._burst, self._credit + self._rate * (now - self._credit_at))
        self._credit_at = now

    def _take(self, since: float, consumer: "Consumer", batch: Batch) -> Batch | None:
        """As much of ``batch`` as there is credit for; what is left waits before all else."""
        count = 0
        for size in batch.sizes:
            if self._credit <= 0:
                break
            self._credit -= size
            count += 1
        if count == batch.count:
            return batch
        rest = Batch(batch.packets[count:]) if count else batch
        self._held.appendleft((since, consumer, rest))
        return Batch(batch.packets[:count]) if count else None


def _send(consumer: "Consumer", batch: Batch, now: float) -> None:
    try:
        consumer.send(batch, now)
    except Exception as error:
        consumer.fault(error)
