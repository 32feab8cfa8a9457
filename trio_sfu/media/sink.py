"""Where the media layer puts outgoing packets: the interface that transports implement."""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Sink"]


class Sink(Protocol):
    """The sending side of one connected transport.

    Packets are written into :attr:`arena`, a buffer that the transport owns, and encrypted there in place.
    """

    @property
    def arena(self) -> memoryview:
        """The buffer; another one after the transport's path has changed, so it is not to be kept."""

    @property
    def overhead(self) -> int:
        """Free bytes needed behind each RTP packet, for its authentication tag."""

    transport_sequence: int
    """The last transport-wide sequence number given to a packet, 16 bits."""

    def reserve(self, size: int) -> int:
        """The offset of ``size`` free bytes, to be filled and sent before anything else is reserved."""

    def send_rtp(self, start: int, sizes: Sequence[int], runs: Sequence[tuple[int, int, int]]) -> None:
        """Protect and send packets that lie at ``start``, each followed by ``overhead`` free bytes.

        ``runs`` is :func:`trio_sfu.media.packet.runs_of` of ``sizes``.
        """

    def send_rtcp(self, data: bytes) -> None:
        """Protect and send one RTCP packet of at most 1200 bytes."""

    def forget(self, ssrc: int) -> None:
        """The outgoing stream with this SSRC has ended, and its SSRC is not used again."""
