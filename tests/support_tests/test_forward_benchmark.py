"""The forwarding benchmark still runs, and what it measures is whole: no figure of time is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import forward
from bench.forward import Result, row
from bench.load import Shape
from tests.support.server import running_server


@pytest.mark.parametrize(("profile", "shape"), [("gcm", "burst"), ("cm", "even")])
def test_a_short_run_delivers_everything(
    profile: str, shape: Shape, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    with running_server() as server:
        target = ["--url", server.url, "--pid", str(server.process.pid), "--json", str(report)]
        load = ["--consumers", "2", "--seconds", "0.4", "--warm-up", "0.2", "--profile", profile, "--shape", shape]
        status = forward.main([*target, *load])
    assert status == 0
    result = Result(**json.loads(report.read_text())["results"][0])
    assert row(result) in capsys.readouterr().out
    assert result.packets_in >= 390
    assert result.delivery_ratio == result.worst_consumer_ratio == 1.0
    assert result.packets_out == 2 * result.packets_in
    assert result.samples > 0
    assert result.bad_samples == result.duplicates == result.server_drops == result.generator_drops == 0
    assert result.cpu_total_us is not None
    assert result.memory_mib
