"""Simulcast streams with temporal layers: numbers and picture ids go on over changes of stream and of layers alike."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from tests.support.simulcast_sender import Frame, SimulcastSender, Viewer
from trio_sfu.media.frame_mark import EVERYTHING, Layers

CODECS = ("VP8", "VP9")


def assert_ids_go_on(frames: list[Frame], codec: str, *, lossy: bool) -> None:
    """Picture ids rise and never come twice; TL0PICIDX goes up by one with each frame of the base layer."""
    last_base: int | None = None
    for before, after in pairwise(frames):
        step = after.picture_id - before.picture_id & 0x7FFF
        assert 0 < step < 0x4000
        if codec == "VP8" and not lossy:
            assert step == 1
        if codec == "VP9":
            same = before.stream == after.stream and step == after.tick - before.tick
            assert same or step == 1
    for frame in frames:
        if frame.temporal == 0:
            assert last_base is None or frame.tl0 - last_base & 0xFF == 1
            last_base = frame.tl0
        elif last_base is not None:
            assert frame.tl0 == last_base


def run_at_random(
    sender: SimulcastSender, viewers: list[Viewer], random: Random, changes: int, *, gentle: bool = False
) -> None:
    """``gentle``: nothing is done after which what is missing is not sent again."""
    for _ in range(changes):
        viewer = random.choice(viewers)
        chance = random.random()
        layers = Layers(random.randrange(3), random.randrange(3))
        if chance < 0.5:
            viewer.consumer.set_preferred_layers(layers)
        elif chance < 0.8:
            viewer.consumer.set_limit(layers, at_once=not gentle and random.random() < 0.3)
        elif chance < 0.85:
            viewer.consumer.set_limit(None)
            viewer.consumer.set_preferred_layers(layers)
        elif chance < 0.9:
            viewer.consumer.pause()
        if gentle:
            for _ in range(random.randrange(6)):
                sender.step()
                viewer.take()
        if gentle or random.random() < 0.5:
            viewer.consumer.resume()
            if viewer.consumer.limit is None:
                viewer.consumer.set_limit(EVERYTHING)
        for _ in range(random.randint(1, 25)):
            sender.step()
            for each in viewers:
                each.take()
                if random.random() < 0.2:
                    each.ask_again(random.randrange(60))
    for viewer in viewers:
        viewer.consumer.set_limit(EVERYTHING)
        viewer.consumer.set_preferred_layers(EVERYTHING)
        viewer.consumer.resume()
    for at in range(180):
        if at == 150:
            sender.loss = sender.late = 0.0
        sender.step()
        for each in viewers:
            each.take()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", range(5))
def test_changes_at_random(codec: str, seed: int) -> None:
    sender = SimulcastSender(codec, seed=seed)
    viewers = [Viewer(sender) for _ in range(2)]
    run_at_random(sender, viewers, Random(seed), 60)
    for viewer in viewers:
        assert viewer.told[-1] == Layers(2, 2)
        assert len({frame.stream for frame in viewer.frames()}) == 3
        assert viewer.missing == []
        assert viewer.broken() == []
        assert viewer.repeats > 50  # across changes, with the ids that they went out with
        assert_ids_go_on(viewer.frames(), codec, lossy=False)
        assert viewer.session.faults == []
    assert sender.session.faults == []


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", range(8))
def test_changes_at_random_while_packets_are_lost_and_late(codec: str, seed: int) -> None:
    sender = SimulcastSender(codec, seed=seed, loss=0.02, late=0.03)
    viewers = [Viewer(sender) for _ in range(2)]
    random = Random(seed)
    run_at_random(sender, viewers, random, 60, gentle=True)
    for viewer in viewers:
        assert viewer.told[-1] == Layers(2, 2)
        assert viewer.missing == []
        # What was sent last of a stream has no number after it that would show what is missing: a keyframe follows.
        frames = viewer.frames()
        last = {before for before, after in pairwise(frames) if viewer.is_key(after)}
        assert set(viewer.broken()) <= last
        assert_ids_go_on(viewer.frames(), codec, lossy=True)
        assert viewer.session.faults == []
    assert sender.session.faults == []
