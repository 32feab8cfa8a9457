"""How far behind the process is, and what it has decided because of that; said in the log once an episode.

Owned by the :class:`~trio_sfu.transport.udp.UdpEndpoint`; the registry's ticker calls it.
"""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from trio_sfu.media.overload import Measured, Overload

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

    def tick(self, late: float, now: float) -> bool:
        """To be called every 20 ms by the media's thread; ``late``: how much later than it should, in seconds.

        Returns whether it has to be called again, be there anybody else to tick for or not.
        """
        overload = self.overload
        for each in self._sockets:
            late = max(late, each.backlog.take())
        was = overload.overloaded
        dropped = sum(each.kernel_drops() for each in self._sockets)
        overload.update(Measured(now, late, time.thread_time(), self._counters.received, dropped))
        if overload.overloaded and not was:
            logger.warning("overloaded: %.0f ms behind; leaving out video until there is time for it again", late * 1e3)
        elif was and not overload.overloaded:
            logger.warning("no longer overloaded: all video goes out again")
        return overload.overloaded or overload.strained
