"""What a consumer sends again by RTX (RFC 4588): what its receiver misses, and probes for bandwidth.

Owned by a consumer, which tells it of each stretch of unbroken numbering: numbers that a NACK asks for find their way
back through these to the packets that the views keep.
"""

import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from trio_sfu.media.codec_matching import is_rtx
from trio_sfu.media.frame_mark import shifted
from trio_sfu.media.layer_view import LayerView
from trio_sfu.media.layout import Stamp, lay_out
from trio_sfu.media.packet import Packet, with_ids
from trio_sfu.media.parameters import RtpParameters

if TYPE_CHECKING:
    from trio_sfu.media.rtp_session import RtpSession

__all__ = ["Retransmitter", "Stretch"]

# Stretches that retransmissions can refer to; mappings older than the views' caches are useless.
_MAX_STRETCHES: Final = 8
# The same packet is not sent again sooner than this, or than most of a round trip: receivers ask again after one.
_MIN_RESEND_SECONDS: Final = 0.02
_RESEND_ROUND_TRIPS: Final = 0.8
_MAX_RESENT: Final = 1024
# Retransmissions of one consumer: more is no repair, but somebody who makes the server send without end.
_RESEND_BURST: Final = 1000.0
_RESEND_PER_SECOND: Final = 1000.0
_NUMBER = struct.Struct("!H")


class Stretch(NamedTuple):
    """Unbroken numbering: from the outgoing number ``first`` on, which does not wrap, it is the view's + offset."""

    first: int
    sequence_offset: int
    timestamp_offset: int
    picture_offset: int
    tl0_offset: int
    view: LayerView


class Retransmitter:
    """The RTX stream of one consumer, told apart by ``stamp``'s SSRC."""

    __slots__ = (
        "_credit",
        "_credit_at",
        "_number",
        "_on_sent",
        "_resent",
        "_session",
        "_stamp",
        "_stretches",
        "_types",
        "repaired",
        "retransmitted",
    )

    def __init__(
        self,
        session: "RtpSession",
        stamp: Stamp,
        rtp_parameters: RtpParameters,
        on_sent: Callable[[int, int, int, float], None] | None,
    ) -> None:
        """``on_sent``: see :attr:`BandwidthEstimator.on_sent`."""
        # Given
        self._on_sent: Final = on_sent
        self._session: Final = session
        self._stamp: Final = stamp
        self._types: Final = {
            int(codec.parameters["apt"]): codec.payload_type for codec in rtp_parameters.codecs if is_rtx(codec)
        }
        # Owned
        self._stretches: deque[Stretch] = deque(maxlen=_MAX_STRETCHES)
        self._resent: dict[int, float] = {}
        self._credit = _RESEND_BURST
        self._credit_at = 0.0
        self._number = 0
        self.retransmitted = 0
        """What was asked for; probes are not in it."""
        self.repaired = 0

    def begin_stretch(self, stretch: Stretch) -> None:
        """Numbers from ``stretch.first`` on are those of its view."""
        self._stretches.append(stretch)

    def forget(self) -> None:
        """Nothing that has been sent can be sent again: its numbers stand for other packets now."""
        self._stretches.clear()

    def answer(self, lost: tuple[int, ...], newest: int, round_trip: float | None, now: float) -> None:
        """Send again what is known of ``lost``, the 16-bit numbers of a NACK.

        ``newest``: the last outgoing number, extended; ``round_trip``: to the receiver, in seconds.
        """
        wait = max(_RESEND_ROUND_TRIPS * (round_trip or 0.0), _MIN_RESEND_SECONDS)
        self._credit = min(_RESEND_BURST, self._credit + (now - self._credit_at) * _RESEND_PER_SECOND)
        self._credit_at = now
        bandwidth = self._session.bandwidth
        for number in lost:
            if self._credit < 1:
                return
            if now - self._resent.get(number, float("-inf")) < wait:
                continue
            found = self._find(number, newest)
            if found is None:
                continue
            if bandwidth is not None and not bandwidth.may_repair(found[0].size, now):
                return
            self._credit -= 1
            if self._resent.pop(number, None) is None:
                self.repaired += 1
            self._resent[number] = now
            self.retransmitted += 1
            while len(self._resent) > _MAX_RESENT:
                del self._resent[next(iter(self._resent))]
            self._send(*found, number, now)

    def _find(self, number: int, newest: int) -> tuple[Packet, Stretch] | None:
        """The packet that went out as ``number``, and the stretch it belongs to."""
        back = newest - number & 0xFFFF
        if back >= 0x8000:
            return None  # not sent yet
        for stretch in reversed(self._stretches):
            if newest - back >= stretch.first:
                packet = stretch.view.cache.get(number - stretch.sequence_offset & 0xFFFF)
                return (packet, stretch) if packet is not None else None
        return None

    def probe(self, octets: int, newest: int, now: float) -> int:
        """Send about ``octets`` of the last packets once more, to find out whether the path carries that much.

        Receivers drop what they have already, and acknowledge it all the same. Returns what has been sent; 0 where
        there is nothing to send again.
        """
        sent = 0
        number = newest
        while sent < octets:
            found = self._find(number & 0xFFFF, newest)
            if found is None:
                if number == newest or not sent:
                    return sent
                number = newest  # once more from the last one on
                continue
            self._send(*found, number & 0xFFFF, now)
            sent += found[0].size
            number -= 1
        return sent

    def _send(self, packet: Packet, stretch: Stretch, number: int, now: float) -> None:
        session = self._session
        sink = session.sink
        rtx_type = self._types.get(packet.head & 0x7F)
        if sink is None or rtx_type is None:
            return
        if packet.mark is not None and packet.mark.ids is not None:
            packet = with_ids(packet, shifted(packet.mark.ids, stretch.picture_offset, stretch.tl0_offset))
        # RFC 4588, section 4: the original number precedes the payload.
        elements = packet.elements_size
        body = b"".join((packet.body[:elements], _NUMBER.pack(number), packet.body[elements:]))
        packet = packet._replace(head=packet.head & 0xFF80 | rtx_type, body=body, size=packet.size + 2)
        self._number = self._number + 1 & 0xFFFF
        layout = lay_out((packet,), sink.overhead, ((1, packet.size, packet.size),))
        start = sink.reserve(layout.size)
        before = sink.transport_sequence
        sink.transport_sequence = self._stamp.write(
            sink.arena,
            start,
            layout,
            sequence_offset=self._number - packet.sequence_number,
            timestamp_offset=stretch.timestamp_offset,
            transport_sequence=sink.transport_sequence,
            now=now,
        )
        sink.send_rtp(start, (packet.size,), ((1, packet.size, packet.size),))
        if self._on_sent is not None:
            self._on_sent(before + 1 & 0xFFFF, packet.size, 1, now)
        session.traffic.rtx_sent += packet.size
