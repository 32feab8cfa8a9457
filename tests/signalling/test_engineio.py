"""Engine.IO v4 through real sockets: what the protocol's own test suite checks, and what hostile clients
try.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.frame_protocol import CloseReason

from tests.support.alive import alive
from tests.support.front_door import FrontDoor, nothing_left, open_front_door
from tests.support.http_client import Answer, connect_http, fetch
from tests.support.until import until
from tests.support.websocket_client import UPGRADE, connect_websocket
from trio_sfu.protocols.engineio import EngineConfig, Message
from trio_sfu.signalling.engineio import GOING_AWAY, EngineServer, EngineSocket, engineio_routes, open_engineio
from trio_sfu.signalling.http import HttpLimits
from trio_sfu.signalling.routes import HttpRequest

PATH = "/socket.io/"
CONFIG = EngineConfig(ping_interval=0.3, ping_timeout=0.2)
#: For tests that are not about heartbeats.
CALM = EngineConfig(close_timeout=0.2)


class Echo:
    """Sends every message back, and keeps what it was told."""

    def __init__(self, engine: EngineSocket) -> None:
        self.engine = engine
        self.oversized: list[str] = []
        self.reasons: list[str] = []
        self.over = trio.Event()
        self.hold: trio.Event | None = None

    async def run(self) -> None:
        await self.over.wait()

    async def receive(self, data: str | bytes) -> None:
        if self.hold is not None:
            await self.hold.wait()
        self.engine.send([data])

    async def receive_oversized(self, head: str) -> None:
        self.oversized.append(head)

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.over.set()


@dataclass
class World:
    door: FrontDoor
    server: EngineServer
    handlers: list[Echo]

    @property
    def url(self) -> str:
        return self.door.url + PATH

    def polling_url(self, sid: str | None = None) -> str:
        return f"{self.url}?EIO=4&transport=polling" + (f"&sid={sid}" if sid else "")

    async def open_polling(self) -> str:
        answer = await fetch(self.polling_url())
        assert answer.status == 200
        return str(json.loads(answer.text[1:])["sid"])

    async def poll(self, sid: str) -> Answer:
        return await fetch(self.polling_url(sid))

    async def post(self, sid: str, body: str | bytes) -> Answer:
        data = body.encode() if isinstance(body, str) else body
        return await fetch(self.polling_url(sid), "POST", body=data)

    def websocket(self, sid: str | None = None) -> Any:
        url = self.door.websocket_url + PATH + "?EIO=4&transport=websocket" + (f"&sid={sid}" if sid else "")
        return connect_websocket(url)

    async def until_no_session(self) -> None:
        await until(lambda: not self.server.session_count)

    async def until_polled(self) -> None:
        """Until the first session has a GET that waits."""
        await until(lambda: self.handlers and self.handlers[0].engine.session._polling)


@asynccontextmanager
async def open_world(
    config: EngineConfig = CALM, *, max_sessions: int = 100, write_timeout: float = 5.0
) -> AsyncIterator[World]:
    handlers: list[Echo] = []

    def connect(engine: EngineSocket) -> Echo:
        handlers.append(Echo(engine))
        return handlers[-1]

    limits = HttpLimits(close_timeout=0.3)
    async with nothing_left():
        async with open_engineio(config, connect, max_sessions=max_sessions, write_timeout=write_timeout) as server:
            async with open_front_door(engineio_routes(server), limits=limits) as door:
                yield World(door, server, handlers)
            assert all(len(handler.reasons) <= 1 for handler in handlers)
        assert server.session_count == 0
        assert all(len(handler.reasons) == 1 for handler in handlers)


async def receive(websocket: WebSocketConnection) -> str | bytes:
    with trio.fail_after(5):
        return await websocket.get_message()


async def receive_end(websocket: WebSocketConnection) -> None:
    """Pings may come before the end."""
    with trio.fail_after(5):
        try:
            while True:
                await websocket.get_message()
        except ConnectionClosed:
            pass


# Handshake


async def test_polling_handshake() -> None:
    async with open_world(CONFIG) as world:
        answer = await fetch(world.polling_url())
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.text[0] == "0"
        handshake = json.loads(answer.text[1:])
        sid = handshake.pop("sid")
        assert isinstance(sid, str)
        assert handshake == {
            "upgrades": ["websocket"],
            "pingInterval": 300,
            "pingTimeout": 200,
            "maxPayload": 1000000,
        }


async def test_websocket_handshake() -> None:
    async with open_world(CONFIG) as world, world.websocket() as websocket:
        message = await receive(websocket)
        assert isinstance(message, str)
        assert message[0] == "0"
        handshake = json.loads(message[1:])
        assert isinstance(handshake.pop("sid"), str)
        assert handshake == {
            "upgrades": [],
            "pingInterval": 300,
            "pingTimeout": 200,
            "maxPayload": 1000000,
        }


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/socket.io", "/socket.io/"])
async def test_every_path_leads_there(path: str) -> None:
    async with open_world() as world:
        answer = await fetch(f"{world.door.url}{path}?EIO=4&transport=polling&t=abc")
        assert answer.status == 200
        url = f"{world.door.websocket_url}{path}?EIO=4&transport=websocket"
        async with connect_websocket(url) as websocket:
            assert str(await receive(websocket)).startswith("0{")


@pytest.mark.parametrize(
    "query",
    [
        "transport=polling",
        "EIO=abc&transport=polling",
        "EIO=3&transport=polling",
        "EIO=4&EIO=4&transport=polling",
        "EIO=4",
        "EIO=4&transport=abc",
        "EIO=4&transport=websocket",
        "EIO=4&transport=polling&sid=unknown",
        "",
    ],
)
async def test_bad_query_is_400(query: str) -> None:
    async with open_world() as world:
        answer = await fetch(f"{world.url}?{query}")
        assert answer.status == 400
        assert "code" in json.loads(answer.text)
        assert world.server.session_count == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"])
async def test_bad_handshake_method_is_400(method: str) -> None:
    async with open_world() as world:
        assert (await fetch(world.polling_url(), method)).status == 400


@pytest.mark.parametrize(
    "query",
    ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=abc"],
)
async def test_bad_websocket_query_is_refused(query: str) -> None:
    async with open_world() as world:
        assert (await fetch(f"{world.url}?{query}", headers=UPGRADE)).status == 400


async def test_websocket_for_an_unknown_session_is_refused() -> None:
    async with open_world() as world:
        url = f"{world.url}?EIO=4&transport=websocket&sid=unknown"
        assert (await fetch(url, headers=UPGRADE)).status == 400


async def test_sessions_are_limited() -> None:
    async with open_world(max_sessions=1) as world:
        sid = await world.open_polling()
        assert (await fetch(world.polling_url())).status == 503
        assert (await fetch(f"{world.url}?EIO=4&transport=websocket", headers=UPGRADE)).status == 503
        await world.post(sid, "1")
        await world.until_no_session()
        await world.open_polling()


# Messages


@pytest.mark.parametrize(
    "payload",
    [
        "4hello",
        "4test1\x1e4test2\x1e4test3",
        "4hello\x1ebAQIDBA==",
        '4true\x1e4-5\x1e4{"a": 1}\x1e4\x1e4ä€😀',
    ],
)
async def test_polling_messages_come_back_as_they_went(payload: str) -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        answer = await world.post(sid, payload)
        assert (answer.status, answer.text) == (200, "ok")
        polled = await world.poll(sid)
        assert (polled.status, polled.text) == (200, payload)


async def test_many_packets_in_one_payload() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        payload = "\x1e".join(f"4{number}" for number in range(500))
        assert (await world.post(sid, payload)).status == 200
        assert (await world.poll(sid)).text == payload


async def test_a_poll_waits_for_a_message() -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        sid = await world.open_polling()
        answers: list[Answer] = []

        async def poll() -> None:
            answers.append(await world.poll(sid))

        nursery.start_soon(poll)
        await world.until_polled()
        await world.post(sid, "4late")
        await until(lambda: answers)
        assert answers[0].text == "4late"


@pytest.mark.parametrize(
    "body",
    ["abc", "", "9", "4\x1e", "b=", "bAQI", "d=4hello", "2", '0{"sid":"x"}', b"\xff\xfe", "4\x1e" * 5000],
)
async def test_a_malformed_payload_ends_the_session(body: str | bytes) -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        assert (await world.post(sid, body)).status == 400
        assert (await world.poll(sid)).status == 400
        assert world.handlers[0].reasons == ["parse error"]
        await world.until_no_session()


async def test_two_polls_at_a_time_end_the_session() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with connect_http(world.url) as first:
            await first.send("GET", world.polling_url(sid).removeprefix(world.door.url))
            await world.until_polled()
            assert (await world.poll(sid)).status == 400
            answer = await first.answer()
            assert (answer.status, answer.text) == (200, "1")
        assert (await world.poll(sid)).status == 400


async def test_a_poll_given_up_ends_the_session() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with connect_http(world.url) as first:
            await first.send("GET", world.polling_url(sid).removeprefix(world.door.url))
            await world.until_polled()
        await world.until_no_session()
        assert (await world.post(sid, "4hello")).status == 400
        assert world.handlers[0].reasons == ["transport close"]


async def test_two_posts_at_a_time_end_the_session() -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        sid = await world.open_polling()
        world.handlers[0].hold = trio.Event()
        nursery.start_soon(world.post, sid, "4first")
        await until(lambda: world.handlers[0].engine.posting)
        assert (await world.post(sid, "4second")).status == 400
        assert world.handlers[0].reasons == ["parse error"]
        world.handlers[0].hold.set()


async def test_a_post_while_the_websocket_probes_is_no_second_post() -> None:
    # Both in one turn of the event loop, in either order: how a browser's first event meets its own upgrade.
    async with open_world() as world:
        for turn in range(20):
            sid = await world.open_polling()
            socket = world.handlers[turn].engine
            query = {"EIO": ["4"], "transport": ["polling"], "sid": [sid]}
            request = HttpRequest("POST", PATH, query, {}, body=b"4hello")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(socket.deliver, [])
                nursery.start_soon(world.server.handle_request, request)
            assert world.handlers[turn].reasons == []


@pytest.mark.parametrize("message", ["4hello", "4", b"\x01\x02\x03\x04", b"", "4" + "x" * 100_000, "4ä€😀"])
async def test_websocket_messages_come_back_as_they_went(message: str | bytes) -> None:
    async with open_world() as world, world.websocket() as websocket:
        await receive(websocket)
        await websocket.send_message(message)
        assert await receive(websocket) == message


async def test_who_waits_for_the_next_message_does_not_hold_on_to_the_last() -> None:
    async with open_world() as world, world.websocket() as websocket:
        await receive(websocket)
        world.handlers[0].hold = trio.Event()
        await websocket.send_message("4hello")
        await until(lambda: alive(Message))  # it is being handled
        world.handlers[0].hold.set()
        assert await receive(websocket) == "4hello"
        await until(lambda: not alive(Message))


async def test_base64_in_a_websocket_text_frame_is_binary() -> None:
    async with open_world() as world, world.websocket() as websocket:
        await receive(websocket)
        await websocket.send_message("bAQIDBA==")
        assert await receive(websocket) == b"\x01\x02\x03\x04"


@pytest.mark.parametrize("message", ["abc", "", "9", "7hello", "2", "0{}", "b===", "٤x"])
async def test_a_malformed_frame_ends_the_session(message: str) -> None:
    async with open_world() as world, world.websocket() as websocket:
        await receive(websocket)
        await websocket.send_message(message)
        await receive_end(websocket)
        assert world.handlers[0].reasons == ["parse error"]


# maxPayload


async def test_a_post_above_max_payload_is_413() -> None:
    async with open_world(replace(CALM, max_payload=1000)) as world:
        sid = await world.open_polling()
        assert (await world.post(sid, "4" + "x" * 1000)).status == 413
        assert (await world.post(sid, "4" + "x" * 999)).status == 200
        assert len((await world.poll(sid)).text) == 1000


@pytest.mark.parametrize("message", [b"x" * 1001, "b" + "A" * 1000, "x" * 1001])
async def test_a_frame_above_max_payload_ends_the_session(message: str | bytes) -> None:
    async with open_world(replace(CALM, max_payload=1000)) as world, world.websocket() as websocket:
        await receive(websocket)
        await websocket.send_message(message)
        await receive_end(websocket)


async def test_a_text_message_above_max_payload_is_dropped_and_told() -> None:
    async with open_world(replace(CALM, max_payload=1000)) as world, world.websocket() as websocket:
        await receive(websocket)
        await websocket.send_message("4" + "ä" * 501)
        await websocket.send_message("4next")
        assert await receive(websocket) == "4next"
        assert world.handlers[0].oversized == ["ä" * 256]


async def test_a_frame_far_above_max_payload_is_not_even_read() -> None:
    async with open_world(replace(CALM, max_payload=1000)) as world, world.websocket() as websocket:
        await receive(websocket)
        await websocket.send_message("4" + "x" * 100_000)
        await receive_end(websocket)
        assert websocket.closed.code == 1009
        await world.until_no_session()


async def test_polls_are_no_larger_than_max_payload() -> None:
    async with open_world(replace(CALM, max_payload=1000)) as world:
        sid = await world.open_polling()
        for _ in range(2):
            await world.post(sid, "4" + "x" * 700)
        assert len((await world.poll(sid)).text) == 701
        assert len((await world.poll(sid)).text) == 701


# Heartbeat


async def test_polling_heartbeat() -> None:
    async with open_world(CONFIG) as world:
        sid = await world.open_polling()
        for _ in range(3):
            polled = await world.poll(sid)
            assert (polled.status, polled.text) == (200, "2")
            assert (await world.post(sid, "3")).text == "ok"
        assert world.server.session_count == 1


async def test_websocket_heartbeat() -> None:
    async with open_world(CONFIG) as world, world.websocket() as websocket:
        await receive(websocket)
        for _ in range(3):
            assert await receive(websocket) == "2"
            await websocket.send_message("3")
        assert world.server.session_count == 1


async def test_polling_ping_timeout() -> None:
    async with open_world(CONFIG) as world:
        sid = await world.open_polling()
        await trio.sleep(0.5)
        assert (await world.poll(sid)).status == 400
        assert world.handlers[0].reasons == ["ping timeout"]


async def test_a_waiting_poll_is_ended_by_the_ping_timeout() -> None:
    async with open_world(CONFIG) as world:
        sid = await world.open_polling()
        assert (await world.poll(sid)).text == "2"
        assert (await world.poll(sid)).text == "1"
        assert (await world.poll(sid)).status == 400


async def test_websocket_ping_timeout() -> None:
    async with open_world(CONFIG) as world, world.websocket() as websocket:
        await receive_end(websocket)
        assert world.handlers[0].reasons == ["ping timeout"]


# Close


async def test_a_polling_client_closes() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with connect_http(world.url) as first:
            await first.send("GET", world.polling_url(sid).removeprefix(world.door.url))
            await world.until_polled()
            assert (await world.post(sid, "1")).text == "ok"
            answer = await first.answer()
            assert (answer.status, answer.text) == (200, "6")
        assert (await world.poll(sid)).status == 400
        await world.until_no_session()


async def test_a_websocket_client_closes() -> None:
    async with open_world() as world, world.websocket() as websocket:
        await receive(websocket)
        await websocket.send_message("1")
        await receive_end(websocket)
        await world.until_no_session()


async def test_a_websocket_that_goes_away_ends_its_session() -> None:
    async with open_world() as world:
        async with world.websocket() as websocket:
            await receive(websocket)
        await world.until_no_session()
        async with world.websocket() as websocket:
            await receive(websocket)
            await trio.aclose_forcefully(websocket._stream)
        await world.until_no_session()
        assert [handler.reasons for handler in world.handlers] == [[GOING_AWAY], ["transport close"]]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (CloseReason.NORMAL_CLOSURE, GOING_AWAY),
        (CloseReason.GOING_AWAY, GOING_AWAY),
        (CloseReason.NO_STATUS_RCVD, "transport close"),
        (CloseReason.INTERNAL_ERROR, "transport close"),
        (4000, "transport close"),
    ],
)
async def test_a_goodbye_is_told_from_a_loss(code: int, reason: str, busy: bool) -> None:
    """By the close frame's code; also where the server is writing at that moment."""
    async with open_world() as world, world.websocket() as websocket, trio.open_nursery() as nursery:
        await receive(websocket)
        engine = world.handlers[0].engine

        async def keep_sending() -> None:
            while not engine.closed:
                engine.send(["x" * 1000])
                await trio.lowlevel.checkpoint()

        if busy:
            nursery.start_soon(keep_sending)
            await receive(websocket)
        nursery.start_soon(_drain, websocket)
        await websocket.aclose(code)
        await world.until_no_session()
        if not busy or reason == GOING_AWAY:
            assert world.handlers[0].reasons == [reason]
        else:  # the reader or the writer notices first
            assert world.handlers[0].reasons in (["transport close"], ["transport error"])


async def _drain(websocket: WebSocketConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await websocket.get_message()


async def test_the_server_closes_after_what_is_queued() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with world.websocket() as websocket:
            await receive(websocket)
            for handler in world.handlers:
                handler.engine.send(["last", b"words"])
                handler.engine.close("forced close")
                handler.engine.send(["too late"])
            assert await receive(websocket) == "4last"
            assert await receive(websocket) == b"words"
            await receive_end(websocket)
        assert (await world.poll(sid)).text == "4last\x1ebd29yZHM="
        assert (await world.poll(sid)).text == "1"
        assert (await world.poll(sid)).status == 400
        await world.until_no_session()


async def test_a_closing_session_that_nobody_polls_is_closed_in_time() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        world.handlers[0].engine.close("forced close")
        await world.until_no_session()
        assert (await world.poll(sid)).status == 400


# Upgrade


async def test_upgrade() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with world.websocket(sid) as websocket:
            await websocket.send_message("2probe")
            assert await receive(websocket) == "3probe"
            polled = await world.poll(sid)
            assert (polled.status, polled.text) == (200, "6")
            await websocket.send_message("5")
            await websocket.send_message("4hello")
            assert await receive(websocket) == "4hello"
            assert world.server.stats.upgraded == 1


async def test_the_probe_ends_a_waiting_poll() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with connect_http(world.url) as first, world.websocket(sid) as websocket:
            await first.send("GET", world.polling_url(sid).removeprefix(world.door.url))
            await world.until_polled()
            await websocket.send_message("2probe")
            assert (await first.answer()).text == "6"
            assert await receive(websocket) == "3probe"


async def test_what_was_queued_goes_out_after_the_upgrade() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with world.websocket(sid) as websocket:
            await world.post(sid, "4one\x1e4two")
            await websocket.send_message("2probe")
            await websocket.send_message("5")
            await websocket.send_message("4three")
            received = [await receive(websocket) for _ in range(4)]
            assert received == ["3probe", "4one", "4two", "4three"]


async def test_after_the_upgrade_polling_is_400() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with world.websocket(sid) as websocket:
            await websocket.send_message("2probe")
            await websocket.send_message("5")
            assert await receive(websocket) == "3probe"
            await websocket.send_message("4hello")
            assert await receive(websocket) == "4hello"
            assert (await world.poll(sid)).status == 400
            assert (await world.post(sid, "4hello")).status == 400
            await websocket.send_message("4still here")
            assert await receive(websocket) == "4still here"


async def test_a_second_websocket_is_closed() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with world.websocket(sid) as websocket:
            await websocket.send_message("2probe")
            assert await receive(websocket) == "3probe"
            async with world.websocket(sid) as second:  # while the first still probes
                await receive_end(second)
            await websocket.send_message("5")
            async with world.websocket(sid) as third:
                await receive_end(third)
            await websocket.send_message("4hello")
            assert await receive(websocket) == "4hello"


@pytest.mark.parametrize("frames", [["5"], ["4hello"], ["2probe", "2probe"], ["2probe", "4x"], [b"2probe"]])
async def test_a_bad_probe_leaves_the_session_polling(frames: list[str | bytes]) -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with world.websocket(sid) as websocket:
            for frame in frames:
                await websocket.send_message(frame)
            await receive_end(websocket)
        await world.post(sid, "4hello")
        assert (await world.poll(sid)).text == "4hello"
        async with world.websocket(sid) as websocket:  # and it may try again
            await websocket.send_message("2probe")
            assert await receive(websocket) == "3probe"


async def test_an_upgrade_has_a_time_limit() -> None:
    async with open_world(replace(CALM, upgrade_timeout=0.1)) as world:
        sid = await world.open_polling()
        async with world.websocket(sid) as websocket:
            await websocket.send_message("2probe")
            assert await receive(websocket) == "3probe"
            await receive_end(websocket)
        await world.post(sid, "4hello")
        assert (await world.poll(sid)).text == "4hello"


# Slow clients


async def test_a_client_that_does_not_poll_is_closed_when_its_queue_is_full() -> None:
    async with open_world(replace(CALM, max_queued_packets=10)) as world:
        sid = await world.open_polling()
        engine = world.handlers[0].engine
        for _ in range(11):
            engine.send(["more"])
        assert engine.closed
        assert world.handlers[0].reasons == ["slow client"]
        assert (await world.poll(sid)).status == 400
        assert world.server.stats.slow_clients == 1


async def test_a_websocket_that_does_not_read_is_closed_when_its_queue_is_full() -> None:
    config = replace(CALM, max_queued_bytes=3_000_000)
    async with open_world(config) as world, connect_http(world.url) as client:
        await client.send("GET", f"{PATH}?EIO=4&transport=websocket", headers=UPGRADE)
        await until(lambda: world.handlers)
        engine = world.handlers[0].engine
        with trio.fail_after(20):
            while not engine.closed:
                engine.send([b"x" * 500_000])
                await trio.lowlevel.checkpoint()
        assert world.handlers[0].reasons == ["slow client"]
        await world.until_no_session()
        await until(lambda: not world.door.stats.connections)


async def test_a_websocket_write_has_a_deadline() -> None:
    config = replace(CALM, max_queued_bytes=100_000_000)
    async with open_world(config, write_timeout=0.2) as world, world.websocket() as websocket:
        await receive(websocket)
        # trio-websocket's client reads two messages ahead, then no more until somebody takes them.
        for _ in range(40):
            world.handlers[0].engine.send([b"x" * 1_000_000])
        await world.until_no_session()
        assert world.handlers[0].reasons == ["transport error"]


# Shutting down


async def test_stopping_the_server_ends_everything() -> None:
    async with open_world() as world:
        sid = await world.open_polling()
        async with connect_http(world.url) as poll, connect_http(world.url) as websocket:
            await poll.send("GET", world.polling_url(sid).removeprefix(world.door.url))
            await websocket.send("GET", f"{PATH}?EIO=4&transport=websocket", headers=UPGRADE)
            await world.until_polled()
            await until(lambda: world.server.session_count == 2)
            world.door.scope.cancel()
            assert await poll.closed() == b""
            await websocket.closed()
        await world.until_no_session()
        assert [handler.reasons for handler in world.handlers] == [["transport close"], ["transport error"]]
