"""How far behind the process is, and what it has decided because of that; said in the log once an episode.

Owned by the :class:`~trio_sfu.transport.udp.UdpEndpoint`; the registry's ticker calls it.
"""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from trio_sfu.media.overload import LATE_SECONDS, Overload

if TYPE_CHECKING:
    from trio_sfu.transport.udp import EndpointCounters, UdpSocket

__all__ = ["LoadWatch"]

logger = logging.getLogger(__name__)


class LoadWatch:
    """``sockets`` are all of the endpoint, now or later, ``counters`` its."""

    def __init__(self, sockets: "Sequence[UdpSocket]", counters: "EndpointCounters") -> None:
        # Given
        self._sockets: Final = sockets
        self._counters: Final = counters
        # Owned
        self.overload: Final = Overload()
        self._counted: tuple[int, int] | None = None  # datagrams received and dropped

    def tick(self, late: float, now: float) -> bool:
        """To be called every 20 ms by the media's thread; ``late``: how much later than it should, in seconds.

        Returns whether it has to be called again, be there anybody else to tick for or not.
        """
        overload = self.overload
        for each in self._sockets:
            late = max(late, each.backlog.take())
        was = overload.overloaded
        overload.update(late, time.thread_time(), now, self._lost() if late >= LATE_SECONDS else 0.0)
        if overload.overloaded and not was:
            logger.warning("overloaded: %.0f ms behind; leaving out video until there is time for it again", late * 1e3)
        elif was and not overload.overloaded:
            logger.warning("no longer overloaded: all video goes out again")
        if late < LATE_SECONDS:
            self._counted = None
        return overload.overloaded or overload.strained

    def _lost(self) -> float:
        """The share that the kernel has dropped since the last call."""
        dropped = sum(each.kernel_drops() for each in self._sockets)
        before, self._counted = self._counted, (self._counters.received, dropped)
        if before is None:
            return 0.0
        received, dropped = self._counters.received - before[0], dropped - before[1]
        return dropped / max(1, received + dropped)
