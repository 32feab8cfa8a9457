"""The eight steps, with real media and a real FFmpeg: their order, what comes out, and that nothing is ever left."""

import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import av
import numpy
import pytest
import trio

from tests.support.studio import LUMA, TONES, Actor, Studio, open_studio
from tests.support.until import until
from trio_sfu.hls import pipeline as module
from trio_sfu.hls.ffmpeg import FfmpegMissing, FfmpegProcess
from trio_sfu.hls.options import LAYOUTS, HlsOptions, Layout
from trio_sfu.hls.pipeline import STEPS, Pipeline, PipelineFailed, PipelineStats, Step
from trio_sfu.hls.ports import NoPorts, PortRange

SMALL = HlsOptions(width=320, height=180, frame_rate=15)


class Stage:
    """A studio, and one pipeline after the other for its actors."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio = studio
        self.folder = folder
        self.ports = PortRange(20_000, 29_999)
        self.stats = PipelineStats()
        self.children = children()
        self.trace: list[Step] = []
        self.output = bytearray()
        self.pipeline: Pipeline | None = None

    def make(self, actors: Sequence[Actor], options: HlsOptions = SMALL, cancel_at: Step | None = None) -> Pipeline:
        self.trace, self.output = [], bytearray()

        def note(step: Step) -> None:
            self.trace.append(step)
            if step == cancel_at:
                self.scope.cancel()

        self.scope = trio.CancelScope()
        self.pipeline = Pipeline(
            "room",
            self.studio.router,
            [actor.participant for actor in actors],
            options,
            self.ports,
            self.folder,
            self.stats,
            on_output=self.output.extend,
            trace=note,
        )
        return self.pipeline

    async def run(self, *actors: Actor, options: HlsOptions = SMALL, cancel_at: Step | None = None) -> None:
        """Run until it fails or is cancelled by :attr:`scope`; raises the one thing that went wrong."""
        pipeline = self.make(actors, options, cancel_at)
        failure: BaseException | None = None
        try:
            with self.scope:
                await pipeline.run()
        except* Exception as group:
            failure = group
        while isinstance(failure, BaseExceptionGroup):
            assert len(failure.exceptions) == 1
            failure = failure.exceptions[0]
        if failure is not None:
            raise failure

    @property
    def ffmpeg_pid(self) -> int:
        assert self.pipeline is not None
        assert self.pipeline._ffmpeg is not None
        return self.pipeline._ffmpeg.pid

    def assert_order(self) -> None:
        """The steps came in their order as far as they came, and cleaning up came last."""
        *steps, last = self.trace
        assert tuple(steps) == STEPS[: len(steps)]
        assert last == "clean up"

    def assert_nothing_left(self, actors: Sequence[Actor]) -> None:
        assert self.ports.leases == 0
        assert (self.stats.pipelines, self.stats.processes, self.stats.transports) == (0, 0, 0)
        assert not self.folder.exists()
        assert len(self.studio.router._sessions) == len(actors)
        for actor in actors:
            assert not any(producer.consumers for producer in actor.session.producers.values())
        assert children() == self.children


def children() -> set[int]:
    """The processes that we have started and not reaped."""
    return {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


@asynccontextmanager
async def a_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_studio() as studio:
        fds = len(os.listdir("/proc/self/fd"))
        yield Stage(studio, tmp_path / "room")
        assert len(os.listdir("/proc/self/fd")) == fds


def script(path: Path, text: str) -> str:
    """A program in place of FFmpeg."""
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def decode(data: bytes, path: Path) -> tuple[list[numpy.ndarray], numpy.ndarray]:
    """Luma planes, and the samples of the left channel. The last fragment may be cut."""
    path.write_bytes(data)
    pictures: list[numpy.ndarray] = []
    sound: list[numpy.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pictures.append(frame.to_ndarray()[: frame.height])
    with av.open(str(path)) as container:
        for piece in container.decode(audio=0):
            sound.append(piece.to_ndarray()[0])
    return pictures, numpy.concatenate(sound)


def hears(sound: numpy.ndarray, tone: int) -> bool:
    spectrum = numpy.abs(numpy.fft.rfft(sound * numpy.hanning(len(sound))))
    hertz = numpy.fft.rfftfreq(len(sound), 1 / 48_000)
    return bool(spectrum[abs(hertz - tone) < 4].max() > 50 * numpy.median(spectrum))


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_everybody_is_seen_moving_and_heard(count: int, tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage, trio.open_nursery() as nursery:
        actors = [stage.studio.actor() for _ in range(count)]
        nursery.start_soon(lambda: stage.run(*actors))
        await until(lambda: stage.output.count(b"moof") > 150, seconds=20)
        stage.scope.cancel()
        await until(lambda: stage.trace[-1] == "clean up")
        await until(lambda: stage.stats.pipelines == 0)
        stage.assert_order()
        assert tuple(stage.trace) == (*STEPS, "clean up")
        stage.assert_nothing_left(actors)
    pictures, sound = decode(bytes(stage.output), tmp_path / "out.mp4")
    middles = {
        1: [(slice(0, 320), 90)],
        2: [(slice(0, 160), 90), (slice(160, 320), 90)],
        5: [(slice(x, x + 106), y) for x, y in ((0, 45), (106, 45), (212, 45), (54, 135), (160, 135))],
    }[count]
    for index, (columns, row) in enumerate(middles):
        rows = [picture[row, columns].astype(int) for picture in pictures[-20:]]
        assert abs(numpy.median(rows[-1]) - LUMA[index]) < 8, f"tile {index} has its own colour"
        bars = {int(numpy.argmax(each)) for each in rows if each.max() > LUMA[index] + 20}
        assert len(bars) > 5, f"tile {index} moves"
    for tone in TONES[:count]:
        assert hears(sound[-24_000:], tone)


async def test_who_speaks_is_large(tmp_path: Path) -> None:
    options = replace(SMALL, layout="speaker")
    said_at: list[int] = []  # by the length of the output
    async with a_stage(tmp_path) as stage, trio.open_nursery() as nursery:
        actors = [stage.studio.actor() for _ in range(3)]
        nursery.start_soon(lambda: stage.run(*actors, options=options))
        await until(lambda: stage.output.count(b"moof") > 60, seconds=20)
        pid = stage.ffmpeg_pid
        for actor in (actors[2], actors[1]):
            assert stage.pipeline is not None
            stage.pipeline.speaks(actor.name)
            said_at.append(len(stage.output))
            fragments = stage.output.count(b"moof")
            await until(lambda: stage.output.count(b"moof") > fragments + 190, seconds=20)  # noqa: B023
        assert stage.ffmpeg_pid == pid
        stage.scope.cancel()
        await until(lambda: stage.stats.pipelines == 0)
        assert stage.stats.launches == 1
        stage.assert_nothing_left(actors)
    pictures, _ = decode(bytes(stage.output), tmp_path / "out.mp4")
    before = [len(decode(bytes(stage.output[:length]), tmp_path / "cut.mp4")[0]) for length in said_at]
    # The large place, then the small ones.
    places = [(slice(32, 288), 72), (slice(96, 160), 162), (slice(160, 224), 162)]
    shown = [
        tuple(
            min(range(3), key=lambda who: abs(numpy.median(picture[row, columns]) - LUMA[who]))
            for columns, row in places
        )
        for picture in pictures
    ]
    steady = [places for places, run in groupby(shown) if len(list(run)) > 5]
    assert steady == [(0, 1, 2), (2, 1, 0), (1, 0, 2)]
    changes = [shown.index(places) for places in steady[1:]]
    for index, said in zip(changes, before, strict=True):
        assert said <= index < said + 2 * options.frame_rate
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert all(abs(later - earlier - 1 / 15) < 0.01 for earlier, later in pairwise(times[1:])), "it never stopped"
    for columns, row in places:
        rows = [picture[row, columns].astype(int) for picture in pictures[-20:]]
        assert len({int(numpy.argmax(each)) for each in rows}) > 5, "large or small, it moves"


async def test_pictures_of_other_sizes_go_to_any_place(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage, trio.open_nursery() as nursery:
        actors = [stage.studio.actor() for _ in range(2)]
        nursery.start_soon(lambda: stage.run(*actors, options=replace(SMALL, layout="speaker")))

        async def go_on() -> None:
            fragments = stage.output.count(b"moof")
            await until(lambda: stage.output.count(b"moof") > fragments + 120, seconds=20)

        await until(lambda: stage.output.count(b"moof") > 30, seconds=20)
        actors[1].resize(80, 144)
        await go_on()
        assert stage.pipeline is not None
        stage.pipeline.speaks(actors[1].name)
        await go_on()
        actors[1].resize(320, 180)
        await go_on()
        stage.scope.cancel()
        await until(lambda: stage.stats.pipelines == 0)
        assert stage.stats.launches == 1
    pictures, _ = decode(bytes(stage.output), tmp_path / "out.mp4")

    def looks(picture: numpy.ndarray) -> tuple[int, int, int]:
        """Left of the middle, in the middle, and in the small place: LUMA's index, or -1 where it is black."""
        row = picture[72].astype(int)
        spots = (row[36:100], row[130:190], picture[162, 152:168].astype(int))
        return tuple(next((i for i in range(2) if abs(numpy.median(s) - LUMA[i]) < 8), -1) for s in spots)  # type: ignore[return-value]

    steady = [what for what, run in groupby(map(looks, pictures)) if len(list(run)) > 5]
    assert steady == [(0, 0, 1), (-1, 1, 0), (1, 1, 0)]


async def test_a_shared_screen_is_large(tmp_path: Path) -> None:
    options = replace(SMALL, layout="speaker")
    async with a_stage(tmp_path) as stage, trio.open_nursery() as nursery:
        actors = [stage.studio.actor() for _ in range(2)]
        actors[1].participant.video.app_data["source"] = "screen"
        pipeline = stage.make(actors, options)
        pipeline.speaks(actors[0].name)

        async def run() -> None:
            with stage.scope:
                await pipeline.run()

        nursery.start_soon(run)
        await until(lambda: stage.output.count(b"moof") > 90, seconds=20)
        stage.scope.cancel()
    pictures, _ = decode(bytes(stage.output), tmp_path / "out.mp4")
    assert {round(numpy.median(picture[72, 32:288]) / 10) for picture in pictures[-10:]} == {round(LUMA[1] / 10)}


async def test_an_ffmpeg_that_reads_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs the change of the picture and nothing else."""
    monkeypatch.setattr(FfmpegProcess, "command", lambda self, line: False)
    async with a_stage(tmp_path) as stage, trio.open_nursery() as nursery:
        actors = [stage.studio.actor() for _ in range(2)]
        nursery.start_soon(lambda: stage.run(*actors, options=replace(SMALL, layout="speaker")))
        await until(lambda: stage.output.count(b"moof") > 30, seconds=20)
        assert stage.pipeline is not None
        stage.pipeline.speaks(actors[1].name)
        await until(lambda: stage.output.count(b"moof") > 150, seconds=20)
        stage.scope.cancel()
        await until(lambda: stage.stats.pipelines == 0)
        stage.assert_nothing_left(actors)
    pictures, _ = decode(bytes(stage.output), tmp_path / "out.mp4")
    assert {round(numpy.median(picture[72, 32:288]) / 10) for picture in pictures[-10:]} == {round(LUMA[0] / 10)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("step", STEPS)
async def test_cancelled_at_any_step(step: Step, layout: Layout, tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor(), stage.studio.actor()]
        await stage.run(*actors, options=replace(SMALL, layout=layout), cancel_at=step)
        stage.assert_order()
        stage.assert_nothing_left(actors)
        # And the room can be streamed all the same.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: stage.run(*actors))
            await until(lambda: b"moof" in stage.output, seconds=20)
            stage.scope.cancel()
        stage.assert_nothing_left(actors)


async def test_cancelled_at_any_moment(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor()]
        for milliseconds in range(2, 200, 8):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: stage.run(*actors))
                await trio.sleep(milliseconds / 1000)
                stage.scope.cancel()
            stage.assert_order()
            stage.assert_nothing_left(actors)


async def test_ffmpeg_is_killed(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor()]

        async def kill() -> None:
            await until(lambda: b"moof" in stage.output, seconds=20)
            os.kill(stage.ffmpeg_pid, signal.SIGKILL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            with pytest.raises(PipelineFailed, match="status -9"):
                await stage.run(*actors)
        stage.assert_order()
        stage.assert_nothing_left(actors)


async def test_ffmpeg_stops_in_its_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 1.0)
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor()]

        async def stop() -> None:
            await until(lambda: b"moof" in stage.output, seconds=20)
            os.kill(stage.ffmpeg_pid, signal.SIGSTOP)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            with pytest.raises(PipelineFailed, match="nothing for 1 s"):
                await stage.run(*actors)
        stage.assert_order()
        stage.assert_nothing_left(actors)


BAD_PROGRAMS = {
    "exits 0 with no output": ("", "status 0"),
    "says why": ("import sys; sys.exit('[fatal] no such thing')", r"status 1: \[fatal\] no such thing"),
    "never binds": ("import time; time.sleep(60)", "does not listen"),
    "ignores SIGTERM": ("import signal, time; signal.signal(15, 1); time.sleep(60)", "does not listen"),
}


@pytest.mark.parametrize("what", BAD_PROGRAMS)
async def test_an_ffmpeg_that(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BIND_SECONDS", 0.5)
    text, reason = BAD_PROGRAMS[what]
    options = replace(SMALL, ffmpeg=script(tmp_path / "ffmpeg", text))
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor()]
        with pytest.raises(PipelineFailed, match=reason):
            await stage.run(*actors, options=options)
        stage.assert_order()
        stage.assert_nothing_left(actors)


async def test_no_ffmpeg_at_all(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor()]
        with pytest.raises(FfmpegMissing):
            await stage.run(*actors, options=replace(SMALL, ffmpeg="no-such-ffmpeg"))
        stage.assert_order()
        stage.assert_nothing_left(actors)


async def test_no_port_is_left(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor(), stage.studio.actor()]
        stage.ports = PortRange(28_000, 28_005)
        with pytest.raises(NoPorts):
            await stage.run(*actors)
        stage.assert_order()
        stage.assert_nothing_left(actors)


async def test_the_sdp_cannot_be_written(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor()]
        stage.folder = tmp_path / "nowhere" / "room"
        with pytest.raises(OSError, match="nowhere"):
            await stage.run(*actors)
        stage.assert_order()
        stage.assert_nothing_left(actors)


async def test_producers_that_close_in_the_middle(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as stage:
        actors = [stage.studio.actor(), stage.studio.actor()]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: stage.run(*actors))
            await until(lambda: stage.output.count(b"moof") > 20, seconds=20)
            gone = actors[1]
            gone.frozen = gone.silent = True
            for producer in tuple(gone.session.producers.values()):
                producer.close()
            seen = stage.output.count(b"moof")
            await until(lambda: stage.output.count(b"moof") > seen + 60, seconds=20)
            stage.scope.cancel()
        stage.assert_nothing_left(actors)
