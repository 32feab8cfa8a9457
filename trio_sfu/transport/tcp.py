"""ICE-TCP, passive (RFC 6544): media for browsers whose network lets no UDP through.

server.py opens the sockets inside the UDP endpoint, which knows whose each datagram is. A :class:`TcpSocket` is to
transports what a UDP socket is: one arena for all of its connections, each of which is a path of its own. What is
queued in a batch goes to each connection with one call that never blocks; a datagram that does not fit is lost, as
on any congested link.

A connection is a task that reads. It is a stranger until a transport has authenticated it, and strangers are few:
their first frame must be a binding request to a transport that is there. A connection ends with its transport.
"""

import errno
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from trio_sfu.protocols.ice import peek_local_ufrag, unauthenticated_error
from trio_sfu.transport.addresses import ListenAddress
from trio_sfu.transport.mmsg import SLOT
from trio_sfu.transport.path import DatagramOwner, MediaSocket, Path
from trio_sfu.transport.srtp import pointer_to
from trio_sfu.transport.tcp_connection import Strangers, TcpConnection, TcpCounters, TcpLimits, TcpPath
from trio_sfu.transport.udp import UdpEndpoint
from trio_sfu.wire.demux import DTLS, KIND_OF_FIRST_BYTE, RTP_OR_RTCP, STUN
from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.framing import split_frames

__all__ = ["TcpCounters", "TcpLimits", "TcpListener", "TcpSocket", "listen_tcp", "open_tcp_sockets"]

logger = logging.getLogger(__name__)

MAX_FRAME: Final = SLOT  # bytes of one datagram, as by UDP
_READ: Final = 1 << 16  # bytes taken at once from one connection before the others have their turn
_SEND_QUEUE: Final = 1 << 17  # bytes in the kernel; small, so that what waits is seen, and dropped, here
_LISTEN_QUEUE: Final = 128
_ACCEPTS: Final = 32  # connections taken before trio runs other tasks
_ACCEPT_PAUSE: Final = 0.1  # seconds, where the process has no file descriptor left
_OUT_OF_FILES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_Frames: TypeAlias = tuple[TcpConnection, list[tuple[int, int]]]


class TcpSocket(MediaSocket):
    """One listening socket and its connections. Made and closed by :func:`open_tcp_sockets`."""

    protocol = "tcp"

    def __init__(
        self,
        endpoint: UdpEndpoint,
        listener: "TcpListener",
        strangers: Strangers,
        counters: TcpCounters,
        limits: TcpLimits,
    ) -> None:
        super().__init__(listener.address.announced_ips, listener.sock)
        # Given
        self.counters: Final = counters
        self.limits: Final = limits
        self._endpoint: Final = endpoint
        self._sock: Final = listener.sock
        self._strangers: Final = strangers
        # Owned
        self._serial = 0
        self._touched: list[TcpConnection] = []  # those that have something queued
        memory = bytearray(_READ + 2 + MAX_FRAME)
        self._input: Final = memoryview(memory)
        self._input_pointer: Final = pointer_to(memory)

    # -- sending ---

    def queue(self, path: Path, offset: int, octets: int, size: int, count: int) -> None:
        """See :meth:`MediaSocket.queue`."""
        assert isinstance(path, TcpPath)
        connection = path.connection
        if connection.ending:
            self.counters.gone += count
        else:
            if not connection.pending:
                self._touched.append(connection)
            connection.pending.append((offset, octets, size))
        if not self._endpoint.in_batch:
            self.flush()

    def flush(self) -> None:
        """See :meth:`MediaSocket.flush`."""
        if self._touched:
            touched, self._touched = self._touched, []
            for connection in touched:
                connection.write()
        self._position = 0

    def route_removed(self, path: Path) -> None:
        """A connection is nothing without its transport."""
        assert isinstance(path, TcpPath)
        path.connection.end()

    # -- connections ---

    async def run(self) -> None:
        """Accept and serve connections until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                for _ in range(_ACCEPTS):
                    try:
                        sock, _ = self._sock.accept()
                    except BlockingIOError:
                        break
                    except OSError as error:
                        if error.errno in _OUT_OF_FILES:
                            await trio.sleep(_ACCEPT_PAUSE)
                        break  # or one that its client has given up
                    self._admit(sock, nursery)

    def _admit(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        self.counters.accepted += 1
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serial += 1
            connection = TcpConnection(self, sock, self._serial, self.counters, self.limits)
        except OSError:
            sock.close()
            return
        self.counters.connections += 1
        self.counters.refused += self._strangers.add(connection)
        nursery.start_soon(self._serve, connection, name=f"media {connection.path}")

    async def _serve(self, connection: TcpConnection) -> None:
        connection.scope.deadline = trio.current_time() + self.limits.stranger_seconds
        try:
            with connection.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.drain)
                    while not connection.ending:
                        await trio.lowlevel.wait_readable(connection.sock)
                        self._receive(connection, trio.current_time())
            if not connection.ending:
                self.counters.late += 1
        finally:
            connection.ending = True
            self._strangers.remove(connection)
            self.counters.connections -= 1
            trio.lowlevel.notify_closing(connection.sock)
            connection.sock.close()
            route = self.routes.pop(connection.path.key, None)
            if route is not None:
                try:
                    route[0].path_closed(connection.path, trio.current_time())
                except Exception as error:
                    route[0].fault(error)

    # -- receiving ---

    def _receive(self, connection: TcpConnection, now: float) -> None:
        """Take what has come, and handle the whole frames in it as one batch."""
        rest = connection.rest
        begin = len(rest)
        self._input[:begin] = rest
        try:
            size = connection.sock.recv_into(self._input[begin : begin + _READ])
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            connection.end()
            return
        try:
            frames, end = split_frames(self._input, begin + size, MAX_FRAME)
        except BadPacket:
            self.counters.invalid += 1
            connection.end()
            return
        connection.rest = bytes(self._input[end : begin + size])
        if frames:
            self._endpoint.run_batch(self.handle, (connection, frames), now)

    def handle(self, arrival: _Frames, now: float, touched: dict[DatagramOwner, None]) -> None:
        """Hand on the frames that lie in the input; owners that got media are added to ``touched``."""
        connection, frames = arrival
        counters = self.counters
        endpoint = self._endpoint
        key = connection.path.key
        for start, size in frames:
            if connection.ending:
                return
            counters.received += 1
            counters.octets_received += size
            view = self._input[start : start + size]
            kind = KIND_OF_FIRST_BYTE[view[0]]
            route = self.routes.get(key)
            if kind == STUN:
                self._receive_stun(connection, bytes(view), now, known=route is not None)
            elif route is None:
                # A stranger that has asked, and has not waited for the answer; or one that never asked.
                endpoint.counters.unknown += 1
                if connection.greeted:
                    continue
                self._turn_away(connection)
            elif kind == RTP_OR_RTCP and size >= 8:
                touched[route[0]] = None
                try:
                    route[0].receive_srtp(view, self._input_pointer + start, size, now)
                except Exception as error:
                    route[0].fault(error)
            elif kind == DTLS:
                try:
                    route[0].receive_dtls(bytes(view), connection.path, now)
                except Exception as error:
                    route[0].fault(error)
            else:
                endpoint.counters.invalid += 1

    def _receive_stun(self, connection: TcpConnection, data: bytes, now: float, *, known: bool) -> None:
        endpoint = self._endpoint
        path = connection.path
        try:
            ufrag = peek_local_ufrag(data)
            owner = endpoint.owner_of(ufrag)
            if owner is not None:
                connection.greeted = True
                try:
                    owner.receive_stun(data, path, now)
                except BadPacket:
                    raise
                except Exception as error:
                    owner.fault(error)
                if path.key in self.routes:
                    self._strangers.remove(connection)
                    connection.scope.deadline = float("inf")
                return
            endpoint.counters.unknown += 1
            if not endpoint.admit_stranger(now):
                endpoint.counters.limited += 1
            else:
                self.send(path, unauthenticated_error(data, 401 if ufrag else 400))
        except BadPacket:
            endpoint.counters.invalid += 1
        if not known and not connection.greeted:
            self._turn_away(connection)

    def _turn_away(self, connection: TcpConnection) -> None:
        self.counters.strange += 1
        connection.end()


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A socket that listens at an address."""

    address: ListenAddress
    sock: socket.socket


def listen_tcp(addresses: Sequence[ListenAddress]) -> list[TcpListener]:
    """Listen at each address. Whoever calls this closes the sockets.

    Raises :class:`OSError` with a sentence for a person where an address cannot be bound; nothing is left open then.
    """
    listeners: list[TcpListener] = []
    try:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address.bind_ip else socket.AF_INET
            listeners.append(TcpListener(address, socket.socket(family, socket.SOCK_STREAM)))
            _bind(listeners[-1])
    except BaseException:
        for each in listeners:
            each.sock.close()
        raise
    return listeners


def _bind(listener: TcpListener) -> None:
    sock, address = listener.sock, listener.address
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that starts again
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_QUEUE)  # accepted sockets have it from this one
    try:
        sock.bind((address.bind_ip, address.port))
        sock.listen(_LISTEN_QUEUE)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error.strerror}"
        raise OSError(error.errno, f"TCP {address.bind_ip} port {address.port} {reason}") from error


@asynccontextmanager
async def open_tcp_sockets(
    endpoint: UdpEndpoint, listeners: Sequence[TcpListener], limits: TcpLimits | None = None
) -> AsyncIterator[TcpCounters]:
    """Serve the endpoint's transports on what :func:`listen_tcp` gave, until the block ends; that closes everything.

    To be opened before the first transport is made.
    """
    limits = limits or TcpLimits()
    counters = TcpCounters()
    strangers = Strangers(limits)
    endpoint.tcp += [TcpSocket(endpoint, each, strangers, counters, limits) for each in listeners]
    try:
        async with trio.open_nursery() as nursery:
            for tcp_socket in endpoint.tcp:
                nursery.start_soon(tcp_socket.run, name=f"tcp {tcp_socket.host}:{tcp_socket.port}")
            yield counters
            nursery.cancel_scope.cancel()
    finally:
        endpoint.tcp.clear()
        for each in listeners:
            trio.lowlevel.notify_closing(each.sock)
            each.sock.close()
