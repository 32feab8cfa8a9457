"""Socket.IO v5 through real sockets: what the protocol's own test suite checks, and what hostile clients
try.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.support.alive import alive
from tests.support.front_door import FrontDoor, nothing_left, open_front_door
from tests.support.http_client import fetch
from tests.support.socketio_client import ClientClosed, connect_engineio, connect_socketio
from tests.support.until import until
from tests.support.websocket_client import connect_websocket
from trio_sfu.protocols.engineio import EngineConfig
from trio_sfu.protocols.socketio import EventReceived
from trio_sfu.signalling.engineio import EngineServer, engineio_routes
from trio_sfu.signalling.http import HttpLimits
from trio_sfu.signalling.socketio import (
    Socket,
    SocketDisconnected,
    SocketIOConfig,
    SocketIOStats,
    open_socketio,
)

#: As the official suite wants it.
SUITE = EngineConfig(ping_interval=0.3, ping_timeout=0.2, close_timeout=0.2)
CALM = EngineConfig(close_timeout=0.2)
TRANSPORTS: list[Literal["websocket", "polling"]] = ["websocket", "polling"]


class SuiteApplication:
    """What the official suite's server does, and a few things more."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.ended: list[tuple[str, str]] = []
        self.events: list[str] = []
        self.release = trio.Event()

    async def connected(self, socket: Socket, auth: object) -> None:
        self.sockets.append(socket)
        socket.emit("auth", auth or {})

    async def event(self, socket: Socket, name: str, args: list[object]) -> list[object]:
        self.events.append(name)
        match name:
            case "message":
                socket.emit("message-back", *args)
            case "message-with-ack":
                return args
            case "call":
                return [await socket.call("called", *args, timeout=5)]
            case "wait":
                await self.release.wait()
            case "after-ack" | "bug-after-ack":
                socket.after_ack(lambda: socket.emit("after"))
                socket.emit("before")
                if name == "bug-after-ack":
                    raise LookupError("a bug")
            case "bug":
                raise LookupError("a bug")
            case "not-json":
                return [object()]
            case "disconnect-me":
                socket.emit("last")
                socket.disconnect()
            case "flood":
                for _ in range(2000):
                    socket.emit("flood", "x" * 5000)
        return []

    async def disconnected(self, socket: Socket, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        self.ended.append((socket.id, reason))


@dataclass
class World:
    door: FrontDoor
    server: EngineServer
    application: SuiteApplication
    stats: SocketIOStats

    @property
    def url(self) -> str:
        return self.door.url

    async def until_no_session(self) -> None:
        await until(lambda: not self.server.session_count)


@asynccontextmanager
async def open_world(
    config: EngineConfig = CALM, *, connect_timeout: float = 45.0, finish_timeout: float = 5.0
) -> AsyncIterator[World]:
    application = SuiteApplication()
    stats = SocketIOStats()
    socketio_config = SocketIOConfig(connect_timeout=connect_timeout, finish_timeout=finish_timeout)
    limits = HttpLimits(close_timeout=0.3)
    async with nothing_left():
        async with (
            open_socketio({"/": application, "/custom": application}, config, socketio_config, stats=stats) as server,
            open_front_door(engineio_routes(server), limits=limits) as door,
        ):
            yield World(door, server, application, stats)
        assert server.session_count == 0
        assert stats.sockets == 0
        # Once for each connected(), no more and no less.
        assert sorted(sid for sid, _ in application.ended) == sorted(s.id for s in application.sockets)


@asynccontextmanager
async def engine_websocket(world: World) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket whose Engine.IO handshake is done."""
    url = f"{world.door.websocket_url}/socket.io/?EIO=4&transport=websocket"
    async with connect_websocket(url) as websocket:
        assert str(await receive(websocket)).startswith("0{")
        yield websocket


@asynccontextmanager
async def socket_websocket(world: World) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket connected to the namespace "/"."""
    async with engine_websocket(world) as websocket:
        await websocket.send_message("40")
        assert str(await receive(websocket)).startswith('40{"sid":"')
        assert await receive(websocket) == '42["auth",{}]'
        yield websocket


async def receive(websocket: WebSocketConnection) -> str | bytes:
    with trio.fail_after(5):
        return await websocket.get_message()


async def receive_end(websocket: WebSocketConnection) -> None:
    """Pings may come before the end."""
    with trio.fail_after(5):
        try:
            while True:
                assert await websocket.get_message() == "2"
        except ConnectionClosed:
            pass


async def test_who_waits_for_the_next_event_does_not_hold_on_to_the_last() -> None:
    async with open_world() as world, socket_websocket(world) as websocket:
        await websocket.send_message('427["wait",[1]]')
        await until(lambda: alive(EventReceived))  # it is being handled
        world.application.release.set()
        assert await receive(websocket) == "437[]"
        await until(lambda: not alive(EventReceived))


# Connect


@pytest.mark.parametrize(
    ("packet", "head", "auth"),
    [
        ("40", "40", '42["auth",{}]'),
        ('40{"token":"123"}', "40", '42["auth",{"token":"123"}]'),
        ("40/custom,", "40/custom,", '42/custom,["auth",{}]'),
        ('40/custom,{"token":"abc"}', "40/custom,", '42/custom,["auth",{"token":"abc"}]'),
    ],
)
async def test_connect(packet: str, head: str, auth: str) -> None:
    async with open_world() as world, engine_websocket(world) as websocket:
        await websocket.send_message(packet)
        answer = str(await receive(websocket))
        assert answer.startswith(head + "{")
        handshake = json.loads(answer[len(head) :])
        assert handshake == {"sid": world.application.sockets[0].id}
        assert await receive(websocket) == auth


async def test_the_sid_is_not_the_sessions_and_differs_by_namespace() -> None:
    async with open_world() as world, connect_engineio(world.url) as engine:
        await engine.packets.receive()
        await engine.send_raw("40", "40/custom,")
        await until(lambda: len(world.application.sockets) == 2)
        sids = {socket.id for socket in world.application.sockets}
        assert len(sids | {engine.handshake["sid"]}) == 3


async def test_what_is_to_follow_the_acknowledgement_does() -> None:
    """Once, also where the client wants none, or there is a bug."""
    async with open_world() as world, socket_websocket(world) as websocket:
        await websocket.send_message('427["after-ack"]')
        assert [await receive(websocket) for _ in range(3)] == ['42["before"]', "437[]", '42["after"]']
        await websocket.send_message('42["after-ack"]')
        assert [await receive(websocket) for _ in range(2)] == ['42["before"]', '42["after"]']
        await websocket.send_message('428["bug-after-ack"]')
        before, ack, after = [str(await receive(websocket)) for _ in range(3)]
        assert (before, ack[:3], after) == ('42["before"]', "438", '42["after"]')
        await websocket.send_message('429["message-with-ack",1]')
        assert await receive(websocket) == "439[1]"


async def test_an_unknown_namespace() -> None:
    async with open_world() as world, engine_websocket(world) as websocket:
        await websocket.send_message("40/random")
        assert await receive(websocket) == '44/random,{"message":"Invalid namespace"}'
        await websocket.send_message("40")
        assert str(await receive(websocket)).startswith('40{"sid":"')


@pytest.mark.parametrize("packet", ["4abc", "4", "40[]", "40null", '40"x"', "49", "42[]", '42["message"]', "41"])
async def test_an_invalid_connect_closes(packet: str) -> None:
    async with open_world() as world, engine_websocket(world) as websocket:
        await websocket.send_message(packet)
        await receive_end(websocket)
        await world.until_no_session()
        assert world.application.sockets == []


async def test_connecting_twice_closes() -> None:
    async with open_world() as world, socket_websocket(world) as websocket:
        await websocket.send_message("40")
        await receive_end(websocket)


@pytest.mark.parametrize("packets", [[], ["40/random"]])
async def test_a_client_that_does_not_connect_in_time_is_closed(packets: list[str]) -> None:
    async with open_world(connect_timeout=0.2) as world:
        async with engine_websocket(world) as websocket:
            for packet in packets:
                await websocket.send_message(packet)
                await receive(websocket)
            await receive_end(websocket)
            assert world.stats.connect_timeouts == 1
        sid = json.loads((await fetch(f"{world.url}/ws?EIO=4&transport=polling")).text[1:])["sid"]
        await world.until_no_session()
        answer = await fetch(f"{world.url}/ws?EIO=4&transport=polling&sid={sid}")
        assert answer.status == 400


async def test_a_client_that_connects_in_time_stays() -> None:
    async with open_world(SUITE, connect_timeout=0.2) as world, socket_websocket(world) as websocket:
        for _ in range(3):
            assert await receive(websocket) == "2"
            await websocket.send_message("3")
        assert world.stats.connect_timeouts == 0


# Disconnect


async def test_disconnect_leaves_the_session_open() -> None:
    async with open_world(SUITE) as world, socket_websocket(world) as websocket:
        await websocket.send_message("41")
        assert await receive(websocket) == "2"
        await until(lambda: world.application.ended)
        assert world.application.ended[0][1] == "client namespace disconnect"
        await websocket.send_message("40")
        assert str(await receive(websocket)).startswith('40{"sid":"')
        assert len({socket.id for socket in world.application.sockets}) == 2


async def test_after_the_last_disconnect_the_time_limit_runs_again() -> None:
    async with open_world(connect_timeout=0.2) as world, socket_websocket(world) as websocket:
        await websocket.send_message("41")
        await receive_end(websocket)


async def test_connect_and_disconnect_in_another_namespace() -> None:
    async with open_world() as world, socket_websocket(world) as websocket:
        await websocket.send_message("40/custom")
        assert str(await receive(websocket)).startswith('40/custom,{"sid":"')
        assert await receive(websocket) == '42/custom,["auth",{}]'
        await websocket.send_message("41/custom")
        await websocket.send_message('42["message","message to main namespace"]')
        assert await receive(websocket) == '42["message-back","message to main namespace"]'


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_server_disconnects(transport: Literal["websocket", "polling"]) -> None:
    async with open_world() as world, connect_socketio(world.url, transport=transport) as client:
        await client.emit("disconnect-me")
        await client.next_event("last")
        with trio.fail_after(5):
            await client.closed.wait()
        await world.until_no_session()
        assert world.application.ended == [(client.sid, "server namespace disconnect")]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_client_disconnects(transport: Literal["websocket", "polling"]) -> None:
    async with open_world() as world, connect_socketio(world.url, transport=transport) as client:
        await client.emit("message", 1)  # what came before is done before
        await client.disconnect()
        await world.until_no_session()
        assert world.application.events == ["message"]
        assert world.application.ended == [(client.sid, "client namespace disconnect")]


async def test_events_before_the_end_are_done_for_a_limited_time() -> None:
    async with open_world(finish_timeout=0.2) as world:
        async with connect_socketio(world.url) as client:
            await client.emit("wait")
            await client.emit("message")
            await until(lambda: world.application.events)
        await world.until_no_session()
        assert world.application.events == ["wait"]
        assert world.application.ended == [(client.sid, "client going away")]


async def test_a_ping_timeout_ends_the_socket() -> None:
    async with open_world(SUITE) as world:
        async with connect_socketio(world.url) as client:
            client.engine.answer_pings = False
            with trio.fail_after(5):
                await client.closed.wait()
        await world.until_no_session()
        assert world.application.ended == [(client.sid, "ping timeout")]


async def test_stopping_the_server_ends_the_sockets() -> None:
    async with open_world(SUITE) as world:
        for transport in TRANSPORTS:
            async with connect_socketio(world.url, transport=transport) as client:
                await client.emit("wait")
                await until(lambda: len(world.application.events) == len(world.application.sockets))
                if transport == "polling":
                    world.door.scope.cancel()
                    with trio.fail_after(5):
                        await client.closed.wait()


# Messages


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        ('42["message",1,"2",{"3":[true]}]', '42["message-back",1,"2",{"3":[true]}]'),
        ('42456["message-with-ack",1,"2",{"3":[false]}]', '43456[1,"2",{"3":[false]}]'),
        ('42["message","\\u00e4\\ud83d\\ude00"]', '42["message-back","\\u00e4\\ud83d\\ude00"]'),
        ('42["message","ä😀"]', '42["message-back","\\u00e4\\ud83d\\ude00"]'),
        ('450-7["message-with-ack"]', "437[]"),
        ('42["message",{"_placeholder":true,"num":0}]', '42["message-back",{"_placeholder":true,"num":0}]'),
    ],
)
async def test_text_packets(packet: str, answer: str) -> None:
    async with open_world() as world, socket_websocket(world) as websocket:
        await websocket.send_message(packet)
        assert await receive(websocket) == answer


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (
            '452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
            '452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
        ),
        (
            '452-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
            '462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
        ),
    ],
)
async def test_binary_packets(packet: str, answer: str) -> None:
    async with open_world() as world, socket_websocket(world) as websocket:
        for frame in (packet, b"\x01\x02\x03", b"\x04\x05\x06"):
            await websocket.send_message(frame)
        received = [await receive(websocket) for _ in range(3)]
        assert received == [answer, b"\x01\x02\x03", b"\x04\x05\x06"]


@pytest.mark.parametrize(
    "packets",
    [
        ["4abc"],
        ["4"],
        ["42{}"],
        ["42[]"],
        ["42[1]"],
        ['42abc["message-with-ack",1,"2",{"3":[false]}]'],
        ['42["disconnect"]'],
        ['42["message"'],
        ["43[]"],
        ["431{}"],
        ['44{"message":"no"}'],
        ["41[]"],
        ["45[]"],
        ['451-["message",{"_placeholder":true,"num":0}]', "42[]"],
        ['451-["message",{"_placeholder":true,"num":1}]', b"x"],
        ['451-["message",{"_placeholder":true,"num":-1}]', b"x"],
        ['451-["message",{"_placeholder":true,"num":"0"}]', b"x"],
        ['45999999999-["message"]'],
        ['45100000-["message"]'],
        [b"unasked"],
        ['42/custom,["message"]'],
        ["41/custom,"],
        ['47["message"]'],
        ['421234567890123456789["message"]'],
    ],
)
async def test_malformed_packets_close(packets: list[str | bytes]) -> None:
    async with open_world() as world, socket_websocket(world) as websocket:
        for packet in packets:
            await websocket.send_message(packet)
        await receive_end(websocket)
        await world.until_no_session()
        assert world.application.events == []
        assert world.application.ended == [(world.application.sockets[0].id, "parse error")]


@pytest.mark.parametrize("levels", [100, 20_000])
async def test_a_payload_nested_too_deep_gets_an_error(levels: int) -> None:
    async with open_world() as world, socket_websocket(world) as websocket:
        deep = "[" * levels + "]" * levels
        await websocket.send_message(f'42["message",{deep}]')
        await websocket.send_message(f'421["message-with-ack",{deep}]')
        answer = str(await receive(websocket))
        assert answer.startswith('431[{"error":"')
        assert json.loads(answer[3:])[0]["code"] == "payload-too-deep"
        await websocket.send_message('422["message-with-ack"]')
        assert await receive(websocket) == "432[]"


async def test_a_payload_too_large_gets_an_error() -> None:
    async with open_world() as world, connect_socketio(world.url) as client:
        answer = await client.request("message-with-ack", {"roomId": "x" * 2_000_000})
        assert answer["code"] == "payload-too-large"
        assert await client.call("message-with-ack", 1) == [1]


async def test_what_is_too_large_and_no_event_closes() -> None:
    async with open_world() as world, connect_socketio(world.url) as client:
        await client.send_raw("43" + "1" * 1_500_000)
        with trio.fail_after(5):
            await client.closed.wait()


# Both ways, by either transport


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_events_and_acknowledgements(transport: Literal["websocket", "polling"]) -> None:
    async with open_world() as world, connect_socketio(world.url, transport=transport, auth={"a": 1}) as client:
        assert await client.next_event("auth") == [{"a": 1}]
        args: list[Any] = [1, "zwei", None, {"drei": [b"\x00\xff", {"vier": b""}]}]
        await client.emit("message", *args)
        assert await client.next_event("message-back") == args
        assert await client.call("message-with-ack", *args) == args
        client.answer = lambda name, args: [name, *args]
        assert await client.call("call", *args) == [["called", *args]]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_events_are_handled_in_order_one_at_a_time(transport: Literal["websocket", "polling"]) -> None:
    async with open_world() as world, connect_socketio(world.url, transport=transport) as client:
        await client.emit("wait")
        for number in range(20):
            await client.emit(f"event-{number}")
        await until(lambda: world.application.events)
        assert world.application.events == ["wait"]
        world.application.release.set()
        await client.call("message-with-ack")
        expected = ["wait", *(f"event-{number}" for number in range(20)), "message-with-ack"]
        assert world.application.events == expected


async def test_a_client_with_too_much_waiting_is_held_back_and_no_other() -> None:
    async with (
        open_world() as world,
        connect_socketio(world.url) as busy,
        connect_socketio(world.url) as other,
        trio.open_nursery() as nursery,
    ):
        await busy.emit("wait")

        async def emit_many() -> None:
            for _ in range(300):
                await busy.emit("message", "x" * 10_000)

        nursery.start_soon(emit_many)
        for _ in range(10):
            assert await other.call("message-with-ack", 1) == [1]
        assert "message" not in world.application.events
        world.application.release.set()
        await until(lambda: world.application.events.count("message") == 300)


async def test_a_call_needs_no_place_in_the_queue() -> None:
    async with open_world() as world, connect_socketio(world.url) as client:
        client.answer = lambda name, args: ["yes"]
        with trio.fail_after(5):
            first = world.application.sockets[0]
            await client.emit("wait")
            assert await first.call("anything", timeout=3) == ["yes"]


async def test_a_call_ends_with_its_time_or_its_socket(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        async with connect_engineio(world.url) as engine:
            await engine.packets.receive()
            await engine.send_raw("40")
            await until(lambda: world.application.sockets)
            socket = world.application.sockets[0]
            with pytest.raises(trio.TooSlowError):
                await socket.call("unanswered", timeout=0.05)
            await engine.send_raw("430[1]", "4399[1]")  # too late, and never asked
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    with pytest.raises(SocketDisconnected):
                        await socket.call("unanswered", timeout=5)

                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                await engine.send_raw("1")
        with pytest.raises(SocketDisconnected):
            await socket.call("gone", timeout=5)
        socket.emit("gone")
        socket.disconnect()


@pytest.mark.parametrize("event", ["bug", "not-json"])
async def test_a_bug_is_logged_and_answered(event: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world, connect_socketio(world.url) as client:
        assert (await client.request(event))["code"] == "internal"
        assert await client.call("message-with-ack", 1) == [1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_emit_rejects_what_is_not_json() -> None:
    async with open_world() as world, connect_socketio(world.url):
        with pytest.raises(TypeError):
            world.application.sockets[0].emit("event", object())
        with pytest.raises(ValueError, match="JSON"):
            world.application.sockets[0].emit("event", float("nan"))


async def test_a_slow_client_is_disconnected() -> None:
    async with open_world(replace(CALM, max_queued_bytes=1_000_000)) as world:
        async with connect_socketio(world.url, transport="polling") as client:
            await client.emit("flood")
            with trio.fail_after(5):
                await client.closed.wait()
        await world.until_no_session()
        assert world.application.ended == [(client.sid, "slow client")]


async def test_strangers_make_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_world() as world:
        for packet in ("4abc", "zzz", b"x", "42" + "[" * 50_000, "1", "5", "2probe"):
            async with engine_websocket(world) as websocket:
                await websocket.send_message(packet)
        await world.until_no_session()
    assert caplog.records == []


async def test_the_client_for_tests_says_when_it_was_refused() -> None:
    async with open_world() as world:
        with pytest.raises(ClientClosed):
            async with connect_socketio(world.url, path="/nowhere/"):
                pass
