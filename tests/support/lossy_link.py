"""One direction of a bad network, as arithmetic: no sockets and no clock of its own.

:class:`LossyLink` decides what happens to each datagram and when it arrives; :mod:`tests.support.relay` puts
one in each direction between a browser and the server, and tests of protocol machines may join two machines
with a pair of them. Everything random comes from the generator it is given, so a run can be repeated.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass
from typing import Generic, TypeVar

TagT = TypeVar("TagT")


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How bad it is. Shares are 0 to 1, times are seconds.

    :param loss: share of datagrams lost.
    :param delay: one-way delay of all others.
    :param jitter: up to so much more, evenly distributed; order is kept.
    :param rate: bits per second (UDP payload) the link carries; None is no limit.
    :param queue: the most a datagram may have to wait for the rate; it is dropped instead (drop-tail).
    :param queue_bytes: the most that may wait before a datagram is dropped; None leaves that to ``queue``.
    :param duplicate: share of datagrams that arrive twice.
    :param reorder: share of datagrams held back by ``reorder_delay``, so that later ones overtake them.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    queue: float = 0.3
    queue_bytes: int | None = None
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay: float = 0.02


@dataclass(slots=True)
class LinkCounters:
    """Datagrams by fate: ``offered`` = ``lost`` + ``queue_full`` + ``cut`` + ``delivered`` + still under way
    − ``duplicated``."""

    offered: int = 0
    lost: int = 0
    queue_full: int = 0
    cut: int = 0
    duplicated: int = 0
    reordered: int = 0
    delivered: int = 0


class LossyLink(Generic[TagT]):
    """Datagrams go in at :meth:`send` and come out of :meth:`receive` when they are due.

    :param max_in_flight: most datagrams under way; one more is dropped and counted as ``queue_full``.

    ``settings`` and ``is_cut`` may be changed at any time and hold for what is sent from then on; a cut link
    also swallows what arrives during the cut. What waits when the rate changes goes out at the old one, and what
    comes later goes out after it.

    ``queue_delay`` is the seconds that the last datagram found in the queue before it, whether or not it was
    dropped for that; ``longest_queue_delay`` the most so far, which whoever reads it may set to 0.
    """

    def __init__(self, settings: LinkSettings, rng: random.Random, *, max_in_flight: int = 4096) -> None:
        self.settings = settings
        self.is_cut = False
        self.counters = LinkCounters()
        self.queue_delay = 0.0
        self.longest_queue_delay = 0.0
        self._rng = rng
        self._max_in_flight = max_in_flight
        self._in_flight: list[tuple[float, int, TagT, bytes]] = []
        self._order = 0
        self._free_at = 0.0
        self._last_arrival = 0.0

    def send(self, datagram: bytes, tag: TagT, now: float) -> None:
        """Offer one datagram; ``tag`` comes out with it."""
        settings, counters = self.settings, self.counters
        counters.offered += 1
        if self.is_cut:
            counters.cut += 1
            return
        if self._rng.random() < settings.loss:
            counters.lost += 1
            return
        start = max(now, self._free_at)
        self.queue_delay = start - now
        self.longest_queue_delay = max(self.longest_queue_delay, self.queue_delay)
        if settings.rate is not None:
            waiting = self.queue_delay * settings.rate / 8
            if self.queue_delay > settings.queue or waiting > (settings.queue_bytes or math.inf):
                counters.queue_full += 1
                return
            start = self._free_at = start + len(datagram) * 8 / settings.rate
        arrival = start + settings.delay + settings.jitter * self._rng.random()
        if self._rng.random() < settings.reorder:
            counters.reordered += 1
            arrival += settings.reorder_delay
        else:
            arrival = self._last_arrival = max(arrival, self._last_arrival)
        self._push(arrival, tag, datagram)
        if self._rng.random() < settings.duplicate:
            counters.duplicated += 1
            self._push(arrival, tag, datagram)

    def get_timer(self) -> float | None:
        """When the next datagram arrives; None when none is under way."""
        return self._in_flight[0][0] if self._in_flight else None

    def receive(self, now: float) -> list[tuple[TagT, bytes]]:
        """What has arrived by now, in the order of arrival."""
        arrived = []
        while self._in_flight and self._in_flight[0][0] <= now:
            _, _, tag, datagram = heapq.heappop(self._in_flight)
            if self.is_cut:
                self.counters.cut += 1
            else:
                self.counters.delivered += 1
                arrived.append((tag, datagram))
        return arrived

    def _push(self, arrival: float, tag: TagT, datagram: bytes) -> None:
        if len(self._in_flight) >= self._max_in_flight:
            self.counters.queue_full += 1
            return
        self._order += 1
        heapq.heappush(self._in_flight, (arrival, self._order, tag, datagram))
