"""What rooms have to do with their live streams: who is announced, who is told, and that nobody waits for them."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.fake_media import FakeMedia
from trio_sfu.media.parameters import MediaKind, RtpCodecParameters, RtpEncodingParameters, RtpParameters
from trio_sfu.media.router import Router
from trio_sfu.rooms import messages as m
from trio_sfu.rooms.envelopes import Event
from trio_sfu.rooms.live import LiveParticipant, LiveState
from trio_sfu.rooms.registry import Rooms, open_rooms
from trio_sfu.rooms.room import RoomLimits

R = TypeVar("R")
SSRC = RtpEncodingParameters(ssrc=1)
AUDIO = RtpParameters(
    codecs=(RtpCodecParameters(mime_type="audio/opus", clock_rate=48000, channels=2, payload_type=111),),
    encodings=(SSRC,),
)
VIDEO = RtpParameters(
    codecs=(RtpCodecParameters(mime_type="video/VP8", clock_rate=90000, payload_type=96),), encodings=(SSRC,)
)


class FakeLive:
    """A room's live output that notes what it is told, and takes its time to end."""

    def __init__(self, room_id: str, tell: Callable[[LiveState, str | None], None], clean_up_seconds: float) -> None:
        self.room_id = room_id
        self.tell = tell
        self.announced: list[tuple[LiveParticipant, ...]] = []
        self.began = self.cancelled = self.ended = math.inf
        self._clean_up_seconds = clean_up_seconds

    async def run(self) -> None:
        self.began = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled = trio.current_time()
            with trio.CancelScope(shield=True):
                await trio.sleep(self._clean_up_seconds)
            self.tell("ended", None)
            self.ended = trio.current_time()

    def changed(self, participants: Sequence[LiveParticipant]) -> None:
        self.announced.append(tuple(participants))

    def speaks(self, user_id: str) -> None:
        raise AssertionError("nobody sends audio levels here")

    @property
    def users(self) -> str:
        """Those who were announced last."""
        return "".join(each.user_id for each in self.announced[-1]) if self.announced else ""


class World:
    def __init__(self, clean_up_seconds: float) -> None:
        self.media = FakeMedia()
        self.lives: list[FakeLive] = []
        self.events: list[Event] = []
        self.rooms: Rooms
        self._clean_up_seconds = clean_up_seconds

    def make_live(self, room_id: str, router: Router, tell: Callable[[LiveState, str | None], None]) -> FakeLive:
        assert id(router) == id(self.media.routers[-1])
        self.lives.append(FakeLive(room_id, tell, self._clean_up_seconds))
        return self.lives[-1]

    async def ok(self, user: str, request: m.Request, reply_type: type[R]) -> R:
        reply = await self.rooms.request(user, request)
        assert isinstance(reply, reply_type), reply
        return reply

    async def room(self, *users: str, name: str | None = None) -> str:
        """A room with these users, who can produce."""
        room_id = (await self.ok(users[0], m.CreateRoom(room_id=name), m.RoomEntered)).room_id
        for user in users:
            await self.ok(user, m.JoinRoom(room_id=room_id), m.RoomEntered)
            await self.ok(user, m.CreateProducerTransport(), m.TransportCreated)
        return room_id

    async def produce(self, user: str, kind: MediaKind, source: str | None = None) -> str:
        request = m.Produce(
            kind=kind,
            rtp_parameters=AUDIO if kind == "audio" else VIDEO,
            app_data={"source": source} if source else None,
        )
        return (await self.ok(user, request, m.Produced)).id

    async def produce_both(self, user: str) -> None:
        await self.produce(user, "audio")
        await self.produce(user, "video")

    def take_states(self, user: str) -> list[m.HlsStateChanged]:
        """What this user was told since the last look."""
        mine = [each for each in self.events if user in each.user_ids and isinstance(each.payload, m.HlsStateChanged)]
        for event in mine:
            self.events.remove(event)
            if rest := tuple(each for each in event.user_ids if each != user):
                self.events.append(Event(user_ids=rest, payload=event.payload))
        return [each.payload for each in mine]  # type: ignore[misc]


@asynccontextmanager
async def a_world(clean_up_seconds: float = 0) -> AsyncIterator[World]:
    world = World(clean_up_seconds)
    media = replace(world.media.room_media(), live=world.make_live)
    async with open_rooms(media, RoomLimits(), world.events.append, serialise=True) as rooms:
        world.rooms = rooms
        yield world
    assert world.media.open == set()
    assert all(live.ended < math.inf for live in world.lives)


# -- who is announced ---


async def test_a_participant_has_both_audio_and_video() -> None:
    async with a_world() as world:
        await world.room("a", "b", "c")
        (live,) = world.lives
        assert live.users == ""
        audio = await world.produce("a", "audio")
        await world.produce("b", "video")
        assert live.users == ""
        video = await world.produce("a", "video")
        assert live.users == "a"
        (participant,) = live.announced[-1]
        assert (participant.audio.id, participant.video.id, participant.name) == (audio, video, None)
        await world.produce("b", "audio")
        assert live.users == "ab"
        await world.ok("a", m.CloseProducer(producer_id=video), m.Closed)
        assert live.users == "b"


async def test_in_the_order_of_their_first_producers() -> None:
    async with a_world() as world:
        await world.room("a", "b", "c")
        (live,) = world.lives
        for user in "cab":
            await world.produce(user, "audio")
        for user in "abc":
            await world.produce(user, "video")
        assert live.users == "cab"
        # Who changes one of them stays in place; who stops comes last.
        await world.produce("c", "video")
        assert live.users == "cab"
        await world.ok("c", m.StopProducing(), m.ProducingStopped)
        assert live.users == "ab"
        await world.produce_both("c")
        assert live.users == "abc"


async def test_a_screen_goes_before_a_camera() -> None:
    async with a_world() as world:
        await world.room("a")
        (live,) = world.lives
        await world.produce("a", "audio", "mic")
        camera = await world.produce("a", "video", "camera")
        assert live.announced[-1][0].video.id == camera
        screen = await world.produce("a", "video", "screen")
        assert live.announced[-1][0].video.id == screen
        await world.ok("a", m.CloseProducer(producer_id=screen), m.Closed)
        assert live.announced[-1][0].video.id == camera
        await world.produce("a", "audio", "screen")
        assert len(live.announced[-1]) == 1


async def test_a_screen_alone_will_do() -> None:
    async with a_world() as world:
        await world.room("a")
        await world.produce("a", "audio")
        screen = await world.produce("a", "video", "screen")
        assert world.lives[0].announced[-1][0].video.id == screen


async def test_who_pauses_stays() -> None:
    async with a_world() as world:
        await world.room("a", "b")
        (live,) = world.lives
        audio = await world.produce("a", "audio")
        video = await world.produce("a", "video")
        for producer_id in (audio, video):
            await world.ok("a", m.PauseProducer(producer_id=producer_id), m.Paused)
        assert live.users == "a"
        await world.produce_both("b")
        assert live.users == "ab"
        assert live.announced[-1][0].video.paused
        await world.ok("a", m.ResumeProducer(producer_id=video), m.Resumed)
        assert live.users == "ab"


async def test_names() -> None:
    async with a_world() as world:
        room_id = await world.room("a")
        await world.produce_both("a")
        await world.ok("a", m.JoinRoom(room_id=room_id, name="Åsa"), m.RoomEntered)
        assert world.lives[0].announced[-1][0].name == "Åsa"


async def test_a_producer_anew_is_one_change() -> None:
    """The broadcast must not see the user vanish in between."""
    async with a_world() as world:
        await world.room("a")
        (live,) = world.lives
        await world.produce_both("a")
        live.announced.clear()
        video = await world.produce("a", "video")
        assert [each[0].video.id for each in live.announced] == [video]


@pytest.mark.parametrize("how", ["leaves", "is gone", "loses the transport", "closes the transport", "hits a bug"])
async def test_who_goes_is_out(how: str) -> None:
    async with a_world() as world:
        await world.room("a", "b")
        (live,) = world.lives
        await world.produce_both("a")
        await world.produce_both("b")
        assert live.users == "ab"
        before = len(live.announced)
        if how == "leaves":
            await world.ok("a", m.LeaveRoom(), m.RoomLeft)
        elif how == "is gone":
            await world.rooms.leave_all("a")
        elif how == "loses the transport":
            world.media.transports[0].lose()
        elif how == "closes the transport":
            await world.ok("a", m.CreateProducerTransport(), m.TransportCreated)
        else:
            fault = world.media.transports[0].on_fault
            assert fault is not None
            fault(ZeroDivisionError("a bug"))
        await wait_all_tasks_blocked()
        assert live.users == "b"
        # Nobody was announced without one of their producers on the way.
        assert {"".join(each.user_id for each in some) for some in live.announced[before:]} == {"b"}


# -- who is told ---


async def test_everyone_is_told() -> None:
    async with a_world() as world:
        room_id = await world.room("a", "b", name="stand-up_7")
        other = await world.room("x")
        live = world.lives[0]
        live.tell("starting", None)
        live.tell("failed", "no pair of UDP ports is free")
        url = "/hls/stand-up_7/index.m3u8"
        expected = [
            m.HlsStateChanged(room_id=room_id, state="starting", url=url),
            m.HlsStateChanged(room_id=room_id, state="failed", url=url, reason="no pair of UDP ports is free"),
        ]
        assert world.take_states("a") == expected
        assert world.take_states("b") == expected
        assert world.take_states("x") == []
        assert other != room_id


async def test_newcomers_are_told_how_it_is() -> None:
    async with a_world() as world:
        room_id = await world.room("a")
        await world.ok("b", m.JoinRoom(room_id=room_id), m.RoomEntered)
        assert world.take_states("b") == []
        for state in ("starting", "live"):
            world.lives[0].tell(state, None)
        await world.ok("c", m.JoinRoom(room_id=room_id), m.RoomEntered)
        assert [event.state for event in world.take_states("c")] == ["live"]
        assert [event.state for event in world.take_states("b")] == ["starting", "live"]
        # Nobody else is told that, and joining again is nothing new.
        await world.ok("b", m.JoinRoom(room_id=room_id), m.RoomEntered)
        assert [event.state for event in world.take_states("a")] == ["starting", "live"]
        assert world.take_states("b") == []


async def test_rooms_without_live_streams() -> None:
    world = World(0)
    async with open_rooms(world.media.room_media(), RoomLimits(), world.events.append) as rooms:
        world.rooms = rooms
        await world.room("a")
        await world.produce_both("a")
        assert world.take_states("a") == []


# -- the end ---


async def test_the_end_of_a_room_ends_its_stream(autojump_clock: MockClock) -> None:
    async with a_world(clean_up_seconds=1) as world:
        await world.room("a", "b", name="standup")
        await world.produce_both("a")
        (live,) = world.lives
        await world.ok("a", m.LeaveRoom(), m.RoomLeft)
        await trio.sleep(10)
        assert live.cancelled == math.inf, "somebody is there still"
        left_at = trio.current_time()
        await world.ok("b", m.LeaveRoom(), m.RoomLeft)
        assert trio.current_time() == left_at, "who leaves does not wait for it"
        await trio.sleep(5)
        assert (live.cancelled, live.ended) == (left_at, left_at + 1)
        assert world.rooms.counts()[0] == 0
        assert world.take_states("a") == world.take_states("b") == []


async def test_a_room_that_is_closed(autojump_clock: MockClock) -> None:
    async with a_world(clean_up_seconds=1) as world:
        room_id = await world.room("a", "b")
        await world.produce_both("a")
        await world.rooms.close_room(room_id, "closed by the operator")
        await wait_all_tasks_blocked()
        assert world.lives[0].cancelled == trio.current_time()


async def test_a_slow_end_holds_nobody_up(autojump_clock: MockClock) -> None:
    async with a_world(clean_up_seconds=1) as world:
        await world.room("a", name="standup")
        await world.room("x", name="other")
        await world.ok("a", m.LeaveRoom(), m.RoomLeft)
        left_at = trio.current_time()
        await world.produce_both("x")
        await world.room("a", name="third")
        await world.produce_both("a")
        await world.ok("x", m.LeaveRoom(room_id="other"), m.RoomLeft)
        assert trio.current_time() == left_at
        assert [live.users for live in world.lives] == ["", "", "a"]


async def test_who_comes_back_to_a_room_that_is_just_ending(autojump_clock: MockClock) -> None:
    """As a page that is loaded anew: it joins, and creates the room where there is none."""
    async with a_world(clean_up_seconds=1) as world:
        await world.room("a", name="standup")
        await world.produce_both("a")
        await world.rooms.leave_all("a")
        reply = await world.rooms.request("b", m.JoinRoom(room_id="standup"))
        assert reply == m.RequestError(code="room-not-found", message="Room does not exist")
        await world.room("b", name="standup")
        await world.produce_both("b")
        first, second = world.lives
        assert first.ended <= second.began, "two streams of one room never overlap"
        assert (first.users, second.users) == ("", "b")


async def test_all_rooms_end_together(autojump_clock: MockClock) -> None:
    async with a_world(clean_up_seconds=1) as world:
        for user in "abcde":
            await world.room(user)
            await world.produce_both(user)
        ending_at = trio.current_time()
    assert {live.cancelled for live in world.lives} == {ending_at}
    assert trio.current_time() == ending_at + 1
