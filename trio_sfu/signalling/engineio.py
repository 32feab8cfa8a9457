"""Engine.IO sessions over trio: who has one, which connection lends itself to it, and its task.

Owns the sessions; each outlives the TCP connections it uses. Called through the routes of
:func:`engineio_routes`; what the messages mean is the handler's affair (:mod:`trio_sfu.signalling.socketio`).

::

    GET, POST ──▶ EngineServer ──▶ EngineSocket ◀── its task: timers, the handler's run()
    WebSocket ──▶ reader and writer, lent to the socket for as long as it holds them
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from trio_sfu.protocols.engineio import (
    OVERSIZE_FACTOR,
    EngineConfig,
    EngineEvent,
    EngineSession,
    Message,
)
from trio_sfu.signalling.routes import HttpRequest, HttpResponse, Route, WebSocketRoute, text_response
from trio_sfu.signalling.websocket import CONNECTION_ERRORS

logger = logging.getLogger(__name__)

#: A WebSocket that the session has given back may take this long, in seconds, to finish what it is writing.
_GRACE: Final = 1.0

#: Why a session is over whose client closed its WebSocket with one of the codes below.
GOING_AWAY: Final = "client going away"
#: What pages and programs say that go for good (RFC 6455, section 7.4.1). A socket.io-client that takes its connection
#: for lost closes it without a code.
_GOODBYES: Final = (1000, 1001)

_tokens = itertools.count(1)


class EngineHandler(Protocol):
    """What is behind a session. Made when the session opens."""

    async def run(self) -> None:
        """The session's own work; the session is forgotten when it returns. Cancelled when the server stops.

        It is to return soon after closed().
        """

    async def receive(self, data: str | bytes) -> None:
        """One message. They come one at a time and in order; waiting here holds this client back, no
        other.
        """

    async def receive_oversized(self, head: str) -> None:
        """A text message above ``max_payload`` was dropped; ``head`` is how it began."""

    def closed(self, reason: str) -> None:
        """The session is over: nothing more comes, nothing can be sent. Called exactly once; must not
        raise.
        """


@dataclass(slots=True)
class EngineStats:
    """Counters since the start."""

    opened: int = 0
    closed: int = 0
    refused: int = 0
    upgraded: int = 0
    slow_clients: int = 0
    parse_errors: int = 0
    ping_timeouts: int = 0


class EngineSocket:
    """A session as its handler and its connections see it: the state machine, and waking who waits for it."""

    def __init__(
        self,
        session: EngineSession,
        connect: Callable[[EngineSocket], EngineHandler],
        stats: EngineStats,
        forget: Callable[[str], object],
    ) -> None:
        """``forget`` is called with the sid as soon as the session is closed."""
        # given
        self.session: Final = session
        self._stats: Final = stats
        self._forget: Final = forget
        # owned
        self._lent: dict[int, trio.CancelScope] = {}  # by token
        self._changed = trio.Event()
        self._over = False
        self._delivering = trio.StrictFIFOLock()
        #: A POST's messages are being handed on.
        self.posting = False
        self.handler: Final = connect(self)

    @property
    def sid(self) -> str:
        return self.session.sid

    @property
    def closed(self) -> bool:
        return self.session.state == "closed"

    def send(self, frames: Sequence[str | bytes]) -> None:
        """Queue messages. Never blocks; a client too slow for the queue's bounds is closed ("slow
        client").
        """
        for frame in frames:
            self.session.send(frame)
        self.notify()

    def close(self, reason: str) -> None:
        """Close once what is queued has gone out, or after the close timeout."""
        self.session.close(reason, trio.current_time())
        self.notify()

    def abort(self, reason: str) -> None:
        """Close at once."""
        self.session.abort(reason)
        self.notify()

    def notify(self) -> None:
        """To be called after every change of the session: wakes who waits, tells the handler of the end."""
        self._changed.set()
        self._changed = trio.Event()
        for token in [token for token in self._lent if not self.session.holds(token)]:
            # What is being written when the session gives a WebSocket back may never be taken by the client.
            scope = self._lent.pop(token)
            scope.deadline = min(scope.deadline, trio.current_time() + _GRACE)
        if self.closed and not self._over:
            self._over = True
            self._forget(self.sid)
            reason = self.session.close_reason or ""
            self._stats.closed += 1
            self._stats.slow_clients += reason == "slow client"
            self._stats.parse_errors += reason == "parse error"
            self._stats.ping_timeouts += reason == "ping timeout"
            self.handler.closed(reason)

    def lend(self, token: int, scope: trio.CancelScope) -> None:
        """A WebSocket that the session holds works in ``scope``: to end soon after it has been given back."""
        self._lent[token] = scope

    def take_back(self, token: int) -> None:
        """The opposite."""
        self._lent.pop(token, None)

    async def wait_changed(self) -> None:
        """Until the next notify(). Look at the state first, and do not await in between."""
        await self._changed.wait()

    async def deliver(self, events: list[EngineEvent]) -> None:
        """Hand messages to the handler, after those that are being handed to it."""
        async with self._delivering:
            for event in events:
                if isinstance(event, Message):
                    await self.handler.receive(event.data)
                else:
                    await self.handler.receive_oversized(event.head)

    async def run_timers(self) -> None:
        """Until the session is closed."""
        while (deadline := self.session.get_timer()) is not None:
            with trio.move_on_at(deadline) as scope:
                await self.wait_changed()
            if scope.cancelled_caught:
                self.session.handle_timer(trio.current_time())
                self.notify()


@asynccontextmanager
async def open_engineio(
    config: EngineConfig,
    connect: Callable[[EngineSocket], EngineHandler],
    *,
    max_sessions: int = 10_000,
    write_timeout: float = 30.0,
) -> AsyncIterator[EngineServer]:
    """Sessions live in here. Leaving cancels them all, their handlers' run() included.

    ``connect`` makes a session's handler; it must not raise. Above ``max_sessions`` a handshake gets 503. A
    WebSocket frame that takes longer than ``write_timeout`` to write ends its connection.
    """
    async with trio.open_nursery() as nursery:
        yield EngineServer(config, connect, nursery, max_sessions=max_sessions, write_timeout=write_timeout)
        nursery.cancel_scope.cancel()


def engineio_routes(server: EngineServer, paths: Sequence[str] = ("/ws", "/socket.io")) -> list[Route]:
    """The routes that make ``server`` reachable at each path, with and without a slash at its end."""
    websocket = WebSocketRoute(
        server.admit_websocket,
        server.serve_websocket,
        max_message=server.config.max_payload * OVERSIZE_FACTOR,
    )
    return [
        Route(
            path + slash,
            server.handle_request,
            methods=None,
            max_body=server.config.max_payload,
            watch_disconnect=True,
            websocket=websocket,
        )
        for path in paths
        for slash in ("", "/")
    ]


class EngineServer:
    """All sessions. Use :func:`open_engineio`."""

    def __init__(
        self,
        config: EngineConfig,
        connect: Callable[[EngineSocket], EngineHandler],
        nursery: trio.Nursery,
        *,
        max_sessions: int,
        write_timeout: float,
    ) -> None:
        # given
        self.config: Final = config
        self._connect: Final = connect
        self._nursery: Final = nursery
        self._max_sessions: Final = max_sessions
        self._write_timeout: Final = write_timeout
        # owned
        self.stats: Final = EngineStats()
        self._sockets: dict[str, EngineSocket] = {}
        self._running = 0

    @property
    def session_count(self) -> int:
        """Sessions that are there, closed ones whose handlers have not finished included."""
        return self._running

    async def handle_request(self, request: HttpRequest) -> HttpResponse:
        """A request without an upgrade: polling."""
        error = _check_query(request, "polling")
        if error is not None:
            return error
        sid = request.query_value("sid")
        if request.method not in ("GET", "POST") or (sid is None and request.method != "GET"):
            return _bad_request(2, "Bad handshake method")
        if sid is None:
            if self._running >= self._max_sessions:
                return self._too_many()
            socket = self._open("polling")
            socket.session.begin_poll()
            return _payload(socket.session.take_poll())
        socket_or_none = self._sockets.get(sid)
        if socket_or_none is None:
            return _bad_request(1, "Session ID unknown")
        # A request must not find a session alive whose time is up, however late its timer is.
        socket_or_none.session.handle_timer(trio.current_time())
        socket_or_none.notify()
        if request.method == "POST":
            return await self._receive_post(socket_or_none, request.body)
        return await self._answer_poll(socket_or_none)

    def admit_websocket(self, request: HttpRequest) -> HttpResponse | None:
        """The answer to an upgrade that leads nowhere."""
        error = _check_query(request, "websocket")
        if error is not None:
            return error
        sid = request.query_value("sid")
        if sid is not None and sid not in self._sockets:
            return _bad_request(1, "Session ID unknown")
        if sid is None and self._running >= self._max_sessions:
            return self._too_many()
        return None

    async def serve_websocket(self, request: HttpRequest, websocket: WebSocketConnection) -> None:
        """A WebSocket, lent until it ends or the session gives it back."""
        sid = request.query_value("sid")
        socket = self._open("websocket") if sid is None else self._sockets.get(sid)
        token = next(_tokens)
        if socket is None or not socket.session.attach(token, trio.current_time()):
            return
        socket.notify()
        reason = "transport error"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, socket, token, websocket, nursery.cancel_scope)
                socket.lend(token, nursery.cancel_scope)
                was_polling = socket.session.transport == "polling"
                try:
                    while socket.session.holds(token):
                        frame = await websocket.get_message()
                        events = socket.session.receive_frame(token, frame, trio.current_time())
                        if was_polling and socket.session.transport == "websocket":
                            was_polling = False
                            self.stats.upgraded += 1
                        socket.notify()
                        await socket.deliver(events)
                        del frame, events  # or each client's last message stays until its next one
                except ConnectionClosed as closed:
                    reason = _why_closed(closed)
                    socket.session.detach(token, reason)
                    socket.notify()
        finally:
            socket.take_back(token)
            socket.session.detach(token, reason)
            socket.notify()

    # Inside

    def _open(self, transport: Literal["polling", "websocket"]) -> EngineSocket:
        session = EngineSession(secrets.token_urlsafe(15), self.config, transport=transport, now=trio.current_time())
        socket = EngineSocket(session, self._connect, self.stats, self._forget)
        self._sockets[session.sid] = socket
        self._running += 1
        self.stats.opened += 1
        self._nursery.start_soon(self._run, socket)
        return socket

    async def _run(self, socket: EngineSocket) -> None:
        """The session's task: it is a session for as long as this runs."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(socket.run_timers)
                await socket.handler.run()
                nursery.cancel_scope.cancel()
        except Exception:  # the boundary: one session's bug is not the others'
            logger.exception("session %s failed", socket.sid)
        finally:
            self._forget(socket.sid)
            self._running -= 1
            socket.abort("server shutting down")

    def _forget(self, sid: str) -> None:
        self._sockets.pop(sid, None)

    async def _answer_poll(self, socket: EngineSocket) -> HttpResponse:
        session = socket.session
        taken = session.begin_poll()
        socket.notify()
        if not taken:
            return _bad_request(3, "Bad request")
        answered = False
        try:
            while not session.poll_ready:
                await socket.wait_changed()
            answered = True
        finally:
            if not answered:  # the client went away, or the server is being stopped
                session.poll_lost("transport close")
                socket.notify()
        response = _payload(session.take_poll())

        def on_sent(complete: bool) -> None:
            if complete:
                session.poll_answered()
            else:
                session.poll_lost("transport error")
            socket.notify()

        response.on_sent = on_sent
        return response

    async def _receive_post(self, socket: EngineSocket, body: bytes) -> HttpResponse:
        if socket.posting and socket.session.transport == "polling":
            socket.abort("parse error")  # a client has one POST at a time, or the order would be anyone's guess
        events = socket.session.receive_payload(body, trio.current_time())
        socket.notify()
        if events is None:
            return _bad_request(3, "Bad request")
        socket.posting, delivered = True, False
        try:
            await socket.deliver(events)
            delivered = True
        finally:
            socket.posting = False
            if not delivered:  # the client went away while it was held back
                socket.abort("transport error")
        return text_response(200, "ok", content_type="text/html")

    async def _write(
        self, socket: EngineSocket, token: int, websocket: WebSocketConnection, scope: trio.CancelScope
    ) -> None:
        """The one writer of a WebSocket. A send cut short leaves half a frame: the connection is over
        then.
        """
        while True:
            frame = socket.session.next_frame(token)
            if frame is None:
                if not socket.session.holds(token):
                    scope.cancel()
                    socket.notify()
                    return
                await socket.wait_changed()
                continue
            failure: str | None = "transport error"
            with trio.move_on_after(self._write_timeout):
                try:
                    await websocket.send_message(frame)
                    failure = None
                except ConnectionClosed as closed:
                    if _why_closed(closed) == GOING_AWAY:  # the reader has not had its turn yet
                        failure = GOING_AWAY
                except CONNECTION_ERRORS:
                    pass
            if failure is not None:
                socket.session.detach(token, failure)
                socket.notify()

    def _too_many(self) -> HttpResponse:
        self.stats.refused += 1
        return text_response(503, "There are too many sessions.\n")


def _why_closed(closed: ConnectionClosed) -> str:
    """The reason for the session's end."""
    goodbye = closed.reason is not None and closed.reason.code in _GOODBYES
    return GOING_AWAY if goodbye else "transport close"


def _check_query(request: HttpRequest, transport: str) -> HttpResponse | None:
    if request.query_value("transport") != transport:
        return _bad_request(0, "Transport unknown")
    if request.query_value("EIO") != "4":
        return _bad_request(5, "Unsupported protocol version")
    return None


def _bad_request(code: int, message: str) -> HttpResponse:
    """The engine.io server's codes and words, all with status 400."""
    return text_response(400, f'{{"code":{code},"message":"{message}"}}', content_type="application/json")


def _payload(body: bytes) -> HttpResponse:
    headers = [("Content-Type", "text/plain; charset=UTF-8"), ("Cache-Control", "no-store")]
    return HttpResponse(200, body, headers)
