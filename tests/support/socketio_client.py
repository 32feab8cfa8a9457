"""A Socket.IO v5 client over trio, for tests: both transports, and raw packets for the hostile ones.

It shares no code with the server, so that a mistake made twice does not pass.
"""

from __future__ import annotations

import base64
import json
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection

from tests.support.http_client import connect_http
from tests.support.websocket_client import connect_websocket

_SEPARATOR = "\x1e"


class ClientClosed(Exception):
    """The connection is over."""


class EngineClient:
    """An Engine.IO session by one transport. Pings are answered unless ``answer_pings`` is False."""

    def __init__(self, url: str, path: str, tls: ssl.SSLContext | None) -> None:
        self.handshake: dict[str, Any] = {}
        self.answer_pings = True
        self.closed = trio.Event()
        self._url, self._path, self._tls = url, path, tls
        self._websocket: WebSocketConnection | None = None
        self._stream: trio.abc.Stream | None = None
        self._packets_in, self.packets = trio.open_memory_channel[str | bytes](math.inf)

    async def send_raw(self, *packets: str | bytes) -> None:
        """Engine.IO packets as they are: ``"4hello"``, ``b"binary"``. By polling: one POST. Raises
        ClientClosed.
        """
        if self._websocket is not None:
            try:
                for packet in packets:
                    await self._websocket.send_message(packet)
            except ConnectionClosed:
                raise ClientClosed from None
            return
        records = [
            "b" + base64.b64encode(packet).decode() if isinstance(packet, bytes) else packet for packet in packets
        ]
        async with connect_http(self._url, tls=self._tls) as http:
            target = f"{self._path}?EIO=4&transport=polling&sid={self.handshake['sid']}"
            answer = await http.request("POST", target, body=_SEPARATOR.join(records).encode())
        if answer.status != 200:
            raise ClientClosed(answer.text)

    async def poll_again(self) -> None:
        """Poll on another connection, as browsers do whose first one was reset, until the server refuses."""
        target = f"{self._path}?EIO=4&transport=polling&sid={self.handshake['sid']}"
        with trio.fail_after(10):
            async with connect_http(self._url, tls=self._tls) as http:
                while (await http.request("GET", target)).status == 200:
                    pass

    def cut(self, *, reset: bool) -> None:
        """End the TCP connection as a process does that dies, or (``reset``) a machine: without another byte."""
        assert isinstance(self._stream, trio.SocketStream)
        if reset:  # closing without lingering sends RST
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._stream.socket.close()
        else:
            self._stream.socket.shutdown(socket.SHUT_RDWR)

    async def run_websocket(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket
        self._stream = websocket._stream
        try:
            while True:
                await self._take(await websocket.get_message())
        except ConnectionClosed:
            self._end()

    async def run_polling(self) -> None:
        target = f"{self._path}?EIO=4&transport=polling"
        try:
            async with connect_http(self._url, tls=self._tls) as http:
                self._stream = http.stream
                while not self.closed.is_set():
                    sid = self.handshake.get("sid")
                    await http.send("GET", target + (f"&sid={sid}" if sid else ""))
                    with trio.fail_after(60):
                        answer = await http.answer()
                    if answer.status != 200:
                        break
                    for record in answer.text.split(_SEPARATOR):
                        await self._take(base64.b64decode(record[1:]) if record[:1] == "b" else record)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ClientClosed):
            pass
        finally:
            self._end()

    async def _take(self, packet: str | bytes) -> None:
        if isinstance(packet, str) and packet[:1] == "0":
            self.handshake = json.loads(packet[1:])
        elif packet == "2":
            if self.answer_pings:
                await self.send_raw("3")
            return
        elif packet == "1":
            self._end()
            return
        elif packet == "6":
            return
        self._packets_in.send_nowait(packet)

    def _end(self) -> None:
        self.closed.set()
        self._packets_in.close()


class SocketIOClient:
    """A socket in the namespace "/". ``events`` yields (name, args); ``answer`` makes acknowledgements."""

    def __init__(self, engine: EngineClient) -> None:
        self.engine = engine
        self.sid = ""
        #: For events of the server that want an acknowledgement: name and arguments to its arguments.
        self.answer: Callable[[str, list[Any]], list[Any]] = lambda name, args: []
        self._events_in, self.events = trio.open_memory_channel[tuple[str, list[Any]]](math.inf)
        self._connected = trio.Event()
        self._acks: dict[int, trio.Event] = {}
        self._answers: dict[int, list[Any]] = {}
        self._next_id = 0

    @property
    def closed(self) -> trio.Event:
        return self.engine.closed

    async def request(self, event: str, *args: Any, seconds: float = 10) -> dict[str, Any]:
        """An event with an acknowledgement of one object, as all requests of the server are."""
        (answer,) = await self.call(event, *args, seconds=seconds)
        assert isinstance(answer, dict)
        return answer

    async def call(self, event: str, *args: Any, seconds: float = 10) -> list[Any]:
        """An event and its acknowledgement's arguments. Raises trio.TooSlowError, ClientClosed."""
        ack_id = self._new_ack_id()
        await self._send("2", [event, *args], ack_id)
        return await self._answer(ack_id, seconds)

    async def request_text(
        self, text: str, *attachments: bytes, ack_id: int | None = None, seconds: float = 10
    ) -> dict[str, Any]:
        """As :meth:`request`; the array of name and arguments goes over the wire as it is."""
        if ack_id is None:
            ack_id = self._new_ack_id()
        else:
            self._acks[ack_id] = trio.Event()
        kind = f"45{len(attachments)}-" if attachments else "42"
        await self.send_raw(f"{kind}{ack_id}{text}", *attachments)
        (answer,) = await self._answer(ack_id, seconds)
        assert isinstance(answer, dict)
        return answer

    async def request_texts(self, texts: Sequence[str], *, seconds: float = 10) -> list[dict[str, Any]]:
        """As :meth:`request_text`, all sent at once (by polling: in one POST); the answers in order."""
        ack_ids = [self._new_ack_id() for _ in texts]
        await self.send_raw(*[f"42{ack_id}{text}" for ack_id, text in zip(ack_ids, texts, strict=True)])
        return [(await self._answer(ack_id, seconds))[0] for ack_id in ack_ids]

    def _new_ack_id(self) -> int:
        ack_id, self._next_id = self._next_id, self._next_id + 1
        self._acks[ack_id] = trio.Event()
        return ack_id

    async def _answer(self, ack_id: int, seconds: float) -> list[Any]:
        done = self._acks[ack_id]
        with trio.fail_after(seconds):
            await done.wait()
        if ack_id not in self._answers:
            raise ClientClosed
        return self._answers.pop(ack_id)

    async def emit(self, event: str, *args: Any) -> None:
        await self._send("2", [event, *args], None)

    async def next_event(self, name: str | None = None, *, seconds: float = 10) -> list[Any]:
        """The next event's arguments; with ``name``, of the next one so called, others dropped."""
        with trio.fail_after(seconds):
            while True:
                try:
                    received, args = await self.events.receive()
                except trio.EndOfChannel:
                    raise ClientClosed from None
                if name in (None, received):
                    return args

    async def send_raw(self, *packets: str | bytes) -> None:
        await self.engine.send_raw(*packets)

    async def disconnect(self) -> None:
        """Leave the namespace, then the session, as socket.io-client does."""
        await self.send_raw("41")
        await self.send_raw("1")
        with trio.fail_after(10):
            await self.closed.wait()

    async def _send(self, kind: str, data: list[Any], ack_id: int | None) -> None:
        attachments: list[bytes] = []
        text = json.dumps(_take_out(data, attachments))
        number = "" if ack_id is None else str(ack_id)
        if attachments:
            kind = {"2": "5", "3": "6"}[kind] + f"{len(attachments)}-"
        await self.send_raw(f"4{kind}{number}{text}", *attachments)

    async def run(self, auth: Any) -> None:
        """Take packets until the connection is over."""
        head: str | None = None
        attachments: list[bytes] = []
        try:
            async for packet in self.engine.packets:
                if isinstance(packet, str) and packet[0] == "0":
                    await self.send_raw("40" + ("" if auth is None else json.dumps(auth)))
                    continue
                if isinstance(packet, bytes):
                    attachments.append(packet)
                elif packet[:2] in ("45", "46"):
                    head, attachments = packet, []
                else:
                    await self._receive(packet[1:], [])
                    continue
                assert head is not None
                count, _, rest = head[2:].partition("-")
                if len(attachments) == int(count):
                    kind = {"5": "2", "6": "3"}[head[1]]
                    await self._receive(kind + rest, attachments)
        except ClientClosed:
            pass
        finally:
            for done in self._acks.values():
                done.set()
            self._connected.set()
            self._events_in.close()

    async def _receive(self, text: str, attachments: list[bytes]) -> None:
        kind, rest = text[0], text[1:]
        start = next((i for i, char in enumerate(rest) if char in "[{"), len(rest))
        number = rest[:start]
        data = _put_back(json.loads(rest[start:] or "null"), attachments)
        if kind == "0":
            self.sid = data["sid"]
            self._connected.set()
        elif kind == "1":
            self.engine.closed.set()
        elif kind == "2":
            self._events_in.send_nowait((data[0], data[1:]))
            if number:
                await self._send("3", self.answer(data[0], data[1:]), int(number))
        elif kind == "3":
            self._answers[int(number)] = data
            self._acks[int(number)].set()

    async def connected(self) -> bool:
        """Wait until the server has taken the client in; False: it has not, and the connection is over."""
        with trio.fail_after(10):
            await self._connected.wait()
        return bool(self.sid)


def _take_out(data: Any, attachments: list[bytes]) -> Any:
    if isinstance(data, bytes):
        attachments.append(data)
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(data, list):
        return [_take_out(item, attachments) for item in data]
    if isinstance(data, dict):
        return {key: _take_out(value, attachments) for key, value in data.items()}
    return data


def _put_back(data: Any, attachments: list[bytes]) -> Any:
    if isinstance(data, list):
        return [_put_back(item, attachments) for item in data]
    if isinstance(data, dict):
        if data.get("_placeholder") is True and attachments:
            return attachments[data["num"]]
        return {key: _put_back(value, attachments) for key, value in data.items()}
    return data


@asynccontextmanager
async def connect_engineio(
    url: str,
    *,
    transport: Literal["websocket", "polling"] = "websocket",
    path: str = "/socket.io/",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[EngineClient]:
    """An Engine.IO session, its handshake packet the first of ``packets``. ``url`` is http(s)://host:port."""
    engine = EngineClient(url, path, tls)
    if transport == "polling":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run_polling)
            yield engine
            nursery.cancel_scope.cancel()
        return
    target = url.replace("http", "ws", 1) + path + "?EIO=4&transport=websocket"
    try:
        async with (
            connect_websocket(target, tls=tls) as websocket,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(engine.run_websocket, websocket)
            yield engine
            nursery.cancel_scope.cancel()
    except HandshakeError as error:
        raise ClientClosed(str(error)) from error


@asynccontextmanager
async def connect_socketio(
    url: str,
    *,
    transport: Literal["websocket", "polling"] = "websocket",
    path: str = "/socket.io/",
    tls: ssl.SSLContext | None = None,
    auth: Any = None,
) -> AsyncIterator[SocketIOClient]:
    """A connected socket; its connection is closed on leaving. Raises ClientClosed where it cannot be had."""
    async with connect_engineio(url, transport=transport, path=path, tls=tls) as engine:
        client = SocketIOClient(engine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run, auth)
            if await client.connected():
                yield client
            nursery.cancel_scope.cancel()
        if not client.sid:
            raise ClientClosed("the server took no connection")
