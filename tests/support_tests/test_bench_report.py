"""How results are written: tables, plots, and what people wrote around them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

import bench.__main__
from bench import report
from bench.plots import Plot
from bench.report import Section, markdown, put, write


def test_a_section_is_a_table_with_its_remarks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = Section("x", "Title", "python -m x", ("a", "b"), [("one", 1.234), (None, 250.4)], ["A remark."])
    text = markdown(section)
    assert text.startswith("## Title\n\n`python -m x`\n\n| a | b |\n|---|---|\n| one | 1.23 |\n| – | 250 |\n")
    assert text.endswith("- A remark.\n")
    write([section], tmp_path / "out.md")
    assert text in capsys.readouterr().out
    assert text.partition("`\n")[2] in (tmp_path / "out.md").read_text()


def test_a_plot_is_drawn_where_matplotlib_is_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    section = Section(
        "x", "Title", "x", (), [], plots=[Plot("T", "µs", bars={"a": 1.0}), Plot("T", "y", "x", lines={"l": [(1, 2)]})]
    )
    write([section], tmp_path / "out.md")
    assert {path.name for path in tmp_path.glob("plots/*.png")} == {"x.png", "x1.png"}
    assert "![T](plots/x1.png)" in (tmp_path / "out.md").read_text()


def test_a_block_is_put_between_its_marks_and_the_rest_stays() -> None:
    text = put(put("# By hand\n", "a", "one"), "b", "two")
    assert text == (
        "# By hand\n\n<!-- a: measured -->\none\n\n<!-- end of a -->\n\n"
        "<!-- b: measured -->\ntwo\n\n<!-- end of b -->\n"
    )
    text = text.replace("<!-- end of a -->", "<!-- end of a -->\n\nBy hand, too.")
    assert put(text, "a", "three\n") == text.replace("one", "three")
    assert put(text, "b", "two") == text


def test_a_mark_without_its_end_is_refused() -> None:
    with pytest.raises(ValueError, match="end of a"):
        put("<!-- a: measured -->\none\n", "a", "two")


def test_a_run_keeps_what_it_did_not_measure(tmp_path: Path) -> None:
    out = tmp_path / "out.md"
    write([Section("x", "First", "x", (), []), Section("y", "Second", "y", (), [])], out)
    write([Section("y", "Third", "y", (), [])], out)
    text = out.read_text()
    assert ["## First" in text, "## Second" in text, "## Third" in text] == [True, False, True]


def test_a_part_says_the_command_that_ran_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--many", nargs="+")

    arguments = ["--quick", "--out", str(tmp_path / "out.md"), "--many", "1", "2"]
    report.run(
        "part",
        "What it is.",
        options,
        lambda _: [Section("x", "Title", "python -m bench.part", (), [])],
        arguments,
    )
    assert "`python -m bench.part --quick --many 1 2`" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "recorded"), [([], True), (["--quick"], False)])
def test_a_full_run_is_the_record_and_a_quick_one_is_not(
    arguments: list[str], recorded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench.__main__, "RECORD", tmp_path / "RESULTS.md")
    monkeypatch.setattr(bench.__main__, "_sections", lambda _: [Section("x", "Title", "x", (), [])])
    assert bench.__main__.main(arguments) == 0
    assert (tmp_path / "RESULTS.md").exists() is recorded
