"""How many bytes one transport has received and sent.

Owned by its :class:`~trio_sfu.media.rtp_session.RtpSession`. Consumers and the transport add to it for each batch,
retransmission and RTCP packet, never for each packet; received RTP is what the session counts anyway.
"""

from typing import NamedTuple

__all__ = ["Octets", "Traffic"]


class Octets(NamedTuple):
    """Bytes so far. ``received`` and ``sent`` are all UDP payloads: STUN, DTLS, SRTP and SRTCP. The others are whole
    RTP packets as they are before encryption, retransmissions (RTX) and all else apart."""

    received: int
    sent: int
    rtp_received: int
    rtp_sent: int
    rtx_received: int
    rtx_sent: int


class Traffic:
    """The counters that the session does not have otherwise."""

    __slots__ = ("control_received", "rtp_sent", "rtx_received", "rtx_sent", "sent")

    def __init__(self) -> None:
        self.control_received = 0
        """STUN, DTLS and RTCP, as on the wire."""
        self.sent = 0
        """Everything, as on the wire."""
        self.rtp_sent = 0
        self.rtx_sent = 0
        self.rtx_received = 0
