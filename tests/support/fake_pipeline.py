"""Stand-ins for what a broadcast has around it: pipelines that do as they are told, writers, and the room that listens.

On a mock clock: nothing in here waits for the world.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import trio

from tests.support.fragmented_mp4 import INIT, video
from trio_sfu.hls.broadcast import Broadcast, Writer
from trio_sfu.hls.live_stream import LiveStream, LiveStreams, Segment
from trio_sfu.rooms.live import LiveParticipant, LiveState

__all__ = ["ROOM", "FakeRun", "FakeWriter", "Stage", "participant", "play"]

ROOM = "room"
PART_SECONDS = 1 / 3

Script = Callable[["FakeRun"], Awaitable[None]]


def participant(user_id: str, *, video: str = "v", name: str | None = None) -> LiveParticipant:
    """``video``: another word is another producer."""
    producers = (SimpleNamespace(id=f"{user_id}-a"), SimpleNamespace(id=f"{user_id}-{video}"))
    return LiveParticipant(user_id, name, *cast(Any, producers))


class FakeRun:
    """One run of a pipeline, as long as its stage's script for it; all times are trio's."""

    def __init__(
        self, stage: "Stage", participants: Sequence[LiveParticipant], on_output: Callable[[bytes], None]
    ) -> None:
        self.participants = participants
        self.on_output = on_output
        self.began = math.nan
        self.stopped = math.nan
        """When it was cancelled or failed."""
        self.ended = math.nan
        """When it had cleaned up."""
        self.speakers: list[str] = []
        """Who was said to speak, before it ran too."""
        self._stage = stage
        self._frames = 0

    @property
    def users(self) -> str:
        return "".join(each.user_id for each in self.participants)

    async def run(self) -> None:
        stage = self._stage
        stage.active.append(self)
        stage.most_active = max(stage.most_active, len(stage.active))
        self.began = trio.current_time()
        try:
            await stage.script(self)
        finally:
            self.stopped = trio.current_time()
            with trio.CancelScope(shield=True):
                await trio.sleep(stage.clean_up_seconds)
            self.ended = trio.current_time()
            stage.active.remove(self)

    def speaks(self, user_id: str) -> None:
        self.speakers.append(user_id)

    def show(self, frames: int = 1) -> None:
        """Frames as long as a part; every sixth is a keyframe."""
        for _ in range(frames):
            if self._frames == 0:
                self.on_output(INIT)
            at, self._frames = self._frames, self._frames + 1
            self.on_output(video(at * PART_SECONDS, PART_SECONDS, keyframe=at % 6 == 0))


async def play(run: FakeRun) -> None:
    """What a healthy pipeline does: its first part comes after a while."""
    while True:
        await trio.sleep(PART_SECONDS)
        run.show()


class FakeWriter:
    """A writer that needs a second for what is left at the end."""

    def __init__(self) -> None:
        self.inits: list[int] = []
        self.segments: list[Segment] = []
        self.ends = 0
        self.finished = False
        self._ended = trio.Event()

    async def run(self) -> None:
        await self._ended.wait()
        await trio.sleep(1)
        self.finished = True

    def on_init(self, run: int, init: bytes) -> None:
        assert init == INIT
        self.inits.append(run)

    def on_segment(self, segment: Segment) -> None:
        self.segments.append(segment)

    def on_end(self) -> None:
        self.ends += 1
        self._ended.set()


class Stage:
    """A broadcast, what it made, and what the room was told. ``script`` is what the next runs do."""

    def __init__(self, script: Script = play, *, show_names: bool = False, clean_up_seconds: float = 0.1) -> None:
        self.script = script
        self.clean_up_seconds = clean_up_seconds
        self.streams = LiveStreams(clock=trio.current_time)
        self.runs: list[FakeRun] = []
        self.active: list[FakeRun] = []
        self.most_active = 0
        self.told: list[tuple[LiveState, str | None]] = []
        self.told_at: list[float] = []
        self.writers: list[FakeWriter] = []
        self.broadcast = Broadcast(
            ROOM, self.streams, self._make, self._tell, make_writers=self._make_writers, show_names=show_names
        )

    def announce(self, *participants: LiveParticipant | str) -> None:
        """Those who are there from now on; a word's letters are users."""
        everyone: list[LiveParticipant] = []
        for each in participants:
            everyone += [each] if isinstance(each, LiveParticipant) else map(participant, each)
        self.broadcast.changed(everyone)

    @property
    def stream(self) -> LiveStream:
        stream = self.streams.get(ROOM)
        assert stream is not None
        return stream

    @property
    def states(self) -> list[LiveState]:
        return [state for state, _ in self.told]

    @property
    def users(self) -> list[str]:
        """Who was there, run by run."""
        return [run.users for run in self.runs]

    def _make(self, participants: Sequence[LiveParticipant], on_output: Callable[[bytes], None]) -> FakeRun:
        self.runs.append(FakeRun(self, participants, on_output))
        return self.runs[-1]

    def _make_writers(self) -> Sequence[Writer]:
        self.writers.append(FakeWriter())
        return self.writers[-1:]

    def _tell(self, state: LiveState, reason: str | None) -> None:
        assert (reason is not None) == (state == "failed")
        assert self.states[-1:] != [state], f"told twice: {state}"
        self.told.append((state, reason))
        self.told_at.append(trio.current_time())
