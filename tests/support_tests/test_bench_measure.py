"""Which windows count, and what the floor's output says."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import pytest

from bench.cases import FULL, SHARED_RATE
from bench.floor import FloorPair, parse_output
from bench.gauge import Gauge, GaugeReading, speed_between
from bench.measure import Window, cost, kept
from bench.result import HEADER, Result, remarks, row, steady


def test_windows_in_which_the_core_was_slow_do_not_count() -> None:
    fast = [Window(0.1, 1000, 100.0) for _ in range(5)]
    slow = [Window(0.2, 1000, 60.0) for _ in range(4)]
    assert kept([*slow, *fast]) == fast
    found = cost([*slow, *fast])
    assert found is not None
    assert found.median == pytest.approx(100.0)
    assert (found.kept, found.total) == (5, 9)


def test_windows_of_a_core_too_busy_for_the_gauge_all_count() -> None:
    windows = [Window(0.1, 1000), Window(0.3, 1000), Window(0.2, 1000)]
    found = cost(windows)
    assert found is not None
    assert found.median == pytest.approx(200.0)
    assert found.speed is None


def test_a_run_without_packets_has_no_cost() -> None:
    assert cost([Window(0.1, 0, 100.0)]) is None


def test_a_gauge_that_got_no_time_says_nothing() -> None:
    assert speed_between(GaugeReading(5, 1.0), GaugeReading(6, 1.001)) is None
    assert speed_between(GaugeReading(5, 1.0), GaugeReading(15, 1.5)) == pytest.approx(20.0)


@pytest.mark.parametrize("compiler", ["none", "cc"])
def test_the_gauge_spins_with_and_without_a_compiler(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CC", compiler)
    with Gauge(min(os.sched_getaffinity(0))) as gauge:
        before = gauge.read()
        deadline = time.monotonic() + 10
        while gauge.read().rounds <= before.rounds:
            assert time.monotonic() < deadline
    assert before.rounds > 0


def test_the_floor_reads_what_its_program_prints() -> None:
    text = "window 50000000 25000\nwindow 60000000 25000\ntotal 10000 200000 50000 49999\n"
    windows, user, system, out, delivered = parse_output(text, [1.0, 2.0])
    assert [window.cost for window in windows] == [pytest.approx(2.0), pytest.approx(2.4)]
    assert [window.speed for window in windows] == [1.0, 2.0]
    assert (user, system, out, delivered) == (0.01, 0.2, 50000, 49999)
    with pytest.raises(ValueError, match="without its total"):
        parse_output("window 1 1\n", [])


def test_without_a_floor_there_is_no_multiple() -> None:
    assert FloorPair(None, None).multiple(3.0) is None
    assert FloorPair(2.0, 1.0).multiple(3.0) == 1.5
    assert FloorPair(2.0, 1.0).multiple_of_segmented(3.0) == 3.0


def test_user_and_system_add_up_to_the_median() -> None:
    values: dict[str, Any] = {field.name: None for field in dataclasses.fields(Result)}
    values |= {"packets_timely": 10, "seconds": 1.0, "delivery_ratio": 1.0, "case": "x"}
    result = Result(**(values | {"median": 4.0, "user": 6.0, "system": 2.0}))
    shown = dict(zip(HEADER, row(result, FloorPair(None, None)), strict=True))
    assert (shown["user"], shown["system"]) == (3.0, 1.0)


def test_a_rate_beyond_one_core_is_said_to_be_no_measure() -> None:
    values: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(Result)} | {"case": "x", "server": "janus"}
    beyond, fine = (Result(**(values | {"delivery_ratio": ratio, "server_cpu_share": 0.98})) for ratio in (0.4, 1.0))
    assert any("more than one core carries" in said for said in remarks(beyond))
    assert remarks(fine) == []


def test_the_cases_of_a_full_run_are_within_what_a_core_carries() -> None:
    assert max(case.packets_out for case in FULL) < 200_000
    assert {case.receivers for case in FULL if case.video == SHARED_RATE} == {50, 200, 499}
    assert len({case.name for case in FULL}) == len(FULL)


def test_a_run_in_which_the_generator_was_late_is_made_again() -> None:
    values: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(Result)}
    late, later, fine = (Result(**(values | {"latest_burst": seconds})) for seconds in (0.2, 2.0, 0.01))
    runs = iter([fine, late, fine, late, later])
    assert steady(lambda: next(runs)) is fine
    assert steady(lambda: next(runs)) is fine
    assert steady(lambda: next(runs)) is late
