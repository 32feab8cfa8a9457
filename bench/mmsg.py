"""Batches of datagrams through recvmmsg(2): what lets one core of Python count 100,000 packets a second.

Owned by the load generator (:mod:`bench.users`); nothing in ``trio_sfu`` uses it, so that the
generator shares no fast path, and no bug in one, with the server that it measures.

libc is reached through cffi's ABI mode: no compiler, Linux only.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

import cffi

_ffi = cffi.FFI()
_ffi.cdef(
    """
    struct iovec { void *iov_base; size_t iov_len; };
    struct msghdr {
        void *msg_name; unsigned int msg_namelen;
        struct iovec *msg_iov; size_t msg_iovlen;
        void *msg_control; size_t msg_controllen;
        int msg_flags;
    };
    struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
    int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, void *timeout);
    """
)
_libc: Any = _ffi.dlopen(None)

SO_TIMESTAMPNS: Final = 35
SO_RCVBUFFORCE: Final = 33

SLOT: Final = 2048
"""Bytes between two datagrams of an arena."""

_CONTROL = 32  # CMSG_SPACE(struct timespec): 16 bytes of header, 16 of timespec.


class ReceiveArena:
    """Room for one batch of datagrams with their kernel receive times; reused by every call.

    :param batch: most datagrams a call takes.

    ``data`` holds datagram *i* at ``i * SLOT``; ``words`` and ``halves`` are the same memory as native
    unsigned 32- and 16-bit numbers, so that one strided slice reads a header field of the whole batch.
    """

    def __init__(self, batch: int = 64) -> None:
        self.batch = batch
        self._data = _ffi.new("char[]", batch * SLOT)
        self._control = _ffi.new("char[]", batch * _CONTROL)
        self._iovecs = _ffi.new("struct iovec[]", batch)
        self._messages = _ffi.new("struct mmsghdr[]", batch)
        for i in range(batch):
            self._iovecs[i].iov_base = self._data + i * SLOT
            self._iovecs[i].iov_len = SLOT
            header = self._messages[i].msg_hdr
            header.msg_iov = self._iovecs + i
            header.msg_iovlen = 1
            header.msg_control = self._control + i * _CONTROL
            header.msg_controllen = _CONTROL
        # The kernel writes msg_controllen and msg_flags back: every call starts from this copy.
        self._size = _ffi.sizeof(self._messages)
        self._pristine = _ffi.buffer(self._messages)[:]
        self.data = memoryview(_ffi.buffer(self._data))
        self.words = self.data.cast("B").cast("I")
        self.halves = self.data.cast("B").cast("H")
        self._times = memoryview(_ffi.buffer(self._control)).cast("B").cast("q")

    def receive(self, sock: socket.socket) -> int:
        """Take up to ``batch`` waiting datagrams; return how many, 0 when none waits.

        Raises ``OSError`` for anything but an empty queue (``ECONNREFUSED``: the server's port is shut).
        """
        _ffi.memmove(self._messages, self._pristine, self._size)
        count: int = _libc.recvmmsg(sock.fileno(), self._messages, self.batch, socket.MSG_DONTWAIT, _ffi.NULL)
        if count >= 0:
            return count
        code: int = _ffi.errno
        if code in (errno.EAGAIN, errno.EINTR):
            return 0
        raise OSError(code, os.strerror(code))

    def datagram(self, index: int) -> bytes:
        """A copy of datagram ``index`` of the last batch."""
        start = index * SLOT
        return bytes(self.data[start : start + self._messages[index].msg_len])

    def received_at(self, index: int) -> int:
        """When the kernel queued datagram ``index``: ns of the real-time clock, 0 where it did not say."""
        if self._messages[index].msg_hdr.msg_controllen != _CONTROL:
            return 0
        return int(self._times[index * 4 + 2] * 1_000_000_000 + self._times[index * 4 + 3])


def open_connected_socket(address: tuple[str, int], *, receive_buffer: int = 8 << 20) -> socket.socket:
    """A non-blocking UDP socket connected to ``address``, with a deep queue and kernel timestamps.

    The caller closes it. Where SO_RCVBUFFORCE is not allowed the queue is what the system grants.
    """
    sock = _open_socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, receive_buffer)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def open_local_socket(*, receive_buffer: int = 8 << 20) -> socket.socket:
    """The same on a free port of every IPv4 address, not connected yet."""
    sock = _open_socket(socket.AF_INET, receive_buffer)
    try:
        sock.bind(("", 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _open_socket(family: int, receive_buffer: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def queue_drops(ports: set[int]) -> int:
    """Datagrams that full receive queues of the UDP sockets on these local ports have dropped so far."""
    total = 0
    for name in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            with open(name, encoding="ascii") as table:
                next(table)
                for line in table:
                    fields = line.split()
                    if int(fields[1].rpartition(":")[2], 16) in ports:
                        total += int(fields[12])
        except OSError:
            continue
    return total
