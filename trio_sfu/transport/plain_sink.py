"""The sending side of a plain transport: RTP as it is, or SRTP, one datagram at a time.

Owned by :class:`trio_sfu.transport.plain.PlainTransport`, which tells it the remote addresses and closes the sockets.
"""

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from trio_sfu.protocols.dtls import SrtpKeys
from trio_sfu.transport.mmsg import SendCounters
from trio_sfu.transport.srtp import SrtpSender, pointer_to

__all__ = ["Address", "PlainSink"]

Address: TypeAlias = tuple[str, int]
"""IP address, as the kernel writes it, and port."""

_ARENA: Final = 1 << 19  # bytes: the longest batch is a group of packets that is sent again, half as long
_EXTENSION: Final = 0x10  # the X bit, in the first byte
_WORDS = struct.Struct("!H")


class PlainSink:
    """Implements :class:`trio_sfu.media.sink.Sink`.

    Packets leave without any header extension. A plain receiver has negotiated none, but a packet is laid out once for
    all consumers (:mod:`trio_sfu.media.packet`), with the producer's extensions in it: video-orientation, for one,
    which would turn the picture for those who read it and not for the others. What the kernel does not take is dropped
    and counted, and so is what would go to an address that is not known yet.
    """

    def __init__(self, rtp: socket.socket, rtcp: socket.socket, keys: SrtpKeys | None) -> None:
        # Given
        self._rtp: Final = rtp
        self._rtcp: Final = rtcp
        # Owned
        self.counters: Final = SendCounters()
        self.remote: Address | None = None
        self.rtcp_remote: Address | None = None
        self.transport_sequence = 0
        arena = bytearray(_ARENA)
        self.arena: Final = memoryview(arena)
        self._pointer: Final[Any] = pointer_to(arena)
        self._sender: Final = SrtpSender(keys.profile, keys.local) if keys is not None else None
        # Derived
        self.overhead: Final = self._sender.overhead if self._sender is not None else 0

    def reserve(self, size: int) -> int:
        """The arena from its start: everything has been sent by the time that more is reserved."""
        if size > _ARENA:
            raise ValueError("more than the arena holds")
        return 0

    def send_rtp(self, start: int, sizes: Sequence[int], runs: Sequence[tuple[int, int, int]]) -> None:
        """Take the extensions out, protect where that was asked for, send."""
        overhead = self.overhead
        for size in sizes:
            extra = self._strip(start)
            length = size - extra
            if self._sender is not None:
                self._sender.protect_run(self._pointer, start + extra, (length,))
            self._send(self._rtp, self.remote, start + extra, length + overhead)
            start += size + overhead

    def _strip(self, start: int) -> int:
        """Take the header extension out of the packet at ``start``, which then begins so many bytes later."""
        arena = self.arena
        first = arena[start]
        if not first & _EXTENSION:
            return 0
        header = 12 + 4 * (first & 0x0F)
        (words,) = _WORDS.unpack_from(arena, start + header + 2)
        extra: int = 4 + 4 * words
        arena[start + extra : start + extra + header] = arena[start : start + header]
        arena[start + extra] = first & ~_EXTENSION
        return extra

    def send_rtcp(self, data: bytes) -> None:
        """Copy, protect and send one RTCP packet."""
        size = len(data)
        self.arena[:size] = data
        if self._sender is not None:
            size = self._sender.protect_rtcp(self._pointer, 0, size)
        self._send(self._rtcp, self.rtcp_remote, 0, size)

    def forget(self, ssrc: int) -> None:
        """Drop what libsrtp keeps of a stream of ours that has ended."""
        if self._sender is not None:
            self._sender.forget(ssrc)

    def _send(self, sock: socket.socket, address: Address | None, start: int, size: int) -> None:
        counters = self.counters
        if address is None:
            counters.failed += 1
            return
        try:
            sock.sendto(self.arena[start : start + size], address)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                counters.congested += 1
            else:
                counters.failed += 1
        else:
            counters.datagrams += 1
            counters.octets += size
