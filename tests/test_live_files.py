"""What a real server process writes of its live streams, and what is there when it has been told to end."""

from contextlib import ExitStack, closing
from pathlib import Path

import av
import trio

from tests.support.http_client import fetch
from tests.support.live_users import SMALL, children, eventually, ffmpegs, gone, live_user
from tests.support.server import running_server

SHORT = (*SMALL, "--hls-segment", "1")


def decoded(path: Path) -> tuple[int, float]:
    """How many pictures, and how many seconds of sound; raises where it does not decode."""
    with closing(av.open(str(path))) as container:
        pictures = sum(1 for _ in container.decode(video=0))
    with closing(av.open(str(path))) as container:
        sound = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return pictures, sound


def files_of(playlist: Path) -> list[Path]:
    """What an ended playlist names, in its order; all of it is there."""
    lines = playlist.read_text().splitlines()
    assert lines[-1] == "#EXT-X-ENDLIST"
    names = [line.split('"')[1] if line.startswith("#EXT-X-MAP") else line for line in lines]
    return [playlist.parent / name for name in names if not name.startswith("#")]


async def test_the_end_of_the_server(tmp_path: Path) -> None:
    folder, records = tmp_path / "hls", tmp_path / "records"
    with ExitStack() as running:
        server = running.enter_context(
            running_server(*SHORT, "--hls-dir", str(folder), "--record-dir", str(records), hls=True)
        )
        async with live_user(server.url) as one, live_user(server.url) as other:
            for user in (one, other):
                await user.produce()
            playlists = [folder / user.room_id / "index.m3u8" for user in (one, other)]
            await eventually(lambda: all(path.exists() for path in playlists))
            processes = ffmpegs(server)
            assert len(processes) == 2
            # SIGTERM, and status 0 within its time: running_server asserts it.
            await trio.to_thread.run_sync(running.close)
            with trio.fail_after(5):
                for user in (one, other):
                    await user.user.socket.closed.wait()
    assert all(gone(each.pid) and not each.sdp.exists() for each in processes)
    assert [line for line in server.log if " INFO " not in line and "kernel granted" not in line] == []
    for playlist in playlists:
        (recording,) = (records / playlist.parent.name).glob("*/*.mp4")
        whole = b"".join(file.read_bytes() for file in files_of(playlist))
        assert recording.read_bytes() == whole, "both are all that there was"
        pictures, seconds = decoded(recording)
        assert pictures >= 10
        assert seconds > 0.5


async def test_nothing_can_be_written(tmp_path: Path) -> None:
    """Whoever watches does not notice."""
    file = tmp_path / "file"
    file.write_text("")
    with running_server(*SHORT, "--hls-dir", str(file), "--record-dir", str(file / "below"), hls=True) as server:
        async with live_user(server.url) as user:
            await user.produce()
            before = await user.is_live()
            await eventually(lambda: server.metrics()["trio_sfu_hls_files_failures_total"] >= 2)
            wanted = before.segments[-1].msn + 1
            answer = await fetch(f"{server.url}/hls/{user.room_id}/index.m3u8?_HLS_msn={wanted}")
            assert answer.status == 200
            assert user.latest == "live"
            assert len(ffmpegs(server)) == 1
        server.wait_idle()
        assert children(server.process.pid) == []
        assert server.metrics()["trio_sfu_hls_files_written_total"] == 0
        complaints = [line for line in server.log if "cannot be written" in line]
        assert len(complaints) == 2, "once for each"
        assert not [line for line in server.log if "Traceback" in line or " ERROR " in line]
    assert file.read_text() == ""
