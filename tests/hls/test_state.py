"""What a killed server leaves behind, and what the next one makes of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.hls.state import STATE_FILE, RunFolder, RunState, load, save

STATE = RunState(
    room_id="room", ffmpeg_pid=4711, ports=(20_000, 20_002), producers=("a", "v"), started_at=1.5e9, restarts=2
)


def stat_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def name_of(pid: int) -> str:
    """The folder's name, for a process that runs."""
    return f"{pid}-{stat_of(pid)[19]}"


@contextmanager
def sleeper(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with these on its command line."""
    with subprocess.Popen([sys.executable, "-c", "input()", *arguments], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def dead_name() -> str:
    """The folder's name of a process that has ended."""
    with sleeper() as process:
        return name_of(process.pid)


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / STATE_FILE
    save(path, STATE)
    assert load(path) == STATE
    assert os.listdir(tmp_path) == [STATE_FILE]


def test_nothing_to_load(tmp_path: Path) -> None:
    assert load(tmp_path / STATE_FILE) is None
    assert load(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 200,
        b"{}",
        b"[1]",
        b'{"room_id": "r", "ffmpeg_pid": "1", "ports": [], "producers": [], "started_at": 1}',
        b'{"room_id": "\xff", "ffmpeg_pid": 1, "ports": [], "producers": [], "started_at": 1}',
        b'{"x": ' + b"[" * 100_000,
        b"[" * 3_000_000,
    ],
)
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    assert load(tmp_path / STATE_FILE) is None


@given(content=st.binary(max_size=300), cut=st.integers(0, 300))
def test_any_bytes(content: bytes, cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / STATE_FILE
    save(path, STATE)
    path.write_bytes(path.read_bytes()[:cut] + content)
    assert isinstance(load(path), RunState | None)


def test_a_file_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / STATE_FILE
    save(path, STATE)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert load(path) is None


def test_the_folder_is_private_and_goes_away(tmp_path: Path) -> None:
    base = tmp_path / "some" / "base"
    with RunFolder(base) as folder:
        assert folder.path == base / name_of(os.getpid())
        room = folder.room("../x")
        assert folder.room("../x") == room
        assert room.parent == folder.path
        room.mkdir()
        assert [oct(each.stat().st_mode & 0o777) for each in (base, folder.path)] == ["0o700"] * 2
        save(room / STATE_FILE, STATE)
    assert list(base.iterdir()) == []


def test_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with RunFolder() as folder:
        assert folder.path.parent == tmp_path / f"trio-sfu-{os.geteuid()}"


def test_a_place_that_others_can_write_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="only this user can write to"), RunFolder(tmp_path):
        pass
    tmp_path.chmod(0o700)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="link is not a folder"), RunFolder(tmp_path / "link"):
        pass


def test_folders_of_the_dead_are_swept(tmp_path: Path) -> None:
    dead = dead_name()
    with sleeper() as process:
        alive = name_of(process.pid)
        reused = f"{process.pid}-{int(stat_of(process.pid)[19]) - 1}"  # its id was another's before
        for name in (dead, alive, reused, "notes"):
            (tmp_path / name / "room").mkdir(parents=True)
            (tmp_path / name / "room" / "stream.sdp").touch()
        with RunFolder(tmp_path) as folder:
            assert {each.name for each in tmp_path.iterdir()} == {alive, "notes", folder.path.name}
            assert (tmp_path / alive / "room" / "stream.sdp").exists()


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    with sleeper() as process:
        name = name_of(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped
        (tmp_path / name).mkdir()
        with RunFolder(tmp_path):
            assert not (tmp_path / name).exists()


def test_what_a_killed_server_left_running_is_ended(tmp_path: Path) -> None:
    room = tmp_path / dead_name() / "room"
    room.mkdir(parents=True)
    with sleeper(f"{room}/stream.sdp") as left, sleeper(f"{room}/stream.sdp") as unnamed, sleeper("other") as other:
        for process, name in ((left, "room"), (other, "other")):
            (room.parent / name).mkdir(exist_ok=True)
            save(
                room.parent / name / STATE_FILE,
                RunState(room_id=name, ffmpeg_pid=process.pid, ports=(), producers=(), started_at=0.0),
            )
        (room.parent / "damaged").mkdir()
        (room.parent / "damaged" / STATE_FILE).write_bytes(b"{")
        with RunFolder(tmp_path):
            assert left.wait(timeout=30) == -signal.SIGKILL
            assert not room.parent.exists()
        assert unnamed.poll() is None
        assert other.poll() is None  # its id is in the file, but it is another process


@pytest.mark.parametrize("pid", [-1, 0, 1, 2**70])
def test_impossible_process_ids(pid: int, tmp_path: Path) -> None:
    room = tmp_path / dead_name() / "room"
    room.mkdir(parents=True)
    state = RunState(room_id="room", ffmpeg_pid=4711, ports=(), producers=(), started_at=0.0)
    save(room / STATE_FILE, state)
    path = room / STATE_FILE
    path.write_bytes(path.read_bytes().replace(b"4711", str(pid).encode()))
    with RunFolder(tmp_path):
        assert not room.exists()
