"""Which video a room leaves out while the process is overloaded: layers first, then whole videos; sound never.

Owned by the room's :class:`~trio_sfu.media.router.Router`. :func:`divide` is the decision alone; consumers are told by
:meth:`~trio_sfu.media.consumer.Consumer.set_ceiling`, senders' sessions by
:meth:`~trio_sfu.media.rtp_session.RtpSession.refuse`.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.media.overload import Overload

if TYPE_CHECKING:
    from trio_sfu.media.consumer import Consumer
    from trio_sfu.media.rtp_session import RtpSession

__all__ = ["Relief", "Video", "divide"]

_LOOK_SECONDS: Final = 0.25  # for newcomers, while video is left out


@dataclass(frozen=True, slots=True)
class Video:
    """One consumer's. ``options``: bit rates of what it could be sent, ascending; at least one.

    Of equal ``priority`` (1 to 255) the lower ``place`` goes first: the first video of each viewer, then the second.
    """

    options: tuple[int, ...]
    priority: int = 1
    place: int = 0


def divide(keep: float, videos: Sequence[Video], luck: float = 0.0) -> list[int]:
    """What each gets where only so much of all is kept: how many of its options; 0: nothing.

    Every video its least, by priority; then a layer a round for each, as many as its priority, as in
    :func:`trio_sfu.media.bandwidth.allocation.allocate`. What only just does not fit is taken where the room has
    ``luck`` (0.0 to 1.0): many small rooms with luck of their own keep as much as they should, all in all.
    """
    chosen = [0] * len(videos)
    if keep <= 0.0:
        return chosen
    left = keep * sum(video.options[-1] for video in videos)

    def rises(index: int) -> bool:
        nonlocal left
        options, rank = videos[index].options, chosen[index]
        if rank == len(options):
            return False
        step = options[rank] - (options[rank - 1] if rank else 0)
        if step * (1.0 - luck) > left:
            return False
        left -= step
        chosen[index] += 1
        return True

    order = sorted(range(len(videos)), key=lambda index: (-videos[index].priority, videos[index].place))
    rising = [index for index in order if rises(index)]
    while rising:
        rising = [index for index in rising if all(rises(index) for _ in range(videos[index].priority))]
    return chosen


class _Share(NamedTuple):
    options: list[tuple[Layers, int]]  # as they were when there were any
    rank: int  # how many of them go out


class Relief:
    """One room's. What is decided stands until more or less is to be left out: nothing goes to and fro meanwhile."""

    __slots__ = ("_finishing", "_keep", "_look_at", "_luck", "_overload", "_shares")

    def __init__(self, overload: Overload, luck: float) -> None:
        # Given
        self._overload: Final = overload
        self._luck: Final = luck
        # Owned
        self._keep = 1.0
        self._look_at = 0.0
        self._finishing = False  # less is sent since the last look, and frames that had begun may still be
        self._shares: dict[Consumer, _Share] = {}

    def tick(self, sessions: Collection["RtpSession"], now: float) -> None:
        """To be called every 20 ms."""
        keep = self._overload.keep
        if keep == self._keep == 1.0:
            return
        change, self._keep = keep - self._keep, keep
        if change or now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._finishing = change < 0.0
            before, self._shares = self._shares, {}
            if keep < 1.0:
                self._divide(sessions, before, change, now)
            self._refuse(sessions)  # first what comes in again: who begins asks for a keyframe
            self._tell(before)
        elif self._finishing:
            self._refuse(sessions)

    def _refuse(self, sessions: Collection["RtpSession"]) -> None:
        """Drop as it comes what nobody is sent, once the frames that had begun are finished."""
        wanted = {consumer.producer for consumer, share in self._shares.items() if share.rank or not consumer.is_silent}
        unwanted = {consumer.producer for consumer in self._shares} - wanted
        for session in sessions:
            session.refuse([producer for producer in session.producers.values() if producer in unwanted])

    def _tell(self, before: dict["Consumer", _Share]) -> None:
        for consumer, (options, rank) in self._shares.items():
            if rank < len(options):
                consumer.set_ceiling(options[rank - 1][0] if rank else None)
            else:
                consumer.set_ceiling(EVERYTHING if rank else None)
        for consumer in before:
            if consumer not in self._shares and not consumer.closed:
                consumer.set_ceiling(EVERYTHING)

    def _divide(
        self, sessions: Collection["RtpSession"], before: dict["Consumer", _Share], change: float, now: float
    ) -> None:
        """Find the shares of all, who had those of ``before`` when so much more was kept."""
        found: list[tuple[Consumer, list[tuple[Layers, int]]]] = []
        videos: list[Video] = []
        for session in sessions:
            places = Counter[int]()  # by priority
            for consumer in session.consumers.values():
                options = consumer.affordable(now) if consumer.kind == "video" else None
                if options is None:
                    continue
                if not options and consumer in before:
                    options = before[consumer].options
                found.append((consumer, options))
                bitrates = tuple(bitrate for _, bitrate in options) or (1,)  # of what has not been measured yet
                videos.append(Video(bitrates, consumer.priority, places[consumer.priority]))
                places[consumer.priority] += 1
        for (consumer, options), rank in zip(found, divide(self._keep, videos, self._luck), strict=True):
            share = before.get(consumer)
            # With more or less options than before it is another video: the choice is made anew.
            if share is not None and len(share.options) == len(options):
                # Less where less is kept than before, more where more is; else what was.
                rank = min(rank, share.rank) if change < 0.0 else max(rank, share.rank) if change > 0.0 else share.rank
            self._shares[consumer] = _Share(options, rank)
