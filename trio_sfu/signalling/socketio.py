"""Socket.IO over Engine.IO sessions: sockets, their events in order, acknowledgements both ways.

Owns the sockets and the task that handles a client's events. The application
(:mod:`trio_sfu.signalling.handlers`) sees :class:`Socket` and implements :class:`SocketApplication`; the
server opens it all with :func:`open_socketio`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from trio_sfu.protocols.engineio import EngineConfig
from trio_sfu.protocols.socketio import (
    AckReceived,
    Connected,
    Disconnected,
    EventReceived,
    EventRefused,
    SocketIOEvent,
    SocketIOSession,
)
from trio_sfu.signalling.engineio import EngineServer, EngineSocket, open_engineio

logger = logging.getLogger(__name__)

#: How many events of one client wait for their turn before its connection is no longer read.
MAX_WAITING_EVENTS: Final = 64
#: How many acknowledgements one socket may owe the server at a time.
MAX_CALLS: Final = 256

_REFUSALS: Final = {
    "too-large": {"error": "The message is too large", "code": "payload-too-large"},
    "too-deep": {"error": "The message is nested too deep", "code": "payload-too-deep"},
    "no-number": {"error": "A number in the message is too large, or is none", "code": "invalid-payload"},
}
_INTERNAL: Final = {"error": "The server made a mistake", "code": "internal"}


class SocketApplication(Protocol):
    """What the server does with its sockets. A socket's calls come one after the other."""

    async def connected(self, socket: Socket, auth: object) -> None:
        """A client has connected; ``auth`` is what it sent with CONNECT (an object or None)."""

    async def event(self, socket: Socket, name: str, args: list[object]) -> list[object]:
        """An event. The result is the acknowledgement, sent only where the client asked for one.

        An exception is a bug: it is logged, and the client gets ``{error, code: "internal"}``.
        """

    async def disconnected(self, socket: Socket, reason: str) -> None:
        """The socket is gone. Called exactly once for each connected(), also when the server is being stopped
        (then with a few seconds' time).
        """


class SocketDisconnected(Exception):
    """The socket went away before its client answered."""


class Socket:
    """One client in one namespace."""

    def __init__(self, client: _Client, namespace: str, sid: str) -> None:
        # given
        self.id: Final = sid
        self.namespace: Final = namespace
        self._client: Final = client
        # owned
        self._disconnect_reason: str | None = None
        self._calls: dict[int, _Call] = {}
        self._next_call = 0
        self._after_ack: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        return self._disconnect_reason is None

    def emit(self, name: str, *args: object) -> None:
        """Send an event; nothing where the socket is gone. Never blocks: a client too slow for the queue's
        bounds is disconnected.

        Raises TypeError or ValueError for arguments that are not JSON and bytes.
        """
        if self.connected:
            self._client.emit(self, name, list(args), None)

    async def call(self, name: str, *args: object, timeout: float) -> list[object]:  # noqa: ASYNC109
        """Send an event and wait for the client's acknowledgement: its arguments.

        Raises trio.TooSlowError after ``timeout`` seconds, or where the client owes too many answers already;
        SocketDisconnected where the socket is gone or goes.
        """
        if not self.connected:
            raise SocketDisconnected(self._disconnect_reason)
        if len(self._calls) >= MAX_CALLS:
            raise trio.TooSlowError("too many calls are unanswered")
        call_id, call = self._next_call, _Call()
        self._next_call += 1
        self._calls[call_id] = call
        try:
            self._client.emit(self, name, list(args), call_id)
            with trio.fail_after(timeout):
                await call.done.wait()
        finally:
            del self._calls[call_id]
        if call.answer is None:
            raise SocketDisconnected(self._disconnect_reason)
        return call.answer

    def after_ack(self, action: Callable[[], None]) -> None:
        """Call ``action`` as soon as the event that is being handled has been acknowledged, before anything else.

        To be called by the application's event() only. Where the client wants no acknowledgement, it is called all
        the same.
        """
        self._after_ack.append(action)

    def disconnect(self) -> None:
        """Take the client out: it gets what is queued, is told, and its connection is closed."""
        if self.connected:
            self._client.disconnect(self)

    # For _Client

    def acknowledged(self) -> None:
        actions, self._after_ack = self._after_ack, []
        for action in actions:
            action()

    def answered(self, call_id: int, args: list[object]) -> None:
        call = self._calls.get(call_id)
        if call is not None:
            call.answer = args
            call.done.set()

    def ended(self, reason: str) -> None:
        if self._disconnect_reason is None:
            self._disconnect_reason = reason
            for call in self._calls.values():
                call.done.set()

    @property
    def disconnect_reason(self) -> str:
        """Why it is gone; "" while it is connected."""
        return self._disconnect_reason or ""


class _Call:
    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: list[object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketIOConfig:
    """Times in seconds."""

    #: How long a client may be connected to no namespace.
    connect_timeout: float = 45.0
    #: How long the events of a client that has gone may still take.
    finish_timeout: float = 5.0


@dataclass(slots=True)
class SocketIOStats:
    """``sockets``: how many there are; the others count since the start."""

    sockets: int = 0
    connected: int = 0
    events: int = 0
    refused_events: int = 0
    failed_events: int = 0
    connect_timeouts: int = 0


@dataclass(frozen=True, slots=True)
class _Work:
    """One thing for the application, in its turn."""

    socket: Socket
    event: Connected | EventReceived | EventRefused | Disconnected


class _Client:
    """The handler of one Engine.IO session: what is between its messages and the application."""

    def __init__(
        self,
        engine: EngineSocket,
        applications: Mapping[str, SocketApplication],
        config: SocketIOConfig,
        stats: SocketIOStats,
    ) -> None:
        # given
        self._engine: Final = engine
        self._applications: Final = applications
        self._config: Final = config
        self._stats: Final = stats
        # owned
        self._session = SocketIOSession(
            namespaces=applications.keys(),
            connect_timeout=config.connect_timeout,
            make_sid=lambda: secrets.token_urlsafe(15),
            now=trio.current_time(),
            max_bytes=4 * engine.session.config.max_payload,
        )
        self._sockets: dict[str, Socket] = {}
        self._work_in, self._work_out = trio.open_memory_channel[_Work](MAX_WAITING_EVENTS)
        self._working = trio.CancelScope()
        #: Connected, and disconnected() not called yet.
        self._announced: list[Socket] = []

    # EngineHandler

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_timers)
            try:
                with self._working:
                    async with self._work_out:
                        async for work in self._work_out:
                            await self._perform(work)
                            del work  # or its payload stays until there is more
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + self._config.finish_timeout):
                    for socket in list(self._announced):
                        socket.ended("server shutting down")
                        await self._announce_end(socket)
            nursery.cancel_scope.cancel()

    async def receive(self, data: str | bytes) -> None:
        await self._take(self._session.receive(data, trio.current_time()))

    async def receive_oversized(self, head: str) -> None:
        await self._take(self._session.receive_oversized(head))

    def closed(self, reason: str) -> None:
        for socket in self._sockets.values():
            socket.ended(reason)
        self._sockets.clear()
        # What came before the end is still done, for a limited time; run() then announces the end.
        self._work_in.close()
        self._working.deadline = trio.current_time() + self._config.finish_timeout

    # Socket

    def emit(self, socket: Socket, name: str, args: list[Any], call_id: int | None) -> None:
        self._engine.send(self._session.event(socket.namespace, name, args, call_id))

    def disconnect(self, socket: Socket) -> None:
        self._engine.send(self._session.disconnect(socket.namespace))
        self._sockets.pop(socket.namespace, None)
        reason = "server namespace disconnect"
        socket.ended(reason)
        try:
            self._work_in.send_nowait(_Work(socket, Disconnected(socket.namespace, reason)))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # run() announces it when the session is over
        self._engine.close("forced server close")

    # Inside

    async def _take(self, events: list[SocketIOEvent]) -> None:
        self._engine.send(self._session.frames_to_send())
        for event in events:
            if isinstance(event, Connected):
                socket = Socket(self, event.namespace, event.sid)
                self._sockets[event.namespace] = socket
            else:
                existing = self._sockets.get(event.namespace)
                if existing is None:  # closed while this was on its way
                    continue
                socket = existing
            if isinstance(event, AckReceived):
                # Not in the queue: a handler may be waiting for it.
                socket.answered(event.id, event.args)
                continue
            if isinstance(event, Disconnected):
                socket.ended(event.reason)
                del self._sockets[event.namespace]
            try:
                await self._work_in.send(_Work(socket, event))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the session ended while this waited
        if self._session.failed is not None:
            self._engine.abort(self._session.failed)

    async def _run_timers(self) -> None:
        while not self._engine.closed:
            deadline = self._session.get_timer()
            with trio.move_on_at(float("inf") if deadline is None else deadline):
                await self._engine.wait_changed()
            self._session.handle_timer(trio.current_time())
            if self._session.failed == "connect timeout" and not self._engine.closed:
                self._stats.connect_timeouts += 1
                self._engine.abort("connect timeout")

    async def _perform(self, work: _Work) -> None:
        socket, event = work.socket, work.event
        match event:
            case Connected():
                self._announced.append(socket)
                self._stats.connected += 1
                self._stats.sockets += 1
                try:
                    await self._applications[socket.namespace].connected(socket, event.auth)
                except Exception:  # the boundary, as for event()
                    self._stats.failed_events += 1
                    logger.exception("connecting socket %s failed", socket.id)
                    socket.disconnect()
            case EventReceived():
                self._stats.events += 1
                await self._perform_event(socket, event)
            case EventRefused():
                self._stats.refused_events += 1
                self._ack(socket, event.ack_id, [_REFUSALS[event.why]])
            case Disconnected():
                await self._announce_end(socket)

    async def _perform_event(self, socket: Socket, event: EventReceived) -> None:
        try:
            result = await self._applications[socket.namespace].event(socket, event.name, event.args)
            self._ack(socket, event.ack_id, result)
        except Exception:  # the boundary: a bug is one event's, answered like any failure
            self._stats.failed_events += 1
            logger.exception("event %r of socket %s failed", event.name, socket.id)
            self._ack(socket, event.ack_id, [_INTERNAL])
        finally:
            socket.acknowledged()

    def _ack(self, socket: Socket, ack_id: int | None, args: list[Any]) -> None:
        if ack_id is not None and socket.connected:
            self._engine.send(self._session.ack(socket.namespace, ack_id, args))

    async def _announce_end(self, socket: Socket) -> None:
        if socket not in self._announced:
            return
        self._announced.remove(socket)
        self._stats.sockets -= 1
        try:
            await self._applications[socket.namespace].disconnected(socket, socket.disconnect_reason)
        except Exception:  # the boundary, as for event()
            self._stats.failed_events += 1
            logger.exception("disconnecting socket %s failed", socket.id)


@asynccontextmanager
async def open_socketio(
    application: SocketApplication | Mapping[str, SocketApplication],
    engine_config: EngineConfig | None = None,
    config: SocketIOConfig | None = None,
    *,
    max_sessions: int = 10_000,
    write_timeout: float = 30.0,
    stats: SocketIOStats | None = None,
) -> AsyncIterator[EngineServer]:
    """Serve ``application`` in the namespace "/" (or a mapping's, each in its own; all others are refused).

    Yields what :func:`trio_sfu.signalling.engineio.engineio_routes` makes routes from. Leaving ends every
    socket; disconnected() of each is still called.
    """
    applications = application if isinstance(application, Mapping) else {"/": application}
    socketio_config = config or SocketIOConfig()
    socketio_stats = stats if stats is not None else SocketIOStats()

    connect: Callable[[EngineSocket], _Client] = lambda engine: _Client(  # noqa: E731
        engine, applications, socketio_config, socketio_stats
    )
    async with open_engineio(
        engine_config or EngineConfig(), connect, max_sessions=max_sessions, write_timeout=write_timeout
    ) as server:
        yield server
