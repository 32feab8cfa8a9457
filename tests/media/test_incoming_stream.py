"""One producer's stream: what is taken, repaired and dropped."""

from tests.support.media_core import (
    AUDIO_TYPE,
    IDS,
    VIDEO_RTX_SSRC,
    VIDEO_SSRC,
    Call,
    FakeSession,
    audio,
    rtp,
    rtx,
    video,
    video_payload,
)
from trio_sfu.media.capabilities import (
    ABS_CAPTURE_TIME_ID,
    ABS_CAPTURE_TIME_URI,
    AUDIO_LEVEL_ID,
    AUDIO_LEVEL_URI,
    MID_URI,
)
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.incoming_stream import IncomingStream
from trio_sfu.wire.rtcp import GenericNack, SenderReport


class Scene:
    """A video producer and one viewer."""

    def __init__(self, *, first: int = 1000) -> None:
        self.call = Call()
        self.sender = self.call.session()
        self.viewer = self.call.session()
        self.producer = self.call.produce_video(self.sender)
        self.consumer = self.call.consume(self.viewer, self.producer)
        self.call.pass_time(0.06)
        self.first = first
        self.sender.feed(video(first, key=True))

    @property
    def stream(self) -> IncomingStream:
        return self.producer.streams[0]

    def forwarded(self) -> list[int]:
        """What has gone out, as the sender's numbers."""
        return forwarded(self.viewer, self.consumer)

    def nacked(self) -> list[int]:
        return [
            number for item in self.sender.sink.take_rtcp() if isinstance(item, GenericNack) for number in item.lost
        ]


def forwarded(viewer: FakeSession, consumer: Consumer) -> list[int]:
    return [int(packet.payload[2:]) for packet in viewer.sink.of(consumer.ssrc)]


def test_duplicates_go_out_once() -> None:
    scene = Scene()
    scene.sender.feed(video(1001), video(1001))
    scene.sender.feed(video(1001), video(1000, key=True), video(1002))
    assert scene.forwarded() == [1000, 1001, 1002]
    assert scene.stream.discarded == 3
    assert scene.stream.packets == 3


def test_unknown_payload_types_are_dropped() -> None:
    scene = Scene()
    scene.sender.feed(rtp(VIDEO_SSRC, 1001, payload_type=77), rtp(VIDEO_SSRC, 1001, payload_type=AUDIO_TYPE))
    assert scene.forwarded() == [1000]
    assert scene.stream.discarded == 2
    # Nor do they count as received: the number is still to come.
    scene.sender.feed(video(1001))
    assert scene.forwarded() == [1000, 1001]


def test_an_rtx_payload_type_on_the_media_ssrc_is_dropped() -> None:
    scene = Scene()
    scene.sender.feed(rtx(1001, video(1000), ssrc=VIDEO_SSRC))
    assert scene.forwarded() == [1000]


def test_losses_are_asked_for_and_repaired() -> None:
    scene = Scene()
    scene.sender.feed(video(1003, marker=True))
    assert scene.nacked() == [1001, 1002]
    scene.sender.feed(rtx(50, video(1002, timestamp=77, marker=True)))
    scene.sender.feed(rtx(51, video(1001)))
    assert scene.forwarded() == [1000, 1003, 1002, 1001]
    sent = scene.viewer.sink.of(scene.consumer.ssrc)
    assert [packet.sequence_number - sent[0].sequence_number for packet in sent] == [0, 3, 2, 1]
    assert sent[2].timestamp == 77
    assert sent[2].marker
    assert {packet.payload_type for packet in sent} == {97}
    assert scene.stream.repaired == 2
    scene.call.pass_time(1.0)
    assert scene.nacked() == []


def test_an_original_that_comes_after_its_repair_is_a_duplicate() -> None:
    scene = Scene()
    scene.sender.feed(video(1002))
    scene.sender.feed(rtx(50, video(1001)), video(1001))
    assert scene.forwarded() == [1000, 1002, 1001]


def test_padding_of_rtx_is_no_packet() -> None:
    scene = Scene()
    scene.sender.feed(
        rtp(VIDEO_RTX_SSRC, 1, payload_type=101, payload=b"", padding=224),
        rtp(VIDEO_RTX_SSRC, 2, payload_type=101, payload=b"\x03"),
        rtp(VIDEO_RTX_SSRC, 3, payload_type=101, payload=b"\x03\xe9"),
        rtp(VIDEO_RTX_SSRC, 4, payload_type=77, payload=b"\x03\xe9abc"),
    )
    assert scene.forwarded() == [1000]
    assert not scene.viewer.faults + scene.sender.faults


def test_repeated_packets_that_nobody_asked_for_are_probes() -> None:
    """Chromium probes with packets from its history; a consumer's SRTP would refuse old numbers."""
    scene = Scene()
    for number in range(1001, 5000):
        scene.sender.feed(video(number))
        scene.call.now += 0.01
    count = len(scene.forwarded())
    scene.sender.feed(rtx(50, video(1001)), rtx(51, video(4998)), rtx(52, video(4000)), rtx(53, video(5010)))
    assert len(scene.forwarded()) == count
    assert scene.stream.repaired == 0


def test_what_comes_too_late_does_not_go_out() -> None:
    """Behind by more than the window of SRTP: forwarding it would fail for every consumer."""
    scene = Scene()
    scene.sender.feed(*[video(number) for number in range(1002, 1600)])
    scene.sender.feed(*[video(number) for number in range(1600, 2100)])
    count = len(scene.forwarded())
    scene.sender.feed(rtx(50, video(1001)))
    scene.sender.feed(video(1001))
    assert len(scene.forwarded()) == count
    assert 1001 in scene.nacked()


def test_padding_on_the_media_ssrc_keeps_numbers_together() -> None:
    scene = Scene()
    scene.sender.feed(rtp(VIDEO_SSRC, 1001, payload=b"", padding=100), video(1002))
    sent = scene.viewer.sink.of(scene.consumer.ssrc)
    assert [packet.sequence_number - sent[0].sequence_number for packet in sent] == [0, 1, 2]
    assert [len(packet.payload) for packet in sent] == [6, 0, 6]
    assert scene.nacked() == []


def test_extensions_go_on_under_the_routers_ids() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_audio(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.06)
    extensions = [
        (IDS[AUDIO_LEVEL_URI], b"\x7f"),
        (IDS[MID_URI], b"1"),
        (14, b"unknown"),
        (IDS[ABS_CAPTURE_TIME_URI], bytes(16)),
    ]
    sender.feed(audio(5, extensions=extensions))
    (packet,) = viewer.sink.of(consumer.ssrc)
    assert packet.extensions[AUDIO_LEVEL_ID] == b"\x7f"
    assert packet.extensions[ABS_CAPTURE_TIME_ID] == bytes(16)
    assert set(packet.extensions) == {1, 4, AUDIO_LEVEL_ID, ABS_CAPTURE_TIME_ID}
    assert packet.payload == b"5"


def test_keyframes_are_found_and_end_the_search() -> None:
    scene = Scene()
    keyframes = scene.stream.keyframes
    assert keyframes is not None
    scene.call.pass_time(3.0)
    scene.consumer.request_key_frame(urgent=False)
    assert keyframes.waiting
    scene.sender.feed(video(1001), video(1002, payload=video_payload("1002", first=False)))
    assert keyframes.waiting
    scene.sender.feed(video(1003, key=True))
    assert not keyframes.waiting


def test_a_keyframe_that_comes_by_rtx_counts() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.06)
    sender.feed(video(9))
    sender.feed(video(11))
    assert forwarded(viewer, consumer) == []
    sender.feed(rtx(1, video(10, key=True)))
    sender.feed(video(12))
    assert forwarded(viewer, consumer) == [10, 12]
    # The receiver asks for what it misses, and it is there.
    first, last = (packet.sequence_number for packet in viewer.sink.of(consumer.ssrc))
    assert last - first & 0xFFFF == 2
    viewer.feed_rtcp(GenericNack(1, consumer.ssrc, (first + 1 & 0xFFFF,)))
    assert consumer.rtx_ssrc is not None
    (again,) = viewer.sink.of(consumer.rtx_ssrc)
    assert again.payload[4:] == b"11"


def test_a_restart_of_the_sender_goes_on_without_a_break() -> None:
    """Two packets in sequence, far from those before (RFC 3550, A.1): another life of the same SSRC."""
    scene = Scene(first=60_000)
    scene.sender.feed(video(60_001))
    last = scene.viewer.sink.of(scene.consumer.ssrc)[-1]
    scene.call.now += 2.0
    scene.sender.feed(video(20_000, timestamp=99), video(20_001, timestamp=99), video(20_002, key=True, timestamp=99))
    assert scene.stream.restarts == 1
    scene.sender.feed(video(20_003, timestamp=3099))
    new = scene.viewer.sink.of(scene.consumer.ssrc)[2:]
    assert [packet.payload[2:] for packet in new] == [b"20002", b"20003"]
    assert [packet.sequence_number - last.sequence_number & 0xFFFF for packet in new] == [1, 2]
    assert [packet.timestamp - last.timestamp & 0xFFFFFFFF for packet in new] == [180_000, 183_000]
    # Numbers from before are not looked up in what came since.
    scene.viewer.feed_rtcp(GenericNack(1, scene.consumer.ssrc, (last.sequence_number,)))
    assert scene.consumer.retransmitted == 0


def test_single_packets_from_far_away_are_dropped() -> None:
    scene = Scene()
    for number in (30_000, 50_000, 5_000, 40_000):
        scene.sender.feed(video(number))
    scene.sender.feed(video(1001))
    assert scene.forwarded() == [1000, 1001]
    assert scene.stream.restarts == 0


def test_live_for_a_second() -> None:
    scene = Scene()
    assert scene.stream.is_live(scene.call.now + 0.9)
    assert not scene.stream.is_live(scene.call.now + 1.1)


def test_reports_nothing_before_the_first_packet() -> None:
    call = Call()
    stream = call.produce_video(call.session()).streams[0]
    assert stream.report(call.now) is None
    assert not stream.is_live(call.now)


def test_a_consumer_with_a_bug_does_not_disturb_the_others() -> None:
    scene = Scene()
    other_viewer = scene.call.session()
    other = scene.call.consume(other_viewer, scene.producer)
    scene.call.pass_time(0.06)
    scene.sender.feed(video(1001, key=True))
    scene.viewer.sink.send_rtp = lambda *_: 1 / 0  # type: ignore[assignment,method-assign]
    scene.sender.feed(video(1002))
    assert forwarded(other_viewer, other)[-2:] == [1001, 1002]
    assert [type(fault) for fault in scene.viewer.faults] == [ZeroDivisionError]
    assert not other_viewer.faults + scene.sender.faults


def test_only_the_encodings_own_codec_is_taken() -> None:
    """A consumer may not have the producer's others, and keyframes are found by this codec's rules."""
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(
        sender,
        codecs=[
            {"mimeType": "video/rtx", "payloadType": 121, "clockRate": 90000, "parameters": {"apt": 120}},
            {"mimeType": "video/VP9", "payloadType": 120, "clockRate": 90000, "parameters": {"profile-id": 0}},
            {"mimeType": "video/VP8", "payloadType": 100, "clockRate": 90000},
        ],
        encodings=[{"ssrc": VIDEO_SSRC, "codecPayloadType": 100}],
    )
    consumer = call.consume(viewer, producer)
    call.pass_time(0.06)
    sender.feed(video(1))
    assert forwarded(viewer, consumer) == []
    sender.feed(video(2, key=True), rtp(VIDEO_SSRC, 3, payload_type=120))
    assert forwarded(viewer, consumer) == [2]


def test_sender_reports_are_kept() -> None:
    scene = Scene()
    scene.sender.feed_rtcp(SenderReport(VIDEO_SSRC, 1 << 40, 3, 4, 5))
    report = scene.stream.report(scene.call.now + 1.0)
    assert report is not None
    assert (report.lsr, report.dlsr) == (1 << 24, 65536)
