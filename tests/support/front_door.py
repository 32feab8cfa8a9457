"""A front door on a free port for tests, with a count of what is left when it has closed."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from trio_sfu.signalling.http import HttpLimits, HttpStats, Route, serve_http


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """``url`` has scheme, host and port; cancelling ``scope`` stops the server."""

    url: str
    stats: HttpStats
    scope: trio.CancelScope

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1)


def open_sockets() -> int:
    """The sockets this process has."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass
    return count


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fails where a task or a socket is there afterwards that was not before."""
    tasks, sockets = trio.lowlevel.current_statistics().tasks_living, open_sockets()
    yield
    for _ in range(20):  # tasks just cancelled may have their last step to go
        if trio.lowlevel.current_statistics().tasks_living <= tasks:
            break
        await trio.lowlevel.checkpoint()
    assert trio.lowlevel.current_statistics().tasks_living <= tasks, "tasks are left"
    assert open_sockets() <= sockets, "sockets are left"


async def _run_in_scope(
    serve: Callable[[trio.TaskStatus[object]], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[trio.CancelScope],
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            task_status.started(scope)


@asynccontextmanager
async def open_front_door(
    routes: Sequence[Route],
    *,
    limits: HttpLimits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    cors_origin: str | None = "*",
) -> AsyncIterator[FrontDoor]:
    """Serve ``routes`` on 127.0.0.1; stopped by cancelling, as the server does it."""
    stats = HttpStats()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def serve(*, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        await serve_http(
            listeners,
            routes,
            limits=limits,
            ssl_context=ssl_context,
            cors_origin=cors_origin,
            stats=stats,
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(_run_in_scope, serve)
        scheme = "http" if ssl_context is None else "https"
        yield FrontDoor(f"{scheme}://127.0.0.1:{port}", stats, scope)
        scope.cancel()
    assert stats.connections == 0
    assert stats.websockets == 0
