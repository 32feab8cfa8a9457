"""How long what waits in a UDP socket's receive queue has waited, and how much to take of it at once.

Owned by the :class:`~trio_sfu.transport.udp.UdpSocket`, which asks only when a batch came full, so that light loads pay
nothing: after any other batch the queue is empty. The kernel stamps packets once somebody has asked.
"""

import socket
import struct
import time
from fcntl import ioctl
from typing import Final

__all__ = ["TURN_SECONDS", "Backlog"]

TURN_SECONDS: Final = 0.005
"""Of receiving and forwarding, before trio runs other tasks."""
_LEAST_BATCH: Final = 8  # however long it takes to forward
_SIOCGSTAMPNS: Final = 0x8907  # of the datagram received last, as a struct timespec
_TIMESPEC = struct.Struct("=qq")


class Backlog:
    """The least time that something has waited since the last :meth:`take`."""

    __slots__ = ("_fd", "_least", "_slots", "most", "standing")

    def __init__(self, sock: socket.socket, slots: int) -> None:
        self._fd: Final = sock.fileno()
        self._slots: Final = slots
        self._least: float | None = None
        self.standing = False
        """Whether more waits than has been received."""
        self.most = slots
        """How many datagrams to receive at once: while more and more waits, as many as can be forwarded in one turn,
        since a batch is never left half done. To 500 consumers, 64 packets take a tenth of a second."""

    def stand(self, seconds: float) -> None:
        """:attr:`most` datagrams have come at once, and took so long: there are more, nearly as old as the last."""
        waited = self._waited()
        self.standing = True
        self._least = waited if self._least is None else min(self._least, waited)
        fits = int(self.most * TURN_SECONDS / max(seconds, 1e-6))
        self.most = max(_LEAST_BATCH, min(fits, self._slots))

    def end(self) -> None:
        """All that had come has been received."""
        self.standing = False
        self._least = 0.0
        self.most = self._slots

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
