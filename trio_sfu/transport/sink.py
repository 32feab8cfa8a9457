"""The sending side of a connected WebRTC transport: SRTP in the socket's arena, then its queue."""

from collections.abc import Sequence
from typing import Final

from trio_sfu.media.traffic import Traffic
from trio_sfu.protocols.dtls import SrtpKeys
from trio_sfu.transport.path import Path
from trio_sfu.transport.srtp import SrtpSender

__all__ = ["SrtpSink"]


class SrtpSink:
    """Implements :class:`trio_sfu.media.sink.Sink`. The owner moves :attr:`path` when ICE selects another."""

    def __init__(self, keys: SrtpKeys, path: Path, traffic: Traffic) -> None:
        """``traffic``: where to count what is sent."""
        self._sender = SrtpSender(keys.profile, keys.local)
        self.path = path
        self._traffic: Final = traffic
        self.overhead: Final = self._sender.overhead
        self.transport_sequence = 0

    @property
    def arena(self) -> memoryview:
        """The arena of the socket that the selected path belongs to."""
        return self.path.socket.arena

    def reserve(self, size: int) -> int:
        """Free bytes in the arena, see :meth:`MediaSocket.reserve`."""
        return self.path.socket.reserve(size)

    def send_rtp(self, start: int, sizes: Sequence[int], runs: Sequence[tuple[int, int, int]]) -> None:
        """Protect in place, then queue run by run."""
        path = self.path
        media_socket = path.socket
        overhead = self.overhead
        self._sender.protect_run(media_socket.arena_pointer, start, sizes)
        if len(runs) == 1:
            count, size, octets = runs[0]
            octets += overhead * count
            media_socket.queue(path, start, octets, size + overhead, count)
            self._traffic.sent += octets
            return
        begin = start
        for count, size, octets in runs:
            octets += overhead * count
            media_socket.queue(path, start, octets, size + overhead, count)
            start += octets
        self._traffic.sent += start - begin

    def send_rtcp(self, data: bytes) -> None:
        """Copy, protect and queue one RTCP packet."""
        media_socket = self.path.socket
        size = len(data)
        start = media_socket.reserve(size + self._sender.rtcp_overhead)
        media_socket.arena[start : start + size] = data
        size = self._sender.protect_rtcp(media_socket.arena_pointer, start, size)
        media_socket.queue(self.path, start, size, size, 1)
        self._traffic.sent += size

    def forget(self, ssrc: int) -> None:
        """Drop what libsrtp keeps of a stream of ours that has ended."""
        self._sender.forget(ssrc)
