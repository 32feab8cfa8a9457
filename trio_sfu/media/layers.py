"""Which of a simulcast producer's streams a consumer is to get, and what its timestamps are when it changes over.

Pure decisions, for :mod:`trio_sfu.media.producer` and :mod:`trio_sfu.media.consumer`.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from trio_sfu.wire.rtcp import SenderReport

if TYPE_CHECKING:
    from trio_sfu.media.incoming_stream import IncomingStream

__all__ = ["choose_stream", "step_at_switch"]

# Sender reports that are further off the time that has passed here are not believed.
_MAX_ERROR_SECONDS: Final = 1.0


def choose_stream(streams: "Collection[IncomingStream]", preferred: int) -> "IncomingStream | None":
    """The highest of ``streams`` that is not above the layer ``preferred``, else the lowest; None where there are none.

    As in mediasoup, somebody who wants little is rather given too much than nothing.
    """
    below = [stream for stream in streams if stream.index <= preferred]
    if below:
        return max(below, key=lambda stream: stream.index)
    return min(streams, key=lambda stream: stream.index, default=None)


def step_at_switch(
    before: SenderReport,
    after: SenderReport,
    *,
    last: int,
    first: int,
    clock_rate: int,
    elapsed: float,
) -> int | None:
    """How much later, in ticks, a frame was taken than another one of another stream; negative where it was earlier.

    ``last`` is the earlier stream's timestamp, ``first`` the later one's; the reports put both on their sender's NTP
    clock (RFC 3550, section 6.4.1). None where what they say does not fit the ``elapsed`` seconds at all.
    """
    apart = _signed(after.ntp_time - before.ntp_time, 64) * clock_rate
    ticks = (
        (apart + (1 << 31) >> 32) + _signed(first - after.rtp_timestamp, 32) - _signed(last - before.rtp_timestamp, 32)
    )
    return ticks if abs(ticks / clock_rate - elapsed) < _MAX_ERROR_SECONDS else None


def _signed(value: int, bits: int) -> int:
    """The number in two's complement that is ``value`` modulo 2 to the ``bits``."""
    half = 1 << bits - 1
    return (value + half) % (2 * half) - half
