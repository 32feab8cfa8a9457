"""All ways to leave, in the middle of a call with real media: everything is freed, and the others are told.

And the races of those who come and go at the same time.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.front_door import nothing_left
from tests.support.media_client import MediaUser, media_user
from tests.support.protocol import (
    LOCAL,
    NOTHING,
    Json,
    a_server,
    complaints,
    holds,
    opus,
    refused,
    the_one_error,
    told,
)
from tests.support.socketio_client import ClientClosed, SocketIOClient, connect_socketio
from tests.support.until import until
from trio_sfu.metrics import open_fds
from trio_sfu.server import Server, open_server

Leave = Callable[[SocketIOClient], Awaitable[object]]


async def _leave_room(client: SocketIOClient) -> None:
    assert await client.request("leaveRoom", {}) == {"left": True}


async def _leave_namespace(client: SocketIOClient) -> None:
    await client.send_raw("41")


async def _close_session(client: SocketIOClient) -> None:
    await client.send_raw("1")


async def _cut(client: SocketIOClient) -> None:
    client.engine.cut(reset=False)


async def _reset(client: SocketIOClient) -> None:
    client.engine.cut(reset=True)


async def _break_the_protocol(client: SocketIOClient) -> None:
    await client.send_raw("42[")


def everything(server: Server) -> Json:
    """What users own, and what any of it costs this process, the test's clients included."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    return {**holds(server), "tasks": tasks, "fds": open_fds()}


async def in_a_call(stays: MediaUser, goes: MediaUser) -> None:
    """Media both ways: ``goes`` has two producers, a consumer, and everything runs."""
    seen = await goes.consume(stays.outgoing[0].producer_id)
    video, audio = await goes.produce_video(size=200), await goes.produce_audio()
    streams = [await stays.consume(video.producer_id), await stays.consume(audio.producer_id)]
    goes.start_sending(100)
    for stream in (seen, *streams):
        await stream.wait_received(3)
    await told(stays.socket)


async def is_told(stays: MediaUser) -> None:
    """The events that follow when the other one of a call has gone."""
    events = await told(stays.socket)
    consumers = {stream.consumer_id for stream in stays.incoming[-2:]}
    producers = {stream.producer_id for stream in stays.incoming[-2:]}
    closed = [payload for name, payload in events if name == "consumerClosed"]
    assert {payload["consumerId"] for payload in closed} == consumers
    closed = [payload for name, payload in events if name == "producerClosed"]
    assert {payload["producerId"] for payload in closed} == producers
    assert len(closed) == 2
    latest = dict(events)  # the last of each name
    assert latest["peersChanged"]["peers"] == [{"userId": stays.user_id, "name": None}]
    (left,) = latest["roomProducersChanged"]["producers"]
    assert left["userId"] == stays.user_id
    assert set(latest) == {"consumerClosed", "producerClosed", "peersChanged", "roomProducersChanged"}


async def prepare(stays: MediaUser) -> None:
    """One who sends, and has both transports, so that what comes and goes later is the other's."""
    video = await stays.produce_video(size=200)
    own = await stays.consume(video.producer_id)
    await stays.request("closeConsumer", {"consumerId": own.consumer_id})
    stays.start_sending(100)


@pytest.mark.parametrize(
    ("transport", "leave"),
    [
        ("websocket", _leave_room),
        ("polling", _leave_room),
        ("websocket", SocketIOClient.disconnect),
        ("polling", SocketIOClient.disconnect),
        ("websocket", _leave_namespace),
        ("polling", _leave_namespace),
        ("websocket", _close_session),
        ("polling", _close_session),
        ("websocket", _cut),
        ("polling", _cut),
        ("websocket", _reset),
        ("polling", _reset),
        ("websocket", _break_the_protocol),
    ],
)
async def test_leaving_frees_everything(transport: Any, leave: Leave, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with a_server() as server:
        nobody = everything(server)
        async with media_user(server.url, transport=transport) as stays:
            await prepare(stays)
            before = everything(server)
            held = holds(server)
            assert held == {**NOTHING, "rooms": 1, "peers": 1, "transports": 2, "producers": 1} | {
                "registered": 2, "routes": 2
            }  # fmt: skip
            async with media_user(server.url, room=stays.room_id, transport=transport) as goes:
                await in_a_call(stays, goes)
                assert holds(server) == {**held, "peers": 2, "transports": 4, "producers": 3, "consumers": 3} | {
                    "registered": 4, "routes": 4
                }  # fmt: skip
                await leave(goes.socket)
                await until(lambda: holds(server) == held)
                await is_told(stays)
            await until(lambda: everything(server) == before)
            # The last one out ends the room.
            async with connect_socketio(server.url) as late:
                await leave(stays.socket)
                await until(lambda: holds(server) == NOTHING)
                assert await refused(late, "joinRoom", {"roomId": stays.room_id}) == "room-not-found"
        await until(lambda: everything(server) == nobody)
    assert complaints(caplog) == []


async def test_those_who_fall_silent_are_missed(caplog: pytest.LogCaptureFixture) -> None:
    """The ping time-out finds them, by either transport, also where media still come."""
    caplog.set_level(logging.INFO)
    async with (
        a_server(replace(LOCAL, ping_interval=0.2, ping_timeout=1.0)) as server,
        media_user(server.url) as one,
        media_user(server.url, transport="polling") as two,
    ):
        for stays in (one, two):
            await prepare(stays)
        before, held = everything(server), holds(server)
        async with (
            media_user(server.url, room=one.room_id, transport="polling") as first,
            media_user(server.url, room=two.room_id) as second,
        ):
            await in_a_call(one, first)
            await in_a_call(two, second)
            for goes in (first, second):
                goes.socket.engine.answer_pings = False
            await until(lambda: holds(server) == held)
            await is_told(one)
            await is_told(two)
        await until(lambda: everything(server) == before)
    assert complaints(caplog) == []


async def test_leaving_one_room_leaves_the_others_alone() -> None:
    async with a_server() as server, connect_socketio(server.url) as client:
        rooms = [await client.request("createRoom", {}) for _ in range(3)]
        for room in rooms:
            await client.request("createProducerTransport", room)
            assert "id" in await client.request("produce", {**room, "kind": "audio", "rtpParameters": opus()})
        await client.request("leaveRoom", rooms[1])
        assert holds(server) == {**NOTHING, "rooms": 2, "peers": 2, "transports": 2, "producers": 2, "registered": 2}
        assert await refused(client, "listProducers", rooms[1]) == "not-in-room"
        # Disconnecting leaves them all.
        await client.disconnect()
        await until(lambda: holds(server) == NOTHING)


async def test_requests_under_way_when_the_connection_ends(caplog: pytest.LogCaptureFixture) -> None:
    """What they make is freed too."""
    caplog.set_level(logging.INFO)
    requests = ['42["createRoom",{"roomId":"tea"}]', '42["createProducerTransport"]', '42["createConsumerTransport"]']
    async with a_server() as server:
        before = everything(server)
        for count, reset in itertools.product(range(1, 4), (False, True)):
            async with connect_socketio(server.url) as client:
                await client.send_raw(*requests[:count] * 5)
                client.engine.cut(reset=reset)
            await until(lambda: everything(server) == before)
            async with connect_socketio(server.url) as client:  # the name is free again
                assert await client.request("createRoom", {"roomId": "tea"}) == {"roomId": "tea"}
            await until(lambda: everything(server) == before)
    assert complaints(caplog) == []


async def test_the_server_ends_in_the_middle_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """Clients are told on both planes, those who are just asking for something too; nothing is left."""
    caplog.set_level(logging.INFO)
    with the_one_error():
        async with nothing_left(), trio.open_nursery() as nursery:
            fds = open_fds()
            async with open_server(LOCAL, dist=Path("/nonexistent")) as server:
                stays = await nursery.start(_hold, server.url, None, "websocket")
                await prepare(stays)
                goes = await nursery.start(_hold, server.url, stays.room_id, "polling")
                await in_a_call(stays, goes)
                busy = await nursery.start(_hold, server.url, stays.room_id, "websocket")
                nursery.start_soon(_keep_asking, busy.socket)
            assert holds(server) == NOTHING
            with trio.fail_after(5):
                for user in (stays, goes, busy):
                    await user.socket.closed.wait()
            for user in (stays, goes):
                for transport in (user.send_transport, user.receive_transport):
                    await until(lambda: transport.client.state == "closed")  # noqa: B023 - waited for here
            nursery.cancel_scope.cancel()
        assert open_fds() <= fds
    assert complaints(caplog) == []


async def _hold(
    url: str, room: str | None, transport: Any, *, task_status: trio.TaskStatus[MediaUser] = trio.TASK_STATUS_IGNORED
) -> None:
    async with media_user(url, room=room, transport=transport) as user:
        task_status.started(user)
        await trio.sleep_forever()


async def _keep_asking(client: SocketIOClient) -> None:
    try:
        while True:
            await client.request("createProducerTransport", {})
            await client.request("listProducers", {})
    except ClientClosed:
        pass


# Races


async def test_one_of_many_gets_the_name() -> None:
    async with a_server() as server, trio.open_nursery() as nursery:
        clients = [await nursery.start(_connected, server.url) for _ in range(10)]
        answers: dict[str, Json] = {}

        async def create(client: SocketIOClient) -> None:
            answers[client.sid] = await client.request("createRoom", {"roomId": "tea"})

        await _all_at_once(*[(create, client) for client in clients])
        (winner,) = [sid for sid, answer in answers.items() if answer == {"roomId": "tea"}]
        assert {answer.get("code") for sid, answer in answers.items() if sid != winner} == {"room-exists"}
        assert holds(server)["peers"] == 1
        nursery.cancel_scope.cancel()


async def test_all_come_and_half_of_them_go() -> None:
    """In the end everyone in the room has been told the truth."""
    async with a_server() as server, trio.open_nursery() as nursery:
        first, *others = [await nursery.start(_connected, server.url) for _ in range(9)]
        room = await first.request("createRoom", {})

        async def join(client: SocketIOClient) -> None:
            assert await client.request("joinRoom", room) == room
            await client.request("createProducerTransport", room)
            assert "id" in await client.request("produce", {**room, "kind": "audio", "rtpParameters": opus()})

        async def leave(client: SocketIOClient) -> None:
            await client.request("leaveRoom", room)

        async def join_and_leave(client: SocketIOClient) -> None:
            await join(client)
            await leave(client)

        await _all_at_once(*[(join_and_leave if i % 2 else join, client) for i, client in enumerate(others)])
        stay = [first, *others[::2]]
        truth = {client.sid for client in stay}
        for client in stay:
            latest = dict(await told(client))
            assert {peer["userId"] for peer in latest["peersChanged"]["peers"]} == truth
            producers = latest["roomProducersChanged"]["producers"]
            assert sorted(each["userId"] for each in producers) == sorted(truth - {first.sid})
            listed = (await client.request("listProducers", room))["producers"]
            assert {each["producerId"] for each in listed} == {
                each["producerId"] for each in producers if each["userId"] != client.sid
            }
        nursery.cancel_scope.cancel()


async def test_joining_as_the_last_one_leaves() -> None:
    """Either the room lives on with the newcomer in it, or it is no more; both are said truly."""
    async with a_server() as server, connect_socketio(server.url) as a, connect_socketio(server.url) as b:
        for i in range(40):
            room = await a.request("createRoom", {})
            if i % 3 == 0:
                await a.request("createProducerTransport", room)  # leaving takes a little longer
            answers: list[Json] = []

            async def join(room: Json, answers: list[Json], delay: int) -> None:
                for _ in range(delay):
                    await trio.lowlevel.checkpoint()
                answers.append(await b.request("joinRoom", room))

            async def leave(room: Json) -> None:
                assert await a.request("leaveRoom", room) == {"left": True}

            await _all_at_once((leave, room), (join, room, answers, i // 5))
            if answers == [room]:
                assert await b.request("listProducers", room) == {"producers": []}
                assert await b.request("leaveRoom", room) == {"left": True}
            else:
                assert answers[0]["code"] == "room-not-found"
                assert await refused(b, "listProducers", room) == "not-in-room"
            assert holds(server) == NOTHING


async def test_one_client_in_a_hurry() -> None:
    """All sent before the first answer: done in order."""
    async with a_server() as server, connect_socketio(server.url) as client, connect_socketio(server.url) as other:
        room = {"roomId": "tea"}
        await other.request("createRoom", room)
        await other.request("joinRoom", room)
        names = ["joinRoom", "joinRoom", "createProducerTransport", "leaveRoom", "leaveRoom", "joinRoom", "leaveRoom"]
        answers = await client.request_texts([f'["{name}",{{"roomId":"tea"}}]' for name in names * 3])
        for answer in (answers[:7], answers[7:14], answers[14:]):
            assert answer[:2] == [room, room]
            assert "iceParameters" in answer[2]
            assert answer[3:] == [{"left": True}, answer[4], room, {"left": True}]
            assert answer[4]["code"] == "not-in-room"
        assert holds(server) == {**NOTHING, "rooms": 1, "peers": 1}


async def _connected(url: str, *, task_status: trio.TaskStatus[SocketIOClient] = trio.TASK_STATUS_IGNORED) -> None:
    async with connect_socketio(url) as client:
        task_status.started(client)
        await trio.sleep_forever()


async def _all_at_once(*calls: Any) -> None:
    async with trio.open_nursery() as nursery:
        for function, *args in calls:
            nursery.start_soon(function, *args)
