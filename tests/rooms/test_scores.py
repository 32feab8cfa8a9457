"""``score`` and ``layersWanted`` events: real rooms, routers and RTP sessions, on a clock that jumps."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import trio
from trio.testing import MockClock

from tests.rooms.test_speakers import SessionTransport, World, a_world
from tests.support.fake_media import dtls_parameters
from tests.support.media_core import VIDEO_SSRC, video, video_parameters
from trio_sfu.media.parameters import RtpParameters
from trio_sfu.rooms import messages as m


async def produce(world: World, user: str, **changes: Any) -> str:
    await world.ok(user, m.CreateProducerTransport(), m.TransportCreated)
    world.transports[user] = cast(SessionTransport, world.media.transports[-1])
    await world.ok(user, m.ConnectProducerTransport(dtls_parameters=dtls_parameters()), m.TransportConnected)
    parameters = msgspec.convert(video_parameters(**changes), RtpParameters)
    return (await world.ok(user, m.Produce(kind="video", rtp_parameters=parameters), m.Produced)).id


async def consume(world: World, user: str, producer_id: str) -> str:
    await world.ok(user, m.CreateConsumerTransport(), m.TransportCreated)
    await world.ok(user, m.ConnectConsumerTransport(dtls_parameters=dtls_parameters()), m.TransportConnected)
    capabilities = world.call.router.rtp_capabilities
    reply = await world.ok(user, m.Consume(producer_id=producer_id, rtp_capabilities=capabilities), m.Consumed)
    return reply.id


class Camera:
    """Sends a frame each 20 ms of the world's time."""

    def __init__(self, world: World, user: str) -> None:
        self.world = world
        self.session = world.transports[user].rtp
        self.number = 0

    async def run(self, seconds: float, *, silent: bool = False) -> None:
        for _ in range(round(seconds / 0.02)):
            self.world.call.now = trio.current_time()
            if not silent:
                self.session.feed(video(self.number, key=self.number % 25 == 0))
                self.number += 1
            await trio.sleep(0.02)


async def test_scores_go_to_the_owners_and_come_back(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        world.call.now = trio.current_time()
        producer_id = await produce(world, "a")
        consumer_id = await consume(world, "b", producer_id)
        camera = Camera(world, "a")
        await camera.run(3)
        assert world.take("a", m.Score) == []
        assert world.take("b", m.Score) == []
        await camera.run(3, silent=True)
        (said,) = world.take("a", m.Score)
        assert said == m.Score(
            room_id=world.room_id,
            producer_id=producer_id,
            score=(m.EncodingScore(encoding_idx=0, ssrc=VIDEO_SSRC, score=0),),
        )
        last = world.take("b", m.Score)[-1]
        assert last.consumer_id == consumer_id
        assert last.score == m.ConsumerScore(score=0, producer_score=0, producer_scores=(0,))
        await camera.run(3)
        wire = m.to_wire(world.take("b", m.Score)[-1])
        assert wire["score"] == {"score": 10, "producerScore": 10, "producerScores": [10]}
        assert world.take("a", m.Score)[-1].score == (m.EncodingScore(encoding_idx=0, ssrc=VIDEO_SSRC, score=10),)


async def test_layers_wanted_goes_to_the_sender_only(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        world.call.now = trio.current_time()
        producer_id = await produce(world, "a", encodings=[{"ssrc": VIDEO_SSRC + at} for at in range(3)])
        camera = Camera(world, "a")
        await camera.run(7)
        assert world.take("a", m.LayersWanted) == [
            m.LayersWanted(room_id=world.room_id, producer_id=producer_id, spatial_layer=None)
        ]
        consumer_id = await consume(world, "b", producer_id)
        assert [each.spatial_layer for each in world.take("a", m.LayersWanted)] == [2]
        await world.ok("b", m.SetPreferredLayers(consumer_id=consumer_id, spatial_layer=0), m.PreferredLayersSet)
        await camera.run(7)
        assert [each.spatial_layer for each in world.take("a", m.LayersWanted)] == [0]
        assert world.take("b", m.LayersWanted) == []
