"""Live streams over HTTP: what is asked for, what is refused, and who waits for what."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from tests.support.front_door import FrontDoor, nothing_left, open_front_door
from tests.support.http_client import Answer, connect_http, fetch
from tests.support.playlist_reader import read_playlist
from tests.support.until import until
from trio_sfu.hls.live_stream import LiveSettings, LiveStream, LiveStreams, Part
from trio_sfu.signalling.live import live_routes
from trio_sfu.signalling.routes import HttpRequest, HttpResponse, parse_target

NOW = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Served:
    door: FrontDoor
    streams: LiveStreams
    stream: LiveStream

    async def get(self, target: str, method: str = "GET", **headers: str) -> Answer:
        """``target``: below the room's place."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await fetch(f"{self.door.url}/hls/room/{target}", method, headers=named)

    async def media(self, name: str, **headers: str) -> Answer:
        return await self.get(f"{self.stream.token}/{name}", **headers)


def add(stream: LiveStream, *, segments: int = 0, parts: int = 0) -> None:
    """Segments of six parts, and then parts; each part's bytes are its number in the stream, ten times."""
    for _ in range(segments):
        add(stream, parts=6)
        stream.end_segment()
    for _ in range(parts):
        stream.add_part(Part(bytes([stream.progress] * 10), NOW + stream.progress / 3, 1 / 3, independent=False))


def new_stream(settings: LiveSettings | None = None) -> tuple[LiveStreams, LiveStream]:
    streams = LiveStreams(settings)
    stream = streams.create("room")
    stream.begin_run(b"init segment")
    return streams, stream


@asynccontextmanager
async def serve(*, segments: int = 2, parts: int = 2, settings: LiveSettings | None = None) -> AsyncIterator[Served]:
    streams, stream = new_stream(settings)
    add(stream, segments=segments, parts=parts)
    async with nothing_left(), open_front_door(live_routes(streams)) as door:
        yield Served(door, streams, stream)
    assert stream.waiting == 0


async def ask(streams: LiveStreams, target: str, method: str = "GET") -> HttpResponse:
    """The handler alone, where a test sets the clock."""
    (route,) = live_routes(streams)
    path, query = parse_target(target)
    return await route.handler(HttpRequest(method, path, query, {}, tail=path.removeprefix("/hls/")))


async def test_viewers_hear_why_nothing_comes() -> None:
    async with serve(segments=0, parts=0) as served:
        assert (await served.get("index.m3u8")).status == 404
        served.stream.trouble = "FFmpeg is missing"
        answer = await served.get("index.m3u8")
        assert (answer.status, answer.text) == (503, "The stream cannot be made: FFmpeg is missing\n")
        add(served.stream, parts=1)
        assert (await served.get("index.m3u8")).status == 200
    async with serve(segments=0, parts=0) as served:
        served.stream.trouble = "FFmpeg is missing"
        served.stream.end()
        assert (await served.get("index.m3u8")).status == 404


async def test_a_player_finds_everything() -> None:
    async with serve() as served:
        answer = await served.get("index.m3u8")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["access-control-allow-origin"] == "*"
        playlist = read_playlist(answer.text)
        assert [segment.msn for segment in playlist.segments] == [0, 1, 2]
        for uri in playlist.uris():
            answer = await served.get(uri)
            assert (answer.status, answer.headers["content-type"]) == (200, "video/mp4")
            assert answer.headers["cache-control"] == "public, max-age=3600, immutable"
            assert answer.body == served.stream.media(uri.partition("/")[2])
        assert (await served.media("init0.mp4")).body == b"init segment"
        assert (await served.media("1.m4s")).body == bytes(n for n in range(6, 12) for _ in range(10))
        assert (await served.media("2.1.m4s")).body == bytes([13] * 10)


@pytest.mark.parametrize("target", ["index.m3u8", "TOKEN/init0.mp4", "TOKEN/0.m4s", "TOKEN/2.0.m4s"])
async def test_head(target: str) -> None:
    async with serve() as served:
        target = target.replace("TOKEN", served.stream.token)
        whole, head = await served.get(target), await served.get(target, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.body))
        assert head.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize("name", ["0.m4s", "1.0.m4s"])
async def test_ranges(name: str) -> None:
    async with serve() as served:
        data = served.stream.media(name)
        assert data is not None
        answer = await served.media(name, Range="bytes=3-7")
        assert (answer.status, answer.body) == (206, data[3:8])
        assert answer.headers["content-range"] == f"bytes 3-7/{len(data)}"
        answer = await served.media(name, Range="bytes=0-999999999999")
        assert (answer.status, answer.body) == (206, data)
        for beyond in (f"bytes={len(data)}-", "bytes=999999999999999-", "bytes=-0"):
            answer = await served.media(name, Range=beyond)
            assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(data)}")
        answer = await served.media(name, Range="bytes=" + ",".join(["0-9"] * 200))
        assert (answer.status, answer.body) == (200, data)


async def test_other_origins_may_ask_for_ranges() -> None:
    async with serve() as served:
        answer = await served.get(
            "index.m3u8",
            "OPTIONS",
            Origin="https://player.example",
            Access_Control_Request_Method="GET",
            Access_Control_Request_Headers="range",
        )
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"] == "range"
        assert "GET" in answer.headers["access-control-allow-methods"]
        assert "Content-Range" in (await served.media("0.m4s")).headers["access-control-expose-headers"]


async def test_conditional_requests() -> None:
    async with serve(segments=15) as served:
        full = (await served.get("index.m3u8")).headers["etag"]
        delta = (await served.get("index.m3u8?_HLS_skip=YES")).headers["etag"]
        part = (await served.media("15.0.m4s")).headers["etag"]
        assert len({full, delta, part}) == 3
        assert (await served.get("index.m3u8", If_None_Match=full)).status == 304
        assert (await served.media("15.0.m4s", If_None_Match=part)).status == 304
        add(served.stream, parts=1)
        assert (await served.get("index.m3u8", If_None_Match=full)).status == 200


async def test_a_delta_update() -> None:
    async with serve(segments=15) as served:
        full = read_playlist((await served.get("index.m3u8")).text)
        for value in ("YES", "v2"):
            delta = read_playlist((await served.get(f"index.m3u8?_HLS_skip={value}")).text, full)
            assert (delta.skipped, delta.segments) == (5, full.segments)
        assert read_playlist((await served.get("index.m3u8?_HLS_skip=NO")).text).skipped == 0


async def test_there_is_no_stream() -> None:
    streams, stream = new_stream()
    async with nothing_left(), open_front_door(live_routes(streams)) as door:
        for target in ("/hls/room/index.m3u8", f"/hls/room/{stream.token}/init0.mp4", "/hls/other/index.m3u8"):
            answer = await fetch(door.url + target + "?_HLS_msn=0&_HLS_part=0")
            assert (answer.status, answer.headers["cache-control"]) == (404, "no-store")
        add(stream, parts=1)
        assert (await fetch(door.url + "/hls/room/index.m3u8")).status == 200
        assert (await fetch(door.url + "/hls/room/index.m3u8", "POST")).status == 405


@pytest.mark.parametrize(
    "target",
    [
        "/hls",
        "/hls/",
        "/hls/room",
        "/hls/room/",
        "/hls/room/index.m3u8/",
        "/hls/room/index.M3U8",
        "/hls/room//index.m3u8",
        "/hls/./room/index.m3u8",
        "/hls/room/../room/index.m3u8",
        "/hls/room/%2e%2e/room/index.m3u8",
        "/hls/room%2f..%2f..%2fetc/passwd",
        "/hls/../../../../etc/passwd",
        "/hls/room/../../../../etc/passwd",
        "/hls/room/TOKEN",
        "/hls/room/TOKEN/",
        "/hls/room/TOKEN/index.m3u8",
        "/hls/room/TOKEN/../../../etc/passwd",
        "/hls/room/TOKEN/%2e%2e%2fTOKEN%2f0.m4s",
        "/hls/room/TOKEN/0.m4s/",
        "/hls/room/TOKEN//0.m4s",
        "/hls/room/TOKEN/00.m4s",
        "/hls/room/TOKEN/0.m4s%0a",
        "/hls/room/TOKEN/-1.m4s",
        "/hls/room/TOKEN/%D9%A0.m4s",
        "/hls/room/TOKEN/2.m4s",
        "/hls/room/TOKEN/2.3.m4s",
        "/hls/room/TOKEN/99999999999999999999999.m4s",
        "/hls/room/TOKEN/init1.mp4",
        "/hls/room/token/0.m4s",
        "/hls/other/TOKEN/0.m4s",
    ],
)
async def test_what_does_not_exist(target: str) -> None:
    async with serve() as served:
        target = target.replace("TOKEN", served.stream.token)
        async with connect_http(served.door.url) as client:
            answer = await client.request("GET", target)
        assert (answer.status, answer.headers["cache-control"]) == (404, "no-store")
        assert served.door.stats.handler_errors == 0


@pytest.mark.parametrize(
    "query",
    [
        "_HLS_part=0",
        "_HLS_msn=x",
        "_HLS_msn=",
        "_HLS_msn=-1",
        "_HLS_msn=1.0",
        "_HLS_msn=+1",
        "_HLS_msn=%D9%A1",
        "_HLS_msn=1&_HLS_msn=1",
        "_HLS_msn=1&_HLS_part=0&_HLS_part=0",
        "_HLS_skip=YES&_HLS_skip=YES",
        "_HLS_msn=2&_HLS_part=-1",
        "_HLS_msn=2&_HLS_part=x",
        "_HLS_msn=" + "9" * 15,
        "_HLS_msn=" + "9" * 4000,
        "_HLS_msn=2&_HLS_part=" + "9" * 4000,
        "_HLS_msn=4",  # 1 is the last complete segment
        "_HLS_msn=4&_HLS_part=0",
        "_HLS_msn=2&_HLS_part=11",  # it has parts 0 and 1
        "_HLS_msn=3&_HLS_part=9",
    ],
)
async def test_bad_directives(query: str) -> None:
    async with serve() as served:
        answer = await served.get("index.m3u8?" + query)
        assert (answer.status, answer.headers["cache-control"]) == (400, "no-store")


@pytest.mark.parametrize(
    "query", ["_HLS_msn=0", "_HLS_msn=1", "_HLS_msn=2&_HLS_part=1", "_HLS_msn=0&_HLS_part=99", "x"]
)
async def test_what_is_there_is_answered_at_once(query: str) -> None:
    async with serve() as served:
        answer = await served.get("index.m3u8?" + query)
        assert (answer.status, answer.body) == (200, served.stream.playlist())


@pytest.mark.parametrize("query", ["_HLS_msn=2", "_HLS_msn=2&_HLS_part=2", "_HLS_msn=1&_HLS_part=6", "_HLS_msn=999"])
async def test_an_ended_stream_is_answered_at_once(query: str) -> None:
    async with serve() as served:
        served.stream.end()
        answer = await served.get("index.m3u8?" + query)
        assert answer.status == 200
        assert read_playlist(answer.text).ended


async def test_waiting_for_a_part_and_for_a_segment() -> None:
    async with serve() as served, connect_http(served.door.url) as one, connect_http(served.door.url) as two:
        await one.send("GET", "/hls/room/index.m3u8?_HLS_msn=2&_HLS_part=2")
        await two.send("GET", "/hls/room/index.m3u8?_HLS_msn=2&_HLS_skip=YES")
        await until(lambda: served.stream.waiting == 2)
        add(served.stream, parts=1)
        assert len(read_playlist((await one.answer()).text).segments[-1].parts) == 3
        assert served.stream.waiting == 1
        served.stream.end_segment()
        assert read_playlist((await two.answer()).text).segments[-1].uri is not None


async def test_two_hundred_viewers_of_one_playlist() -> None:
    async with serve() as served, trio.open_nursery() as nursery:
        answers: list[Answer] = []

        async def view() -> None:
            answers.append(await served.get("index.m3u8?_HLS_msn=2&_HLS_part=2&_HLS_skip=YES"))

        for _ in range(200):
            nursery.start_soon(view)
        await until(lambda: served.stream.waiting == 200, seconds=20)
        add(served.stream, parts=1)
        await until(lambda: len(answers) == 200, seconds=20)
        assert {answer.status for answer in answers} == {200}
        assert {answer.body for answer in answers} == {served.stream.playlist(skip=True)}
        assert served.stream.waiting == 0


async def test_a_viewer_who_goes_away_leaves_his_place() -> None:
    async with serve(settings=LiveSettings(max_waiting=1)) as served:
        async with connect_http(served.door.url) as client:
            await client.send("GET", "/hls/room/index.m3u8?_HLS_msn=2&_HLS_part=2")
            await until(lambda: served.stream.waiting == 1)
            for target in ("index.m3u8?_HLS_msn=2", f"{served.stream.token}/2.2.m4s"):
                answer = await served.get(target)
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await served.get("index.m3u8")).status == 200
        await until(lambda: served.stream.waiting == 0)


async def test_the_announced_part_comes_when_it_is_there() -> None:
    async with serve() as served, connect_http(served.door.url) as client:
        hint = read_playlist((await served.get("index.m3u8")).text).hint
        assert hint == f"{served.stream.token}/2.2.m4s"
        await client.send("GET", "/hls/room/" + hint, headers={"Range": "bytes=5-"})
        await until(lambda: served.stream.waiting == 1)
        add(served.stream, parts=1)
        answer = await client.answer()
        assert (answer.status, answer.body) == (206, bytes([14] * 5))
        # The next one is announced now, and does not come: the segment ends without it.
        await client.send("GET", f"/hls/room/{served.stream.token}/2.3.m4s")
        await until(lambda: served.stream.waiting == 1)
        served.stream.end_run()
        assert (await client.answer()).status == 404


async def test_over_a_restart() -> None:
    async with serve() as served, connect_http(served.door.url) as client:
        await client.send("GET", "/hls/room/index.m3u8?_HLS_msn=2&_HLS_part=2&_HLS_skip=YES")
        await until(lambda: served.stream.waiting == 1)
        served.stream.end_run()
        between = read_playlist((await served.get("index.m3u8")).text)
        assert (len(between.segments), between.hint, between.ended) == (3, None, False)
        served.stream.begin_run(b"another init segment")
        assert served.stream.waiting == 1
        add(served.stream, parts=1)
        after = read_playlist((await client.answer()).text)
        assert [segment.discontinuity for segment in after.segments] == [0, 0, 0, 1]
        assert (await served.get(after.segments[-1].map_uri)).body == b"another init segment"
        assert after.hint == f"{served.stream.token}/3.1.m4s"


async def test_nobody_waits_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    streams, stream = new_stream()
    add(stream, segments=1)
    for target in ("index.m3u8?_HLS_msn=1", f"{stream.token}/1.0.m4s"):
        began = trio.current_time()
        response = await ask(streams, "/hls/room/" + target)
        assert trio.current_time() - began == pytest.approx(3 * stream.settings.target_duration)
        assert (response.status, dict(response.headers)["Retry-After"]) == (503, "1")


async def test_the_end_releases_all(autojump_clock: trio.testing.MockClock) -> None:
    streams, stream = new_stream()
    add(stream, segments=1)
    statuses: list[tuple[str, int]] = []

    async def view(target: str) -> None:
        statuses.append((target, (await ask(streams, f"/hls/room/{target}")).status))

    waiting = {"index.m3u8?_HLS_msn=1": 200, "index.m3u8?_HLS_msn=1&_HLS_part=3": 200, f"{stream.token}/1.0.m4s": 404}
    async with trio.open_nursery() as nursery:
        for target in waiting:
            nursery.start_soon(view, target)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        stream.end()
    assert trio.current_time() == began
    assert dict(statuses) == waiting


async def test_tokens_tell_streams_apart() -> None:
    """A name never stands for other bytes than before, though numbers and rooms come again."""
    async with serve() as served:
        successor = served.streams.create("room")
        successor.begin_run(b"its init segment")
        add(successor, segments=1)
        assert re.fullmatch("[A-Za-z0-9_-]{12}", successor.token)
        assert successor.token != served.stream.token
        assert (await served.media("init0.mp4")).status == 404
        playlist = read_playlist((await served.get("index.m3u8")).text)
        assert [(segment.msn, segment.discontinuity) for segment in playlist.segments] == [(3, 1)]
        assert (await served.get(playlist.segments[0].map_uri)).body == b"its init segment"
