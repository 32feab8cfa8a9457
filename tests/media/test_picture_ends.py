"""Encoders that leave the upper layers out of some pictures: each picture still ends with a marker, for every viewer.

Receivers decode a picture when they have a marker. Chromium's VP9 encoder says none where it has left the highest layer
out, and a viewer of the middle layer gets none where that one is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Final

import pytest

from tests.support.dependency_sender import L3T3_KEY, DependencySender
from tests.support.layered_sender import SSRC, STEP, LayeredSender
from tests.support.media_core import FakeSession, Sent, rtx
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.wire.rtcp import PictureLossIndication

SENDERS: Final[dict[str, Callable[..., LayeredSender]]] = {
    "vp9": lambda **more: LayeredSender("VP9", 3, key_only=True, ends_said=False, **more),
    "av1": lambda **more: DependencySender(key_only=True, structure=L3T3_KEY, **more),
}
WHOLE: Final = frozenset[int]()


class Scene:
    def __init__(self, kind: str = "vp9", layers: Layers = EVERYTHING, parts: int = 2) -> None:
        self.sender = SENDERS[kind](parts=parts)
        self.viewer, self.consumer = self.watch(layers)
        self.run(8)

    def watch(self, layers: Layers) -> tuple[FakeSession, Consumer]:
        viewer = self.sender.call.session()
        consumer = self.sender.call.consume(viewer, self.sender.producer)
        consumer.set_preferred_layers(layers)
        return viewer, consumer

    def run(self, pictures: int, *left_out: int) -> None:
        for _ in range(pictures):
            self.sender.left_out = WHOLE if self.sender.key_wanted else frozenset(left_out)
            self.sender.step()

    def picture(self, *left_out: int) -> list[bytes]:
        self.sender.left_out = frozenset(left_out)
        return self.sender.picture()

    def pass_time(self) -> None:
        """One frame's; a key picture is next where the server has asked for one."""
        self.sender.call.pass_time(STEP)
        if any(isinstance(item, PictureLossIndication) for item in self.sender.session.sink.take_rtcp()):
            self.sender.key_wanted = True

    def sent(self) -> list[Sent]:
        return self.viewer.sink.of(self.consumer.ssrc)

    def ordered(self) -> list[Sent]:
        first = self.sent()[0].sequence_number
        return sorted(self.sent(), key=lambda packet: packet.sequence_number - first & 0xFFFF)

    def check(self) -> None:
        """No number twice, none missing, the marker at the end of each picture and nowhere else."""
        self.run(2)
        sent = self.ordered()
        for before, after in pairwise(sent):
            assert after.sequence_number - before.sequence_number & 0xFFFF == 1
            assert before.marker == (before.timestamp != after.timestamp)
        assert self.viewer.faults == self.sender.session.faults == []


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("left_out", [(2,), (1, 2), (1,)])
@pytest.mark.parametrize("layers", [(2, 2), (2, 0), (1, 2), (1, 1), (0, 2)])
def test_each_picture_ends_with_a_marker(
    kind: str, parts: int, left_out: tuple[int, ...], layers: tuple[int, int]
) -> None:
    scene = Scene(kind, Layers(*layers), parts)
    for _ in range(20):
        scene.run(3)
        scene.run(2, *left_out)
    scene.check()
    whole = [packet for packet in scene.sent() if packet.timestamp == 3000 * (scene.sender.tick - 1)]
    assert layers[1] < 2 or len(whole) == parts * (layers[0] + 1)


def test_nothing_waits_in_a_picture_that_is_whole() -> None:
    scene = Scene()
    before = len(scene.sent())
    counts = []
    for packet in scene.picture():
        scene.sender.session.feed(packet)
        counts.append(len(scene.sent()) - before)
    # Each lower frame's last packet goes out with the packet after it, and the picture's last one as it comes.
    assert counts == [1, 1, 3, 3, 5, 6]


def test_the_last_packet_comes_with_what_follows_and_a_marker() -> None:
    scene = Scene()
    for packet in scene.picture(2):
        scene.sender.session.feed(packet)
    (*_, newest) = scene.sent()
    assert not newest.marker
    scene.sender.session.feed(scene.picture()[0])
    *_, ended, following = scene.sent()
    assert ended.marker
    assert ended.sequence_number == newest.sequence_number + 1 & 0xFFFF
    assert ended.timestamp == newest.timestamp != following.timestamp


def test_who_gets_the_lowest_layer_only_never_waits() -> None:
    scene = Scene(layers=Layers(0, 2))
    before = len(scene.sent())
    scene.sender.session.feed(*scene.picture(1, 2))
    assert len(scene.sent()) - before == 2
    assert scene.sent()[-1].marker


def test_a_layer_above_ends_the_picture_of_who_does_not_get_it() -> None:
    scene = Scene(layers=Layers(1, 2))
    lowest, highest = (packets := scene.picture(1))[:2], packets[2:]
    before = len(scene.sent())
    scene.sender.session.feed(*lowest)
    assert len(scene.sent()) - before == 1
    scene.sender.session.feed(highest[0])
    assert len(scene.sent()) - before == 2
    assert scene.sent()[-1].marker


@pytest.mark.parametrize("layers", [(2, 2), (1, 2), (2, 1)])
def test_it_is_sent_again_with_its_marker(layers: tuple[int, int]) -> None:
    scene = Scene(layers=Layers(*layers))
    scene.run(8, 1, 2)
    scene.run(2)
    for packet in scene.sent()[-20:]:
        again = scene.viewer.ask_again(scene.consumer, packet)
        assert again.payload[2:] == packet.payload
        assert again.marker == packet.marker


def test_where_the_packet_after_it_is_lost_nothing_is_said() -> None:
    scene = Scene()
    short, (lost, *rest) = scene.picture(2), scene.picture()
    scene.sender.session.feed(*short)
    before = len(scene.sent())
    scene.sender.session.feed(*rest)
    assert len(scene.sent()) - before == 1 + len(rest)
    assert not scene.sent()[before].marker
    scene.sender.session.feed(rtx(0, lost, ssrc=SSRC + 1))
    numbers = sorted(packet.sequence_number - 0x8000 & 0xFFFF for packet in scene.sent())
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_one_that_comes_late_does_not_wait() -> None:
    scene = Scene()
    *first, late = scene.picture(2)
    scene.sender.session.feed(*first)
    scene.sender.session.feed(*scene.picture())
    before = len(scene.sent())
    scene.sender.session.feed(rtx(0, late, ssrc=SSRC + 1))
    assert len(scene.sent()) - before == 1
    assert scene.sent()[-1].marker
    scene.check()


def test_a_late_packet_lets_the_newest_wait_on() -> None:
    scene = Scene()
    (lost, *rest) = scene.picture(2)
    scene.sender.session.feed(*rest)
    before = len(scene.sent())
    scene.sender.session.feed(rtx(0, lost, ssrc=SSRC + 1))
    assert len(scene.sent()) - before == 1
    scene.check()


def test_who_begins_meanwhile_gets_it_once() -> None:
    """A keyframe of which all but the waiting packet is sent to somebody new."""
    scene = Scene(parts=1)
    scene.sender.key_wanted = True
    scene.sender.session.feed(*scene.picture()[:2])
    viewer, consumer = scene.watch(EVERYTHING)
    scene.sender.call.pass_time(0.1)
    scene.run(4)
    numbers = [packet.sequence_number for packet in viewer.sink.of(consumer.ssrc)]
    assert numbers
    assert len(numbers) == len(set(numbers))


def test_a_keyframe_that_waits_whole_is_begun_with_when_it_goes_out() -> None:
    scene = Scene(parts=1)
    scene.sender.key_wanted = True
    scene.sender.session.feed(scene.picture()[0])
    viewer, consumer = scene.watch(EVERYTHING)
    scene.sender.call.pass_time(0.1)
    scene.run(4)
    numbers = [packet.sequence_number for packet in viewer.sink.of(consumer.ssrc)]
    assert len(numbers) > 9
    assert len(numbers) == len(set(numbers))


def go_far(scene: Scene) -> None:
    """Until a number from before would be taken for a newer one."""
    for _ in range(20):
        scene.sender.number = scene.sender.number + 2000 & 0xFFFF
        scene.run(1)


def assert_nothing_old(sent: list[Sent]) -> None:
    for before, after in pairwise(sent):
        assert after.sequence_number - before.sequence_number & 0xFFFF == 1
        assert after.timestamp >= before.timestamp


def test_what_waits_is_not_kept_through_a_pause() -> None:
    scene = Scene()
    scene.run(1, 2)
    before = len(scene.sent())
    scene.sender.producer.pause()
    go_far(scene)
    scene.sender.producer.resume()
    scene.sender.key_wanted = True
    scene.run(8)
    assert len(scene.sent()) == before + 6 * 8
    assert_nothing_old(scene.sent())


def test_what_waits_is_not_kept_when_nobody_is_left() -> None:
    scene = Scene()
    scene.run(1, 2)
    scene.consumer.close()
    go_far(scene)
    viewer, consumer = scene.watch(EVERYTHING)
    scene.sender.call.pass_time(0.1)
    scene.sender.key_wanted = True
    scene.run(8)
    sent = viewer.sink.of(consumer.ssrc)
    assert len(sent) == 6 * 8
    assert_nothing_old(sent)


def test_what_waits_is_not_kept_when_the_sender_begins_anew() -> None:
    scene = Scene()
    scene.run(1, 2)
    before = len(scene.sent())
    scene.sender.number = scene.sender.number - 10_000 & 0xFFFF
    *_, foreign = scene.picture()
    scene.sender.key_wanted = True
    scene.sender.session.feed(foreign, *scene.picture())  # two in a row out of range are a new beginning
    scene.run(7)
    assert len(scene.sent()) == before + 6 * 8
    assert_nothing_old(scene.sent())


def test_what_waits_for_long_goes_out_with_what_comes_then() -> None:
    scene = Scene()
    scene.run(1, 2)
    scene.sender.call.pass_time(5.0)
    scene.check()


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("seed", range(4))
def test_changes_at_random(kind: str, seed: int) -> None:
    """Layers come and go, at both ends; packets come one by one, or several pictures at once."""
    scene = Scene(kind, parts=1 + seed % 2)
    random = Random(seed)
    pending: list[bytes] = []
    for _ in range(400):
        if random.random() < 0.2:
            scene.consumer.set_preferred_layers(Layers(random.randrange(3), random.randrange(3)))
        left_out = random.choice([(), (), (2,), (1,), (1, 2)])
        if scene.sender.key_wanted:
            left_out = ()
        pending += scene.picture(*left_out)
        while pending and random.random() < 0.8:
            count = random.randint(1, 4)
            scene.sender.session.feed(*pending[:count])
            del pending[:count]
        scene.pass_time()
    scene.sender.session.feed(*pending)
    scene.check()
