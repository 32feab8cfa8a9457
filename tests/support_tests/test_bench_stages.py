"""The stages' table against the server's source, and what a stack belongs to."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import trio_sfu
from bench.stage_table import ABOVE, FILES, FUNCTIONS, STAGES, place, stage_of
from bench.stages import table

PACKAGE = Path(trio_sfu.__file__).parent


@pytest.mark.parametrize(("name", "function"), sorted([*ABOVE, *FUNCTIONS]))
def test_every_function_of_the_table_is_there(name: str, function: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function in found


def test_every_file_and_stage_of_the_table_is_there() -> None:
    assert [name for name in FILES if not (PACKAGE / name).exists()] == []
    assert {*ABOVE.values(), *FUNCTIONS.values(), *FILES.values()} <= set(STAGES)


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        ([("transport/mmsg.py", "flush"), ("transport/udp.py", "flush")], "send"),
        ([("transport/srtp.py", "protect_run"), ("media/consumer.py", "forward")], "protect"),
        ([("", "unpack"), ("wire/rtp.py", "parse")], "parse"),
        ([("transport/mmsg.py", "flush"), ("media/rtp_session.py", "receive_rtcp")], "RTCP in"),
        ([("media/packet.py", "x"), ("media/consumer.py", "on_nack"), ("media/rtp_session.py", "tick")], "timers"),
        ([("trio", "unrolled_run"), ("__main__.py", "main")], "trio"),
        ([("signalling/http.py", "x")], "signalling"),
        ([("", "x")], "other"),
    ],
)
def test_the_innermost_known_function_decides(frames: list[tuple[str, str]], stage: str) -> None:
    assert stage_of(frames) == stage


def test_a_place_is_below_the_package() -> None:
    assert place("/x/site-packages/trio_sfu/media/packet.py") == "media/packet.py"
    assert place("/x/site-packages/trio/_core/_run.py") == "trio"
    assert place("/usr/lib/python3.11/json/__init__.py") == ""


def test_rows_add_up_to_the_cost() -> None:
    rows = table({"send": 30, "protect": 10}, 4.0, {"send": "much"})
    assert rows == [("protect", "25.0%", 1.0, ""), ("send", "75.0%", 3.0, "much"), ("all", "100.0%", 4.0, "40 samples")]
