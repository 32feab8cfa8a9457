"""From a real consumer into a feed."""

from collections.abc import Sequence

from tests.support.feed_scene import FfmpegSink, StillRepeater, check_numbers
from tests.support.media_core import (
    VIDEO_SSRC,
    WALL_CLOCK,
    Call,
    FakeSession,
    audio,
    video,
    video_payload,
)
from trio_sfu.hls.feed import AudioFeed, ClockOffset, Feed, Timeline, VideoFeed
from trio_sfu.hls.feed_sink import FeedSink
from trio_sfu.wire.rtcp import Goodbye, SenderReport

CARD = [b"\x10\x00card"]
NTP = 3_000_000_000.0


class Recorder:
    """Keeps what a sink hands on."""

    def __init__(self) -> None:
        self.packets: list[tuple[int, int, bool, bytes, float]] = []
        self.reports: list[tuple[float, int, float]] = []

    def receive(self, number: int, timestamp: int, marker: bool, payload: bytes, now: float) -> None:
        self.packets.append((number, timestamp, marker, payload, now))

    def report(self, ntp: float, timestamp: int, now: float) -> None:
        self.reports.append((ntp, timestamp, now))


class Scene:
    """A sender, and a session whose packets go to a sink."""

    def __init__(self) -> None:
        self.call = Call()
        self.sender = self.call.session()
        self.viewer = FakeSession(self.call, connected=False)

    def now(self) -> float:
        return self.call.now

    def connect(self, sink: FeedSink) -> None:
        self.viewer.session.connect(sink, self.call.now)


def test_packets_as_the_consumer_numbers_them() -> None:
    scene = Scene()
    recorder = Recorder()
    scene.connect(FeedSink(recorder, scene.now))
    producer = scene.call.produce_video(scene.sender)
    consumer = scene.call.consume(scene.viewer, producer)
    scene.call.pass_time(0.1)
    scene.sender.feed(video(5, key=True), video(6), video(7))
    first = consumer._numbers.last - 2
    assert [packet[0] for packet in recorder.packets] == [first + index & 0xFFFF for index in range(3)]
    assert [packet[3] for packet in recorder.packets] == [
        video_payload("5", key=True),
        video_payload("6"),
        video_payload("7"),
    ]
    assert {packet[4] for packet in recorder.packets} == {scene.call.now}


def test_large_batches_fit() -> None:
    scene = Scene()
    recorder = Recorder()
    sink = FeedSink(recorder, scene.now)
    start = sink.reserve(1_000_000)
    assert start + 1_000_000 <= len(sink.arena)
    scene.connect(sink)
    consumer = scene.call.consume(scene.viewer, scene.call.produce_audio(scene.sender))
    scene.call.pass_time(0.1)
    scene.sender.feed(*[audio(number) for number in range(2000)])
    assert len(recorder.packets) == 2000
    assert consumer.packets == 2000


def test_reports_are_read_and_goodbyes_are_not() -> None:
    scene = Scene()
    recorder = Recorder()
    scene.connect(FeedSink(recorder, scene.now))
    consumer = scene.call.consume(scene.viewer, scene.call.produce_video(scene.sender))
    scene.call.pass_time(0.1)
    scene.sender.feed(video(5, key=True))
    scene.sender.feed_rtcp(SenderReport(VIDEO_SSRC, int(NTP * 2**32), 90_000, 1, 1))
    arrived = scene.call.now
    scene.call.pass_time(1.0)
    ntp, timestamp, now = recorder.reports[-1]
    assert abs((ntp - NTP) - (now - arrived)) < 1e-5
    assert abs((timestamp - 90_000) / 90_000 - (now - arrived)) < 1e-4
    assert len(recorder.packets) == 1
    consumer.close()
    assert len(recorder.packets) == 1


def feeds(scene: Scene) -> Sequence[tuple[Feed, FfmpegSink]]:
    timeline, clock = Timeline(scene.now, WALL_CLOCK), ClockOffset()
    return (
        (
            VideoFeed(
                timeline,
                clock,
                mime_type="video/VP8",
                payload_type=96,
                ssrc=1,
                repeater=StillRepeater(),
                card=CARD,
            ),
            FfmpegSink(scene.now, 90_000),
        ),
        (AudioFeed(timeline, clock, payload_type=111, ssrc=2), FfmpegSink(scene.now, 48_000)),
    )


def test_a_consumer_that_comes_and_goes() -> None:
    """FFmpeg gets one unbroken stream and no goodbye, whatever the consumer does."""
    scene = Scene()
    producer = scene.call.produce_video(scene.sender)
    feed, out = feeds(scene)[0]
    assert isinstance(feed, VideoFeed)
    # There is a keyframe, so the consumer begins as it is connected, and the feed with it.
    consumer = scene.call.consume(scene.viewer, producer)
    scene.call.pass_time(0.1)
    scene.sender.feed(video(5, key=True, marker=True))
    inner = feed.sink(out)
    scene.viewer.session.connect(inner, scene.call.now)
    assert [packet.payload for packet in out.rtp] == [video_payload("5", key=True)]
    assert feed.forwarded_keyframe
    consumer.pause()
    feed.pause(scene.call.now)
    for _ in range(50):
        scene.call.pass_time(0.02)
        feed.tick(scene.call.now)
    consumer.resume()
    feed.resume(scene.call.now)
    assert feed.wants_keyframe
    scene.sender.feed(video(90), video(91, key=True, marker=True), video(92, marker=True))
    assert not feed.wants_keyframe
    assert [packet.payload for packet in out.rtp][-2:] == [video_payload("91", key=True), video_payload("92")]
    consumer.close()
    feed.tick(scene.call.now)
    check_numbers(out)
    assert not any(isinstance(packet, Goodbye) for packet in out.rtcp)
    assert scene.viewer.faults == []


def test_the_report_is_first() -> None:
    for feed, out in feeds(Scene()):
        feed.tick(1000.0)
        assert not out.rtp
        feed.sink(out)
        feed.start(1000.0)
        feed.start(1000.0)
        assert len(out.reports) == 1
        feed.tick(1000.3)  # it is time for a card
        check_numbers(out)
        # FFmpeg counts from the first report: nothing is before it.
        assert min(out.time_of(packet) for packet in out.rtp) > out.reports[0].ntp_time / 2**32 - 2208988800
