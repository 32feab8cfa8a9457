"""Numbers of a stream from which packets, or whole pictures, are left out on purpose.

A receiver takes a hole in the numbers for a loss. So what is left out takes no number, and what comes after it moves
up; what is lost keeps its number, since it may still come. Pure state, for media/: one map for each unbroken stretch
of a stream that a consumer gets. Another stretch has another map, which begins with the number after the last one's;
the old one still answers for what was sent under it.
"""

from bisect import bisect_left, bisect_right
from typing import Final

__all__ = ["PictureMap", "SequenceMap"]

_WINDOW: Final = 4096  # incoming numbers that are remembered, the newest one included

# What has become of an incoming number in the window.
_MISSING, _KEPT, _FILLED, _CLOSED = range(4)


class _NumberMap:
    """Numbers of some bits, in the order of their arrival, to outgoing numbers of as many bits.

    Inside they are extended, that is, they do not wrap. An incoming number's outgoing one is lower by ``_shift`` and
    by how many numbers before it are in ``_closed``.
    """

    __slots__ = ("_closed", "_closed_at", "_first", "_half", "_mask", "_newest", "_shift", "_states", "_window")

    def __init__(self, bits: int, first: int, outgoing: int | None) -> None:
        modulus = 1 << bits
        self._mask = modulus - 1
        self._half = modulus >> 1
        self._window = min(_WINDOW, self._half)
        self._first = modulus + (first & self._mask)
        self._shift = 0 if outgoing is None else self._first - modulus - (outgoing & self._mask)
        self._newest = self._first - 1
        self._states = bytearray(self._window)  # by the incoming number modulo the window
        # Those that were dropped in order, and the outgoing number that each would have had; both only grow. The
        # ones that have left the window go from time to time, and are counted by the shift then.
        self._closed: list[int] = []
        self._closed_at: list[int] = []

    @property
    def next_outgoing(self) -> int:
        """The outgoing number after the newest one: where another map begins to go on from this one."""
        return self._newest + 1 - self._shift - len(self._closed) & self._mask

    def outgoing_of_next(self, number: int) -> int:
        """The outgoing number that ``number``, ahead of all that have come, would have if it was kept now."""
        return number - self._shift - len(self._closed) & self._mask

    def has_passed(self, number: int) -> bool:
        """Whether a number is not ahead of all that have come, and within what is remembered."""
        return (self._newest - number & self._mask) < self._window

    def keep(self, number: int) -> int | None:
        """The outgoing number of an incoming one, the same each time.

        None where there is none (any more): the number was dropped before, lies before the first one, or more than
        a window behind the newest. What comes with it must not be sent.
        """
        ahead = (number - self._newest + self._half & self._mask) - self._half
        extended = self._newest + ahead
        if ahead > 0:
            if ahead > 1:
                self._miss(extended)
            self._newest = extended
            self._states[extended % self._window] = _KEPT
            return extended - self._shift - len(self._closed) & self._mask
        if ahead <= -self._window or extended < self._first:
            return None
        at = extended % self._window
        if self._states[at] > _KEPT:
            return None
        self._states[at] = _KEPT
        return extended - self._shift - bisect_left(self._closed, extended) & self._mask

    def reverse(self, outgoing: int) -> int | None:
        """The incoming number that was kept under an outgoing one.

        None where nothing was: it is still missing or was dropped, or it lies outside of what is remembered.
        """
        newest = self._newest - self._shift - len(self._closed)
        ahead = (outgoing - newest + self._half & self._mask) - self._half
        number = newest + ahead
        extended = number + self._shift + bisect_right(self._closed_at, number)
        if ahead > 0 or extended <= self._newest - self._window:
            return None
        return extended & self._mask if self._states[extended % self._window] == _KEPT else None

    def _drop(self, number: int) -> int | None:
        """Leave a number out: close its hole, or return the outgoing number of a hole that stays."""
        ahead = (number - self._newest + self._half & self._mask) - self._half
        extended = self._newest + ahead
        if ahead > 0:
            if ahead > 1:
                self._miss(extended)
            self._newest = extended
            self._states[extended % self._window] = _CLOSED
            self._closed_at.append(extended - self._shift - len(self._closed))
            self._closed.append(extended)
            if len(self._closed) >= 2 * self._window:
                self._forget()
            return None
        at = extended % self._window
        if ahead <= -self._window or extended < self._first or self._states[at] != _MISSING:
            return None
        self._states[at] = _FILLED
        return extended - self._shift - bisect_left(self._closed, extended) & self._mask

    def _miss(self, end: int) -> None:
        """What lies between the newest number and ``end`` has not come yet."""
        count = end - self._newest - 1
        if count >= self._window:
            self._states = bytearray(self._window)
            return
        at = (self._newest + 1) % self._window
        until_wrap = min(count, self._window - at)
        self._states[at : at + until_wrap] = bytes(until_wrap)
        self._states[: count - until_wrap] = bytes(count - until_wrap)

    def _forget(self) -> None:
        """Count the closed numbers that lie before the window, and keep the others."""
        old = bisect_right(self._closed, self._newest - self._window)
        del self._closed[:old], self._closed_at[:old]
        self._shift += old


class SequenceMap(_NumberMap):
    """RTP sequence numbers of one stretch of a stream, from its packet ``first`` on.

    ``outgoing`` is the number that this one goes out with, by default the same. Numbers have 16 bits; extended ones
    may be given too. What a jump of more than 32767 leads to is another stretch. 4096 numbers are remembered.
    """

    __slots__ = ()

    def __init__(self, first: int, outgoing: int | None = None) -> None:
        super().__init__(16, first, outgoing)

    def drop(self, number: int) -> int | None:
        """Leave a packet out.

        In order, this closes its hole, and there is None to do. A late one has had an outgoing number since a later
        packet was kept: that number is returned, once, and an empty packet has to fill it, or the receiver waits and
        asks for it. None for what was kept or dropped before, too.
        """
        return self._drop(number)


class PictureMap(_NumberMap):
    """Picture ids of VP8, likewise: ``bits`` is 15, or 7 where the stream has the short ones.

    Not for VP9's, nor for the dependency descriptor's frame numbers: there frames are referred to by how far back
    their number is, so a closed hole would lead to the wrong one. Those may only be moved, all by the same amount.

    A picture is many packets, so each of them may tell of it again: the first one decides. Drop a picture only if no
    packet of it is kept. 4096 ids are remembered, 64 of the short ones.
    """

    __slots__ = ()

    def __init__(self, first: int, bits: int = 15, outgoing: int | None = None) -> None:
        super().__init__(bits, first, outgoing)

    def drop(self, picture_id: int) -> None:
        """Leave a picture out. In order, this closes its hole; the hole of a late one stays."""
        self._drop(picture_id)
