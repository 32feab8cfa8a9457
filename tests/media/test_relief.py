"""Which video goes first under overload: layers, then whole videos, in whole frames; sound stays."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.media_core import Call, FakeSession, audio, video, video_payload
from tests.support.simulcast_sender import SimulcastSender
from tests.support.simulcast_sender import Viewer as SimulcastViewer
from trio_sfu.media.bandwidth.control import _current
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.media.producer import Producer
from trio_sfu.media.relief import Video, divide
from trio_sfu.wire.rtcp import GenericNack, PictureLossIndication

# -- the decision


def test_the_highest_layers_go_before_any_video() -> None:
    videos = [Video((100, 200, 400))] * 3
    assert divide(1.0, videos) == [3, 3, 3]
    assert divide(0.7, videos) == [3, 2, 2]
    assert divide(0.5, videos) == [2, 2, 2]
    assert divide(0.25, videos) == [1, 1, 1]
    assert divide(0.2, videos) == [1, 1, 0]
    assert divide(0.0, videos) == [0, 0, 0]


def test_the_lowest_priority_goes_first() -> None:
    videos = [Video((100,)), Video((100,), priority=3), Video((100,), priority=2)]
    assert divide(0.7, videos) == [0, 1, 1]
    assert divide(0.4, videos) == [0, 1, 0]


def test_every_viewer_keeps_the_first_of_theirs() -> None:
    videos = [Video((100,), place=place) for _ in range(2) for place in range(2)]
    assert divide(0.5, videos) == [1, 0, 1, 0]


def test_many_small_rooms_keep_what_they_should_together() -> None:
    videos = [Video((100,)), Video((100,))]
    for keep in (0.1, 0.3, 0.7, 0.95):
        rooms = [divide(keep, videos, luck / 100) for luck in range(100)]
        kept = sum(map(sum, rooms))
        assert kept / 200 == pytest.approx(keep, abs=0.02)


@given(
    st.floats(0, 1),
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 10**6), min_size=1, max_size=5, unique=True).map(sorted), st.integers(1, 255)
        ),
        max_size=20,
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_never_much_more_than_is_to_be_kept(keep: float, offers: Sequence[tuple[list[int], int]], luck: float) -> None:
    videos = [Video(tuple(options), priority) for options, priority in offers]
    chosen = divide(keep, videos, luck)
    out = sum(video.options[rank - 1] for video, rank in zip(videos, chosen, strict=True) if rank)
    largest = max((video.options[-1] for video in videos), default=0)
    assert out <= keep * sum(video.options[-1] for video in videos) + luck * largest + 1e-6


# -- in a room


@dataclass
class Viewer:
    session: FakeSession
    seen: Consumer
    heard: Consumer

    def marks(self) -> list[tuple[int, bool]]:
        """Timestamps and markers of the video that has gone out."""
        return [(packet.timestamp, packet.marker) for packet in self.session.sink.of(self.seen.ssrc)]

    def whole_frames(self) -> int:
        """How many; none may have come in part, nor may a number be missing."""
        packets = self.session.sink.of(self.seen.ssrc)
        numbers = [packet.sequence_number for packet in packets]
        assert numbers == [numbers[0] + at & 0xFFFF for at in range(len(numbers))]
        frames: dict[int, list[bool]] = {}
        for packet in packets:
            frames.setdefault(packet.timestamp, []).append(packet.marker)
        assert all(markers == [False, False, True] for markers in frames.values())
        return len(frames)


class Room:
    """A sender of frames of three packets and of sound, and viewers of both."""

    def __init__(self, viewers: int) -> None:
        self.call = Call()
        self.overload = self.call.router._overload
        self.sender = self.call.session()
        self.video: Producer = self.call.produce_video(self.sender)
        self.audio: Producer = self.call.produce_audio(self.sender)
        self.viewers = [self._join() for _ in range(viewers)]
        self.call.pass_time(0.06)
        self.frame = 0
        self.sound = 0
        self.requests = 0
        self.run(1.2)

    def _join(self) -> Viewer:
        session = self.call.session()
        return Viewer(session, self.call.consume(session, self.video), self.call.consume(session, self.audio))

    def packets(self, *, key: bool) -> list[bytes]:
        self.frame += 1
        return [
            video(
                3 * self.frame + part,
                3000 * self.frame,
                payload=video_payload(f"{self.frame}", key=key, first=part == 0) + bytes(500),
                marker=part == 2,
            )
            for part in range(3)
        ]

    def run(self, seconds: float, *, split: bool = False) -> None:
        """``split``: each frame's packets come in two batches, with time between them."""
        for _ in range(round(seconds / 0.04)):
            asked = [isinstance(item, PictureLossIndication) for item in self.sender.sink.take_rtcp()]
            self.requests += sum(asked)
            self.sound += 1
            self.sender.feed(audio(self.sound))
            packets = self.packets(key=any(asked) or self.frame == 0)
            self.sender.feed(*packets[: 1 if split else 3])
            self.call.pass_time(0.02)
            if split:
                self.sender.feed(*packets[1:])
            self.call.pass_time(0.02)

    def watching(self) -> int:
        before = [len(viewer.marks()) for viewer in self.viewers]
        self.run(0.4)
        return sum(len(viewer.marks()) > count for viewer, count in zip(self.viewers, before, strict=True))


def test_so_many_viewers_keep_the_video_and_all_keep_the_sound() -> None:
    room = Room(10)
    assert room.watching() == 10
    room.overload.keep = 0.5
    room.run(0.1)
    assert room.watching() in (5, 6)
    heard = [len(viewer.session.sink.of(viewer.heard.ssrc)) for viewer in room.viewers]
    room.overload.keep = 0.0
    room.run(0.1)
    assert room.watching() == 0
    after = [len(viewer.session.sink.of(viewer.heard.ssrc)) for viewer in room.viewers]
    assert after == [count + 12 for count in heard]
    room.overload.keep = 1.0
    room.run(0.5)
    assert room.watching() == 10
    for viewer in room.viewers:
        assert viewer.whole_frames() > 30


@pytest.mark.parametrize("split", [False, True])
def test_a_frame_that_has_begun_is_finished(*, split: bool) -> None:
    """The tick that leaves the video out comes in the middle of it."""
    room = Room(4)
    for _ in range(3):
        shown = [viewer.whole_frames() for viewer in room.viewers]
        room.overload.keep = 0.0
        room.run(1.0, split=split)
        assert [viewer.whole_frames() for viewer in room.viewers] == [count + 1 for count in shown]
        room.overload.keep = 1.0
        room.run(1.0, split=split)


def test_what_waits_to_be_paced_goes_out_with_its_frame() -> None:
    room = Room(1)
    viewer = room.viewers[0]
    bandwidth = viewer.session.session.bandwidth
    assert bandwidth is not None
    bandwidth.pacer.set_rate(100_000, room.call.now)
    whole = [*room.packets(key=False), *room.packets(key=False)]
    begun = room.packets(key=False)
    room.sender.feed(*whole, *begun[:2])
    assert bandwidth.pacer.is_holding
    room.overload.keep = 0.0
    room.call.router.tick(room.call.now)
    assert not bandwidth.pacer.is_holding
    room.sender.feed(*begun[2:], *room.packets(key=False))
    bandwidth.pacer.set_rate(None, room.call.now)
    assert viewer.whole_frames() == room.frame - 1


def test_the_viewers_of_lowest_priority_lose_it_first() -> None:
    room = Room(4)
    room.viewers[3].seen.priority = 9
    room.overload.keep = 0.26
    room.run(0.1)
    before = [len(viewer.marks()) for viewer in room.viewers]
    room.run(0.4)
    grown = [len(viewer.marks()) > count for viewer, count in zip(room.viewers, before, strict=True)]
    assert grown[3]
    assert sum(grown) <= 2


def test_nothing_goes_to_and_fro_while_as_much_is_kept() -> None:
    room = Room(10)
    room.overload.keep = 0.5
    room.run(0.1)
    ceilings = [viewer.seen.limit for viewer in room.viewers]
    for viewer in room.viewers:
        viewer.seen.priority = 1 + room.viewers.index(viewer)  # another order from now on
    room.run(2.0)
    assert [viewer.seen.limit for viewer in room.viewers] == ceilings


def test_who_comes_meanwhile_is_counted_in() -> None:
    room = Room(4)
    room.overload.keep = 0.5
    room.run(0.1)
    room.viewers += [room._join() for _ in range(4)]
    room.run(1.0)
    assert room.watching() <= 5


def test_one_request_for_a_keyframe_serves_all_who_come_back() -> None:
    room = Room(20)
    room.overload.keep = 0.0
    room.run(1.0)
    room.requests = 0
    room.overload.keep = 1.0
    room.run(1.0)
    assert room.watching() == 20
    assert 1 <= room.requests <= 2


def test_the_viewer_is_told() -> None:
    room = Room(1)
    told: list[Layers | None] = []
    room.viewers[0].seen.on_layers_change = told.append
    room.overload.keep = 0.0
    room.run(0.1)
    room.overload.keep = 1.0
    room.run(0.5)
    assert told == [None, Layers(0, 0)]


def test_layers_go_before_videos_and_nothing_is_broken() -> None:
    """Streams of one size each: of three, half leaves the lower two to all viewers, or nearly."""
    sender = SimulcastSender()
    viewers = [SimulcastViewer(sender) for _ in range(4)]
    overload = sender.call.router._overload
    for keep in (1.0, 0.5, 0.25, 1.0):
        overload.keep = keep
        for _ in range(120):
            sender.step()
            for viewer in viewers:
                viewer.take()
        limits = [viewer.consumer.limit for viewer in viewers]
        if keep == 0.25:
            assert None in limits or Layers(0, 0) in [limit and Layers(limit.spatial, 0) for limit in limits]
        else:
            assert None not in limits
    for viewer in viewers:
        assert viewer.missing == []
        assert viewer.broken() == []
        assert {frame.stream for frame in viewer.frames()[-4:]} == {2}
        streams = {frame.stream for frame in viewer.frames()}
        assert len(streams) > 1


def test_repairs_stop_while_there_is_strain() -> None:
    room = Room(1)
    viewer = room.viewers[0]
    last = viewer.session.sink.of(viewer.seen.ssrc)[-1].sequence_number
    assert viewer.seen.rtx_ssrc is not None
    room.overload.strained = True
    viewer.session.feed_rtcp(GenericNack(1, viewer.seen.ssrc, (last,)))
    assert viewer.session.sink.of(viewer.seen.rtx_ssrc) == []
    assert viewer.seen.probe(1000, room.call.now) == 0
    room.overload.strained = False
    viewer.session.feed_rtcp(GenericNack(1, viewer.seen.ssrc, (last,)))
    assert len(viewer.session.sink.of(viewer.seen.rtx_ssrc)) == 1


def test_who_has_left_is_let_be() -> None:
    room = Room(3)
    room.overload.keep = 0.0
    room.run(0.1)
    room.viewers[0].seen.close()
    room.viewers[1].seen.pause()
    room.overload.keep = 1.0
    room.run(0.5)
    assert room.watching() == 1
    room.viewers[1].seen.resume()
    assert room.watching() == 2


def test_no_bandwidth_and_no_time_are_told_apart() -> None:
    """What the one gives back the other may still hold."""
    room = Room(1)
    seen = room.viewers[0].seen
    room.overload.keep = 0.0
    room.run(0.1)
    assert seen.limit is None
    seen.set_limit(seen.granted)
    assert seen.limit is None
    seen.set_limit(None)
    room.overload.keep = 1.0
    room.call.router.tick(room.call.now)
    assert seen.limit is None


def test_what_there_was_no_time_for_need_not_prove_that_the_path_carries_it() -> None:
    room = Room(1)
    seen = room.viewers[0].seen
    before = _current(seen, [EVERYTHING], (1000,))
    room.overload.keep = 0.0
    room.run(0.1)
    assert seen.limit is None
    assert _current(seen, [EVERYTHING], (1000,)) == before == 1000
    seen.set_limit(None)
    assert _current(seen, [EVERYTHING], (1000,)) == 0
