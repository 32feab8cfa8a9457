"""Who is large in the live picture of a room that follows its speaker. Pure; one for each run of the pipeline."""

from collections.abc import Sequence
from typing import Final

__all__ = ["HOLD_SECONDS", "Spotlight"]

HOLD_SECONDS: Final = 2.0
"""The least time between two changes."""


class Spotlight:
    """A shared screen goes before everybody; otherwise it is who speaks, or spoke last, and before that the first.

    Of several screens, it is that of the user who speaks. ``user_ids``: those in the picture, one at least. ``screens``
    says below of each of them whether what they show is a screen.
    """

    def __init__(self, user_ids: Sequence[str]) -> None:
        # Given
        self._user_ids: Final = tuple(user_ids)
        # Owned
        self.large = 0
        """Who is large: an index."""
        self._speaker: int | None = None
        self._changed_at = float("-inf")

    def speaks(self, user_id: str) -> None:
        """This user speaks from now on. Does nothing for those who are not in the picture."""
        if user_id in self._user_ids:
            self._speaker = self._user_ids.index(user_id)

    def begin(self, screens: Sequence[bool]) -> int:
        """Who is large at first."""
        self.large = self._aim(screens)
        return self.large

    def turn(self, screens: Sequence[bool], now: float) -> int | None:
        """Who is to be large, where that changes now. The caller sets :attr:`large` once it is so.

        Where it is not, the next attempt is as far away as the next change. ``now``: seconds, monotonic.
        """
        aim = self._aim(screens)
        if aim == self.large or now - self._changed_at < HOLD_SECONDS:
            return None
        self._changed_at = now
        return aim

    def _aim(self, screens: Sequence[bool]) -> int:
        wanted = [index for index, screen in enumerate(screens) if screen] or range(len(self._user_ids))
        if self._speaker is not None and self._speaker in wanted:
            return self._speaker
        return self.large if self.large in wanted else wanted[0]
