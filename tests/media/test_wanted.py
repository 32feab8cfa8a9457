"""What senders are told: which streams of theirs anybody wants, and how much they may send in all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.media_core import Call, FakeSession, rtp, video, video_parameters
from trio_sfu.media.capabilities import TRANSPORT_CC_URI
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import Layers
from trio_sfu.wire.rtcp import Remb


class Scene:
    """A sender of three streams, and what it is told of them: (when, the highest one that is wanted)."""

    def __init__(self) -> None:
        self.call = Call()
        self.sender: FakeSession = self.call.session()
        self.producer = self.call.produce_video(self.sender, encodings=[{"ssrc": 100 + index} for index in range(3)])
        self.began = self.call.now
        self.told: list[tuple[float, int | None]] = []
        self.producer.on_wanted_change = lambda layer: self.told.append((self.call.now - self.began, layer))

    def viewer(self, spatial: int | None = None, *, paused: bool = False) -> Consumer:
        return self.call.router.consume(
            SimpleNamespace(session=self.call.session().session),
            self.producer,
            self.call.router.rtp_capabilities,
            paused=paused,
            preferred_layers=None if spatial is None else Layers(spatial, 9),
        )

    def layers(self) -> list[int | None]:
        return [layer for _, layer in self.told]

    def pass_time(self, seconds: float) -> list[int | None]:
        """Time goes by; what has been told in it."""
        before = len(self.told)
        self.call.pass_time(seconds)
        return self.layers()[before:]


def test_all_are_wanted_at_first_and_none_after_5_s_without_a_viewer() -> None:
    scene = Scene()
    assert scene.pass_time(4.9) == []
    assert scene.pass_time(2) == [None]
    assert 5 <= scene.told[-1][0] <= 6.1
    assert scene.pass_time(10) == []


def test_who_wants_everything_changes_nothing() -> None:
    scene = Scene()
    scene.viewer()
    assert scene.pass_time(20) == []


def test_less_when_it_has_lasted_and_more_at_once() -> None:
    scene = Scene()
    viewer = scene.viewer()
    scene.pass_time(3)
    viewer.set_preferred_layers(Layers(0, 9))
    assert scene.pass_time(4.9) == []
    assert scene.pass_time(1.2) == [0]
    viewer.set_preferred_layers(Layers(1, 9))
    assert scene.layers() == [0, 1]
    scene.viewer(2)
    assert scene.layers() == [0, 1, 2]


def test_a_short_change_is_not_told() -> None:
    scene = Scene()
    viewer = scene.viewer()
    scene.pass_time(1)
    for _ in range(5):
        viewer.set_preferred_layers(Layers(0, 9))
        assert scene.pass_time(3) == []
        viewer.set_preferred_layers(Layers(2, 9))
        assert scene.pass_time(1.5) == []


def test_the_highest_of_the_last_5_s_is_told() -> None:
    """What goes down in two steps: the second has not lasted yet."""
    scene = Scene()
    viewer = scene.viewer()
    scene.pass_time(1)
    viewer.set_preferred_layers(Layers(1, 9))
    scene.pass_time(4)
    viewer.close()
    assert scene.pass_time(3) == [1]
    assert scene.pass_time(6) == [None]


def test_paused_consumers_do_not_count() -> None:
    scene = Scene()
    low, high = scene.viewer(0), scene.viewer(2, paused=True)
    assert scene.pass_time(7) == [0]
    high.resume()
    assert scene.layers() == [0, 2]
    high.pause()
    assert scene.pass_time(7) == [0]
    low.close()
    assert scene.pass_time(7) == [None]
    high.resume()
    assert scene.layers()[-1] == 2


def test_bandwidth_is_not_what_is_wanted() -> None:
    scene = Scene()
    viewer = scene.viewer()
    viewer.set_limit(Layers(0, 9))
    assert scene.pass_time(10) == []


def test_a_producer_of_one_stream_is_told_nothing() -> None:
    call = Call()
    sender = call.session()
    producer = call.produce_video(sender)
    told: list[Any] = []
    producer.on_wanted_change = told.append
    call.consume(call.session(), producer).close()
    call.pass_time(10)
    assert told == []


# -- how much in all


class Uplink:
    """One producer, of which a packet comes each frame; the REMBs that go back."""

    def __init__(self, *, feedback: bool = True) -> None:
        self.call = Call()
        self.sender = self.call.session()
        parameters = video_parameters()
        if not feedback:
            parameters["headerExtensions"] = [
                each for each in parameters["headerExtensions"] if each["uri"] != TRANSPORT_CC_URI
            ]
        self.producer = self.call.produce(self.sender, "video", parameters)
        self.number = 0

    def run(self, seconds: float, *, lost: bool = False) -> list[int]:
        self.sender.sink.rtcp.clear()
        for _ in range(round(seconds / 0.02)):
            if not (lost and self.number % 3 == 1):
                self.sender.feed(video(self.number, payload=bytes((0x10, 1)) + bytes(1000)))
            self.number += 1
            self.call.pass_time(0.02)
        return [each.bitrate for each in self.sender.sink.take_rtcp() if isinstance(each, Remb)]


def said(bitrates: list[int], expected: int) -> bool:
    """REMB has 18 bits of mantissa."""
    return bool(bitrates) and all(abs(each - expected) <= expected / 100_000 for each in bitrates)


def test_a_limit_is_said_every_second_until_a_high_one_lifts_it() -> None:
    uplink = Uplink()
    assert uplink.run(3) == []
    uplink.sender.session.set_max_incoming_bitrate(300_000)
    assert said([each.bitrate for each in uplink.sender.sink.take_rtcp() if isinstance(each, Remb)], 300_000)
    again = uplink.run(5)
    assert len(again) == 5
    assert said(again, 300_000)
    uplink.sender.session.set_max_incoming_bitrate(None)
    assert said(uplink.run(3), 1_000_000_000)


def test_no_limit_is_not_said_where_there_was_none() -> None:
    uplink = Uplink()
    uplink.sender.session.set_max_incoming_bitrate(None)
    assert uplink.run(3) == []


@pytest.mark.parametrize(("most", "least"), [(200_000, True), (50_000_000, False)])
def test_with_an_estimate_of_ours_the_least_of_both(most: int, least: bool) -> None:
    uplink = Uplink(feedback=False)
    before = uplink.run(3)
    assert before
    uplink.sender.session.set_max_incoming_bitrate(most)
    after = uplink.run(3)
    assert said(after, most) == least
    assert max(after) <= most
    uplink.sender.session.set_max_incoming_bitrate(None)
    assert max(uplink.run(3)) < 50_000_000
    lossy = uplink.run(6, lost=True)
    assert lossy[-1] < lossy[0]


def test_streams_of_all_producers_are_named() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender, encodings=[{"ssrc": 100 + index} for index in range(3)])
    call.produce_audio(sender)
    sender.session.set_max_incoming_bitrate(1_000_000)
    sender.feed(rtp(100, 1))
    (remb,) = [each for each in sender.sink.take_rtcp() if isinstance(each, Remb)]
    assert len(remb.ssrcs) == 4
