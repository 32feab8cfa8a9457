"""The latest events of one user, numbered, for the case that the user comes back by another socket and has missed some.

Kept by :class:`trio_sfu.signalling.user.User`. Time is an argument; nothing here waits.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

MAX_EVENTS: Final = 500
MAX_BYTES: Final = 1_000_000  # of JSON


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event as it goes over the wire: made once for all its users. ``size``: bytes of its payload as JSON."""

    name: str
    payload: dict[str, Any]
    size: int


class EventLog:
    """At most :data:`MAX_EVENTS` events and :data:`MAX_BYTES`; the oldest go first. The first one is number 1."""

    __slots__ = ("_bytes", "_entries", "last")

    def __init__(self) -> None:
        # Observable
        self.last = 0
        """The number of the latest event; 0: there was none."""
        # Owned
        self._entries: deque[tuple[float, SentEvent]] = deque()
        self._bytes = 0

    def append(self, event: SentEvent, now: float) -> None:
        """Keep one more (``now`` in seconds, monotonic)."""
        self.last += 1
        self._entries.append((now, event))
        self._bytes += event.size
        while len(self._entries) > MAX_EVENTS or self._bytes > MAX_BYTES:
            self._drop()

    def forget_before(self, when: float) -> None:
        """Drop what is older."""
        while self._entries and self._entries[0][0] < when:
            self._drop()

    def after(self, number: int) -> list[SentEvent] | None:
        """The events after this one, in order; None where not all of them are kept any more."""
        missing = self.last - number
        if missing > len(self._entries):
            return None
        return [event for _, event in list(self._entries)[len(self._entries) - missing :]]

    def has_all_after(self, number: int) -> bool:
        """Whether :meth:`after` has an answer."""
        return self.last - number <= len(self._entries)

    def _drop(self) -> None:
        _, event = self._entries.popleft()
        self._bytes -= event.size
