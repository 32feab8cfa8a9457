"""Rooms through their only face, messages, with stand-ins for the media objects."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.alive import alive
from tests.support.fake_media import FakeMedia, dtls_parameters
from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.media.parameters import (
    MediaKind,
    RtpCapabilities,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpParameters,
)
from trio_sfu.rooms import messages as m
from trio_sfu.rooms.envelopes import Event, RequestEnvelope
from trio_sfu.rooms.registry import Rooms, open_rooms
from trio_sfu.rooms.room import RoomLimits

R = TypeVar("R")


class World:
    """Open rooms with what they said and made."""

    def __init__(self) -> None:
        self.media = FakeMedia()
        self.events: list[Event] = []
        self.rooms: Rooms

    async def ok(self, user: str, request: m.Request, reply_type: type[R]) -> R:
        reply = await self.rooms.request(user, request)
        assert isinstance(reply, reply_type), reply
        return reply

    async def refused(self, user: str, request: m.Request) -> str:
        reply = await self.rooms.request(user, request)
        assert isinstance(reply, m.RequestError), reply
        assert reply.message
        return reply.code

    async def room(self, *users: str) -> str:
        """A room with these users."""
        room_id = (await self.ok(users[0], m.CreateRoom(), m.RoomEntered)).room_id
        for user in users[1:]:
            await self.ok(user, m.JoinRoom(room_id=room_id), m.RoomEntered)
        return room_id

    async def transports(self, *users: str) -> None:
        for user in users:
            await self.ok(user, m.CreateProducerTransport(), m.TransportCreated)
            await self.ok(user, m.CreateConsumerTransport(), m.TransportCreated)

    async def produce(self, user: str, kind: MediaKind = "video", source: str | None = None) -> str:
        app_data = {"source": source} if source else None
        request = m.Produce(kind=kind, rtp_parameters=parameters(kind), app_data=app_data)
        return (await self.ok(user, request, m.Produced)).id

    async def consume(self, user: str, producer_id: str) -> str:
        request = m.Consume(producer_id=producer_id, rtp_capabilities=router_rtp_capabilities())
        return (await self.ok(user, request, m.Consumed)).id

    def take_events(self, user: str, kind: type[R]) -> list[R]:
        """This user's events of a kind since the last look (all others stay)."""
        mine = [e for e in self.events if user in e.user_ids and isinstance(e.payload, kind)]
        for event in mine:
            self.events.remove(event)
            rest = tuple(u for u in event.user_ids if u != user)
            if rest:
                self.events.append(Event(user_ids=rest, payload=event.payload))
        return [e.payload for e in mine]  # type: ignore[misc]

    async def assert_nothing_left(self) -> None:
        await wait_all_tasks_blocked()
        assert self.media.open == set()
        count, counts = self.rooms.counts()
        assert count == 0
        assert (counts.peers, counts.transports, counts.producers, counts.consumers) == (0, 0, 0, 0)
        assert self.rooms._memberships == {}


def parameters(kind: MediaKind, codec: str = "") -> RtpParameters:
    if kind == "audio":
        opus = RtpCodecParameters(mime_type="audio/opus", clock_rate=48000, channels=2, payload_type=111)
        return RtpParameters(codecs=(opus,), encodings=(RtpEncodingParameters(ssrc=1),))
    video = RtpCodecParameters(mime_type=codec or "video/VP8", clock_rate=90000, payload_type=96)
    return RtpParameters(codecs=(video,), encodings=(RtpEncodingParameters(ssrc=2),))


@asynccontextmanager
async def a_world(limits: RoomLimits | None = None) -> AsyncIterator[World]:
    world = World()
    limits = limits or RoomLimits()
    async with open_rooms(world.media.room_media(), limits, world.events.append, serialise=True) as rooms:
        world.rooms = rooms
        yield world
    assert world.media.open == set()


async def test_create_makes_a_room_and_enters_it() -> None:
    async with a_world() as world:
        room_id = await world.room("a")
        assert len(room_id) == len("room_x7k2p9")
        assert room_id.startswith("room_")
        assert await world.room("b") != room_id
        assert world.take_events("a", m.PeersChanged)[-1].peers == (m.PeerEntry(user_id="a", name=None),)


async def test_who_waits_for_the_next_request_does_not_hold_on_to_the_last() -> None:
    """The room and the peer; a room knows the request that it began with."""
    async with a_world() as world:
        await world.room("a")
        await world.transports("a")
        await world.produce("a", "video", "camera")
        await wait_all_tasks_blocked()
        assert {type(each.request) for each in alive(RequestEnvelope)} == {m.CreateRoom}


async def test_create_with_a_name() -> None:
    async with a_world() as world:
        reply = await world.ok("a", m.CreateRoom(room_id="standup"), m.RoomEntered)
        assert reply.room_id == "standup"
        assert await world.refused("b", m.CreateRoom(room_id="standup")) == "room-exists"
        assert await world.refused("a", m.CreateRoom(room_id="standup")) == "room-exists"


async def test_join_unknown_room() -> None:
    async with a_world() as world:
        reply = await world.rooms.request("a", m.JoinRoom(room_id="nowhere"))
        assert reply == m.RequestError(code="room-not-found", message="Room does not exist")
        assert await world.refused("a", m.JoinRoom()) == "invalid-payload"
        await world.assert_nothing_left()


async def test_join_tells_everyone() -> None:
    async with a_world() as world:
        room_id = await world.room("a")
        world.events.clear()
        await world.ok("b", m.JoinRoom(room_id=room_id, name="Bo"), m.RoomEntered)
        for user in "ab":
            assert world.take_events(user, m.RoomProducersChanged) == [
                m.RoomProducersChanged(room_id=room_id, producers=())
            ]
            assert [p.name for p in world.take_events(user, m.PeersChanged)[0].peers] == [None, "Bo"]


async def test_join_twice_is_no_error_and_may_rename() -> None:
    async with a_world() as world:
        room_id = await world.room("a", "b")
        world.events.clear()
        await world.ok("b", m.JoinRoom(room_id=room_id, name="Bo"), m.RoomEntered)
        assert [p.name for p in world.take_events("a", m.PeersChanged)[0].peers] == [None, "Bo"]
        assert world.rooms.counts()[1].peers == 2


async def test_members_only() -> None:
    async with a_world() as world:
        room_id = await world.room("a")
        requests: list[m.Request] = [
            m.LeaveRoom(room_id=room_id),
            m.GetRouterRtpCapabilities(room_id=room_id),
            m.CreateProducerTransport(room_id=room_id),
            m.CreateConsumerTransport(room_id=room_id),
            m.ConnectProducerTransport(room_id=room_id, dtls_parameters=dtls_parameters()),
            m.ConnectConsumerTransport(room_id=room_id, dtls_parameters=dtls_parameters()),
            m.Produce(room_id=room_id, kind="audio", rtp_parameters=parameters("audio")),
            m.StopProducing(room_id=room_id),
            m.ListProducers(room_id=room_id),
            m.Consume(room_id=room_id, producer_id="x", rtp_capabilities=router_rtp_capabilities()),
            m.CloseProducer(room_id=room_id, producer_id="x"),
            m.PauseProducer(room_id=room_id, producer_id="x"),
            m.ResumeProducer(room_id=room_id, producer_id="x"),
            m.CloseConsumer(room_id=room_id, consumer_id="x"),
            m.PauseConsumer(room_id=room_id, consumer_id="x"),
            m.ResumeConsumer(room_id=room_id, consumer_id="x"),
            m.RequestKeyFrame(room_id=room_id, consumer_id="x"),
            m.GetStats(room_id=room_id),
            m.SetPreferredLayers(room_id=room_id, consumer_id="x", spatial_layer=0),
            m.SetConsumerPriority(room_id=room_id, consumer_id="x", priority=1),
            m.SetMaxIncomingBitrate(room_id=room_id, bitrate=1),
            m.RestartIce(room_id=room_id, transport_id="x"),
        ]
        assert len(requests) == len(m.REQUESTS) - 2
        for request in requests:
            assert await world.refused("stranger", request) == "not-in-room"
        assert await world.refused("stranger", m.ListProducers()) == "not-in-room"
        assert await world.refused("a", m.ListProducers(room_id="nowhere")) == "not-in-room"


async def test_the_only_room_is_meant_where_none_is_named() -> None:
    async with a_world() as world:
        first = await world.room("a")
        await world.ok("a", m.GetRouterRtpCapabilities(), m.RouterCapabilities)
        second = await world.room("a")
        assert await world.refused("a", m.GetRouterRtpCapabilities()) == "invalid-payload"
        await world.ok("a", m.GetRouterRtpCapabilities(room_id=second), m.RouterCapabilities)
        await world.ok("a", m.LeaveRoom(room_id=second), m.RoomLeft)
        await world.ok("a", m.LeaveRoom(), m.RoomLeft)
        assert await world.refused("a", m.LeaveRoom(room_id=first)) == "not-in-room"
        await world.assert_nothing_left()


async def test_a_call() -> None:
    async with a_world() as world:
        room_id = await world.room("a", "b")
        await world.transports("a", "b")
        reply = await world.ok("a", m.ConnectProducerTransport(dtls_parameters=dtls_parameters()), m.TransportConnected)
        assert reply.connected
        world.events.clear()
        producer_id = await world.produce("a", "video", source="camera")

        entry = m.ProducerEntry(user_id="a", producer_id=producer_id, kind="video")
        for user in "ab":
            changed = world.take_events(user, m.RoomProducersChanged)
            assert changed == [m.RoomProducersChanged(room_id=room_id, producers=(entry,))]
        assert world.take_events("a", m.NewProducer) == []
        new = world.take_events("b", m.NewProducer)[0]
        assert (new.user_id, new.producer_id, new.kind) == ("a", producer_id, "video")
        assert new.app_data == {"source": "camera"}

        assert (await world.ok("a", m.ListProducers(), m.ProducerList)).producers == ()
        listed = (await world.ok("b", m.ListProducers(), m.ProducerList)).producers
        assert listed == (
            m.ListedProducer(
                user_id="a",
                producer_id=producer_id,
                kind="video",
                paused=False,
                app_data={"source": "camera"},
            ),
        )
        consumed = await world.ok(
            "b", m.Consume(producer_id=producer_id, rtp_capabilities=router_rtp_capabilities()), m.Consumed
        )
        assert (consumed.producer_id, consumed.kind, consumed.paused) == (producer_id, "video", False)
        assert consumed.rtp_parameters == parameters("video")

        assert (await world.ok("a", m.StopProducing(), m.ProducingStopped)).stopped
        closed = m.ConsumerClosed(room_id=room_id, consumer_id=consumed.id, producer_id=producer_id)
        assert world.take_events("b", m.ConsumerClosed) == [closed]
        assert [e.producer_id for e in world.take_events("b", m.ProducerClosed)] == [producer_id]
        assert world.take_events("a", m.ProducerClosed) == []
        assert world.take_events("b", m.RoomProducersChanged)[-1].producers == ()
        assert await world.refused("b", m.CloseConsumer(consumer_id=consumed.id)) == "consumer-not-found"
        assert world.media.open_counts().consumers == 0


async def test_transports_are_needed_first() -> None:
    async with a_world() as world:
        await world.room("a")
        dtls = dtls_parameters()
        caps = router_rtp_capabilities()
        assert await world.refused("a", m.ConnectProducerTransport(dtls_parameters=dtls)) == "transport-not-found"
        assert await world.refused("a", m.ConnectConsumerTransport(dtls_parameters=dtls)) == "transport-not-found"
        produce = m.Produce(kind="audio", rtp_parameters=parameters("audio"))
        assert await world.refused("a", produce) == "transport-not-found"
        consume = m.Consume(producer_id="x", rtp_capabilities=caps)
        assert await world.refused("a", consume) == "transport-not-found"
        await world.transports("a")
        assert await world.refused("a", consume) == "producer-not-found"
        assert await world.refused("a", m.CloseProducer(producer_id="x")) == "producer-not-found"
        assert await world.refused("a", m.RequestKeyFrame(consumer_id="x")) == "consumer-not-found"


async def test_errors_of_the_media_layer_are_replies() -> None:
    async with a_world() as world:
        await world.room("a")
        await world.transports("a")
        connect = m.ConnectProducerTransport(dtls_parameters=dtls_parameters())
        await world.ok("a", connect, m.TransportConnected)
        assert await world.refused("a", connect) == "already-connected"
        # It has failed, and its task has not noticed yet.
        transport = world.media.transports[0]
        restart = m.RestartIce(transport_id=transport.id)
        await world.ok("a", restart, m.IceRestarted)
        transport.state, state = "failed", transport.state
        assert await world.refused("a", restart) == "transport-closed"
        transport.state = state
        no_codec = m.Produce(kind="audio", rtp_parameters=RtpParameters(codecs=()))
        assert await world.refused("a", no_codec) == "invalid-rtp-parameters"
        producer_id = await world.produce("a")
        nothing = m.Consume(producer_id=producer_id, rtp_capabilities=RtpCapabilities())
        assert await world.refused("a", nothing) == "cannot-consume"


async def test_a_second_transport_replaces_the_first() -> None:
    async with a_world() as world:
        await world.room("a", "b")
        await world.transports("a", "b")
        producer_id = await world.produce("a")
        consumer_id = await world.consume("b", producer_id)
        first = world.media.transports[0]
        second = await world.ok("a", m.CreateProducerTransport(), m.TransportCreated)
        assert second.id != first.id
        assert first.state == "closed"
        assert [e.producer_id for e in world.take_events("b", m.ProducerClosed)] == [producer_id]
        assert [e.consumer_id for e in world.take_events("b", m.ConsumerClosed)] == [consumer_id]
        assert world.take_events("a", m.TransportClosed) == []
        await world.consume("b", await world.produce("a"))
        await world.ok("b", m.CreateConsumerTransport(), m.TransportCreated)
        assert world.media.open_counts().consumers == 0
        await wait_all_tasks_blocked()
        assert world.rooms.counts()[1].transports == world.media.open_counts().transports == 4


async def test_a_producer_replaces_the_older_of_its_kind_and_source() -> None:
    async with a_world() as world:
        await world.room("a", "b")
        await world.transports("a", "b")
        camera = await world.produce("a")
        screen = await world.produce("a", source="screen")
        audio = await world.produce("a", "audio")
        listed = {p.producer_id for p in (await world.ok("b", m.ListProducers(), m.ProducerList)).producers}
        assert listed == {camera, screen, audio}
        camera2 = await world.produce("a")
        screen2 = await world.produce("a", source="screen")
        listed = {p.producer_id for p in (await world.ok("b", m.ListProducers(), m.ProducerList)).producers}
        assert listed == {camera2, screen2, audio}
        closed = [e.producer_id for e in world.take_events("a", m.ProducerClosed)]
        assert closed == [camera, screen]  # the owner did not ask for that by name


async def test_a_produce_that_is_refused_leaves_the_older_one() -> None:
    async with a_world() as world:
        await world.room("a", "b")
        await world.transports("a")
        producer_id = await world.produce("a")
        strange = m.Produce(kind="video", rtp_parameters=parameters("video", "video/H265"))
        assert await world.refused("a", strange) == "unsupported-codec"
        listed = (await world.ok("b", m.ListProducers(), m.ProducerList)).producers
        assert [p.producer_id for p in listed] == [producer_id]


async def test_close_pause_resume() -> None:
    async with a_world() as world:
        room_id = await world.room("a", "b")
        await world.transports("a", "b")
        producer_id = await world.produce("a")
        consumer_id = await world.consume("b", producer_id)
        for _ in range(2):  # the second is no error, and no news
            await world.ok("a", m.PauseProducer(producer_id=producer_id), m.Paused)
        paused = m.ProducerPaused(room_id=room_id, producer_id=producer_id, user_id="a")
        assert world.take_events("b", m.ProducerPaused) == [paused]
        assert (await world.ok("b", m.ListProducers(), m.ProducerList)).producers[0].paused
        for _ in range(2):
            await world.ok("a", m.ResumeProducer(producer_id=producer_id), m.Resumed)
        assert len(world.take_events("b", m.ProducerResumed)) == 1
        await world.ok("b", m.PauseConsumer(consumer_id=consumer_id), m.Paused)
        await world.ok("b", m.ResumeConsumer(consumer_id=consumer_id), m.Resumed)
        await world.ok("b", m.RequestKeyFrame(consumer_id=consumer_id), m.KeyFrameRequested)
        # Only the owner
        assert await world.refused("b", m.PauseProducer(producer_id=producer_id)) == "producer-not-found"
        assert await world.refused("a", m.PauseConsumer(consumer_id=consumer_id)) == "consumer-not-found"
        await world.ok("b", m.CloseConsumer(consumer_id=consumer_id), m.Closed)
        assert world.take_events("b", m.ConsumerClosed) == []
        await world.ok("a", m.CloseProducer(producer_id=producer_id), m.Closed)
        assert await world.refused("a", m.CloseProducer(producer_id=producer_id)) == "producer-not-found"
        assert world.take_events("b", m.RoomProducersChanged)[-1].producers == ()


async def test_a_lost_transport_frees_what_ran_on_it_and_says_so() -> None:
    async with a_world() as world:
        room_id = await world.room("a", "b")
        await world.transports("a", "b")
        producer_id = await world.produce("a")
        await world.consume("b", producer_id)
        world.media.transports[0].lose()
        await wait_all_tasks_blocked()
        lost = m.TransportClosed(
            room_id=room_id,
            transport_id=world.media.transports[0].id,
            direction="producer",
            reason="no packet for 30 seconds",
        )
        assert world.take_events("a", m.TransportClosed) == [lost]
        assert [e.producer_id for e in world.take_events("b", m.ProducerClosed)] == [producer_id]
        assert len(world.take_events("b", m.ConsumerClosed)) == 1
        assert vars(world.media.open_counts()) == {"transports": 3, "producers": 0, "consumers": 0}
        produce = m.Produce(kind="audio", rtp_parameters=parameters("audio"))
        assert await world.refused("a", produce) == "transport-not-found"
        # The membership stays; a new transport heals it.
        await world.ok("a", m.CreateProducerTransport(), m.TransportCreated)
        await world.consume("b", await world.produce("a"))
        world.media.transports[3].lose()  # the consumer's
        await wait_all_tasks_blocked()
        assert world.take_events("b", m.TransportClosed)[0].direction == "consumer"
        assert world.media.open_counts().consumers == 0


async def test_leaving_frees_everything_and_tells_the_others() -> None:
    async with a_world() as world:
        await world.room("a", "b")
        await world.transports("a", "b")
        producer_id = await world.produce("a")
        await world.consume("a", await world.produce("b"))
        consumer_id = await world.consume("b", producer_id)
        world.events.clear()
        await world.ok("a", m.LeaveRoom(), m.RoomLeft)
        assert vars(world.media.open_counts()) == {"transports": 2, "producers": 1, "consumers": 0}
        assert [e.producer_id for e in world.take_events("b", m.ProducerClosed)] == [producer_id]
        assert [e.consumer_id for e in world.take_events("b", m.ConsumerClosed)] == [consumer_id]
        assert [p.user_id for p in world.take_events("b", m.PeersChanged)[-1].peers] == ["b"]
        assert [p.user_id for p in world.take_events("b", m.RoomProducersChanged)[-1].producers] == ["b"]
        assert [e for e in world.events if "a" in e.user_ids] == []
        await world.rooms.leave_all("b")
        await world.assert_nothing_left()
        await world.rooms.leave_all("b")  # again: nothing


async def test_leave_all_works_in_a_cancelled_scope() -> None:
    async with a_world() as world:
        await world.room("a", "b")
        await world.room("a")
        await world.transports("b")
        with trio.CancelScope() as scope:
            scope.cancel()
            await world.rooms.leave_all("a")
        await wait_all_tasks_blocked()
        assert world.rooms.counts()[0] == 1
        await world.rooms.leave_all("b")
        await world.assert_nothing_left()


async def test_a_creator_who_vanishes_leaves_no_room() -> None:
    async with a_world() as world:
        for steps in range(6):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.rooms.request, "a", m.CreateRoom())
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await world.rooms.leave_all("a")
            await wait_all_tasks_blocked()
            await world.assert_nothing_left()


async def test_join_while_the_last_one_leaves() -> None:
    """Whatever the interleaving: either in the room, or room-not-found; never a hang, nothing left."""
    outcomes = set()
    async with a_world() as world:
        for steps in range(8):
            room_id = await world.room("a")
            replies: list[m.Reply] = []

            async def join(room_id: str = room_id, replies: list[m.Reply] = replies, steps: int = steps) -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                replies.append(await world.rooms.request("b", m.JoinRoom(room_id=room_id)))

            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(join)
                    await world.rooms.leave_all("a")
            outcomes.add(replies[0])
            if isinstance(replies[0], m.RequestError):
                assert replies[0].code == "room-not-found"
            else:
                await world.ok("b", m.LeaveRoom(), m.RoomLeft)
            await world.assert_nothing_left()
    assert any(isinstance(reply, m.RequestError) for reply in outcomes)


async def test_close_room() -> None:
    async with a_world() as world:
        room_id = await world.room("a", "b")
        await world.transports("a", "b")
        await world.consume("b", await world.produce("a"))
        await world.rooms.close_room(room_id, "Enough for today")
        await wait_all_tasks_blocked()
        for user in "ab":
            closed = m.PeerClosed(room_id=room_id, reason="Enough for today")
            assert world.take_events(user, m.PeerClosed) == [closed]
        await world.assert_nothing_left()
        await world.rooms.close_room(room_id, "again")
        assert await world.refused("a", m.ListProducers(room_id=room_id)) == "not-in-room"


async def test_the_end_of_the_rooms_is_the_end_of_everything() -> None:
    async with a_world() as world:
        await world.room("a", "b")
        await world.transports("a", "b")
        await world.consume("b", await world.produce("a"))
    await world.assert_nothing_left()
    assert await world.refused("a", m.CreateRoom()) == "shutting-down"


def _errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("step", ["consume", "run", "packet"])
async def test_a_bug_drops_one_peer_only(step: str, caplog: pytest.LogCaptureFixture) -> None:
    async with a_world() as world:
        room_id = await world.room("a", "b", "c")
        await world.transports("a", "b", "c")
        for_a, for_b = await world.produce("a"), await world.produce("b")
        await world.consume("b", for_a)
        await world.consume("c", for_a)
        await world.consume("c", for_b)
        world.events.clear()

        if step == "packet":
            on_fault = world.media.transports[3].on_fault  # b's consumer transport
            assert on_fault is not None
            for _ in range(3):  # a batch goes on for some packets
                on_fault(ZeroDivisionError("injected"))
        else:
            world.media.bugs.add(step)
            request: m.Request = m.CreateProducerTransport()
            if step == "consume":
                request = m.Consume(producer_id=for_a, rtp_capabilities=router_rtp_capabilities())
            assert await world.refused("b", request) == "internal"
            world.media.bugs.clear()
        await wait_all_tasks_blocked()

        assert len(_errors(caplog)) == 1
        assert "Peer b" in _errors(caplog)[0].getMessage()
        caplog.clear()
        assert [e.room_id for e in world.take_events("b", m.PeerClosed)] == [room_id]
        assert await world.refused("b", m.ListProducers(room_id=room_id)) == "not-in-room"
        # b's part is freed, a and c go on
        assert vars(world.media.open_counts()) == {"transports": 4, "producers": 1, "consumers": 1}
        assert [e.producer_id for e in world.take_events("c", m.ProducerClosed)] == [for_b]
        assert world.take_events("c", m.PeerClosed) == []
        await world.consume("a", await world.produce("c"))
        # and b may come back
        await world.ok("b", m.JoinRoom(room_id=room_id), m.RoomEntered)
        for user in "abc":
            await world.rooms.leave_all(user)
        await world.assert_nothing_left()


async def test_a_bug_in_closing_is_contained_too(caplog: pytest.LogCaptureFixture) -> None:
    async with a_world() as world:
        await world.room("a", "b")
        await world.transports("a", "b")
        await world.produce("a")
        world.media.bugs.add("close")
        await world.rooms.leave_all("a")
        world.media.bugs.clear()
        assert len(_errors(caplog)) >= 1
        caplog.clear()
        assert world.rooms.counts()[1].peers == 1
        assert world.media.open_counts().transports == 2
        assert (await world.ok("b", m.ListProducers(), m.ProducerList)).producers == ()
        world.media.open.clear()  # the producer that would not close


async def test_a_bug_of_the_room_ends_that_room_only(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_world() as world:
        await world.room("a")
        await world.room("c")
        await world.transports("a")
        world.media.bugs.add("tick")
        await world.ok("a", m.ConnectProducerTransport(dtls_parameters=dtls_parameters()), m.TransportConnected)
        await trio.sleep(0.1)
        assert world.rooms.counts()[0] == 1
        world.media.bugs.clear()
        assert len(_errors(caplog)) == 1
        caplog.clear()
        assert len(world.take_events("a", m.PeerClosed)) == 1
        await world.ok("c", m.ListProducers(), m.ProducerList)
        await world.rooms.leave_all("c")
        await world.assert_nothing_left()


async def test_the_router_ticks_while_a_transport_is_connected(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        await world.room("a")
        router = world.media.routers[0]
        await world.transports("a")
        await trio.sleep(1)
        assert router.ticks == []
        connect = m.ConnectProducerTransport(dtls_parameters=dtls_parameters())
        await world.ok("a", connect, m.TransportConnected)
        await trio.sleep(1.01)
        assert len(router.ticks) == 50
        world.media.transports[0].lose()
        await trio.sleep(0.05)
        ticks = len(router.ticks)
        await trio.sleep(10)
        assert len(router.ticks) == ticks


async def test_limits() -> None:
    limits = RoomLimits(rooms=2, rooms_per_user=1, peers=2, producers=2, consumers=1)
    async with a_world(limits) as world:
        room_id = await world.room("a", "b")
        assert await world.refused("a", m.CreateRoom()) == "too-many-rooms"
        assert await world.refused("c", m.JoinRoom(room_id=room_id)) == "room-full"
        other = await world.room("c")
        assert await world.refused("d", m.CreateRoom()) == "too-many-rooms"
        assert await world.refused("c", m.JoinRoom(room_id=room_id)) == "too-many-rooms"
        assert await world.refused("a", m.JoinRoom(room_id=other)) == "too-many-rooms"
        await world.ok("a", m.JoinRoom(room_id=room_id), m.RoomEntered)
        await world.transports("a", "b")
        video = await world.produce("a")
        await world.produce("a", "audio")
        screen = m.Produce(kind="video", rtp_parameters=parameters("video"), app_data={"source": "screen"})
        assert await world.refused("a", screen) == "too-many-producers"
        video = await world.produce("a")  # replaces one
        await world.consume("b", video)
        again = m.Consume(producer_id=video, rtp_capabilities=router_rtp_capabilities())
        assert await world.refused("b", again) == "too-many-consumers"


async def test_a_full_inbox_and_a_slow_room(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the bound: overloaded. No answer: timeout. A leave is never lost."""
    async with a_world(RoomLimits(peer_inbox=2, request_seconds=5)) as world:
        await world.room("a")
        slow = world.media.room_media()

        def stuck(router: Any) -> Any:
            transport = slow.transport(router)

            async def run(*, task_status: object) -> None:
                await trio.sleep(60)

            transport.run = run  # type: ignore[method-assign,assignment]
            return transport

        object.__setattr__(world.rooms._media, "transport", stuck)
        codes: list[str] = []

        async def ask() -> None:
            codes.append(await world.refused("a", m.CreateProducerTransport()))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
            assert codes == ["overloaded", "overloaded"]
        assert codes[2:] == ["timeout"] * 3
        await world.rooms.leave_all("a")
        await world.assert_nothing_left()


async def test_an_overloaded_room(autojump_clock: MockClock) -> None:
    async with a_world(RoomLimits(room_inbox=1)) as world:
        room_id = await world.room("a")
        replies: dict[str, m.Reply] = {}

        async def join(user: str) -> None:
            replies[user] = await world.rooms.request(user, m.JoinRoom(room_id=room_id))

        async with trio.open_nursery() as nursery:
            for user in "bcdef":
                nursery.start_soon(join, user)
        codes = [reply.code for reply in replies.values() if isinstance(reply, m.RequestError)]
        assert set(codes) <= {"overloaded"}
        assert len(codes) < 5
        for user in "abcdef":
            await world.rooms.leave_all(user)
        await world.assert_nothing_left()
