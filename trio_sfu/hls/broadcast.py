"""A room's live stream from its first participant to its last: which pipeline runs, and what the room is told.

A task of the room's nursery (:class:`trio_sfu.rooms.live.LiveOutput`). Runs are serialised: this task is the only one
that starts them. Changes that pile up while a run is being replaced become one. Nothing that goes wrong in here leaves
it: the call goes on.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from trio_sfu.hls.ffmpeg import FfmpegMissing
from trio_sfu.hls.live_stream import LiveStream, LiveStreams, Segment
from trio_sfu.hls.mp4 import BadMp4
from trio_sfu.hls.packager import Packager
from trio_sfu.hls.pipeline import PipelineFailed
from trio_sfu.hls.ports import NoPorts
from trio_sfu.rooms.live import LiveParticipant
from trio_sfu.rooms.messages import LiveState

__all__ = ["Broadcast", "PipelineFactory"]

logger = logging.getLogger(__name__)

#: A burst of changes is over when nothing has changed for so long, or has gone on for so long.
SETTLE_SECONDS: Final = 0.15
SETTLE_AT_MOST: Final = 1.0
#: How long a stream waits for its participants to come back before it ends.
EMPTY_SECONDS: Final = 3.0
#: Pauses before a failed pipeline is started again; the last one stays.
BACK_OFF: Final = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
#: A run that has lasted so long was a good one.
HEALTHY_SECONDS: Final = 20.0


class Run(Protocol):
    """A pipeline, as :class:`trio_sfu.hls.pipeline.Pipeline`."""

    async def run(self) -> None:
        """Run until cancelled, or raise."""

    def speaks(self, user_id: str) -> None:
        """This user speaks from now on."""


class Writer(Protocol):
    """A listener of a :class:`LiveStream` with a task of its own."""

    async def run(self) -> None:
        """Write until :meth:`on_end`, and what is queued then, within a limit."""

    def on_init(self, run: int, init: bytes) -> None:
        """See :class:`LiveStream`."""

    def on_segment(self, segment: Segment) -> None:
        """See :class:`LiveStream`."""

    def on_end(self) -> None:
        """See :class:`LiveStream`."""


#: The participants, and who takes FFmpeg's output.
PipelineFactory = Callable[[Sequence[LiveParticipant], Callable[[bytes], None]], Run]


class Broadcast:
    """One room's. ``tell`` gets each new state, with the reason where it is "failed"."""

    def __init__(
        self,
        room_id: str,
        streams: LiveStreams,
        make_pipeline: PipelineFactory,
        tell: Callable[[LiveState, str | None], None],
        *,
        make_writers: Callable[[], Sequence[Writer]] = tuple,
        show_names: bool = False,
    ) -> None:
        # Given
        self._room_id: Final = room_id
        self._streams: Final = streams
        self._make_pipeline: Final = make_pipeline
        self._make_writers: Final = make_writers
        self._tell_room: Final = tell
        self._show_names: Final = show_names
        # Owned
        self._participants: tuple[LiveParticipant, ...] = ()
        self._changed = trio.Event()
        self._changed_at = float("-inf")
        self._speaker: str | None = None
        self._run: Run | None = None
        self._state: LiveState | None = None

    def changed(self, participants: Sequence[LiveParticipant]) -> None:
        """See :class:`trio_sfu.rooms.live.LiveOutput`. The same set as before changes nothing."""
        new = tuple(participants)
        if self._key(new) == self._key(self._participants):
            return
        self._participants = new
        self._changed_at = trio.current_time()
        self._changed.set()
        self._changed = trio.Event()

    def speaks(self, user_id: str) -> None:
        """See :class:`trio_sfu.rooms.live.LiveOutput`. Kept for the next runs."""
        self._speaker = user_id
        if self._run is not None:
            self._run.speaks(user_id)

    async def run(self) -> None:
        """See :class:`trio_sfu.rooms.live.LiveOutput`."""
        while True:
            while not self._participants:
                await self._changed.wait()
            try:
                await self._broadcast()
            except* Exception as faults:  # the boundary: the call goes on
                logger.error("The live stream of room %s failed", self._room_id, exc_info=faults)
                self._tell("failed", "an error in the server")
                await trio.sleep(BACK_OFF[-1])

    # -- a stream, from its first participant to its last ---

    async def _broadcast(self) -> None:
        stream = self._streams.create(self._room_id)
        writers = self._make_writers()
        stream.listeners.extend(writers)
        self._tell("starting")
        try:
            async with trio.open_nursery() as nursery:
                for writer in writers:
                    nursery.start_soon(_write, writer)
                try:
                    await self._keep_running(stream)
                finally:
                    stream.end()
        finally:
            self._tell("ended")

    async def _keep_running(self, stream: LiveStream) -> None:
        """One run after the other, until there has been nobody to stream for a while."""
        failures = 0
        complaint = ""  # said in the log once, not each time that it is tried
        while await self._settle():
            if self._state != "starting":
                self._tell("restarting")
            participants, began = self._participants, trio.current_time()
            reason = await self._run_pipeline(stream, participants)
            if reason is None or trio.current_time() - began >= HEALTHY_SECONDS:
                failures, complaint = 0, ""
            if reason is None:
                continue
            level = logging.DEBUG if reason == complaint else logging.WARNING
            logger.log(level, "The live stream of room %s: %s", self._room_id, reason)
            complaint = stream.trouble = reason
            self._tell("failed", reason)
            with trio.move_on_after(BACK_OFF[min(failures, len(BACK_OFF) - 1)]):
                await self._until_other_than(participants)
            failures += 1

    async def _settle(self) -> bool:
        """Until there is somebody and a burst of changes is over; False where nobody came back."""
        while True:
            with trio.move_on_after(EMPTY_SECONDS):
                while not self._participants:
                    await self._changed.wait()
            if not self._participants:
                return False
            await self._calm()
            if self._participants:
                return True

    async def _calm(self) -> None:
        """Until a burst of changes is over, or has left nobody."""
        at_most = trio.current_time() + SETTLE_AT_MOST
        while self._participants and (calm_at := min(self._changed_at + SETTLE_SECONDS, at_most)) > trio.current_time():
            with trio.move_on_at(calm_at):
                await self._changed.wait()

    async def _until_other_than(self, participants: Sequence[LiveParticipant]) -> None:
        """Until others are to be streamed, and that has settled; at once where nobody is."""
        while self._key(self._participants) == self._key(participants):
            await self._changed.wait()
            await self._calm()

    async def _run_pipeline(self, stream: LiveStream, participants: Sequence[LiveParticipant]) -> str | None:
        """One run, until others are to be streamed (None) or it fails (why)."""
        packager = Packager(stream)

        def take(data: bytes) -> None:
            packager.feed(data, time.time())
            if self._state != "live" and packager.parts:
                self._tell("live")

        self._run = pipeline = self._make_pipeline(participants, take)
        if self._speaker is not None:
            pipeline.speaks(self._speaker)
        reason: str | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipeline.run)
                await self._until_other_than(participants)
                nursery.cancel_scope.cancel()
        except* (PipelineFailed, FfmpegMissing, NoPorts, BadMp4) as failures:
            reason = str(_first(failures))
        except* OSError as failures:
            reason = _about_os(_first(failures))
        finally:
            self._run = None
            packager.finish()
        return reason

    # -- inside ---

    def _tell(self, state: LiveState, reason: str | None = None) -> None:
        if (state, reason) != (self._state, None):
            self._state = state
            self._tell_room(state, reason)

    def _key(self, participants: Sequence[LiveParticipant]) -> tuple[object, ...]:
        """What makes a difference to the stream."""
        return tuple(
            (each.user_id, each.audio.id, each.video.id, each.name if self._show_names else None)
            for each in participants
        )


async def _write(writer: Writer) -> None:
    """Not to be cancelled: the end of the stream is its end, and it takes a limited time from then on."""
    with trio.CancelScope(shield=True):
        await writer.run()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _about_os(error: BaseException) -> str:
    assert isinstance(error, OSError)
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"
