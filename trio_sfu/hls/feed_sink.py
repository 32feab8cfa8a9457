"""Where a consumer's packets leave the media layer for a feed instead of a socket."""

import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from trio_sfu.wire.rtcp import SenderReport, parse_compound

__all__ = ["FeedSink", "Receiver"]

_ARENA: Final = 1 << 16  # what one wake-up brings; a group of packets that is sent again is longer
_HEADER = struct.Struct("!HHII")
_WORDS = struct.Struct("!H")


class Receiver(Protocol):
    """The feed, as its sink sees it."""

    def receive(self, number: int, timestamp: int, marker: bool, payload: bytes, now: float) -> None:
        """One packet, as the consumer has numbered it."""

    def report(self, ntp: float, timestamp: int, now: float) -> None:
        """A sender report of the consumer: NTP time in seconds, and the timestamp at that time."""


class FeedSink:
    """Implements :class:`trio_sfu.media.sink.Sink` for the session of one consumer.

    RTCP ends here: of the session's, the consumer's sender reports are what a feed can use, and it makes its own. BYE
    is not passed on either: FFmpeg would give the stream up, which the feed keeps going until FFmpeg is stopped.
    """

    def __init__(self, receiver: Receiver, clock: Callable[[], float]) -> None:
        # Given
        self._receiver: Final = receiver
        self._clock: Final = clock
        # Owned
        self.arena = memoryview(bytearray(_ARENA))
        self.overhead: Final = 0
        self.transport_sequence = 0

    def reserve(self, size: int) -> int:
        """The arena from its start, which grows where it has to: what was sent has been copied."""
        if size > len(self.arena):
            self.arena = memoryview(bytearray(size))
        return 0

    def send_rtp(self, start: int, sizes: Sequence[int], runs: Sequence[tuple[int, int, int]]) -> None:
        """Hand on what :class:`trio_sfu.media.packet.Stamp` has written, without its header extension."""
        arena = self.arena
        now = self._clock()
        for size in sizes:
            head, number, timestamp, _ = _HEADER.unpack_from(arena, start)
            payload = start + 12
            if head & 0x1000:
                payload += 4 + 4 * _WORDS.unpack_from(arena, start + 14)[0]
            end = start + size
            self._receiver.receive(number, timestamp, head & 0x80 != 0, bytes(arena[payload:end]), now)
            start = end

    def send_rtcp(self, data: bytes) -> None:
        """Read what our own session reports."""
        for packet in parse_compound(data):
            if isinstance(packet, SenderReport):
                self._receiver.report(packet.ntp_time / 4294967296, packet.rtp_timestamp, self._clock())

    def forget(self, ssrc: int) -> None:
        """Nothing is kept of a stream."""
