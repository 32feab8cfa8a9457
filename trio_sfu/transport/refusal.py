"""Dropping what nobody is to be sent before it costs anything: SRTP of refused streams, undecrypted.

In rooms of few, decrypting and reading a packet costs as much as forwarding it, so leaving video out at the way out is
not relief enough. Used by :class:`~trio_sfu.transport.webrtc.WebRtcTransport` in place of its receiver, and only while
something is refused: otherwise nothing is looked at twice.
"""

from typing import Any, Final

from trio_sfu.transport.srtp import SrtpReceiver, ssrc_at

__all__ = ["REFUSED", "RefusingReceiver"]

REFUSED: Final = 1000  # no status of libsrtp's
# libsrtp follows the rollover counter by what it is shown: it must never miss half a cycle of 65,536 numbers.
_SHOWN_EVERY: Final = 1024


class RefusingReceiver:
    """Has the interface of :class:`SrtpReceiver`, and takes RTP of all streams but those with ``ssrcs``."""

    __slots__ = ("_receiver", "_refused")

    def __init__(self, receiver: SrtpReceiver, ssrcs: frozenset[int]) -> None:
        self._receiver: Final = receiver
        self._refused = dict.fromkeys(ssrcs, 0)

    def unprotect(self, pointer: Any, size: int) -> int:
        """As :meth:`SrtpReceiver.unprotect`; ``-REFUSED`` of what is refused. At least 12 bytes are looked at."""
        ssrc = ssrc_at(pointer)
        count = self._refused.get(ssrc)
        if count is None:
            return self._receiver.unprotect(pointer, size)
        self._refused[ssrc] = count + 1
        if count % _SHOWN_EVERY == 0:
            self._receiver.unprotect(pointer, size)
        return -REFUSED

    def unprotect_rtcp(self, pointer: Any, size: int) -> int:
        """As :meth:`SrtpReceiver.unprotect_rtcp`: all reports are taken."""
        return self._receiver.unprotect_rtcp(pointer, size)
