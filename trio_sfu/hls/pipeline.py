"""One run of a room's pipeline: the eight steps from the participants' producers to fragments from FFmpeg.

Made and run by :mod:`trio_sfu.hls.broadcast`, one run at a time in a room. Whatever step a run is cancelled in, and
however it fails, all that it had is gone when :meth:`Pipeline.run` returns: FFmpeg is reaped, the ports are released,
transports and consumers closed, files removed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import randbits
from typing import Final, Literal

import trio

from trio_sfu.hls.command import Input, enlarge, ffmpeg_command
from trio_sfu.hls.feed import AudioFeed, ClockOffset, Timeline, VideoFeed
from trio_sfu.hls.ffmpeg import FfmpegProcess, find_ffmpeg
from trio_sfu.hls.options import HlsOptions
from trio_sfu.hls.ports import PortPair, PortRange, wait_bound
from trio_sfu.hls.sdp import Stream, session_description
from trio_sfu.hls.spotlight import Spotlight
from trio_sfu.hls.state import STATE_FILE, RunState, save
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.producer import Producer
from trio_sfu.media.router import Router
from trio_sfu.media.stills import card, make_repeater
from trio_sfu.rooms.live import LiveParticipant
from trio_sfu.transport.plain import PlainTransport, plain_rtp_capabilities

__all__ = ["STEPS", "Pipeline", "PipelineFailed", "PipelineStats", "Step"]

logger = logging.getLogger(__name__)

Step = Literal[
    "clean up",
    "lease ports",
    "create transports",
    "write SDP",
    "launch FFmpeg",
    "connect transports",
    "create consumers",
    "save state",
]
STEPS: Final[tuple[Step, ...]] = Step.__args__  # type: ignore[attr-defined]

HOST: Final = "127.0.0.1"
#: How long FFmpeg may take to listen on its ports.
BIND_SECONDS: Final = 5.0
#: How long SIGTERM may take. FFmpeg heeds it at its next packet only, and what it would still write is of no use.
STOP_SECONDS: Final = 0.1
#: The whole of step 1, SIGKILL included, must be through by then.
CLEAN_UP_SECONDS: Final = 10.0
#: Output that makes no progress for so long is taken for dead.
STALL_SECONDS: Final = 5.0
TICK_SECONDS: Final = 0.020
#: Pauses between requests for a first keyframe. When they are used up, the tile keeps its card until one comes.
KEYFRAME_DELAYS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0, 2.0)
#: A feed that lost something asks this often.
REPAIR_SECONDS: Final = 0.5


class PipelineFailed(Exception):
    """A run could not go on; the text says why, for a person."""


@dataclass(slots=True)
class PipelineStats:
    """Of all rooms: the first three say how many there are now, the others count since the start."""

    pipelines: int = 0
    processes: int = 0
    transports: int = 0
    launches: int = 0
    failures: int = 0
    keyframes_given_up: int = 0


class _Source:
    """One participant's audio or video on its way to FFmpeg: what a run leases, makes and closes for it."""

    def __init__(self, producer: Producer, ports: PortPair) -> None:
        # Given
        self.producer: Final = producer
        self.ports: Final = ports
        # Owned, in the order of the steps
        self.feed: AudioFeed | VideoFeed | None = None
        self.transport: PlainTransport | None = None
        self.consumer: Consumer | None = None
        self.asked_at = float("-inf")


class Pipeline:
    """One run. ``on_output`` gets FFmpeg's output piece by piece, and must not block."""

    def __init__(
        self,
        room_id: str,
        router: Router,
        participants: Sequence[LiveParticipant],
        options: HlsOptions,
        ports: PortRange,
        folder: Path,
        stats: PipelineStats,
        *,
        on_output: Callable[[bytes], None],
        trace: Callable[[Step], None] = lambda step: None,
    ) -> None:
        # Given
        self.room_id: Final = room_id
        self.participants: Final = participants
        self._router: Final = router
        self._options: Final = options
        self._ports: Final = ports
        self._folder: Final = folder
        self._stats: Final = stats
        self._on_output: Final = on_output
        self._trace: Final = trace
        # Owned
        self._sources: list[_Source] = []
        self._ffmpeg: FfmpegProcess | None = None
        self._patience = trio.CancelScope()
        """Over when there has been no output for too long."""
        self._composing = False
        """Whether FFmpeg has its filters; what it is told before that is lost."""
        # Derived
        self._shown: Final = participants[: options.max_tiles]
        follows = options.layout == "speaker" and len(self._shown) > 1
        self._spotlight: Final = Spotlight([each.user_id for each in self._shown]) if follows else None

    def speaks(self, user_id: str) -> None:
        """This user speaks from now on: to be large soon, where the layout follows. At any time, :meth:`run` or not."""
        if self._spotlight is not None:
            self._spotlight.speaks(user_id)

    async def run(self) -> None:
        """Run until cancelled. Raises :class:`PipelineFailed` where FFmpeg ends or stalls, :class:`NoPorts`,
        :class:`FfmpegMissing`, and OSError where a file cannot be written or FFmpeg not be started."""
        self._stats.pipelines += 1
        try:
            async with trio.open_nursery() as nursery:
                await self._clean_up()
                self._lease_ports()
                await self._create_transports(nursery)
                self._write_sdp()
                self._launch_ffmpeg(nursery)
                await self._connect_transports(nursery)
                self._create_consumers(nursery)
                await self._save_state()
                await self._watch()
        except* Exception:
            self._stats.failures += 1
            raise
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEAN_UP_SECONDS):
                await self._clean_up()
            self._stats.pipelines -= 1

    # -- the eight steps ---

    async def _clean_up(self) -> None:
        """1. FFmpeg is dead and reaped; transports and consumers are closed, ports released, files removed."""
        self._trace("clean up")
        ffmpeg, self._ffmpeg = self._ffmpeg, None
        sources, self._sources = self._sources, []
        try:
            if ffmpeg is not None:
                await ffmpeg.stop(STOP_SECONDS)
                self._stats.processes -= 1
        finally:
            for source in sources:
                if source.consumer is not None:
                    source.consumer.close()
                if source.transport is not None:
                    source.transport.close()
                    self._stats.transports -= 1
                source.ports.release()
            for path in (self._sdp_path, self._state_path):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            with suppress(OSError):
                self._folder.rmdir()

    def _lease_ports(self) -> None:
        """2. RTP and RTCP ports for the audio of each participant, and for the video of those in the picture."""
        self._trace("lease ports")
        for index, participant in enumerate(self.participants):
            self._sources.append(_Source(participant.audio, self._ports.lease()))
            if index < len(self._shown):
                self._sources.append(_Source(participant.video, self._ports.lease()))

    async def _create_transports(self, nursery: trio.Nursery) -> None:
        """3. Plain transports, not connected yet, each with its feed."""
        self._trace("create transports")
        timeline = Timeline(trio.current_time, time.time())
        clocks = {participant.audio: ClockOffset() for participant in self.participants}
        clocks |= {participant.video: clocks[participant.audio] for participant in self.participants}
        for source in self._sources:
            source.feed = _make_feed(source.producer, timeline, clocks[source.producer])
            source.transport = PlainTransport(self._router, host=HOST, wrap=source.feed.sink)
            self._stats.transports += 1
            await nursery.start(self._run_transport, source.transport)

    def _write_sdp(self) -> None:
        """4. What FFmpeg is to receive, and where."""
        self._trace("write SDP")
        streams = [
            Stream(source.producer.kind, source.producer.consumable.codecs[0], source.ports.rtp, source.ports.rtcp)
            for source in self._sources
        ]
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._sdp_path.write_text(session_description(streams, HOST))

    def _launch_ffmpeg(self, nursery: trio.Nursery) -> None:
        """5. One FFmpeg for the room."""
        self._trace("launch FFmpeg")
        inputs = [Input(each.name, video=index < len(self._shown)) for index, each in enumerate(self.participants)]
        large = None if self._spotlight is None else self._spotlight.begin(self._screens())
        program = find_ffmpeg(self._options.ffmpeg)
        command = ffmpeg_command(program, str(self._sdp_path), inputs, self._options, large)
        self._ffmpeg = FfmpegProcess.launch(command, commanded=large is not None)
        self._stats.processes += 1
        self._stats.launches += 1
        self._patience.deadline = trio.current_time() + STALL_SECONDS
        nursery.start_soon(self._ffmpeg.drain_errors)
        nursery.start_soon(self._read_output, self._ffmpeg)

    async def _connect_transports(self, nursery: trio.Nursery) -> None:
        """6. Only once FFmpeg listens: what comes earlier is lost, or goes to a stranger."""
        self._trace("connect transports")
        ffmpeg = self._running
        ports = [port for source in self._sources for port in (source.ports.rtp, source.ports.rtcp)]
        try:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(self._fail_when_ended, ffmpeg)
                await wait_bound(ports, pid=ffmpeg.pid, seconds=BIND_SECONDS)
                waiting.cancel_scope.cancel()
        except* trio.TooSlowError:
            raise PipelineFailed(self._explain(f"FFmpeg does not listen after {BIND_SECONDS:g} s")) from None
        now = trio.current_time()
        for source in self._sources:
            assert source.transport is not None
            assert source.feed is not None
            source.transport.connect(HOST, source.ports.rtp, source.ports.rtcp)
            source.feed.start(now)
        nursery.start_soon(self._tick_feeds)

    def _create_consumers(self, nursery: trio.Nursery) -> None:
        """7. The media starts to flow; video is asked for keyframes until one of each has been forwarded."""
        self._trace("create consumers")
        capabilities = plain_rtp_capabilities(self._router.rtp_capabilities)
        for source in self._sources:
            assert source.transport is not None
            if source.producer.closed:
                continue  # the room knows, and another run is about to follow
            source.consumer = self._router.consume(source.transport, source.producer, capabilities)
            source.consumer.priority = 255  # it stands for everybody who watches the stream
            if isinstance(source.feed, VideoFeed):
                nursery.start_soon(self._ask_for_keyframes, source.feed, source.consumer)

    async def _save_state(self) -> None:
        """8. What runs, for whoever has to clean up after us."""
        self._trace("save state")
        state = RunState(
            room_id=self.room_id,
            ffmpeg_pid=self._running.pid,
            ports=tuple(source.ports.rtp for source in self._sources),
            producers=tuple(source.producer.id for source in self._sources),
            started_at=time.time(),
        )
        await trio.to_thread.run_sync(save, self._state_path, state)

    # -- tasks of a run ---

    async def _watch(self) -> None:
        """Until FFmpeg has ended, or makes nothing any more: by PipelineFailed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fail_when_ended, self._running)
            with self._patience:
                await trio.sleep_forever()
            raise PipelineFailed(self._explain(f"FFmpeg has made nothing for {STALL_SECONDS:g} s"))

    async def _fail_when_ended(self, ffmpeg: FfmpegProcess) -> None:
        code = await ffmpeg.wait()
        await trio.sleep(0.05)  # its last words may still be in the pipe
        raise PipelineFailed(self._explain(f"FFmpeg ended with status {code}"))

    async def _read_output(self, ffmpeg: FfmpegProcess) -> None:
        while data := await ffmpeg.receive_output():
            self._patience.deadline = trio.current_time() + STALL_SECONDS
            self._composing = True
            self._on_output(data)

    async def _run_transport(self, transport: PlainTransport, *, task_status: trio.TaskStatus[None]) -> None:
        await transport.run(task_status=task_status)
        raise PipelineFailed(transport.failure or "a plain transport was closed")

    async def _tick_feeds(self) -> None:
        while True:
            now = trio.current_time()
            for source in self._sources:
                assert source.feed is not None
                if source.producer.paused or source.producer.closed:
                    source.feed.pause(now)
                else:
                    source.feed.resume(now)
                source.feed.tick(now)
                if isinstance(source.feed, VideoFeed) and source.feed.wants_keyframe and source.consumer is not None:
                    self._ask_again(source, source.consumer, now)
            self._follow_speaker(now)
            await trio.sleep(TICK_SECONDS)

    def _follow_speaker(self, now: float) -> None:
        """Tell FFmpeg who is large, where that changes. What it does not take costs the picture that it would be."""
        if self._spotlight is None or not self._composing:
            return
        turn = self._spotlight.turn(self._screens(), now)
        if turn is not None and self._running.command(enlarge(turn)):
            self._spotlight.large = turn

    def _screens(self) -> list[bool]:
        videos = [each.video for each in self._shown]
        return [each.app_data.get("source") == "screen" and not each.paused for each in videos]

    def _ask_again(self, source: _Source, consumer: Consumer, now: float) -> None:
        if now - source.asked_at >= REPAIR_SECONDS:
            source.asked_at = now
            consumer.request_key_frame(urgent=False)

    async def _ask_for_keyframes(self, feed: VideoFeed, consumer: Consumer) -> None:
        for delay in KEYFRAME_DELAYS:
            if feed.forwarded_keyframe or consumer.closed:
                return
            consumer.request_key_frame()
            await trio.sleep(delay)
        if not feed.forwarded_keyframe and not consumer.producer_paused:
            self._stats.keyframes_given_up += 1
            logger.warning(
                "Room %s: no keyframe from producer %s in %g s; its tile stays dark until one comes",
                self.room_id,
                consumer.producer.id,
                sum(KEYFRAME_DELAYS),
            )

    # -- inside ---

    @property
    def _running(self) -> FfmpegProcess:
        assert self._ffmpeg is not None
        return self._ffmpeg

    @property
    def _sdp_path(self) -> Path:
        return self._folder / "stream.sdp"

    @property
    def _state_path(self) -> Path:
        return self._folder / STATE_FILE

    def _explain(self, what: str) -> str:
        lines = self._running.last_lines
        return f"{what}: {lines}" if lines else what


def _make_feed(producer: Producer, timeline: Timeline, clock: ClockOffset) -> AudioFeed | VideoFeed:
    codec = producer.consumable.codecs[0]
    ssrc = randbits(32)
    if producer.kind == "audio":
        return AudioFeed(timeline, clock, payload_type=codec.payload_type, ssrc=ssrc)
    return VideoFeed(
        timeline,
        clock,
        mime_type=codec.mime_type,
        payload_type=codec.payload_type,
        ssrc=ssrc,
        repeater=make_repeater(codec.mime_type),
        card=card(codec.mime_type),
    )
