"""What the sockets of the media have in common, UDP and TCP: their paths, how one sends by them, and who receives.

:mod:`trio_sfu.transport.udp` and :mod:`trio_sfu.transport.tcp` make the sockets; a WebRTC transport and its sink know
no more of them than what stands here.
"""

import socket
import struct
from abc import ABC, abstractmethod
from typing import Any, Final, Literal, Protocol

from trio_sfu.transport.mmsg import address_of
from trio_sfu.transport.srtp import pointer_to

__all__ = ["DatagramOwner", "MediaSocket", "Path"]

_ARENA: Final = 1 << 20  # bytes that can wait to be sent
_FULL: Final = 1 << 18  # so many are not waited with: the first consumers of a long batch need not wait for the last


class Path:
    """A local socket and a remote address: what ICE calls the two ends of a candidate pair.

    Two paths are equal when both ends are. ``key`` is the raw remote address; ``name_address`` is where its
    ``sockaddr`` lies in memory, for as long as the path lives.
    """

    __slots__ = ("_name", "host", "key", "name_address", "name_size", "port", "socket")

    def __init__(self, media_socket: "MediaSocket", name: bytes, serial: bytes = b"") -> None:
        """``name``: the raw ``sockaddr``, 8 or 28 bytes; ``serial`` tells apart connections from one address."""
        self.socket: Final = media_socket
        self.key: Final = name + serial
        self._name = bytearray(name + bytes(8) if len(name) == 8 else name)
        self.name_address: Final = address_of(self._name)
        self.name_size: Final = len(self._name)
        (self.port,) = struct.unpack_from("!H", name, 2)
        self.host: Final = (
            socket.inet_ntop(socket.AF_INET, name[4:8])
            if len(name) == 8
            else socket.inet_ntop(socket.AF_INET6, name[8:24])
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and self.key == other.key and self.socket is other.socket

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Path {self.host}:{self.port}>"


class DatagramOwner(Protocol):
    """Whoever a datagram belongs to: a WebRTC transport."""

    def receive_stun(self, data: bytes, path: Path, now: float) -> None:
        """A STUN message that names this owner's username fragment. Raises :class:`BadPacket`."""

    def receive_dtls(self, data: bytes, path: Path, now: float) -> None:
        """A DTLS record from an authenticated path."""

    def receive_srtp(self, view: memoryview, pointer: Any, size: int, now: float) -> None:
        """SRTP or SRTCP from an authenticated path, ``size`` bytes at ``view`` and ``pointer``, to be read
        in place before the call returns."""

    def flush(self, now: float) -> None:
        """The batch that :meth:`receive_srtp` belonged to is complete."""

    def path_closed(self, path: Path, now: float) -> None:
        """The TCP connection of an authenticated path has closed, and its route is gone."""

    def fault(self, error: Exception) -> None:
        """Handling one of this owner's datagrams hit a bug."""


class MediaSocket(ABC):
    """A socket that datagrams are sent by: written into its arena, queued, and sent together.

    ``host`` and ``port`` are where it is bound, ``announced`` the addresses that clients are told. ``routes``: whom
    what comes from an authenticated address belongs to, by :attr:`Path.key`; the endpoint keeps it.
    """

    protocol: Literal["udp", "tcp"]

    def __init__(self, announced: tuple[str, ...], sock: socket.socket) -> None:
        # Given
        self.announced: Final = announced
        # Owned
        self.port: Final[int] = sock.getsockname()[1]
        self.host: Final[str] = sock.getsockname()[0]
        self.routes: Final[dict[bytes, tuple[DatagramOwner, Path]]] = {}
        self._arena_memory: Final = bytearray(_ARENA)
        self.arena: Final = memoryview(self._arena_memory)
        self.arena_pointer: Final = pointer_to(self._arena_memory)
        self._position = 0

    def reserve(self, size: int) -> int:
        """The offset of ``size`` free bytes in :attr:`arena`, to be written and queued before any other call."""
        position = self._position
        if position > _FULL or position + size > _ARENA:
            if size > _ARENA:
                raise ValueError("more than the arena holds")
            self.flush()
            position = 0
        self._position = position + size
        return position

    @abstractmethod
    def queue(self, path: Path, offset: int, octets: int, size: int, count: int) -> None:
        """Send ``count`` datagrams of ``size`` bytes (the last may be shorter) that lie end to end in the arena.

        They leave when the current batch ends, or at once outside of one.
        """

    def send(self, path: Path, data: bytes) -> None:
        """Send one datagram: copy and queue it."""
        size = len(data)
        offset = self.reserve(size)
        self.arena[offset : offset + size] = data
        self.queue(path, offset, size, size, 1)

    @abstractmethod
    def flush(self) -> None:
        """Hand everything queued to the kernel."""

    @abstractmethod
    def route_removed(self, path: Path) -> None:
        """Nobody receives by ``path`` any more."""
