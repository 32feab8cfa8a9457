"""Viewers of a live room on a real server process: bad requests, and many at once."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.front_door import open_front_door
from tests.support.http_client import Answer, connect_http, fetch
from tests.support.live_users import SMALL, LiveUser, eventually, live_user
from tests.support.media_client import media_user
from tests.support.playlist_reader import ReadPlaylist, read_playlist
from tests.support.protocol import the_one_error
from tests.support.server import Server, running_server
from trio_sfu.hls.live_stream import LiveStreams, Part
from trio_sfu.signalling.live import live_routes


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server(*SMALL, hls=True) as server:
        yield server
        server.wait_idle()


@asynccontextmanager
async def a_live_room(server: Server) -> AsyncIterator[tuple[LiveUser, ReadPlaylist]]:
    """Where the call has not noticed anything, when the block ends."""
    with the_one_error():
        async with live_user(server.url) as user, media_user(server.url, user.room_id) as listener:
            _, audio = await user.produce()
            call = await listener.consume(audio.producer_id)
            yield user, await user.is_live()
            await call.wait_received(len(call.received) + 20)
            numbers = [packet.sequence_number for packet in call.received]
            assert numbers == [(numbers[0] + index) & 0xFFFF for index in range(len(numbers))]
            assert [event["state"] for event in user.states] == ["starting", "live"], user.states


def token_of(playlist: ReadPlaylist) -> str:
    return playlist.segments[0].map_uri.partition("/")[0]


async def get(server: Server, target: str, method: str = "GET", **headers: str) -> Answer:
    """``target`` as it is."""
    async with connect_http(server.url) as http:
        return await http.request(method, target, headers=headers)


#: What is asked for, below the room's place, and how that is answered. ``{token}``: the stream's.
REFUSED = {
    "": 404,
    "/index.m3u8": 404,
    "../../etc/passwd": 404,
    "../../../../../../etc/passwd": 404,
    "%2e%2e%2f%2e%2e%2fetc/passwd": 404,
    "..%5c..%5cetc": 404,
    "{token}/../../../etc/passwd": 404,
    "{token}/%2e%2e/index.m3u8": 404,
    "stream.sdp": 404,
    "state.json": 404,
    "index.m3u8%2f": 404,
    "index.m3u8/": 404,
    "index.m3u8%00": 400,
    "{token}": 404,
    "{token}/": 404,
    "{token}/init1.mp4": 404,
    "{token}/init00.mp4": 404,
    "{token}/init-1.mp4": 404,
    "{token}/0000.m4s": 404,
    "{token}/0.99999.m4s": 404,
    "{token}/99999.m4s": 404,
    "{token}/" + 3000 * "9" + ".m4s": 404,
    70_000 * "x": 431,
    "another-token/init0.mp4": 404,
    "index.m3u8?_HLS_part=0": 400,
    "index.m3u8?_HLS_msn=": 400,
    "index.m3u8?_HLS_msn=-1": 400,
    "index.m3u8?_HLS_msn=1e3": 400,
    "index.m3u8?_HLS_msn=100000": 400,
    "index.m3u8?_HLS_msn=" + 30 * "9": 400,
    "index.m3u8?_HLS_msn=%F0%9F%99%82": 400,
    "index.m3u8?_HLS_msn=%D9%A1": 400,
    "index.m3u8?_HLS_msn=0&_HLS_msn=0": 400,
    "index.m3u8?_HLS_msn=100000&_HLS_part=0": 400,
    "index.m3u8?_HLS_msn=0&_HLS_part=" + 30 * "9": 400,
}

RANGES = {
    "bytes=0-9": 206,
    "bytes=-10": 206,
    "bytes=0-99999999999999": 206,
    "bytes=-99999999999999": 206,
    "bytes=99999999999999-": 416,
    "bytes=-0": 416,
    # What is not understood is as if it were not there (RFC 9110, section 14.2).
    "bytes=0-" + 100 * "9": 200,
    "bytes=" + ",".join(f"{index}-{index}" for index in range(2000)): 200,
    "bytes=9-0": 200,
    "bytes=a-b": 200,
    "lines=0-9": 200,
}


async def test_bad_requests(server: Server) -> None:
    async with a_live_room(server) as (user, playlist), a_live_room(server) as (_, another):
        token, place = token_of(playlist), f"/hls/{user.room_id}"
        answers = {target: await get(server, f"{place}/{target.format(token=token)}") for target in REFUSED}
        assert {target: answer.status for target, answer in answers.items()} == REFUSED
        for answer in answers.values():
            assert len(answer.body) < 100
            assert answer.headers["cache-control"] == "no-store"
        for target in ("", "/", "/nobody/index.m3u8", f"/nobody/{token}/init0.mp4", "/../metrics", "/%2e%2e/metrics"):
            assert (await get(server, f"/hls{target}")).status == 404, target
        # One room's media are not another's.
        assert (await get(server, f"{place}/{token_of(another)}/init0.mp4")).status == 404
        for method, status in (("POST", 405), ("PUT", 405), ("DELETE", 405), ("HEAD", 200)):
            answer = await get(server, f"{place}/index.m3u8", method)
            assert (answer.status, method != "HEAD" or answer.body == b"") == (status, True)


async def test_ranges(server: Server) -> None:
    async with a_live_room(server) as (user, playlist):
        place = f"/hls/{user.room_id}/{playlist.segments[0].map_uri}"
        whole = (await get(server, place)).body
        answers = {text: await get(server, place, Range=text) for text in RANGES}
        assert {text: answer.status for text, answer in answers.items()} == RANGES
        bodies = {200: {whole}, 206: {whole, whole[:10], whole[-10:]}}
        for answer in answers.values():
            assert answer.status == 416 or answer.body in bodies[answer.status]


async def test_two_hundred_viewers(server: Server) -> None:
    """All wait for the segment after the one that is being made, and get one and the same playlist."""
    async with a_live_room(server) as (user, playlist):
        before = server.metrics()["trio_sfu_resident_bytes"]
        wanted = playlist.segments[-1].msn + 1
        target = f"/hls/{user.room_id}/index.m3u8?_HLS_msn={wanted}"
        answers: list[Answer] = []

        async def view() -> None:
            async with connect_http(server.url) as http:
                answers.append(await http.request("GET", target))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(view)
            await eventually(lambda: server.metrics()["trio_sfu_hls_waiting_viewers"] == 200)
            assert answers == []
        assert [answer.status for answer in answers] == [200] * 200
        assert len({answer.body for answer in answers}) == 1
        seen = read_playlist(answers[0].text)
        assert seen.segments[wanted - seen.media_sequence].uri is not None, "the segment is complete"
        figures = server.metrics()
        assert figures["trio_sfu_hls_waiting_viewers"] == 0
        assert figures["trio_sfu_resident_bytes"] - before < 30e6
        await eventually(lambda: server.metrics()["trio_sfu_tcp_connections"] < 20)


async def test_an_ended_stream_can_be_watched_for_a_minute() -> None:
    now = 1000.0
    streams = LiveStreams(clock=lambda: now)
    async with open_front_door(live_routes(streams)) as door:
        place = f"{door.url}/hls/room/index.m3u8"
        assert (await fetch(place)).status == 404
        stream = streams.create("room")
        stream.begin_run(b"init")
        assert (await fetch(place)).status == 404
        stream.add_part(Part(b"data", 0.0, 1 / 3, independent=True))
        assert "ENDLIST" not in (await fetch(place)).text
        stream.end()
        now = 1059.9
        answer = await fetch(place)
        assert (answer.status, "#EXT-X-ENDLIST" in answer.text) == (200, True)
        now = 1060.0
        assert (await fetch(place)).status == 404
        assert len(streams) == 0
