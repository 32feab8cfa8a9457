"""The garbage collector's benchmark: what it notes, and that its server leaves the collector alone."""

from __future__ import annotations

import gc
import json
import signal
from pathlib import Path

import pytest

from bench import collector
from bench.cases import rooms_of_four
from bench.cc import NoCompiler, compiled
from bench.collector_server import Pauses
from bench.trial import Plan


def test_collections_are_noted_by_generation(tmp_path: Path) -> None:
    pauses = Pauses(tmp_path / "x.json")
    pauses._toggle(signal.SIGUSR1, None)
    gc.callbacks.append(pauses.note)
    try:
        gc.collect(0)
        gc.collect(2)
    finally:
        gc.callbacks.remove(pauses.note)
    pauses._toggle(signal.SIGUSR1, None)
    written = json.loads((tmp_path / "x.json").read_text())
    assert written == [list(each) for each in pauses.seconds]
    assert len(written[0]) >= 1
    assert len(written[2]) == 1


def test_both_ways_run() -> None:
    try:
        compiled("generator.c", shared=True, crypto=True)
    except NoCompiler as error:
        pytest.skip(str(error))
    case, plan = rooms_of_four(1), Plan(seconds=0.6, warm_up=0.2)
    found = {way: collector.measure_once(way, case, plan) for way in collector.WAYS}
    assert all(each.result.delivery_ratio == 1.0 for each in found.values())
    young = {way: len(each.pauses[0]) for way, each in found.items()}
    assert young["plain"] > young["tuned"]
    assert collector.row(case, "plain", [found["plain"]])[:2] == ("1 rooms of 4", "as Python leaves it")
