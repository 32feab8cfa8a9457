"""Rooms' names on disk, and files that are whole or not there."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.hls.files import MAX_NAME, room_name, write_all, write_whole


@pytest.mark.parametrize(
    ("room_id", "name"),
    [
        ("abc123", "abc123"),
        ("A_b-9", "A_b-9"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("../../etc/passwd", "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd"),
        ("%2E", "%252E"),
        ("a b\0", "a%20b%00"),
        ("C:\\", "C%3A%5C"),
        ("é", "%C3%A9"),
        ("\ud800", "%ED%A0%80"),
        ("x" * MAX_NAME, "x" * MAX_NAME),
    ],
)
def test_names(room_id: str, name: str) -> None:
    assert room_name(room_id) == name


def test_the_empty_id_has_no_name() -> None:
    with pytest.raises(ValueError, match="not empty"):
        room_name("")


def test_long_ids_that_begin_alike() -> None:
    assert room_name("😀" * 64) != room_name("😀" * 63 + "😁")


@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1), min_size=2, max_size=2, unique=True))
def test_names_stay_in_their_folder_and_differ(ids: list[str]) -> None:
    names = [room_name(each) for each in ids]
    assert all(re.fullmatch(r"[A-Za-z0-9_%~-]{1,200}", name) for name in names)
    assert names[0] != names[1]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"first")
    write_whole(path, b"2nd", sync=True)
    assert path.read_bytes() == b"2nd"
    assert os.listdir(tmp_path) == ["file"]


def test_what_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"first")

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_a_system_that_takes_a_byte_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: whole(descriptor, data[:1], offset))
    with open(path, "wb") as file:
        write_all(file.fileno(), b"abc", 2)
    assert path.read_bytes() == b"\0\0abc"
