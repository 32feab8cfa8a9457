"""The way from an HTTP connection to a trio-websocket one, and back out of it without a trace.

Owns what must be known of trio-websocket's and wsproto's corners. Called by :mod:`trio_sfu.signalling.http`
only.

Source: RFC 6455, section 4.2.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Awaitable, Callable

import h11
import trio
import trio_websocket
import wsproto.utilities
from trio_websocket import WebSocketConnection

from trio_sfu.signalling.routes import HttpRequest, HttpResponse, text_response

logger = logging.getLogger(__name__)

#: How a connection that is gone, or going, shows itself.
CONNECTION_ERRORS = (
    trio_websocket.ConnectionClosed,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    wsproto.utilities.LocalProtocolError,
    wsproto.utilities.RemoteProtocolError,
)

# At a time: trio-websocket holds on to the last bytes and to the piece of a message in them until it gets more.
_RECEIVE_BYTES = 4096


class ReplayStream(trio.abc.Stream):
    """A stream whose first bytes have been read already."""

    def __init__(self, stream: trio.abc.Stream, replayed: bytes) -> None:
        # given
        self._stream = stream
        # owned
        self._replayed = replayed

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._replayed:
            await trio.lowlevel.checkpoint()
            end = len(self._replayed) if max_bytes is None else max_bytes
            data, self._replayed = self._replayed[:end], self._replayed[end:]
            return data
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def asks_for_websocket(request: HttpRequest) -> bool:
    """Whether this is an upgrade request at all."""
    return (
        "websocket" in request.headers.get("upgrade", "").lower()
        and "upgrade" in request.headers.get("connection", "").lower()
    )


def refuse_handshake(request: HttpRequest) -> HttpResponse | None:
    """The answer to an upgrade request that RFC 6455 does not allow; None: it is in order."""
    if request.method != "GET":
        return text_response(400, "A WebSocket is opened with GET.\n")
    if request.headers.get("sec-websocket-version") != "13":
        response = text_response(426, "WebSocket version 13 is spoken here.\n")
        response.headers += [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")]
        return response
    try:
        key = base64.b64decode(request.headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        return text_response(400, "Sec-WebSocket-Key is missing or malformed.\n")
    return None


def replay_head(head: h11.Request, rest: bytes) -> bytes:
    """The bytes of an upgrade request once more, with what came after it."""
    lines = [b"%s %s HTTP/1.1" % (head.method, head.target)]
    lines += [b"%s: %s" % (name, value) for name, value in head.headers.raw_items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + rest


async def serve_websocket(
    stream: trio.abc.Stream,
    request: HttpRequest,
    serve: Callable[[HttpRequest, WebSocketConnection], Awaitable[None]],
    *,
    max_message: int,
    handshake_timeout: float,
    close_timeout: float,
) -> None:
    """Finish the handshake, lend the connection to ``serve``, and end it with a close frame.

    ``stream`` yields the request's bytes first. Whatever becomes of the connection raises nothing; an
    exception of ``serve`` that has nothing to do with it is a bug and comes out. The caller closes the
    stream.
    """
    try:
        async with trio.open_nursery() as nursery:
            connection: WebSocketConnection | None = None
            # After an invalid handshake wrap_server_stream answers 400 and waits for ever.
            with trio.move_on_after(handshake_timeout):
                proposal = await trio_websocket.wrap_server_stream(
                    nursery, stream, max_message_size=max_message, receive_buffer_size=_RECEIVE_BYTES
                )
                connection = await proposal.accept()
            if connection is not None:
                await serve(request, connection)
                with trio.move_on_after(close_timeout):
                    await connection.aclose()
            nursery.cancel_scope.cancel()
    except* CONNECTION_ERRORS as errors:
        logger.debug("WebSocket of %s ended: %r", request.peer, errors.exceptions[0])
