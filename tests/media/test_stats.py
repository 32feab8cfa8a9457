"""Statistics: every number of a call whose packets the test knows, and the form that clients get."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.support.media_core import (
    AUDIO_SSRC,
    IDS,
    VIDEO_RTX_SSRC,
    VIDEO_SSRC,
    Call,
    FakeSession,
    audio,
    rtp,
    rtx,
    video,
    video_parameters,
)
from trio_sfu.media.capabilities import ABS_SEND_TIME_URI, RID_URI
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.producer import Producer
from trio_sfu.media.rates import Rates
from trio_sfu.media.stats import (
    InboundRtpStats,
    OutboundRtpStats,
    TransportStats,
    TransportTuple,
    consumer_stats,
    producer_stats,
    transport_stats,
)
from trio_sfu.wire.rtcp import (
    FullIntraRequest,
    GenericNack,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    SenderReport,
)

AT = 1_700_000_000_123


def inbound(call: Call, producer: Producer) -> InboundRtpStats:
    (stats,) = producer_stats(producer, call.now, AT)
    assert isinstance(stats, InboundRtpStats)
    return stats


def outbound(call: Call, consumer: Consumer) -> OutboundRtpStats:
    stats, _ = consumer_stats(consumer, call.now, AT)
    assert isinstance(stats, OutboundRtpStats)
    return stats


def of_transport(call: Call, session: FakeSession, **changes: Any) -> TransportStats:
    transport = SimpleNamespace(
        id="t", session=session.session, ice_state="connected", dtls_state="connected", ice_selected_tuple=None
    )
    transport.__dict__.update(changes)
    return transport_stats(transport, call.now, AT)


def without_prefix(wire: bytes) -> int:
    return len(wire) - 12


def test_nothing_has_come_yet() -> None:
    call = Call()
    sender, viewer = call.session(connected=False), call.session(connected=False)
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    stats = inbound(call, producer)
    assert (stats.ssrc, stats.rtx_ssrc, stats.kind, stats.mime_type) == (
        VIDEO_SSRC, VIDEO_RTX_SSRC, "video", "video/VP8"
    )  # fmt: skip
    assert (stats.timestamp, stats.producer_id, stats.rid, stats.round_trip_time) == (AT, producer.id, None, None)
    counts = {
        name: value
        for name, value in msgspec.structs.asdict(stats).items()
        if isinstance(value, int) and name not in ("timestamp", "ssrc", "rtx_ssrc")
    }
    assert len(counts) == 13
    assert set(counts.values()) == {0}  # a request for a keyframe cannot have been sent either
    sent = outbound(call, consumer)
    assert (sent.packet_count, sent.byte_count, sent.bitrate, sent.round_trip_time) == (0, 0, 0, None)
    assert of_transport(call, sender).bytes_received == 0


def test_what_a_producer_sends() -> None:
    call = Call()
    sender = call.session()
    producer = call.produce_video(sender)
    packets = {number: video(number, key=number == 1) for number in (1, 2, 3, 5, 6, 8)}
    sender.feed(packets[1], packets[2], packets[2])
    sender.feed(packets[5], packets[6], packets[8])
    stats = inbound(call, producer)
    assert (stats.packet_count, stats.packets_discarded) == (5, 1)
    assert (stats.nack_count, stats.nack_packet_count) == (2, 3)
    assert stats.packets_lost == 8 - 6
    # 3 comes back, and once more, which nobody asked for.
    sender.feed(rtx(1, packets[3]), rtx(2, packets[3]))
    stats = inbound(call, producer)
    assert (stats.packets_retransmitted, stats.packets_repaired, stats.packet_count) == (2, 1, 6)
    assert stats.byte_count == sum(without_prefix(packet) for packet in packets.values())
    # Nothing but padding is no packet.
    sender.feed(rtp(VIDEO_RTX_SSRC, 3, payload_type=101, payload=b"", padding=100))
    assert inbound(call, producer).packets_retransmitted == 2
    # Asked for again on the timer, in one NACK.
    sender.sink.take_rtcp()
    call.pass_time(0.12)
    again = [item for item in sender.sink.take_rtcp() if isinstance(item, GenericNack)]
    stats = inbound(call, producer)
    assert (stats.nack_count, stats.nack_packet_count) == (2 + len(again), 3 + sum(len(item.lost) for item in again))
    assert len(again) == 1


def test_jitter_and_fraction_are_those_of_the_report() -> None:
    call = Call()
    sender = call.session()
    producer = call.produce_audio(sender)
    for number in (*range(20), 24):
        call.now += 0.02 + 0.005 * (number % 3)
        sender.feed(audio(number))
    sender.sink.take_rtcp()
    call.pass_time(1.0)
    (block,) = [block for item in sender.sink.rtcp if isinstance(item, ReceiverReport) for block in item.reports]
    stats = inbound(call, producer)
    assert stats.ssrc == block.ssrc == AUDIO_SSRC
    assert (stats.fraction_lost, stats.packets_lost) == (block.fraction_lost, block.packets_lost) == (40, 4)
    assert stats.jitter == pytest.approx(block.jitter, abs=1)
    assert stats.jitter > 100
    assert (stats.nack_count, stats.nack_packet_count, stats.rtx_ssrc) == (0, 0, None)


@pytest.mark.parametrize(("feedback", "expected"), [("nack pli", (1, 0)), ("ccm fir", (0, 1))])
def test_keyframe_requests(feedback: str, expected: tuple[int, int]) -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    parameters = video_parameters()
    kind, parameter = feedback.split()
    parameters["codecs"][0]["rtcpFeedback"] = [{"type": kind, "parameter": parameter}]
    producer = call.produce(sender, "video", parameters)
    call.consume(viewer, producer)
    stats = inbound(call, producer)
    assert (stats.pli_count, stats.fir_count) == expected
    assert sum(isinstance(each, PictureLossIndication | FullIntraRequest) for each in sender.sink.rtcp) == 1


def test_what_a_consumer_is_sent() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.06)
    sender.feed(*[video(number, key=number == 1) for number in range(1, 11)])
    sent = viewer.sink.of(consumer.ssrc)
    stats = outbound(call, consumer)
    assert (stats.ssrc, stats.rtx_ssrc, stats.consumer_id) == (consumer.ssrc, consumer.rtx_ssrc, consumer.id)
    assert (stats.packet_count, stats.byte_count) == (10, sum(len(packet.payload) for packet in sent))
    assert of_transport(call, viewer).rtp_bytes_sent == sum(packet.size for packet in sent)
    # Two are asked for, then one of them again, then one that never was.
    first = sent[0].sequence_number
    for numbers in ((first + 1, first + 2), (first + 1,), (first + 100,)):
        call.now += 0.1
        viewer.feed_rtcp(GenericNack(1, consumer.ssrc, numbers))
    viewer.feed_rtcp(PictureLossIndication(1, consumer.ssrc), PictureLossIndication(1, consumer.ssrc))
    viewer.feed_rtcp(FullIntraRequest(1, ((consumer.ssrc, 1),)))
    stats = outbound(call, consumer)
    assert (stats.nack_count, stats.nack_packet_count) == (3, 4)
    assert (stats.packets_retransmitted, stats.packets_repaired) == (3, 2)
    assert (stats.pli_count, stats.fir_count) == (2, 1)
    assert stats.packet_count == len(viewer.sink.of(consumer.ssrc))
    assert consumer.rtx_ssrc is not None
    again = viewer.sink.of(consumer.rtx_ssrc)
    assert of_transport(call, viewer).rtx_bytes_sent == sum(packet.size for packet in again)


def test_what_the_receiver_reports() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_audio(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.1)
    sender.feed_rtcp(SenderReport(AUDIO_SSRC, 1 << 40, 0, 0, 0))
    sender.feed(audio(1))
    call.pass_time(1.0)
    report = next(item for item in viewer.sink.rtcp if isinstance(item, SenderReport))
    sent_at = next(iter(consumer._report_sent.values()))
    lsr = report.ntp_time >> 16 & 0xFFFFFFFF
    viewer.feed_rtcp(ReceiverReport(1, (ReportBlock(consumer.ssrc, 64, 7, 0, 0, lsr, 0),)))
    stats = outbound(call, consumer)
    assert (stats.fraction_lost, stats.packets_lost) == (64, 7)
    assert stats.round_trip_time == pytest.approx((call.now - sent_at) * 1000, abs=0.1)
    # More duplicates than losses (RFC 3550, A.3) are no loss.
    viewer.feed_rtcp(ReceiverReport(1, (ReportBlock(consumer.ssrc, 0, -3, 0, 0, 0, 0),)))
    assert outbound(call, consumer).packets_lost == 0


def test_bitrates_follow_what_is_sent() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_audio(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.1)
    number = 0

    def send(seconds: float) -> None:
        nonlocal number
        for _ in range(round(seconds * 50)):
            sender.feed(audio(number, payload=bytes(100)))
            number += 1
            call.pass_time(0.02)

    def rates() -> tuple[int, int, int, int]:
        sending, receiving = of_transport(call, sender), of_transport(call, viewer)
        assert sending.rtp_send_bitrate == receiving.rtp_recv_bitrate == sending.rtx_recv_bitrate == 0
        return (
            inbound(call, producer).bitrate,
            outbound(call, consumer).bitrate,
            sending.rtp_recv_bitrate,
            receiving.rtp_send_bitrate,
        )

    send(3.3)
    # 50 payloads of 100 bytes a second; headers are 12 bytes, and the prefix of all consumers 28.
    assert rates() == pytest.approx((40_000, 40_000, 44_800, 51_200), rel=0.03)
    call.pass_time(1.0)
    assert 0 < rates()[0] < 40_000
    call.pass_time(2.0)
    assert rates() == (0, 0, 0, 0)


def test_rates_of_counters() -> None:
    rates = Rates()
    assert rates.read((100, 5), 7.0) == (0, 0)
    rates.sample((100, 0), 10.0)
    assert rates.read((200, 0), 10.05) == (0, 0)  # too soon to tell
    assert rates.read((200, 50), 10.5) == (1600, 800)
    rates.sample((200, 50), 11.0)
    assert rates.read((300, 50), 12.0) == (800, 200)
    rates.sample((300, 50), 12.0)
    assert rates.read((300, 50), 12.0) == (800, 0)
    assert rates.read((300, 50), 1e9) == (0, 0)


def test_streams_by_rid() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender, encodings=[{"rid": "l"}, {"rid": "m"}, {"rid": "h"}])
    consumer = call.consume(viewer, producer)
    assert producer_stats(producer, call.now, AT) == []
    (only,) = consumer_stats(consumer, call.now, AT)
    assert isinstance(only, OutboundRtpStats)
    for ssrc, rid, count in ((30, b"h", 3), (10, b"l", 1)):
        for number in range(count):
            sender.feed(video(number, key=True, ssrc=ssrc, extensions=[(IDS[RID_URI], rid)]))
    found = producer_stats(producer, call.now, AT)
    assert [(each.rid, each.ssrc, each.packet_count) for each in found if isinstance(each, InboundRtpStats)] == [
        ("l", 10, 1),
        ("h", 30, 3),
    ]
    # Beside what is sent, the one stream that it is made from.
    _, source = consumer_stats(consumer, call.now, AT)
    assert isinstance(source, InboundRtpStats)
    assert consumer.stream is not None
    assert (source.ssrc, source.producer_id) == (consumer.stream.ssrc, producer.id)


def test_what_a_transport_receives() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    media = [video(1, key=True), video(3)]
    repair = rtx(1, video(2))
    sender.feed(*media, repair)
    sender.session.traffic.control_received += 1000
    stats = of_transport(call, sender)
    assert stats.rtp_bytes_received == sum(map(len, media))
    assert stats.rtx_bytes_received == len(repair)
    # SRTP adds a tag to each.
    assert stats.bytes_received == sum(map(len, media)) + len(repair) + 3 * sender.sink.overhead + 1000
    assert stats.available_incoming_bitrate is None


def test_what_a_sender_may_send() -> None:
    """Where REMB is negotiated and transport-wide feedback is not, it is what the last REMB said."""
    call = Call()
    sender = call.session()
    parameters = video_parameters(headerExtensions=[{"uri": ABS_SEND_TIME_URI, "id": 2}])
    parameters["codecs"][0]["rtcpFeedback"] = [{"type": "goog-remb"}]
    call.produce(sender, "video", parameters)
    assert of_transport(call, sender).available_incoming_bitrate == 1_000_000


def test_the_form_on_the_wire() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    both = TransportTuple(
        local_ip="192.0.2.1", local_address="192.0.2.1", local_port=1, remote_ip="::1", remote_port=2, protocol="udp"
    )
    common = {
        "type", "timestamp", "ssrc", "rtxSsrc", "kind", "mimeType", "packetCount", "byteCount", "bitrate",
        "packetsLost", "fractionLost", "packetsDiscarded", "packetsRetransmitted", "packetsRepaired", "nackCount",
        "nackPacketCount", "pliCount", "firCount",
    }  # fmt: skip
    first, second = msgspec.to_builtins(consumer_stats(consumer, call.now, AT))
    assert set(first) == common | {"consumerId"}
    assert set(second) == common | {"producerId", "jitter"}
    assert (first["type"], second["type"]) == ("outbound-rtp", "inbound-rtp")
    wire = msgspec.to_builtins(of_transport(call, sender, ice_selected_tuple=both))
    assert wire["type"] == "webrtc-transport"
    assert wire["iceSelectedTuple"] == {
        "localIp": "192.0.2.1",
        "localAddress": "192.0.2.1",
        "localPort": 1,
        "remoteIp": "::1",
        "remotePort": 2,
        "protocol": "udp",
    }
    assert "iceSelectedTuple" not in msgspec.to_builtins(of_transport(call, sender))
    assert set(wire) == {
        "type", "transportId", "timestamp", "iceRole", "iceState", "dtlsState", "iceSelectedTuple",
        "bytesReceived", "recvBitrate", "bytesSent", "sendBitrate",
        "rtpBytesReceived", "rtpRecvBitrate", "rtpBytesSent", "rtpSendBitrate",
        "rtxBytesReceived", "rtxRecvBitrate", "rtxBytesSent", "rtxSendBitrate",
    }  # fmt: skip
