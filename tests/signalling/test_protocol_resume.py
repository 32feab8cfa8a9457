"""Sockets that are lost in the middle of a call with real media, and who speaks for their users then."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio
from wsproto.frame_protocol import CloseReason

from tests.signalling.test_protocol_hostile import NO_OBJECT, NO_PAYLOAD, STRANGE
from tests.support.media_client import IncomingStream, MediaUser, media_user
from tests.support.protocol import (
    LOCAL,
    NOTHING,
    Json,
    a_scene,
    a_server,
    answers,
    complaints,
    holds,
    payload_of,
    refused,
    told,
)
from tests.support.socketio_client import SocketIOClient, connect_socketio
from tests.support.until import until
from trio_sfu.server import Server

Leave = Callable[[SocketIOClient], Awaitable[object]]
RESUMABLE = replace(LOCAL, resume_grace=60.0)
SHORT = replace(LOCAL, resume_grace=0.3)


def parked(server: Server) -> int:
    (line,) = [line for line in server.metrics.render().splitlines() if line.startswith("trio_sfu_parked_users ")]
    return int(line.split()[1])


@dataclass(slots=True)
class Pair:
    """Two users who send to each other; ``goes`` is resumable by ``token``."""

    server: Server
    stays: MediaUser
    goes: MediaUser
    token: str
    had: int
    """How many events have come for ``goes`` since it got the token."""
    streams: list[IncomingStream]

    async def goes_on(self) -> None:
        """Asserts that media arrive both ways, and that nothing has been missed."""
        for stream in self.streams:
            await stream.wait_received(len(stream.received) + 3)
            assert stream.missing() == []


@asynccontextmanager
async def a_pair(server: Server, transport: Any = "websocket") -> AsyncIterator[Pair]:
    async with (
        media_user(server.url) as stays,
        media_user(server.url, room=stays.room_id, transport=transport) as goes,
    ):
        ack = await goes.request("joinRoom", {"resumable": True})
        assert ack["roomId"] == stays.room_id
        await told(goes.socket)
        streams = []
        for one, other in ((stays, goes), (goes, stays)):
            video = await one.produce_video(size=200)
            streams.append(await other.consume(video.producer_id))
            one.start_sending(100)
        had = len(await told(goes.socket))
        pair = Pair(server, stays, goes, ack["resumeToken"], had, streams)
        await pair.goes_on()
        await told(stays.socket)
        yield pair


async def _cut(client: SocketIOClient) -> None:
    client.engine.cut(reset=False)


async def _reset(client: SocketIOClient) -> None:
    client.engine.cut(reset=True)


async def _close(client: SocketIOClient, code: int) -> None:
    assert client.engine._websocket is not None
    await client.engine._websocket.aclose(code)


async def _close_without_code(client: SocketIOClient) -> None:
    await _close(client, CloseReason.NO_STATUS_RCVD)  # as socket.io-client does that takes its connection for lost


async def _go_away(client: SocketIOClient) -> None:
    await _close(client, 1001)


async def _close_normally(client: SocketIOClient) -> None:
    await _close(client, 1000)


async def _close_session(client: SocketIOClient) -> None:
    await client.send_raw("1")


async def _poll_twice(client: SocketIOClient) -> None:
    await client.engine.poll_again()


async def _leave_namespace(client: SocketIOClient) -> None:
    await client.send_raw("41")


async def _break_the_protocol(client: SocketIOClient) -> None:
    await client.send_raw("42[")


@pytest.mark.parametrize(
    ("transport", "lose"),
    [
        ("websocket", _cut),
        ("polling", _cut),
        ("websocket", _reset),
        ("polling", _reset),
        ("websocket", _close_without_code),
        ("polling", _close_session),
        ("polling", _poll_twice),
    ],
)
async def test_a_lost_socket_is_not_the_end(transport: Any, lose: Leave, caplog: pytest.LogCaptureFixture) -> None:
    """Media never stop, nobody else hears of it, and another socket goes on where the lost one was."""
    caplog.set_level(logging.INFO)
    async with a_server(RESUMABLE) as server:
        async with a_pair(server, transport) as pair:
            stays, goes = pair.stays, pair.goes
            held, user_id = holds(server), goes.user_id
            await lose(goes.socket)
            await until(lambda: parked(server) == 1)
            await pair.goes_on()
            assert holds(server) == held
            assert [name for name, _ in await told(stays.socket)] == []
            for name in ("Ann", "Anna"):  # what happens meanwhile
                await stays.request("joinRoom", {"name": name})
            async with connect_socketio(server.url, transport=transport) as again:
                ack = await again.request("resume", {"resumeToken": pair.token})
                assert set(ack) == {"userId", "roomIds", "resumeToken", "resumeSeconds"}
                assert (ack["userId"], ack["roomIds"]) == (user_id, [stays.room_id])
                assert ack["resumeToken"] != pair.token
                events = await told(again)
                assert [name for name, _ in events] == ["peersChanged", "roomProducersChanged"] * 2
                assert [payload["peers"][0]["name"] for _, payload in events[::2]] == ["Ann", "Anna"]
                await told(stays.socket)
                assert parked(server) == 0
                await pair.goes_on()
                assert holds(server) == held
                # The new socket does what the old one did, and others know it by the old id.
                goes.socket = again
                await goes.request("pauseConsumer", {"consumerId": goes.incoming[0].consumer_id})
                mine = goes.outgoing[0].producer_id
                await goes.request("pauseProducer", {"producerId": mine})
                events = await told(stays.socket)
                about = {"roomId": stays.room_id, "userId": user_id, "producerId": mine}
                assert events == [("producerPaused", about)]
                await again.disconnect()
                await until(lambda: holds(server)["peers"] == 1)
        assert complaints(caplog) == []


async def test_a_socket_that_falls_silent(caplog: pytest.LogCaptureFixture) -> None:
    """The ping time-out parks its user; what went to the dead connection is told again to those who count."""
    caplog.set_level(logging.INFO)
    config = replace(RESUMABLE, ping_interval=0.2, ping_timeout=1.0)
    async with a_server(config) as server, a_pair(server) as pair:
        pair.goes.socket.engine.answer_pings = False
        video = pair.stays.outgoing[0].producer_id
        await pair.stays.request("pauseProducer", {"producerId": video})
        await until(lambda: parked(server) == 1)
        await pair.stays.request("resumeProducer", {"producerId": video})
        async with connect_socketio(server.url) as again:
            ack = await again.request("resume", {"resumeToken": pair.token, "received": pair.had})
            assert "error" not in ack
            assert [name for name, _ in await told(again)] == ["producerPaused", "producerResumed"]
    assert complaints(caplog) == []


@pytest.mark.parametrize(
    ("transport", "leave"),
    [
        ("websocket", _go_away),
        ("websocket", _close_normally),
        ("websocket", _leave_namespace),
        ("polling", _leave_namespace),
        ("websocket", SocketIOClient.disconnect),
        ("polling", SocketIOClient.disconnect),
        ("websocket", _break_the_protocol),
        ("polling", _break_the_protocol),
    ],
)
async def test_a_goodbye_is_the_end(transport: Any, leave: Leave, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with a_server(RESUMABLE) as server, a_pair(server, transport) as pair:
        await leave(pair.goes.socket)
        await until(lambda: holds(server)["peers"] == 1)
        assert parked(server) == 0
        names = {name for name, _ in await told(pair.stays.socket)}
        assert names == {"producerClosed", "consumerClosed", "peersChanged", "roomProducersChanged"}
        async with connect_socketio(server.url) as again:
            assert await refused(again, "resume", {"resumeToken": pair.token}) == "resume-failed"
    assert complaints(caplog) == []


async def test_who_does_not_come_back_in_time_has_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with a_server(SHORT) as server, a_pair(server) as pair:
        await _reset(pair.goes.socket)
        await until(lambda: parked(server) == 1)
        await until(lambda: holds(server)["peers"] == 1)
        assert parked(server) == 0
        names = {name for name, _ in await told(pair.stays.socket)}
        assert names == {"producerClosed", "consumerClosed", "peersChanged", "roomProducersChanged"}
        async with connect_socketio(server.url) as again:
            assert await refused(again, "resume", {"resumeToken": pair.token}) == "resume-failed"
    assert complaints(caplog) == []


async def test_the_old_connection_is_still_there(caplog: pytest.LogCaptureFixture) -> None:
    """As far as the server knows: it is closed, and the new one goes on."""
    caplog.set_level(logging.INFO)
    async with a_server(RESUMABLE) as server, a_pair(server) as pair:
        old = pair.goes.socket
        async with connect_socketio(server.url) as again:
            ack = await again.request("resume", {"resumeToken": pair.token})
            assert ack["userId"] == old.sid
            with trio.fail_after(10):
                await old.closed.wait()
            await pair.goes_on()
            pair.goes.socket = again
            await pair.goes.request("listProducers")
            assert await refused(again, "resume", {"resumeToken": ack["resumeToken"]}) == "already-in-room"
            assert [name for name, _ in await told(pair.stays.socket)] == []
    assert complaints(caplog) == []


async def test_a_server_that_stops_does_not_wait_for_anybody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with a_server(RESUMABLE) as server:
        async with connect_socketio(server.url) as client:
            await client.request("createRoom", {"resumable": True})
            await client.request("createProducerTransport", {})
            await _reset(client)
            await until(lambda: parked(server) == 1)
        assert holds(server) == {**NOTHING, "rooms": 1, "peers": 1, "transports": 1, "registered": 1}
    assert complaints(caplog) == []


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_resuming_in_one_go(transport: Any) -> None:
    """Requests that follow at once, before the acknowledgement, are the user's already."""
    async with a_server(RESUMABLE) as server, connect_socketio(server.url) as client:
        ack = await client.request("createRoom", {"roomId": "tea", "resumable": True})
        await _reset(client)
        await until(lambda: parked(server) == 1)
        async with connect_socketio(server.url, transport=transport) as again:
            texts = [f'["resume",{{"resumeToken":"{ack["resumeToken"]}"}}]', '["listProducers"]', '["leaveRoom"]']
            resumed, producers, left = await again.request_texts(texts)
            assert (resumed["userId"], producers, left) == (client.sid, {"producers": []}, {"left": True})
        await until(lambda: holds(server) == NOTHING)


async def test_no_payload_does_harm(caplog: pytest.LogCaptureFixture) -> None:
    """Neither to a call next door nor to who sends it; a parked user stays where they are."""
    async with a_scene(caplog) as scene, connect_socketio(scene.server.url) as lost:
        token = (await lost.request("createRoom", {"roomId": "tea", "resumable": True}))["resumeToken"]
        await _reset(lost)
        await until(lambda: parked(scene.server) == 1)
        good: Json = {"resumeToken": token}
        async with connect_socketio(scene.server.url) as client:
            for args in NO_OBJECT:
                assert await answers(client, "resume", *args) == "invalid-payload", args
            bad = [each for each in NO_PAYLOAD if not isinstance(each.get("roomId", b""), str | int | list | dict)]
            assert len(bad) > 10
            for each in bad:
                assert await answers(client, "resume", {**good, **each}) == "invalid-payload", str(each)[:100]
            for wrong in (None, 5, "", "x" * 129, ["x"], {"x": 1}, True, b"x", "\ud800"):
                assert await answers(client, "resume", {"resumeToken": wrong}) == "invalid-payload", wrong
                assert await answers(client, "createRoom", {"resumable": wrong or 0}) == "invalid-payload" or (
                    wrong is True and await client.request("leaveRoom", {}) == {"left": True}
                )
            counts: list[Any] = [-1, 1.5, "1", [1], {}, True, 2**64]
            for received in counts:
                assert await answers(client, "resume", {**good, "received": received}) == "invalid-payload", received
            for guess in (token[:-1], token.partition(".")[0], "\0", "." * 128, f"{client.sid}.", "é" * 100):
                assert await answers(client, "resume", {"resumeToken": guess}) == "resume-failed", guess
            await scene.call.goes_on()
            assert parked(scene.server) == 1
            assert await answers(client, "resume", {**good, **STRANGE[-1], **STRANGE[1], "received": 2**53}) == ""
            assert await client.request("leaveRoom", {}) == {"left": True}


async def test_strangers_cannot_resume(caplog: pytest.LogCaptureFixture) -> None:
    """Who knows all there is to know of a user but the token gets nothing, and who is in a room not even with it."""
    async with a_scene(caplog) as scene, scene.attacker() as client, connect_socketio(scene.server.url) as other:
        token = (await other.request("createRoom", {"resumable": True}))["resumeToken"]
        assert await refused(client, "resume", {"resumeToken": token}) == "already-in-room"
        async with connect_socketio(scene.server.url) as stranger:
            for each in (other.sid, f"{other.sid}.", f"{other.sid}.{'x' * 32}", f"{stranger.sid}{token[20:]}"):
                assert await refused(stranger, "resume", {"resumeToken": each}) == "resume-failed"
            await stranger.emit("resume", {"resumeToken": "x"})
            assert payload_of("listProducers") == {}
            assert await refused(stranger, "listProducers", {}) == "not-in-room"
        assert await other.request("listProducers", {}) == {"producers": []}
