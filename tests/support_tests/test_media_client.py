"""The media client against a whole server: exact numbering from one user to another, loss and its repair."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.media_client import MediaUserError, media_user
from tests.support.relay import open_relay
from tests.support.server import running_server


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server() as server:
        yield server.url


async def test_a_viewer_misses_nothing(url: str) -> None:
    async with media_user(url) as sender, media_user(url, room=sender.room_id) as viewer:
        video = await sender.produce_video()
        audio = await sender.produce_audio()
        seen = await viewer.consume(video.producer_id)
        heard = await viewer.consume(audio.producer_id)
        sender.start_sending(pps=200)
        await seen.wait_received(200)
        await seen.wait_until(lambda: seen.sender_reports > 0)
        await heard.wait_until(lambda: heard.sender_reports > 0)
        sender.stop_sending()
        for stream, sent in ((seen, video), (heard, audio)):
            await stream.wait_number(sent.sent - 1)
            assert stream.missing() == []
            assert stream.numbers == sorted(stream.numbers)
            assert {packet.ssrc for packet in stream.received} == {stream.ssrc}
            sequence = [packet.sequence_number for packet in stream.received]
            assert all((b - a) & 0xFFFF == 1 for a, b in itertools.pairwise(sequence))
        assert viewer.receive_transport is not None
        assert viewer.receive_transport.unexpected_ssrcs == set()


async def test_a_late_viewer_begins_with_a_key_frame(url: str) -> None:
    async with media_user(url) as sender, media_user(url, room=sender.room_id) as viewer:
        video = await sender.produce_video()
        sender.start_sending(pps=200)
        early = await viewer.consume(video.producer_id)
        await early.wait_received(200)  # a second's: a younger keyframe would be sent again instead
        asked = video.key_frame_requests
        async with media_user(url, room=sender.room_id) as late:
            stream = await late.consume(video.producer_id)
            await stream.wait_received(20)
            assert video.key_frame_requests > asked
            # RFC 7741: a 4-byte descriptor, then a payload header whose lowest bit is 0 for key frames.
            assert stream.received[0].payload[4] & 1 == 0
            assert stream.missing() == []


async def test_losses_are_repaired_by_retransmission(url: str) -> None:
    async with media_user(url) as sender:
        video = await sender.produce_video()
        assert sender.send_transport is not None
        server = sender.send_transport.client.remote.address
        async with (
            open_relay(server, loss=0.05, delay=0.01, seed=1) as relay,
            media_user(url, room=sender.room_id, media_address=relay.address, nack=True) as viewer,
        ):
            stream = await viewer.consume(video.producer_id)
            sender.start_sending(pps=200)
            await stream.wait_received(400)
            assert relay.to_client.counters.lost > 0
            assert any(packet.retransmitted for packet in stream.received)
            assert len(stream.missing()) < relay.to_client.counters.lost


async def test_a_refusal_is_an_error_with_its_code(url: str) -> None:
    with pytest.RaisesGroup(MediaUserError, allow_unwrapped=True, flatten_subgroups=True):
        async with media_user(url, room="nobody-made-this-room"):
            pass
