"""When to ask a producer for a keyframe.

Chromium drops a request that comes within 300 ms of the one before, without a word, and a request or the keyframe
itself may be lost. So a request is repeated every 100 ms until a keyframe has come, every 350 ms where nobody is
without a picture meanwhile, and more slowly when that takes long (a muted camera sends none). Consumers that have
just begun to watch are served at once; the others, whose decoders ask after a loss, share one request in half a
second, so that no consumer can make everybody's video expensive.
"""

from typing import Final

__all__ = ["KeyFrameRequester"]

_RETRY: Final = 0.1
_CALM_RETRY: Final = 0.35
_QUICK_TRIES: Final = 20
_SLOW_RETRY: Final = 1.0
_MAX_TRIES: Final = 60
_SPACING: Final = 0.5


class KeyFrameRequester:
    """The decision for one incoming stream; the caller sends the PLI or FIR. Times are seconds."""

    __slots__ = ("_last_sent", "_next", "_retry", "_tries", "last_keyframe", "requests_sent")

    def __init__(self) -> None:
        self.requests_sent = 0
        self.last_keyframe = float("-inf")
        """When the last one began to arrive."""
        self._next: float | None = None  # when to (re)send; None: nobody waits for a keyframe
        self._retry = _RETRY
        self._tries = 0
        self._last_sent = float("-inf")

    @property
    def waiting(self) -> bool:
        """Whether a keyframe has been asked for and has not come."""
        return self._next is not None

    def request(self, now: float, *, urgent: bool) -> bool:
        """Somebody needs a keyframe. Returns whether to send a request now; :meth:`due` tells of later ones.

        ``urgent``: the consumer has nothing to show yet.
        """
        if self._next is None or urgent:
            self._retry = _RETRY if urgent else _CALM_RETRY
        if self._next is None:
            self._tries = 0
            self._next = now if urgent else max(now, self.last_keyframe + _SPACING, self._last_sent + _RETRY)
        elif urgent:
            # One put off is made at once, a slow search becomes a quick one again.
            self._tries = 0 if self._tries >= _QUICK_TRIES else self._tries
            self._next = min(self._next, max(now, self._last_sent + _RETRY))
        return self.due(now)

    def due(self, now: float) -> bool:
        """Whether a request is to be sent now; counts it as sent."""
        if self._next is None or now < self._next:
            return False
        self._tries += 1
        if self._tries > _MAX_TRIES:
            self._next = None
            return False
        self.requests_sent += 1
        self._last_sent = now
        self._next = now + (self._retry if self._tries < _QUICK_TRIES else _SLOW_RETRY)
        return True

    def cancel(self) -> None:
        """Nobody wants one any more."""
        self._next = None

    def on_keyframe(self, now: float) -> None:
        """A keyframe has begun to arrive: whoever waited is served."""
        self.last_keyframe = now
        self._next = None
