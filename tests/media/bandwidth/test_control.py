"""Estimate, allocation and consumers together: what a viewer gets of several senders over a simulated link."""

from __future__ import annotations

import pytest

from tests.support.bandwidth_link import Link
from tests.support.layered_sender import LayeredSender
from tests.support.limited_viewer import RATES, LimitedViewer, Scene, VideoSender, capabilities_for
from tests.support.media_core import Call, FakeSession, Sent
from trio_sfu.media.bandwidth.control import BandwidthControl
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.wire.rtcp import GenericNack, PictureLossIndication

Told = list[Layers | None]


def listen(consumer: Consumer) -> Told:
    told: Told = []
    consumer.on_layers_change = told.append
    return told


def stream_of(packet: Sent) -> int:
    """Which stream of the sender's a packet is from."""
    return packet.payload[2]


def starts_with_key(packets: list[Sent]) -> bool:
    return packets[0].payload[0] & 0x10 != 0 and packets[0].payload[1] & 1 == 0


def rate(packets: list[Sent], seconds: float) -> float:
    return sum(packet.size for packet in packets) * 8 / seconds


def bandwidth(viewer: LimitedViewer) -> BandwidthControl:
    assert viewer.session.session.bandwidth is not None
    return viewer.session.session.bandwidth


# -- one video


def test_a_narrow_path_gets_the_lower_stream_and_a_wide_one_the_best() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(400_000)
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    told = listen(consumer)
    scene.run(8)
    now = scene.call.now
    scene.run(4)
    assert {stream_of(packet) for packet in viewer.between(now, consumer)} == {1}
    assert told[-1] == Layers(1, 0)
    assert 300_000 < (bandwidth(viewer).estimator.bitrate or 0) < 440_000
    viewer.link.rate = 3_000_000
    scene.run(15)
    now = scene.call.now
    scene.run(1)
    assert told[-1] == Layers(2, 0)
    assert consumer.limit == EVERYTHING
    assert {stream_of(packet) for packet in viewer.between(now, consumer)} == {2}


def test_who_comes_begins_with_what_fits() -> None:
    scene = Scene()
    sender, viewer = scene.sender((80_000, 240_000, 2_000_000)), scene.viewer(400_000)
    viewer.consume(scene.speaker())
    scene.run(3.1)
    sender.key_wanted.add(2)
    sender.frame()
    consumer = viewer.consume(sender.producer)
    scene.run(3)
    assert {stream_of(packet) for packet in viewer.session.sink.of(consumer.ssrc)} == {1}


def test_who_connects_begins_with_what_fits() -> None:
    scene = Scene()
    sender = scene.sender((80_000, 240_000, 2_000_000))
    scene.run(3)
    late = FakeSession(scene.call, connected=False)
    viewer = scene.viewer(400_000)
    viewer.session = late
    consumer = viewer.consume(sender.producer)
    scene.run(1)
    sender.key_wanted.add(2)
    sender.frame()
    late.connect()
    scene.run(3)
    assert {stream_of(packet) for packet in late.sink.of(consumer.ssrc)} == {1}


def test_probes_are_packets_sent_again_and_are_reported() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(None)
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    scene.run(6)
    assert consumer.rtx_ssrc is not None
    probes = viewer.session.sink.of(consumer.rtx_ssrc)
    assert probes
    assert consumer.retransmitted == 0
    by_number = {packet.sequence_number: packet for packet in viewer.session.sink.of(consumer.ssrc)}
    for probe in probes:
        original = by_number[int.from_bytes(probe.payload[:2], "big")]
        assert probe.payload[2:] == original.payload
        assert probe.timestamp == original.timestamp
    numbers = [packet.sequence_number for packet in probes]
    assert [number - numbers[0] & 0xFFFF for number in numbers] == list(range(len(numbers)))
    # They have shown that the path carries more than the 600 kb/s to begin with, and than what was sent.
    assert (bandwidth(viewer).estimator.bitrate or 0) > 1.15 * RATES[2]
    assert consumer.limit == EVERYTHING
    before = len(viewer.session.sink.of(consumer.rtx_ssrc))
    scene.run(5)
    assert len(viewer.session.sink.of(consumer.rtx_ssrc)) == before  # more is not needed


def test_temporal_layers_of_one_stream_are_options() -> None:
    """Of a plain producer, too: its packets tell."""
    sender = LayeredSender("VP8")
    viewer = LimitedViewer(sender.call, Link(), "nothing")
    consumer = viewer.consume(sender.producer)
    for _ in range(100):
        sender.step()
        viewer.step()
    rates = [each for _, each in consumer.options(sender.call.now)]
    assert [layers for layers, _ in consumer.options(sender.call.now)] == [Layers(0, at) for at in range(3)]
    assert rates[0] * 3 < rates[2]
    consumer.set_limit(Layers(0, 0))
    for _ in range(20):
        sender.step()
    before = len(viewer.session.sink.of(consumer.ssrc))
    for _ in range(40):
        sender.step()
    assert len(viewer.session.sink.of(consumer.ssrc)) - before == 40 / 4 * 2


# -- a full path


def test_at_once_stops_what_goes_out_and_nothing_of_it_is_sent_again() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(None, "nothing")
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    scene.run(8)
    assert consumer.rtx_ssrc is not None
    sender.key_wanted.clear()
    old = viewer.session.sink.of(consumer.ssrc)
    assert stream_of(old[-1]) == 2
    consumer.set_limit(Layers(0, 0), at_once=True)
    scene.senders[0].silent = True  # before its keyframe
    scene.run(0.04)
    sender.key_wanted.discard(0)
    sender.silent = False
    sender.frame()  # still of no use
    assert viewer.session.sink.of(consumer.ssrc) == old
    again = len(viewer.session.sink.of(consumer.rtx_ssrc))
    viewer.session.feed_rtcp(GenericNack(1, consumer.ssrc, tuple(packet.sequence_number for packet in old[-20:])))
    assert consumer.probe(5000, scene.call.now) == 0
    assert len(viewer.session.sink.of(consumer.rtx_ssrc)) == again
    sender.key_wanted.add(0)
    scene.run(1)
    new = viewer.session.sink.of(consumer.ssrc)[len(old) :]
    assert {stream_of(packet) for packet in new} == {0}
    assert starts_with_key(new)
    assert new[0].sequence_number - old[-1].sequence_number & 0xFFFF == 1
    viewer.session.feed_rtcp(GenericNack(1, consumer.ssrc, tuple(packet.sequence_number for packet in old[-20:])))
    assert len(viewer.session.sink.of(consumer.rtx_ssrc)) == again
    viewer.session.feed_rtcp(GenericNack(1, consumer.ssrc, (new[-1].sequence_number,)))
    assert len(viewer.session.sink.of(consumer.rtx_ssrc)) == again + 1


def test_at_once_and_back_before_the_keyframe() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(None, "nothing")
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    scene.run(8)
    count = len(viewer.session.sink.of(consumer.ssrc))
    consumer.set_limit(Layers(0, 0), at_once=True)
    consumer.set_limit(EVERYTHING)
    scene.run(2)
    sent = viewer.session.sink.of(consumer.ssrc)
    assert {stream_of(packet) for packet in sent[count:]} == {2}
    assert starts_with_key(sent[count:])
    numbers = [packet.sequence_number for packet in sent]
    assert [number - numbers[0] & 0xFFFF for number in numbers] == list(range(len(numbers)))


def test_repairs_take_a_share_of_the_estimate() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(400_000)
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    scene.run(8)
    assert consumer.rtx_ssrc is not None
    estimate = bandwidth(viewer).estimator.bitrate
    assert estimate is not None
    before = viewer.session.session.traffic.rtx_sent
    probed = consumer.retransmitted
    for _ in range(100):  # everything that was sent in the last second is said to be missing, all the time
        lost = tuple(packet.sequence_number for packet in viewer.session.sink.of(consumer.ssrc)[-40:])
        viewer.session.feed_rtcp(GenericNack(1, consumer.ssrc, lost))
        viewer.session.feed_rtcp(GenericNack(1, consumer.ssrc, lost))
        scene.run(0.02)
    again = (viewer.session.session.traffic.rtx_sent - before) * 8
    assert consumer.retransmitted > probed
    assert 0.15 * estimate * 2 < again < 0.35 * estimate * 2 + 20_000 * 8


def test_without_an_estimate_repairs_are_not_bounded_by_it() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(None, "nothing")
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    scene.run(2)
    lost = tuple(packet.sequence_number for packet in viewer.session.sink.of(consumer.ssrc)[-60:])
    viewer.session.feed_rtcp(GenericNack(1, consumer.ssrc, lost))
    assert consumer.retransmitted == 60
    control = BandwidthControl()
    assert all(control.may_repair(100_000, now) for now in range(10))


# -- who tells nothing, and who tells by REMB


def test_who_tells_nothing_is_never_limited() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(100_000, "nothing")
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    told = listen(consumer)
    scene.run(10)
    assert told == [Layers(2, 0)]
    assert consumer.limit == EVERYTHING
    assert viewer.session.session.bandwidth is None
    assert viewer.session.session.traffic.rtx_sent == 0


def test_who_promises_feedback_and_sends_none_is_limited_to_the_start_only() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(None)
    viewer.answers = "nothing"
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    scene.run(4)
    assert consumer.limit == Layers(1, 0)
    scene.run(4)
    assert consumer.limit == EVERYTHING


def test_remb_is_heeded_and_probes_are_no_longer_than_asked_for() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(400_000, "goog-remb")
    scene.run(1.5)
    consumer = viewer.consume(sender.producer)
    told = listen(consumer)
    assert consumer.rtx_ssrc is not None
    scene.run(1)
    most = 0.0
    for _ in range(100):
        estimate = bandwidth(viewer).estimator.bitrate or 0
        before = viewer.session.session.traffic
        sent = before.rtp_sent + before.rtx_sent
        rtx = before.rtx_sent
        scene.run(0.1)
        after = viewer.session.session.traffic
        if after.rtx_sent > rtx:
            most = max(most, (after.rtp_sent + after.rtx_sent - sent) * 80 / estimate)
    assert told[-1] in (Layers(0, 0), Layers(1, 0))
    assert 1.2 < most <= 3.1  # a probe aims at three times the estimate at most
    assert consumer.limit != EVERYTHING


def test_a_consumer_without_numbers_beside_one_with() -> None:
    """Probes are made of what is reported, whoever comes first; the other is limited together with it."""
    scene = Scene()
    mute, numbered = scene.sender(), scene.sender()
    viewer = scene.viewer(None)
    scene.run(1.5)
    first = viewer.consume(mute.producer, capabilities_for(scene.call, "nothing"))
    second = viewer.consume(numbered.producer)
    assert not first.counted
    assert second.counted
    scene.run(12)
    assert first.rtx_ssrc is not None
    assert second.rtx_ssrc is not None
    assert not viewer.session.sink.of(first.rtx_ssrc)
    assert viewer.session.sink.of(second.rtx_ssrc)
    assert first.limit == second.limit == EVERYTHING
    viewer.link.rate = 500_000
    scene.run(10)
    assert first.limit != EVERYTHING
    assert second.limit != EVERYTHING


# -- several


@pytest.mark.parametrize("turned", [False, True])
def test_priority(turned: bool) -> None:
    scene = Scene()
    senders = [scene.sender(), scene.sender()]
    viewer = scene.viewer(550_000)
    scene.run(1.5)
    consumers = [viewer.consume(sender.producer) for sender in senders]
    favoured = consumers[turned]
    favoured.priority = 100
    scene.run(10)
    low = consumers[not turned]
    assert favoured.limit == Layers(1, 0)
    assert low.limit == Layers(0, 0)
    favoured.priority, low.priority = 1, 100
    scene.run(12)
    assert low.limit == Layers(1, 0)
    assert favoured.limit == Layers(0, 0)


def narrow_call() -> tuple[Scene, LimitedViewer, list[VideoSender], list[Consumer], list[Told]]:
    """Two plain videos of 300 kb/s on a link that carries one, now."""
    scene = Scene()
    senders = [scene.sender((300_000,)), scene.sender((300_000,))]
    viewer = scene.viewer(2_000_000)
    scene.run(1.5)
    consumers = [viewer.consume(sender.producer) for sender in senders]
    told = [listen(consumer) for consumer in consumers]
    consumers[0].priority = 10
    scene.run(6)
    for each in told:
        each.clear()
    viewer.link.rate = 450_000
    scene.run(8)
    return scene, viewer, senders, consumers, told


def test_a_plain_video_for_which_nothing_is_left_stops_and_comes_back_with_a_keyframe() -> None:
    scene, viewer, senders, consumers, told = narrow_call()
    assert told == [[], [None]]
    assert consumers[1].limit is None
    before = viewer.session.sink.of(consumers[1].ssrc)
    senders[1].key_wanted.add(0)  # somebody else wants one
    senders[1].requests.clear()
    viewer.session.feed_rtcp(PictureLossIndication(1, consumers[1].ssrc))
    scene.run(4)
    assert viewer.session.sink.of(consumers[1].ssrc) == before
    assert senders[1].requests == []  # nor is a keyframe asked for that nobody would get
    viewer.link.rate = 2_000_000
    scene.run(20)
    assert told == [[], [None, Layers(0, 0)]]
    after = viewer.session.sink.of(consumers[1].ssrc)[len(before) :]
    assert starts_with_key(after)
    assert after[0].sequence_number - before[-1].sequence_number & 0xFFFF == 1


def test_closing_one_gives_its_share_to_the_other() -> None:
    scene, viewer, _, consumers, told = narrow_call()
    consumers[0].close()
    scene.run(8)
    assert told[1] == [None, Layers(0, 0)]
    now = scene.call.now
    scene.run(1)
    assert rate(viewer.between(now, consumers[1]), 1) > 250_000
    consumers[1].close()
    scene.run(1)


@pytest.mark.parametrize("what", ["consumer", "producer"])
def test_who_is_paused_takes_no_share(what: str) -> None:
    scene, viewer, senders, consumers, told = narrow_call()
    paused = consumers[0] if what == "consumer" else senders[0].producer
    paused.pause()
    scene.run(8)
    assert told[1] == [None, Layers(0, 0)]
    paused.resume()
    scene.run(8)
    assert told[1] == [None, Layers(0, 0), None]
    now = scene.call.now
    scene.run(1)
    assert rate(viewer.between(now, consumers[0]), 1) > 250_000
    assert viewer.between(now, consumers[1]) == []


def test_who_is_paused_while_held_is_not_served_and_served_after() -> None:
    scene, viewer, senders, consumers, _ = narrow_call()
    consumers[1].pause()
    viewer.link.rate = 3_000_000
    count = len(viewer.session.sink.of(consumers[1].ssrc))
    scene.run(15)
    assert len(viewer.session.sink.of(consumers[1].ssrc)) == count
    consumers[1].resume()
    scene.run(8)
    assert starts_with_key(viewer.session.sink.of(consumers[1].ssrc)[count:])
    assert senders[1].requests


def test_audio_is_never_touched() -> None:
    scene = Scene()
    sender, viewer = scene.sender(), scene.viewer(70_000, queue=5.0)
    speaker = scene.speaker()
    scene.run(1.5)
    voice = viewer.consume(speaker)
    listen_to_video = listen(viewer.consume(sender.producer))
    told = listen(voice)
    begun = len(viewer.session.sink.of(voice.ssrc))
    scene.run(10)
    assert voice.limit == EVERYTHING
    assert told == []
    assert len(viewer.session.sink.of(voice.ssrc)) - begun >= 10 / 0.02 - 5
    assert listen_to_video[-1] in (Layers(0, 0), None)


def test_of_what_is_not_preferred_nothing_is_claimed() -> None:
    """Who wants little of one leaves the rest to the other."""
    scene = Scene()
    senders = [scene.sender(), scene.sender()]
    viewer = scene.viewer(1_400_000)
    scene.run(1.5)
    small = viewer.consume(senders[0].producer, preferred=Layers(0, 9))
    large = viewer.consume(senders[1].producer)
    scene.run(12)
    assert large.limit == small.limit == EVERYTHING
    now = scene.call.now
    scene.run(1)
    assert {stream_of(packet) for packet in viewer.between(now, small)} == {0}
    assert {stream_of(packet) for packet in viewer.between(now, large)} == {2}


def test_a_control_without_consumers_has_nothing_to_do() -> None:
    call = Call()
    control = BandwidthControl()
    for _ in range(10):
        control.tick((), call.now)
        call.now += 0.02
    assert control.estimator.bitrate is None
