"""A small synchronous Socket.IO client over one WebSocket, for the load generator.

Owned by :mod:`bench.users` and the driver of this project's server: requests block while calls are set up; afterwards
``fileno`` goes into the generator's epoll and ``read_waiting`` answers the server's heartbeats. Tests have their own
trio client in ``tests/support``.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections import deque
from typing import Any, Final, Self
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)

_TIMEOUT: Final = 10.0


class SignallingError(Exception):
    """The server refused, closed, or did not answer within ten seconds."""


class SignallingClient:
    """One user: connects in the constructor, ``close`` or the ``with`` statement ends it. Events are not looked at."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise SignallingError(f"only http:// URLs are spoken here, not {url}")
        self.sid = ""
        self._acks: dict[int, Any] = {}
        self._next_ack = 0
        self._text = ""
        self._messages: deque[str] = deque()
        self._websocket = WSConnection(ConnectionType.CLIENT)
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=_TIMEOUT)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = Request(host=parts.netloc, target="/socket.io/?EIO=4&transport=websocket")
            self._socket.sendall(self._websocket.send(request))
            deadline = time.monotonic() + _TIMEOUT
            self._expect("0", deadline)
            self._send("40")
            self.sid = json.loads(self._expect("40", deadline)[2:])["sid"]
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self, event: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its ack. Raises SignallingError on an error ack."""
        number = self._next_ack
        self._next_ack += 1
        self._send(f"42{number}{json.dumps([event, payload])}")
        deadline = time.monotonic() + _TIMEOUT
        while number not in self._acks:
            self._receive(deadline)
        reply = self._acks.pop(number)[0]
        if not isinstance(reply, dict) or "error" in reply:
            raise SignallingError(f"{event}: {reply}")
        return reply

    def read_waiting(self) -> None:
        """Take what has arrived, without blocking, and answer pings. Raises SignallingError when closed."""
        try:
            data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self._feed(data)
        while self._messages:
            self._handle(self._messages.popleft())

    def close(self) -> None:
        try:
            self._socket.sendall(self._websocket.send(CloseConnection(code=1000)))
        except Exception:
            pass  # Closed already, by whichever side.
        self._socket.close()

    def abort(self) -> None:
        """End without a goodbye, as a machine that is switched off; the connection is reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _expect(self, prefix: str, deadline: float) -> str:
        while True:
            while self._messages:
                message = self._messages.popleft()
                if message.startswith(prefix):
                    return message
                self._handle(message)
            self._receive(deadline, handle=False)

    def _receive(self, deadline: float, *, handle: bool = True) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise SignallingError("the server did not answer in time")
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise SignallingError("the server did not answer in time") from None
        self._feed(data)
        while handle and self._messages:
            self._handle(self._messages.popleft())

    def _feed(self, data: bytes) -> None:
        if not data:
            raise SignallingError("the server closed the connection")
        self._websocket.receive_data(data)
        for event in self._websocket.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, TextMessage):
            self._text += event.data
            if event.message_finished:
                self._messages.append(self._text)
                self._text = ""
        elif isinstance(event, Ping):
            self._socket.sendall(self._websocket.send(event.response()))
        elif isinstance(event, RejectConnection):
            raise SignallingError(f"the server refused the WebSocket with status {event.status_code}")
        elif isinstance(event, CloseConnection):
            raise SignallingError(f"the server closed the WebSocket: {event.code} {event.reason or ''}")
        elif not isinstance(event, AcceptConnection):
            return

    def _handle(self, message: str) -> None:
        if message.startswith("2"):
            self._send("3" + message[1:])
        elif message.startswith("43"):
            bracket = message.index("[")
            self._acks[int(message[2:bracket])] = json.loads(message[bracket:])
        elif message.startswith(("1", "41", "44")):
            raise SignallingError(f"the server ended the session: {message[:200]}")

    def _send(self, message: str) -> None:
        self._socket.settimeout(_TIMEOUT)
        self._socket.sendall(self._websocket.send(TextMessage(message)))
