"""Packets in the order of their sequence numbers, after a wait for those that are missing. Used by the feeds."""

from typing import Final, Generic, TypeVar

from trio_sfu.media.sequence import extend

__all__ = ["Reorder"]

Item = TypeVar("Item")


class Reorder(Generic[Item]):
    """Holds what comes after a gap until the gap is filled.

    A gap is given up when the first packet after it has waited ``wait`` seconds, or when more than ``most_items``
    packets or ``most_octets`` bytes are held. Drop policy: what comes twice, or after it was given up, is refused.
    The first packet is the beginning.
    """

    __slots__ = ("_held", "_most_items", "_most_octets", "_next", "_octets", "_wait")

    def __init__(self, wait: float, most_items: int, most_octets: int) -> None:
        # Given
        self._wait: Final = wait
        self._most_items: Final = most_items
        self._most_octets: Final = most_octets
        # Owned
        self._held: dict[int, tuple[Item, int, float]] = {}  # by extended number: with size and time of arrival
        self._octets = 0
        self._next: int | None = None

    def __len__(self) -> int:
        return len(self._held)

    def push(self, number: int, item: Item, size: int, now: float) -> bool:
        """Take the packet with the 16-bit ``number``; False where it is refused."""
        if self._next is None:
            self._next = 0x10000 + number
        number = extend(self._next, number)
        if number < self._next or number in self._held:
            return False
        self._held[number] = (item, size, now)
        self._octets += size
        return True

    def pop(self, now: float) -> list[Item | None]:
        """What can go on, in order; None stands for a gap that was given up."""
        ready: list[Item | None] = []
        held = self._held
        while held:
            assert self._next is not None
            found = held.pop(self._next, None)
            if found is None:
                first = min(held)
                full = len(held) > self._most_items or self._octets > self._most_octets
                if not full and now - held[first][2] < self._wait:
                    break
                ready.append(None)
                self._next = first
                continue
            ready.append(found[0])
            self._octets -= found[1]
            self._next += 1
        return ready

    def clear(self) -> None:
        """Drop what is held; the next packet is a beginning again."""
        self._held.clear()
        self._octets = 0
        self._next = None
