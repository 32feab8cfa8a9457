"""The whole server, put together: what is nested in what is also the order in which it ends.

``open_udp_endpoint ⊃ open_tcp_sockets ⊃ open_rooms ⊃ open_signalling``: clients go first (those who are away for a
moment, too), then the rooms, then the sockets of the media. :func:`run` is the process (signals, what is printed);
tests use :func:`open_server` inside theirs.
"""

import errno
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from trio_sfu.config import Config
from trio_sfu.hls.options import HlsOptions
from trio_sfu.hls.service import HlsService, open_hls
from trio_sfu.metrics import (
    CONTENT_TYPE,
    Metrics,
    endpoint_metrics,
    hls_metrics,
    overload_metrics,
    process_metrics,
    resumption_metrics,
    room_metrics,
    signalling_metrics,
    tcp_metrics,
)
from trio_sfu.protocols.engineio import EngineConfig
from trio_sfu.rooms.registry import Rooms, open_rooms
from trio_sfu.rooms.room import RoomMedia
from trio_sfu.rooms.turn import TurnServers
from trio_sfu.signalling.engineio import engineio_routes
from trio_sfu.signalling.handlers import Handlers, Sockets
from trio_sfu.signalling.http import HttpRequest, HttpResponse, HttpStats, Route, serve_http, text_response
from trio_sfu.signalling.live import live_routes, routes_without_streams
from trio_sfu.signalling.pages import page_routes
from trio_sfu.signalling.resumption import open_resumption
from trio_sfu.signalling.socketio import SocketIOConfig, SocketIOStats, open_socketio
from trio_sfu.signalling.tls import load_tls_context
from trio_sfu.transport.addresses import ListenAddress, NoAddress, describe, listen_addresses
from trio_sfu.transport.tcp import TcpListener, listen_tcp, open_tcp_sockets
from trio_sfu.transport.udp import UdpEndpoint, open_udp_endpoint

logger = logging.getLogger(__name__)

DIST: Final = Path(__file__).parent / "web" / "dist"
SHUTDOWN_SECONDS: Final = 8.0  # after that, whatever still runs is cancelled
_PORT_TRIES: Final = 5
ANSWER_SECONDS: Final = 0.05  # for what needs no more than its turn
GOODBYE_SECONDS: Final = 1.0  # for connections to write their last words


class CannotStart(Exception):
    """The server cannot start here; the message is a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, for whoever opened it to look at."""

    url: str  # without a slash at the end
    port: int
    media: tuple[ListenAddress, ...]  # with the ports as they are
    media_tcp: tuple[ListenAddress, ...]
    endpoint: UdpEndpoint
    rooms: Rooms
    metrics: Metrics


@asynccontextmanager
async def open_server(config: Config, *, dist: Path = DIST) -> AsyncIterator[Server]:
    """Serve while the block runs; clients can connect from its beginning on. Raises :class:`CannotStart`."""
    sockets = Sockets()
    metrics = Metrics([process_metrics])
    async with AsyncExitStack() as stack:
        # What can fail comes first, outside of all nurseries, so that the error comes out as it is.
        listeners = await _listen(config)
        for listener in listeners:
            stack.callback(listener.socket.close)
        try:
            addresses = listen_addresses(config.host, config.announce, config.media_port)
            tcp_listeners = _listen_tcp(config, addresses)
            for each in tcp_listeners:
                stack.callback(each.sock.close)
            endpoint = await stack.enter_async_context(open_udp_endpoint(addresses))
        except NoAddress as error:
            raise CannotStart(str(error)) from None
        except OSError as error:
            raise CannotStart(f"{error.strerror} (see --media-port and --host)") from error
        tcp = await stack.enter_async_context(open_tcp_sockets(endpoint, tcp_listeners))
        metrics.add(partial(tcp_metrics, tcp))
        hls: HlsService | None = None
        if config.hls is not None:
            hls = await stack.enter_async_context(_open_hls(config.hls))
            metrics.add(partial(hls_metrics, hls))
        live = None if hls is None else hls.output
        turn = None
        if config.turn_secret is not None:
            turn = TurnServers(config.turn, config.turn_secret, config.turn_ttl)
        streams = routes_without_streams() if hls is None else live_routes(hls.streams)
        room_media = RoomMedia.over(endpoint, consent_timeout=config.ice_consent_timeout, live=live, turn=turn)
        async with (
            open_rooms(room_media, config.limits, sockets.deliver) as rooms,
            open_signalling(config, listeners, rooms, sockets, metrics, dist, streams),
        ):
            metrics.add(partial(room_metrics, rooms))
            metrics.add(partial(endpoint_metrics, endpoint))
            metrics.add(partial(overload_metrics, endpoint.load.overload))
            port = listeners[0].socket.getsockname()[1]
            media, media_tcp = (
                tuple(ListenAddress(each.host, each.announced, each.port) for each in sockets_of_media)
                for sockets_of_media in (endpoint.sockets, endpoint.tcp)
            )
            yield Server(_url(config, port), port, media, media_tcp, endpoint, rooms, metrics)


def _listen_tcp(config: Config, addresses: Sequence[ListenAddress]) -> list[TcpListener]:
    if not config.media_tcp:
        return []
    port = config.media_port if config.media_tcp_port is None else config.media_tcp_port
    try:
        return listen_tcp([replace(each, port=port) for each in addresses])
    except OSError as error:
        raise CannotStart(f"{error.strerror} (see --media-tcp-port and --no-media-tcp)") from error


@asynccontextmanager
async def _open_hls(options: HlsOptions) -> AsyncIterator[HlsService]:
    async with AsyncExitStack() as stack:
        try:
            service = await stack.enter_async_context(open_hls(options))
        except OSError as error:
            raise CannotStart(f"there is no folder for live streams: {error}") from error
        yield service


@asynccontextmanager
async def open_signalling(
    config: Config,
    listeners: Sequence[trio.SocketListener],
    rooms: Rooms,
    sockets: Sockets,
    metrics: Metrics,
    dist: Path,
    streams: Sequence[Route],
) -> AsyncIterator[None]:
    """The front door: pages, Socket.IO, metrics. Leaving tells every client, and waits for that a little."""
    http_stats, socketio_stats = HttpStats(), SocketIOStats()
    engine_config = EngineConfig(
        ping_interval=config.ping_interval, ping_timeout=config.ping_timeout, max_payload=config.max_payload
    )
    socketio_config = SocketIOConfig(connect_timeout=config.connect_timeout)

    async def show_metrics(_: HttpRequest) -> HttpResponse:
        return text_response(200, metrics.render(), content_type=CONTENT_TYPE)

    async with open_resumption(rooms, sockets, config.resume_grace) as resumption, trio.open_nursery() as nursery:
        handlers = Handlers(rooms, sockets, resumption)
        metrics.add(partial(resumption_metrics, resumption))
        async with open_socketio(handlers, engine_config, socketio_config, stats=socketio_stats) as engine:
            metrics.add(partial(signalling_metrics, http_stats, engine, socketio_stats))
            routes = [
                *engineio_routes(engine),
                *page_routes(dist),
                *streams,
                Route("/metrics", show_metrics),
                Route("/healthz", _healthz),
            ]
            context = None
            if config.tls_cert is not None and config.tls_key is not None:
                context = load_tls_context(config.tls_cert, config.tls_key)
            serve = partial(serve_http, listeners, routes, ssl_context=context, stats=http_stats)
            await nursery.start(serve)
            yield
        # The sessions are over: waiting polls are answered now, WebSockets write a close frame and go.
        await trio.sleep(ANSWER_SECONDS)
        with trio.move_on_after(GOODBYE_SECONDS):
            while http_stats.websockets:  # noqa: ASYNC110 - a counter has no event, and this is the end
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def run(config: Config) -> None:
    """Be the server process until SIGINT or SIGTERM; returns then, within some seconds.

    Prints on standard output what is announced, and the ready line. Raises :class:`CannotStart`.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, trio.CancelScope() as scope:
        async with open_server(config) as server:
            for line in describe(server.media, server.media_tcp):
                print(line)
            for url in config.turn:
                print(f"turn: clients that reach none of these are told of {url}")
            if not (DIST / "index.html").exists():
                print("pages: not built; `python hatch_build.py` in the source checkout builds them")
            _settle_garbage_collection()
            # The ready line is a contract: programs wait for it.
            print(f"listening on {server.url}/", flush=True)
            async for number in signals:
                logger.info("%s: shutting down", signal.Signals(number).name)
                break
            scope.deadline = trio.current_time() + SHUTDOWN_SECONDS
    if scope.cancelled_caught:
        logger.warning("Not everything ended by itself in %g s", SHUTDOWN_SECONDS)


async def _listen(config: Config) -> list[trio.SocketListener]:
    """The TCP listeners: at one address, or at all of IPv4 and, where the machine has it, IPv6."""
    if config.host is not None and config.host != "::":
        return await _listen_at([config.host], config.port)
    for _ in range(_PORT_TRIES if config.port == 0 else 0):
        try:
            return await _listen_at(["0.0.0.0", "::"], 0)
        except CannotStart:
            logger.debug("A port that is free for IPv4 is not for IPv6; once more")
    return await _listen_at(["0.0.0.0", "::"], config.port)


async def _listen_at(hosts: Sequence[str], port: int) -> list[trio.SocketListener]:
    listeners: list[trio.SocketListener] = []
    for host in hosts:
        try:
            listeners += await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            if listeners and _errno_of(error) != errno.EADDRINUSE:
                break  # a machine without IPv6
            for listener in listeners:
                listener.socket.close()
            raise CannotStart(_about_listening(host, port, error)) from None
        port = listeners[0].socket.getsockname()[1]  # the same for both, where any free one will do
    return listeners


def _errno_of(error: OSError) -> int | None:
    while error.errno is None and isinstance(error.__cause__, OSError):
        error = error.__cause__
    return error.errno


def _about_listening(host: str, port: int, error: OSError) -> str:
    where = f"port {port}" if host in ("0.0.0.0", "::") else f"{host} port {port}"
    match _errno_of(error):
        case errno.EADDRINUSE:
            return f"TCP {where} is in use by another program; choose another one with --port"
        case errno.EACCES | errno.EPERM:
            return f"TCP {where}: not permitted; ports below 1024 need privileges"
        case errno.EADDRNOTAVAIL:
            return f"TCP {where}: this machine has no such address; see --host"
        case _:
            return f"TCP {where} cannot be listened on: {error.strerror or error}"


def _url(config: Config, port: int) -> str:
    scheme = "http" if config.tls_cert is None else "https"
    host = config.host
    if host is None or host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def _healthz(_: HttpRequest) -> HttpResponse:
    return text_response(200, "ok\n")


def _settle_garbage_collection() -> None:
    """Keep collections short: what is there at the start stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def configure_logging(level: str) -> None:
    """Log lines go to standard error."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
