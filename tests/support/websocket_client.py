"""A WebSocket client for tests that leaves no socket behind."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from trio_websocket import HandshakeError, WebSocketConnection, wrap_client_stream

#: The headers of an upgrade request, for tests that send one by hand.
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@asynccontextmanager
async def connect_websocket(url: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebSocketConnection]:
    """A connection by trio-websocket over a stream of our own: it forgets to close the ones it opened itself
    where the server refused, or closed first. Raises HandshakeError.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    stream = await trio.open_tcp_stream(parts.hostname, parts.port)
    if parts.scheme == "wss":
        context = tls or ssl.create_default_context()
        stream = trio.SSLStream(stream, context, server_hostname=parts.hostname, https_compatible=True)
    refused: HandshakeError | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(10):
                    websocket = await wrap_client_stream(
                        nursery, stream, parts.netloc, f"{parts.path}?{parts.query}", max_message_size=16_000_000
                    )
            except HandshakeError as error:
                refused = error
            else:
                yield websocket
                with trio.move_on_after(2):
                    await websocket.aclose()
            nursery.cancel_scope.cancel()
    except* HandshakeError as errors:
        refused = HandshakeError(str(errors.exceptions[0]))
    finally:
        await trio.aclose_forcefully(stream)
    if refused is not None:
        raise refused
