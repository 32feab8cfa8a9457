"""Scores: mediasoup's formula, and who is told when one changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.media_core import VIDEO_SSRC, Call, FakeSession, rtp, rtx, video
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.producer import Producer
from trio_sfu.media.score import BEST, StreamScore, interval_score
from trio_sfu.wire.rtcp import GenericNack, ReceiverReport, ReportBlock

STEP = 0.02


# -- the formula, as RtpStreamRecv.cpp and RtpStreamSend.cpp have it


@pytest.mark.parametrize(
    ("received", "lost", "repaired", "retransmitted", "score"),
    [
        (100, 0, 0, 0, 10),
        (99, 1, 0, 0, 10),  # (98/99)^4
        (95, 5, 0, 0, 8),  # (90/95)^4
        (90, 10, 0, 0, 6),  # (80/90)^4
        (80, 20, 0, 0, 3),
        (50, 50, 0, 0, 0),
        (10, 90, 0, 0, 0),  # no more is lost than has come
        (90, 10, 10, 10, 9),  # the weight is (1/(1+1/9))^4
        (90, 10, 10, 20, 7),  # half of what was sent again was in vain
        (90, 10, 5, 5, 8),
        (80, 20, 20, 20, 5),
        (90, 0, 10, 10, 10),  # late, and not lost in this interval
        (90, 5, 10, 10, 9),
        (90, -3, 0, 0, 10),  # duplicates
        (90, 10, 0, 30, 6),
        (0, 5, 0, 0, 0),
        (0, 0, 0, 0, 0),
    ],
)
def test_an_interval(received: int, lost: int, repaired: int, retransmitted: int, score: int) -> None:
    assert interval_score(received, lost, repaired, retransmitted) == score


def test_halves_are_rounded_up_as_in_c() -> None:
    score = StreamScore()
    score.update(95, 15, 0, 0)
    score.update(195, 115, 0, 0)
    score.update(295, 215, 0, 0)
    score.update(390, 230, 0, 0)  # (5 + 4 * 5) / 10 = 2.5
    assert score.value == 3


def test_the_mean_of_24_intervals_the_newer_the_weightier() -> None:
    score = StreamScore()
    packets = lost = 0
    for _ in range(24):
        packets += 100
        assert not score.update(packets, lost, 0, 0)
    values = []
    for _ in range(24):
        packets += 100
        lost += 100
        score.update(packets, lost, 0, 0)
        values.append(score.value)
    weights = range(1, 25)
    expected = [int(10 * sum(weights[: 23 - bad]) / 300 + 0.5) for bad in range(24)]
    assert values == expected
    assert values[-1] == 0


def test_nothing_is_0_at_once_and_back_is_back() -> None:
    score = StreamScore()
    for _ in range(5):
        score.update(100, 0, 0, 0)
        assert score.value in (BEST, 0)
    assert score.value == 0
    assert not score.update(100, 0, 0, 0)
    assert score.update(150, 0, 0, 0)
    assert score.value == BEST


# -- who is told


class Scene:
    """A sender of 50 packets a second, a viewer; what they are told of scores."""

    def __init__(self, **parameters: Any) -> None:
        self.call = Call()
        self.sender: FakeSession = self.call.session()
        self.viewer: FakeSession = self.call.session()
        self.producer: Producer = self.call.produce_video(self.sender, **parameters)
        self.number = 0
        self.repair = 0
        self.produced: list[int] = []
        self.producer.on_scores_change = lambda: self.produced.append(self.producer.streams[0].score.value)
        self.send(key=True)
        self.consumer: Consumer = self.call.consume(self.viewer, self.producer)
        self.consumed: list[tuple[int, int]] = []
        self.consumer.on_score_change = self._on_score

    def _on_score(self) -> None:
        assert self.consumer.stream is not None
        self.consumed.append((self.consumer.score.value, self.consumer.stream.score.value))

    def send(self, *, key: bool = False, lost: bool = False, repaired: bool = False) -> None:
        packet = video(self.number, key=key)
        self.number += 1
        if not lost:
            self.sender.feed(packet)
        self.call.pass_time(STEP)
        if repaired:
            self.sender.feed(video(self.number, key=key))
            self.number += 1
            self.sender.feed(rtx(self.repair, packet))
            self.repair += 1

    def run(self, seconds: float, *, every: int = 0, repaired: bool = False) -> None:
        for at in range(round(seconds / STEP)):
            bad = bool(every and at % every == every - 1)
            self.send(lost=bad, key=at % 10 == 0, repaired=bad and repaired)


def test_a_good_stream_tells_nothing() -> None:
    scene = Scene()
    scene.run(5)
    assert scene.produced == []
    assert scene.consumed == []


def test_what_is_lost_is_told_to_both() -> None:
    scene = Scene()
    scene.run(2)
    scene.run(5, every=10)
    assert scene.produced[-1] in (6, 7)
    assert scene.produced == sorted(scene.produced, reverse=True)
    # Nothing of it is lost on the viewer's side.
    assert scene.consumed[-1] == (10, scene.produced[-1])


def test_what_is_repaired_counts_a_little() -> None:
    """One of ten is repaired: 0.9 received, 0.1 lost and repaired is mediasoup's 9."""
    scene = Scene()
    scene.run(10, every=10, repaired=True)
    assert scene.producer.streams[0].repaired > 40
    assert scene.producer.streams[0].score.value == 9


def test_nothing_comes_and_it_is_back() -> None:
    scene = Scene()
    scene.run(3)
    scene.call.pass_time(3)
    assert scene.produced == [0]
    assert scene.consumed[-1] == (0, 0)
    scene.run(3)
    assert scene.produced == [0, 10]
    assert scene.consumed[-1] == (10, 10)


def test_the_viewers_loss_is_the_consumers() -> None:
    scene = Scene()
    scene.run(2)
    for second in range(6):
        lost = 5 * second
        block = ReportBlock(scene.consumer.ssrc, 25, lost, 0, 0, 0, 0)
        scene.viewer.feed_rtcp(ReceiverReport(1, (block,)))
        scene.run(1)
    assert 5 <= scene.consumer.score.value <= 8
    assert scene.produced == []
    assert scene.consumed[-1] == (scene.consumer.score.value, 10)


def test_what_the_viewer_gets_again_counts_a_little_and_probes_do_not() -> None:
    scene = Scene()
    scene.run(2)
    lost = 0
    for _ in range(12):
        sent = scene.viewer.sink.of(scene.consumer.ssrc)
        for packet in sent[-50::10]:
            scene.viewer.feed_rtcp(GenericNack(1, scene.consumer.ssrc, (packet.sequence_number,)))
            lost += 1
        assert scene.consumer.probe(2000, scene.call.now) >= 2000
        scene.viewer.feed_rtcp(ReceiverReport(1, (ReportBlock(scene.consumer.ssrc, 25, lost, 0, 0, 0, 0),)))
        scene.run(1)
    assert scene.consumer.repaired == scene.consumer.retransmitted == lost
    assert scene.consumer.score.value == 9


def test_a_paused_producer_keeps_its_score() -> None:
    scene = Scene()
    scene.run(2)
    scene.producer.pause()
    scene.call.pass_time(5)
    assert scene.produced == []
    assert scene.consumed == []
    scene.producer.resume()
    scene.send(key=True)
    scene.run(3)
    assert scene.produced == []
    assert scene.consumed == []


def test_of_another_source_nothing_is_known() -> None:
    scene = Scene()
    scene.sender.feed(rtp(VIDEO_SSRC + 5, 1))
    scene.run(2)
    assert scene.produced == []
