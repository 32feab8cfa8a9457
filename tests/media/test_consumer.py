"""What one viewer gets: where it begins, numbering without a break, retransmissions, reports."""

from collections.abc import Iterable

import pytest

from tests.support.media_core import AUDIO_SSRC, VIDEO_SSRC, WALL_CLOCK, Call, Sent, audio, rtp, video, video_payload
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import EVERYTHING
from trio_sfu.wire.rtcp import (
    FullIntraRequest,
    GenericNack,
    Goodbye,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    SenderReport,
)


class Scene:
    """A producer and one viewer; the consumer's first sequence number can be chosen."""

    def __init__(
        self,
        kind: str = "video",
        *,
        first: int | None = None,
        paused: bool = False,
        rtx: bool = True,
        wait: bool = True,
    ) -> None:
        self.call = Call()
        self.kind = kind
        self.sender = self.call.session()
        self.viewer = self.call.session()
        self.producer = (
            self.call.produce_video(self.sender) if kind == "video" else self.call.produce_audio(self.sender)
        )
        self.consumer = self.call.consume(
            self.viewer, self.producer, None if rtx else self.call.without_rtx(), paused=paused
        )
        if wait:
            self.call.pass_time(0.06)  # the answer to `consume` has a start
        if first is not None:
            self.consumer._numbers.last = first + 0xFFFF

    def feed(self, *numbers: int, key: Iterable[int] = ()) -> None:
        """One batch of packets with these numbers."""
        make = audio if self.kind == "audio" else video
        more = [{"key": number in key} if self.kind == "video" else {} for number in numbers]
        self.sender.feed(*[make(number, **each) for number, each in zip(numbers, more, strict=True)])

    @property
    def sent(self) -> list[Sent]:
        return self.viewer.sink.of(self.consumer.ssrc)

    @property
    def again(self) -> list[Sent]:
        assert self.consumer.rtx_ssrc is not None
        return self.viewer.sink.of(self.consumer.rtx_ssrc)

    def texts(self) -> list[int]:
        """The sender's numbers, as the payloads have them."""
        return [int(packet.payload[2:] if self.kind == "video" else packet.payload) for packet in self.sent]

    def numbers(self) -> list[int]:
        return [packet.sequence_number for packet in self.sent]

    def pli(self) -> int:
        """Keyframe requests that the sender has got since the last call."""
        return sum(isinstance(item, PictureLossIndication) for item in self.sender.sink.take_rtcp())

    def nack(self, *numbers: int) -> None:
        self.viewer.feed_rtcp(GenericNack(1, self.consumer.ssrc, tuple(number & 0xFFFF for number in numbers)))


# -- where it begins


def test_video_begins_with_a_keyframe() -> None:
    scene = Scene()
    assert scene.pli() == 1
    scene.feed(1)
    scene.feed(2, 3, 4, key=[3])
    scene.feed(5)
    assert scene.texts() == [3, 4, 5]


def test_the_answer_to_consume_has_a_start() -> None:
    """What came before it would be lost; then the group of pictures is sent from its keyframe."""
    scene = Scene(wait=False)
    scene.feed(1)
    scene.feed(2, 3, key=[2])
    scene.call.now += 0.01
    scene.feed(4)
    assert scene.texts() == []
    scene.call.pass_time(0.06)
    assert scene.texts() == [2, 3, 4]
    scene.feed(5)
    assert scene.texts() == [2, 3, 4, 5]
    assert [number - scene.numbers()[0] & 0xFFFF for number in scene.numbers()] == [0, 1, 2, 3]


def test_a_newcomer_begins_with_a_recent_keyframe() -> None:
    scene = Scene()
    scene.feed(1, 2, key=[1])
    viewer = scene.call.session(connected=False)
    consumer = scene.call.consume(viewer, scene.producer)
    scene.pli()
    scene.feed(3)
    scene.call.now += 0.1
    viewer.connect()
    assert [packet.payload[2:] for packet in viewer.sink.of(consumer.ssrc)] == [b"1", b"2", b"3"]
    assert scene.pli() == 0


def test_an_old_or_too_large_group_is_not_sent_again() -> None:
    for seconds, size in ((0.6, 10), (0.1, 1300)):
        scene = Scene()
        scene.feed(1, key=[1])
        scene.sender.feed(*[video(number, payload=bytes(size)) for number in range(2, 300)])
        scene.pli()
        viewer = scene.call.session(connected=False)
        consumer = scene.call.consume(viewer, scene.producer)
        scene.call.now += seconds
        viewer.connect()
        assert viewer.sink.of(consumer.ssrc) == []
        assert scene.pli() >= 1


def test_audio_begins_at_once() -> None:
    scene = Scene("audio")
    scene.feed(7)
    assert scene.texts() == [7]
    assert scene.sender.sink.take_rtcp() == []


def test_what_is_older_than_the_beginning_is_dropped() -> None:
    scene = Scene()
    scene.feed(8)
    scene.feed(12, 11, 13, key=[12])
    scene.feed(10, 14, 9)
    scene.feed(11)
    assert scene.texts() == [12, 13, 14]
    assert scene.numbers() == [scene.numbers()[0] + each for each in range(3)]


def test_the_floor_goes_away() -> None:
    scene = Scene()
    scene.feed(12, key=[12])
    for number in range(13, 2100):
        scene.feed(number)
    assert scene.consumer._numbers.floor is None
    scene.feed(2101, 2100)
    assert scene.texts()[-2:] == [2101, 2100]


def test_begins_paused() -> None:
    scene = Scene(paused=True)
    scene.feed(1, key=[1])
    assert scene.sent == []
    scene.call.now += 1.0
    scene.pli()
    scene.consumer.resume()
    assert scene.pli() == 1
    scene.feed(2)
    scene.feed(3, key=[3])
    assert scene.texts() == [3]


def test_begins_when_its_transport_is_connected() -> None:
    call = Call()
    sender, viewer = call.session(), call.session(connected=False)
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    sender.feed(video(1, key=True))
    call.now += 1.0
    sender.sink.take_rtcp()
    assert not consumer.active
    viewer.connect()
    assert consumer.active
    assert [type(item) for item in sender.sink.take_rtcp()] == [PictureLossIndication]
    sender.feed(video(2, key=True))
    assert [packet.payload[2:] for packet in viewer.sink.of(consumer.ssrc)] == [b"2"]


def test_a_search_given_up_begins_again_with_packets() -> None:
    scene = Scene()
    scene.call.pass_time(30.0)
    assert 40 <= scene.pli() <= 60
    scene.call.pass_time(300.0)
    assert 200 <= scene.pli() <= 600
    scene.feed(1)
    scene.call.pass_time(0.3)
    scene.feed(2)
    assert scene.pli() >= 1


# -- numbering


@pytest.mark.parametrize(("first", "start"), [(0, 0), (1, 65000), (0x7FFF, 65535)])
def test_numbers_go_on_across_both_wraps(first: int, start: int) -> None:
    scene = Scene("audio", first=first)
    for at in range(start, start + 70_000, 50):
        scene.feed(*range(at, at + 50))
    assert scene.numbers() == [first + step & 0xFFFF for step in range(70_000)]
    assert scene.texts() == [number & 0xFFFF for number in range(start, start + 70_000)]
    timestamps = [packet.timestamp for packet in scene.sent]
    assert timestamps == [960 * number & 0xFFFFFFFF for number in range(start, start + 70_000)]


def test_losses_and_disorder_are_passed_on() -> None:
    scene = Scene(first=65530)
    scene.feed(100, key=[100])
    scene.feed(103, 101)
    scene.feed(106, 105, 107)
    assert scene.numbers() == [(65530 + each) & 0xFFFF for each in (0, 3, 1, 6, 5, 7)]


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_pause_and_resume(kind: str) -> None:
    scene = Scene(kind, first=0x7FFE)
    scene.feed(10, 11, key=[10])
    scene.consumer.pause()
    scene.feed(12, 13, key=[13])
    scene.call.now += 0.6
    scene.consumer.resume()
    scene.feed(14, 15, key=[14])
    assert scene.texts() == [10, 11, 14, 15]
    assert scene.numbers() == [0x7FFE, 0x7FFF, 0x8000, 0x8001]
    step = 3000 if kind == "video" else 960
    assert [packet.timestamp for packet in scene.sent] == [step * number for number in (10, 11, 14, 15)]


def test_a_short_pause_repeats_nothing() -> None:
    """The last keyframe is recent, but what has gone out already would come again with older timestamps."""
    scene = Scene()
    scene.feed(10, 11, 12, key=[10])
    scene.consumer.pause()
    scene.feed(13)
    scene.consumer.resume()
    scene.call.pass_time(0.1)
    scene.feed(14)
    scene.feed(15, key=[15])
    assert scene.texts() == [10, 11, 12, 15]
    assert scene.numbers() == sorted(scene.numbers())


def test_a_pause_that_missed_a_keyframe_goes_on_with_it() -> None:
    scene = Scene()
    scene.feed(10, 11, key=[10])
    scene.consumer.pause()
    scene.feed(12, 13, 14, key=[13])
    scene.consumer.resume()
    assert scene.texts() == [10, 11, 13, 14]


def test_what_there_is_no_bandwidth_for_is_not_sent() -> None:
    """Not at the next keyframe either, which nobody asks for; and it goes on with one."""
    scene = Scene()
    scene.feed(10, 11, key=[10])
    scene.consumer.set_limit(None)
    scene.pli()
    scene.feed(12)
    scene.feed(13, 14, key=[13])
    scene.nack(scene.numbers()[0])
    assert scene.pli() == 0
    assert scene.texts() == [10, 11]
    assert scene.again == []
    scene.call.now += 1.0
    scene.consumer.set_limit(EVERYTHING)
    assert scene.pli() == 1
    scene.feed(15)
    scene.feed(16, key=[16])
    assert scene.texts() == [10, 11, 16]
    assert scene.numbers()[-1] - scene.numbers()[0] & 0xFFFF == 2


def test_pause_right_after_disorder_gives_no_number_twice() -> None:
    """The last packet of the batch is not the newest."""
    scene = Scene()
    scene.feed(10, 12, 11, key=[10])
    scene.consumer.pause()
    scene.consumer.resume()
    scene.feed(20, key=[20])
    assert [number - scene.numbers()[0] & 0xFFFF for number in scene.numbers()] == [0, 2, 1, 3]


def test_resume_between_a_loss_and_its_repair() -> None:
    scene = Scene()
    scene.feed(10, 12, key=[10])
    scene.consumer.pause()
    scene.consumer.resume()
    scene.feed(13, key=[13])
    scene.feed(11)
    assert scene.texts() == [10, 12, 13]
    assert [number - scene.numbers()[0] & 0xFFFF for number in scene.numbers()] == [0, 2, 3]


def test_resume_of_what_is_not_paused_is_nothing() -> None:
    scene = Scene()
    scene.feed(10, key=[10])
    scene.pli()
    scene.consumer.resume()
    scene.producer.resume()
    scene.feed(11)
    assert scene.pli() == 0
    assert scene.texts() == [10, 11]


def test_resume_while_the_producer_is_paused_waits_for_it() -> None:
    scene = Scene()
    scene.producer.pause()
    scene.pli()
    scene.consumer.pause()
    scene.consumer.resume()
    scene.call.pass_time(0.5)
    assert scene.pli() == 0
    assert scene.consumer.producer_paused


# -- retransmission


def test_retransmission_by_rtx() -> None:
    scene = Scene(first=65534)
    scene.feed(10, 11, 12, 13, key=[10])
    scene.call.now += 0.1
    scene.nack(65535, 0)
    assert [packet.payload for packet in scene.again] == [
        number.to_bytes(2, "big") + video_payload(text) for number, text in ((65535, "11"), (0, "12"))
    ]
    assert [packet.timestamp for packet in scene.again] == [33_000, 36_000]
    assert {packet.payload_type for packet in scene.again} == {98}
    assert scene.again[1].sequence_number - scene.again[0].sequence_number & 0xFFFF == 1
    assert scene.again[0].extensions[1] == scene.sent[0].extensions[1]
    assert scene.consumer.retransmitted == 2
    # All of the transport's packets count on in one sequence.
    order = [int.from_bytes(packet.extensions[5], "big") for packet in scene.viewer.sink.rtp]
    assert order == list(range(1, 7))


def test_rtx_keeps_the_extensions_and_the_marker() -> None:
    scene = Scene()
    capture_time = (7, bytes(range(16)))
    scene.sender.feed(video(1, key=True, marker=True, extensions=[capture_time]))
    scene.nack(scene.numbers()[0])
    (packet,) = scene.again
    assert packet.extensions[13] == bytes(range(16))
    assert packet.marker
    assert packet.payload[2:] == scene.sent[0].payload


@pytest.mark.parametrize("count", [1000, 32_768, 40_000, 65_536])
def test_retransmission_however_long_it_has_run(count: int) -> None:
    scene = Scene()
    scene.feed(0, key=[0])
    for at in range(1, count, 60):
        scene.call.now += 0.02
        scene.feed(*range(at, min(at + 60, count)))
    lost = scene.sent[-3]
    scene.nack(lost.sequence_number)
    assert [packet.payload[2:] for packet in scene.again] == [lost.payload]


def test_retransmission_reaches_back_through_pauses() -> None:
    scene = Scene(first=65530)
    for start in range(0, 60, 10):
        scene.feed(*range(start, start + 3), key=[start])
        scene.consumer.pause()
        scene.consumer.resume()
    numbers = scene.numbers()
    assert numbers == [65530 + step & 0xFFFF for step in range(18)]
    scene.nack(*numbers)
    assert [packet.payload[2:] for packet in scene.again] == [packet.payload for packet in scene.sent]
    assert [int.from_bytes(packet.payload[:2], "big") for packet in scene.again] == numbers


def test_what_was_not_sent_is_not_sent_again() -> None:
    scene = Scene()
    scene.feed(10, 11, key=[10])
    first = scene.numbers()[0]
    scene.consumer.pause()
    scene.feed(12, 13)
    scene.consumer.resume()
    scene.feed(14)
    # Neither what came before the beginning nor what came while nothing was forwarded.
    scene.nack(first - 1, first + 2, first + 3, first + 4, first + 0x8000)
    assert scene.again == []


def test_the_cache_ends_after_two_seconds() -> None:
    scene = Scene()
    scene.feed(10, key=[10])
    scene.call.now += 2.5
    scene.feed(11)
    scene.nack(*scene.numbers())
    assert [packet.payload[-2:] for packet in scene.again] == [b"11"]


def test_the_same_packet_at_most_once_in_a_round_trip() -> None:
    scene = Scene()
    scene.feed(10, key=[10])
    for _ in range(5):
        scene.nack(scene.numbers()[0])
    assert len(scene.again) == 1
    scene.call.now += 0.05
    scene.nack(scene.numbers()[0])
    assert len(scene.again) == 2
    scene.consumer.round_trip = 0.2
    scene.call.now += 0.1
    scene.nack(scene.numbers()[0])
    assert len(scene.again) == 2


def test_nacks_without_end_are_not_answered_without_end() -> None:
    scene = Scene()
    scene.feed(0, key=[0])
    for at in range(1, 1000, 50):
        scene.feed(*range(at, min(at + 50, 1000)))
    numbers = scene.numbers()
    for _ in range(100):
        for at in range(0, 1000, 200):
            scene.nack(*numbers[at : at + 200])
        scene.call.now += 0.021
    assert scene.consumer.retransmitted <= 1000 + 1000 * 2.1
    assert scene.consumer._retransmitter is not None
    assert len(scene.consumer._retransmitter._resent) <= 1024


def test_nothing_is_sent_again_without_rtx() -> None:
    """It would be other bytes under the same number, and so under the same SRTP nonce."""
    scene = Scene(rtx=False)
    assert scene.consumer.rtx_ssrc is None
    scene.feed(10, 11, key=[10])
    scene.nack(scene.numbers()[1])
    assert scene.texts() == [10, 11]


def test_what_has_ended_is_forgotten() -> None:
    """The keys' state of what we sent is freed; the sender's must stay, since it may use its SSRC again."""
    scene = Scene()
    ours = {scene.consumer.ssrc, scene.consumer.rtx_ssrc}
    scene.producer.close()
    assert ours <= set(scene.viewer.sink.forgotten)
    assert scene.sender.sink.forgotten == []


def test_nothing_again_while_paused_or_not_connected() -> None:
    scene = Scene()
    scene.nack(1)
    scene.feed(10, key=[10])
    scene.consumer.pause()
    scene.nack(scene.numbers()[0])
    assert scene.again == []


# -- keyframe requests


def test_a_newcomers_requests_go_on_at_once() -> None:
    scene = Scene()
    scene.feed(1, key=[1])
    scene.call.pass_time(1.5)
    scene.feed(2, key=[2])
    scene.pli()
    scene.viewer.feed_rtcp(PictureLossIndication(1, scene.consumer.ssrc))
    assert scene.pli() == 1


def test_a_newcomer_that_missed_its_first_keyframe_is_given_it_again() -> None:
    scene = Scene()
    scene.feed(1, 2, key=[1])
    scene.pli()
    for _ in range(20):
        scene.viewer.feed_rtcp(PictureLossIndication(1, scene.consumer.ssrc))
    assert scene.pli() == 1
    scene.feed(3)
    texts = scene.texts()
    assert texts[:4] == [1, 2, 1, 2]
    assert 2 < len(texts) <= 12
    assert texts == [1, 2] * (len(texts) // 2) + [3]
    numbers = scene.numbers()
    assert [number - numbers[0] & 0xFFFF for number in numbers] == list(range(len(numbers)))


def test_later_requests_are_shared() -> None:
    scene = Scene()
    scene.feed(1, key=[1])
    scene.call.pass_time(5.0)
    scene.feed(2, key=[2])
    scene.pli()
    for _ in range(10):
        scene.viewer.feed_rtcp(PictureLossIndication(1, scene.consumer.ssrc))
        scene.viewer.feed_rtcp(FullIntraRequest(1, ((scene.consumer.ssrc, 1),)))
    assert scene.pli() == 0
    scene.call.pass_time(0.52)
    assert scene.pli() == 1


def test_fir_where_only_that_is_understood() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    codec = {
        "mimeType": "video/VP8",
        "payloadType": 100,
        "clockRate": 90000,
        "rtcpFeedback": [{"type": "ccm", "parameter": "fir"}],
    }
    call.consume(viewer, call.produce_video(sender, codecs=[codec], encodings=[{"ssrc": VIDEO_SSRC}]))
    call.pass_time(0.15)
    requests = [item for item in sender.sink.take_rtcp() if isinstance(item, FullIntraRequest)]
    assert [request.entries for request in requests] == [((VIDEO_SSRC, 1),), ((VIDEO_SSRC, 2),)]


def test_audio_has_no_keyframes() -> None:
    scene = Scene("audio")
    scene.feed(1)
    scene.consumer.request_key_frame()
    scene.viewer.feed_rtcp(PictureLossIndication(1, scene.consumer.ssrc))
    scene.call.pass_time(0.5)
    assert scene.pli() == 0


# -- reports


def reports(scene: Scene) -> list[SenderReport]:
    return [item for item in scene.viewer.sink.take_rtcp() if isinstance(item, SenderReport)]


def test_sender_reports_are_on_the_producers_clock() -> None:
    scene = Scene()
    ntp = 0x1234_5678_0000_0000
    scene.feed(10, key=[10])
    scene.sender.feed_rtcp(SenderReport(VIDEO_SSRC, ntp, 29_000, 1, 1))
    scene.call.pass_time(0.5)
    reports(scene)
    scene.call.pass_time(1.0)
    (report,) = reports(scene)
    elapsed = (report.ntp_time - ntp) / (1 << 32)
    assert 0.5 <= elapsed <= 1.6
    assert report.rtp_timestamp == pytest.approx(29_000 + elapsed * 90_000, abs=2)
    assert report.ssrc == scene.consumer.ssrc
    assert report.packet_count == 1


def test_sender_reports_follow_a_shift_of_the_clock() -> None:
    """After a restart of the sender timestamps are shifted, and its reports with them."""
    scene = Scene()
    scene.feed(10, key=[10])
    scene.sender.feed_rtcp(SenderReport(VIDEO_SSRC, 1 << 40, 30_000, 1, 1))
    scene.call.now += 1.0
    scene.sender.feed(video(40_000, 500), video(40_001, 500, key=True))
    scene.sender.feed_rtcp(SenderReport(VIDEO_SSRC, 1 << 41, 500, 1, 1))
    reports(scene)
    scene.call.pass_time(1.1)
    report = reports(scene)[-1]
    elapsed = (report.ntp_time - (1 << 41)) / (1 << 32)
    assert report.rtp_timestamp == pytest.approx(scene.sent[-1].timestamp + elapsed * 90_000, abs=2)


def test_without_the_producers_reports_ours_are_on_the_servers_clock() -> None:
    scene = Scene()
    scene.feed(10, key=[10])
    scene.call.pass_time(1.5)
    assert reports(scene) == []
    scene.call.pass_time(1.5)
    (report,) = reports(scene)
    assert report.ntp_time / (1 << 32) - 2208988800 == pytest.approx(WALL_CLOCK + scene.call.now, abs=1.5)


def test_no_report_before_the_first_packet() -> None:
    scene = Scene()
    scene.sender.feed_rtcp(SenderReport(VIDEO_SSRC, 1 << 40, 30_000, 1, 1))
    scene.call.pass_time(5.0)
    assert reports(scene) == []


@pytest.mark.parametrize("ntp", [0, (1 << 64) - 1])
def test_hostile_sender_reports(ntp: int) -> None:
    scene = Scene()
    scene.feed(10, key=[10])
    scene.sender.feed_rtcp(SenderReport(VIDEO_SSRC, ntp, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF))
    scene.call.pass_time(2.0)
    assert reports(scene)
    assert not scene.viewer.faults + scene.sender.faults


def test_round_trip_from_receiver_reports() -> None:
    scene = Scene("audio")
    scene.feed(10)
    scene.sender.feed_rtcp(SenderReport(AUDIO_SSRC, 1 << 40, 9600, 1, 1))
    arrived = scene.call.now
    scene.call.pass_time(1.1)
    report = reports(scene)[-1]
    sent = arrived + (report.ntp_time - (1 << 40)) / (1 << 32)
    lsr = report.ntp_time >> 16 & 0xFFFFFFFF
    scene.call.now = sent + 0.3
    block = ReportBlock(scene.consumer.ssrc, 64, 5, 100, 7, lsr, 65536 // 10)
    scene.viewer.feed_rtcp(ReceiverReport(1, (block,)))
    assert scene.consumer.round_trip == pytest.approx(0.2, abs=0.001)
    assert scene.consumer.fraction_lost == 0.25
    # What refers to no report of ours changes nothing, and a delay that cannot be is no negative time.
    known = scene.consumer.round_trip
    for lsr_of_block, dlsr in ((lsr + 1, 0), (0, 0)):
        other = ReportBlock(scene.consumer.ssrc, 0, 0, 0, 0, lsr_of_block & 0xFFFFFFFF, dlsr)
        scene.viewer.feed_rtcp(ReceiverReport(1, (other,)))
        assert scene.consumer.round_trip == known
    scene.viewer.feed_rtcp(ReceiverReport(1, (ReportBlock(scene.consumer.ssrc, 0, 0, 0, 0, lsr, 0xFFFFFFFF),)))
    assert scene.consumer.round_trip == 0.0


# -- the end


def test_close_says_bye_once() -> None:
    scene = Scene()
    scene.feed(10, key=[10])
    scene.consumer.close()
    scene.consumer.close()
    (goodbye,) = [item for item in scene.viewer.sink.take_rtcp() if isinstance(item, Goodbye)]
    assert set(goodbye.ssrcs) == {scene.consumer.ssrc, scene.consumer.rtx_ssrc}
    assert scene.producer.consumers == {}
    assert not scene.producer.streams[0].watched
    scene.feed(11)
    scene.nack(scene.numbers()[0])
    assert scene.texts() == [10]
    assert not scene.consumer.active


def test_two_consumers_of_one_producer_are_apart() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumers: list[Consumer] = [call.consume(viewer, producer) for _ in range(3)]
    call.pass_time(0.06)
    assert len({each for consumer in consumers for each in (consumer.ssrc, consumer.rtx_ssrc)}) == 6
    assert len({consumer.rtp_parameters.mid for consumer in consumers}) == 3
    sender.feed(video(1, key=True))
    consumers[1].pause()
    sender.feed(rtp(VIDEO_SSRC, 2, 6000, payload=video_payload("2")))
    assert [len(viewer.sink.of(consumer.ssrc)) for consumer in consumers] == [2, 1, 2]
    assert [viewer.sink.of(each.ssrc)[0].extensions[1].decode() for each in consumers] == [
        consumer.rtp_parameters.mid for consumer in consumers
    ]
