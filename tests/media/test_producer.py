"""Producers: simulcast streams appear by rid, and consumers get the best that is alive."""

from itertools import pairwise

import pytest

from tests.support.media_core import (
    AUDIO_TYPE,
    IDS,
    VIDEO_RTX_TYPE,
    VIDEO_TYPE,
    Call,
    FakeSession,
    rtp,
    video,
    video_payload,
)
from trio_sfu.media.capabilities import MID_URI, REPAIRED_RID_URI, RID_URI
from trio_sfu.media.errors import MediaError
from trio_sfu.media.frame_mark import Layers
from trio_sfu.media.producer import Producer
from trio_sfu.wire.rtcp import GenericNack, PictureLossIndication

RIDS = ("l", "m", "h")


class Simulcast:
    """Three encodings by rid; packets of layer ``i`` have the SSRC ``100 + i``."""

    def __init__(self) -> None:
        self.call = Call()
        self.sender = self.call.session()
        self.viewer = self.call.session()
        self.producer = self.call.produce_video(self.sender, encodings=[{"rid": rid} for rid in RIDS])
        self.numbers = [0x100, 0x2000, 0xFFF0]

    def packet(self, layer: int, *, key: bool = False, named: bool = True) -> bytes:
        number = self.numbers[layer]
        self.numbers[layer] = number + 1 & 0xFFFF
        names = [(IDS[MID_URI], b"0"), (IDS[RID_URI], RIDS[layer].encode())] if named else []
        timestamp = round(self.call.now * 90000) + 1_000_000 * layer
        payload = video_payload(f"{layer}:{number}", key=key)
        return video(number, timestamp, ssrc=100 + layer, extensions=names, payload=payload)

    def run(self, seconds: float, *layers: int, key: bool = False) -> None:
        """All ``layers`` send a packet every 20 ms; the first one of each may be a keyframe."""
        for step in range(round(seconds * 50)):
            for layer in layers:
                self.sender.feed(self.packet(layer, key=key and step == 0))
            self.call.pass_time(0.02)


def test_types() -> None:
    call = Call()
    assert call.produce_video(call.session()).type == "simple"
    assert call.produce_video(call.session(), encodings=[{"ssrc": 1, "scalabilityMode": "L3T3_KEY"}]).type == "svc"
    assert call.produce_video(call.session(), encodings=[{"rid": "a"}, {"rid": "b"}]).type == "simulcast"


def test_streams_are_adopted_by_rid() -> None:
    scene = Simulcast()
    assert scene.producer.streams == {}
    scene.sender.feed(scene.packet(1))
    assert {index: stream.ssrc for index, stream in scene.producer.streams.items()} == {1: 101}
    scene.sender.feed(scene.packet(0), scene.packet(2))
    assert {index: stream.ssrc for index, stream in scene.producer.streams.items()} == {0: 100, 1: 101, 2: 102}
    # Once known, the SSRC is enough.
    scene.sender.feed(scene.packet(2, named=False))
    assert scene.producer.streams[2].packets == 2
    assert scene.sender.session.counters.unknown_ssrc == 0


def test_rtx_streams_are_adopted_by_repaired_rid() -> None:
    scene = Simulcast()
    scene.sender.feed(scene.packet(0))
    scene.numbers[0] += 1
    scene.sender.feed(scene.packet(0))
    names = [(IDS[MID_URI], b"0"), (IDS[REPAIRED_RID_URI], b"l")]
    repair = b"\x01\x01" + video_payload("repair")
    scene.sender.feed(rtp(200, 5, payload_type=VIDEO_RTX_TYPE, extensions=names, payload=repair))
    assert scene.producer.streams[0].rtx_ssrc == 200
    assert scene.producer.streams[0].repaired == 1
    # A second SSRC for the same repairs is not taken.
    scene.sender.feed(rtp(201, 5, payload_type=VIDEO_RTX_TYPE, extensions=names, payload=repair))
    assert scene.sender.session.counters.unknown_ssrc == 1


@pytest.mark.parametrize(
    ("payload_type", "rid"), [(VIDEO_TYPE, b"x"), (VIDEO_TYPE, b"\xff\xfe"), (AUDIO_TYPE, b"l"), (1, b"l")]
)
def test_what_fits_no_encoding_is_not_adopted(payload_type: int, rid: bytes) -> None:
    scene = Simulcast()
    names = [(IDS[MID_URI], b"0"), (IDS[RID_URI], rid)]
    scene.sender.feed(rtp(100, 5, payload_type=payload_type, extensions=names))
    assert scene.producer.streams == {}
    assert scene.sender.session.counters.unknown_ssrc == 1


def test_the_first_ssrc_of_a_rid_stays() -> None:
    scene = Simulcast()
    scene.sender.feed(scene.packet(0))
    names = [(IDS[MID_URI], b"0"), (IDS[RID_URI], b"l")]
    scene.sender.feed(rtp(999, 5, extensions=names))
    assert scene.producer.streams[0].ssrc == 100
    assert scene.sender.session.counters.unknown_ssrc == 1


def test_a_single_stream_is_adopted_by_mid_alone() -> None:
    call = Call()
    sender = call.session()
    producer = call.produce_video(sender, mid="v", encodings=[{}])
    other = call.produce_audio(sender, mid="a", encodings=[{}])
    sender.feed(rtp(7, 5, extensions=[(IDS[MID_URI], b"v")]))
    sender.feed(rtp(8, 5, payload_type=AUDIO_TYPE, extensions=[(IDS[MID_URI], b"a")]))
    assert producer.streams[0].ssrc == 7
    assert other.streams[0].ssrc == 8


def layers_sent(viewer: FakeSession, ssrc: int) -> str:
    return "".join(chr(packet.payload[2]) for packet in viewer.sink.of(ssrc))


def test_a_consumer_begins_with_the_first_stream_that_appears_and_moves_up() -> None:
    scene = Simulcast()
    consumer = scene.call.consume(scene.viewer, scene.producer)
    assert consumer.target is None
    scene.run(1.0, 0, key=True)
    assert layers_sent(scene.viewer, consumer.ssrc) == "0" * 50
    scene.run(4.0, 0, 1, 2)
    assert consumer.target is scene.producer.streams[2]
    assert consumer.stream is scene.producer.streams[0]  # until there is a keyframe to go over at
    scene.sender.feed(scene.packet(2, key=True))
    assert consumer.stream is consumer.target
    scene.run(0.2, 0, 1, 2)
    assert set(layers_sent(scene.viewer, consumer.ssrc)[-10:]) == {"2"}
    numbers = [packet.sequence_number for packet in scene.viewer.sink.of(consumer.ssrc)]
    assert [number - numbers[0] & 0xFFFF for number in numbers] == list(range(len(numbers)))
    timestamps = [packet.timestamp for packet in scene.viewer.sink.of(consumer.ssrc)]
    steps = [later - earlier & 0xFFFFFFFF for earlier, later in pairwise(timestamps)]
    assert all(step <= 3 * 1800 for step in steps)
    assert not scene.viewer.faults


def test_a_consumer_that_has_sent_nothing_takes_what_it_prefers_as_it_appears() -> None:
    scene = Simulcast()
    consumer = scene.call.consume(scene.viewer, scene.producer)
    consumer.set_preferred_layers(Layers(0, 0))
    scene.sender.feed(scene.packet(2))
    assert consumer.target is scene.producer.streams[2]
    scene.sender.feed(scene.packet(0))
    assert consumer.target is scene.producer.streams[0]
    scene.run(0.2, 0, 1, 2, key=True)
    assert set(layers_sent(scene.viewer, consumer.ssrc)) == {"0"}


def test_a_better_stream_must_last() -> None:
    scene = Simulcast()
    consumer = scene.call.consume(scene.viewer, scene.producer)
    scene.run(1.0, 0, key=True)
    scene.run(1.2, 0, 1)
    assert consumer.target is scene.producer.streams[0]


def test_a_consumer_leaves_a_stream_that_has_stopped() -> None:
    scene = Simulcast()
    scene.run(0.1, 0, 1, 2, key=True)
    consumer = scene.call.consume(scene.viewer, scene.producer)
    assert consumer.target is scene.producer.streams[2]
    scene.run(2.5, 0, 1)
    assert consumer.target is scene.producer.streams[1]
    requests = {item.media_ssrc for item in scene.sender.sink.rtcp if isinstance(item, PictureLossIndication)}
    assert 101 in requests
    scene.sender.feed(scene.packet(1, key=True))
    assert layers_sent(scene.viewer, consumer.ssrc)[-1] == "1"


def test_retransmission_reaches_back_through_a_switch() -> None:
    scene = Simulcast()
    consumer = scene.call.consume(scene.viewer, scene.producer)
    scene.run(0.2, 0, key=True)
    scene.sender.feed(scene.packet(1))
    consumer.bind(scene.producer.streams[1])
    scene.sender.feed(scene.packet(1, key=True), scene.packet(1))
    sent = scene.viewer.sink.of(consumer.ssrc)
    assert layers_sent(scene.viewer, consumer.ssrc) == "0" * 10 + "11"
    scene.viewer.feed_rtcp(GenericNack(1, consumer.ssrc, tuple(packet.sequence_number for packet in sent[8:])))
    assert consumer.rtx_ssrc is not None
    again = scene.viewer.sink.of(consumer.rtx_ssrc)
    assert [packet.payload[2:] for packet in again] == [packet.payload for packet in sent[8:]]
    assert [packet.timestamp for packet in again] == [packet.timestamp for packet in sent[8:]]


def test_going_back_before_the_switch_was_done() -> None:
    scene = Simulcast()
    consumer = scene.call.consume(scene.viewer, scene.producer)
    scene.run(0.1, 0, key=True)
    scene.sender.feed(scene.packet(1))
    consumer.bind(scene.producer.streams[1])
    consumer.bind(scene.producer.streams[0])
    assert not scene.producer.streams[1].watched
    scene.run(0.1, 0, 1, key=False)
    assert layers_sent(scene.viewer, consumer.ssrc) == "0" * 10


def watchers(producer: Producer) -> int:
    return sum(len(view.consumers) for stream in producer.streams.values() for view in stream._views)


def test_close_leaves_nothing() -> None:
    scene = Simulcast()
    consumer = scene.call.consume(scene.viewer, scene.producer)
    scene.run(0.1, 0, 1, key=True)
    consumer.bind(scene.producer.streams[0])
    scene.producer.close()
    scene.producer.close()
    assert consumer.closed
    assert scene.producer.consumers == {}
    assert watchers(scene.producer) == 0
    assert scene.sender.session.producers == {}
    assert scene.viewer.session.consumers == {}
    assert all(len(stream.cache) == 0 for stream in scene.producer.streams.values())
    scene.sender.feed(scene.packet(0), scene.packet(1))
    assert scene.sender.session.counters.unknown_ssrc == 2
    with pytest.raises(MediaError, match="closed"):
        scene.call.consume(scene.viewer, scene.producer)


def test_closing_a_consumer_detaches_it_from_both_streams() -> None:
    scene = Simulcast()
    consumer = scene.call.consume(scene.viewer, scene.producer)
    scene.run(0.1, 0, 1, key=True)
    scene.sender.feed(scene.packet(2))
    consumer.bind(scene.producer.streams[2])
    assert watchers(scene.producer) == 2
    consumer.close()
    assert watchers(scene.producer) == 0
    assert scene.producer.consumers == {}


def test_nothing_is_forwarded_while_paused() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.06)
    sender.feed(video(1, key=True))
    producer.pause()
    assert consumer.producer_paused
    sender.feed(video(2), video(3, key=True))
    call.now += 0.6
    producer.resume()
    sender.feed(video(4))
    sender.feed(video(5, key=True))
    assert [packet.payload[2:] for packet in viewer.sink.of(consumer.ssrc)] == [b"1", b"5"]
    first, second = (packet.sequence_number for packet in viewer.sink.of(consumer.ssrc))
    assert second - first & 0xFFFF == 1


def test_a_paused_producer_is_not_asked_for_keyframes() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    producer.pause()
    call.consume(viewer, producer)
    call.pass_time(1.0)
    assert not [item for item in sender.sink.rtcp if isinstance(item, PictureLossIndication)]
    producer.resume()
    assert [item for item in sender.sink.rtcp if isinstance(item, PictureLossIndication)]
