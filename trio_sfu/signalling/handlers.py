"""What the server does with Socket.IO events: payloads to typed requests, requests to rooms, replies to acks.

Made by server.py; the Socket.IO layer calls :class:`Handlers` (its ``SocketApplication``), the rooms
call :meth:`Sockets.deliver`. Whatever a client sends, each event gets its ack: an object, which is
``{error, code}`` for a failure. Nothing a client sends is logged above debug level.
"""

import logging
from collections.abc import Callable
from typing import Final, Protocol

import trio

from trio_sfu.rooms.envelopes import Event
from trio_sfu.rooms.messages import REQUESTS, Reply, Request, RequestError, to_wire
from trio_sfu.signalling.payloads import InvalidPayload, decode_payload

logger = logging.getLogger(__name__)

REQUESTS_PER_SECOND: Final = 100.0
REQUEST_BURST: Final = 200.0


class ClientSocket(Protocol):
    """What this module needs of a Socket.IO socket."""

    @property
    def id(self) -> str:
        """The Socket.IO sid, which is the user's id."""

    def emit(self, name: str, *args: object) -> None:
        """Send an event; never blocks."""


class RequestHandler(Protocol):
    """What this module needs of the rooms."""

    async def request(self, user_id: str, request: Request) -> Reply:
        """Carry out a request."""

    async def leave_all(self, user_id: str) -> None:
        """Free all that a user owns."""


class Sockets:
    """The connected sockets, by user id: the way out for events. One for a server."""

    def __init__(self) -> None:
        self._sockets: dict[str, ClientSocket] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def add(self, socket: ClientSocket) -> None:
        """Let events reach this socket."""
        self._sockets[socket.id] = socket

    def remove(self, socket: ClientSocket) -> None:
        """The opposite; events for it are dropped from now on."""
        self._sockets.pop(socket.id, None)

    def deliver(self, event: Event) -> None:
        """Send an event to its users, those who are still there. Never blocks."""
        payload = to_wire(event.payload)
        for user_id in event.user_ids:
            socket = self._sockets.get(user_id)
            if socket is not None:
                socket.emit(event.name, payload)


class TokenBucket:
    """At most ``burst`` at once, and ``rate`` a second in the long run."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more is within the bounds now (seconds, monotonic)."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Handlers:
    """The application behind the Socket.IO sockets."""

    def __init__(
        self,
        rooms: RequestHandler,
        sockets: Sockets,
        *,
        rate: float = REQUESTS_PER_SECOND,
        burst: float = REQUEST_BURST,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        # Given
        self._rooms = rooms
        self._sockets = sockets
        self._rate = rate
        self._burst = burst
        self._clock = clock
        # Owned
        self._buckets: dict[str, TokenBucket] = {}

    async def connected(self, socket: ClientSocket, auth: object) -> None:
        """A client has connected. ``auth`` is what it sent along; this server asks for nothing."""
        self._buckets[socket.id] = TokenBucket(self._rate, self._burst, self._clock())
        self._sockets.add(socket)

    async def event(self, socket: ClientSocket, name: str, args: list[object]) -> list[object]:
        """Carry out a client's request. The result is the ack's one object, in a list."""
        return [to_wire(await self._reply(socket.id, name, args))]

    async def disconnected(self, socket: ClientSocket, reason: str) -> None:
        """A client has gone: free all that it owned. Works in a cancelled scope, too."""
        self._sockets.remove(socket)
        self._buckets.pop(socket.id, None)
        logger.debug("Socket %s has gone: %s", socket.id, reason)
        await self._rooms.leave_all(socket.id)

    async def _reply(self, user_id: str, name: str, args: list[object]) -> Reply:
        bucket = self._buckets.get(user_id)
        if bucket is None or not bucket.take(self._clock()):
            return RequestError(code="rate-limited", message="Too many requests; slow down")
        request_type = REQUESTS.get(name)
        if request_type is None:
            return RequestError(code="unknown-event", message="The server knows no such event")
        try:
            request = decode_payload(name, request_type, args)
        except InvalidPayload as error:
            return RequestError(code="invalid-payload", message=str(error))
        return await self._rooms.request(user_id, request)
