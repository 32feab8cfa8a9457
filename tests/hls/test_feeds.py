"""Participants behind networks of all kinds: what FFmpeg gets is whole, on time, and together."""

from typing import Literal

import pytest

from tests.support.feed_scene import (
    FRAME_SECONDS,
    START,
    FeedScene,
    Participant,
    check_audio,
    check_numbers,
    check_video,
    longest_pause,
    most_behind,
    number_of,
)
from trio_sfu.hls.feed import Feed

# By then the reports of both streams have come.
SETTLED = 4.0


def check(scene: FeedScene, participant: Participant) -> tuple[list[int], list[int]]:
    """What holds whatever happens; returns the numbers of his frames and of his audio packets that went out."""
    video, audio = participant.video_out, participant.audio_out
    check_numbers(video)
    check_numbers(audio)
    shown = check_video(video)
    heard = check_audio(audio)
    assert longest_pause(video, scene.now) < 0.4
    assert longest_pause(audio, scene.now) < 0.2
    assert most_behind(video) < 0.65
    assert most_behind(audio) < 0.2
    for feed in participant.feeds:
        counters = feed.counters
        ours = counters.repeats + counters.silence + counters.cards * len(participant.video._card)
        assert counters.packets >= counters.frames + ours
    frames = [frame.number for frame in shown if frame.number is not None]
    assert len(frames) == participant.video.counters.frames
    assert len(heard) == participant.audio.counters.frames
    return frames, heard


def video_times(participant: Participant) -> dict[int, float]:
    """By frame number, the server time at which FFmpeg takes it to be, by the sender reports."""
    out = participant.video_out
    return {frame.number: out.server_time_of(frame.packet) for frame in check_video(out) if frame.number is not None}


def audio_times(participant: Participant) -> dict[int, float]:
    """Likewise for audio packets."""
    out = participant.audio_out
    return {number: out.server_time_of(packet) for packet in out.rtp if (number := number_of(packet)) is not None}


@pytest.mark.parametrize("seed", range(4))
def test_a_good_network_loses_nothing(seed: int) -> None:
    scene = FeedScene(seed)
    participant = scene.participant(skew=-500.0, delay=0.05, jitter=0.02, duplicates=0.05)
    scene.run(10.0)
    frames, heard = check(scene, participant)
    assert frames == list(range(frames[0], frames[-1] + 1))
    assert frames[0] < 3
    assert frames[-1] > 245
    # The estimate of the clock gets better in the first seconds; that may cost a few packets.
    assert len(heard) > 480
    assert participant.clock.delay == 0.0
    assert participant.video.counters.holes == participant.audio.counters.holes == 0


@pytest.mark.parametrize("repeater", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_bad_network(seed: int, repeater: bool) -> None:
    scene = FeedScene(seed)
    participant = scene.participant(
        skew=1e5, delay=0.03, jitter=0.12, loss=0.005 * (1 + seed), duplicates=0.1, repeater=repeater
    )
    scene.run(15.0)
    frames, heard = check(scene, participant)
    assert len(frames) > 100
    assert len(heard) > 500
    assert not participant.lost["video"] & set(frames)
    assert not participant.lost["audio"] & set(heard)
    assert participant.video.forwarded_keyframe


@pytest.mark.parametrize("seed", range(6))
def test_stops_of_all_kinds(seed: int) -> None:
    """Streams stop and come back by themselves, or by a pause."""
    scene = FeedScene(seed)
    participant = scene.participant(skew=-30.0, delay=0.04, jitter=0.05, loss=0.01)
    for _ in range(12):
        scene.run(3.0 * scene.random.random())
        kind: Literal["video", "audio"] = scene.random.choice(("video", "audio"))
        feed: Feed = participant.video if kind == "video" else participant.audio
        if kind not in participant.sends:
            participant.sends.add(kind)
            feed.resume(scene.now)
        else:
            participant.sends.discard(kind)
            if scene.random.random() < 0.5:
                feed.pause(scene.now)
    for each in participant.feeds:
        each.resume(scene.now)
    participant.sends |= {"video", "audio"}
    scene.run(4.0)
    frames, heard = check(scene, participant)
    # All is well again at the end.
    assert frames[-1] * FRAME_SECONDS > scene.now - START - 0.6
    assert heard[-1] * 0.02 > scene.now - START - 0.3


@pytest.mark.parametrize("skew", [0.0, 240.0, -3600.0])
@pytest.mark.parametrize("jitter", [0.0, 0.04])
@pytest.mark.parametrize("seed", range(2))
def test_audio_and_video_are_together(seed: int, jitter: float, skew: float) -> None:
    scene = FeedScene(seed)
    participant = scene.participant(skew=skew, delay=0.05, jitter=jitter)
    scene.run(20.0)
    check(scene, participant)
    video, audio = video_times(participant), audio_times(participant)
    first = round(SETTLED / FRAME_SECONDS)
    pairs = [(video[number], audio[2 * number]) for number in video if number >= first and 2 * number in audio]
    assert len(pairs) > 350
    assert max(abs(one - other) for one, other in pairs) < 0.015


def test_audio_and_video_are_together_behind_a_network_that_gets_worse() -> None:
    """He is put later as a whole."""
    scene = FeedScene(3)
    participant = scene.participant(skew=77.0, delay=0.03, jitter=0.25)
    scene.run(40.0)
    check(scene, participant)
    assert participant.clock.delay > 0.02
    video, audio = video_times(participant), audio_times(participant)
    late = [number for number in video if number * FRAME_SECONDS > 35 and 2 * number in audio]
    together = [number for number in late if abs(video[number] - audio[2 * number]) < 0.015]
    # A frame that waited for another one to arrive may be clamped behind a repeat.
    assert len(together) > 0.8 * len(late) > 50


@pytest.mark.parametrize("seed", range(3))
def test_participants_with_different_clocks_are_together(seed: int) -> None:
    """What happened at one time is shown at one time, but for what the network takes."""
    scene = FeedScene(seed)
    people = [
        scene.participant(skew=skew, delay=delay, jitter=0.03)
        for skew, delay in ((0.0, 0.01), (90.0, 0.04), (-7200.0, 0.08))
    ]
    scene.run(12.0)
    for participant in people:
        check(scene, participant)
        for number, time in video_times(participant).items():
            if number * FRAME_SECONDS >= SETTLED:
                taken = time - START - number * FRAME_SECONDS
                assert participant.path.delay - 0.001 < taken < participant.path.delay + 0.02


def test_without_any_report() -> None:
    """The order and the rhythm stay; how far audio and video are apart depends on what came first."""
    scene = FeedScene(1)
    participant = scene.participant(delay=0.05, jitter=0.03)
    participant.sends.discard("reports")
    scene.run(10.0)
    check(scene, participant)
    video, audio = video_times(participant), audio_times(participant)
    apart = [video[number] - audio[2 * number] for number in video if number > 100 and 2 * number in audio]
    assert len(apart) > 130
    assert all(abs(each) < 0.04 for each in apart)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_numbers_that_wrap_on_both_sides(kind: str) -> None:
    scene = FeedScene(5)
    participant = scene.participant(delay=0.02, jitter=0.05, loss=0.002)
    feed = participant.video if kind == "video" else participant.audio
    participant._number[kind] = 0xFFFF
    participant._base[kind] = 0xFFFFFF00
    feed._number = 0xFFF0
    scene.run(8.0)
    check(scene, participant)
    out = participant.video_out if kind == "video" else participant.audio_out
    assert out.rtp[0].sequence_number > out.rtp[-1].sequence_number
