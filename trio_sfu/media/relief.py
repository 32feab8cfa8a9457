"""Which video a room leaves out while the process is overloaded: layers first, then whole videos; sound never.

Owned by the room's :class:`~trio_sfu.media.router.Router`. :func:`divide` is the decision alone; consumers are told by
:meth:`~trio_sfu.media.consumer.Consumer.set_ceiling`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.media.overload import Overload

if TYPE_CHECKING:
    from trio_sfu.media.consumer import Consumer
    from trio_sfu.media.rtp_session import RtpSession

__all__ = ["Relief", "Video", "divide"]

_LOOK_SECONDS: Final = 0.25  # for newcomers, while video is left out
_UNKNOWN: Final = [(EVERYTHING, 1)]  # of a video that nothing has been measured of


@dataclass(frozen=True, slots=True)
class Video:
    """One consumer's. ``options``: bit rates of what it could be sent, ascending; at least one.

    Of equal ``priority`` (1 to 255) the lower ``place`` goes first: the first video of each viewer, then the second.
    """

    id: str
    options: tuple[int, ...]
    priority: int = 1
    place: int = 0


def divide(keep: float, videos: Sequence[Video], luck: float = 0.0) -> dict[str, int | None]:
    """What each gets where only so much of all is kept: an index of its options; None: nothing.

    Every video its least, by priority; then a layer a round for each, as many as its priority, as in
    :func:`trio_sfu.media.bandwidth.allocation.allocate`. What only just does not fit is taken where the room has
    ``luck`` (0.0 to 1.0): many small rooms with luck of their own keep as much as they should, all in all.
    """
    left = keep * sum(video.options[-1] for video in videos)
    chosen: dict[str, int | None] = {video.id: None for video in videos}
    rising: list[Video] = []
    for video in sorted(videos, key=lambda each: (-each.priority, each.place)):
        if keep > 0.0 and video.options[0] * (1.0 - luck) <= left:
            left -= video.options[0]
            chosen[video.id] = 0
            rising.append(video)
    while rising:
        still: list[Video] = []
        for video in rising:
            options, at, steps = video.options, chosen[video.id] or 0, video.priority
            while steps and at + 1 < len(options) and (options[at + 1] - options[at]) * (1.0 - luck) <= left:
                left -= options[at + 1] - options[at]
                at += 1
                steps -= 1
            chosen[video.id] = at
            if not steps:
                still.append(video)
        rising = still
    return chosen


class Relief:
    """One room's. What is decided stands until more or less is to be left out: nothing goes to and fro meanwhile."""

    __slots__ = ("_given", "_keep", "_known", "_look_at", "_luck", "_overload")

    def __init__(self, overload: Overload, luck: float) -> None:
        # Given
        self._overload: Final = overload
        self._luck: Final = luck
        # Owned
        self._keep = 1.0
        self._look_at = 0.0
        self._given: dict[str, int | None] = {}
        self._known: dict[Consumer, list[tuple[Layers, int]]] = {}  # options, as they were when there were any

    def tick(self, sessions: Collection["RtpSession"], now: float) -> None:
        """To be called every 20 ms."""
        keep = self._overload.keep
        if keep == self._keep and (keep == 1.0 or now < self._look_at):
            return
        before, self._keep = self._keep, keep
        self._look_at = now + _LOOK_SECONDS
        if keep < 1.0:
            self._divide(sessions, keep - before, now)
            return
        self._given.clear()
        self._known.clear()
        for session in sessions:
            session.refuse(())
        for session in sessions:
            for consumer in session.consumers.values():
                consumer.set_ceiling(EVERYTHING)

    def _divide(self, sessions: Collection["RtpSession"], change: float, now: float) -> None:
        videos: list[Video] = []
        found: dict[str, tuple[Consumer, list[Layers]]] = {}
        for session in sessions:
            places: dict[int, int] = {}  # by priority
            for consumer in session.consumers.values():
                options = consumer.affordable(now) if consumer.kind == "video" else None
                if options is None:
                    continue
                options = options or self._known.get(consumer, [])
                self._known[consumer] = options
                # With more or less options than before it is another one: the choice is made anew.
                key = f"{consumer.id} {len(options)}"
                options = options or _UNKNOWN
                place = places[consumer.priority] = places.get(consumer.priority, -1) + 1
                videos.append(Video(key, tuple(bitrate for _, bitrate in options), consumer.priority, place))
                found[key] = (consumer, [layers for layers, _ in options])
        chosen = divide(self._keep, videos, self._luck)
        given, self._given = self._given, {}
        for key, index in chosen.items():
            self._given[key] = _moved(given[key], index, change) if key in given else index
        # What comes is dropped only when nobody has been sent any for a look: frames are finished by then.
        wanted = {
            found[key][0].producer
            for key, index in self._given.items()
            if index is not None or given.get(key, 0) is not None
        }
        unwanted = {consumer.producer for consumer, _ in found.values()} - wanted
        # First what comes in again, since who begins asks for a keyframe.
        for session in sessions:
            session.refuse([each for each in session.producers.values() if each in unwanted])
        for key, (consumer, layers) in found.items():
            index = self._given[key]
            if index is None:
                consumer.set_ceiling(None)
            else:
                consumer.set_ceiling(EVERYTHING if index == len(layers) - 1 else layers[index])
        self._known = {consumer: self._known[consumer] for consumer, _ in found.values()}


def _moved(before: int | None, wish: int | None, change: float) -> int | None:
    """Less where less is kept than before, more where more is; else what was."""
    if change == 0.0:
        return before
    ranks = (-1 if before is None else before, -1 if wish is None else wish)
    rank = min(ranks) if change < 0.0 else max(ranks)
    return None if rank < 0 else rank
