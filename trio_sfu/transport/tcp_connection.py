"""One connection of ICE-TCP: what is queued for it, what waits until its client reads, and how long it is a stranger.

Only :mod:`trio_sfu.transport.tcp`, which accepts and reads, makes these.
"""

import socket
import struct
from dataclasses import dataclass
from typing import Final

import trio

from trio_sfu.transport.path import MediaSocket, Path
from trio_sfu.wire.framing import HEADER

__all__ = ["Strangers", "TcpConnection", "TcpCounters", "TcpLimits", "TcpPath"]


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """What strangers may have, and how much waits for a slow client."""

    strangers: int = 100  # in all; the oldest goes
    strangers_per_host: int = 32  # one IPv4 address or IPv6 /64; the oldest goes
    stranger_seconds: float = 5.0
    backlog: int = 1 << 18  # bytes of a connection


class TcpCounters:
    """Connections and datagrams, over all TCP sockets of an endpoint."""

    __slots__ = (
        "accepted", "congested", "connections", "gone", "invalid", "late", "octets_received", "octets_sent",
        "received", "refused", "sent", "strange",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0  # now
        self.accepted = 0
        self.late = 0  # closed: not authenticated in time
        self.strange = 0  # closed: what came first was no binding request to a transport that is there
        self.invalid = 0  # closed: a frame too long
        self.refused = 0  # closed: too many strangers
        self.received = 0
        self.octets_received = 0
        self.sent = 0  # taken, by the kernel or to wait for it
        self.octets_sent = 0
        self.congested = 0  # dropped: what waits already is as much as may wait
        self.gone = 0  # dropped: the connection has closed


class TcpPath(Path):
    """The path of one connection; another one from the same address is another path."""

    __slots__ = ("connection",)

    def __init__(self, media_socket: MediaSocket, name: bytes, serial: int, connection: "TcpConnection") -> None:
        super().__init__(media_socket, name, serial.to_bytes(8))
        self.connection: Final = connection


class TcpConnection:
    """One connection: what is queued for it, and what waits for its client to read. Made by a :class:`TcpSocket`."""

    def __init__(
        self,
        media_socket: MediaSocket,
        sock: socket.socket,
        serial: int,
        counters: TcpCounters,
        limits: TcpLimits,
    ) -> None:
        """``serial``: a number that no other connection has. Raises OSError where it is broken already."""
        name = _raw_address(sock)
        # Given
        self.sock: Final = sock
        self._arena: Final = media_socket.arena
        self._counters: Final = counters
        self._limits: Final = limits
        # Owned
        self.path: Final = TcpPath(media_socket, name, serial, self)
        self.scope: Final = trio.CancelScope()
        self.pending: Final[list[tuple[int, int, int]]] = []  # offset, octets, size of each run in the arena
        self.rest = b""  # the beginning of a frame
        self.greeted = False  # it has named a transport that is there
        self.ending = False
        self._backlog: Final = bytearray()
        self._writable = trio.Event()
        # Derived
        self.host: Final = name[4:8] if len(name) == 8 else name[8:16]  # of IPv6, who has the /64

    def end(self) -> None:
        """Close it, as soon as its task runs; what is queued by then is still sent where the kernel takes it."""
        self.ending = True
        self.scope.cancel()

    def write(self) -> None:
        """Send what is queued, each datagram behind its length, or keep it, or drop it. Never blocks."""
        arena = self._arena
        pieces: list[bytes | memoryview] = []
        sizes: list[int] = []
        for offset, octets, size in self.pending:
            end = offset + octets
            for at in range(offset, end, size):
                length = min(size, end - at)
                pieces += (HEADER.pack(length), arena[at : at + length])
                sizes.append(2 + length)
        self.pending.clear()
        data = b"".join(pieces)
        sent = 0
        if not self._backlog:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self._counters.gone += len(sizes)
                self.end()
                return
        kept, end = self._fitting(sizes, sent)
        counters = self._counters
        counters.sent += kept
        counters.octets_sent += end
        counters.congested += len(sizes) - kept
        if end > sent:
            self._backlog.extend(data[sent:end])
            self._writable.set()

    def _fitting(self, sizes: list[int], sent: int) -> tuple[int, int]:
        """How many of the frames need not be dropped, ``sent`` bytes of them being gone; and where they end.

        The one that is half sent has to be kept, or what follows would not be understood.
        """
        room = sent + self._limits.backlog - len(self._backlog)
        end = 0
        for index, size in enumerate(sizes):
            if end >= sent and end + size > room:
                return index, end
            end += size
        return len(sizes), end

    async def drain(self) -> None:
        """Send what waits whenever the client has read something, until cancelled."""
        while True:
            if not self._backlog:
                self._writable = trio.Event()
                await self._writable.wait()
            await trio.lowlevel.wait_writable(self.sock)
            try:
                sent = self.sock.send(self._backlog)
            except BlockingIOError:
                continue
            except OSError:
                self.end()
                return
            del self._backlog[:sent]


class Strangers:
    """The connections that no transport has authenticated yet, the oldest first, over all sockets."""

    def __init__(self, limits: TcpLimits) -> None:
        self._limits: Final = limits
        self._all: Final[dict[TcpConnection, None]] = {}
        self._by_host: Final[dict[bytes, dict[TcpConnection, None]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: TcpConnection) -> int:
        """Take one more; the oldest goes where there are too many, and the number of those is returned."""
        mates = self._by_host.setdefault(connection.host, {})
        mates[connection] = self._all[connection] = None
        excess = []
        if len(mates) > self._limits.strangers_per_host:
            excess.append(next(iter(mates)))
        elif len(self._all) > self._limits.strangers:
            excess.append(next(iter(self._all)))
        for each in excess:
            self.remove(each)
            each.end()
        return len(excess)

    def remove(self, connection: TcpConnection) -> None:
        """It is none any more; a second call does nothing."""
        if connection in self._all:
            del self._all[connection]
            mates = self._by_host[connection.host]
            del mates[connection]
            if not mates:
                del self._by_host[connection.host]


def _raw_address(sock: socket.socket) -> bytes:
    """The remote end's ``sockaddr``, as :class:`Path` wants it: without IPv4's padding."""
    if sock.family == socket.AF_INET:
        host, port = sock.getpeername()
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host)
    host, port, flow, scope = sock.getpeername()
    address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, flow) + address + struct.pack("=I", scope)
