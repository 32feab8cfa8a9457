"""FFmpeg as a process: started, read from, ended and reaped, whatever it does and however we end."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.until import until
from trio_sfu.hls.ffmpeg import FfmpegMissing, FfmpegProcess, find_ffmpeg

STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, 1); print('ready', flush=True); time.sleep(60)",
]


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_it_runs_and_is_reaped() -> None:
    process = FfmpegProcess.launch(
        [find_ffmpeg(None), "-v", "error", "-f", "lavfi", "-i", "nullsrc=d=60:r=1", "-f", "null", "-"]
    )
    assert process.returncode is None
    await process.stop(5)
    assert not alive(process.pid)
    assert process.returncode is not None


async def test_output_comes_to_its_end() -> None:
    process = FfmpegProcess.launch(shell("printf hello; exit 3"))
    output = b""
    while piece := await process.receive_output():
        output += piece
    assert output == b"hello"
    assert await process.wait() == 3
    assert await process.stop(1) == 3


async def test_what_ignores_sigterm_is_killed() -> None:
    process = FfmpegProcess.launch(STUBBORN)
    output = b""
    while output != b"ready\n":
        output += await process.receive_output()
    assert await process.stop(0.05) == -signal.SIGKILL
    assert not alive(process.pid)


async def test_stopping_twice_and_after_the_end() -> None:
    before = open_fds()
    process = FfmpegProcess.launch(shell("exit 0"))
    assert await process.wait() == 0
    assert await process.stop(1) == 0
    assert await process.stop(1) == 0
    assert open_fds() == before


async def test_its_errors_are_logged_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = (
        "echo '[warning] odd' >&2; echo '[error] bad' >&2; printf '[fatal] worse\\r' >&2; printf '[error] last' >&2"
    )
    process = FfmpegProcess.launch(shell(script))
    await process.drain_errors()
    assert process.last_lines == "[error] bad / [fatal] worse / [error] last"
    levels = {record.getMessage().partition(": ")[2]: record.levelname for record in caplog.records}
    assert levels == {
        "[warning] odd": "DEBUG", "[error] bad": "WARNING", "[fatal] worse": "WARNING", "[error] last": "WARNING",
    }  # fmt: skip
    await process.stop(1)


async def test_a_flood_of_errors_is_read_and_not_all_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    process = FfmpegProcess.launch(
        shell("i=0; while [ $i -lt 5000 ]; do echo '[error] x' >&2; i=$((i+1)); done; printf %9999s y >&2")
    )
    await process.drain_errors()
    assert len(caplog.records) == 21
    assert len(process.last_lines) < 12 * 510
    await process.stop(1)


async def test_it_is_told_what_to_do() -> None:
    process = FfmpegProcess.launch(shell("read line; echo $line; read line; echo $line"), commanded=True)
    assert process.command("first one\n")
    assert process.command("second one\n")
    output = b""
    while piece := await process.receive_output():
        output += piece
    assert output == b"first one\nsecond one\n"
    await process.wait()
    assert not process.command("nobody listens\n")
    await process.stop(1)
    assert not process.command("nobody is there\n")


async def test_one_that_reads_no_commands_holds_nobody_up() -> None:
    before = open_fds()
    process = FfmpegProcess.launch(shell("exec sleep 60"), commanded=True)
    line = "x" * 999 + "\n"
    written = 0
    while process.command(line):
        written += 1
        assert written < 10_000
    assert written > 0
    assert not process.command(line)
    await process.stop(5)
    assert open_fds() == before


@pytest.mark.parametrize("line", ["", "no end", "two\nlines\n", "x" * 5000 + "\n"])
async def test_what_is_no_command(line: str) -> None:
    process = FfmpegProcess.launch(shell("exec sleep 60"), commanded=True)
    with pytest.raises(ValueError, match="not a command"):
        process.command(line)
    await process.stop(5)


async def test_without_commands_it_has_no_input() -> None:
    process = FfmpegProcess.launch(shell("cat; echo end"))
    assert await process.receive_output() == b"end\n"
    await process.stop(1)


async def test_it_cannot_be_started() -> None:
    before = open_fds()
    with pytest.raises(OSError, match="No such file"):
        FfmpegProcess.launch(["/nowhere/ffmpeg"])
    assert open_fds() == before


def test_a_missing_program_is_told_apart() -> None:
    assert find_ffmpeg("sh").endswith("/sh")
    with pytest.raises(FfmpegMissing, match="--ffmpeg"):
        find_ffmpeg("no-such-ffmpeg")


async def test_it_dies_with_us() -> None:
    # A process of its own starts one, says which, and is killed.
    script = (
        "import sys, time; from trio_sfu.hls.ffmpeg import FfmpegProcess\n"
        "import trio\n"
        "async def main():\n"
        "    print(FfmpegProcess.launch(['sleep', '60']).pid, flush=True)\n"
        "    await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:  # noqa: ASYNC220
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
    await until(lambda: not alive(pid))
