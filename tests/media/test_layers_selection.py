"""Simulcast: each consumer gets the layer it prefers, or the nearest, and goes over without a break."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.media_core import WALL_CLOCK, Call, FakeSession, video, video_payload
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import Layers
from trio_sfu.media.layers import choose_stream, step_at_switch
from trio_sfu.wire.rtcp import PictureLossIndication, SenderReport

STEP = 0.02


class Scene:
    """A sender of three layers, SSRC ``100 + layer``, that answers a PLI with a keyframe in the next frame.

    A payload's text is ``layer:tick``. All layers' frames of a tick are taken at the same moment, ``lateness`` seconds
    (by layer) before they come.
    """

    def __init__(self, *, reports: bool = True) -> None:
        self.call = Call()
        self.sender = self.call.session()
        self.producer = self.call.produce_video(self.sender, encodings=[{"ssrc": 100 + layer} for layer in range(3)])
        self.live = {0, 1, 2}
        self.lateness = {0: 0.0, 1: 0.0, 2: 0.0}
        self.requests: Counter[int] = Counter()
        self.key_wanted = {0, 1, 2}
        self.answers = True
        self.reports = reports
        self.tick = 0
        self._numbers = [0x100, 0xFFF0, 0x7FF0]
        self._clocks = [0, 0xFFFF0000, 0x7FFF0000]

    def viewer(self, **more: Any) -> tuple[FakeSession, Consumer, list[int | None]]:
        if self.tick == 0:
            self.step()
        viewer = self.call.session()
        consumer = self.call.router.consume(
            SimpleNamespace(session=viewer.session), self.producer, self.call.router.rtp_capabilities, **more
        )
        told: list[int | None] = []
        consumer.on_layers_change = lambda layers: told.append(layers.spatial if layers else None)
        return viewer, consumer, told

    def timestamp(self, layer: int, moment: float) -> int:
        return self._clocks[layer] + round(moment * 90000)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.step()

    def step(self) -> None:
        now = self.call.now
        if self.reports and self.tick % 50 == 0:
            for layer in sorted(self.live):
                ntp = round((WALL_CLOCK + now) * (1 << 32))
                stamp = self.timestamp(layer, now) & 0xFFFFFFFF
                self.sender.feed_rtcp(SenderReport(100 + layer, ntp, stamp, 0, 0))
        for layer in sorted(self.live):
            key = self.answers and layer in self.key_wanted
            if key:
                self.key_wanted.discard(layer)
            number = self._numbers[layer]
            self._numbers[layer] = number + 1 & 0xFFFF
            moment = now - self.lateness[layer]
            payload = video_payload(f"{layer}:{self.tick}", key=key)
            packet = video(number, self.timestamp(layer, moment), ssrc=100 + layer, payload=payload)
            self.sender.feed(packet)
        self.tick += 1
        self.call.pass_time(STEP)
        for item in self.sender.sink.take_rtcp():
            if isinstance(item, PictureLossIndication):
                self.requests[item.media_ssrc - 100] += 1
                self.key_wanted.add(item.media_ssrc - 100)


def prefer(consumer: Consumer, layer: int) -> int | None:
    layers = consumer.set_preferred_layers(Layers(layer, 9))
    return layers.spatial if layers is not None else None


def frames(viewer: FakeSession, consumer: Consumer) -> list[tuple[int, int, bool, int]]:
    """(layer, tick, keyframe, timestamp) of what went out, whose numbers are asserted to be without hole or repeat."""
    sent = viewer.sink.of(consumer.ssrc)
    numbers = [packet.sequence_number for packet in sent]
    assert [number - numbers[0] & 0xFFFF for number in numbers] == [step & 0xFFFF for step in range(len(numbers))]
    for earlier, later in pairwise(sent):
        assert 0 < (later.timestamp - earlier.timestamp & 0xFFFFFFFF) < 0x80000000
    found = []
    for packet in sent:
        layer, tick = packet.payload[2:].split(b":")
        found.append((int(layer), int(tick), not packet.payload[1] & 1, packet.timestamp))
    for before, after in pairwise(found):
        assert before[0] == after[0] or after[2], "a switch without a keyframe"
    return found


def steps(found: list[tuple[int, int, bool, int]]) -> set[int]:
    return {later[3] - earlier[3] & 0xFFFFFFFF for earlier, later in pairwise(found)}


# -- decisions


@pytest.mark.parametrize(
    ("live", "preferred", "chosen"),
    [
        ((), 2, None),
        ((0, 1, 2), 2, 2),
        ((0, 1, 2), 1, 1),
        ((0, 1, 2), 0, 0),
        ((0, 2), 1, 0),
        ((1, 2), 0, 1),
        ((2,), 0, 2),
        ((0,), 2, 0),
    ],
)
def test_choice(live: tuple[int, ...], preferred: int, chosen: int | None) -> None:
    streams = cast(Any, [SimpleNamespace(index=index) for index in live])
    stream = choose_stream(streams, preferred)
    assert (None if stream is None else stream.index) == chosen


def report(ntp: float, timestamp: int) -> SenderReport:
    return SenderReport(1, round(ntp * (1 << 32)) % (1 << 64), timestamp & 0xFFFFFFFF, 0, 0)


@pytest.mark.parametrize(
    ("before", "after", "last", "first", "elapsed", "step"),
    [
        (report(100, 5000), report(100, 9000), 5000, 9000, 0.0, 0),
        (report(100, 5000), report(100, 9000), 5000, 12000, 0.0, 3000),
        (report(100, 5000), report(101, 9000), 5000, 9000, 0.9, 90000),
        (report(101, 5000), report(100, 9000), 5000 - 90000, 9000, 0.0, 0),
        (report(100, 0xFFFFFFF0), report(100, 3), 0x10, 33, 0.0, -2),
        (report(100, -10), report(100, 0x7FFFFFFF), 10, -0x80000000 + 19, 0.0, 0),
        (report((1 << 32) - 1, 0), report(0, 0), 0, 0, 1.0, 90000),
        (report(100, 0), report(160, 0), 0, 0, 0.1, None),
        (report(160, 0), report(100, 0), 0, 0, 0.1, None),
    ],
)
def test_steps_by_reports(
    before: SenderReport, after: SenderReport, last: int, first: int, elapsed: float, step: int | None
) -> None:
    last, first = last & 0xFFFFFFFF, first & 0xFFFFFFFF
    assert step_at_switch(before, after, last=last, first=first, clock_rate=90000, elapsed=elapsed) == step


# -- on request


def test_down_and_up_on_request() -> None:
    scene = Scene()
    viewer, consumer, told = scene.viewer()
    scene.run(1)
    assert told == [2]
    scene.requests.clear()
    assert prefer(consumer, 0) == 0
    scene.run(0.2)
    assert prefer(consumer, 1) == 1
    scene.run(0.2)
    assert prefer(consumer, 200) == 2
    scene.run(0.2)
    assert told == [2, 0, 1, 2]
    assert scene.requests == {0: 1, 1: 1, 2: 1}
    assert [layer for (layer, *_), after in pairwise(frames(viewer, consumer)) if after[0] != layer] == [2, 0, 1]


def test_the_preference_at_consume() -> None:
    scene = Scene()
    scene.run(3)
    scene.requests.clear()
    viewer, consumer, told = scene.viewer(preferred_layers=Layers(0, 9))
    other, highest, _ = scene.viewer(preferred_layers=Layers(9, 9))
    scene.run(3)
    assert told == [0]
    assert {layer for layer, *_ in frames(viewer, consumer)} == {0}
    assert {layer for layer, *_ in frames(other, highest)} == {2}
    assert scene.requests[1] == 0


def test_others_notice_nothing() -> None:
    scene = Scene()
    other, witness, told = scene.viewer()
    _, consumer, _ = scene.viewer()
    scene.run(1)
    for layer in (0, 1, 2, 0):
        prefer(consumer, layer)
        scene.run(0.3)
    assert told == [2]
    assert {layer for layer, *_ in frames(other, witness)} == {2}
    assert steps(frames(other, witness)) == {1800}


def test_nothing_to_choose_from() -> None:
    call = Call()
    producer = call.produce_video(call.session())
    consumer = call.consume(call.session(), producer)
    told: list[int | None] = []
    consumer.on_layers_change = lambda layers: told.append(layers.spatial if layers else None)
    assert prefer(consumer, 0) is None
    consumer.pause()
    call.pass_time(2)
    assert told == []


def test_no_request_for_a_layer_that_is_not_wanted_any_more() -> None:
    scene = Scene()
    _viewer, consumer, told = scene.viewer()
    scene.run(1)
    scene.requests.clear()
    scene.answers = False
    prefer(consumer, 0)
    prefer(consumer, 2)
    scene.run(1)
    assert scene.requests[0] <= 1
    assert scene.requests[2] == 0
    assert told == [2]


def test_toggling_does_not_flood_the_sender() -> None:
    """No more requests than the retries of one who waits."""
    scene = Scene()
    _viewer, consumer, _ = scene.viewer()
    scene.run(1)
    scene.requests.clear()
    for tick in range(100):
        prefer(consumer, tick % 2 * 2)
        scene.step()
    assert scene.requests.total() <= 2 / 0.1


def test_the_wanted_layer_keeps_going_until_the_keyframe() -> None:
    scene = Scene()
    viewer, consumer, _ = scene.viewer()
    scene.run(1)
    scene.answers = False
    prefer(consumer, 1)
    scene.run(1)
    scene.answers = True
    scene.run(1)
    found = frames(viewer, consumer)
    assert steps(found) == {1800}
    assert found[-1][0] == 1


# -- timestamps


def test_timestamps_are_exact_by_reports() -> None:
    """A hundred switches between streams that come earlier and later: each frame has its moment's timestamp."""
    scene = Scene()
    scene.lateness = {0: 0.0, 1: 0.05, 2: 0.13}
    viewer, consumer, _ = scene.viewer()
    scene.run(1)
    for each in range(100):
        prefer(consumer, (each * 2 + each // 3) % 3)
        scene.run(0.6)
    found = frames(viewer, consumer)
    assert sum(before[0] != after[0] for before, after in pairwise(found)) >= 60
    # Where a switch went back in time the stream lags, by what it went back at most; never by more each time.
    late = {0: 0, 1: 4500, 2: 11700}
    off = [
        (stamp - tick * 1800 + late[layer]) - (found[0][3] - found[0][1] * 1800 + late[found[0][0]])
        for layer, tick, _, stamp in found
    ]
    off = [each + 0x80000000 & 0xFFFFFFFF for each in off]
    assert all(-1 <= each - 0x80000000 <= 11701 for each in off)
    # To an earlier stream there is no lag: exact.
    assert {each - 0x80000000 for each, (layer, *_) in zip(off, found, strict=True) if layer == 0} <= {-1, 0, 1}


def test_timestamps_without_reports_go_by_the_time_passed() -> None:
    scene = Scene(reports=False)
    viewer, consumer, _ = scene.viewer()
    scene.run(1)
    prefer(consumer, 0)
    scene.run(0.5)
    assert steps(frames(viewer, consumer)) == {1800}


# -- streams that come and go


def test_a_stopped_layer_is_left_and_taken_again() -> None:
    scene = Scene()
    viewer, consumer, told = scene.viewer()
    scene.run(3)
    scene.live = {0, 1}
    scene.run(3)
    assert told == [2, 1]
    scene.live = {0}
    scene.run(3)
    assert told == [2, 1, 0]
    scene.live = {0, 1, 2}
    scene.run(1.5)
    assert told == [2, 1, 0]  # until they have lasted
    scene.run(3)
    assert told == [2, 1, 0, 2]
    frames(viewer, consumer)


def test_null_while_nothing_is_forwarded() -> None:
    scene = Scene()
    _viewer, consumer, told = scene.viewer()
    scene.run(1)
    scene.live = set()
    scene.run(3)
    assert told == [2, None]
    scene.live = {0, 1, 2}
    scene.run(3)
    assert told == [2, None, 2]
    consumer.pause()
    assert told[-1] is None
    consumer.resume()
    scene.run(0.5)
    scene.producer.pause()
    scene.producer.pause()
    assert told[3:] == [None, 2, None]


def test_too_much_rather_than_nothing() -> None:
    scene = Scene()
    scene.live = {2}
    viewer, consumer, told = scene.viewer(preferred_layers=Layers(0, 9))
    scene.run(1)
    assert told == [2]
    scene.live = {0, 1, 2}
    scene.run(6)
    assert told[-1] == 0
    assert frames(viewer, consumer)[-1][0] == 0


LAYERS = st.sets(st.integers(0, 2))
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("prefer"), st.integers(0, 3)),
        st.tuples(st.just("live"), LAYERS),
        st.tuples(st.just("run"), st.sampled_from((1, 3, 10, 60))),
        st.tuples(st.just("answers"), st.booleans()),
        st.tuples(st.just("pause"), st.booleans()),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(actions=ACTIONS, last=LAYERS.filter(bool), reports=st.booleans(), late=st.permutations((0.0, 0.03, 0.15)))
def test_any_course_of_events(actions: list[tuple[str, Any]], last: set[int], reports: bool, late: list[float]) -> None:
    """Numbers without a hole or repeat, timestamps never back, keyframes first, and the right layer in the end."""
    scene = Scene(reports=reports)
    scene.lateness = dict(enumerate(late))
    viewer, consumer, told = scene.viewer()
    for action, value in actions:
        match action:
            case "prefer":
                prefer(consumer, value)
            case "live":
                scene.live = set(value)
            case "run":
                for _ in range(value):
                    scene.step()
            case "answers":
                scene.answers = value
            case "pause":
                (consumer.pause if value else consumer.resume)()
    scene.live, scene.answers = last, True
    consumer.resume()
    scene.run(6)
    frames(viewer, consumer)
    below = [layer for layer in last if layer <= consumer.preferred.spatial]
    right = max(below) if below else min(last)
    assert frames(viewer, consumer)[-1][:2] == (right, scene.tick - 1)
    assert told[-1] == right
    assert all(before != after for before, after in pairwise(told))
    assert not viewer.faults
    assert not scene.sender.faults
