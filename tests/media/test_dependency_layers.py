"""Layers that only the dependency descriptor tells of: AV1's spatial and temporal ones, H.264's temporal ones."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from tests.support.dependency_sender import L1T3, L3T3_KEY, DependencySender
from tests.support.layered_sender import DISCARDABLE, Decoder
from tests.support.media_core import Sent
from trio_sfu.media.capabilities import DEPENDENCY_DESCRIPTOR_ID, DEPENDENCY_DESCRIPTOR_URI
from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.wire.dependency_descriptor import (
    DependencyDescriptor,
    DependencyStructure,
    parse_dependency_descriptor,
)

SENDERS = {
    "av1 svc": lambda: DependencySender(),
    "av1 k-svc": lambda: DependencySender(key_only=True, structure=L3T3_KEY),
    "h264": lambda: DependencySender("H264", 1, structure=L1T3),
}


class Scene:
    def __init__(self, kind: str) -> None:
        self.sender = SENDERS[kind]()
        self.viewer = self.sender.call.session()
        self.consumer = self.sender.call.consume(self.viewer, self.sender.producer)
        self.told: list[Layers | None] = []
        self.consumer.on_layers_change = self.told.append

    def run(self, pictures: int) -> None:
        for _ in range(pictures):
            self.sender.step()

    def sent(self) -> list[Sent]:
        return self.viewer.sink.of(self.consumer.ssrc)

    def descriptors(self) -> list[DependencyDescriptor]:
        """Read as the receiver does, one after the other."""
        structure: DependencyStructure | None = None
        found = []
        for packet in self.sent():
            parsed = parse_dependency_descriptor(packet.extensions[DEPENDENCY_DESCRIPTOR_ID], structure)
            structure = parsed.structure or structure
            found.append(parsed)
        return found

    def check(self) -> Decoder:
        for before, after in pairwise(self.sent()):
            assert after.sequence_number - before.sequence_number & 0xFFFF == 1
            assert before.marker == (before.timestamp != after.timestamp)
        decoder = Decoder(self.sender.key_only, self.sender.parts, self.sender.key_ticks, DISCARDABLE)
        decoder.take(self.sent())
        assert decoder.broken == []
        assert self.viewer.faults == self.sender.session.faults == []
        return decoder


@pytest.mark.parametrize("kind", ["av1 svc", "av1 k-svc"])
@pytest.mark.parametrize("layers", [(0, 0), (0, 2), (1, 0), (1, 1), (2, 0), (2, 2)])
def test_layers_are_left_out(kind: str, layers: tuple[int, int]) -> None:
    scene = Scene(kind)
    scene.run(8)
    scene.consumer.set_preferred_layers(Layers(*layers))
    scene.run(8)
    begin = len(scene.sent())
    scene.run(80)
    scene.check()
    assert scene.told[-1] == Layers(*layers)
    spatial, temporal = layers
    assert len(scene.sent()) - begin == 80 * 2 * (spatial + 1) // (4, 2, 1)[temporal]
    places = {(each.spatial_layer, each.temporal_layer) for each in scene.descriptors()[begin:]}
    assert places == {(s, t) for s in range(spatial + 1) for t in range(temporal + 1)}
    assert scene.sender.requests <= 1


@pytest.mark.parametrize("kind", ["av1 svc", "av1 k-svc"])
def test_up_takes_one_keyframe_and_temporal_layers_none(kind: str) -> None:
    scene = Scene(kind)
    scene.run(4)
    scene.consumer.set_preferred_layers(Layers(0, 0))
    scene.run(40)
    requests = scene.sender.requests
    scene.consumer.set_preferred_layers(Layers(0, 2))
    scene.run(12)
    assert scene.told[-1] == Layers(0, 2)
    assert scene.sender.requests == requests
    scene.consumer.set_preferred_layers(EVERYTHING)
    scene.run(12)
    assert scene.told[-1] == Layers(2, 2)
    assert scene.sender.requests == requests + 1
    scene.check()


def test_the_descriptor_says_which_targets_there_still_are() -> None:
    scene = Scene("av1 svc")
    scene.run(8)
    whole = len(scene.sent())
    scene.consumer.set_preferred_layers(Layers(1, 0))
    scene.run(8)
    scene.sender.key_wanted = True
    scene.run(8)
    descriptors = scene.descriptors()
    structure = descriptors[0].structure
    assert structure is not None
    assert all(each.active_decode_targets in (None, 0x1FF) for each in descriptors[:whole])
    mask = structure.targets_up_to(1, 0)
    said = [each for each in descriptors[whole:] if each.active_decode_targets is not None]
    assert [each.active_decode_targets for each in said] == [mask, mask]
    assert [each.structure is not None for each in said] == [False, True]
    scene.consumer.set_preferred_layers(EVERYTHING)
    scene.run(30)
    assert scene.descriptors()[-1].spatial_layer == 2
    assert [each.active_decode_targets for each in scene.descriptors() if each.structure is not None][-1] == 0x1FF


def test_frame_numbers_stay_and_what_is_sent_again_is_the_same() -> None:
    scene = Scene("av1 svc")
    scene.run(8)
    scene.consumer.set_preferred_layers(Layers(0, 0))
    scene.run(16)
    numbers = [each.frame_number for each in scene.descriptors()]
    assert all(0 <= after - before & 0xFFFF <= 12 for before, after in pairwise(numbers))
    for packet in scene.sent()[-20:]:
        again = scene.viewer.ask_again(scene.consumer, packet)
        assert again.payload[2:] == packet.payload
        assert again.marker == packet.marker
        assert again.extensions[DEPENDENCY_DESCRIPTOR_ID] == packet.extensions[DEPENDENCY_DESCRIPTOR_ID]


def test_who_gets_the_descriptor_has_negotiated_it() -> None:
    scene = Scene("av1 svc")
    extensions = {each.uri: each.id for each in scene.consumer.rtp_parameters.header_extensions}
    assert extensions[DEPENDENCY_DESCRIPTOR_URI] == DEPENDENCY_DESCRIPTOR_ID
    scene.run(4)
    assert all(DEPENDENCY_DESCRIPTOR_ID in packet.extensions for packet in scene.sent())


@pytest.mark.parametrize(
    "sender",
    [
        lambda: DependencySender(rids=("low", "high")),
        lambda: DependencySender("H264", 1, structure=L1T3),
    ],
)
def test_of_several_streams_and_of_other_codecs_it_is_read_and_not_passed_on(sender: type[DependencySender]) -> None:
    """Frame numbers would break where a consumer goes over to another stream."""
    source = sender()
    viewer = source.call.session()
    consumer = source.call.consume(viewer, source.producer)
    for _ in range(8):
        source.step()
    assert len(viewer.sink.of(consumer.ssrc)) > 8
    assert not any(DEPENDENCY_DESCRIPTOR_ID in packet.extensions for packet in viewer.sink.of(consumer.ssrc))
    assert DEPENDENCY_DESCRIPTOR_URI not in {each.uri for each in consumer.rtp_parameters.header_extensions}
    assert source.producer.streams[0].top.temporal == 2


@pytest.mark.parametrize(("temporal", "share"), [(0, 4), (1, 2), (2, 1)])
def test_temporal_layers_of_h264(temporal: int, share: int) -> None:
    scene = Scene("h264")
    scene.run(8)
    scene.consumer.set_preferred_layers(Layers(0, 0))
    scene.run(8)
    requests = scene.sender.requests
    scene.consumer.set_preferred_layers(Layers(0, temporal))
    scene.run(12)
    assert scene.told[-1] == Layers(0, temporal)
    before = len(scene.sent())
    scene.run(80)
    assert len(scene.sent()) - before == 80 * 2 // share
    assert scene.sender.requests == requests
    scene.check()


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("seed", range(3))
def test_changes_at_random(kind: str, seed: int) -> None:
    scene = Scene(kind)
    random = Random(seed)
    scene.run(4)
    for _ in range(60):
        if random.random() < 0.9:
            layers = Layers(random.randrange(scene.sender.spatial_layers), random.randrange(3))
            scene.consumer.set_preferred_layers(layers)
        else:
            scene.consumer.pause()
            scene.run(random.randrange(6))
            scene.consumer.resume()
        scene.run(random.randint(1, 12))
    scene.consumer.set_preferred_layers(EVERYTHING)
    scene.run(40)
    assert scene.told[-1] == Layers(scene.sender.spatial_layers - 1, 2)
    scene.check()
