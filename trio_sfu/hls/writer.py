"""What writes a live stream to disk without ever holding it up: a bounded queue and a task.

:class:`DiskWriter` listens to a LiveStream; its task hands one segment after another to a :class:`Target`, which
does the work on files in a worker thread: plain_folder.py (``--hls-dir``) or recording.py (``--record-dir``). The
room's pipeline makes it, runs it, and gives it to the stream.

A disk that is full, gone or slow costs segments of what is written and nothing else: the oldest that wait are
dropped, it is said once in the log until all is well again, and every one is counted.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import trio

logger = logging.getLogger(__name__)

MAX_SEGMENTS: Final = 30
MAX_BYTES: Final = 32 << 20
LAST_SECONDS: Final = 1.0  # for the stream to end, once the writer is cancelled: its last segment is still to come
FINISH_SECONDS: Final = 3.0  # for what still waits when the stream has ended
FIRST_PAUSE: Final = 0.5  # seconds, after a failure; twice as long each time, up to the next
LONGEST_PAUSE: Final = 8.0


class Segment(Protocol):
    """What is used of a stream's segment: its media sequence number, the run of FFmpeg that made it, and so on."""

    @property
    def msn(self) -> int: ...
    @property
    def run(self) -> int: ...
    @property
    def discontinuity(self) -> bool: ...
    @property
    def start(self) -> float: ...
    @property
    def duration(self) -> float: ...
    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Clip:
    """A segment on its way to the disk, with the init segment of its run, without which it is nothing.

    ``start`` is wall clock time (seconds since the epoch), ``duration`` is in seconds. Numbers (``msn``) that are
    left out were dropped.
    """

    msn: int
    run: int
    discontinuity: bool
    start: float
    duration: float
    init: bytes
    data: bytes


class Target(Protocol):
    """Files that segments go to. Called in worker threads, one call at a time; raises OSError only.

    After an error the same call may come again, or one for a later segment.
    """

    def add(self, clip: Clip, now: float) -> None:
        """Write this segment. ``now``: monotonic, in seconds."""

    def finish(self) -> None:
        """The last call that succeeds: no more segments will come."""


@dataclass(slots=True)
class WriterCounters:
    """What became of the segments; many writers may share them."""

    written: int = 0
    octets: int = 0
    lost: int = 0  # dropped because the disk was too slow, or given up
    failures: int = 0  # calls of the system that failed


class DiskWriter:
    """A listener of one LiveStream that writes to one target.

    ``name`` begins each line of the log: which room, and where to. The listener's methods never block and never
    raise; :meth:`run` is the task behind them.
    """

    def __init__(
        self,
        target: Target,
        name: str,
        counters: WriterCounters,
        *,
        max_segments: int = MAX_SEGMENTS,
        max_bytes: int = MAX_BYTES,
        finish_seconds: float = FINISH_SECONDS,
    ) -> None:
        # given
        self._target: Final = target
        self._name: Final = name
        self._counters: Final = counters
        self._max_segments: Final = max_segments
        self._max_bytes: Final = max_bytes
        self._finish_seconds: Final = finish_seconds
        # owned
        self._queue: Final[deque[Clip]] = deque()
        self._ended: Final = trio.Event()
        self._news = trio.Event()  # anew for each wait
        # One thread at a time, and none of those that serve viewers: a hanging disk keeps its thread.
        self._limiter: Final = trio.CapacityLimiter(1)
        self._init: tuple[int, bytes] | None = None
        self._troubles: Final[set[str]] = set()  # what the log was told in this episode
        self._missing = 0  # segments lost in it
        self._pause = FIRST_PAUSE
        self._closed = False
        # derived
        self._waiting = 0  # bytes in the queue

    # What the stream calls.

    def on_init(self, run: int, init: bytes) -> None:
        """A run of FFmpeg begins: the segments that follow need this init segment."""
        self._init = (run, init)

    def on_segment(self, segment: Segment) -> None:
        """A segment is complete. Drops the oldest ones that wait where there are too many."""
        if self._closed or self._ended.is_set() or self._init is None or self._init[0] != segment.run:
            return
        clip = Clip(
            msn=segment.msn,
            run=segment.run,
            discontinuity=segment.discontinuity,
            start=segment.start,
            duration=segment.duration,
            init=self._init[1],
            data=segment.data,
        )
        self._queue.append(clip)
        self._waiting += len(clip.data)
        self._drop_oldest()
        self._news.set()

    def on_end(self) -> None:
        """The stream has ended: :meth:`run` writes what waits, and returns."""
        self._ended.set()
        self._news.set()

    # The task.

    async def run(self) -> None:
        """Write until the stream ends or this is cancelled; then, within ``finish_seconds``, what still waits.

        On cancellation the stream has LAST_SECONDS to end by itself. A bug in the target does not come out: it is
        logged, and ends the writing.
        """
        rest = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work, rest)
            try:
                await self._ended.wait()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_SECONDS):
                    await self._ended.wait()
                self.on_end()
                rest.deadline = trio.current_time() + self._finish_seconds

    async def _work(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                while await self._news_or_end():
                    await self._write_one()
                while not await self._try(self._target.finish):  # noqa: ASYNC110 - the disk has no event
                    await trio.sleep(FIRST_PAUSE)
                self._all_well()
        except Exception:
            logger.exception("%s: nothing more is written", self._name)
        self._closed = True
        self._lose(len(self._queue))
        self._queue.clear()
        if scope.cancelled_caught:
            # A thread that hangs in the system is left to itself.
            logger.warning("%s: not finished within %g s; the end is missing", self._name, self._finish_seconds)

    async def _news_or_end(self) -> bool:
        """Wait for a segment. False: there is none, and none will come."""
        while not self._queue and not self._ended.is_set():
            self._news = trio.Event()
            await self._news.wait()
        return bool(self._queue)

    async def _write_one(self) -> None:
        clip = self._queue.popleft()
        self._waiting -= len(clip.data)
        try:
            done = await self._try(partial(self._target.add, clip, trio.current_time()))
        except trio.Cancelled:
            self._lose(1)
            raise
        if done:
            self._counters.written += 1
            self._counters.octets += len(clip.data)
            if not self._queue:
                self._all_well()
        elif self._ended.is_set():
            self._lose(1)  # the next one may be smaller; there is no time to wait
        else:
            self._queue.appendleft(clip)
            self._waiting += len(clip.data)
            with trio.move_on_after(self._pause):
                await self._ended.wait()
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._drop_oldest()

    async def _try(self, work: Callable[[], None]) -> bool:
        try:
            await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        except OSError as error:
            self._counters.failures += 1
            reason = error.strerror or str(error)
            self._complain(reason, f"cannot be written: {reason}; the live stream goes on, and this is tried again")
            return False
        self._pause = FIRST_PAUSE
        return True

    def _drop_oldest(self) -> None:
        """Down to the bounds, but never the newest."""
        while len(self._queue) > 1 and (len(self._queue) > self._max_segments or self._waiting > self._max_bytes):
            self._waiting -= len(self._queue.popleft().data)
            if not self._troubles:
                self._complain("slow", "the disk is too slow; segments are dropped")
            self._lose(1)

    def _lose(self, number: int) -> None:
        self._counters.lost += number
        self._missing += number

    def _complain(self, trouble: str, sentence: str) -> None:
        """Say it in the log, once in an episode: from the first trouble until nothing waits any more."""
        if trouble not in self._troubles:
            self._troubles.add(trouble)
            logger.warning("%s: %s", self._name, sentence)

    def _all_well(self) -> None:
        if self._troubles:
            self._troubles.clear()
            logger.warning("%s: written again; %d segments are missing", self._name, self._missing)
            self._missing = 0
