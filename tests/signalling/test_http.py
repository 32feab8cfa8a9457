"""The HTTP server through real sockets: framing, deadlines, bounds, CORS, routes, TLS, garbage."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from tests.support.certificate import write_certificate
from tests.support.front_door import FrontDoor, nothing_left, open_front_door
from tests.support.http_client import connect_http, fetch
from tests.support.until import until
from tests.support.websocket_client import UPGRADE, connect_websocket
from trio_sfu.signalling.http import (
    HttpLimits,
    HttpRequest,
    HttpResponse,
    Route,
    WebSocketRoute,
    serve_http,
    text_response,
)
from trio_sfu.signalling.routes import RouteTable, parse_target
from trio_sfu.signalling.tls import load_tls_context
from trio_sfu.wire.errors import BadPacket

QUICK = HttpLimits(
    max_head=4096,
    head_timeout=0.2,
    body_timeout=0.2,
    idle_timeout=0.3,
    write_timeout=0.2,
    handshake_timeout=0.2,
    close_timeout=0.2,
)


@dataclass
class Site:
    """Handlers, and what became of their answers."""

    sent: list[bool] = field(default_factory=list)
    closed_streams: int = 0
    cancelled: int = 0

    def routes(self) -> list[Route]:
        async def serve_websocket(request: HttpRequest, websocket: object) -> None:
            await trio.lowlevel.checkpoint()

        websocket = WebSocketRoute(lambda request: None, serve_websocket, max_message=1000)
        return [
            Route("/", self.hello),
            Route("/echo", self.echo, methods=frozenset({"POST"}), max_body=10_000),
            Route("/any", self.show, methods=None),
            Route("/below/*", self.show),
            Route("/below/further/*", self.hello),
            Route("/bug", self.bug),
            Route("/bug-in-stream", self.bug_in_stream),
            Route("/stream", self.stream),
            Route("/endless", self.endless),
            Route("/big", self.big),
            Route("/wait", self.wait, watch_disconnect=True),
            Route("/websocket", self.hello, websocket=websocket),
        ]

    async def hello(self, request: HttpRequest) -> HttpResponse:
        return text_response(200, "hello")

    async def echo(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, request.body)

    async def show(self, request: HttpRequest) -> HttpResponse:
        fields = (request.method, request.path, request.tail, dict(request.query), request.secure, request.peer)
        return text_response(200, repr(fields))

    async def bug(self, request: HttpRequest) -> HttpResponse:
        raise LookupError("a bug")

    async def bug_in_stream(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, self._pieces(2, fail=True))

    async def stream(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, self._pieces(3))

    async def endless(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, self._pieces(10**9), on_sent=self.sent.append)

    async def big(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"x" * 20_000_000, on_sent=self.sent.append)

    async def wait(self, request: HttpRequest) -> HttpResponse:
        try:
            await trio.sleep(float(request.query_value("for") or "inf"))
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return HttpResponse(200, b"waited", on_sent=self.sent.append)

    async def _pieces(self, count: int, *, fail: bool = False) -> AsyncIterator[bytes]:
        try:
            for _ in range(count):
                yield b"x" * 1000
            if fail:
                raise LookupError("a bug")
        finally:
            self.closed_streams += 1


@asynccontextmanager
async def open_site(
    limits: HttpLimits | None = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    cors_origin: str | None = "*",
) -> AsyncIterator[tuple[FrontDoor, Site]]:
    site = Site()
    async with (
        nothing_left(),
        open_front_door(site.routes(), limits=limits, ssl_context=ssl_context, cors_origin=cors_origin) as door,
    ):
        yield door, site


async def talk(door: FrontDoor, data: bytes, *, end: bool = False) -> bytes:
    """Send these bytes on a connection, read until the server closes it."""
    async with connect_http(door.url) as client:
        await client.stream.send_all(data)
        if end:
            assert isinstance(client.stream, trio.SocketStream)
            await client.stream.send_eof()
        return await client.closed()


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


# Requests and answers


async def test_get_and_head() -> None:
    async with open_site() as (door, _):
        answer = await fetch(door.url + "/")
        assert (answer.status, answer.text) == (200, "hello")
        assert answer.headers["content-length"] == "5"
        assert "date" in answer.headers
        head = await fetch(door.url + "/", "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == "5"


async def test_one_connection_for_many_requests() -> None:
    async with open_site() as (door, _), connect_http(door.url) as client:
        for number in range(5):
            assert (await client.request("GET", "/")).text == "hello"
            assert (await client.request("POST", "/echo", body=b"%d" % number)).body == b"%d" % number
            assert (await client.request("GET", "/nowhere")).status == 404
            assert (await client.request("PUT", "/")).status == 405
            assert (await client.request("HEAD", "/stream")).status == 200
            assert len((await client.request("GET", "/stream")).body) == 3000
            assert (await client.request("OPTIONS", "/")).status == 204
        assert door.stats.accepted == 1
        assert door.stats.requests == 35


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_site() as (door, _):
        post = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
        wait = b"GET /wait?for=0.05 HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        received = await talk(door, post + b"one" + wait + post + b"two" + wait + last)
        assert statuses(received) == [200, 200, 200, 200, 404]
        assert received.find(b"one") < received.find(b"waited") < received.find(b"two")


async def test_http_1_0_closes() -> None:
    async with open_site() as (door, _):
        received = await talk(door, b"GET /stream HTTP/1.0\r\n\r\n")
        assert received.endswith(b"x" * 3000)
        assert b"chunked" not in received


async def test_a_half_closed_client_gets_its_answer() -> None:
    async with open_site() as (door, _):
        received = await talk(door, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", end=True)
        assert received.endswith(b"hello")


async def test_expect_continue() -> None:
    async with open_site() as (door, _), connect_http(door.url) as client:
        await client.stream.send_all(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert (await client.stream.receive_some(1000)).startswith(b"HTTP/1.1 100")
        await client.stream.send_all(b"abc")
        assert (await client.closed()).endswith(b"abc")


async def test_streams_are_chunked_and_closed() -> None:
    async with open_site() as (door, site):
        answer = await fetch(door.url + "/stream")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert len(answer.body) == 3000
        assert site.closed_streams == 1
        async with connect_http(door.url) as client:
            await client.send("GET", "/endless")
            assert await client.stream.receive_some(1000)
        await until(lambda: site.closed_streams == 2)
        assert site.sent == [False]


# Routes


async def test_routes() -> None:
    async with open_site() as (door, _):
        shown = (await fetch(door.url + "/below/a%20b/c?x=1&x=2&y=")).text
        assert shown == repr(("GET", "/below/a b/c", "a b/c", {"x": ["1", "2"], "y": [""]}, False, "127.0.0.1"))
        assert (await fetch(door.url + "/below/further/on")).text == "hello"
        assert (await fetch(door.url + "/below")).status == 404
        assert (await fetch(door.url + "/any", "BREW")).text.startswith("('BREW'")
        refused = await fetch(door.url + "/echo")
        assert (refused.status, refused.headers["allow"]) == (405, "OPTIONS, POST")


def test_two_routes_for_one_path() -> None:
    routes: Sequence[Route] = Site().routes()
    with pytest.raises(ValueError, match="two routes"):
        RouteTable([*routes, routes[0]])


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", {}),
        ("/a%2Fb?c=%26#d", "/a/b", {"c": ["&"]}),
        ("http://host:1/a?b=c", "/a", {"b": ["c"]}),
        ("HTTPS://host", "/", {}),
        ("*", "*", {}),
        ("//a//b", "//a//b", {}),
    ],
)
def test_targets(target: str, path: str, query: dict[str, list[str]]) -> None:
    assert parse_target(target) == (path, query)


@pytest.mark.parametrize("target", ["", "a", "ftp://host/", "/%ff", "/%00", "/?" + "&".join("a" * 101)])
def test_bad_targets(target: str) -> None:
    with pytest.raises(BadPacket):
        parse_target(target)


# CORS


async def test_cors_is_open_by_default() -> None:
    async with open_site() as (door, _):
        for path in ("/", "/nowhere", "/bug-in-stream"):
            answer = await fetch(door.url + "/")
            assert answer.headers["access-control-allow-origin"] == "*", path
        preflight = await fetch(
            door.url + "/echo",
            "OPTIONS",
            headers={
                "Origin": "http://elsewhere",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type, x-mine",
            },
        )
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert preflight.headers["access-control-allow-methods"] == "OPTIONS, POST"
        assert preflight.headers["access-control-allow-headers"] == "content-type, x-mine"
        assert "access-control-max-age" in preflight.headers


async def test_cors_for_one_origin_or_none() -> None:
    async with open_site(cors_origin="https://a.example") as (door, _):
        headers = (await fetch(door.url + "/")).headers
        assert headers["access-control-allow-origin"] == "https://a.example"
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["vary"] == "Origin"
    async with open_site(cors_origin=None) as (door, _):
        assert "access-control-allow-origin" not in (await fetch(door.url + "/")).headers


# Bounds and deadlines


async def test_a_body_too_large_is_413() -> None:
    async with open_site() as (door, _):
        assert len((await fetch(door.url + "/echo", "POST", body=b"x" * 10_000)).body) == 10_000
        assert (await fetch(door.url + "/echo", "POST", body=b"x" * 10_001)).status == 413
        assert (await fetch(door.url + "/echo", "POST", body=b"x" * 3_000_000)).status == 413
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        received = await talk(door, head + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 4)
        assert statuses(received) == [413]
        assert b"connection: close" in received.lower()
        assert (await fetch(door.url + "/", "GET", body=b"x")).status == 413


async def test_a_head_too_large_is_431() -> None:
    async with open_site(QUICK) as (door, _):
        received = await talk(door, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000)
        assert statuses(received) == [431]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
    ],
)
async def test_a_slow_request_is_408(data: bytes) -> None:
    async with open_site(QUICK) as (door, _):
        assert statuses(await talk(door, data))[-1] == 408
        assert door.stats.timeouts == 1


async def test_trickled_headers_do_not_stretch_the_deadline() -> None:
    async with open_site(QUICK) as (door, _), connect_http(door.url) as client:
        with trio.fail_after(5):
            try:
                while not door.stats.timeouts:
                    await client.stream.send_all(b"G")
                    await trio.sleep(0.02)
            except trio.BrokenResourceError:
                pass
        assert statuses(await client.closed()) == [408]


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with open_site(QUICK) as (door, _), connect_http(door.url) as client:
        assert (await client.request("GET", "/")).status == 200
        assert await client.closed() == b""


async def test_a_slow_reader_is_dropped() -> None:
    async with open_site(QUICK) as (door, site), connect_http(door.url) as client:
        await client.send("GET", "/big")
        await until(lambda: site.sent)
        assert site.sent == [False]
        await until(lambda: not door.stats.connections)


async def test_connections_are_limited() -> None:
    async with open_site(HttpLimits(max_connections=1)) as (door, _):
        async with connect_http(door.url) as client:
            assert (await client.request("GET", "/")).status == 200
            assert statuses(await talk(door, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")) == [503]
        await until(lambda: not door.stats.connections)
        assert (await fetch(door.url + "/")).status == 200
        assert door.stats.refused == 1


async def test_a_handler_is_cancelled_when_its_client_goes_away() -> None:
    async with open_site() as (door, site):
        async with connect_http(door.url) as client:
            await client.send("GET", "/wait")
            await until(lambda: door.stats.requests)
        await until(lambda: site.cancelled)
        assert site.sent == []


# Bugs and strangers


async def test_a_bug_is_logged_and_500(caplog: pytest.LogCaptureFixture) -> None:
    async with open_site() as (door, _), connect_http(door.url) as client:
        assert (await client.request("GET", "/bug")).status == 500
        assert (await client.request("GET", "/")).status == 200
        with pytest.raises(ConnectionError):
            await client.request("GET", "/bug-in-stream")
        assert door.stats.handler_errors == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\r\n\r\nnonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\nHost",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_garbage_gets_400_and_no_traceback(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_site(QUICK) as (door, _):
        received = await talk(door, data, end=True)
        assert statuses(received)[0] in (400, 505)
        assert door.stats.bad_requests == 1
    assert caplog.records == []


# WebSocket upgrades


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**UPGRADE, "Sec-WebSocket-Key": "short"}, 400),
        ({**UPGRADE, "Sec-WebSocket-Key": "=" * 24}, 400),
        ({**UPGRADE, "Sec-WebSocket-Version": "12"}, 426),
        ({"Connection": "Upgrade", "Upgrade": "websocket"}, 426),
        ({"Connection": "Upgrade", "Upgrade": "h2c"}, 200),
        ({"Upgrade": "websocket"}, 200),
    ],
)
async def test_what_is_no_websocket_handshake(headers: dict[str, str], status: int) -> None:
    async with open_site() as (door, _), connect_http(door.url) as client:
        assert (await client.request("GET", "/websocket", headers=headers)).status == status
        assert (await client.request("GET", "/")).status == 200


async def test_a_websocket_ends_with_a_close_frame() -> None:
    async with open_site() as (door, _):
        async with connect_websocket(door.websocket_url + "/websocket") as websocket:
            with trio.fail_after(5):
                await until(lambda: websocket.closed)
            assert websocket.closed is not None
            assert websocket.closed.code == 1000
        await until(lambda: not door.stats.websockets)


async def test_a_websocket_that_trio_websocket_does_not_like_is_given_up() -> None:
    # It answers 400 and then waits for ever: our deadline ends it.
    async with open_site(QUICK) as (door, _), connect_http(door.url) as client:
        headers = {**UPGRADE, "Sec-WebSocket-Extensions": "permessage-deflate; =;;"}
        await client.send("GET", "/websocket", headers=headers)
        await client.closed()
        await until(lambda: not door.stats.connections)


async def test_garbage_after_an_upgrade_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_site(QUICK) as (door, _):
        head = "GET /websocket HTTP/1.1\r\nHost: x\r\n" + "".join(f"{k}: {v}\r\n" for k, v in UPGRADE.items())
        for rest in (b"\xff\xff\xff\xff", b"\x81\x05hello", b"\x88\x81aaaab", b""):
            async with connect_http(door.url) as client:
                await client.stream.send_all(head.encode() + b"\r\n" + rest)
                assert (await client.closed()).startswith(b"HTTP/1.1 101")
    assert caplog.records == []


# TLS


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    certificate, key = write_certificate(tmp_path)
    return load_tls_context(certificate, key), ssl.create_default_context(cafile=str(certificate))


async def test_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client_context = tls
    async with open_site(ssl_context=server) as (door, _):
        async with connect_http(door.url, tls=client_context) as client:
            assert "True" in (await client.request("GET", "/below/x")).text
            assert len((await client.request("GET", "/big")).body) == 20_000_000
            assert (await client.request("GET", "/", headers={"Connection": "close"})).status == 200
            assert await client.closed() == b""
        assert (await fetch(door.url + "/echo", "POST", body=b"x" * 20_000, tls=client_context)).status == 413
        async with connect_websocket(door.websocket_url + "/websocket", tls=client_context) as websocket:
            await until(lambda: websocket.closed)


async def test_plain_http_on_a_tls_port_is_dropped_quietly(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_site(QUICK, ssl_context=tls[0]) as (door, _):
        plain = FrontDoor(door.url.replace("https", "http"), door.stats, door.scope)
        received = await talk(plain, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in received
        assert await talk(plain, b"") == b""  # says nothing: the handshake has a deadline
        assert door.stats.tls_failures == 2
    assert caplog.records == []


# Shutting down


async def test_stopping_closes_what_is_under_way() -> None:
    async with open_site() as (door, site):
        async with (
            connect_http(door.url) as waiting,
            connect_http(door.url) as streaming,
            connect_http(door.url) as idle,
        ):
            await waiting.send("GET", "/wait")
            await streaming.send("GET", "/endless")
            await until(lambda: door.stats.requests == 2 and door.stats.connections == 3)
            door.scope.cancel()
            assert await waiting.closed() == b""
            assert await idle.closed() == b""
            await streaming.closed()
        assert (site.cancelled, site.closed_streams, site.sent) == (1, 1, [False])
        with pytest.raises(OSError):  # noqa: PT011
            await fetch(door.url + "/")


async def test_serve_http_takes_several_listeners() -> None:
    async with nothing_left(), trio.open_nursery() as nursery:
        listeners = [
            *await trio.open_tcp_listeners(0, host="127.0.0.1"),
            *await trio.open_tcp_listeners(0, host="127.0.0.2"),
        ]
        await nursery.start(serve_http, listeners, Site().routes())
        for listener in listeners:
            host, port = listener.socket.getsockname()
            assert (await fetch(f"http://{host}:{port}/")).status == 200
        nursery.cancel_scope.cancel()
