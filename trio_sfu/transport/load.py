"""How far behind the process is, and what it has decided because of that; said in the log once an episode.

Owned by the :class:`~trio_sfu.transport.udp.UdpEndpoint`; the registry's ticker calls it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from trio_sfu.media.overload import Overload
from trio_sfu.transport.backlog import Backlog

__all__ = ["LoadWatch"]

logger = logging.getLogger(__name__)


class LoadWatch:
    """``backlogs`` are the receive queues' of all sockets; ``cpu`` gives the CPU time of the loop's thread."""

    def __init__(self, backlogs: Sequence[Backlog], *, cpu: Callable[[], float] = time.thread_time) -> None:
        # Given
        self._backlogs: Final = backlogs
        self._cpu: Final = cpu
        # Owned
        self.overload: Final = Overload()

    def tick(self, late: float, now: float) -> bool:
        """To be called every 20 ms; ``late``: how much later than it should, in seconds, this call has come.

        Returns whether it has to be called again, be there anybody else to tick for or not.
        """
        overload = self.overload
        for backlog in self._backlogs:
            late = max(late, backlog.take())
        change = overload.update(late, self._cpu(), now)
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
        return overload.state != "calm"
