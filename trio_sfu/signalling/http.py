"""The front door: a TCP port that speaks HTTP/1.1, encrypted or not, and the routes behind it.

Owns the listeners and every connection. Called by :mod:`trio_sfu.server`, once.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

import trio

from trio_sfu.signalling.http_connection import Gone, HttpConnection, HttpContext, HttpLimits, HttpStats, linger
from trio_sfu.signalling.routes import (
    Handler,
    HttpRequest,
    HttpResponse,
    Route,
    RouteTable,
    WebSocketRoute,
    text_response,
)
from trio_sfu.signalling.tls import accept_tls

__all__ = [
    "Handler",
    "HttpLimits",
    "HttpRequest",
    "HttpResponse",
    "HttpStats",
    "Route",
    "RouteTable",
    "WebSocketRoute",
    "serve_http",
    "text_response",
]

logger = logging.getLogger(__name__)

_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"


async def serve_http(
    listeners: Sequence[trio.SocketListener],
    routes: Iterable[Route],
    *,
    limits: HttpLimits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    cors_origin: str | None = "*",
    stats: HttpStats | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve ``routes`` until cancelled; then every connection is closed, requests under way included.

    Takes the listeners over and closes them. With ``ssl_context`` every connection is TLS. ``cors_origin``
    goes into ``Access-Control-Allow-Origin``; None leaves CORS shut. Raises ValueError for two routes with
    one path. ``stats`` is the caller's to read at any time.
    """
    context = HttpContext(routes, limits or HttpLimits(), stats if stats is not None else HttpStats(), cors_origin)

    async def serve(stream: trio.SocketStream) -> None:
        await _serve_stream(stream, context, ssl_context)

    await trio.serve_listeners(serve, list(listeners), task_status=task_status)


async def _serve_stream(stream: trio.SocketStream, context: HttpContext, ssl_context: ssl.SSLContext | None) -> None:
    """One TCP connection from its first byte to its last; closes ``stream``, raises nothing."""
    limits, stats = context.limits, context.stats
    counted = stats.connections < limits.max_connections
    if counted:
        stats.connections += 1
        stats.accepted += 1
    else:
        stats.refused += 1
    try:
        if counted:
            await _serve_counted(stream, context, ssl_context)
        elif ssl_context is None:
            with trio.move_on_after(limits.close_timeout):
                await stream.send_all(_BUSY)
                await linger(stream)
    except (Gone, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    except Exception:  # the boundary: a bug met on one connection does not take the others down
        stats.handler_errors += 1
        logger.exception("serving a connection failed")
    finally:
        if counted:
            stats.connections -= 1
        await trio.aclose_forcefully(stream)


async def _serve_counted(stream: trio.SocketStream, context: HttpContext, ssl_context: ssl.SSLContext | None) -> None:
    try:
        peer = str(stream.socket.getpeername()[0])
    except (OSError, IndexError):
        peer = ""
    if ssl_context is None:
        await HttpConnection(context, stream, peer, secure=False).run()
        return
    tls = None
    with trio.move_on_after(context.limits.handshake_timeout):
        tls = await accept_tls(stream, ssl_context)
    if tls is None:
        context.stats.tls_failures += 1
        return
    await HttpConnection(context, tls, peer, secure=True).run()
    with trio.move_on_after(context.limits.close_timeout):
        await tls.aclose()
