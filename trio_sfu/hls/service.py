"""All live streams of a process: what their rooms share. Opened by server.py around the rooms."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from trio_sfu.hls.broadcast import Broadcast, Writer
from trio_sfu.hls.ffmpeg import FfmpegMissing, find_ffmpeg
from trio_sfu.hls.live_stream import LiveSettings, LiveStreams
from trio_sfu.hls.options import HlsOptions
from trio_sfu.hls.pipeline import HOST, Pipeline, PipelineStats
from trio_sfu.hls.plain_folder import PlainFolder
from trio_sfu.hls.ports import PortRange
from trio_sfu.hls.recording import Recording
from trio_sfu.hls.state import RunFolder
from trio_sfu.hls.writer import DiskWriter, WriterCounters
from trio_sfu.media.router import Router
from trio_sfu.rooms.live import LiveParticipant
from trio_sfu.rooms.messages import LiveState

__all__ = ["HlsService", "open_hls"]

logger = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 10.0


@asynccontextmanager
async def open_hls(options: HlsOptions) -> AsyncIterator["HlsService"]:
    """What live streams need, for as long as the block runs; the rooms are to end before it does.

    Raises OSError where the folder for what runs cannot be made. Without FFmpeg it warns, and calls go on without.
    """
    try:
        find_ffmpeg(options.ffmpeg)
    except FfmpegMissing as error:
        logger.warning("No live streams: %s", error)
    with RunFolder(options.run_dir) as folder:
        async with trio.open_nursery() as nursery:
            service = HlsService(options, folder)
            nursery.start_soon(service.keep_sweeping)
            yield service
            nursery.cancel_scope.cancel()


class HlsService:
    """Use :func:`open_hls`."""

    def __init__(self, options: HlsOptions, folder: RunFolder) -> None:
        # Given
        self._options: Final = options
        self._folder: Final = folder
        # Owned
        self._settings: Final = LiveSettings(
            part_target=options.part_seconds, segment_target=options.segment_seconds, window=options.window_seconds
        )
        # hls.js (1.6) takes a last segment number of 0 for none: it asks for the next one late, and stalls.
        self.streams: Final = LiveStreams(self._settings, first_msn=1)
        self.ports: Final = PortRange(options.first_port, options.last_port, HOST)
        self.stats: Final = PipelineStats()
        self.written: Final = WriterCounters()

    async def keep_sweeping(self) -> None:
        """Let go of what ended streams held."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            self.streams.sweep()

    def output(self, room_id: str, router: Router, tell: Callable[[LiveState, str | None], None]) -> Broadcast:
        """A room's live output: a :data:`trio_sfu.rooms.live.LiveOutputFactory`."""

        def make_pipeline(participants: Sequence[LiveParticipant], on_output: Callable[[bytes], None]) -> Pipeline:
            folder = self._folder.room(room_id)
            return Pipeline(
                room_id, router, participants, self._options, self.ports, folder, self.stats, on_output=on_output
            )

        return Broadcast(
            room_id,
            self.streams,
            make_pipeline,
            tell,
            make_writers=lambda: self._make_writers(room_id),
            show_names=self._options.show_names,
        )

    def _make_writers(self, room_id: str) -> list[Writer]:
        options = self._options
        writers: list[Writer] = []
        if options.hls_dir is not None:
            duration = self._settings.target_duration
            folder = PlainFolder(options.hls_dir, room_id, window=options.window_seconds, target_duration=duration)
            writers.append(DiskWriter(folder, f"Room {room_id} to {options.hls_dir}", self.written))
        if options.record_dir is not None:
            recording = Recording(options.record_dir, room_id)
            writers.append(DiskWriter(recording, f"Recording of room {room_id} to {options.record_dir}", self.written))
        return writers
