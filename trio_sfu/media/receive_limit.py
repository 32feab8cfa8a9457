"""How much a producer may send where only REMB is negotiated: an estimate from loss and throughput.

Transport-wide feedback leaves the estimate to the sender; REMB (draft-alvestrand-rmcat-remb-03) wants ours. This is
the loss-based controller of draft-ietf-rmcat-gcc-02, section 6, which is what a receiver can know without a model of
the path's queue: it grows while the link is clean and the sender makes use of it, and falls with loss.
"""

from typing import Final

__all__ = ["ReceiveLimit"]

_START: Final = 1_000_000
_LEAST: Final = 100_000
_MOST: Final = 50_000_000


class ReceiveLimit:
    """The estimate of one transport, in bit/s."""

    __slots__ = ("_bitrate", "_octets", "_since")

    def __init__(self) -> None:
        self._bitrate = float(_START)
        self._octets = 0
        self._since: float | None = None

    @property
    def bitrate(self) -> int:
        """The estimate now."""
        return int(self._bitrate)

    def on_packet(self, size: int) -> None:
        """``size`` bytes of RTP have come."""
        self._octets += size

    def update(self, fraction_lost: float, now: float) -> int:
        """The new estimate; to be called about once a second. ``fraction_lost`` is 0 to 1, since the last call."""
        received = 0.0
        if self._since is not None and now > self._since:
            received = self._octets * 8 / (now - self._since)
        self._octets = 0
        self._since = now
        if fraction_lost > 0.1:
            self._bitrate *= 1 - 0.5 * fraction_lost
        elif fraction_lost < 0.02 and received > self._bitrate / 3:
            self._bitrate *= 1.25
        self._bitrate = min(max(self._bitrate, _LEAST), _MOST)
        return int(self._bitrate)
