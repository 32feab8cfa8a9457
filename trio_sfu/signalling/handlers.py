"""What the server does with Socket.IO events: payloads to typed requests, requests to rooms, replies to acks.

Made by server.py; the Socket.IO layer calls :class:`Handlers` (its ``SocketApplication``), the rooms
call :meth:`Sockets.deliver`. Whatever a client sends, each event gets its ack: an object, which is
``{error, code}`` for a failure. Nothing a client sends is logged above debug level.
"""

import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import trio

from trio_sfu.rooms.envelopes import Event
from trio_sfu.rooms.messages import (
    REQUESTS,
    CreateProducerTransport,
    CreateRoom,
    Direction,
    JoinRoom,
    LeaveRoom,
    Reply,
    Request,
    RequestError,
    Resume,
    RoomEntered,
    RoomLeft,
    TransportCreated,
    UserResumed,
    tag_of,
    to_wire,
    to_wire_sized,
)
from trio_sfu.signalling.event_log import SentEvent
from trio_sfu.signalling.payloads import InvalidPayload, decode_payload
from trio_sfu.signalling.resumption import LOSSES, Resumption
from trio_sfu.signalling.user import ClientSocket, User

logger = logging.getLogger(__name__)

REQUESTS_PER_SECOND: Final = 100.0
REQUEST_BURST: Final = 200.0
_RESUME: Final = tag_of(Resume)


class RequestHandler(Protocol):
    """What this module needs of the rooms."""

    async def request(self, user_id: str, request: Request) -> Reply:
        """Carry out a request."""

    async def leave_all(self, user_id: str) -> None:
        """Free all that a user owns."""

    def room_ids(self, user_id: str) -> tuple[str, ...]:
        """The rooms that a user is in."""


class Sockets:
    """The users, by id, with their sockets: the way out for events. One for a server."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}

    def __len__(self) -> int:
        return len(self._users)

    def add(self, user: User) -> None:
        """Let events reach this user."""
        self._users[user.id] = user

    def remove(self, user: User) -> None:
        """The opposite; events for them are dropped from now on."""
        self._users.pop(user.id, None)

    def deliver(self, event: Event) -> None:
        """Send an event to its users, those who are still there. Never blocks."""
        sent = SentEvent(event.name, *to_wire_sized(event.payload))
        now = trio.current_time()
        for user_id in event.user_ids:
            user = self._users.get(user_id)
            if user is not None:
                user.deliver(event, sent, now)


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
        resumption: Resumption | None = None,
        *,
        rate: float = REQUESTS_PER_SECOND,
        burst: float = REQUEST_BURST,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        # Given
        self._rooms = rooms
        self._sockets = sockets
        self._resumption = resumption
        self._rate = rate
        self._burst = burst
        self._clock = clock
        # Owned
        self._buckets: dict[str, TokenBucket] = {}  # by sid, as the next
        self._users: dict[str, User] = {}

    async def connected(self, socket: ClientSocket, auth: object) -> None:
        """A client has connected. ``auth`` is what it sent along; this server asks for nothing."""
        self._buckets[socket.id] = TokenBucket(self._rate, self._burst, self._clock())
        user = self._users[socket.id] = User(socket)
        self._sockets.add(user)

    async def event(self, socket: ClientSocket, name: str, args: list[object]) -> list[object]:
        """Carry out a client's request. The result is the ack's one object, in a list."""
        return [to_wire(await self._reply(socket, name, args))]

    async def disconnected(self, socket: ClientSocket, reason: str) -> None:
        """A client has gone: free all that its user owned, unless they may come back.

        Works in a cancelled scope, too.
        """
        self._buckets.pop(socket.id, None)
        user = self._users.pop(socket.id, None)
        logger.debug("Socket %s has gone: %s", socket.id, reason)
        if user is None or user.speaker != socket.id:
            return  # another socket speaks for this user
        if self._resumption is not None:
            if reason in LOSSES and self._resumption.park(user):
                return
            self._resumption.forget(user)
        self._sockets.remove(user)
        await self._rooms.leave_all(user.id)

    async def _reply(self, socket: ClientSocket, name: str, args: list[object]) -> Reply | UserResumed:
        bucket = self._buckets.get(socket.id)
        if bucket is None or not bucket.take(self._clock()):
            return RequestError(code="rate-limited", message="Too many requests; slow down")
        user = self._users[socket.id]
        if user.speaker != socket.id:  # and nobody gets to read this
            return RequestError(code="resumed-elsewhere", message="Another connection speaks for this user now")
        request_type = REQUESTS.get(name)
        try:
            if request_type is not None:
                return await self._ask(socket, user, decode_payload(name, request_type, args))
            if name == _RESUME:
                return self._resume(socket, user, decode_payload(name, Resume, args))
        except InvalidPayload as error:
            return RequestError(code="invalid-payload", message=str(error))
        return RequestError(code="unknown-event", message="The server knows no such event")

    async def _ask(self, socket: ClientSocket, user: User, request: Request) -> Reply:
        room_ids = (request.room_id,) if request.room_id is not None else self._rooms.room_ids(user.id)
        reply = await self._rooms.request(user.id, request)
        match reply:
            case TransportCreated() if len(room_ids) == 1:
                direction: Direction = "producer" if isinstance(request, CreateProducerTransport) else "consumer"
                user.transport_created(room_ids[0], direction, reply.id)
            case RoomLeft() if isinstance(request, LeaveRoom) and len(room_ids) == 1:
                user.left(room_ids[0])
            case RoomEntered() if isinstance(request, CreateRoom | JoinRoom) and request.resumable:
                # From the offer to the acknowledgement there is no await: what is told from now on comes after it.
                token = self._resumption.offer(user) if self._resumption and user.speaker == socket.id else None
                if token is not None and self._resumption is not None:
                    return msgspec.structs.replace(reply, resume_token=token, resume_seconds=self._resumption.seconds)
        return reply

    def _resume(self, socket: ClientSocket, user: User, request: Resume) -> RequestError | UserResumed:
        if user.id != socket.id or self._rooms.room_ids(user.id):
            return RequestError(code="already-in-room", message="This connection is in a room already")
        if self._resumption is None:
            return RequestError(code="resume-failed", message="This server resumes nothing")
        self._resumption.forget(user)
        result = self._resumption.resume(request.resume_token, socket, request.received)
        if isinstance(result, RequestError):
            return result
        self._sockets.remove(user)
        resumed, reply = result
        self._users[socket.id] = resumed
        return reply
