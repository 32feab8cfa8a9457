"""The RTP session of one transport: which stream a packet belongs to, and all RTCP in both directions.

Owned by a transport, which hands in what it has decrypted and gives the session its :class:`Sink` once it is
connected. RTCP ends here (RFC 7667, section 3.7's "RTP translator" would pass it on): producers get our receiver
reports, transport-wide feedback, NACKs and keyframe requests; consumers get our sender reports and retransmissions.
"""

from collections.abc import Callable, Collection, Iterable
from itertools import accumulate
from random import Random
from typing import Final

from trio_sfu.media.arrivals import ArrivalRecorder
from trio_sfu.media.bandwidth.control import BandwidthControl
from trio_sfu.media.capabilities import (
    ABS_SEND_TIME_URI,
    MID_URI,
    REPAIRED_RID_URI,
    RID_URI,
    TRANSPORT_CC_URI,
)
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.errors import MediaError
from trio_sfu.media.incoming_stream import IncomingStream
from trio_sfu.media.overload import Overload
from trio_sfu.media.producer import Producer
from trio_sfu.media.rates import Rates
from trio_sfu.media.receive_limit import ReceiveLimit
from trio_sfu.media.round_trip import RoundTrip
from trio_sfu.media.sink import Sink
from trio_sfu.media.traffic import Octets, Traffic
from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.rtcp import (
    Dlrr,
    ExtendedReport,
    FullIntraRequest,
    GenericNack,
    Goodbye,
    PictureLossIndication,
    ReceiverReferenceTime,
    ReceiverReport,
    Remb,
    ReportBlock,
    SenderReport,
    SourceDescription,
    pack_compound,
    parse_compound,
)
from trio_sfu.wire.rtp import RtpPacket, parse_rtp
from trio_sfu.wire.transport_feedback import TransportFeedback

__all__ = ["RtpSession", "SessionCounters"]

_REPORT_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 0.1  # from one tick that matters to the next, where nothing waits
# libsrtp keeps state for every SSRC it has seen: a client that invents them without end is not served. The last packets
# of closed producers count too, and Firefox sends RTCP under another SSRC for each consumer: so each adds a few.
_MAX_UNKNOWN_SSRCS: Final = 64
_UNKNOWN_SSRCS_PER_MEMBER: Final = 4
_MOST_SSRCS: Final = 4096  # whatever is announced, in the life of a transport
_MAX_RTCP_BLOCKS: Final = 20  # keeps a compound within 1200 bytes
_MAX_NACKED: Final = 250  # numbers in one NACK, of either direction
_MAX_REMB_SSRCS: Final = 255
_UNLIMITED: Final = 1_000_000_000  # bit/s
_MAX_RTCP_SIZE: Final = 1200
_NTP_EPOCH: Final = 2208988800  # seconds from 1900 to 1970
_CALM: Final = Overload()


class SessionCounters:
    """What the session got and could not use."""

    __slots__ = ("invalid", "unknown_ssrc")

    def __init__(self) -> None:
        self.invalid = 0
        self.unknown_ssrc = 0


class RtpSession:
    """``clock`` gives the current monotonic time for what signalling asks for; ``wall_clock`` the Unix time.

    ``on_fault`` is told of bugs, ``on_abuse`` of a sentence why the client is not to be served any longer.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_fault: Callable[[Exception], None],
        on_abuse: Callable[[str], None],
        random: Random,
    ) -> None:
        # Given
        self.now: Final = clock
        self._wall_clock: Final = wall_clock
        self.on_fault: Final = on_fault
        self._on_abuse: Final = on_abuse
        self._random: Final = random
        # Owned
        self.closed = False
        self.sink: Sink | None = None
        """There once the transport is connected and the peer's fingerprint matched; set by :meth:`connect`."""
        self.counters: Final = SessionCounters()
        self.ssrc: Final = random.randrange(1, 1 << 32)
        """Our own as a receiver: the sender of all feedback."""
        self.producers: Final[dict[str, Producer]] = {}
        self.consumers: Final[dict[str, Consumer]] = {}
        self._incoming: dict[int, tuple[IncomingStream, Producer]] = {}
        self._repairs: dict[int, tuple[IncomingStream, Producer]] = {}
        self._outgoing: dict[int, Consumer] = {}
        self._producers_by_mid: dict[str, Producer] = {}
        self._extension_ids: dict[str, int] = {}
        self._arrivals: ArrivalRecorder | None = None
        self._limit: ReceiveLimit | None = None
        self.overload: Overload = _CALM
        """The process's; set by the router."""
        self.on_refuse: Callable[[frozenset[int]], None] | None = None
        """Told the SSRCs of which nothing is to be decrypted any more, all that there are. Must not block."""
        self._refused: frozenset[int] = frozenset()
        self.bandwidth: BandwidthControl | None = None
        """Towards the peer; None where it does not tell what arrives."""
        self.round_trip: Final = RoundTrip()
        """To whoever produces on this session."""
        self._transport_cc_id = 0
        self._most_incoming: int | None = None
        self._touched: dict[IncomingStream, Producer] = {}
        self._unknown_ssrcs: set[int] = set()
        self._unknown_limit = _MAX_UNKNOWN_SSRCS
        self._announced = 0
        self._next_mid = 0
        self._next_report = 0.0
        self._next_tick = 0.0
        self.packets_received = 0
        self.octets_received = 0
        self.traffic: Final = Traffic()
        self.rates: Final = Rates()
        """Of :meth:`octets`."""

    # -- members ---

    def unused_ssrc(self) -> int:
        """A random SSRC (RFC 3550, section 8.1); nothing in this session has it, nor the one after it."""
        while True:
            ssrc = self._random.randrange(1, 0xFFFFFFFF)
            used = (self._outgoing, self._incoming, self._repairs)
            if not any(each in table for each in (ssrc, ssrc + 1) for table in used):
                return ssrc

    def unused_mid(self) -> str:
        """The next MID for a consumer: four characters, so that all packets have prefixes of one length."""
        number = self._next_mid
        self._next_mid = (number + 1) % 36**4
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"
        return "".join(digits[number // 36**place % 36] for place in (3, 2, 1, 0))

    def check_new(self, producer: Producer, replacing: Collection[Producer] = ()) -> None:
        """Raises :class:`MediaError` where ``producer``'s SSRCs or MID are in use in this session, or it is closed.

        What those have that it replaces, it may have.
        """
        if self.closed:
            raise MediaError("transport-closed", "the transport is closed")
        if self._announced + _ssrcs_of(producer) > _MOST_SSRCS:
            raise MediaError("too-many-producers", "the transport has had too many RTP streams; create another one")
        mid = producer.rtp_parameters.mid
        if mid is not None and self._producers_by_mid.get(mid, producer) not in (producer, *replacing):
            raise MediaError("invalid-rtp-parameters", "the MID is used by another producer of the transport")
        for stream in producer.streams.values():
            for ssrc in (stream.ssrc, stream.rtx_ssrc):
                if ssrc is None:
                    continue
                owners = [table[ssrc][1] for table in (self._incoming, self._repairs) if ssrc in table]
                if any(owner not in replacing for owner in owners):
                    raise MediaError("duplicate-ssrc", f"SSRC {ssrc} is used by another producer")

    def add_producer(self, producer: Producer) -> None:
        """Route packets to ``producer`` from now on. Raises :class:`MediaError` as :meth:`check_new` does."""
        self.check_new(producer)
        self._announced += _ssrcs_of(producer)
        self.producers[producer.id] = producer
        if producer.rtp_parameters.mid is not None:
            self._producers_by_mid[producer.rtp_parameters.mid] = producer
        for stream in producer.streams.values():
            self._route(stream, producer)
        for extension in producer.rtp_parameters.header_extensions:
            self._extension_ids[extension.uri] = extension.id
        feedback = {each.type for codec in producer.rtp_parameters.codecs for each in codec.rtcp_feedback}
        uris = {extension.uri for extension in producer.rtp_parameters.header_extensions}
        if "transport-cc" in feedback and TRANSPORT_CC_URI in uris:
            self._transport_cc_id = self._extension_ids[TRANSPORT_CC_URI]
            if self._arrivals is None:
                self._arrivals = ArrivalRecorder()
        elif "goog-remb" in feedback and ABS_SEND_TIME_URI in uris and self._limit is None:
            self._limit = ReceiveLimit()
        self._unknown_limit = min(self._unknown_limit + _UNKNOWN_SSRCS_PER_MEMBER, _MOST_SSRCS)

    def _route(self, stream: IncomingStream, producer: Producer) -> None:
        self._incoming[stream.ssrc] = (stream, producer)
        if stream.rtx_ssrc is not None:
            self._repairs[stream.rtx_ssrc] = (stream, producer)

    def refuse(self, producers: Collection[Producer]) -> None:
        """Have nothing more of these, for want of the server's time, and everything of the others again.

        They do not notice but by what their reports say is lost.
        """
        streams = [stream for producer in producers for stream in producer.streams.values()]
        ssrcs = frozenset(ssrc for stream in streams for ssrc in (stream.ssrc, stream.rtx_ssrc) if ssrc is not None)
        if ssrcs == self._refused or self.on_refuse is None:
            return
        for stream in streams:
            if stream.ssrc not in self._refused:
                stream.interrupt()
        self._refused = ssrcs
        self.on_refuse(ssrcs)

    def remove_producer(self, producer: Producer) -> None:
        """Called by the producer as it closes."""
        self.producers.pop(producer.id, None)
        for table in (self._incoming, self._repairs):
            for ssrc in [ssrc for ssrc, (_, owner) in table.items() if owner is producer]:
                del table[ssrc]
        for mid in [mid for mid, owner in self._producers_by_mid.items() if owner is producer]:
            del self._producers_by_mid[mid]

    def add_consumer(self, consumer: Consumer) -> None:
        """Route the receiver's feedback to ``consumer``."""
        self.consumers[consumer.id] = consumer
        self._outgoing[consumer.ssrc] = consumer
        if consumer.rtx_ssrc is not None:
            self._outgoing[consumer.rtx_ssrc] = consumer
        self.hurry()
        self._unknown_limit = min(self._unknown_limit + _UNKNOWN_SSRCS_PER_MEMBER, _MOST_SSRCS)

    def on_sent_of(self, consumer: Consumer) -> Callable[[int, int, int, float], None] | None:
        """Where a new consumer reports what it sends, see :attr:`BandwidthEstimator.on_sent`; None: nowhere."""
        feedback = {each.type for codec in consumer.rtp_parameters.codecs for each in codec.rtcp_feedback}
        counted = consumer.counted and "transport-cc" in feedback
        if counted or "goog-remb" in feedback:
            if self.bandwidth is None:
                self.bandwidth = BandwidthControl()
            if counted:
                self.bandwidth.estimator.expect_feedback()
                return self.bandwidth.estimator.on_sent
            return self.bandwidth.estimator.on_sent_unnumbered
        return None

    def allocate(self) -> None:
        """A consumer is about to begin: divide the bandwidth with it in mind."""
        if self.bandwidth is not None and self.sink is not None:
            self.bandwidth.allocate_now(self.consumers.values(), self.now())

    def remove_consumer(self, consumer: Consumer) -> None:
        """Called by the consumer as it closes; tells the receiver by BYE (RFC 3550, section 6.6)."""
        if self.consumers.pop(consumer.id, None) is None:
            return
        ssrcs = [ssrc for ssrc, owner in self._outgoing.items() if owner is consumer]
        for ssrc in ssrcs:
            del self._outgoing[ssrc]
        if self.sink is not None:
            self.sink.send_rtcp(pack_compound((ReceiverReport(self.ssrc), Goodbye(tuple(ssrcs), ""))))
            for ssrc in ssrcs:
                self.sink.forget(ssrc)

    def connect(self, sink: Sink, now: float) -> None:
        """The transport can send from now on."""
        self.sink = sink
        self._next_report = now
        if self.bandwidth is not None:
            self.bandwidth.allocate_now(self.consumers.values(), now)
        for consumer in self.consumers.values():
            consumer.restart(now)

    def close(self) -> None:
        """Close all producers and consumers; the sink is not used any more. A second call does nothing."""
        self.closed = True
        for producer in tuple(self.producers.values()):
            producer.close()
        for consumer in tuple(self.consumers.values()):
            consumer.close()
        self.sink = None
        self._touched.clear()

    # -- packets that have come ---

    def receive_rtp(self, data: memoryview, now: float) -> None:
        """One decrypted RTP packet, in a buffer that is reused afterwards."""
        self.packets_received += 1
        self.octets_received += len(data)
        try:
            packet = parse_rtp(data)
        except BadPacket:
            self.counters.invalid += 1
            self._note_ssrc(data[8:12])
            return
        ssrc = packet.ssrc
        if self._arrivals is not None:
            place = packet.places.get(self._transport_cc_id)
            if place is not None:
                number = packet.block[place]
                if len(number) == 2:
                    self._arrivals.on_packet(number[0] << 8 | number[1], ssrc, now)
        if self._limit is not None:
            self._limit.on_packet(len(data))
        found = self._incoming.get(ssrc)
        if found is not None:
            stream, producer = found
            lost = stream.receive(packet, data, now)
            if lost:
                self._send_nack(stream, lost)
        else:
            found = self._repairs.get(ssrc)
            if found is None:
                self._receive_unknown(packet, data, now)
                return
            stream, producer = found
            self.traffic.rtx_received += len(data)
            stream.receive_repair(packet, data, now)
        self._touched[stream] = producer

    def _receive_unknown(self, packet: RtpPacket, data: memoryview, now: float) -> None:
        """An SSRC that signalling did not name: RFC 8843, section 9.2 and RFC 8852 say whose it is."""
        elements = packet.extensions
        texts = {
            uri: elements[identifier].decode("ascii", "replace")
            for uri in (MID_URI, RID_URI, REPAIRED_RID_URI)
            if (identifier := self._extension_ids.get(uri, 0)) in elements
        }
        mid = texts.get(MID_URI)
        candidates: Iterable[Producer]
        if mid is not None:
            candidates = [self._producers_by_mid[mid]] if mid in self._producers_by_mid else []
        else:
            candidates = self.producers.values()
        for producer in candidates:
            repaired = texts.get(REPAIRED_RID_URI)
            if packet.payload_type in producer.mapping.rtx_payload_types:
                stream = producer.adopt_repair(packet.ssrc, repaired or texts.get(RID_URI))
            else:
                stream = producer.adopt(packet.ssrc, packet.payload_type, texts.get(RID_URI))
            if stream is not None:
                self._route(stream, producer)
                if stream.ssrc == packet.ssrc:
                    stream.receive(packet, data, now)
                else:
                    self.traffic.rtx_received += len(data)
                    stream.receive_repair(packet, data, now)
                self._touched[stream] = producer
                return
        self.counters.unknown_ssrc += 1
        self._note_ssrc(data[8:12])

    def _note_ssrc(self, data: bytes | memoryview) -> None:
        """The four bytes of a packet's SSRC: count those that belong to no stream."""
        ssrc = int.from_bytes(data, "big")
        if not (ssrc in self._incoming or ssrc in self._repairs or ssrc in self._unknown_ssrcs):
            self._unknown_ssrcs.add(ssrc)
            if len(self._unknown_ssrcs) > self._unknown_limit:
                self._on_abuse("too many RTP streams that were not announced")

    def flush(self, now: float) -> None:
        """The batch is complete: forward what it brought."""
        touched = self._touched
        if touched:
            self._touched = {}
            for stream, producer in touched.items():
                stream.flush(now, forward=not producer.paused)
        if self._arrivals is not None and self._arrivals.is_due(now):
            self._send_feedback(self._arrivals, now)

    def receive_rtcp(self, data: bytes, now: float) -> None:
        """One decrypted compound RTCP packet."""
        try:
            packets = parse_compound(data)
        except BadPacket:
            self.counters.invalid += 1
            self._note_ssrc(data[4:8])
            return
        self._note_ssrc(data[4:8])
        self.hurry()
        for packet in packets:
            match packet:
                case ReceiverReport(reports=reports):
                    self._on_reports(reports, now)
                case SenderReport(ssrc=ssrc, reports=reports):
                    if ssrc in self._incoming:
                        self._incoming[ssrc][0].on_sender_report(packet, now)
                    self._on_reports(reports, now)
                case GenericNack(media_ssrc=ssrc, lost=lost):
                    consumer = self._outgoing.get(ssrc)
                    if consumer is not None and ssrc == consumer.ssrc:
                        consumer.on_nack(lost[:_MAX_NACKED], now)
                case PictureLossIndication(media_ssrc=ssrc):
                    if ssrc in self._outgoing:
                        self._outgoing[ssrc].plis_received += 1
                        self._outgoing[ssrc].on_keyframe_request(now)
                case FullIntraRequest(entries=entries):
                    for ssrc, _ in entries[:_MAX_RTCP_BLOCKS]:
                        if ssrc in self._outgoing:
                            self._outgoing[ssrc].firs_received += 1
                            self._outgoing[ssrc].on_keyframe_request(now)
                case TransportFeedback():
                    if self.bandwidth is not None:
                        self.bandwidth.estimator.on_feedback(packet, now)
                case Remb(bitrate=bitrate):
                    if self.bandwidth is not None:
                        self.bandwidth.estimator.on_remb(bitrate, now)
                case ExtendedReport(blocks=blocks):
                    self._on_extended_report(blocks, now)
                case _:
                    pass  # SDES and BYE need no answer from us

    def _on_reports(self, reports: tuple[ReportBlock, ...], now: float) -> None:
        worst = -1.0
        for block in reports:
            consumer = self._outgoing.get(block.ssrc)
            if consumer is not None and block.ssrc == consumer.ssrc:
                consumer.on_report(block, now)
                worst = max(worst, consumer.fraction_lost)
                if self.bandwidth is not None and consumer.round_trip is not None:
                    self.bandwidth.estimator.on_round_trip(consumer.round_trip)
        if self.bandwidth is not None and worst >= 0:
            self.bandwidth.estimator.on_report(worst, now)

    def _on_extended_report(self, blocks: tuple[ReceiverReferenceTime | Dlrr, ...], now: float) -> None:
        for block in blocks:
            if isinstance(block, Dlrr):
                for ssrc, last_reference, delay in block.items[:_MAX_RTCP_BLOCKS]:
                    if ssrc == self.ssrc:
                        self.round_trip.on_answer(last_reference, delay, now)

    # -- RTCP of ours ---

    def hurry(self) -> None:
        """Something may be due with the next tick: without this, it is looked at ten times a second only."""
        self._next_tick = 0.0

    def tick(self, now: float) -> None:
        """What is due by the clock: retries of NACKs and keyframe requests, feedback, reports. Every 20 ms."""
        if now < self._next_tick or self.sink is None:
            return
        self._next_tick = now + _IDLE_SECONDS  # unless what follows is in a hurry
        waiting = False
        for stream, producer in self._incoming.values():
            if not stream.has_requests:
                continue
            waiting = True
            lost = stream.due_nacks(now, self.round_trip.patience)
            if lost:
                self._send_nack(stream, lost)
            if not producer.paused and stream.due_keyframe_request(now):
                self.send_keyframe_request(stream)
        for consumer in self.consumers.values():
            if consumer.waiting:
                waiting = True
                consumer.begin(now)
        if self.bandwidth is not None:
            waiting |= self.bandwidth.tick(self.consumers.values(), now)
        if self._arrivals is not None and self._arrivals.is_due(now):
            self._send_feedback(self._arrivals, now)
        if now >= self._next_report:
            self._next_report = now + _REPORT_SECONDS
            self._send_reports(now)
            for producer in self.producers.values():
                producer.update_scores()
                producer.choose_streams(now)
            for consumer in self.consumers.values():
                consumer.update_score()
            self._sample(now)
        if waiting:
            self.hurry()

    def _send_nack(self, stream: IncomingStream, lost: tuple[int, ...]) -> None:
        self.hurry()
        if self.sink is not None:
            for at in range(0, len(lost), _MAX_NACKED):
                stream.nacks_sent += 1
                self.sink.send_rtcp(GenericNack(self.ssrc, stream.ssrc, lost[at : at + _MAX_NACKED]).to_bytes())

    def send_keyframe_request(self, stream: IncomingStream) -> None:
        """PLI (RFC 4585, section 6.3.1), or FIR (RFC 5104, section 4.3.1) where only that is understood."""
        if self.sink is None:
            return
        if stream.uses_pli:
            stream.plis_sent += 1
            self.sink.send_rtcp(PictureLossIndication(self.ssrc, stream.ssrc).to_bytes())
        elif stream.uses_fir:
            stream.firs_sent += 1
            stream.fir_count = stream.fir_count + 1 & 0xFF
            self.sink.send_rtcp(FullIntraRequest(self.ssrc, ((stream.ssrc, stream.fir_count),)).to_bytes())

    def _send_feedback(self, arrivals: ArrivalRecorder, now: float) -> None:
        if self.sink is not None:
            for feedback in arrivals.take_feedback(self.ssrc, now):
                self.sink.send_rtcp(feedback.to_bytes())

    def _send_reports(self, now: float) -> None:
        assert self.sink is not None
        ntp_now = self._wall_clock() + _NTP_EPOCH
        pairs = [
            (report, consumer.cname)
            for consumer in self.consumers.values()
            if (report := consumer.sender_report(now, ntp_now)) is not None
        ]
        while pairs:
            # 28 bytes a report, and a chunk of SSRC, item header, CNAME and nulls.
            sizes = accumulate(28 + 10 + len(cname) for _, cname in pairs)
            count = max(1, sum(size <= _MAX_RTCP_SIZE - 4 for size in sizes))
            some, pairs = pairs[: min(count, 31)], pairs[min(count, 31) :]
            names = SourceDescription(tuple((report.ssrc, cname) for report, cname in some))
            self.sink.send_rtcp(pack_compound((*(report for report, _ in some), names)))
        blocks = [block for stream, _ in self._incoming.values() if (block := stream.report(now)) is not None]
        for at in range(0, len(blocks), _MAX_RTCP_BLOCKS):
            received = ReceiverReport(self.ssrc, tuple(blocks[at : at + _MAX_RTCP_BLOCKS]))
            self.sink.send_rtcp(pack_compound((received,) if at else (received, self._reference(now, ntp_now))))
        if self._limit is not None and blocks:
            self._limit.update(max(block.fraction_lost for block in blocks) / 256, now)
        self._send_limit()

    def _reference(self, now: float, ntp_now: float) -> ExtendedReport:
        """Have the sender tell how long ago this reached it: what retries of NACKs go by."""
        ntp = int(ntp_now * 4294967296) & 0xFFFFFFFFFFFFFFFF
        self.round_trip.refer(ntp, now)
        return ExtendedReport(self.ssrc, (ReceiverReferenceTime(ntp),))

    # -- statistics ---

    def octets(self) -> Octets:
        """The bytes that the transport has received and sent so far."""
        traffic = self.traffic
        overhead = self.sink.overhead if self.sink is not None else 0
        return Octets(
            received=self.octets_received + self.packets_received * overhead + traffic.control_received,
            sent=traffic.sent,
            rtp_received=self.octets_received - traffic.rtx_received,
            rtp_sent=traffic.rtp_sent,
            rtx_received=traffic.rtx_received,
            rtx_sent=traffic.rtx_sent,
        )

    @property
    def outgoing_estimate(self) -> int | None:
        """How much the path to the peer carries, in bit/s, where that is known."""
        return self.bandwidth.estimator.bitrate if self.bandwidth is not None else None

    @property
    def incoming_limit(self) -> int | None:
        """How much the sender may send, in bit/s, where that is ours to say."""
        limits = [self._limit.bitrate] if self._limit is not None else []
        if self._most_incoming is not None:
            limits.append(self._most_incoming)
        return min(limits, default=None)

    def set_max_incoming_bitrate(self, bitrate: int | None) -> None:
        """Let the peer send no more than ``bitrate`` bit/s in all, None: what the path carries.

        Said by REMB every second, which senders heed together with transport-wide feedback; they would keep to the last
        one they heard, so it goes on being said that there is no limit.
        """
        self._most_incoming = bitrate or (None if self._most_incoming is None else _UNLIMITED)
        if self.sink is not None:
            self._send_limit()

    def _send_limit(self) -> None:
        bitrate = self.incoming_limit
        ssrcs = tuple(self._incoming)[:_MAX_REMB_SSRCS]
        if bitrate is not None and ssrcs and self.sink is not None:
            self.sink.send_rtcp(Remb(self.ssrc, bitrate, ssrcs).to_bytes())

    def _sample(self, now: float) -> None:
        self.rates.sample(self.octets(), now)
        for stream, _ in self._incoming.values():
            stream.rates.sample((stream.octets,), now)
            stream.layer_rates.sample(now)
        for consumer in self.consumers.values():
            consumer.rates.sample((consumer.octets,), now)


def _ssrcs_of(producer: Producer) -> int:
    """How many SSRCs a producer may come to have: a media and an RTX stream for each encoding."""
    return 2 * len(producer.rtp_parameters.encodings)
