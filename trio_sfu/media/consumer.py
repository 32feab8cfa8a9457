"""One user's copy of one producer: which of its packets go out, and as what.

Made by :meth:`trio_sfu.media.router.Router.consume`. Numbers go on without a break whatever the source does: a
pause, another stream of the same producer, or a restart of the sender shift the offsets between the source's and
the consumer's sequence numbers and timestamps, and a retransmission finds its way back through them.
"""

import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from trio_sfu.media.capabilities import (
    ABS_SEND_TIME_URI,
    MID_URI,
    TRANSPORT_CC_URI,
)
from trio_sfu.media.codec_matching import is_rtx
from trio_sfu.media.layers import step_at_switch
from trio_sfu.media.packet import Batch, Packet, Stamp, lay_out
from trio_sfu.media.parameters import MediaKind, RtpParameters
from trio_sfu.media.rates import Rates
from trio_sfu.media.sink import Sink
from trio_sfu.wire.rtcp import ReportBlock, SenderReport

if TYPE_CHECKING:
    from trio_sfu.media.incoming_stream import IncomingStream
    from trio_sfu.media.producer import Producer
    from trio_sfu.media.rtp_session import RtpSession

__all__ = ["Consumer"]

# A consumer that has just begun has nothing to show: its requests for a keyframe are answered at once.
_FRESH_SECONDS: Final = 3.0
# A browser drops what arrives before it has taken in the answer to `consume`. Where the transport is connected
# already and the client has not asked for a paused consumer, that answer gets this much of a start.
_ANSWER_SECONDS: Final = 0.05
# A keyframe older than this could be too old to begin with by the time that the consumer can: another one is asked for.
_YOUNG_KEYFRAME_SECONDS: Final = 0.2
# A receiver that asks for a keyframe this soon after its first packet has missed the one that it was sent.
_MISSED_SECONDS: Final = 0.5
_MAX_REPEATS: Final = 3
# Stretches of unbroken numbering that retransmissions can refer to; mappings older than the cache are useless.
_MAX_STRETCHES: Final = 8
# The same packet is not sent again sooner than this, or than a round trip.
_MIN_RESEND_SECONDS: Final = 0.02
_MAX_RESENT: Final = 1024
# Retransmissions of one consumer: more is no repair, but somebody who makes the server send without end.
_RESEND_BURST: Final = 1000.0
_RESEND_PER_SECOND: Final = 1000.0
_NUMBER = struct.Struct("!H")


class _Stretch(NamedTuple):
    """Unbroken numbering: from the outgoing number ``first`` on, which does not wrap, outgoing = incoming + offset."""

    first: int
    sequence_offset: int
    timestamp_offset: int
    stream: "IncomingStream"


class Consumer:
    """Forwards one stream of ``producer`` at a time to the transport of ``session``."""

    def __init__(
        self,
        consumer_id: str,
        producer: "Producer",
        session: "RtpSession",
        rtp_parameters: RtpParameters,
        *,
        paused: bool,
        first_sequence_number: int,
        preferred_layer: int | None = None,
    ) -> None:
        # Given
        self.id: Final = consumer_id
        self.producer: Final = producer
        self.kind: Final[MediaKind] = producer.kind
        self.type: Final = producer.type
        self.rtp_parameters: Final = rtp_parameters
        self._session: Final = session
        # Derived
        encoding = rtp_parameters.encodings[0]
        assert encoding.ssrc is not None
        assert rtp_parameters.mid is not None
        ids = {extension.uri: extension.id for extension in rtp_parameters.header_extensions}
        self.ssrc: Final = encoding.ssrc
        self.rtx_ssrc: Final = encoding.rtx.ssrc if encoding.rtx else None
        self.cname: Final = rtp_parameters.rtcp.cname or ""
        self._stamp: Final = _stamp(self.ssrc, rtp_parameters.mid, ids)
        self._rtx_stamp: Final = _stamp(self.rtx_ssrc, rtp_parameters.mid, ids) if self.rtx_ssrc is not None else None
        self._rtx_types: Final = {
            int(codec.parameters["apt"]): codec.payload_type for codec in rtp_parameters.codecs if is_rtx(codec)
        }
        self._needs_keyframe: Final = producer.has_keyframes
        self._top_layer: Final = len(producer.rtp_parameters.encodings) - 1
        # Owned
        self.on_layer_change: Callable[[int | None], None] | None = None
        """Told what layer of a simulcast producer goes out from now on, None: none does. Must not block."""
        self.preferred_layer = self._top_layer if preferred_layer is None else min(preferred_layer, self._top_layer)
        self._told_layer: int | None = None
        self.paused = paused
        self.closed = False
        self.stream: IncomingStream | None = None
        """The source whose packets go out."""
        self.target: IncomingStream | None = None
        """The source to go over to at its next keyframe; the same as ``stream`` when settled."""
        self._synchronised = False
        self._same_clock = False
        self._started = 0.0
        self._began_at = float("-inf")
        self._repeats = 0
        self._begin_at = session.now() + (_ANSWER_SECONDS if session.sink is not None else 0.0)
        self._sequence_offset = 0
        self._timestamp_offset = 0
        self._timestamp_lag = 0  # how much of the offset is not the clocks' difference
        self._floor: int | None = None
        self._last_number = first_sequence_number + 0xFFFF  # extended: it does not wrap
        self._last_timestamp = 0
        self._last_sent: float | None = None
        self._stretches: deque[_Stretch] = deque(maxlen=_MAX_STRETCHES)
        self._resent: dict[int, float] = {}
        self._resend_credit = _RESEND_BURST
        self._resend_credit_at = 0.0
        self._rtx_number = 0
        self._report_sent: dict[int, float] = {}
        self.packets = 0
        self.octets = 0
        self.retransmitted = 0
        self.repaired = 0
        self.nacks_received = 0
        self.packets_nacked = 0
        self.plis_received = 0
        self.firs_received = 0
        self.round_trip: float | None = None
        self.packets_lost = 0
        self.fraction_lost = 0.0
        self.rates: Final = Rates()
        """Of ``octets``."""

    # -- state ---

    @property
    def producer_paused(self) -> bool:
        """Whether the producer is paused."""
        return self.producer.paused

    @property
    def active(self) -> bool:
        """Whether packets are wanted: neither side is paused and the transport is connected."""
        return not (self.paused or self.producer.paused or self.closed) and self._session.sink is not None

    def pause(self) -> None:
        """Send nothing until :meth:`resume`."""
        self.paused = True
        self._synchronised = False
        self.tell_layer(self._session.now())

    def resume(self) -> None:
        """Go on, with a keyframe."""
        if self.paused:
            self.paused = False
            self.restart(self._session.now())

    def restart(self, now: float) -> None:
        """Begin anew: after a resume on either side, or when the transport has just been connected."""
        self._synchronised = False
        self._started = now
        self._begin_at = now
        self._repeats = 0
        self._prepare(now)
        self.begin(now)

    @property
    def waiting(self) -> bool:
        """Whether packets are wanted, and none go out for want of a keyframe."""
        return not self._synchronised and self._needs_keyframe and self.active

    def begin(self, now: float) -> None:
        """Start with a keyframe that has come already, if it is recent; to be called until it no longer waits."""
        stream = self.target
        if not self.waiting or stream is None or now < self._begin_at:
            return
        group = stream.recent_group(now)
        if group is not None and not self._has_sent(stream, group.packets[0]):
            self.forward(stream, group, now)
        elif stream.keyframes is not None and not stream.keyframes.waiting:
            self.producer.request_keyframe(stream, now, urgent=True)

    def _has_sent(self, stream: "IncomingStream", packet: Packet) -> bool:
        """Whether ``packet`` is from before what has gone out last: timestamps must not go back."""
        if stream is not self.stream or not self._same_clock:
            return False
        return self._last_timestamp - packet.timestamp - self._timestamp_offset & 0xFFFFFFFF < 0x80000000

    def _prepare(self, now: float) -> None:
        """See to it that there is a keyframe when the consumer begins, be it still paused or not connected."""
        stream = self.target
        if stream is None or stream.keyframes is None or self.producer.paused:
            return
        if now - stream.keyframes.last_keyframe > _YOUNG_KEYFRAME_SECONDS:
            self.producer.request_keyframe(stream, now, urgent=not self._shows_something(now))

    def _shows_something(self, now: float) -> bool:
        """Whether a stream goes out: what the next one's keyframe is asked for is a matter of taste, not of need."""
        return self._synchronised and self.stream is not None and self.stream.is_live(now)

    def request_key_frame(self, *, urgent: bool = True) -> None:
        """Ask the producer for a keyframe; for a source without any this does nothing."""
        target = self.target
        if target is not None:
            self.producer.request_keyframe(target, self._session.now(), urgent=urgent)

    def bind(self, stream: "IncomingStream") -> None:
        """Go over to ``stream``, at its next keyframe where it has any."""
        if self.target is stream:
            return
        if self.target is not None and self.target is not self.stream:
            _give_up(self.target, self)
        self.target = stream
        if self not in stream.consumers:
            stream.consumers = (*stream.consumers, self)
        now = self._session.now()
        if self.stream is None:
            self.stream = stream
            self._started = now
        if stream is not self.stream or not self._synchronised:
            self._prepare(now)

    # -- layers ---

    def set_preferred_layer(self, layer: int) -> int | None:
        """Want the stream at place ``layer`` of the producer's encodings from now on, or the best below it.

        Layers above the highest mean the highest. Returns the layer that is preferred now; None for a producer of one
        stream, where this does nothing.
        """
        if self._top_layer == 0:
            return None
        self.preferred_layer = min(layer, self._top_layer)
        stream = self.producer.stream_for(self, self._session.now())
        if stream is not None:
            self.bind(stream)
        return self.preferred_layer

    def tell_layer(self, now: float) -> None:
        """Say which layer goes out, where it is another one than before."""
        if self._top_layer == 0 or self.closed:
            return
        layer = None
        if self.active and self.stream is not None and self.target is not None:
            if self._shows_something(now):
                layer = self.stream.index
            elif self.target.is_live(now):
                return  # on its way to another layer, which is told when it is there
        if layer != self._told_layer:
            self._told_layer = layer
            if self.on_layer_change is not None:
                self.on_layer_change(layer)

    def on_restart(self, stream: "IncomingStream") -> None:
        """The sender of ``stream`` has begun anew: go on at its next keyframe, on another clock."""
        if stream is self.stream:
            self._synchronised = False
            self._same_clock = False
            self._stretches.clear()

    def close(self) -> None:
        """Stop for good and say BYE; does nothing the second time."""
        if self.closed:
            return
        self.closed = True
        for stream in {self.stream, self.target} - {None}:
            assert stream is not None
            _detach(stream, self)
        self._stretches.clear()
        self.producer.consumers.pop(self.id, None)
        self._session.remove_consumer(self)

    def fault(self, error: Exception) -> None:
        """A bug showed while handling this consumer: its transport's owner is told."""
        self._session.on_fault(error)

    # -- forwarding ---

    def forward(self, stream: "IncomingStream", batch: Batch, now: float) -> None:
        """Send the packets of ``batch`` that came on ``stream``."""
        sink = self._session.sink
        if sink is None or self.paused:
            return
        if stream is not self.stream or not self._synchronised:
            if now < self._begin_at:
                return
            synchronised = self._synchronise(stream, batch, now)
            if synchronised is None:
                return
            batch = synchronised
        if self._floor is not None:
            above = self._above_floor(batch)
            if above is None:
                return
            batch = above
        layout = batch.layout(sink.overhead)
        start = sink.reserve(len(layout.image))
        sink.transport_sequence = self._stamp.write(
            sink.arena,
            start,
            layout,
            sequence_offset=self._sequence_offset,
            timestamp_offset=self._timestamp_offset,
            transport_sequence=sink.transport_sequence,
            now=now,
        )
        sink.send_rtp(start, batch.sizes, batch.runs)
        self.packets += len(batch.packets)
        self.octets += batch.payload_octets
        self._session.traffic.rtp_sent += batch.octets
        newest = batch.newest
        step = newest.sequence_number + self._sequence_offset - self._last_number & 0xFFFF
        if step < 0x8000:
            self._last_number += step
            self._last_timestamp = newest.timestamp + self._timestamp_offset & 0xFFFFFFFF
        self._last_sent = now

    def _synchronise(self, stream: "IncomingStream", batch: Batch, now: float) -> Batch | None:
        """Where the consumer can begin, or go over to another stream, within ``batch``: the rest of it."""
        if stream is not self.target:
            return None
        index = batch.first_keyframe if self._needs_keyframe else 0
        if index is None:
            # The request may have been given up while the source was silent.
            self.producer.request_keyframe(stream, now, urgent=not self._shows_something(now))
            return None
        before = self.stream
        if before is not None and before is not stream:
            _give_up(before, self)
        knew_clock = self._same_clock
        self.stream = stream
        self._synchronised = self._same_clock = True
        if self._repeats == 0:
            self._began_at = now
        first = batch.packets[index]
        self._floor = first.sequence_number
        self._sequence_offset = self._last_number + 1 - first.sequence_number & 0xFFFF
        if self._last_sent is not None and not (before is stream and knew_clock):
            self._go_on_from(before if knew_clock else None, stream, first.timestamp, now - self._last_sent)
        self._stretches.append(_Stretch(self._last_number + 1, self._sequence_offset, self._timestamp_offset, stream))
        self.tell_layer(now)
        return batch.after(index)

    def _go_on_from(
        self, before: "IncomingStream | None", stream: "IncomingStream", first: int, elapsed: float
    ) -> None:
        """Find the timestamp offset for another clock, on which ``stream`` begins with the timestamp ``first``.

        Exact by the sender's reports on both streams. The new stream's keyframe may show an earlier moment than what
        went out last; timestamps do not go back, so it lags then, until the next change. Without reports: as much
        later as the time that has passed.
        """
        last = self._last_timestamp
        step = None
        if (
            before is not None
            and before.clock_rate == stream.clock_rate
            and before.sender_report is not None
            and stream.sender_report is not None
        ):
            step = step_at_switch(
                before.sender_report[0],
                stream.sender_report[0],
                last=last - self._timestamp_offset + self._timestamp_lag,
                first=first,
                clock_rate=stream.clock_rate,
                elapsed=elapsed,
            )
        self._timestamp_lag = 0 if step is None else max(0, 1 - step)
        if step is None:
            step = round(elapsed * stream.clock_rate)
        self._timestamp_offset = last + max(1, step) - first

    def _above_floor(self, batch: Batch) -> Batch | None:
        """``batch`` without packets from before the one that the current stretch began with.

        Their numbers would be those of packets sent before. Late ones are possible for a short while only.
        """
        floor = self._floor
        assert floor is not None
        if 2048 <= batch.newest.sequence_number - floor & 0xFFFF < 0x8000:
            self._floor = None
            return batch
        kept = [packet for packet in batch.packets if packet.sequence_number - floor & 0xFFFF < 0x8000]
        if len(kept) == len(batch.packets):
            return batch
        return Batch(kept) if kept else None

    # -- RTCP from the consuming side ---

    def on_nack(self, lost: tuple[int, ...], now: float) -> None:
        """Send again what the receiver misses, as RTX (RFC 4588).

        Without RTX nothing can be sent again: under the old number, with other header extensions, it would be other
        bytes under the same SRTP nonce. Such a receiver asks for a keyframe.
        """
        self.nacks_received += 1
        self.packets_nacked += len(lost)
        sink = self._session.sink
        if sink is None or self.paused or self._rtx_stamp is None:
            return
        wait = max(self.round_trip or 0.0, _MIN_RESEND_SECONDS)
        earned = (now - self._resend_credit_at) * _RESEND_PER_SECOND
        self._resend_credit = min(_RESEND_BURST, self._resend_credit + earned)
        self._resend_credit_at = now
        for number in lost:
            if self._resend_credit < 1:
                return
            if now - self._resent.get(number, float("-inf")) < wait:
                continue
            found = self._find(number)
            if found is None:
                continue
            packet, stretch = found
            self._resend_credit -= 1
            if self._resent.pop(number, None) is None:
                self.repaired += 1
            self._resent[number] = now
            while len(self._resent) > _MAX_RESENT:
                del self._resent[next(iter(self._resent))]
            self._retransmit(sink, self._rtx_stamp, packet, number, stretch, now)

    def _find(self, number: int) -> "tuple[Packet, _Stretch] | None":
        """The packet that went out as ``number``, and the stretch it belongs to."""
        back = self._last_number - number & 0xFFFF
        if back >= 0x8000:
            return None  # not sent yet
        for stretch in reversed(self._stretches):
            if self._last_number - back >= stretch.first:
                packet = stretch.stream.cache.get(number - stretch.sequence_offset & 0xFFFF)
                return (packet, stretch) if packet is not None else None
        return None

    def _retransmit(
        self, sink: Sink, stamp: Stamp, packet: Packet, number: int, stretch: "_Stretch", now: float
    ) -> None:
        rtx_type = self._rtx_types.get(packet.head & 0x7F)
        if rtx_type is None:
            return
        # RFC 4588, section 4: the original number precedes the payload.
        elements = packet.words * 4 - (16 if packet.wide else 12)
        body = b"".join((packet.body[:elements], _NUMBER.pack(number), packet.body[elements:]))
        packet = packet._replace(head=packet.head & 0xFF80 | rtx_type, body=body, size=packet.size + 2)
        self._rtx_number = self._rtx_number + 1 & 0xFFFF
        offset = self._rtx_number - packet.sequence_number
        layout = lay_out((packet,), sink.overhead)
        start = sink.reserve(len(layout.image))
        sink.transport_sequence = stamp.write(
            sink.arena,
            start,
            layout,
            sequence_offset=offset,
            timestamp_offset=stretch.timestamp_offset,
            transport_sequence=sink.transport_sequence,
            now=now,
        )
        sink.send_rtp(start, (packet.size,), ((1, packet.size, packet.size),))
        self.retransmitted += 1
        self._session.traffic.rtx_sent += packet.size

    def on_keyframe_request(self, now: float) -> None:
        """The receiver's PLI or FIR.

        One that has only just begun was not ready for its first keyframe (its answer to `consume` took longer). It
        has decoded nothing, so it can be given that keyframe again, under new numbers: the sender would make no
        other one so soon.
        """
        if not self.active:
            return
        stream = self.stream
        if (
            stream is not None
            and stream is self.target
            and self._synchronised
            and now - self._began_at < _MISSED_SECONDS
        ):
            group = stream.recent_group(now) if self._repeats < _MAX_REPEATS else None
            if group is not None:
                self._repeats += 1
                self._synchronised = False
                self.forward(stream, group, now)
                return
        self.request_key_frame(urgent=now - self._started < _FRESH_SECONDS)

    def on_report(self, block: ReportBlock, now: float) -> None:
        """The receiver's view of this stream."""
        self.packets_lost = block.packets_lost
        self.fraction_lost = block.fraction_lost / 256
        sent = self._report_sent.get(block.lsr)
        if sent is not None:
            self.round_trip = max(0.0, now - sent - block.dlsr / 65536)

    def sender_report(self, now: float, ntp_now: float) -> SenderReport | None:
        """Our SR, on the producer's own clock so that its audio and video stay together (RFC 3550, 6.4.1).

        ``ntp_now``: seconds since 1900. None before there is anything to say.
        """
        stream = self.stream
        if stream is None or self._last_sent is None or not self._synchronised:
            return None
        if stream.sender_report is not None:
            report, arrived = stream.sender_report
            elapsed = now - arrived
            ntp = report.ntp_time + int(elapsed * 4294967296)
            timestamp = report.rtp_timestamp + round(elapsed * stream.clock_rate) + self._timestamp_offset
        elif now - self._started < 2.0:
            return None  # the producer's first report is better than our guess
        else:
            ntp = int(ntp_now * 4294967296)
            timestamp = self._last_timestamp + round((now - self._last_sent) * stream.clock_rate)
        ntp &= 0xFFFFFFFFFFFFFFFF
        self._report_sent[ntp >> 16 & 0xFFFFFFFF] = now
        while len(self._report_sent) > 8:
            del self._report_sent[next(iter(self._report_sent))]
        return SenderReport(self.ssrc, ntp, timestamp & 0xFFFFFFFF, self.packets & 0xFFFFFFFF, self.octets & 0xFFFFFFFF)


def _stamp(ssrc: int, mid: str, ids: dict[str, int]) -> Stamp:
    return Stamp(
        ssrc=ssrc,
        mid=mid,
        mid_id=ids.get(MID_URI, 0),
        abs_send_time_id=ids.get(ABS_SEND_TIME_URI, 0),
        transport_cc_id=ids.get(TRANSPORT_CC_URI, 0),
    )


def _give_up(stream: "IncomingStream", consumer: Consumer) -> None:
    """Take no more packets of ``stream``; where nobody does, no keyframe of it is wanted either."""
    _detach(stream, consumer)
    if not stream.consumers and stream.keyframes is not None:
        stream.keyframes.cancel()


def _detach(stream: "IncomingStream", consumer: Consumer) -> None:
    stream.consumers = tuple(each for each in stream.consumers if each is not consumer)
