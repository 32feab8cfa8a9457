"""Volumes and the dominant speaker, from octets; and how incoming streams collect these."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.media_core import AUDIO_SSRC, AUDIO_TYPE, IDS, Call, audio, rtp, video
from trio_sfu.media.audio_levels import BLOCK_SECONDS, MAX_VOLUMES, THRESHOLD, AudioLevelObserver, Volume
from trio_sfu.media.capabilities import AUDIO_LEVEL_URI, MID_URI

SPEECH = (127,) + (25,) * 4 + (127,)  # octets of a block: a word, and the silence around it
NOISE = (55,) * 5
SILENCE = (127,) * 5
LEVEL = IDS[AUDIO_LEVEL_URI]


class Meeting:
    """An observer on a clock, and all that were dominant, in order."""

    def __init__(self) -> None:
        self.now = 50.0
        self.observer = AudioLevelObserver()
        self.dominant: list[str | None] = []

    def hear(self, seconds: float, **octets: Sequence[int]) -> None:
        """These producers' octets in each block of this time."""
        self.hear_blocks([octets] * round(seconds / BLOCK_SECONDS))

    def hear_blocks(self, blocks: Sequence[Mapping[str, Sequence[int]]]) -> None:
        for block in blocks:
            self.now += BLOCK_SECONDS
            self.observer.update(block, self.now)
            if not self.dominant or self.observer.dominant_speaker != self.dominant[-1]:
                self.dominant.append(self.observer.dominant_speaker)

    def volumes(self) -> dict[str, int]:
        return {each.producer_id: each.volume for each in self.observer.volumes}


# Volumes


@pytest.mark.parametrize(
    ("octets", "volume"),
    [
        ((0,), 0),
        ((30,), -30),
        ((0x80 | 30,), -30),  # the voice bit is none of the level
        ((20, 40), -30),
        ((20, 21, 21), -21),
        ((60,), THRESHOLD),
        ((61,), None),
        ((127,), None),
        ((), None),
    ],
)
def test_the_volume_is_the_mean_level(octets: tuple[int, ...], volume: int | None) -> None:
    meeting = Meeting()
    meeting.hear(0.3, a=octets)
    assert meeting.observer.volumes == (() if volume is None else (Volume("a", volume),))


def test_the_five_loudest_and_the_loudest_first() -> None:
    meeting = Meeting()
    levels = {"a": 40, "b": 10, "c": 59, "d": 20, "e": 40, "f": 50, "g": 70}
    meeting.hear(0.3, **{name: (level,) for name, level in levels.items()})
    assert list(meeting.volumes().items()) == [("b", -10), ("d", -20), ("a", -40), ("e", -40), ("f", -50)]
    assert len(meeting.observer.volumes) == MAX_VOLUMES


def test_volumes_are_of_one_interval() -> None:
    meeting = Meeting()
    for expected in ({}, {}, {"a": -20}, {"a": -20}, {"a": -20}, {"a": -40}):
        octet = 20 if meeting.now < 50.25 else 40
        meeting.hear(0.1, a=(octet,))
        assert meeting.volumes() == expected
    meeting.hear(0.3, a=())
    assert meeting.volumes() == {}


def test_an_update_tells_when_an_interval_is_over() -> None:
    observer = AudioLevelObserver()
    assert observer.due(0.0)
    told = []
    for tick in range(50):
        now = tick * 0.02
        if observer.due(now):
            told.append((round(now, 2), observer.update({}, now)))
    assert [now for now, complete in told if complete][:3] == [told[2][0], told[5][0], told[8][0]]
    assert len(told) >= 8


# Who is dominant


def test_nobody_is_dominant_before_somebody_has_spoken() -> None:
    meeting = Meeting()
    meeting.hear(5, a=SILENCE, b=NOISE, c=())
    assert meeting.dominant == [None]


def test_who_speaks_becomes_dominant_within_a_second_and_stays_so_in_silence() -> None:
    meeting = Meeting()
    meeting.hear(2, a=SILENCE, b=SILENCE)
    meeting.hear(0.6, a=SPEECH, b=SILENCE)
    assert meeting.dominant == [None, "a"]
    meeting.hear(600, a=SILENCE, b=SILENCE)
    assert meeting.dominant == [None, "a"]


def test_alone_it_takes_speech_too() -> None:
    meeting = Meeting()
    meeting.hear(3, a=NOISE)
    assert meeting.dominant == [None]
    meeting.hear(1, a=SPEECH)
    assert meeting.dominant == [None, "a"]


def test_a_conversation() -> None:
    meeting = Meeting()
    for _ in range(3):
        meeting.hear(3, a=SPEECH, b=SILENCE, c=NOISE)
        meeting.hear(3, a=SILENCE, b=SPEECH, c=NOISE)
    assert meeting.dominant == [None, "a", "b", "a", "b", "a", "b"]


@pytest.mark.parametrize("start", range(3))
@pytest.mark.parametrize("length", [1, 2])
def test_a_short_noise_changes_nothing(start: int, length: int) -> None:
    """Wherever in the interval it falls."""
    meeting = Meeting()
    meeting.hear(2, a=SPEECH, b=SILENCE)
    meeting.hear_blocks([{"a": SILENCE, "b": SILENCE}] * (20 + start))
    meeting.hear_blocks([{"a": SILENCE, "b": (0,) * 5}] * length)
    meeting.hear(2, a=SILENCE, b=SILENCE)
    assert meeting.dominant == [None, "a"]


def test_nobody_is_interrupted() -> None:
    meeting = Meeting()
    meeting.hear(2, a=SPEECH, b=SILENCE)
    meeting.hear(10, a=SPEECH, b=(0,) * 5)
    assert meeting.dominant == [None, "a"]
    meeting.hear(1, a=SILENCE, b=(0,) * 5)
    assert meeting.dominant == [None, "a", "b"]


def test_a_word_now_and_then_keeps_the_floor() -> None:
    """Where it falls on the decision, which is made at each third block."""
    meeting = Meeting()
    meeting.hear(2, a=SPEECH, b=SILENCE)
    meeting.hear_blocks([{"a": SPEECH, "b": SPEECH}, *[{"a": SILENCE, "b": SPEECH}] * 2] * 10)
    assert meeting.dominant == [None, "a"]
    meeting.hear(1, a=SILENCE, b=SPEECH)
    assert meeting.dominant == [None, "a", "b"]


def test_to_have_spoken_as_much_is_not_enough() -> None:
    meeting = Meeting()
    meeting.hear(2.5, a=SPEECH, b=SILENCE)
    meeting.hear(0.5, a=SILENCE, b=SPEECH)  # and this is when it is decided
    meeting.hear(1, a=SILENCE, b=SILENCE)
    assert meeting.dominant == [None, "a"]


@pytest.mark.parametrize("start", range(3))
def test_pauses_between_words_change_nothing(start: int) -> None:
    """Somebody who says yes to each sentence speaks less than the one who says the sentences."""
    meeting = Meeting()
    meeting.hear_blocks([{"a": SPEECH, "b": SILENCE}] * (9 + start))
    sentence = [{"a": SPEECH, "b": SILENCE}] * 8 + [{"a": SILENCE, "b": SPEECH}] * 3 + [{"a": SILENCE, "b": ()}]
    meeting.hear_blocks(sentence * 20)
    assert meeting.dominant == [None, "a"]


def test_of_two_who_begin_together_the_louder_one() -> None:
    for first, second, expected in (((30,), (20,), "b"), ((20,), (30,), "a"), ((0,), (20,), "a")):
        meeting = Meeting()
        meeting.hear(1, a=first * 5, b=second * 5)
        assert meeting.dominant == [None, expected]


@pytest.mark.parametrize(
    ("octet", "speaks"),
    [(0, True), (30, True), (31, False), (45, False), (47, False), (60, False), (127, False)],
)
def test_steady_sound_is_noise_unless_it_is_loud(octet: int, speaks: bool) -> None:
    meeting = Meeting()
    meeting.hear(60, a=(octet,) * 5)
    assert meeting.dominant == ([None, "a"] if speaks else [None])


@pytest.mark.parametrize(
    ("noise", "speech", "speaks"),
    [(127, 30, True), (90, 47, True), (90, 48, False), (57, 47, True), (50, 41, False), (50, 40, True)],
)
def test_speech_stands_out_from_the_noise(noise: int, speech: int, speaks: bool) -> None:
    meeting = Meeting()
    meeting.hear(60, a=(noise,) * 5)
    meeting.hear(1, a=(speech,) * 5)
    assert meeting.dominant == ([None, "a"] if speaks else [None])


def test_a_muted_track_is_no_quiet_place() -> None:
    meeting = Meeting()
    meeting.hear(60, a=(127, 40, 40, 40, 40))
    assert meeting.dominant == [None]


def test_the_noise_may_become_louder() -> None:
    """A fan is switched on. It is taken for speech, as long as quieter times are remembered."""
    meeting = Meeting()
    meeting.hear(10, fan=(80,) * 5, b=())
    meeting.hear(10, fan=(40,) * 5, b=())
    meeting.hear(1, fan=(40,) * 5, b=SPEECH)
    meeting.hear(20, fan=(40,) * 5, b=())
    assert meeting.dominant == [None, "fan"]
    meeting.hear(1, fan=(40,) * 5, b=SPEECH)
    assert meeting.dominant == [None, "fan", "b"]
    meeting.hear(10, fan=(40,) * 5, b=())
    assert meeting.dominant == [None, "fan", "b"]


# Packets that do not come


def test_dtx() -> None:
    """In silence a packet comes every 0.4 s, or none."""
    meeting = Meeting()
    meeting.hear(1, a=SPEECH, b=SPEECH[1:5])
    silence: dict[str, Sequence[int]] = {"a": (), "b": ()}
    comfort: list[dict[str, Sequence[int]]] = [{"a": (80,), "b": ()}, silence, silence, silence]
    first = meeting.observer.dominant_speaker
    meeting.hear_blocks(comfort * 5)
    assert meeting.observer.dominant_speaker == first
    assert meeting.volumes() == {}
    other = "b" if first == "a" else "a"
    meeting.hear(1, **{other: SPEECH, first or "": ()})
    assert meeting.observer.dominant_speaker == other


def test_who_falls_silent_without_a_packet_loses_to_who_speaks() -> None:
    meeting = Meeting()
    meeting.hear(2, a=SPEECH, b=())
    meeting.hear(1, a=(), b=SPEECH)
    assert meeting.dominant == [None, "a", "b"]


@pytest.mark.parametrize("blocks", [((20,), ()), ((20,) * 10, ()), ((20,), (20, 20))])
def test_long_packets_and_bursts(blocks: tuple[tuple[int, ...], ...]) -> None:
    meeting = Meeting()
    meeting.hear_blocks([{"a": block, "b": ()} for block in blocks * 10])
    assert meeting.dominant == [None, "a"]


def test_what_was_long_ago_does_not_count() -> None:
    """Updates stop while no transport is connected."""
    meeting = Meeting()
    meeting.hear(0.2, a=SPEECH)
    meeting.now += 60
    meeting.hear(0.1, a=SPEECH)
    meeting.hear(1, a=())
    assert meeting.dominant == [None]


def test_late_updates_are_longer_blocks() -> None:
    meeting = Meeting()
    for _ in range(12):
        meeting.now += 0.3  # a busy server; one block in three is known to be speech
        meeting.observer.update({"a": SPEECH * 3, "b": ()}, meeting.now + 0.1)
    assert meeting.observer.dominant_speaker == "a"


# Producers that go


def test_a_dominant_speaker_who_leaves() -> None:
    meeting = Meeting()
    meeting.hear(1, a=SPEECH, b=NOISE)
    assert meeting.volumes() == {"a": -59, "b": -55}
    meeting.observer.keep({"b"})
    assert meeting.observer.dominant_speaker is None
    assert meeting.volumes() == {"b": -55}
    meeting.hear(3, b=NOISE)
    assert meeting.dominant == [None, "a", None]


def test_who_speaks_follows_at_once_on_one_who_leaves() -> None:
    meeting = Meeting()
    meeting.hear(1, a=SPEECH, b=())
    meeting.hear(1, a=SPEECH, b=SPEECH)
    meeting.observer.keep(["b"])
    assert meeting.observer.dominant_speaker == "b"


def test_others_may_leave() -> None:
    meeting = Meeting()
    meeting.hear(1, a=SPEECH, b=SPEECH, c=())
    first = meeting.observer.dominant_speaker
    meeting.observer.keep([each for each in "abc" if each == first])
    assert meeting.observer.dominant_speaker == first
    assert list(meeting.volumes()) == [first]


def test_who_comes_back_begins_anew() -> None:
    meeting = Meeting()
    meeting.hear(1, a=SPEECH)
    meeting.hear(0.1)
    meeting.hear(0.2, a=SPEECH)
    assert meeting.dominant == [None, "a", None]
    meeting.hear(1, a=SPEECH)
    assert meeting.dominant == [None, "a", None, "a"]


_OCTETS = st.one_of(
    st.just(()), st.just(SPEECH), st.just(SILENCE), st.lists(st.integers(0, 255), max_size=8).map(tuple)
)
_STEP = st.tuples(
    st.dictionaries(st.sampled_from("abcdefgh"), _OCTETS),
    st.sampled_from((0.1, 0.1, 0.1, 0.12, 0.5, 5.0)),
    st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_STEP, max_size=60))
def test_only_producers_that_are_there_are_named(
    steps: list[tuple[dict[str, tuple[int, ...]], float, bool]],
) -> None:
    observer = AudioLevelObserver()
    now = 0.0
    for heard, passed, by_keep in steps:
        now += passed
        if by_keep:
            observer.keep(heard.keys())
        else:
            observer.update(heard, now)
        assert observer.dominant_speaker is None or observer.dominant_speaker in heard
        volumes = [each.volume for each in observer.volumes]
        assert {each.producer_id for each in observer.volumes} <= heard.keys()
        assert len(volumes) <= MAX_VOLUMES
        assert volumes == sorted(volumes, reverse=True)
        assert all(THRESHOLD <= volume <= 0 for volume in volumes)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(_OCTETS, _OCTETS, _OCTETS), max_size=80))
def test_a_new_speaker_has_spoken_more_than_the_old_one(
    blocks: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]],
) -> None:
    """And the old one is silent just now: nobody is named without having packets in the newest block."""
    meeting = Meeting()
    before: str | None = None
    for block in blocks:
        heard = dict(zip("abc", block, strict=True))
        meeting.hear_blocks([heard])
        after = meeting.observer.dominant_speaker
        if after != before:
            assert after is not None
            assert min(octet & 0x7F for octet in heard[after]) <= 47
            if before is not None:
                assert not heard[before] or any(octet & 0x7F > 30 for octet in heard[before])
        before = after


# Incoming streams


def _level(number: int, octet: int) -> bytes:
    return audio(number, extensions=((LEVEL, bytes((octet,))),))


def test_a_stream_collects_the_octets() -> None:
    call = Call()
    sender = call.session()
    stream = call.produce_audio(sender).streams[0]
    assert stream.take_audio_levels() == ()
    sender.feed(_level(1, 30), _level(2, 0x80 | 31), audio(3), _level(4, 32))
    assert stream.take_audio_levels() == (30, 0x80 | 31, 32)
    assert stream.take_audio_levels() == ()


def test_duplicates_and_other_payload_types_are_not_heard() -> None:
    call = Call()
    sender = call.session()
    stream = call.produce_audio(sender).streams[0]
    other = rtp(AUDIO_SSRC, 2, payload_type=AUDIO_TYPE + 1, extensions=((LEVEL, b"\x05"),))
    sender.feed(_level(1, 30), _level(1, 30), other)
    assert stream.take_audio_levels() == (30,)


def test_what_nobody_reads_is_bounded() -> None:
    call = Call()
    sender = call.session()
    stream = call.produce_audio(sender).streams[0]
    sender.feed(*(_level(number, number & 0x7F) for number in range(200)))
    assert stream.take_audio_levels() == tuple(number & 0x7F for number in range(150, 200))


def test_a_sender_that_restarts_is_heard_on() -> None:
    call = Call()
    sender = call.session()
    stream = call.produce_audio(sender).streams[0]
    sender.feed(_level(1, 30))
    sender.feed(_level(30001, 40), _level(30002, 41))
    assert stream.restarts == 1
    assert stream.take_audio_levels() == (30, 41)


def test_without_the_extension_nothing_is_heard() -> None:
    call = Call()
    sender = call.session()
    stream = call.produce_audio(sender, headerExtensions=[{"uri": MID_URI, "id": IDS[MID_URI]}]).streams[0]
    sender.feed(_level(1, 30))
    assert stream.take_audio_levels() == ()


def test_an_empty_element_says_nothing() -> None:
    call = Call()
    sender = call.session()
    stream = call.produce_audio(sender).streams[0]
    packet = bytearray(audio(1))
    packet[0] |= 0x10
    packet[12:12] = bytes((0x10, 0x00, 0, 1, LEVEL, 0, 0, 0))  # the two-byte form
    sender.feed(bytes(packet))
    assert stream.packets == 1
    assert stream.take_audio_levels() == ()
    assert not sender.faults


def test_video_has_no_level() -> None:
    call = Call()
    sender = call.session()
    extensions = [{"uri": AUDIO_LEVEL_URI, "id": LEVEL}]
    stream = call.produce_video(sender, headerExtensions=extensions).streams[0]
    sender.feed(video(1, key=True, extensions=((LEVEL, b"\x05"),)))
    assert stream.packets == 1
    assert stream.take_audio_levels() == ()
