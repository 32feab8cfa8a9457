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

    __slots__ = (
        "_path",
        "_pointer",
        "_sender",
        "_socket",
        "_traffic",
        "arena",
        "overhead",
        "reserve",
        "transport_sequence",
    )

    def __init__(self, keys: SrtpKeys, path: Path, traffic: Traffic) -> None:
        """``traffic``: where to count what is sent."""
        self._sender = SrtpSender(keys.profile, keys.local)
        self._traffic: Final = traffic
        self.path = path
        self.overhead: Final = self._sender.overhead
        self.transport_sequence = 0

    @property
    def path(self) -> Path:
        """Where everything is sent."""
        return self._path

    @path.setter
    def path(self, path: Path) -> None:
        self._path = path
        self._socket = path.socket
        self._pointer = path.socket.arena_pointer
        self.arena = path.socket.arena
        self.reserve = path.socket.reserve  # see MediaSocket.reserve

    def send_rtp(self, start: int, sizes: Sequence[int], runs: Sequence[tuple[int, int, int]]) -> None:
        """Protect in place, then queue run by run."""
        path = self._path
        media_socket = self._socket
        overhead = self.overhead
        self._sender.protect_run(self._pointer, start, sizes)
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
