"""aiortc, another implementation of everything from ICE to the codecs, at both ends of the server."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamError

from tests.support.aiortc_client import (
    AiortcError,
    AiortcUser,
    DtlsRole,
    Loss,
    Received,
    aiortc_user,
    run_client,
    wait_stats,
)
from tests.support.aiortc_tracks import FRAME_TICKS, PictureTrack, ToneTrack, is_picture, is_tone
from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared_server: Server, caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    """After the test nothing is left in the server, and neither side has complained: aiortc logs what it cannot
    decode."""
    yield shared_server
    shared_server.wait_idle()
    assert not [line for line in shared_server.log if "Traceback" in line]
    assert not [record.getMessage() for record in caplog.get_records("call") if record.name.startswith("aiortc")]


def check_pictures(frames: list[Any]) -> None:
    """Pictures of a PictureTrack, not one of them missing."""
    assert all(map(is_picture, frames))
    assert {(frame.width, frame.height) for frame in frames} == {(320, 240)}
    steps = [after.pts - before.pts for before, after in pairwise(frames)]
    assert all(abs(step - FRAME_TICKS) <= 1 for step in steps), steps  # libvpx's decoder rounds


async def produce_both(user: AiortcUser, codec: str = "VP8") -> None:
    await user.produce(PictureTrack(), codec)
    await user.produce(ToneTrack())


async def consume_both(user: AiortcUser) -> tuple[Received, Received]:
    producers = await user.producers()
    return await user.consume(producers["video"]), await user.consume(producers["audio"])


@pytest.mark.parametrize(
    ("codec", "role", "profile"),
    [
        # The DTLS server chooses, and each prefers another one.
        ("VP8", "client", "SRTP_AEAD_AES_128_GCM"),
        ("H264", "server", "SRTP_AEAD_AES_256_GCM"),
    ],
)
def test_video_and_audio_arrive(server: Server, codec: str, role: DtlsRole, profile: str) -> None:
    async def call() -> None:
        async with (
            aiortc_user(server.url, dtls_role=role) as sender,
            aiortc_user(server.url, sender.room_id, dtls_role=role) as viewer,
        ):
            await produce_both(sender, codec)
            video, audio = await consume_both(viewer)
            check_pictures(await video.frames(45))
            sound = await audio.frames(60)
            assert is_tone(sound[10:])
            assert {(frame.sample_rate, frame.samples) for frame in sound} == {(48000, 960)}
            assert {**sender.negotiated(), **viewer.negotiated()} == {"Producer": profile, "Consumer": profile}

    run_client(call)


def test_both_ways_at_once(server: Server) -> None:
    async def call() -> None:
        async with (
            aiortc_user(server.url, path="socket.io") as first,
            aiortc_user(server.url, first.room_id) as second,
        ):
            await asyncio.gather(produce_both(first), produce_both(second, "H264"))
            for video, audio in await asyncio.gather(consume_both(first), consume_both(second)):
                check_pictures(await video.frames(15))
                assert is_tone((await audio.frames(30))[10:])

    run_client(call)


def test_reports_are_understood_on_both_sides(server: Server) -> None:
    async def call() -> None:
        async with aiortc_user(server.url) as sender, aiortc_user(server.url, sender.room_id) as viewer:
            await produce_both(sender)
            for received in await consume_both(viewer):
                await received.frames(5)
                theirs = await wait_stats(received.receiver, "remote-outbound-rtp")
                assert theirs.ssrc == received.rtp_parameters["encodings"][0]["ssrc"]
                assert theirs.packetsSent > 0
                (sending,) = (each for each in sender.senders.values() if each.kind == received.kind)
                ours = await wait_stats(sending, "remote-inbound-rtp")
                assert (ours.packetsLost, ours.fractionLost) == (0, 0)
                assert ours.roundTripTime is None or 0 <= ours.roundTripTime < 5

    run_client(call)


@pytest.mark.parametrize("paused", [False, True], ids=["unpaused", "paused-then-resumed"])
def test_a_late_joiner_begins_with_a_keyframe(server: Server, paused: bool) -> None:
    """aiortc's VP8 encoder makes the next keyframe after 100 s, unless it is asked for one."""

    async def call() -> None:
        async with aiortc_user(server.url) as sender, aiortc_user(server.url, sender.room_id) as first:
            producer = await sender.produce(PictureTrack(), "VP8")
            await (await first.consume(producer)).frames(45)
            async with aiortc_user(server.url, sender.room_id) as late:
                video = await late.consume(producer, paused=paused)
                check_pictures(await video.frames(10))

    run_client(call)


@pytest.mark.parametrize("way", ["to-server", "to-viewer"])
def test_what_is_lost_on_the_way_is_sent_again(server: Server, way: str) -> None:
    loss = Loss(every=10)

    async def call() -> None:
        async with (
            aiortc_user(server.url, lose_sent=loss if way == "to-server" else None) as sender,
            aiortc_user(server.url, sender.room_id, lose_received=loss if way == "to-viewer" else None) as viewer,
        ):
            video = await viewer.consume(await sender.produce(PictureTrack(), "H264"))
            check_pictures(await video.frames(60))

    run_client(call)
    assert loss.lost >= 5


def test_stopping_ends_the_others_tracks(server: Server) -> None:
    async def call() -> None:
        async with aiortc_user(server.url) as sender, aiortc_user(server.url, sender.room_id) as viewer:
            await produce_both(sender)
            both = await consume_both(viewer)
            for received in both:
                await received.frames(5)
            await sender.request("stopProducing")
            assert await viewer.producers() == {}
            for producer in sender.senders:
                await viewer.wait_event("producerClosed", producerId=producer)
            for received in both:
                with pytest.raises(MediaStreamError):  # by the server's RTCP BYE
                    await received.frames(1000)
            # The transports go on: the same users can begin again.
            await produce_both(sender)
            video, audio = await consume_both(viewer)
            check_pictures(await video.frames(5))
            await audio.frames(5)

    run_client(call)


def test_leaving_closes_the_transports(server: Server) -> None:
    async def call() -> None:
        async with aiortc_user(server.url) as sender, aiortc_user(server.url, sender.room_id) as viewer:
            await produce_both(sender)
            video, _ = await consume_both(viewer)
            await video.frames(5)
            await sender.request("leaveRoom")
            await viewer.request("leaveRoom")
            await wait_closed(sender, viewer)
            with pytest.raises(AiortcError) as refused:
                await sender.request("listProducers")
            assert refused.value.code in ("not-in-room", "room-not-found")

    run_client(call)


def test_a_dropped_socket_closes_the_transports(server: Server) -> None:
    async def call() -> None:
        async with aiortc_user(server.url) as viewer:
            async with aiortc_user(server.url, viewer.room_id) as sender:
                await produce_both(sender)
                video, _ = await consume_both(viewer)
                await video.frames(5)
                await sender.disconnect()
                await wait_closed(sender)
            with pytest.raises(MediaStreamError):
                await video.frames(1000)
            assert await viewer.producers() == {}

    run_client(call)


async def wait_closed(*users: AiortcUser) -> None:
    """Until the server's close_notify has reached all transports."""
    async with asyncio.timeout(5):
        while any(state != "closed" for user in users for state in user.transport_states().values()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
