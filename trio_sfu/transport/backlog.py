"""How long what waits in a UDP socket's receive queue has waited.

Owned by the :class:`~trio_sfu.transport.udp.UdpSocket`, which asks only when a batch came full, so that light loads pay
nothing: after any other batch the queue is empty. The kernel stamps packets once somebody has asked.
"""

import socket
import struct
import time
from fcntl import ioctl
from typing import Final

__all__ = ["Backlog"]

_SIOCGSTAMPNS: Final = 0x8907  # of the datagram received last, as a struct timespec
_TIMESPEC = struct.Struct("=qq")


class Backlog:
    """The least time that something has waited since the last :meth:`take`."""

    __slots__ = ("_fd", "_least", "standing")

    def __init__(self, sock: socket.socket) -> None:
        self._fd: Final = sock.fileno()
        self._least: float | None = None
        self.standing = False
        """Whether more waits than has been received."""

    def full(self) -> None:
        """A batch has come full: what is behind it has waited nearly as long as the last of it."""
        waited = self._waited()
        self.standing = True
        self._least = waited if self._least is None else min(self._least, waited)

    def empty(self) -> None:
        """All that had come has been received."""
        self.standing = False
        self._least = 0.0

    def take(self) -> float:
        """Seconds; 0.0 where the queue has been empty at some moment since the last call, or nothing has come."""
        least, self._least = self._least, None
        return least or 0.0

    def _waited(self) -> float:
        try:
            seconds, nanoseconds = _TIMESPEC.unpack(ioctl(self._fd, _SIOCGSTAMPNS, bytes(_TIMESPEC.size)))
        except OSError:
            return 0.0  # before the first datagram, or a kernel without it
        waited: float = (time.time_ns() - seconds * 1_000_000_000 - nanoseconds) / 1e9
        return max(0.0, waited)
