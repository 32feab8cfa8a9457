"""Who of a transport's consumers gets how much of its bandwidth.

Called by whoever owns the transport's RTP session, some times a second. :func:`allocate` is the division alone, as
mediasoup's transport makes it; :class:`Allocator` adds what keeps pictures from changing to and fro.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from trio_sfu.media.parameters import MediaKind

__all__ = ["Allocator", "Claim", "Decision", "allocate", "wanted_bitrate"]

_HEADROOM: Final = 1.15  # to go up
_TOLERANCE: Final = 1.05  # before going down
_STEADY_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 2.0
_STARVING_SECONDS: Final = 1.0
_FIRST_BACK_OFF: Final = 2.0
_MOST_BACK_OFF: Final = 30.0
_PAUSED: Final = -1
_FAILED_SECONDS: Final = 10.0  # a drop this soon after a rise is the rise's fault


@dataclass(frozen=True, slots=True)
class Claim:
    """What one consumer asks for.

    ``options``: bit rates of what it could be sent, ascending, up to the one that it prefers; at least one.
    ``priority`` is 1 … 255: the higher goes first and rises by so many steps a round. Audio always gets its last
    option.
    """

    id: str
    kind: MediaKind
    options: tuple[int, ...]
    priority: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What the consumer ``id`` gets: an index of its options; None is nothing, a pause."""

    id: str
    index: int | None


def wanted_bitrate(claims: Iterable[Claim]) -> int:
    """What would satisfy everybody."""
    return sum(claim.options[-1] for claim in claims)


def allocate(budget: int | None, claims: Sequence[Claim]) -> list[Decision]:
    """Divide ``budget`` (bit/s, None: unlimited), in the order of ``claims``.

    Audio first, whatever there is. Then each video's lowest option that fits, by priority; the first one gets it in
    any case. Then one step a round for each, as many as its priority, until nothing fits.
    """
    if budget is None:
        return [Decision(claim.id, len(claim.options) - 1) for claim in claims]
    left = budget - sum(claim.options[-1] for claim in claims if claim.kind == "audio")
    videos = sorted((claim for claim in claims if claim.kind == "video"), key=lambda claim: -claim.priority)
    chosen: dict[str, int | None] = {claim.id: len(claim.options) - 1 for claim in claims if claim.kind == "audio"}
    rising: list[Claim] = []
    for place, claim in enumerate(videos):
        fits = claim.options[0] <= left
        chosen[claim.id] = 0 if fits or place == 0 else None
        if fits or place == 0:
            left -= claim.options[0]
            rising.append(claim)
    while rising:
        still: list[Claim] = []
        for claim in rising:
            options = claim.options
            at = chosen[claim.id] or 0
            steps = claim.priority
            while steps and at + 1 < len(options) and options[at + 1] - options[at] <= left:
                left -= options[at + 1] - options[at]
                at += 1
                steps -= 1
            chosen[claim.id] = at
            if not steps:
                still.append(claim)
        rising = still
    return [Decision(claim.id, chosen[claim.id]) for claim in claims]


class Allocator:
    """Decisions over time. Down at once when what is chosen exceeds the budget by 5 %; up when the better choice has
    fitted with 15 % to spare for a second. After a drop nobody rises for 2 s, twice as long each time that a rise
    was followed by a drop within 10 s, at most 30 s. Nobody is paused before a second has passed in which there was
    nothing for them, and who is paused stays so for 2 s.
    """

    __slots__ = (
        "_back_off",
        "_blocked_until",
        "_chosen",
        "_dropped_at",
        "_paused_at",
        "_rose_at",
        "_starving_since",
        "_steady_since",
    )

    def __init__(self) -> None:
        self._chosen: dict[str, int] = {}  # _PAUSED, or an index of the options
        self._steady_since: dict[str, float] = {}  # since when more would fit
        self._paused_at: dict[str, float] = {}
        self._starving_since: dict[str, float] = {}
        self._back_off = _FIRST_BACK_OFF / 2
        self._blocked_until = float("-inf")
        self._dropped_at = float("-inf")
        self._rose_at = float("-inf")

    def decide(self, budget: int | None, claims: Sequence[Claim], now: float) -> list[Decision]:
        """What each of ``claims`` gets from now on, in their order. Ids not among them are forgotten."""
        if self._is_satisfied(budget, claims):
            self._steady_since.clear()
            self._starving_since.clear()
            return [Decision(claim.id, len(claim.options) - 1) for claim in claims]
        ids = {claim.id for claim in claims}
        self._chosen = {key: index for key, index in self._chosen.items() if key in ids}
        self._steady_since = {key: since for key, since in self._steady_since.items() if key in ids}
        self._paused_at = {key: at for key, at in self._paused_at.items() if key in ids}
        if budget is None:
            self._chosen = {claim.id: len(claim.options) - 1 for claim in claims}
            self._steady_since.clear()
        else:
            self._divide(budget, claims, now)
        chosen = self._chosen
        return [Decision(claim.id, None if chosen[claim.id] == _PAUSED else chosen[claim.id]) for claim in claims]

    def _is_satisfied(self, budget: int | None, claims: Sequence[Claim]) -> bool:
        """Whether everybody has everything and may keep it, as nearly always."""
        chosen = self._chosen
        if len(chosen) != len(claims) or (budget is not None and budget < wanted_bitrate(claims)):
            return False
        return all(chosen.get(claim.id) == len(claim.options) - 1 for claim in claims)

    def _divide(self, budget: int, claims: Sequence[Claim], now: float) -> None:
        chosen = self._chosen
        careful = _ranks(allocate(int(budget / _HEADROOM), claims))
        new = [claim.id for claim in claims if claim.id not in chosen]
        for claim in claims:
            last = len(claim.options) - 1
            wish = last if claim.kind == "audio" else chosen.get(claim.id, max(careful[claim.id], 0))
            chosen[claim.id] = min(wish, last)
        if _total(claims, chosen) > budget * _TOLERANCE:
            fallen = self._lower(claims, self._patient(_ranks(allocate(budget, claims)), now), now)
            if fallen and not new:
                self._back_off_from(now)
        else:
            self._starving_since.clear()
            self._rise(budget, claims, careful, now)

    def _patient(self, ceiling: dict[str, int], now: float) -> dict[str, int]:
        """Who has nothing by ``ceiling`` has the least until that has been so for a second: links stumble."""
        starving = {key for key, index in ceiling.items() if index == _PAUSED and self._chosen[key] != _PAUSED}
        self._starving_since = {key: self._starving_since.get(key, now) for key in starving}
        return {
            key: 0 if key in starving and now - self._starving_since[key] < _STARVING_SECONDS else index
            for key, index in ceiling.items()
        }

    def _lower(self, claims: Sequence[Claim], ceiling: dict[str, int], now: float) -> bool:
        """Nobody has more than ``ceiling`` says; whether somebody had."""
        fallen = False
        for claim in claims:
            if ceiling[claim.id] < self._chosen[claim.id]:
                self._chosen[claim.id] = ceiling[claim.id]
                self._steady_since.pop(claim.id, None)
                if ceiling[claim.id] == _PAUSED:
                    self._paused_at[claim.id] = now
                fallen = True
        return fallen

    def _back_off_from(self, now: float) -> None:
        if self._back_off < _FIRST_BACK_OFF:
            self._back_off = _FIRST_BACK_OFF
        elif self._rose_at > self._dropped_at:
            failed = now - self._rose_at < _FAILED_SECONDS
            self._back_off = min(2 * self._back_off, _MOST_BACK_OFF) if failed else _FIRST_BACK_OFF
        self._dropped_at = now
        self._blocked_until = now + self._back_off
        self._steady_since.clear()

    def _rise(self, budget: int, claims: Sequence[Claim], careful: dict[str, int], now: float) -> None:
        chosen = self._chosen
        ready: list[str] = []
        for claim in claims:
            key = claim.id
            if careful[key] <= chosen[key]:
                self._steady_since.pop(key, None)
                continue
            since = self._steady_since.setdefault(key, now)
            if now - since < _STEADY_SECONDS or now < self._blocked_until:
                continue
            if chosen[key] == _PAUSED and now - self._paused_at.get(key, float("-inf")) < _PAUSE_SECONDS:
                continue
            ready.append(key)
        if not ready:
            return
        for key in ready:
            chosen[key] = careful[key]
            del self._steady_since[key]
        self._rose_at = now
        if _total(claims, chosen) > budget / _HEADROOM:
            self._lower(claims, careful, now)  # somebody with less priority has had what is theirs


def _ranks(decisions: Iterable[Decision]) -> dict[str, int]:
    return {each.id: _PAUSED if each.index is None else each.index for each in decisions}


def _total(claims: Iterable[Claim], chosen: dict[str, int]) -> int:
    return sum(claim.options[chosen[claim.id]] for claim in claims if chosen[claim.id] != _PAUSED)
