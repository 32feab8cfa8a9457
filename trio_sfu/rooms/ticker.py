"""What makes the rooms of a process tick: one sleep for all of them.

A sleep of trio's costs as much as forwarding several packets, and a hundred rooms would each sleep fifty times a
second. Owned by the registry; rooms wait for it.
"""

from collections.abc import Callable
from typing import Final

import trio

__all__ = ["TICK_SECONDS", "Ticker"]

TICK_SECONDS: Final = 0.020


class Ticker:
    """Wakes all who :meth:`wait`, together, every 20 ms; sleeps as long as nobody waits.

    ``watch``, where it is given, is called with each tick: how late it has come and the time, in seconds. It returns
    whether there must be a next one, be anybody waiting for it or not.
    """

    def __init__(self, watch: Callable[[float, float], bool] | None = None) -> None:
        self._watch: Final = watch
        self._waiting: Final = trio.lowlevel.ParkingLot()
        self._wanted = trio.Event()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            due = trio.current_time() + TICK_SECONDS
            await trio.sleep_until(due)
            if self._watch is not None:
                now = trio.current_time()
                if self._watch(now - due, now):
                    self._wanted.set()
            self._waiting.unpark_all()

    async def wait(self) -> None:
        """Wait for the next tick, 20 ms from now at most."""
        self._wanted.set()
        await self._waiting.park()
