"""Which windows count, what the floor's output says, how the limit is searched, and how results are written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.floor import FloorPair, parse_output
from bench.gauge import Gauge, GaugeReading, speed_between
from bench.limit import search
from bench.measure import Window, cost, kept
from bench.plots import Plot
from bench.report import Section, markdown, write


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


@pytest.mark.parametrize("limit", [80.0, 700.0, 1000.0, 4321.0])
def test_the_search_comes_within_three_per_cent_of_the_limit(limit: float) -> None:
    found = search(lambda rate: rate <= limit, 500.0)
    assert limit / 1.03 <= found <= limit


def test_the_search_gives_up_where_nothing_holds() -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return False

    assert search(holds, 800.0) == 0.0
    assert tried == [800.0, 100.0]


def test_a_section_is_a_table_with_its_remarks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = Section("x", "Title", "python -m x", ("a", "b"), [("one", 1.234), (None, 250.4)], ["A remark."])
    text = markdown(section)
    assert text.startswith("## Title\n\n`python -m x`\n\n| a | b |\n|---|---|\n| one | 1.23 |\n| – | 250 |\n")
    assert text.endswith("- A remark.\n")
    write([section], tmp_path / "out.md")
    assert text in capsys.readouterr().out
    assert text in (tmp_path / "out.md").read_text()


def test_a_plot_is_drawn_where_matplotlib_is_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    section = Section(
        "x", "Title", "x", (), [], plots=[Plot("T", "µs", bars={"a": 1.0}), Plot("T", "y", "x", lines={"l": [(1, 2)]})]
    )
    write([section], tmp_path / "out.md")
    assert {path.name for path in tmp_path.glob("*.png")} == {"x.png", "x1.png"}
    assert "![Title](x1.png)" in (tmp_path / "out.md").read_text()
