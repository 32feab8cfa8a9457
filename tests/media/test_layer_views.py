"""Consumers of a part of a stream's layers: what goes out is without holes, and every picture of it can be decoded."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from types import SimpleNamespace

import pytest

from tests.support.layered_sender import SSRC, Decoder, LayeredSender
from tests.support.media_core import FakeSession, Sent, rtp, rtx
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.media.layer_view import may_cross, next_step
from trio_sfu.wire.vp8 import parse_vp8
from trio_sfu.wire.vp9 import parse_vp9

SENDERS = {
    "vp8": lambda: LayeredSender("VP8"),
    "vp9 svc": lambda: LayeredSender("VP9", 3),
    "vp9 k-svc": lambda: LayeredSender("VP9", 3, key_only=True),
}


class Scene:
    def __init__(self, kind: str) -> None:
        self.sender = SENDERS[kind]()
        self.viewer: FakeSession = self.sender.call.session()
        self.consumer: Consumer = self.sender.call.router.consume(
            SimpleNamespace(session=self.viewer.session),
            self.sender.producer,
            self.sender.call.router.rtp_capabilities,
        )
        self.told: list[Layers | None] = []
        self.consumer.on_layers_change = self.told.append
        self.key_ticks: set[int] = set()

    def run(self, pictures: int) -> None:
        for _ in range(pictures):
            if self.sender.key_wanted:
                self.key_ticks.add(self.sender.tick)
            self.sender.step()

    def sent(self) -> list[Sent]:
        return self.viewer.sink.of(self.consumer.ssrc)

    def decoder(self) -> Decoder:
        decoder = Decoder(self.sender.key_only, self.sender.parts, self.key_ticks)
        decoder.take(self.sent())
        return decoder


def ids_of(packet: Sent) -> tuple[int, int]:
    parsed = parse_vp8(packet.payload)
    assert parsed.picture_id is not None
    assert parsed.tl0_pic_idx is not None
    return parsed.picture_id, parsed.tl0_pic_idx


def assert_unbroken(sent: list[Sent]) -> None:
    for before, after in pairwise(sent):
        assert after.sequence_number - before.sequence_number & 0xFFFF == 1
        assert after.timestamp - before.timestamp & 0xFFFFFFFF < 0x80000000


# -- decisions


@pytest.mark.parametrize(
    ("current", "wanted", "step"),
    [
        ((0, 0), (0, 2), (0, 1)),
        ((0, 2), (0, 0), (0, 0)),
        ((1, 2), (0, 2), (0, 2)),
        ((0, 0), (2, 2), (2, 2)),
        ((2, 0), (1, 2), (1, 0)),
        ((1, 1), (2, 0), (1, 0)),
    ],
)
def test_steps(current: tuple[int, int], wanted: tuple[int, int], step: tuple[int, int]) -> None:
    assert next_step(Layers(*current), Layers(*wanted)) == step


def test_a_packet_that_tells_nothing_is_no_place_to_cross() -> None:
    scene = Scene("vp8")
    scene.run(1)
    packet = scene.sender.producer.streams[0].cache.since_keyframe()[0]._replace(mark=None)
    assert not may_cross(packet, Layers(0, 0), Layers(0, 1))


# -- one consumer


@pytest.mark.parametrize("kind", SENDERS)
def test_everything_goes_out_as_it_came(kind: str) -> None:
    scene = Scene(kind)
    scene.run(8)
    begin = len(scene.sent())
    scene.run(40)
    sent = scene.sent()
    assert len(sent) - begin == 40 * scene.sender.parts * scene.sender.spatial_layers
    assert_unbroken(sent)
    assert len(scene.sender.producer.streams[0]._views) == 1


@pytest.mark.parametrize(("layers", "share"), [((0, 0), 1 / 4), ((0, 1), 1 / 2), ((0, 2), 1)])
def test_temporal_layers_are_left_out(layers: tuple[int, int], share: float) -> None:
    scene = Scene("vp8")
    scene.run(8)
    scene.consumer.set_preferred_layers(Layers(*layers))
    scene.run(8)
    before = len(scene.sent())
    scene.run(400)
    assert len(scene.sent()) - before == 400 * 2 * share
    assert_unbroken(scene.sent())
    assert scene.decoder().broken == []
    ids = [ids_of(packet) for packet in scene.sent()]
    for (picture, tl0), (next_picture, next_tl0) in pairwise(ids):
        assert next_picture - picture & 0x7FFF in (0, 1)
        assert next_tl0 - tl0 & 0xFF in (0, 1)
    assert scene.sender.requests <= 1  # the one to begin with
    assert scene.told[-1] == Layers(*layers)


@pytest.mark.parametrize("kind", ["vp9 svc", "vp9 k-svc"])
@pytest.mark.parametrize("layers", [(0, 0), (0, 2), (1, 0), (1, 2), (2, 1), (2, 2)])
def test_spatial_layers_are_left_out(kind: str, layers: tuple[int, int]) -> None:
    scene = Scene(kind)
    scene.run(8)
    scene.consumer.set_preferred_layers(Layers(*layers))
    scene.run(8)
    begin = len(scene.sent())
    scene.run(80)
    sent = scene.sent()
    assert_unbroken(sent)
    assert scene.decoder().broken == []
    assert {spatial for _, spatial in scene.decoder().shown[-10:]} == {layers[0]}
    parsed = [parse_vp9(packet.payload) for packet in sent[begin:]]
    assert max(each.spatial_layer or 0 for each in parsed) == layers[0]
    assert max(each.temporal_layer or 0 for each in parsed) == layers[1]
    # The marker is on the last packet of each picture, and on no other.
    for packet, following in pairwise(sent[begin:]):
        assert packet.marker == (packet.timestamp != following.timestamp)
    assert scene.told[-1] == Layers(*layers)
    assert scene.sender.requests <= 1  # down and away goes without a keyframe


@pytest.mark.parametrize("kind", ["vp9 svc", "vp9 k-svc"])
def test_up_takes_one_keyframe(kind: str) -> None:
    scene = Scene(kind)
    scene.run(4)
    scene.consumer.set_preferred_layers(Layers(0, 0))
    scene.run(40)
    requests = scene.sender.requests
    scene.consumer.set_preferred_layers(Layers(2, 2))
    scene.run(10)
    assert scene.sender.requests == requests + 1
    assert scene.told[-1] == Layers(2, 2)
    assert scene.decoder().broken == []


def test_down_and_up_at_once_asks_for_its_keyframe_when_it_is_down() -> None:
    scene = Scene("vp9 svc")
    scene.run(30)
    scene.consumer.set_preferred_layers(Layers(0, 2))
    scene.run(40)
    scene.consumer.set_preferred_layers(Layers(2, 1))
    scene.run(10)
    assert scene.told[-1] == Layers(2, 1)
    assert scene.decoder().broken == []


def test_picture_ids_go_on_from_the_newest_picture_and_not_from_a_late_one() -> None:
    scene = Scene("vp8")
    scene.run(8)
    while (scene.sender.tick - scene.sender.key_tick) % 4:
        scene.run(1)
    first, late = scene.sender.picture()
    scene.sender.session.feed(first)
    for _ in range(3):
        scene.sender.session.feed(*scene.sender.picture())
    scene.consumer.set_preferred_layers(Layers(0, 1))
    scene.sender.session.feed(late)
    scene.run(8)
    assert scene.told[-1] == Layers(0, 1)
    ordered = sorted(scene.sent(), key=lambda packet: packet.sequence_number - scene.sent()[0].sequence_number & 0xFFFF)
    assert_unbroken(ordered)
    for before, after in pairwise(ids_of(packet) for packet in ordered):
        assert after[0] - before[0] & 0x7FFF in (0, 1)
    pictures = {(packet.timestamp, ids_of(packet)[0]) for packet in ordered}
    assert len(pictures) == len({timestamp for timestamp, _ in pictures}) == len({picture for _, picture in pictures})


def test_two_consumers_share_a_view_and_others_are_not_touched() -> None:
    scene = Scene("vp8")
    scene.run(8)
    other = scene.sender.call.session()
    others = [
        scene.sender.call.router.consume(
            SimpleNamespace(session=other.session),
            scene.sender.producer,
            scene.sender.call.router.rtp_capabilities,
            preferred_layers=layers,
        )
        for layers in (Layers(0, 0), EVERYTHING)
    ]
    scene.consumer.set_preferred_layers(Layers(0, 0))
    scene.run(100)
    stream = scene.sender.producer.streams[0]
    assert len(stream._views) == 2
    low, high = (other.sink.of(consumer.ssrc) for consumer in others)
    for sent in (scene.sent(), low, high):
        assert_unbroken(sent)
    assert len(high) > 3 * len(low)
    for consumer in (scene.consumer, *others):
        consumer.close()
    scene.run(150)  # until nothing can be asked for again
    assert [view.is_whole for view in stream._views] == [True]
    assert not stream.watched


def test_what_a_view_sent_is_sent_again_after_it_was_left() -> None:
    scene = Scene("vp8")
    scene.run(8)
    scene.consumer.set_preferred_layers(Layers(0, 0))
    scene.run(20)
    by_view = scene.sent()[-2:]
    scene.consumer.set_preferred_layers(EVERYTHING)
    scene.run(12)
    assert scene.told[-1] == Layers(0, 2)
    for packet in (*by_view, *scene.sent()[-2:]):
        again = scene.viewer.ask_again(scene.consumer, packet)
        assert again.payload == packet.sequence_number.to_bytes(2, "big") + packet.payload
        assert again.timestamp == packet.timestamp


def test_a_late_packet_that_is_left_out_leaves_no_hole() -> None:
    scene = Scene("vp8")
    scene.run(8)
    scene.consumer.set_preferred_layers(Layers(0, 0))
    scene.run(8)
    held: list[bytes] = []
    for _ in range(8):
        packets = scene.sender.picture()
        if (scene.sender.tick - 1 - scene.sender.key_tick) % 4 == 1 and not held:  # of layer 2
            held = packets
        else:
            scene.sender.session.feed(*packets)
    numbers = {packet.sequence_number for packet in scene.sent()}
    first = min(numbers)
    assert numbers != set(range(first, first + len(numbers)))
    for number, packet in enumerate(held):
        scene.sender.session.feed(rtx(number, packet, ssrc=SSRC + 1))
    empty = [packet for packet in scene.sent() if not packet.payload]
    assert len(empty) == 2
    ordered = sorted(scene.sent(), key=lambda packet: packet.sequence_number - 0x8000 & 0xFFFF)
    assert len(ordered) == len({packet.sequence_number for packet in ordered})
    for before, after in pairwise(sorted(scene.sent(), key=lambda packet: packet.timestamp)):
        assert abs((after.sequence_number - before.sequence_number + 8 & 0xFFFF) - 8) <= 3


def test_a_sender_that_begins_anew_is_followed() -> None:
    scene = Scene("vp8")
    scene.run(8)
    scene.consumer.set_preferred_layers(Layers(0, 1))
    scene.run(20)
    scene.sender.number = 5000
    scene.sender.key_wanted = True
    scene.run(40)
    assert_unbroken(scene.sent())
    assert scene.told[-1] == Layers(0, 1)


def test_a_stream_without_ids_or_layers_is_left_alone() -> None:
    scene = Scene("vp8")
    scene.consumer.set_preferred_layers(Layers(0, 0))
    for number in range(10):
        payload = bytes((0x10, 0 if number == 0 else 1)) + b"|%d.0.0" % number
        scene.sender.session.feed(rtp(SSRC, number, 3000 * number, payload=payload))
        scene.sender.call.pass_time(0.02)
    assert len(scene.sent()) == 10


# -- at random


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("seed", range(6))
def test_a_hundred_changes_at_random(kind: str, seed: int) -> None:
    scene = Scene(kind)
    random = Random(seed)
    scene.run(4)
    for _ in range(100):
        if random.random() < 0.9:
            layers = Layers(random.randrange(scene.sender.spatial_layers), random.randrange(3))
            scene.consumer.set_preferred_layers(layers)
        else:
            scene.consumer.pause()
            scene.run(random.randrange(6))
            scene.consumer.resume()
        scene.run(random.randint(1, 12))
    assert_unbroken(scene.sent())
    assert scene.decoder().broken == []
    if kind == "vp8":
        for before, after in pairwise(ids_of(packet) for packet in scene.sent()):
            assert after[0] - before[0] & 0x7FFF in (0, 1)
            assert after[1] - before[1] & 0xFF in (0, 1)
    assert scene.viewer.faults == scene.sender.session.faults == []
    scene.consumer.set_preferred_layers(EVERYTHING)
    scene.run(40)
    assert scene.told[-1] == Layers(scene.sender.spatial_layers - 1, 2)
    assert len(scene.sender.producer.streams[0]._views) <= 16


@pytest.mark.parametrize("kind", ["vp9 svc", "vp9 k-svc"])
def test_down_in_time_and_up_in_space_takes_one_keyframe(kind: str) -> None:
    scene = Scene(kind)
    scene.run(4)
    scene.consumer.set_preferred_layers(Layers(1, 2))
    scene.run(40)
    requests = scene.sender.requests
    scene.consumer.set_preferred_layers(Layers(2, 1))
    scene.run(10)
    assert scene.sender.requests == requests + 1
    assert scene.told[-1] == Layers(2, 1)
