"""Statistics of transports, producers and consumers, in mediasoup's shape (its ``getStats()``).

Pure functions from the objects to values for the wire; rooms call them. What there is no number for is left out.
``timestamp`` is Unix time in ms; ``now`` is seconds, monotonic.
"""

from typing import Literal, Protocol, TypeAlias

import msgspec

from trio_sfu.media.consumer import Consumer
from trio_sfu.media.incoming_stream import IncomingStream
from trio_sfu.media.parameters import MediaKind
from trio_sfu.media.producer import Producer
from trio_sfu.media.rtp_session import RtpSession

__all__ = [
    "DtlsState",
    "IceState",
    "InboundRtpStats",
    "OutboundRtpStats",
    "Stats",
    "TransportStats",
    "TransportTuple",
    "consumer_stats",
    "producer_stats",
    "transport_stats",
]

IceState: TypeAlias = Literal["new", "connected", "disconnected", "closed"]
DtlsState: TypeAlias = Literal["new", "connecting", "connected", "failed", "closed"]


class TransportTuple(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Both ends of a transport's selected path. ``local_ip`` is an older name of ``local_address``."""

    local_ip: str
    local_address: str
    local_port: int
    remote_ip: str
    remote_port: int
    protocol: Literal["udp", "tcp"]


class TransportStats(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    tag_field="type",
    tag="webrtc-transport",
):
    """mediasoup's ``WebRtcTransportStat``. Rates are in bit/s.

    ``bytes_received`` and ``bytes_sent`` count all UDP payloads; the RTP and RTX ones whole packets, unencrypted.
    ``available_incoming_bitrate``: what we let the sender have, where REMB is negotiated.
    """

    transport_id: str
    timestamp: int
    ice_role: Literal["controlled"]
    ice_state: IceState
    dtls_state: DtlsState
    bytes_received: int
    recv_bitrate: int
    bytes_sent: int
    send_bitrate: int
    rtp_bytes_received: int
    rtp_recv_bitrate: int
    rtp_bytes_sent: int
    rtp_send_bitrate: int
    rtx_bytes_received: int
    rtx_recv_bitrate: int
    rtx_bytes_sent: int
    rtx_send_bitrate: int
    ice_selected_tuple: TransportTuple | None = None
    available_incoming_bitrate: int | None = None
    available_outgoing_bitrate: int | None = None


class BaseRtpStreamStats(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What both directions share.

    ``byte_count`` and ``bitrate`` (bit/s) are of payloads: without headers, and without retransmissions of what is
    counted already. ``fraction_lost``: of the last report, in 1/256. ``packets_lost``: since the stream began,
    what was repaired later included. ``nack_count`` counts NACKs, ``nack_packet_count`` what they asked for.
    ``round_trip_time``: ms.
    """

    timestamp: int
    ssrc: int
    kind: MediaKind
    mime_type: str
    packet_count: int
    byte_count: int
    bitrate: int
    packets_lost: int
    fraction_lost: int
    packets_discarded: int
    packets_retransmitted: int
    packets_repaired: int
    nack_count: int
    nack_packet_count: int
    pli_count: int
    fir_count: int
    rtx_ssrc: int | None = None
    rid: str | None = None
    round_trip_time: float | None = None


class InboundRtpStats(BaseRtpStreamStats, frozen=True, kw_only=True, tag_field="type", tag="inbound-rtp"):
    """One stream that a producer sends. ``jitter`` is in units of its RTP timestamps, as in a receiver report."""

    producer_id: str
    jitter: int


class OutboundRtpStats(BaseRtpStreamStats, frozen=True, kw_only=True, tag_field="type", tag="outbound-rtp"):
    """What a consumer is sent. Losses and the round trip are the receiver's own reports'."""

    consumer_id: str


Stats: TypeAlias = TransportStats | InboundRtpStats | OutboundRtpStats


class StatsTransport(Protocol):
    """What a transport must tell of itself."""

    @property
    def id(self) -> str:
        """The transport's id."""

    @property
    def session(self) -> RtpSession:
        """Its RTP session."""

    @property
    def ice_state(self) -> IceState:
        """ICE, in mediasoup's words."""

    @property
    def dtls_state(self) -> DtlsState:
        """DTLS, in mediasoup's words."""

    @property
    def ice_selected_tuple(self) -> TransportTuple | None:
        """The path in use."""


def transport_stats(transport: StatsTransport, now: float, timestamp: int) -> TransportStats:
    """For the transport's owner only: the client's address is in it."""
    session = transport.session
    octets = session.octets()
    received, sent, rtp_received, rtp_sent, rtx_received, rtx_sent = session.rates.read(octets, now)
    return TransportStats(
        transport_id=transport.id,
        timestamp=timestamp,
        ice_role="controlled",
        ice_state=transport.ice_state,
        dtls_state=transport.dtls_state,
        bytes_received=octets.received,
        recv_bitrate=received,
        bytes_sent=octets.sent,
        send_bitrate=sent,
        rtp_bytes_received=octets.rtp_received,
        rtp_recv_bitrate=rtp_received,
        rtp_bytes_sent=octets.rtp_sent,
        rtp_send_bitrate=rtp_sent,
        rtx_bytes_received=octets.rtx_received,
        rtx_recv_bitrate=rtx_received,
        rtx_bytes_sent=octets.rtx_sent,
        rtx_send_bitrate=rtx_sent,
        ice_selected_tuple=transport.ice_selected_tuple,
        available_incoming_bitrate=session.incoming_limit,
        available_outgoing_bitrate=session.outgoing_estimate,
    )


def producer_stats(producer: Producer, now: float, timestamp: int) -> list[Stats]:
    """One for each stream, the lowest encoding first; one signalled by rid alone is there from its first packet on."""
    streams = sorted(producer.streams.values(), key=lambda stream: stream.index)
    return [_inbound(producer, stream, now, timestamp) for stream in streams]


def consumer_stats(consumer: Consumer, now: float, timestamp: int) -> list[Stats]:
    """What is sent, then the producer's stream that it is made from, where there is any yet."""
    stats: list[Stats] = [_outbound(consumer, now, timestamp)]
    if consumer.stream is not None:
        stats.append(_inbound(consumer.producer, consumer.stream, now, timestamp))
    return stats


def _inbound(producer: Producer, stream: IncomingStream, now: float, timestamp: int) -> InboundRtpStats:
    reception = stream.reception
    return InboundRtpStats(
        producer_id=producer.id,
        timestamp=timestamp,
        ssrc=stream.ssrc,
        rtx_ssrc=stream.rtx_ssrc,
        rid=producer.rtp_parameters.encodings[stream.index].rid,
        kind=stream.kind,
        mime_type=stream.mime_type,
        packet_count=stream.packets,
        byte_count=stream.octets,
        bitrate=stream.rates.read((stream.octets,), now)[0],
        packets_lost=max(0, reception.packets_lost),
        fraction_lost=reception.fraction_lost,
        packets_discarded=stream.discarded,
        packets_retransmitted=stream.retransmitted,
        packets_repaired=stream.repaired,
        nack_count=stream.nacks_sent,
        nack_packet_count=stream.nack.requested if stream.nack is not None else 0,
        pli_count=stream.plis_sent,
        fir_count=stream.firs_sent,
        jitter=round(reception.jitter * stream.clock_rate),
        round_trip_time=None if producer.round_trip is None else round(producer.round_trip * 1000, 1),
    )


def _outbound(consumer: Consumer, now: float, timestamp: int) -> OutboundRtpStats:
    return OutboundRtpStats(
        consumer_id=consumer.id,
        timestamp=timestamp,
        ssrc=consumer.ssrc,
        rtx_ssrc=consumer.rtx_ssrc,
        kind=consumer.kind,
        mime_type=consumer.rtp_parameters.codecs[0].mime_type,
        packet_count=consumer.packets,
        byte_count=consumer.octets,
        bitrate=consumer.rates.read((consumer.octets,), now)[0],
        packets_lost=max(0, consumer.packets_lost),
        fraction_lost=round(consumer.fraction_lost * 256),
        packets_discarded=0,
        packets_retransmitted=consumer.retransmitted,
        packets_repaired=consumer.repaired,
        nack_count=consumer.nacks_received,
        nack_packet_count=consumer.packets_nacked,
        pli_count=consumer.plis_received,
        fir_count=consumer.firs_received,
        round_trip_time=None if consumer.round_trip is None else round(consumer.round_trip * 1000, 1),
    )
