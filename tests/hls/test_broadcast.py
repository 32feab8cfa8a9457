"""A room's broadcast with stand-ins for its pipelines, on a mock clock: what runs when, and what the room is told."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support.fake_pipeline import ROOM, FakeRun, Stage, participant, play
from trio_sfu.hls.broadcast import BACK_OFF, EMPTY_SECONDS, HEALTHY_SECONDS, SETTLE_AT_MOST, SETTLE_SECONDS
from trio_sfu.hls.ffmpeg import FfmpegMissing
from trio_sfu.hls.pipeline import PipelineFailed
from trio_sfu.hls.ports import NoPorts

CLEAN_UP = 0.1


@asynccontextmanager
async def on(stage: Stage) -> AsyncIterator[Stage]:
    """The broadcast runs while the block does; its room ends with it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.broadcast.run)
        yield stage
        nursery.cancel_scope.cancel()
    assert stage.active == []
    assert stage.most_active <= 1


async def fail(run: FakeRun, *, after: float = 0.0, error: Exception | None = None) -> None:
    await trio.sleep(after)
    raise error or PipelineFailed("FFmpeg ended with status 1")


async def test_from_the_first_participant_to_the_last(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        await trio.sleep(100)
        assert (stage.told, stage.runs, stage.writers, stage.streams.get(ROOM)) == ([], [], [], None)
        stage.announce("ab")
        await trio.sleep(10)
        assert stage.states == ["starting", "live"]
        assert stage.users == ["ab"]
        (writer,) = stage.writers
        assert stage.stream.listeners == [writer]
        stage.announce()
        await trio.sleep(10)
        assert stage.told == [("starting", None), ("live", None), ("ended", None)]
        assert b"#EXT-X-ENDLIST" in stage.stream.playlist()
        assert stage.users == ["ab"]
        assert (writer.inits, writer.ends, writer.finished) == ([0], 1, True)
        msns = [segment.msn for segment in writer.segments]
        assert msns == list(range(5)), "the last one, which was cut, too"


async def test_live_is_told_with_the_first_part(autojump_clock: MockClock) -> None:
    async def show(run: FakeRun) -> None:
        await trio.sleep(2)
        run.show()
        await trio.sleep_forever()

    async with on(Stage(show)) as stage:
        stage.announce("a")
        await trio.sleep(10)
        assert stage.told_at == [0, SETTLE_SECONDS + 2]
        assert stage.stream.progress == 1


async def test_a_burst_of_changes_is_one_restart(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        stage.announce("a")
        await trio.sleep(10)
        for users in ("ab", "abc", "bc", "bcd", "acd"):
            await trio.sleep(SETTLE_SECONDS / 2)
            stage.announce(users)
        await trio.sleep(10)
        assert stage.users == ["a", "acd"]
        assert stage.states == ["starting", "live", "restarting", "live"]
        assert stage.runs[1].began - 10 == pytest.approx(3.5 * SETTLE_SECONDS + CLEAN_UP, abs=0.02)


async def test_a_burst_at_the_very_beginning(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        for users in ("a", "ab", "abc"):
            stage.announce(users)
            await trio.sleep(SETTLE_SECONDS / 2)
        await trio.sleep(10)
        assert stage.users == ["abc"]


async def test_a_burst_without_end(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        for index in range(100):
            stage.announce(participant("a", video=str(index)))
            await trio.sleep(SETTLE_SECONDS * 0.9)
        seconds = 100 * SETTLE_SECONDS * 0.9
        assert seconds / SETTLE_AT_MOST / 3 < len(stage.runs) < seconds / SETTLE_AT_MOST
        await trio.sleep(5)
        assert stage.runs[-1].participants[0].video.id == "a-99"


async def test_the_same_participants_restart_nothing(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        stage.announce("ab")
        await trio.sleep(5)
        stage.announce("ab")
        await trio.sleep(5)
        stage.announce(participant("a", name="Åsa"), "b")
        await trio.sleep(5)
        assert stage.users == ["ab"]
        assert stage.states == ["starting", "live"]


async def test_a_burst_that_comes_back_restarts_nothing(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        stage.announce("ab")
        await trio.sleep(5)
        for _ in range(3):
            stage.announce("a")
            await trio.sleep(0.05)
            stage.announce("ab")
            await trio.sleep(2)
        assert stage.users == ["ab"]
        assert stage.states == ["starting", "live"]


@pytest.mark.parametrize(
    "others",
    [
        (participant("a", video="screen"), participant("b")),
        (participant("b"), participant("a")),
        (participant("a"),),
        (participant("a"), participant("c")),
    ],
    ids=["another producer", "another order", "fewer", "another user"],
)
async def test_a_difference_restarts(autojump_clock: MockClock, others: Sequence[object]) -> None:
    async with on(Stage()) as stage:
        stage.announce("ab")
        await trio.sleep(5)
        stage.announce(*others)  # type: ignore[arg-type]
        await trio.sleep(5)
        assert [tuple(run.participants) for run in stage.runs][1:] == [tuple(others)]
        # One stream all along: viewers stay.
        assert len(stage.writers) == 1
        assert stage.writers[0].inits == [0, 1]
        assert stage.stream.playlist().count(b"#EXT-X-DISCONTINUITY\n") == 1


async def test_names_matter_where_they_are_shown(autojump_clock: MockClock) -> None:
    async with on(Stage(show_names=True)) as stage:
        for name in (None, "Åsa", "Åsa", "Bo"):
            stage.announce(participant("a", name=name))
            await trio.sleep(5)
        assert [run.participants[0].name for run in stage.runs] == [None, "Åsa", "Bo"]


async def test_runs_do_not_overlap(autojump_clock: MockClock) -> None:
    async with on(Stage(clean_up_seconds=2)) as stage:
        for users in ("a", "ab", "b", "bc", "c"):
            stage.announce(users)
            await trio.sleep(0.7)
        await trio.sleep(10)
        for before, after in pairwise(stage.runs):
            assert before.ended <= after.began
        # What changed while the first one was being cleaned up came together.
        assert stage.users == ["a", "c"]


async def test_a_run_is_told_who_speaks(autojump_clock: MockClock) -> None:
    async with on(Stage(clean_up_seconds=1)) as stage:
        stage.broadcast.speaks("b")
        stage.announce("ab")
        await trio.sleep(5)
        stage.broadcast.speaks("a")
        stage.broadcast.speaks("b")
        stage.announce("abc")
        await trio.sleep(SETTLE_SECONDS + 0.5)
        stage.broadcast.speaks("c")  # while the first one is being cleaned up
        await trio.sleep(5)
        stage.broadcast.speaks("a")
        stage.announce()
        await trio.sleep(10)
        stage.broadcast.speaks("nobody")
        assert [run.speakers for run in stage.runs] == [["b", "a", "b", "c"], ["c", "a"]]
        assert stage.states == ["starting", "live", "restarting", "live", "ended"]


# -- nobody left ---


async def test_those_who_come_back_in_time_go_on(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        stage.announce("a")
        await trio.sleep(10)
        stream = stage.stream
        stage.announce()
        await trio.sleep(CLEAN_UP + 0.01)
        assert stage.active == [], "the pipeline goes at once"
        assert stage.runs[0].stopped == 10
        await trio.sleep(EMPTY_SECONDS - 0.5)
        assert b"ENDLIST" not in stream.playlist()
        stage.announce("a")
        await trio.sleep(10)
        assert stage.stream is stream
        assert stage.users == ["a", "a"]
        assert stage.states == ["starting", "live", "restarting", "live"]
        assert stage.writers[0].ends == 0


async def test_nobody_comes_back(autojump_clock: MockClock) -> None:
    async with on(Stage(clean_up_seconds=0)) as stage:
        stage.announce("a")
        await trio.sleep(10)
        stage.announce()
        await trio.sleep(20)
        assert stage.told_at[-1] == 10 + EMPTY_SECONDS + 1, "a second for the writer"
        assert stage.stream.ended_at == 10 + EMPTY_SECONDS
        before = stage.stream
        stage.announce("b")
        await trio.sleep(10)
        # A stream of its own, whose numbers go on.
        assert stage.stream.token != before.token
        assert before._next_msn == 5
        assert b"#EXT-X-MEDIA-SEQUENCE:5\n" in stage.stream.playlist()
        assert stage.states == ["starting", "live", "ended", "starting", "live"]
        assert [writer.ends for writer in stage.writers] == [1, 0]


async def test_all_leave_one_shortly_after_the_other(autojump_clock: MockClock) -> None:
    async with on(Stage(clean_up_seconds=0)) as stage:
        stage.announce("ab")
        await trio.sleep(10)
        stage.announce("b")
        await trio.sleep(SETTLE_SECONDS / 2)
        stage.announce()
        await trio.sleep(20)
        assert stage.users == ["ab"]
        assert stage.runs[0].stopped == pytest.approx(10 + SETTLE_SECONDS / 2, abs=0.01)
        assert stage.stream.ended_at == pytest.approx(10 + SETTLE_SECONDS / 2 + EMPTY_SECONDS, abs=0.01)


async def test_they_leave_before_it_has_begun(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        stage.announce("a")
        await trio.sleep(SETTLE_SECONDS / 2)
        stage.announce()
        await trio.sleep(20)
        assert stage.runs == []
        assert stage.states == ["starting", "ended"]


async def test_somebody_who_cannot_decide(autojump_clock: MockClock) -> None:
    """As often as one likes, and for as long."""
    async with on(Stage()) as stage:
        for _ in range(2_000):
            stage.announce("a")
            await trio.sleep(SETTLE_SECONDS / 2)
            stage.announce()
            await trio.sleep(SETTLE_SECONDS * 2)
        assert "failed" not in stage.states
        assert stage.runs == []
        stage.announce("a")
        await trio.sleep(5)
        assert stage.users == ["a"]
        assert stage.states[-1] == "live"


# -- what goes wrong ---


async def test_it_backs_off(autojump_clock: MockClock) -> None:
    async with on(Stage(fail, clean_up_seconds=0)) as stage:
        stage.announce("a")
        await trio.sleep(200)
        began = [run.began for run in stage.runs]
        pauses = [later - earlier for earlier, later in pairwise(began)]
        assert pauses[: len(BACK_OFF) + 2] == pytest.approx([*BACK_OFF, BACK_OFF[-1], BACK_OFF[-1]])
        assert stage.told[:4] == [
            ("starting", None),
            ("failed", "FFmpeg ended with status 1"),
            ("restarting", None),
            ("failed", "FFmpeg ended with status 1"),
        ]
        assert stage.streams.get(ROOM) is stage.stream, "it is one stream all the time"
        assert len(stage.writers) == 1


async def test_all_that_a_run_has_made_is_there(autojump_clock: MockClock) -> None:
    """What was held back, too; and while there is no pipeline, nothing is announced."""

    async def show_and_fail(run: FakeRun) -> None:
        run.show(6)
        await fail(run, after=1)

    async with on(Stage(show_and_fail)) as stage:
        stage.announce("a")
        await trio.sleep(1)
        assert stage.stream.progress == 5
        assert b"PRELOAD-HINT" in stage.stream.playlist()
        assert b"#EXTINF" not in stage.stream.playlist()
        await trio.sleep(SETTLE_SECONDS + CLEAN_UP + 0.1)
        assert stage.states == ["starting", "live", "failed"]
        assert stage.stream.progress == 6
        assert b"PRELOAD-HINT" not in stage.stream.playlist()
        assert b"#EXTINF" in stage.stream.playlist()


async def test_the_log_is_told_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with on(Stage(fail)) as stage:
        stage.announce("a")
        await trio.sleep(20)
        stage.script = partial(fail, after=HEALTHY_SECONDS)
        await trio.sleep(100)
        assert len(stage.runs) > 4
        good = sum(run.stopped - run.began >= HEALTHY_SECONDS for run in stage.runs)
        assert good > 1
        assert len(caplog.records) == 1 + good, "a good run has been an end of it"


async def test_it_recovers(autojump_clock: MockClock) -> None:
    async with on(Stage(fail, clean_up_seconds=0)) as stage:
        stage.announce("a")
        await trio.sleep(2)
        stage.script = play
        await trio.sleep(100)
        assert stage.states[-3:] == ["failed", "restarting", "live"]


async def test_a_good_run_ends_the_back_off(autojump_clock: MockClock) -> None:
    async with on(Stage(fail, clean_up_seconds=0)) as stage:
        stage.announce("a")
        await trio.sleep(5)  # five failures, at 0, 0.2, 1.2, 3.2 and 8.2
        stage.script = partial(fail, after=HEALTHY_SECONDS)
        await trio.sleep(HEALTHY_SECONDS + 5)
        assert len(stage.runs) == 6
        good, following = stage.runs[-2:]
        assert following.began - good.ended == pytest.approx(BACK_OFF[0])


async def test_a_run_that_fails_before_it_was_good_does_not(autojump_clock: MockClock) -> None:
    async with on(Stage(partial(fail, after=HEALTHY_SECONDS - 1), clean_up_seconds=0)) as stage:
        stage.announce("a")
        await trio.sleep(200)
        pauses = [later.began - earlier.ended for earlier, later in pairwise(stage.runs)]
        assert pauses[:3] == pytest.approx(BACK_OFF[:3])


async def test_others_cut_the_back_off_short(autojump_clock: MockClock) -> None:
    async with on(Stage(fail, clean_up_seconds=0)) as stage:
        stage.announce("a")
        await trio.sleep(20)  # the pause of ten seconds
        runs = len(stage.runs)
        stage.announce("a")
        await trio.sleep(0.5)
        assert len(stage.runs) == runs, "the same ones do not"
        stage.script = play
        stage.announce("ab")
        await trio.sleep(0.5)
        assert stage.users[runs:] == ["ab"]
        await trio.sleep(1)
        assert stage.states[-3:] == ["failed", "restarting", "live"]


async def test_they_leave_during_a_back_off(autojump_clock: MockClock) -> None:
    async with on(Stage(fail, clean_up_seconds=0)) as stage:
        stage.announce("a")
        await trio.sleep(20)
        stage.announce()
        await trio.sleep(EMPTY_SECONDS + 2)
        assert stage.states[-2:] == ["failed", "ended"]
        assert stage.stream.ended_at == 20 + EMPTY_SECONDS


REASONS = [
    (PipelineFailed("FFmpeg has made nothing for 5 s"), "FFmpeg has made nothing for 5 s"),
    (FfmpegMissing("there is no program 'x' to run; see --ffmpeg"), "there is no program 'x' to run; see --ffmpeg"),
    (NoPorts("no pair of UDP ports is free"), "no pair of UDP ports is free"),
    (FileNotFoundError(2, "No such file or directory", "/run/x"), "No such file or directory (/run/x)"),
    (OSError(24, "Too many open files"), "Too many open files"),
    (OSError("odd"), "odd"),
    (ExceptionGroup("", [ExceptionGroup("", [PipelineFailed("deep")])]), "deep"),
]


@pytest.mark.parametrize(("error", "reason"), REASONS, ids=lambda value: getattr(value, "__name__", str(value))[:20])
async def test_the_reason(
    autojump_clock: MockClock, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with on(Stage(partial(fail, error=error))) as stage:
        stage.announce("a")
        await trio.sleep(SETTLE_SECONDS + 0.15)
        assert stage.told[-1] == ("failed", reason)
        assert [record.getMessage() for record in caplog.records] == [f"The live stream of room room: {reason}"]
        assert caplog.records[0].levelno == logging.WARNING


async def test_output_that_is_none(autojump_clock: MockClock) -> None:
    async def babble(run: FakeRun) -> None:
        run.on_output(b"\0\0\0\4moof")
        await trio.sleep_forever()

    async with on(Stage(babble)) as stage:
        stage.announce("a")
        await trio.sleep(0.3)
        assert stage.states == ["starting", "failed"]
        stage.script = play
        await trio.sleep(2)
        assert stage.states == ["starting", "failed", "restarting", "live"]


async def test_a_bug_does_not_end_the_room(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with on(Stage(partial(fail, after=1, error=ZeroDivisionError("a bug")))) as stage:
        stage.announce("a")
        await trio.sleep(5)
        (record,) = caplog.records
        assert (record.levelno, record.getMessage()) == (logging.ERROR, "The live stream of room room failed")
        assert "ZeroDivisionError: a bug" in caplog.text
        assert "Traceback" in caplog.text
        assert stage.told[-1] == ("failed", "an error in the server")
        assert b"ENDLIST" in stage.stream.playlist()
        assert (stage.writers[0].ends, stage.writers[0].finished) == (1, True)
        stage.script = play
        await trio.sleep(40)
        assert stage.users == ["a", "a"]
        assert stage.states == ["starting", "ended", "failed", "starting", "live"]
        assert len(caplog.records) == 1


# -- the end of the room ---


async def test_cancelled_at_any_moment(autojump_clock: MockClock) -> None:
    """While it starts, while it runs, restarts, waits for people to come back or for a failure to pass."""
    for tenths in range(0, 130, 3):
        stage = Stage(clean_up_seconds=0.5)
        with trio.move_on_after(tenths / 10) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stage.broadcast.run)
                stage.announce("a")
                await trio.sleep(2)
                stage.announce("ab")
                await trio.sleep(2)
                stage.announce()
                await trio.sleep(2)
                stage.script = partial(fail, after=1)
                stage.announce("b")
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert stage.active == []
        assert stage.most_active <= 1
        if tenths == 0:
            continue  # not even begun
        (writer,) = stage.writers
        assert stage.states[-1] == "ended"
        assert stage.stream.state == "ended"
        assert b"#EXT-X-ENDLIST" in stage.stream.playlist()
        assert (writer.ends, writer.finished) == (1, True)
        # Everything that there was went to the writer: segments begin where the one before ended, and none is left.
        parts = sum(len(segment.parts) for segment in writer.segments)
        assert parts == stage.stream.progress
        assert [segment.msn for segment in writer.segments] == list(range(len(writer.segments)))


async def test_the_room_ends_while_the_stream_has_ended_already(autojump_clock: MockClock) -> None:
    async with on(Stage()) as stage:
        stage.announce("a")
        await trio.sleep(5)
        stage.announce()
        await trio.sleep(20)
    assert stage.states == ["starting", "live", "ended"]


# -- whatever happens ---

SETS = st.sampled_from(["", "a", "ab", "abc", "b", "bc", "c", "ba"])
CHANGES = st.tuples(st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.5, 1.5, 4.0]), SETS)
#: How long a run lasts; None: until it is cancelled.
LIVES = st.sampled_from([None, None, 0.0, 0.3, 1.0, 25.0])


@given(changes=st.lists(CHANGES, max_size=20), lives=st.lists(LIVES, max_size=8), clean_up=st.sampled_from([0, 0.1, 1]))
@settings(max_examples=150, deadline=None)
def test_any_history(changes: list[tuple[float, str]], lives: list[float | None], clean_up: float) -> None:
    """One run at a time; none without a reason; and the last one, when all is quiet, is of those who are there."""
    rest = list(lives)

    async def live(run: FakeRun) -> None:
        run.show()
        await trio.sleep(float("inf") if not rest or (life := rest.pop(0)) is None else life)
        raise PipelineFailed("its time is over")

    async def history() -> None:
        async with on(Stage(live, clean_up_seconds=clean_up)) as stage:
            present = ""
            for pause, users in changes:
                await trio.sleep(pause)
                stage.announce(users)
                present = users
            await trio.sleep(300)  # longer than all failures that are to come, with their pauses
            assert "".join(run.users for run in stage.active) == present
            assert stage.states[-1:] == (["live"] if present else ["ended"] if stage.states else [])
            assert all(run.users for run in stage.runs)
            assert len(stage.runs) <= len(changes) + len(lives) - len(rest)
            for before, after in pairwise(stage.runs):
                assert before.ended <= after.began
            for state, following in pairwise(stage.states):
                assert following in FOLLOWING[state]
        assert stage.states[-1:] in ([], ["ended"])
        assert all(writer.ends == 1 and writer.finished for writer in stage.writers)

    trio.run(history, clock=MockClock(autojump_threshold=0))


#: What may come after each state.
FOLLOWING = {
    "starting": {"live", "failed", "ended"},
    "live": {"restarting", "failed", "ended"},
    "restarting": {"live", "failed", "ended"},
    "failed": {"restarting", "ended"},
    "ended": {"starting"},
}
