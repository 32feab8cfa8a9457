"""What makes the rooms of a process tick: one sleep, and one task, for all of them.

A task of trio's that sleeps or is woken costs as much as forwarding several packets, and a hundred rooms would each do
so fifty times a second. Owned by the registry; rooms have it call them.
"""

from collections.abc import Callable
from typing import Final

import trio

__all__ = ["TICK_SECONDS", "Ticker"]

TICK_SECONDS: Final = 0.020


class _Driven:
    """Somebody who is ticked, and whether that is over."""

    def __init__(self, tick: Callable[[float], bool]) -> None:
        self.tick: Final = tick
        self.ended: Final = trio.Event()
        self.error: Exception | None = None


class Ticker:
    """Ticks for all who :meth:`drive`, one after the other, every 20 ms; sleeps as long as there is nobody.

    ``watch``, where it is given, is called before them: how late the tick has come and the time, in seconds. It returns
    whether there must be a next one, be there anybody or not.
    """

    def __init__(self, watch: Callable[[float, float], bool] | None = None) -> None:
        self._watch: Final = watch
        self._driven: dict[_Driven, None] = {}
        self._wanted = trio.Event()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await self._wanted.wait()
            due = trio.current_time() + TICK_SECONDS
            await trio.sleep_until(due)
            now = trio.current_time()
            goes_on = self._watch is not None and self._watch(now - due, now)
            for each in tuple(self._driven):
                try:
                    if each.tick(now):
                        continue
                except Exception as error:
                    each.error = error
                del self._driven[each]
                each.ended.set()
            if not (goes_on or self._driven):
                self._wanted = trio.Event()

    async def drive(self, tick: Callable[[float], bool]) -> None:
        """Have ``tick(now)`` called every 20 ms until it returns False. What it raises, this raises."""
        driven = _Driven(tick)
        self._driven[driven] = None
        self._wanted.set()
        try:
            await driven.ended.wait()
        finally:
            self._driven.pop(driven, None)
        if driven.error is not None:
            raise driven.error
