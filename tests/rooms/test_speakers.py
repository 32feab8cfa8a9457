"""``activeSpeaker`` and ``audioLevels``: real rooms, routers and RTP sessions, on a clock that jumps."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, TypeVar, cast

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support.fake_media import FakeMedia, FakeRouter, FakeTransport, dtls_parameters
from tests.support.media_core import IDS, Call, audio, audio_parameters, video_parameters
from trio_sfu.media.capabilities import AUDIO_LEVEL_URI, MID_URI
from trio_sfu.media.parameters import RtpParameters
from trio_sfu.media.producer import Producer
from trio_sfu.media.router import Router
from trio_sfu.rooms import messages as m
from trio_sfu.rooms.envelopes import Event
from trio_sfu.rooms.registry import Rooms, open_rooms
from trio_sfu.rooms.room import RoomLimits, RoomMedia
from trio_sfu.rooms.speakers import Speakers

R = TypeVar("R")

LEVEL = IDS[AUDIO_LEVEL_URI]
AUDIO = msgspec.convert(audio_parameters(), RtpParameters)
VIDEO = msgspec.convert(video_parameters(), RtpParameters)
NO_LEVELS = msgspec.convert(audio_parameters(headerExtensions=[{"uri": MID_URI, "id": IDS[MID_URI]}]), RtpParameters)
SPEECH, NOISE, SILENCE = 20, 55, 127


class SessionTransport(FakeTransport):
    """A transport without a network: what it has received is fed into its session."""

    def __init__(self, media: FakeMedia, call: Call) -> None:
        super().__init__(media, cast(FakeRouter, call.router))
        self.rtp = call.session()
        self.session = self.rtp.session

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await super().run(task_status=task_status)
        self.rtp.close()


class World:
    """One room, where users speak by packets."""

    def __init__(self) -> None:
        self.call = Call()
        self.media = FakeMedia()
        self.events: list[tuple[float, Event]] = []
        self.transports: dict[str, SessionTransport] = {}
        self.live = LiveListener()
        self.rooms: Rooms
        self.room_id = ""
        self._number = 0

    def router(self) -> Router:
        return self.call.router

    def emit(self, event: Event) -> None:
        self.events.append((trio.current_time(), event))

    async def ok(self, user: str, request: m.Request, reply_type: type[R]) -> R:
        reply = await self.rooms.request(user, request)
        assert isinstance(reply, reply_type), reply
        return reply

    async def join(self, *users: str) -> None:
        for user in users:
            if self.room_id:
                await self.ok(user, m.JoinRoom(room_id=self.room_id), m.RoomEntered)
            else:
                self.room_id = (await self.ok(user, m.CreateRoom(), m.RoomEntered)).room_id

    async def produce(self, user: str, parameters: RtpParameters = AUDIO, **more: Any) -> str:
        if user not in self.transports:
            await self.ok(user, m.CreateProducerTransport(), m.TransportCreated)
            self.transports[user] = cast(SessionTransport, self.media.transports[-1])
            await self.ok(user, m.ConnectProducerTransport(dtls_parameters=dtls_parameters()), m.TransportConnected)
        kind = "video" if parameters is VIDEO else "audio"
        request = m.Produce(kind=cast(Any, kind), rtp_parameters=parameters, **more)
        return (await self.ok(user, request, m.Produced)).id

    async def hear(self, seconds: float, **octets: int) -> None:
        """A packet every 20 ms of each of these users, with this audio level."""
        for _ in range(round(seconds / 0.02)):
            self._number += 1
            self.call.now = trio.current_time()
            for user, octet in octets.items():
                packet = audio(self._number, extensions=((LEVEL, bytes((octet,))),))
                self.transports[user].rtp.feed(packet)
            await trio.sleep(0.02)

    def take(self, user: str, kind: type[R]) -> list[R]:
        """All of this user's events of a kind since the last look."""
        found = [event.payload for _, event in self.events if user in event.user_ids]
        for user_event in [each for each in self.events if user in each[1].user_ids]:
            self.events.remove(user_event)
            rest = tuple(each for each in user_event[1].user_ids if each != user)
            if rest:
                self.events.append((user_event[0], Event(user_ids=rest, payload=user_event[1].payload)))
        return [payload for payload in found if isinstance(payload, kind)]

    def speaker(self, user: str | None, producer_id: str | None) -> m.ActiveSpeaker:
        return m.ActiveSpeaker(room_id=self.room_id, user_id=user, producer_id=producer_id)

    def levels(self, *levels: tuple[str, str, int]) -> m.AudioLevels:
        return m.AudioLevels(
            room_id=self.room_id,
            levels=tuple(m.AudioLevel(user_id=u, producer_id=p, volume=volume) for u, p, volume in levels),
        )


class LiveListener:
    """A live stream that notes who speaks."""

    def __init__(self) -> None:
        self.speakers = ""

    async def run(self) -> None:
        await trio.sleep_forever()

    def changed(self, participants: object) -> None:
        pass

    def speaks(self, user_id: str) -> None:
        self.speakers += user_id


@asynccontextmanager
async def a_world(*users: str) -> AsyncIterator[World]:
    world = World()
    media = RoomMedia(
        router=world.router,
        transport=cast(Any, lambda router: SessionTransport(world.media, world.call)),
        live=lambda room_id, router, tell: world.live,
    )
    async with open_rooms(media, RoomLimits(), world.emit, serialise=True) as rooms:
        world.rooms = rooms
        await world.join(*users)
        yield world
    for transport in world.transports.values():
        assert not transport.rtp.faults


async def test_everyone_is_told_who_speaks(autojump_clock: MockClock) -> None:
    async with a_world("a", "b", "c") as world:
        mics = {user: await world.produce(user) for user in "ab"}
        await world.produce("a", VIDEO)
        await world.hear(1, a=SILENCE, b=SILENCE)
        await world.hear(1, a=SPEECH, b=SILENCE)
        await world.hear(1, a=SILENCE, b=SPEECH)
        for user in "abc":
            said = world.take(user, m.ActiveSpeaker)
            assert said == [world.speaker("a", mics["a"]), world.speaker("b", mics["b"])]


async def test_the_live_stream_is_told_who_speaks(autojump_clock: MockClock) -> None:
    async with a_world("a", "b", "c") as world:
        for user in "ab":
            await world.produce(user)
        await world.hear(1, a=SILENCE, b=SILENCE)
        assert world.live.speakers == ""
        await world.hear(2, a=SPEECH, b=SILENCE)
        assert world.live.speakers == "a"
        await world.hear(2, a=SILENCE, b=SPEECH)
        assert world.live.speakers == "ab"
        await world.ok("b", m.StopProducing(), m.ProducingStopped)
        assert world.take("c", m.ActiveSpeaker)[-1] == world.speaker(None, None)
        assert world.live.speakers == "ab", "that somebody stops says nothing about who is to be seen"
        await world.hear(2, a=SPEECH)
        assert world.live.speakers == "aba"


async def test_levels_while_somebody_is_audible_and_one_empty_list(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        mic = await world.produce("a")
        await world.hear(5, a=SILENCE)
        assert world.take("b", m.AudioLevels) == []
        await world.hear(3, a=SPEECH)
        said = world.take("b", m.AudioLevels)
        assert set(said[1:]) == {world.levels(("a", mic, -SPEECH))}
        assert 7 <= len(said) <= 10
        await world.hear(10, a=SILENCE)
        said = world.take("b", m.AudioLevels)
        assert said[-1] == world.levels()
        assert len(said) <= 3
        assert all(each.levels for each in said[:-1])


async def test_levels_come_at_most_every_three_tenths_of_a_second(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        for user in "ab":
            await world.produce(user)
        await world.hear(10, a=SPEECH, b=NOISE)
        times = [now for now, event in world.events if isinstance(event.payload, m.AudioLevels)]
        assert 25 <= len(times) <= 34
        assert all(later - earlier > 0.299 for earlier, later in pairwise(times))


async def test_the_five_loudest(autojump_clock: MockClock) -> None:
    users = "abcdefg"
    async with a_world(*users) as world:
        mics = {user: await world.produce(user) for user in users}
        await world.hear(1, **{user: 50 - 3 * place for place, user in enumerate(users)})
        last = world.take("a", m.AudioLevels)[-1]
        loudest = [(user, mics[user], -50 + 3 * users.index(user)) for user in "gfedc"]
        assert last == world.levels(*loudest)


async def test_on_the_wire(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        mic = await world.produce("a")
        await world.hear(1, a=SPEECH)
        await world.ok("a", m.CloseProducer(producer_id=mic), m.Closed)
        told = [(event.name, m.to_wire(event.payload)) for _, event in world.events]
        room = world.room_id
        assert ("activeSpeaker", {"roomId": room, "userId": "a", "producerId": mic}) in told
        assert ("activeSpeaker", {"roomId": room, "userId": None, "producerId": None}) in told
        levels = [{"userId": "a", "producerId": mic, "volume": -SPEECH}]
        assert ("audioLevels", {"roomId": room, "levels": levels}) in told
        assert ("audioLevels", {"roomId": room, "levels": []}) in told


async def test_newcomers_are_told(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        mic = await world.produce("a")
        await world.join("b")
        assert world.take("b", m.ActiveSpeaker) == []
        await world.hear(1, a=SPEECH)
        await world.hear(10, a=SILENCE)
        await world.join("c")
        assert world.take("c", m.ActiveSpeaker) == [world.speaker("a", mic)]


async def _pause(world: World, producer_id: str) -> None:
    await world.ok("a", m.PauseProducer(producer_id=producer_id), m.Paused)


async def _close(world: World, producer_id: str) -> None:
    await world.ok("a", m.CloseProducer(producer_id=producer_id), m.Closed)


async def _stop(world: World, producer_id: str) -> None:
    await world.ok("a", m.StopProducing(), m.ProducingStopped)


async def _replace(world: World, producer_id: str) -> None:
    await world.produce("a")


async def _leave(world: World, producer_id: str) -> None:
    await world.rooms.leave_all("a")


async def _lose(world: World, producer_id: str) -> None:
    world.transports["a"].lose()
    await trio.testing.wait_all_tasks_blocked()


_ENDINGS = [_pause, _close, _stop, _replace, _leave, _lose]


@pytest.mark.parametrize("end", _ENDINGS)
async def test_who_ends_is_out_at_once(end: Callable[[World, str], Any], autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        mics = {user: await world.produce(user) for user in "ab"}
        await world.hear(2, a=SPEECH, b=NOISE)
        world.events.clear()
        now = trio.current_time()
        await end(world, mics["a"])
        assert trio.current_time() - now < 0.1
        payloads = [event.payload for _, event in world.events if "b" in event.user_ids]
        said = [each for each in payloads if isinstance(each, m.ActiveSpeaker | m.AudioLevels)]
        assert said == [world.speaker(None, None), world.levels(("b", mics["b"], -NOISE))]
        for payload in payloads:
            if isinstance(payload, m.ProducerClosed):  # nobody holds the name of what he is told is closed
                assert payloads.index(payload) > payloads.index(said[0])


@pytest.mark.parametrize("end", _ENDINGS)
async def test_who_speaks_on_follows(end: Callable[[World, str], Any], autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        mics = {user: await world.produce(user) for user in "ab"}
        await world.hear(1, a=SPEECH, b=SILENCE)
        await world.hear(1, a=SPEECH, b=SPEECH)
        assert world.take("b", m.ActiveSpeaker) == [world.speaker("a", mics["a"])]
        await end(world, mics["a"])
        assert world.take("b", m.ActiveSpeaker) == [world.speaker("b", mics["b"])]


async def test_two_producers_of_a_user_who_leaves(autojump_clock: MockClock) -> None:
    """A transport closes both at once: the second is not named for the first."""
    async with a_world("a", "b") as world:
        first = await world.produce("a")
        encodings = [{"ssrc": 77}]
        screen = msgspec.convert(audio_parameters(mid="2", encodings=encodings), RtpParameters)
        await world.produce("a", screen, app_data={"source": "screen"})
        for number in range(50):
            world.call.now = trio.current_time()
            packet = bytearray(audio(number, extensions=((LEVEL, bytes((SPEECH,))),)))
            microphone = bytes(packet)
            packet[8:12] = (77).to_bytes(4, "big")
            world.transports["a"].rtp.feed(microphone, bytes(packet))
            await trio.sleep(0.02)
        assert world.take("b", m.ActiveSpeaker) != []
        assert first in {each.id for each in world.transports["a"].session.producers.values()}
        world.transports["a"].lose()
        await trio.testing.wait_all_tasks_blocked()
        assert world.take("b", m.ActiveSpeaker) == [world.speaker(None, None)]


async def test_a_paused_producer_is_not_heard_and_a_resumed_one_is(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        mic = await world.produce("a")
        await world.ok("a", m.PauseProducer(producer_id=mic), m.Paused)
        await world.hear(2, a=SPEECH)
        assert world.take("a", m.ActiveSpeaker) == []
        await world.ok("a", m.ResumeProducer(producer_id=mic), m.Resumed)
        await world.hear(0.2, a=SPEECH)  # what was said while paused does not count
        assert world.take("a", m.ActiveSpeaker) == []
        await world.hear(1, a=SPEECH)
        assert world.take("a", m.ActiveSpeaker) == [world.speaker("a", mic)]


async def test_without_the_extension_nobody_is_named(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        await world.produce("a", NO_LEVELS)
        await world.hear(2, a=SPEECH)
        assert world.take("a", m.ActiveSpeaker) == []
        assert world.take("a", m.AudioLevels) == []


# Speakers by itself


class Crowd:
    """Speakers of a room of any size, and what they say."""

    def __init__(self, listeners: int = 3) -> None:
        self.call = Call()
        self.told: list[m.EventPayload] = []
        self.speakers = Speakers("r", self.told.append, lambda: listeners)
        self.producers: list[Producer] = []
        self._sessions = [self.call.session() for _ in range(3)]
        self._number = 0

    def produce(self, place: int) -> None:
        session = self._sessions[place]
        if not session.session.producers:
            producer = self.call.produce_audio(session)
            self.producers.append(producer)
            self.speakers.add(f"user {place}", producer)

    def hear(self, *octets: int) -> None:
        """0.1 s."""
        for _ in range(5):
            self._number += 1
            for session, octet in zip(self._sessions, octets, strict=False):
                session.feed(audio(self._number, extensions=((LEVEL, bytes((octet,))),)))
            self.call.now += 0.02
            self.speakers.tick(self.call.now)

    def of(self, kind: type[R]) -> list[R]:
        return [each for each in self.told if isinstance(each, kind)]


@pytest.mark.parametrize(("listeners", "least", "most"), [(1, 28, 34), (150, 28, 34), (500, 8, 11), (5000, 1, 2)])
def test_large_rooms_are_told_levels_less_often(listeners: int, least: int, most: int) -> None:
    crowd = Crowd(listeners)
    crowd.produce(0)
    for _ in range(100):
        crowd.hear(SPEECH)
    assert least <= len(crowd.of(m.AudioLevels)) <= most
    crowd.producers[0].pause()
    crowd.speakers.refresh()
    assert crowd.of(m.AudioLevels)[-1].levels == ()


def test_a_room_without_audio_measures_nothing() -> None:
    crowd = Crowd()
    crowd.speakers.add("user", crowd.call.produce_video(crowd.call.session()))
    crowd.speakers._observer = cast(Any, None)  # type: ignore[misc]
    crowd.speakers.tick(1.0)
    assert crowd.told == []


_ACTIONS = st.one_of(
    st.tuples(st.just("hear"), st.tuples(*[st.sampled_from((SPEECH, SPEECH, 0, NOISE, SILENCE))] * 3)),
    st.tuples(st.just("hear long"), st.tuples(*[st.sampled_from((SPEECH, SPEECH, NOISE, SILENCE))] * 3)),
    st.tuples(st.sampled_from(("produce", "close", "close late", "pause", "resume")), st.integers(0, 2)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(_ACTIONS, max_size=30))
def test_never_names_a_closed_or_paused_producer(actions: list[tuple[str, Any]]) -> None:
    crowd = Crowd()
    late: list[Producer] = []
    checked = 0
    for place in range(3):
        crowd.produce(place)
    for action, value in actions:
        if action.startswith("hear"):
            for _ in range(6 if action == "hear long" else 1):
                crowd.hear(*value)
        elif action == "produce":
            crowd.produce(value)
        elif value < len(crowd.producers):
            producer = crowd.producers[value]
            if action == "pause":
                producer.pause()
                crowd.speakers.refresh()
            elif action == "resume":
                producer.resume()
            elif action == "close":
                crowd.speakers.remove(producer.id)
                producer.close()
            else:  # its transport closed, and the room has not heard of it yet
                producer.close()
                late.append(producer)
        alive = {each.id for each in crowd.producers if not (each.closed or each.paused)}
        if action != "close late":
            for producer in late:
                crowd.speakers.remove(producer.id)
            late.clear()
        # What the removals brought is judged by who is alive now, too: the next action may end somebody.
        for event in crowd.told[checked:]:
            if isinstance(event, m.ActiveSpeaker):
                assert event.producer_id is None or event.producer_id in alive
            elif isinstance(event, m.AudioLevels):
                assert {each.producer_id for each in event.levels} <= alive
        checked = len(crowd.told)
        if action != "close late":
            last = crowd.of(m.ActiveSpeaker)[-1:]
            assert all(each.producer_id is None or each.producer_id in alive for each in last)
            levels = crowd.of(m.AudioLevels)[-1:]
            assert all({each.producer_id for each in event.levels} <= alive for event in levels)
