"""The UDP endpoint: one socket per listening address for all media of the process, TCP's (tcp.py) beside them.

Each socket's task waits until datagrams have come, drains them in batches without awaiting, hands each one on
by direct call (RFC 7983 decides to what), and sends what that caused with as few system calls as it can, before
it goes back to trio. Nothing here knows RTP: a :class:`DatagramOwner`, found by the ICE username fragment first
and by its authenticated address from then on, gets its datagrams in place and answers through
:class:`UdpSocket.queue`.
"""

import errno
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from trio_sfu.protocols.dtls import DtlsCertificate, DtlsContext
from trio_sfu.protocols.ice import peek_local_ufrag, unauthenticated_error
from trio_sfu.transport.addresses import ListenAddress
from trio_sfu.transport.backlog import TURN_SECONDS, Backlog
from trio_sfu.transport.load import LoadWatch
from trio_sfu.transport.mmsg import SLOT, BatchReceiver, BatchSender
from trio_sfu.transport.path import DatagramOwner, MediaSocket, Path
from trio_sfu.transport.srtp import pointer_to
from trio_sfu.wire.demux import DTLS, KIND_OF_FIRST_BYTE, RTP_OR_RTCP, STUN
from trio_sfu.wire.errors import BadPacket

if TYPE_CHECKING:
    from trio_sfu.transport.tcp import TcpSocket

__all__ = ["DatagramOwner", "EndpointCounters", "Path", "UdpEndpoint", "UdpSocket", "open_udp_endpoint"]

logger = logging.getLogger(__name__)

_ArrivalT = TypeVar("_ArrivalT")

_BUFFER_WANTED: Final = 8 << 20  # a frame of every producer arrives as one burst
_STRANGERS_PER_SECOND: Final = 2000  # STUN that names no transport and is answered
_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8
_SO_RCVBUFFORCE: Final = 33
_SO_SNDBUFFORCE: Final = 32


class EndpointCounters:
    """Datagrams received and dropped, by reason, over all sockets of an endpoint."""

    __slots__ = ("early", "invalid", "limited", "octets", "received", "refused", "replayed", "unauthentic", "unknown")

    def __init__(self) -> None:
        self.received = 0
        self.octets = 0
        self.unknown = 0  # from an address that no transport has authenticated
        self.invalid = 0  # no protocol we speak, or malformed
        self.limited = 0  # over the rate for strangers
        self.early = 0  # SRTP before its transport was connected
        self.replayed = 0  # SRTP that had come before, or too late to tell
        self.refused = 0  # video that nobody was to be sent for want of time
        self.unauthentic = 0  # SRTP whose authentication failed


class UdpSocket(MediaSocket):
    """One bound UDP socket with its receive slots, its send arena and its routes.

    Made and closed by :func:`open_udp_endpoint`.
    """

    protocol = "udp"

    def __init__(self, endpoint: "UdpEndpoint", address: ListenAddress, sock: socket.socket) -> None:
        super().__init__(address.announced_ips, sock)
        # Given
        self._endpoint: Final = endpoint
        self._sock: Final = sock
        # Owned
        self.sender: Final = BatchSender(sock, self._arena_memory)
        self._receiver = BatchReceiver(sock)
        self.backlog: Final = Backlog(sock, self._receiver.slots)
        slots = range(self._receiver.slots)
        buffer = memoryview(self._receiver.buffer)
        base = pointer_to(self._receiver.buffer)
        self._views = [buffer[slot * SLOT : (slot + 1) * SLOT] for slot in slots]
        self._pointers = [base + slot * SLOT for slot in slots]

    # -- sending ---

    def queue(self, path: Path, offset: int, octets: int, size: int, count: int) -> None:
        """See :meth:`MediaSocket.queue`."""
        sender = self.sender
        if count == 1 or sender.segmentation:
            sender.add(path.name_address, path.name_size, offset, octets, size, count, path)
        else:
            for at in range(0, octets, size):
                sender.add(path.name_address, path.name_size, offset + at, min(size, octets - at), size, 1, path)
        if not self._endpoint.in_batch:
            self.flush()

    def flush(self) -> None:
        """See :meth:`MediaSocket.flush`."""
        self.sender.flush()
        self._position = 0

    def route_removed(self, path: Path) -> None:
        """See :meth:`MediaSocket.route_removed`; an address is nothing that has to be closed."""

    # -- receiving ---

    async def run(self) -> None:
        """Receive until cancelled."""
        receiver, backlog = self._receiver, self.backlog
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            now = trio.current_time()
            over = now + TURN_SECONDS
            while now < over:
                most = backlog.most
                count = receiver.receive(most)
                if count:
                    self._endpoint.run_batch(self.handle, count, now)
                if count < most:
                    if backlog.standing:
                        backlog.end()
                    break
                before, now = now, trio.current_time()
                backlog.stand(now - before)

    def handle(self, count: int, now: float, touched: dict[DatagramOwner, None]) -> None:
        """Hand on the ``count`` datagrams just received; owners that got media are added to ``touched``."""
        receiver = self._receiver
        counters = self._endpoint.counters
        counters.received += count
        routes = self.routes
        kinds = KIND_OF_FIRST_BYTE
        views = self._views
        sizes = receiver.sizes(count)
        counters.octets += sum(sizes)
        for view, pointer, size, source in zip(views, self._pointers, sizes, receiver.sources(count), strict=False):
            kind = kinds[view[0]] if size else -1
            if kind == RTP_OR_RTCP:
                route = routes.get(source)
                if route is None or size < 8:
                    counters.unknown += 1
                    continue
                owner = route[0]
                touched[owner] = None
                try:
                    owner.receive_srtp(view, pointer, size, now)
                except Exception as error:
                    owner.fault(error)
            elif kind == STUN:
                self._receive_stun(bytes(view[:size]), source, now)
            elif kind == DTLS:
                route = routes.get(source)
                if route is None:
                    counters.unknown += 1
                    continue
                owner, path = route
                try:
                    owner.receive_dtls(bytes(view[:size]), path, now)
                except Exception as error:
                    owner.fault(error)
            else:
                counters.invalid += 1

    def _receive_stun(self, data: bytes, source: bytes, now: float) -> None:
        endpoint = self._endpoint
        counters = endpoint.counters
        try:
            ufrag = peek_local_ufrag(data)
            owner = endpoint.owner_of(ufrag)
            if owner is None:
                # Only what names no transport is limited, so that a flood of it keeps nobody from joining.
                if not endpoint.admit_stranger(now):
                    counters.limited += 1
                    return
                counters.unknown += 1
                self.send(Path(self, source), unauthenticated_error(data, 401 if ufrag else 400))
                return
            route = self.routes.get(source)
            path = route[1] if route else Path(self, source)
            try:
                owner.receive_stun(data, path, now)
            except BadPacket:
                raise
            except Exception as error:
                owner.fault(error)
        except BadPacket:
            counters.invalid += 1

    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because the receive queue was full, since the socket was made."""
        info = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
        return int(struct.unpack_from("=9I", info)[_MEMINFO_DROPS])


class UdpEndpoint:
    """All sockets for the media of a process, and which transport each datagram belongs to."""

    def __init__(self) -> None:
        self.counters: Final = EndpointCounters()
        self.sockets: list[UdpSocket] = []
        self.tcp: list[TcpSocket] = []
        self.dtls: Final = DtlsContext(DtlsCertificate.generate())
        self.load: Final = LoadWatch(self.sockets, self.counters)
        self.in_batch = False
        self._owners: dict[str, DatagramOwner] = {}
        self._strangers = float(_STRANGERS_PER_SECOND)
        self._strangers_at = 0.0

    def register(self, local_ufrag: str, owner: DatagramOwner) -> None:
        """Route STUN that names ``local_ufrag`` to ``owner``, until :meth:`unregister`."""
        if local_ufrag in self._owners:
            raise ValueError("username fragment already in use")
        self._owners[local_ufrag] = owner

    def unregister(self, local_ufrag: str, owner: DatagramOwner) -> None:
        """Forget ``owner``; a second call does nothing."""
        if self._owners.get(local_ufrag) is owner:
            del self._owners[local_ufrag]

    def owner_of(self, local_ufrag: str) -> DatagramOwner | None:
        """Whom STUN for ``local_ufrag`` belongs to."""
        return self._owners.get(local_ufrag)

    @property
    def transport_count(self) -> int:
        """How many transports are registered, whatever the number of their username fragments."""
        return len(set(self._owners.values()))

    def add_route(self, path: Path, owner: DatagramOwner) -> None:
        """Accept DTLS and SRTP that arrives on ``path`` for ``owner``: the path has authenticated itself."""
        path.socket.routes[path.key] = (owner, path)

    def remove_route(self, path: Path, owner: DatagramOwner) -> None:
        """Undo :meth:`add_route`, unless another owner has taken the path over."""
        route = path.socket.routes.get(path.key)
        if route is not None and route[0] is owner:
            del path.socket.routes[path.key]
            path.socket.route_removed(path)

    def admit_stranger(self, now: float) -> bool:
        """Whether one more STUN message that names no transport may be answered (a token bucket)."""
        rate = _STRANGERS_PER_SECOND
        self._strangers = min(rate, self._strangers + (now - self._strangers_at) * rate)
        self._strangers_at = now
        if self._strangers < 1:
            return False
        self._strangers -= 1
        return True

    def run_batch(
        self,
        handle: Callable[[_ArrivalT, float, dict[DatagramOwner, None]], None],
        arrival: _ArrivalT,
        now: float,
    ) -> None:
        """Have one received batch handled whole by its socket, then send everything that it caused on any socket.

        ``handle`` adds the owners that got media to the dictionary.
        """
        touched: dict[DatagramOwner, None] = {}
        self.in_batch = True
        try:
            handle(arrival, now, touched)
            for owner in touched:
                try:
                    owner.flush(now)
                except Exception as error:
                    owner.fault(error)
        finally:
            self._end_batch()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Let what is sent in the block leave together at its end. Not to be nested, and nothing awaits inside."""
        self.in_batch = True
        try:
            yield
        finally:
            self._end_batch()

    def _end_batch(self) -> None:
        self.in_batch = False
        for each in self.sockets:
            each.flush()
        for other in self.tcp:
            other.flush()


def _open_socket(address: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.bind_ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind((address.bind_ip, address.port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error.strerror}"
            raise OSError(error.errno, f"UDP {address.bind_ip} port {address.port} {reason}") from error
        _enlarge(sock, socket.SO_RCVBUF, _SO_RCVBUFFORCE)
        _enlarge(sock, socket.SO_SNDBUF, _SO_SNDBUFFORCE)
    except BaseException:
        sock.close()
        raise
    return sock


def _enlarge(sock: socket.socket, option: int, forced: int) -> None:
    """Ask for a long queue; the privileged option is not held to the system's limit."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_WANTED)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_WANTED)
    granted = sock.getsockopt(socket.SOL_SOCKET, option) // 2  # the kernel doubles it for its own use
    if granted < _BUFFER_WANTED and option == socket.SO_RCVBUF:
        logger.warning(
            "the kernel granted a UDP receive queue of %d KiB where %d were asked for; bursts of video may be "
            "lost under load (raise net.core.rmem_max)",
            granted >> 10,
            _BUFFER_WANTED >> 10,
        )


@asynccontextmanager
async def open_udp_endpoint(addresses: Sequence[ListenAddress]) -> AsyncIterator[UdpEndpoint]:
    """Bind one socket per address and receive on them until the block ends, which closes them.

    Raises :class:`OSError` with a sentence for a person where an address cannot be bound.
    """
    endpoint = UdpEndpoint()
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            sock = _open_socket(address)
            opened.append(sock)
            endpoint.sockets.append(UdpSocket(endpoint, address, sock))
        async with trio.open_nursery() as nursery:
            for udp_socket in endpoint.sockets:
                nursery.start_soon(udp_socket.run, name=f"udp {udp_socket.host}:{udp_socket.port}")
            yield endpoint
            nursery.cancel_scope.cancel()
    finally:
        for sock in opened:
            trio.lowlevel.notify_closing(sock)
            sock.close()
