"""How far behind the process is, and what it has decided because of that; said in the log once an episode.

Owned by the :class:`~trio_sfu.transport.udp.UdpEndpoint`; the registry's ticker calls it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from trio_sfu.media.overload import LATE_SECONDS, Overload
from trio_sfu.transport.backlog import Backlog

__all__ = ["LoadWatch"]

logger = logging.getLogger(__name__)


class LoadWatch:
    """``backlogs`` are the receive queues' of all sockets, ``arrived`` gives how many datagrams have been received from
    them and how many the kernel has dropped, ``cpu`` the CPU time of the loop's thread."""

    def __init__(
        self,
        backlogs: Sequence[Backlog],
        arrived: Callable[[], tuple[int, int]],
        *,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        # Given
        self._backlogs: Final = backlogs
        self._arrived: Final = arrived
        self._cpu: Final = cpu
        # Owned
        self.overload: Final = Overload()
        self._counted: tuple[int, int] | None = None

    def tick(self, late: float, now: float) -> bool:
        """To be called every 20 ms; ``late``: how much later than it should, in seconds, this call has come.

        Returns whether it has to be called again, be there anybody else to tick for or not.
        """
        overload = self.overload
        for backlog in self._backlogs:
            late = max(late, backlog.take())
        change = overload.update(late, self._cpu(), now, self._lost() if late >= LATE_SECONDS else 0.0)
        if change is None:
            pass
        elif change.began:
            logger.warning(
                "overloaded: %.0f ms behind; leaving out video until there is time for it again", change.late * 1000
            )
        else:
            logger.warning(
                "no longer overloaded, after %.1f s: all video goes out again (%d frames left out since the start)",
                change.seconds,
                overload.frames_left_out,
            )
        if late < LATE_SECONDS:
            self._counted = None
        return overload.state != "calm"

    def _lost(self) -> float:
        """The share that the kernel has dropped since the last call."""
        before, self._counted = self._counted, self._arrived()
        if before is None:
            return 0.0
        received, dropped = self._counted[0] - before[0], self._counted[1] - before[1]
        return dropped / max(1, received + dropped)
