"""A room's live stream: a sliding window of segments in memory, which outlives the runs of FFmpeg that fill it.

:class:`LiveStreams` is made by the server, which gives it to the broadcasts (they make streams) and to the HTTP routes
(they find them). :class:`~trio_sfu.hls.packager.Packager` adds parts and segments.

Source: draft-pantos-hls-rfc8216bis-22 ("the draft"), sections 6.2.2 (what may leave a playlist) and 6.2.5.2 (blocking).
"""

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, inf
from secrets import token_urlsafe
from typing import Final, Literal, Protocol

import trio

from trio_sfu.hls.playlist import Part, Segment, Snapshot, render

__all__ = ["LiveListener", "LiveSettings", "LiveStream", "LiveStreams", "Part", "Segment"]

_NUMBER: Final = "(0|[1-9][0-9]{0,14})"
_INIT_NAME: Final = re.compile(rf"init{_NUMBER}\.mp4", re.ASCII)
_SEGMENT_NAME: Final = re.compile(rf"{_NUMBER}(?:\.{_NUMBER})?\.m4s", re.ASCII)
#: In target durations. A player may still come for a segment that has just left the playlist (6.2.2).
_GRACE: Final = 3
#: In target durations: how long a request waits at most (6.2.5.2).
_PATIENCE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """Times in seconds, sizes in bytes. ``window``: how far back viewers can go."""

    part_target: float = 1 / 3
    segment_target: float = 2.0
    window: float = 60.0
    #: What a stream's segments take at most. Above, the oldest go, even where the window gets too short for it.
    max_bytes: int = 64 << 20
    #: Requests that wait for what is to come, for each stream. Above, they are refused.
    max_waiting: int = 500

    @property
    def target_duration(self) -> int:
        """EXT-X-TARGETDURATION, which must never change. It leaves a second for a keyframe that is late."""
        return ceil(self.segment_target) + 1

    @property
    def longest_segment(self) -> float:
        """So that no duration, rounded, is above the target duration."""
        return self.target_duration + 0.49


class LiveListener(Protocol):
    """Who is told what a stream gets. Called in the packager's task: must neither block nor raise."""

    def on_init(self, run: int, init: bytes) -> None:
        """A run begins: its segments need this init segment."""

    def on_segment(self, segment: Segment) -> None:
        """A segment is complete."""

    def on_end(self) -> None:
        """The stream has ended."""


class LiveStream:
    """One stream, from :meth:`LiveStreams.create` to :meth:`end`.

    Below its URL there are ``index.m3u8`` and, with ``token`` as a folder, what :meth:`media` finds: ``init<run>.mp4``,
    ``<msn>.m4s``, ``<msn>.<part>.m4s``. The token makes these names unique, so that they may be kept for good.

    Between two runs nothing is announced, and requests for what comes next wait on: the next run answers them.
    Calls that change something raise RuntimeError once the stream has ended.
    """

    def __init__(
        self,
        settings: LiveSettings,
        *,
        first_msn: int = 0,
        first_discontinuity: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # given
        self.settings: Final = settings
        self._clock: Final = clock
        # owned
        self.token: Final = token_urlsafe(9)
        self.listeners: Final[list[LiveListener]] = []
        self.ended_at: float | None = None
        """By the clock."""
        self.progress = 0
        """How many parts there have been."""
        self.waiting = 0
        """How many requests wait for something to come."""
        self.trouble = ""
        """Why nothing comes, for a person; told to viewers of a stream that has not begun."""
        self._inits: Final[dict[int, bytes]] = {}
        self._retired: Final[deque[Segment]] = deque()  # no longer listed, still to be had
        self._window: Final[deque[Segment]] = deque()
        self._opening: Segment | None = None
        self._run = -1
        self._running = False
        self._next_msn = first_msn  # of the segment that is being made, or comes next
        self._discontinuity_sequence = first_discontinuity
        self._changed = trio.Event()  # anew for each change
        # derived
        self.version = 0
        """Another for each playlist."""
        self._bytes = 0
        self._playlists: Final[dict[bool, bytes]] = {}

    # -- what the broadcast and its packagers do ---

    def begin_run(self, init: bytes) -> int:
        """FFmpeg's new init segment; what follows is discontinuous. Ends the run before. Returns the run's number."""
        self.end_run()
        self._check()
        self._run += 1
        self._running = True
        self._inits[self._run] = init
        for listener in self.listeners:
            listener.on_init(self._run, init)
        return self._run

    def add_part(self, part: Part) -> None:
        """The next part of the open segment, or the first one of a new one."""
        self._check()
        if not self._running:
            raise RuntimeError("a part outside a run")
        self._bytes += len(part.data)
        if self._opening is None:
            discontinuity = self._last is not None and self._last.run != self._run
            self._opening = Segment(self._next_msn, self._run, discontinuity, (part,))
        else:
            self._opening = replace(self._opening, parts=(*self._opening.parts, part))
        self.progress += 1
        self._trim()
        self._change()

    def end_segment(self) -> None:
        """The open segment is complete. Nothing, where there is none."""
        segment = self._opening
        if segment is None:
            return
        self._opening = None
        self._window.append(segment)
        self._next_msn += 1
        self._trim()
        self._change()
        for listener in self.listeners:
            listener.on_segment(segment)

    def end_run(self) -> None:
        """FFmpeg has gone: the open segment is complete with what it has. Idempotent."""
        if not self._running:
            return
        self._running = False
        self.end_segment()
        self._change()  # what was announced does not come

    def end(self) -> None:
        """Nothing more will come. Idempotent."""
        if self.ended_at is not None:
            return
        self.end_run()
        self.trouble = ""
        self.ended_at = self._clock()
        self._change()
        for listener in self.listeners:
            listener.on_end()

    def successor(self) -> "LiveStream":
        """Ends this stream. The new one's numbers go on where this one's end: a player may take it for the same."""
        self.end()
        discontinuities = sum(segment.discontinuity for segment in self._window) + bool(self.progress)
        return LiveStream(
            self.settings,
            first_msn=self._next_msn,
            first_discontinuity=self._discontinuity_sequence + discontinuities,
            clock=self._clock,
        )

    # -- what is known of it ---

    @property
    def state(self) -> Literal["starting", "live", "ended"]:
        if self.ended_at is not None:
            return "ended"
        return "live" if self.progress else "starting"

    @property
    def bytes_held(self) -> int:
        return self._bytes

    @property
    def segments_held(self) -> int:
        return len(self._retired) + len(self._window) + (self._opening is not None)

    @property
    def end_date(self) -> float:
        """The wall clock at the end of the last part; -inf before there is one."""
        return -inf if self._last is None else self._last.start + self._last.duration

    # -- what viewers ask for ---

    def playlist(self, *, skip: bool = False) -> bytes:
        """The playlist as it is now; ``skip``: as a delta update. Made once for all who ask."""
        if skip not in self._playlists:
            settings = self.settings
            snapshot = Snapshot(
                token=self.token,
                part_target=settings.part_target,
                target_duration=settings.target_duration,
                discontinuity_sequence=self._discontinuity_sequence,
                segments=tuple(self._window),
                opening=self._opening,
                hint=self._hint,
                ended=self.ended_at is not None,
            )
            self._playlists[skip] = render(snapshot, skip=skip).encode()
        return self._playlists[skip]

    def has(self, msn: int, part: int | None) -> bool:
        """Is this in the playlist, or was it, or will never be (the stream has ended)?

        Without ``part`` the whole segment is meant. A part beyond a complete segment's last is the first one of the
        next segment (6.2.5.2).
        """
        if self.ended_at is not None:
            return True
        if msn < self._next_msn:
            segment = self._find(msn)
            if part is None or segment is None or part < len(segment.parts):
                return True
            msn, part = msn + 1, 0
        if part is None or msn > self._next_msn:
            return False
        return msn < self._next_msn or (self._opening is not None and part < len(self._opening.parts))

    def is_far(self, msn: int, part: int | None) -> bool:
        """Is this further ahead than anybody who follows the stream would ask for? (6.2.5.2)"""
        if msn > self._next_msn + 1:  # the last complete segment's number, and two
            return True
        if part is None or msn < self._next_msn:
            return False
        parts = len(self._opening.parts) if self._opening is not None and msn == self._next_msn else 0
        target = self.settings.part_target
        return part > parts - 1 + (3 / target if target < 1 else 3)

    def media(self, name: str) -> bytes | None:
        """The init segment, segment or part of this name. Never another's, as long as the token is this."""
        if match := _INIT_NAME.fullmatch(name):
            return self._inits.get(int(match[1]))
        match = _SEGMENT_NAME.fullmatch(name)
        if match is None or (segment := self._find(int(match[1]))) is None:
            return None
        if match[2] is None:
            return None if segment is self._opening else segment.data
        index = int(match[2])
        return segment.parts[index].data if index < len(segment.parts) else None

    def announces(self, name: str) -> bool:
        """Is this the part that the playlist hints at?"""
        return name == self._hint

    async def wait(self, ready: Callable[[], bool]) -> bool:
        """Wait until ``ready()``, which is asked after each change.

        False: it has taken too long (three target durations), or too many are waiting already.
        """
        if self.waiting >= self.settings.max_waiting:
            return False
        self.waiting += 1
        try:
            with trio.move_on_after(_PATIENCE * self.settings.target_duration):
                while not ready():
                    await self._changed.wait()
        finally:
            self.waiting -= 1
        return ready()

    # -- inside ---

    @property
    def _last(self) -> Segment | None:
        return self._opening or (self._window[-1] if self._window else None)

    @property
    def _hint(self) -> str | None:
        """Nothing is announced before a run's first part: the player would not know its init segment."""
        if not self._running or self._last is None or self._last.run != self._run:
            return None
        return f"{self._next_msn}.{len(self._opening.parts) if self._opening else 0}.m4s"

    def _check(self) -> None:
        if self.ended_at is not None:
            raise RuntimeError("the stream has ended")

    def _find(self, msn: int) -> Segment | None:
        if self._opening is not None and msn == self._next_msn:
            return self._opening
        back = self._next_msn - msn  # numbers follow each other without a gap
        if not 0 < back <= len(self._window) + len(self._retired):
            return None
        return self._window[-back] if back <= len(self._window) else self._retired[len(self._window) - back]

    def _change(self) -> None:
        self.version += 1
        self._playlists.clear()
        self._changed.set()
        self._changed = trio.Event()

    def _trim(self) -> None:
        """Let go of what is older than the window, and of what is too much."""
        duration = sum(segment.duration for segment in self._window)
        while len(self._window) > 1 and duration - self._window[0].duration >= self.settings.window:
            duration -= self._window[0].duration
            self._retire()
        grace = _GRACE * self.settings.target_duration
        retired = sum(segment.duration for segment in self._retired)
        while self._retired and retired - self._retired[0].duration >= grace:
            retired -= self._retired[0].duration
            self._drop()
        while self._bytes > self.settings.max_bytes and (self._retired or len(self._window) > 1):
            if not self._retired:
                self._retire()
            self._drop()
        needed = {segment.run for segment in (*self._retired, *self._window)} | {self._run}
        for run in self._inits.keys() - needed:
            del self._inits[run]

    def _retire(self) -> None:
        segment = self._window.popleft()
        self._discontinuity_sequence += segment.discontinuity
        self._retired.append(segment)

    def _drop(self) -> None:
        self._bytes -= self._retired.popleft().size


class LiveStreams:
    """The streams of all rooms. One that has ended stays for ``grace`` seconds, then it is forgotten."""

    def __init__(
        self,
        settings: LiveSettings | None = None,
        *,
        first_msn: int = 0,
        grace: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``first_msn``: the number of a new stream's first segment."""
        # given
        self._settings: Final = settings or LiveSettings()
        self._first_msn: Final = first_msn
        self._grace: Final = grace
        self._clock: Final = clock
        # owned
        self._streams: Final[dict[str, LiveStream]] = {}

    def create(self, room_id: str) -> LiveStream:
        """A new stream for the room. One that it still has is ended, and its numbers go on here."""
        self.sweep()
        before = self._streams.get(room_id)
        if before is not None:
            stream = before.successor()
        else:
            stream = LiveStream(self._settings, first_msn=self._first_msn, clock=self._clock)
        self._streams[room_id] = stream
        return stream

    def get(self, room_id: str) -> LiveStream | None:
        stream = self._streams.get(room_id)
        if stream is not None and self._is_over(stream):
            del self._streams[room_id]
            return None
        return stream

    def sweep(self) -> None:
        """Forget what is over. The server calls it now and then, or memory stays taken until the next stream."""
        for room_id in [room_id for room_id, stream in self._streams.items() if self._is_over(stream)]:
            del self._streams[room_id]

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def segments(self) -> int:
        """For metrics, as the next two: what is held, and how many requests wait."""
        return sum(stream.segments_held for stream in self._streams.values())

    @property
    def bytes(self) -> int:
        return sum(stream.bytes_held for stream in self._streams.values())

    @property
    def waiting(self) -> int:
        return sum(stream.waiting for stream in self._streams.values())

    def _is_over(self, stream: LiveStream) -> bool:
        return stream.ended_at is not None and stream.ended_at + self._grace <= self._clock()
