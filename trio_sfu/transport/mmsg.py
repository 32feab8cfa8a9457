"""Many datagrams in one system call: ``recvmmsg``, ``sendmmsg`` and UDP segmentation offload (Linux).

The kernel's ``struct mmsghdr`` arrays live in plain bytearrays that are filled with :mod:`struct`, one call a
message: field by field through cffi costs ten times as much. Layouts are those of 64-bit Linux (x86-64 and
aarch64 have the same). Errors of the network never raise: they are counted, as with any other lost packet.
Only :mod:`trio_sfu.transport.udp` uses this module.
"""

import errno
import socket
import struct
import sys
from typing import Any, Final, TypeAlias

from cffi import FFI

__all__ = ["MAX_RUN", "SLOT", "BatchReceiver", "BatchSender", "SendCounters", "address_of"]

if sys.platform != "linux" or struct.calcsize("P") != 8:  # pragma: no cover
    raise ImportError("trio_sfu needs a 64-bit Linux")

_ffi = FFI()
_ffi.cdef(
    """
    int recvmmsg(int fd, void *messages, unsigned int count, int flags, void *timeout);
    int sendmmsg(int fd, void *messages, unsigned int count, int flags);
    """
)
_libc: Any = _ffi.dlopen(None)

# struct mmsghdr: name, namelen, iov, iovlen, control, controllen, flags, len (with C's padding).
_MESSAGE = struct.Struct("=QI4xQQQQi4xI4x")
_MESSAGE_FLAGS_AT: Final = 48
_MESSAGE_LENGTH_WORD: Final = 14  # msg_len, as an index of 32-bit words
_VECTOR = struct.Struct("=QQ")
# struct cmsghdr (len, level, type), then the 16-bit segment size, padded to CMSG_SPACE(2).
_SEGMENT_CONTROL = struct.Struct("=QiiH6x")
_SEGMENT_CONTROL_LENGTH: Final = 18  # CMSG_LEN(2)
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103

MAX_RUN: Final = 64  # UDP_MAX_SEGMENTS of every kernel that has the option
SLOT: Final = 2048  # bytes for one incoming datagram; longer ones are cut and then fail authentication
_NAME_BYTES: Final = 28  # struct sockaddr_in6


# Per message: datagrams, octets, what is needed to send a refused run one by one, and whose the name is.
_Queued: TypeAlias = tuple[int, int, int, int, int, int, object]


def address_of(buffer: bytearray) -> int:
    """Where ``buffer`` lies in memory. It stays there while it lives and is not resized."""
    return int(_ffi.cast("uintptr_t", _ffi.from_buffer(buffer)))


# Nothing to receive, or word of an earlier datagram's fate: no reason to give the socket up.
_PASSING: Final = frozenset(
    (
        errno.EAGAIN,
        errno.EINTR,
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENOMEM,
        errno.ENOBUFS,
    )
)


class BatchReceiver:
    """Receives up to ``slots`` datagrams of one non-blocking UDP socket in one call.

    After :meth:`receive` returned ``n``, datagram ``i`` of them lies at ``buffer[i * SLOT:]``, its size is
    ``sizes(n)[i]`` and its sender, a raw ``sockaddr``, is ``sources(n)[i]``. The next call overwrites them all.
    """

    def __init__(self, sock: socket.socket, slots: int = 64) -> None:
        self.slots: Final = slots
        self.buffer: Final = bytearray(slots * SLOT)
        self._fd = sock.fileno()
        self._names = bytearray(slots * _NAME_BYTES)
        self._vectors = bytearray(slots * _VECTOR.size)
        self._messages = bytearray(slots * _MESSAGE.size)
        buffer, names, vectors = map(address_of, (self.buffer, self._names, self._vectors))
        for index in range(slots):
            _VECTOR.pack_into(self._vectors, index * _VECTOR.size, buffer + index * SLOT, SLOT)
            name, vector = names + index * _NAME_BYTES, vectors + index * _VECTOR.size
            _MESSAGE.pack_into(self._messages, index * _MESSAGE.size, name, _NAME_BYTES, vector, 1, 0, 0, 0, 0)
        self._words = memoryview(self._messages).cast("I")
        # sockaddr_in's eight bytes of padding are left out of keys.
        length = 8 if sock.family == socket.AF_INET else _NAME_BYTES
        self._places = [slice(start, start + length) for start in range(0, slots * _NAME_BYTES, _NAME_BYTES)]
        self._pointer = _ffi.from_buffer(self._messages)

    def receive(self, most: int) -> int:
        """The number of datagrams received, ``most`` (at least 1, at most ``slots``) or fewer; 0 where none waits.

        Raises :class:`OSError` on a dead socket.
        """
        count: int = _libc.recvmmsg(self._fd, self._pointer, most, 0, _ffi.NULL)
        if count >= 0:
            return count
        if _ffi.errno in _PASSING:
            return 0
        raise OSError(_ffi.errno, "recvmmsg")

    def sizes(self, count: int) -> list[int]:
        """Bytes of the datagrams in the first ``count`` slots."""
        return self._words[_MESSAGE_LENGTH_WORD : count * 16 : 16].tolist()

    def sources(self, count: int) -> list[bytes]:
        """The raw socket addresses that the datagrams in the first ``count`` slots came from."""
        names = bytes(self._names)
        return [names[place] for place in self._places[:count]]


class SendCounters:
    """What became of the datagrams given to a :class:`BatchSender`."""

    __slots__ = ("congested", "datagrams", "failed", "octets")

    def __init__(self) -> None:
        self.datagrams = 0
        self.octets = 0
        self.congested = 0  # dropped because the socket's send queue was full
        self.failed = 0  # refused by the kernel: no route, too long, not permitted


class BatchSender:
    """Collects datagrams that lie in ``arena`` and sends them all with as few system calls as it can.

    A run of equally long datagrams to one peer goes as one message with ``UDP_SEGMENT``, where the kernel has
    that; the kernel cuts it. When the socket's send queue is full the rest of the batch is dropped and
    counted: the queue is megabytes long, so what it cannot take now would come too late.
    """

    def __init__(self, sock: socket.socket, arena: bytearray, messages: int = 256) -> None:
        self.counters: Final = SendCounters()
        self.segmentation = _has_segmentation(sock)
        self._capacity = messages
        self._fd = sock.fileno()
        self._arena = arena  # kept for its memory
        self._arena_address = address_of(arena)
        self._vectors = bytearray(messages * _VECTOR.size)
        self._messages = bytearray(messages * _MESSAGE.size)
        self._controls = bytearray(messages * _SEGMENT_CONTROL.size)
        self._vectors_address = address_of(self._vectors)
        self._controls_address = address_of(self._controls)
        self._pointer = _ffi.cast("char *", _ffi.from_buffer(self._messages))
        self._count = 0
        self._queued: list[_Queued] = []

    def add(self, name: int, name_size: int, offset: int, octets: int, size: int, count: int, keep: object) -> None:
        """Queue ``count`` datagrams that lie end to end at ``offset``, ``octets`` bytes in all; what is queued leaves
        first where there is no room.

        Each is ``size`` bytes long, but the last, which may be shorter. ``name`` is the memory address of the
        raw socket address, which belongs to ``keep``: that lives until the flush. More than one datagram needs
        :attr:`segmentation`, and at most ``MAX_RUN`` and 65,507 bytes go in one.
        """
        index = self._count
        if index == self._capacity:
            self.flush()
            index = 0
        vector = index * _VECTOR.size
        _VECTOR.pack_into(self._vectors, vector, self._arena_address + offset, octets)
        control = control_size = 0
        if count > 1:
            at = index * _SEGMENT_CONTROL.size
            _SEGMENT_CONTROL.pack_into(self._controls, at, _SEGMENT_CONTROL_LENGTH, _SOL_UDP, _UDP_SEGMENT, size)
            control, control_size = self._controls_address + at, _SEGMENT_CONTROL.size
        _MESSAGE.pack_into(
            self._messages,
            index * _MESSAGE.size,
            name,
            name_size,
            self._vectors_address + vector,
            1,
            control,
            control_size,
            0,
            0,
        )
        self._queued.append((count, octets, name, name_size, offset, size, keep))
        self._count = index + 1

    def flush(self) -> None:
        """Send all that is queued."""
        count = self._count
        if not count:
            return
        queued = self._queued
        sent = 0
        resend: list[_Queued] = []
        counters = self.counters
        while sent < count:
            done: int = _libc.sendmmsg(self._fd, self._pointer + sent * _MESSAGE.size, count - sent, 0)
            if done > 0:
                datagrams = octets = 0
                for entry in queued[sent : sent + done]:
                    datagrams += entry[0]
                    octets += entry[1]
                counters.datagrams += datagrams
                counters.octets += octets
                sent += done
                continue
            # The error belongs to the first message that is left.
            code = _ffi.errno
            if code == errno.EINTR:
                continue
            if code in (errno.EAGAIN, errno.ENOBUFS):
                counters.congested += sum(entry[0] for entry in queued[sent:])
                break
            refused = queued[sent]
            if refused[0] > 1:
                # EIO: a device without checksum offload. EINVAL and EMSGSIZE are this path's own small MTU, which
                # whoever is at its other end can bring about: no reason to stop for all.
                if code in (errno.EIO, errno.EOPNOTSUPP):
                    self.segmentation = False
                resend.append(refused)
            else:
                counters.failed += 1
            sent += 1
        self._count = 0
        queued.clear()
        for _, octets, name, name_size, offset, size, keep in resend:
            for at in range(0, octets, size):
                self.add(name, name_size, offset + at, min(size, octets - at), size, 1, keep)
        if resend:
            self.flush()


def _has_segmentation(sock: socket.socket) -> bool:
    try:
        sock.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True
