"""One HTTP/1.1 connection: requests one after the other, each with its deadlines and bounds.

Made by :mod:`trio_sfu.signalling.http`, which owns the listening. What is answered is the routes' affair.
Nothing that a stranger sends makes a traceback: it gets an answer, a counter, at most a debug line.

Source: RFC 9110, RFC 9112; CORS as in the Fetch standard.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11
import trio

from trio_sfu.signalling.routes import (
    Handler,
    HttpRequest,
    HttpResponse,
    Route,
    RouteTable,
    WebSocketRoute,
    parse_target,
    text_response,
)
from trio_sfu.signalling.websocket import (
    ReplayStream,
    asks_for_websocket,
    refuse_handshake,
    replay_head,
    serve_websocket,
)
from trio_sfu.wire.errors import BadPacket

logger = logging.getLogger(__name__)

_CHUNK: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Sizes in bytes, times in seconds."""

    max_connections: int = 4096
    #: Request line and headers together.
    max_head: int = 16384
    #: For the whole head, from its first byte.
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    #: Between two requests on one connection, and before the first.
    idle_timeout: float = 60.0
    #: For each 64 KiB of an answer.
    write_timeout: float = 30.0
    handshake_timeout: float = 10.0
    #: For a WebSocket's closing handshake, and for reading on after an error so that the answer gets through.
    close_timeout: float = 2.0


@dataclass(slots=True)
class HttpStats:
    """Counters since the start, but for the first two: how many there are now."""

    connections: int = 0
    websockets: int = 0
    accepted: int = 0
    refused: int = 0
    requests: int = 0
    bad_requests: int = 0
    timeouts: int = 0
    tls_failures: int = 0
    handler_errors: int = 0


class _Refused(Exception):
    """The request is not one to go on with; answer ``status`` and close."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Gone(Exception):
    """The client went away, or does not take what it asked for."""


class HttpContext:
    """What all connections of a front door have in common."""

    def __init__(
        self,
        routes: Iterable[Route],
        limits: HttpLimits,
        stats: HttpStats,
        cors_origin: str | None,
    ) -> None:
        # given
        self.limits: Final = limits
        self.stats: Final = stats
        self._cors_origin: Final = cors_origin
        # derived
        self.routes: Final = RouteTable(routes)

    def cors_headers(self) -> list[tuple[str, str]]:
        """What goes with every answer."""
        origin = self._cors_origin
        if origin is None:
            return []
        headers = [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", "Content-Length, Content-Range, ETag, Last-Modified"),
        ]
        if origin != "*":
            headers += [("Vary", "Origin"), ("Access-Control-Allow-Credentials", "true")]
        return headers

    def preflight(self, request: HttpRequest, allowed: str) -> HttpResponse:
        """The answer to OPTIONS."""
        headers = [("Allow", allowed)]
        if self._cors_origin is not None and "access-control-request-method" in request.headers:
            wanted = request.headers.get("access-control-request-headers", "Content-Type, Range")
            headers += [
                ("Access-Control-Allow-Methods", allowed),
                ("Access-Control-Allow-Headers", wanted),
                ("Access-Control-Max-Age", "86400"),
            ]
        return HttpResponse(204, headers=headers)


class HttpConnection:
    """One connection: requests one after the other, what is pipelined waiting its turn in h11's buffer."""

    def __init__(self, context: HttpContext, stream: trio.abc.Stream, peer: str, *, secure: bool) -> None:
        # given
        self._context = context
        self._limits = context.limits
        self._stats = context.stats
        self._stream = stream
        self._peer = peer
        self._secure = secure
        # owned
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=context.limits.max_head)

    async def run(self) -> None:
        """Returns when the connection is over; the caller closes the stream. Raises Gone and trio's own."""
        try:
            while (head := await self._receive_head()) is not None:
                self._stats.requests += 1
                if not await self._serve_request(head):
                    return
                if self._h11.their_state is h11.SEND_BODY:  # and nobody reads it
                    await linger(self._stream, self._limits.close_timeout)
                    return
                if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                    return
                self._h11.start_next_cycle()
        except _Refused as refused:
            self._stats.bad_requests += 1
            if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                response = text_response(refused.status, _phrase(refused.status) + "\n")
                response.headers.append(("Connection", "close"))
                await self._respond("GET", response)
            await linger(self._stream, self._limits.close_timeout)

    async def _receive(self) -> bool:
        """More bytes for h11; False at the end."""
        data = bytes(await self._stream.receive_some(_CHUNK))
        self._h11.receive_data(data)
        return bool(data)

    async def _receive_head(self) -> h11.Request | None:
        begun = bool(self._h11.trailing_data[0])
        timeout = self._limits.head_timeout if begun else self._limits.idle_timeout
        with trio.move_on_after(timeout) as scope:
            while True:
                try:
                    event = self._h11.next_event()
                except h11.RemoteProtocolError as error:
                    raise _Refused(error.error_status_hint) from None
                if isinstance(event, h11.Request):
                    if not event.http_version.startswith(b"1."):
                        raise _Refused(505)
                    return event
                if isinstance(event, h11.ConnectionClosed):
                    return None
                await self._receive()
                if not begun:
                    begun = True
                    scope.deadline = trio.current_time() + self._limits.head_timeout
        self._stats.timeouts += 1
        if begun:
            raise _Refused(408)
        return None

    async def _receive_body(self, limit: int) -> bytes:
        """The request's body; 413 above ``limit``, before it is read where its length is announced."""
        parts: list[bytes] = []
        size = 0
        with trio.move_on_after(self._limits.body_timeout):
            while True:
                try:
                    event = self._h11.next_event()
                except h11.RemoteProtocolError as error:
                    raise _Refused(error.error_status_hint) from None
                if isinstance(event, h11.Data):
                    size += len(event.data)
                    if size > limit:
                        raise _Refused(413)
                    parts.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    return b"".join(parts)
                elif event is h11.NEED_DATA:
                    if self._h11.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                        await self._write(self._send(go_on))
                    await self._receive()
                else:
                    raise Gone
        self._stats.timeouts += 1
        raise _Refused(408)

    async def _serve_request(self, head: h11.Request) -> bool:
        """Answer one request; False: the connection is over (or was never HTTP's again)."""
        method = head.method.decode("ascii", "replace")
        try:
            path, query = parse_target(head.target.decode("ascii", "replace"))
        except BadPacket:
            raise _Refused(400) from None
        request = HttpRequest(method, path, query, _join_headers(head), peer=self._peer, secure=self._secure)
        length = request.headers.get("content-length", "0")
        match = self._context.routes.match(path)
        answer = self._answer_without_handler(request, match[0] if match else None)
        if answer is not None or match is None:
            if length == "0" and "transfer-encoding" not in request.headers:
                await self._receive_body(0)
            await self._respond(method, answer or text_response(404, "There is nothing here.\n"))
            return True
        route, tail = match
        if int(length) > route.max_body:  # h11 has seen to it that it is a number
            raise _Refused(413)
        body = await self._receive_body(route.max_body)
        request = replace(request, body=body, tail=tail)
        if route.websocket is not None and asks_for_websocket(request):
            refusal = refuse_handshake(request) or route.websocket.admit(request)
            if refusal is None:
                await self._become_websocket(head, request, route.websocket)
                return False
            await self._respond(method, refusal)
            return True
        response = await self._call(route, request)
        if response is None:
            return False
        await self._respond(method, response)
        return True

    def _answer_without_handler(self, request: HttpRequest, route: Route | None) -> HttpResponse | None:
        method = request.method
        asks_cors = "access-control-request-method" in request.headers
        if method == "OPTIONS" and (asks_cors or route is None or route.methods is not None):
            return self._context.preflight(request, route.allowed() if route else "GET, HEAD, OPTIONS")
        if route is None or route.allows(method):
            return None
        response = text_response(405, "This is not a method for this place.\n")
        response.headers.append(("Allow", route.allowed()))
        return response

    async def _call(self, route: Route, request: HttpRequest) -> HttpResponse | None:
        """The handler's response; None: the client went away first."""
        if not route.watch_disconnect:
            return await self._invoke(route.handler, request)
        response: HttpResponse | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_on_disconnect, nursery.cancel_scope)
            response = await self._invoke(route.handler, request)
            nursery.cancel_scope.cancel()
        return response

    async def _invoke(self, handler: Handler, request: HttpRequest) -> HttpResponse:
        try:
            return await handler(request)
        except Exception:  # the boundary: one request's bug is one 500
            self._stats.handler_errors += 1
            logger.exception("answering %s %s failed", request.method, request.path)
            return text_response(500, "The server made a mistake.\n")

    async def _cancel_on_disconnect(self, scope: trio.CancelScope) -> None:
        # Bytes are a pipelined request: kept for later, and no more are read, so that they stay bounded.
        if self._h11.trailing_data[0]:
            return
        try:
            gone = not await self._receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            gone = True
        if gone:
            scope.cancel()

    async def _become_websocket(self, head: h11.Request, request: HttpRequest, route: WebSocketRoute) -> None:
        stream = ReplayStream(self._stream, replay_head(head, self._h11.trailing_data[0]))
        self._stats.websockets += 1
        try:
            await serve_websocket(
                stream,
                request,
                route.serve,
                max_message=route.max_message,
                handshake_timeout=self._limits.handshake_timeout,
                close_timeout=self._limits.close_timeout,
            )
            await linger(self._stream, self._limits.close_timeout)
        finally:
            self._stats.websockets -= 1

    async def _respond(self, method: str, response: HttpResponse) -> None:
        """Write it all, or raise Gone."""
        sent = False
        try:
            await self._write_response(method, response)
            sent = True
        finally:
            if response.on_sent is not None:
                response.on_sent(sent)

    async def _write_response(self, method: str, response: HttpResponse) -> None:
        body = response.body
        bodiless = response.status in (204, 304)
        headers = [("Date", formatdate(usegmt=True)), ("Server", "trio-sfu")]
        headers += [*self._context.cors_headers(), *response.headers]
        length = len(body) if response.length is None and isinstance(body, bytes) else response.length
        if length is not None and not bodiless:
            headers.append(("Content-Length", str(length)))
        try:
            wire_head = self._send(
                h11.Response(
                    status_code=response.status,
                    headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers],
                    reason=_phrase(response.status).encode("ascii"),
                )
            )
            if method == "HEAD" or bodiless:
                await self._write(wire_head + self._send(h11.EndOfMessage()))
            elif isinstance(body, bytes):
                data = self._send(h11.Data(data=body)) if body else b""
                await self._write(wire_head + data + self._send(h11.EndOfMessage()))
            else:
                await self._write(wire_head)
                async for piece in body:
                    if piece:
                        await self._write(self._send(h11.Data(data=piece)))
                await self._finish_stream()
        finally:
            if not isinstance(body, bytes):
                await _close_iterator(body)

    async def _finish_stream(self) -> None:
        try:
            end = self._send(h11.EndOfMessage())
        except h11.LocalProtocolError:  # shorter than announced: a file that was cut while it was sent
            raise Gone from None
        await self._write(end)

    def _send(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), _CHUNK):
            with trio.move_on_after(self._limits.write_timeout) as scope:
                await self._stream.send_all(view[start : start + _CHUNK])
            if scope.cancelled_caught:
                self._stats.timeouts += 1
                raise Gone


async def _close_iterator(body: AsyncIterator[bytes]) -> None:
    close = getattr(body, "aclose", None)
    if close is not None:
        with trio.CancelScope(deadline=trio.current_time() + 1, shield=True):
            await close()


async def linger(stream: trio.abc.Stream, seconds: float = 2.0) -> None:
    """Read on for a while after the last answer.

    A socket closed with bytes unread resets the connection, and the client may never see what it was told.
    """
    with trio.move_on_after(seconds):
        try:
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            for _ in range(64):
                if not await stream.receive_some(_CHUNK):
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def _join_headers(head: h11.Request) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
