"""Which protocol a datagram on the shared UDP port belongs to, from its first byte (RFC 7983 section 7).

Called once per incoming datagram by the UDP endpoint, so the answer is one look-up in a table of 256 bytes:

.. code-block:: text

                    +----------------+
                    |        [0..3] -+--> STUN
                    |                |
                    |      [16..19] -+--> ZRTP          (not spoken here: dropped)
        packet -->  |                |
                    |      [20..63] -+--> DTLS
                    |                |
                    |      [64..79] -+--> TURN channel  (not spoken here: dropped)
                    |                |
                    |    [128..191] -+--> RTP or RTCP   (RFC 5761 tells them apart: :func:`is_rtcp`)
                    |                |
                    |    all others -+--> unknown       (dropped)
                    +----------------+

RFC 9443 gives QUIC 80..127 and 192..255; nothing here speaks QUIC, and those stay unknown.
"""

from typing import Final

__all__ = ["DTLS", "KIND_OF_FIRST_BYTE", "RTP_OR_RTCP", "STUN", "TURN", "UNKNOWN", "ZRTP", "is_rtcp"]

UNKNOWN: Final = 0
STUN: Final = 1
ZRTP: Final = 2
DTLS: Final = 3
TURN: Final = 4
RTP_OR_RTCP: Final = 5

_RANGES: Final = ((0, 3, STUN), (16, 19, ZRTP), (20, 63, DTLS), (64, 79, TURN), (128, 191, RTP_OR_RTCP))


def _build_table() -> bytes:
    table = bytearray(256)
    for first, last, kind in _RANGES:
        table[first : last + 1] = bytes([kind]) * (last + 1 - first)
    return bytes(table)


KIND_OF_FIRST_BYTE: Final[bytes] = _build_table()
"""``KIND_OF_FIRST_BYTE[datagram[0]]`` is one of the constants above. (An empty datagram has none.)"""


def is_rtcp(second_byte: int) -> bool:
    """Whether a packet of kind :data:`RTP_OR_RTCP` is RTCP, from its second byte (RFC 5761 section 4).

    RTCP packet types are 192..223; an RTP packet has marker and payload type there, and payload types 64..95
    (which with the marker bit would look the same) are never given out by the router.
    """
    return 192 <= second_byte <= 223
