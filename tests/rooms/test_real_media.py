"""Rooms with the real router and transports on a real UDP endpoint: nothing is left at the endpoint."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.fake_media import dtls_parameters
from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.media.parameters import RtpParameters
from trio_sfu.rooms import messages as m
from trio_sfu.rooms.envelopes import Event
from trio_sfu.rooms.registry import Rooms, open_rooms
from trio_sfu.rooms.room import RoomLimits, RoomMedia
from trio_sfu.transport.addresses import ListenAddress
from trio_sfu.transport.udp import UdpEndpoint, open_udp_endpoint

R = TypeVar("R")

_RTX = {"mimeType": "video/rtx", "clockRate": 90000, "payloadType": 97, "parameters": {"apt": 96}}
_VP8 = {"mimeType": "video/VP8", "clockRate": 90000, "payloadType": 96, "rtcpFeedback": [{"type": "nack"}]}
_VIDEO = {"mid": "0", "codecs": [_VP8, _RTX], "encodings": [{"ssrc": 1, "rtx": {"ssrc": 2}}]}
VIDEO = msgspec.convert(_VIDEO, RtpParameters)


class World:
    def __init__(self, endpoint: UdpEndpoint, rooms: Rooms, events: list[Event]) -> None:
        self.endpoint = endpoint
        self.rooms = rooms
        self.events = events

    async def ok(self, user: str, request: m.Request, reply_type: type[R]) -> R:
        reply = await self.rooms.request(user, request)
        assert isinstance(reply, reply_type), reply
        return reply


@asynccontextmanager
async def a_world(connect_timeout: float = 30.0) -> AsyncIterator[World]:
    events: list[Event] = []
    async with open_udp_endpoint([ListenAddress("127.0.0.1", ("127.0.0.1",), 0)]) as endpoint:
        media = RoomMedia.over(endpoint, connect_timeout=connect_timeout)
        async with open_rooms(media, RoomLimits(), events.append, serialise=True) as rooms:
            yield World(endpoint, rooms, events)
        assert endpoint.transport_count == 0


async def test_a_call_without_packets() -> None:
    async with a_world() as world:
        room_id = (await world.ok("a", m.CreateRoom(), m.RoomEntered)).room_id
        await world.ok("b", m.JoinRoom(room_id=room_id), m.RoomEntered)
        for user in "ab":
            created = await world.ok(user, m.CreateProducerTransport(), m.TransportCreated)
            assert created.ice_candidates[0].address == "127.0.0.1"
            assert created.ice_parameters.ice_lite
            await world.ok(user, m.CreateConsumerTransport(), m.TransportCreated)
        assert world.endpoint.transport_count == 4
        connect = m.ConnectProducerTransport(dtls_parameters=dtls_parameters())
        await world.ok("a", connect, m.TransportConnected)
        again = await world.rooms.request("a", connect)
        assert isinstance(again, m.RequestError)
        produced = await world.ok("a", m.Produce(kind="video", rtp_parameters=VIDEO), m.Produced)
        clash = m.Produce(kind="video", rtp_parameters=VIDEO, app_data={"source": "screen"})
        refused = await world.rooms.request("a", clash)
        assert isinstance(refused, m.RequestError)
        assert refused.code != "internal"
        consume = m.Consume(producer_id=produced.id, rtp_capabilities=router_rtp_capabilities())
        first = await world.ok("b", consume, m.Consumed)
        second = await world.ok("b", consume, m.Consumed)
        assert first.rtp_parameters.encodings[0].ssrc != second.rtp_parameters.encodings[0].ssrc
        assert first.rtp_parameters.mid != second.rtp_parameters.mid
        await world.ok("b", m.PauseConsumer(consumer_id=first.id), m.Paused)
        await world.ok("b", m.ResumeConsumer(consumer_id=first.id), m.Resumed)
        await world.ok("b", m.RequestKeyFrame(consumer_id=first.id), m.KeyFrameRequested)
        # the same producer anew: its SSRC and MID are free again
        await world.ok("a", m.Produce(kind="video", rtp_parameters=VIDEO), m.Produced)
        assert world.rooms.counts()[1].consumers == 0
        await trio.sleep(0.05)  # some ticks
        await world.rooms.leave_all("a")
        assert world.endpoint.transport_count == 2
        await world.rooms.leave_all("b")
        assert world.endpoint.transport_count == 0


async def test_a_transport_that_is_never_connected() -> None:
    async with a_world(connect_timeout=0.05) as world:
        await world.ok("a", m.CreateRoom(), m.RoomEntered)
        created = await world.ok("a", m.CreateProducerTransport(), m.TransportCreated)
        await world.ok("a", m.Produce(kind="video", rtp_parameters=VIDEO), m.Produced)
        with trio.fail_after(5):
            while world.endpoint.transport_count:  # noqa: ASYNC110 - the endpoint has no event for it
                await trio.sleep(0.01)
        await wait_all_tasks_blocked()
        closed = [e.payload for e in world.events if isinstance(e.payload, m.TransportClosed)]
        assert [event.transport_id for event in closed] == [created.id]
        assert "not connected" in closed[0].reason
        assert world.rooms.counts()[1].producers == 0
