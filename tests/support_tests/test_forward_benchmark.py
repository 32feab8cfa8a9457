"""The forwarding benchmark still runs, and what it measures is whole: no figure of time is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import forward
from bench.cc import NoCompiler, compiled
from bench.result import Result
from tests.support.server import running_server


def _run(tmp_path: Path, *load: str) -> Result:
    report = tmp_path / "report.json"
    with running_server() as server:
        target = ["--url", server.url, "--pid", str(server.process.pid), "--json", str(report)]
        length = ["--seconds", "0.6", "--warm-up", "0.2", "--no-floor", "--no-limit"]
        assert forward.main([*target, *length, *load]) == 0
    return Result(**json.loads(report.read_text())["results"][0])


def _assert_whole(result: Result) -> None:
    assert result.delivery_ratio == result.worst_ratio == 1.0
    assert result.samples > 0
    assert result.bad_samples == result.duplicates == result.server_drops == result.generator_drops == 0
    assert result.latency_p99 is not None
    assert result.user is not None
    assert result.memory


@pytest.mark.parametrize(("profile", "shape"), [("gcm", "burst"), ("cm", "even")])
def test_a_short_run_of_the_generator_in_python_delivers_everything(
    profile: str, shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _run(tmp_path, "--consumers", "2", "--python", "--profile", profile, "--shape", shape)
    assert result.generator == "Python"
    assert "| 1 → 2 |" in capsys.readouterr().out
    _assert_whole(result)
    assert result.packets_in >= 590
    assert result.packets_out == 2 * result.packets_in


def test_a_short_run_of_the_compiled_generator_delivers_everything(tmp_path: Path) -> None:
    try:
        compiled("generator.c", shared=True, crypto=True)
    except NoCompiler as error:
        pytest.skip(str(error))
    result = _run(tmp_path, "--rooms", "1")
    assert result.generator == "C"
    _assert_whole(result)
    assert result.packets_in >= 4 * 300 * 0.5
    assert result.packets_out == 3 * result.packets_in
