"""What a NACK generator asks for: tables as in mediasoup's TestNackGenerator, then time, bounds and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.media.nack import (
    DEFAULT_RTT,
    MAX_BEHIND,
    MAX_ENTRIES,
    MAX_JUMP,
    MAX_TRIES,
    QUICK_TRIES,
    NackGenerator,
)

T = 1000.0


class Row(NamedTuple):
    """A packet, what is to be asked for at once, and how many are missing then."""

    seq: int
    asked: Sequence[int] = ()
    missing: int = 0
    keyframe: bool = False
    needs_keyframe: bool = False


def wrapped(first: int, count: int) -> list[int]:
    return [(first + i) & 0xFFFF for i in range(count)]


TABLES = {
    "in order": [Row(seq) for seq in range(2371, 2381)],
    "in order, then old ones": [*(Row(seq) for seq in range(2371, 2381)), Row(2254), Row(2250), Row(2381)],
    "one missing": [Row(2381), Row(2383, [2382], 1)],
    "wrap-around without loss": [Row(65534), Row(65535), Row(0), Row(1)],
    "one missing after the wrap-around": [Row(65534), Row(65535), Row(1, [0], 1)],
    "one missing before the wrap-around": [Row(65534), Row(0, [65535], 1)],
    "missing on both sides of it": [Row(65533), Row(2, [65534, 65535, 0, 1], 4), Row(3, [], 4)],
    "and more": [
        Row(65534),
        Row(65535),
        Row(1, [0], 1),
        Row(11, range(2, 11), 10),
        Row(12, [], 10, keyframe=True),
        Row(13, [], 10, keyframe=True),
    ],
    "every other": [Row(1), Row(3, [2], 1), Row(5, [4], 2), Row(7, [6], 3), Row(9, [8], 4)],
    "uneven": [Row(1), Row(3, [2], 1), Row(7, [4, 5, 6], 4), Row(9, [8], 5)],
    "many": [Row(1), Row(300, range(2, 300), 298), Row(3, [], 297), Row(4, [], 296), Row(5, [], 295)],
    "come back across the wrap-around": [
        Row(65534),
        Row(2, [65535, 0, 1], 3),
        Row(0, [], 2),
        Row(65535, [], 1),
        Row(65535, [], 1),
        Row(3, [], 1),
        Row(1, [], 0),
    ],
    "twice the same": [Row(5), Row(5), Row(6), Row(6), Row(8, [7], 1), Row(8, [], 1), Row(7), Row(7), Row(9)],
    "before the first": [Row(0), Row(65535), Row(65530), Row(1)],
    "a jump that just is loss": [
        Row(1),
        Row(MAX_JUMP + 2, range(2, MAX_JUMP + 2), MAX_JUMP),
        Row(MAX_JUMP + 3, [], MAX_JUMP),
    ],
    "a jump that is too large": [
        Row(1),
        Row(MAX_JUMP + 3, needs_keyframe=True),
        Row(MAX_JUMP + 4, needs_keyframe=True),
    ],
    "the same across the wrap-around": [
        Row(65000),
        Row(464 + MAX_JUMP + 1 - MAX_JUMP, wrapped(65001, 1000), 1000),
        Row(5000, needs_keyframe=True),
    ],
    "a jump to a keyframe": [Row(1), Row(3000, keyframe=True), Row(3001)],
    "a jump, then a keyframe": [Row(1), Row(3000, needs_keyframe=True), Row(3001, keyframe=True)],
    "a jump forgets what was missing": [
        Row(1),
        Row(3, [2], 1),
        Row(3000, needs_keyframe=True),
        Row(2, needs_keyframe=True),
    ],
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("shift", [0, 1, 62000, 65535])
def test_tables(table: list[Row], shift: int) -> None:
    """Each table as it is written, and moved along the number space so that every step crosses the wrap-around once."""
    nack = NackGenerator("video")
    for row in table:
        asked = nack.on_packet((row.seq + shift) & 0xFFFF, T, keyframe=row.keyframe)
        assert asked == tuple((seq + shift) & 0xFFFF for seq in row.asked), row
        assert nack.pending == row.missing, row
        assert nack.needs_keyframe is row.needs_keyframe, row


def missing(*seqs: int, kind: Literal["audio", "video"] = "video", now: float = T) -> NackGenerator:
    """A generator that has just found these missing."""
    nack = NackGenerator(kind)
    nack.on_packet((seqs[0] - 1) & 0xFFFF, now, keyframe=False)
    last = seqs[0]
    for i in range(1, ((seqs[-1] + 1 - seqs[0]) & 0xFFFF) + 1):
        last = (seqs[0] + i) & 0xFFFF
        if last not in seqs:
            nack.on_packet(last, now, keyframe=False)
    assert nack.pending == len(seqs)
    return nack


def test_the_fast_path_makes_no_object() -> None:
    nack = NackGenerator("video")
    assert nack.on_packet(1, T, keyframe=True) is nack.on_packet(2, T, keyframe=False) is nack.due(T, 0.1)


def test_a_retry_is_due_after_the_round_trip_time() -> None:
    nack = missing(65535, 1)
    assert nack.due(T, 0.25) == ()
    assert nack.due(T + 0.24, 0.25) == ()
    assert nack.due(T + 0.25, 0.25) == (65535, 1)
    assert nack.due(T + 0.25, 0.25) == ()
    assert nack.due(T + 0.5, 0.25) == (65535, 1)
    nack.on_packet(65535, T + 0.6, keyframe=False)
    assert nack.due(T + 0.75, 0.25) == (1,)
    nack.on_packet(1, T + 0.8, keyframe=False)
    assert nack.due(T + 1, 0.25) == ()
    assert (nack.requested, nack.recovered, nack.given_up) == (2 + 2 + 2 + 1, 2, 0)


def test_each_has_its_own_time() -> None:
    nack = missing(5)
    nack.on_packet(8, T + 0.125, keyframe=False)
    assert nack.due(T + 0.25, 0.25) == (5,)
    assert nack.due(T + 0.375, 0.25) == (7,)
    assert nack.due(T + 0.5, 0.25) == (5,)


@pytest.mark.parametrize(
    ("rtt", "interval"), [(0.0, DEFAULT_RTT), (0.001, 0.02), (0.02, 0.02), (0.05, 0.05), (0.5, 0.5)]
)
def test_the_interval(rtt: float, interval: float) -> None:
    nack = missing(5)
    assert nack.due(T + interval - 0.001, rtt) == ()
    assert nack.due(T + interval + 0.001, rtt) == (5,)


@pytest.mark.parametrize("rtt", [0.01, 0.02, 0.1, 0.15])
def test_given_up_after_ten_tries(rtt: float) -> None:
    nack = missing(5)
    tries = [T]
    now = T
    while nack.pending:
        now += 0.001
        if nack.due(now, rtt):
            tries.append(now)
    assert len(tries) == MAX_TRIES == 10
    assert nack.given_up == 1
    # Where round trips are short the later ones are spread out; the last one has its time to be answered too.
    intervals = [after - before for before, after in pairwise([*tries, now])]
    assert intervals[: QUICK_TRIES - 1] == pytest.approx([max(rtt, 0.02)] * (QUICK_TRIES - 1), abs=0.0015)
    assert intervals[QUICK_TRIES - 1 :] == pytest.approx([max(rtt, 0.1)] * (11 - QUICK_TRIES), abs=0.0015)


def test_an_outage_outlasts_quick_retries() -> None:
    """Nothing comes through for half a second on a path of 20 ms: what is missing is still asked for after it."""
    nack = missing(5)
    now = T
    while now < T + 0.5:
        now += 0.02
        nack.due(now, 0.02)
    assert 5 in nack
    assert nack.due(now + 0.1, 0.02) == (5,)


@pytest.mark.parametrize(("kind", "limit"), [("video", 2.0), ("audio", 1.0)])
def test_given_up_by_age(kind: Literal["audio", "video"], limit: float) -> None:
    nack = missing(5, kind=kind)
    assert nack.due(T + limit - 0.25, 0.5) == (5,)
    assert nack.due(T + limit, 0.125) == ()
    assert nack.pending == 0
    assert nack.given_up == 1
    assert not nack.needs_keyframe


def test_given_up_is_not_recovered() -> None:
    nack = missing(5)
    nack.due(T + 3, 0.1)
    assert nack.on_packet(5, T + 3, keyframe=False) == ()
    assert nack.recovered == 0


# The bound.


def lose(nack: NackGenerator, after: int, count: int, *, keyframe: bool = False, now: float = T) -> tuple[int, int]:
    """Lose ``count`` packets after ``after``; the next one's number, and how many were asked for."""
    seq = (after + count + 1) & 0xFFFF
    return seq, len(nack.on_packet(seq, now, keyframe=keyframe))


@pytest.mark.parametrize("start", [0, 64000, 65535])
def test_a_full_list_is_cleared(start: int) -> None:
    nack = NackGenerator("video")
    nack.on_packet(start, T, keyframe=False)
    seq, asked = lose(nack, start, 600)
    assert asked == 600
    seq, asked = lose(nack, seq, 400)
    assert (asked, nack.pending, nack.needs_keyframe) == (400, MAX_ENTRIES, False)
    seq, asked = lose(nack, seq, 1)
    assert (asked, nack.pending, nack.needs_keyframe) == (0, 0, True)
    assert nack.given_up == MAX_ENTRIES + 1
    # It goes on from there.
    seq, asked = lose(nack, seq, 1)
    assert (asked, nack.pending, nack.needs_keyframe) == (1, 1, True)
    nack.on_packet((seq + 1) & 0xFFFF, T, keyframe=True)
    assert nack.needs_keyframe is False


@pytest.mark.parametrize("start", [0, 64000, 65535])
def test_a_full_list_loses_what_is_before_the_keyframe(start: int) -> None:
    nack = NackGenerator("video")
    nack.on_packet(start, T, keyframe=False)
    seq, _ = lose(nack, start, 600)
    seq, _ = lose(nack, seq, 100, keyframe=True)
    seq, _ = lose(nack, seq, 250)
    seq, asked = lose(nack, seq, 51)
    assert (asked, nack.pending, nack.needs_keyframe) == (51, 301, False)
    assert nack.given_up == 700


def test_a_keyframe_may_itself_make_the_room() -> None:
    nack = NackGenerator("video")
    nack.on_packet(0, T, keyframe=False)
    seq, _ = lose(nack, 0, 1000)
    seq, asked = lose(nack, seq, 10, keyframe=True)
    assert (asked, nack.pending, nack.needs_keyframe) == (10, 10, False)


def test_where_the_keyframe_does_not_help_all_is_cleared() -> None:
    nack = NackGenerator("video")
    nack.on_packet(0, T, keyframe=False)
    seq, _ = lose(nack, 0, 10)
    seq, _ = lose(nack, seq, 10, keyframe=True)
    seq, _ = lose(nack, seq, 900)
    seq, asked = lose(nack, seq, 101)
    assert (asked, nack.pending, nack.needs_keyframe) == (0, 0, True)


def test_an_old_keyframe_does_not_count() -> None:
    """Its number may have wrapped around, and what is missing from before it has been given up."""
    nack = NackGenerator("video")
    nack.on_packet(0, T, keyframe=True)
    seq, _ = lose(nack, 0, 600, now=T + 3)
    seq, asked = lose(nack, seq, 500, now=T + 3)
    assert (asked, nack.pending, nack.needs_keyframe) == (0, 0, True)


def test_a_keyframe_that_came_back_counts() -> None:
    nack = NackGenerator("video")
    nack.on_packet(0, T, keyframe=False)
    seq, _ = lose(nack, 0, 600)
    seq, _ = lose(nack, seq, 1)
    nack.on_packet(seq - 1, T, keyframe=True)
    seq, asked = lose(nack, seq, 500)
    assert (asked, nack.pending, nack.needs_keyframe) == (500, 500, False)


def test_an_older_keyframe_that_came_back_does_not_replace_the_newest() -> None:
    nack = NackGenerator("video")
    nack.on_packet(0, T, keyframe=False)
    seq, _ = lose(nack, 0, 600)
    seq, _ = lose(nack, seq, 100, keyframe=True)
    nack.on_packet(1, T, keyframe=True)
    seq, asked = lose(nack, seq, 500)
    assert (asked, nack.pending, nack.needs_keyframe) == (500, 500, False)


def test_audio_needs_no_keyframe() -> None:
    nack = NackGenerator("audio")
    nack.on_packet(0, T, keyframe=False)
    seq, _ = lose(nack, 0, 1000)
    seq, asked = lose(nack, seq, 1)
    assert (asked, nack.pending, nack.needs_keyframe) == (0, 0, False)
    lose(nack, seq, 5000)
    assert nack.needs_keyframe is False
    assert nack.resets == 1


# Restarts of the sender.


@pytest.mark.parametrize("start", [0, 5000, 60000])
@pytest.mark.parametrize("step", [MAX_JUMP + 2, 20000, 32767])
def test_a_restart_ahead(start: int, step: int) -> None:
    nack = NackGenerator("video")
    nack.on_packet(start, T, keyframe=False)
    seq = (start + step) & 0xFFFF
    assert nack.on_packet(seq, T, keyframe=False) == ()
    assert (nack.resets, nack.needs_keyframe) == (1, True)
    assert nack.on_packet((seq + 2) & 0xFFFF, T, keyframe=True) == ((seq + 1) & 0xFFFF,)
    assert nack.needs_keyframe is False


@pytest.mark.parametrize("start", [0, 5000, 60000])
@pytest.mark.parametrize("step", [MAX_BEHIND + 1, 20000, 32767])
def test_a_restart_behind_shows_with_the_second_packet(start: int, step: int) -> None:
    nack = NackGenerator("video")
    nack.on_packet(start, T, keyframe=False)
    seq = (start - step) & 0xFFFF
    nack.on_packet(seq, T, keyframe=False)
    assert (nack.resets, nack.needs_keyframe) == (0, False)
    nack.on_packet((seq + 1) & 0xFFFF, T, keyframe=False)
    assert (nack.resets, nack.needs_keyframe) == (1, True)
    assert nack.on_packet((seq + 3) & 0xFFFF, T, keyframe=False) == ((seq + 2) & 0xFFFF,)


def test_a_single_stray_packet_is_no_restart() -> None:
    nack = NackGenerator("video")
    nack.on_packet(10000, T, keyframe=False)
    nack.on_packet(1000, T, keyframe=False)
    nack.on_packet(10001, T, keyframe=False)
    nack.on_packet(1000, T, keyframe=False)
    nack.on_packet(900, T, keyframe=False)
    assert nack.on_packet(10003, T, keyframe=False) == (10002,)
    nack.on_packet(901, T, keyframe=False)
    assert nack.resets == 0
    # A stray one ahead is taken for a restart; so is the stream's return.
    nack.on_packet(20000, T, keyframe=False)
    nack.on_packet(10004, T, keyframe=False)
    nack.on_packet(10005, T, keyframe=False)
    assert nack.resets == 2
    assert nack.on_packet(10007, T, keyframe=False) == (10006,)


def test_reset() -> None:
    nack = missing(5)
    nack.reset()
    assert nack.pending == 0
    assert nack.on_packet(600, T, keyframe=False) == ()
    assert nack.on_packet(602, T, keyframe=False) == (601,)


@given(
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(-40, 60), st.booleans(), st.integers(0, 30)), max_size=120),
)
def test_against_a_model(start: int, steps: list[tuple[int, bool, int]]) -> None:
    """With extended numbers the model is a set: what is skipped is asked for at once and stays until it comes."""
    nack = NackGenerator("video")
    base = 0x100000 + start
    highest = base
    assert nack.on_packet(base & 0xFFFF, T, keyframe=True) == ()
    absent: set[int] = set()
    now = T
    for step, keyframe, wait in steps:
        sequence = highest + step
        asked = nack.on_packet(sequence & 0xFFFF, now, keyframe=keyframe)
        if sequence > highest:
            fresh = range(highest + 1, sequence)
            highest = sequence
        else:
            fresh = range(0)
            absent.discard(sequence)
        if len(absent) + len(fresh) > MAX_ENTRIES:
            return
        absent.update(fresh)
        assert asked == tuple(s & 0xFFFF for s in fresh)
        assert nack.pending == len(absent)
        now += wait / 10000
        again = nack.due(now, 0.02)
        assert set(again) <= {s & 0xFFFF for s in absent}
        ahead = [(s - highest) & 0xFFFF for s in again]
        assert ahead == sorted(set(ahead))
    assert not nack.needs_keyframe
