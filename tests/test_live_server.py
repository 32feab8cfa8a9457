"""Live streams of a real server process: its FFmpegs, one a room, whatever users, rooms and signals do."""

import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from tests.support.http_client import connect_http, fetch
from tests.support.live_users import (
    FIRST_PORT,
    SMALL,
    LiveUser,
    bound_ports,
    children,
    eventually,
    ffmpegs,
    gone,
    live_user,
    playlist,
)
from tests.support.media_client import IncomingStream, media_user
from tests.support.playlist_reader import read_playlist
from tests.support.server import Server, running_server

#: The first of three pairs.
FEW_PORTS = FIRST_PORT + 100


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with running_server(*SMALL, hls=True) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """Of which nothing is left when the test ends."""
    yield shared
    shared.wait_idle()
    assert children(shared.process.pid) == []
    assert not [line for line in shared.log if " ERROR " in line or "Traceback" in line]


async def settled(server: Server, *, rooms: int, streams: int) -> None:
    """Wait until there is one FFmpeg for each room, with so many streams in all, and each listens on its ports."""

    def is_so() -> bool:
        running = ffmpegs(server)
        ports = [port for each in running for port in each.ports]
        return (
            len(running) == rooms
            and len(ports) == 2 * streams
            and all(set(bound_ports(each.pid)) == set(each.ports) for each in running)
        )

    await eventually(is_so)


class Follower:
    """Somebody who looks at a room's playlist all the time: what it says never goes back."""

    def __init__(self, user: LiveUser) -> None:
        self.looks = 0
        self.discontinuities = 0
        self._user = user

    async def follow(self) -> None:
        before = await playlist(self._user.url, self._user.room_id)
        async with connect_http(self._user.url) as http:
            while True:
                answer = await http.request("GET", f"/hls/{self._user.room_id}/index.m3u8")
                assert answer.status == 200
                now = read_playlist(answer.text)
                assert now.media_sequence >= before.media_sequence
                assert now.segments[-1].msn >= before.segments[-1].msn
                assert now.segments[-1].discontinuity >= before.segments[-1].discontinuity
                assert not now.ended
                self.looks += 1
                self.discontinuities = now.segments[-1].discontinuity
                before = now
                await trio.sleep(0.05)


async def flows(stream: IncomingStream) -> None:
    """Asserts that the call goes on: more comes, and nothing has been missed."""
    await stream.wait_received(len(stream.received) + 20)
    assert_whole(stream)


def assert_whole(stream: IncomingStream) -> None:
    numbers = [packet.sequence_number for packet in stream.received]
    assert numbers == [(numbers[0] + index) & 0xFFFF for index in range(len(numbers))]


async def test_a_user_who_comes_and_goes(server: Server) -> None:
    pauses = Random(7)
    async with (
        live_user(server.url) as stays,
        live_user(server.url, stays.room_id) as wavers,
        media_user(server.url, stays.room_id) as viewer,
        trio.open_nursery() as nursery,
    ):
        _, audio = await stays.produce()
        call = await viewer.consume(audio.producer_id)
        await stays.is_live()
        follower = Follower(stays)
        nursery.start_soon(follower.follow)
        launches = server.metrics()["trio_sfu_hls_launches_total"]
        with trio.fail_after(30):
            for _ in range(20):
                await wavers.produce()
                await trio.sleep(pauses.uniform(0, 0.4))
                await wavers.stop()
                await trio.sleep(pauses.uniform(0, 0.2))
        await settled(server, rooms=1, streams=2)
        await stays.until("live")
        await eventually(lambda: follower.discontinuities >= 1)
        nursery.cancel_scope.cancel()
    # It was not one run all the time, and not one for each change.
    assert 2 <= server.metrics()["trio_sfu_hls_launches_total"] - launches <= 40
    assert follower.looks > 20
    assert {event["state"] for event in stays.states} <= {"starting", "live", "restarting"}
    assert_whole(call)


async def test_ten_rooms_at_once(server: Server) -> None:
    async with AsyncExitStack() as stack:
        users = [await stack.enter_async_context(live_user(server.url)) for _ in range(10)]
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(user.produce)
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(user.is_live)
        await settled(server, rooms=10, streams=20)
        ports = [port for each in ffmpegs(server) for port in each.ports]
        assert len(set(ports)) == 40
        assert {each.sdp.parent.name for each in ffmpegs(server)} == {user.room_id for user in users}
        figures = server.gauges()
        assert figures["trio_sfu_hls_pipelines"] == figures["trio_sfu_hls_ffmpeg_processes"] == 10
        assert figures["trio_sfu_hls_port_leases"] == figures["trio_sfu_hls_plain_transports"] == 20
    await eventually(lambda: not children(server.process.pid))


async def test_an_ffmpeg_is_killed(server: Server) -> None:
    async with live_user(server.url) as user, media_user(server.url, user.room_id) as viewer:
        _, audio = await user.produce()
        call = await viewer.consume(audio.producer_id)
        before = await user.is_live()
        failures = server.metrics()["trio_sfu_hls_failures_total"]
        (victim,) = ffmpegs(server)
        os.kill(victim.pid, signal.SIGKILL)
        await eventually(lambda: user.latest != "live")
        await flows(call)
        await user.until("live")
        assert [(event["state"], event.get("reason")) for event in user.states] == [
            ("starting", None),
            ("live", None),
            ("failed", "FFmpeg ended with status -9"),
            ("restarting", None),
            ("live", None),
        ]
        after = await playlist(server.url, user.room_id)
        assert after.segments[-1].discontinuity == before.segments[-1].discontinuity + 1
        assert after.segments[-1].map_uri != before.segments[-1].map_uri
        assert after.segments[0].map_uri == before.segments[0].map_uri, "it is the same stream"
        (following,) = ffmpegs(server)
        assert following.pid != victim.pid
        assert server.metrics()["trio_sfu_hls_failures_total"] == failures + 1
        await flows(call)


async def test_a_room_of_the_same_name_again(server: Server) -> None:
    """A player that stayed takes it for the same stream."""
    place = f"{server.url}/hls/stand-up/index.m3u8"
    assert (await fetch(place)).status == 404
    async with live_user(server.url, create="stand-up") as user:
        assert (await fetch(place)).status == 404
        await user.produce()
        first = await user.is_live()
    await eventually(lambda: not children(server.process.pid))
    ended = await playlist(server.url, "stand-up")
    assert ended.ended
    assert ended.segments[0].uri is not None, "what there was can still be watched"
    assert (await fetch(f"{server.url}/hls/stand-up/{ended.segments[0].uri}")).status == 200
    async with live_user(server.url, create="stand-up") as user:
        await user.produce()
        second = await user.is_live()
    assert not second.ended
    assert second.media_sequence == ended.segments[-1].msn + 1
    assert second.segments[0].discontinuity > ended.segments[-1].discontinuity
    assert second.segments[0].map_uri.partition("/")[0] != first.segments[0].map_uri.partition("/")[0]
    # What the first one's playlists named is no longer there; nothing else is in its place.
    assert (await fetch(f"{server.url}/hls/stand-up/{first.segments[0].map_uri}")).status == 404


async def test_no_ports_are_left() -> None:
    with running_server(*SMALL, "--hls-ports", f"{FEW_PORTS}-{FEW_PORTS + 5}", hls=True) as server:
        async with live_user(server.url) as second:
            async with live_user(server.url) as first:
                await first.produce()
                await first.is_live()
                _, audio = await second.produce()
                failed = await second.until("failed")
                assert failed["reason"] == (
                    f"no pair of UDP ports is free from {FEW_PORTS} to {FEW_PORTS + 5}: "
                    "3 pairs are in use here, and 0 by others"
                )
                async with media_user(server.url, second.room_id) as viewer:
                    await flows(await viewer.consume(audio.producer_id))
                assert first.latest == "live"
            await second.is_live()
            await settled(server, rooms=1, streams=2)
        server.wait_idle()


async def test_there_is_no_ffmpeg() -> None:
    with running_server(*SMALL, "--ffmpeg", "/nowhere/ffmpeg", hls=True) as server:
        async with live_user(server.url) as user, media_user(server.url, user.room_id) as viewer:
            _, audio = await user.produce()
            call = await viewer.consume(audio.producer_id)
            await eventually(lambda: len(user.states) >= 6)
            assert [event["state"] for event in user.states][:6] == [
                "starting",
                *["failed", "restarting"] * 2,
                "failed",
            ]
            assert user.states[1]["reason"] == "there is no program '/nowhere/ffmpeg' to run; see --ffmpeg"
            answer = await fetch(f"{server.url}{user.states[0]['url']}")
            assert answer.status == 503
            assert "no program '/nowhere/ffmpeg' to run; see --ffmpeg" in answer.text
            await flows(call)
        server.wait_idle()
        # At the start, and for the room; not each time that it is tried.
        warnings = [line for line in server.log if " WARNING " in line and "kernel granted" not in line]
        assert [line.partition(": ")[2] for line in warnings] == [
            "No live streams: there is no program '/nowhere/ffmpeg' to run; see --ffmpeg",
            f"The live stream of room {user.room_id}: there is no program '/nowhere/ffmpeg' to run; see --ffmpeg",
        ]


async def test_without_live_streams() -> None:
    with running_server() as server:
        async with live_user(server.url) as user, media_user(server.url, user.room_id) as viewer:
            _, audio = await user.produce()
            await flows(await viewer.consume(audio.producer_id))
            assert user.states == []
            assert (await fetch(f"{server.url}/hls/{user.room_id}/index.m3u8")).status == 404
            assert not [name for name in server.metrics() if "hls" in name]
            assert children(server.process.pid) == []
        server.wait_idle()


async def test_the_server_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with ended_by_itself(), running_server(*SMALL, hls=True) as server:
        async with AsyncExitStack() as stack:
            users = [await stack.enter_async_context(live_user(server.url)) for _ in range(2)]
            for user in users:
                await user.produce()
            for user in users:
                await user.is_live()
            running = ffmpegs(server)
            assert len(running) == 2
            server.process.kill()
            await trio.to_thread.run_sync(server.process.wait)
            await eventually(lambda: all(gone(each.pid) for each in running), seconds=5)
            assert all(each.sdp.exists() for each in running), "it could not clean up"
    with running_server(*SMALL, hls=True) as server:
        (base,) = os.listdir(tmp_path)
        (folder,) = os.listdir(tmp_path / base)
        assert folder.partition("-")[0] == str(server.process.pid)
        async with live_user(server.url) as user:
            await user.produce()
            await user.is_live()
    assert os.listdir(tmp_path / base) == []


@contextmanager
def ended_by_itself() -> Iterator[None]:
    """What ``running_server`` has to say where its server was killed."""
    with pytest.raises(AssertionError, match="the server ended by itself"):
        yield
