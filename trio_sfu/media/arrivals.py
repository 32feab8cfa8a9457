"""Arrival times by transport-wide sequence number, and the feedback made of them."""

from typing import Final

from trio_sfu.wire.transport_feedback import TransportFeedback, build

__all__ = ["ArrivalRecorder"]

_INTERVAL: Final = 0.1  # as mediasoup; libwebrtc itself takes 0.05 to 0.25 s
_MAX_PENDING: Final = 500


class ArrivalRecorder:
    """Transport-wide congestion control, receiving side, of one transport
    (draft-holmer-rmcat-transport-wide-cc-extensions-01).

    Bounded: after 500 arrivals feedback is due at once, and it is asked for with every batch.
    """

    __slots__ = ("_base", "_count", "_last", "_next", "_pending", "media_ssrc")

    def __init__(self) -> None:
        self.media_ssrc = 0
        self._pending: list[tuple[int, float]] = []
        self._last: int | None = None
        self._base = 0
        self._count = 0
        self._next = 0.0

    def on_packet(self, number: int, ssrc: int, now: float) -> None:
        """A packet of ``ssrc`` with the 16-bit transport-wide ``number`` has arrived."""
        if self._last is None:
            self._last = self._base = number + 0x10000  # room for one that was overtaken by the first
        step = number - self._last & 0xFFFF
        extended = self._last + step
        if step < 0x8000:
            self._last = extended
        else:
            extended -= 0x10000
        self.media_ssrc = ssrc
        self._pending.append((extended, now))

    def is_due(self, now: float) -> bool:
        """Whether there is feedback to take."""
        return bool(self._pending) and (now >= self._next or len(self._pending) >= _MAX_PENDING)

    def take_feedback(self, sender_ssrc: int, now: float) -> list[TransportFeedback]:
        """The feedback that is due; an empty list most of the time."""
        if not self.is_due(now):
            return []
        pending = self._pending
        self._next = now + _INTERVAL
        self._pending = []
        feedback = build(sender_ssrc, self.media_ssrc, self._count, pending, self._base)
        self._count = self._count + len(feedback) & 0xFF
        assert self._last is not None
        self._base = self._last + 1
        return feedback
