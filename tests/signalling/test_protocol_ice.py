"""`restartIce` through real sockets: acks, every refusal, strange payloads, and a call that goes on meanwhile."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import trio

from tests.support.media_client import media_user
from tests.support.media_transport import MediaTransport
from tests.support.protocol import Json, a_room, a_server, complaints, holds, payload_of, refused, told
from tests.support.until import until
from trio_sfu.config import Config
from trio_sfu.rooms.turn import TurnServers
from trio_sfu.server import Server

TURN = Config(host="127.0.0.1", port=0, media_port=0, hls=None, turn=("turn:t.example",), turn_secret="north")
BOTH = ("createProducerTransport", "createConsumerTransport")


async def test_restart_ice() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        for create in BOTH:
            made = await a.request(create, room)
            seen = {made["iceParameters"]["usernameFragment"]}
            # As often as one likes; the room is the user's only one where none is named.
            for where in (room, {}, room, {}):
                ack = await a.request("restartIce", {**where, "transportId": made["id"]})
                assert set(ack) == {"iceParameters"}
                assert set(ack["iceParameters"]) == {"usernameFragment", "password", "iceLite"}
                assert ack["iceParameters"]["iceLite"] is True
                seen.add(ack["iceParameters"]["usernameFragment"])
            assert len(seen) == 5
        assert holds(server)["registered"] == holds(server)["transports"] == 2
        assert "transportClosed" not in [name for name, _ in await told(a)]
        assert await told(b) == []


@pytest.mark.parametrize("create", BOTH)
async def test_turn_servers_are_told_with_the_transport(create: str) -> None:
    """Each user gets credentials of his own, good for a day."""
    async with a_server(TURN) as server, a_room(server) as (a, b, room):
        seen = set()
        for client in (a, b):
            before = time.time()
            (ice_server,) = (await client.request(create, room))["iceServers"]
            assert set(ice_server) == {"urls", "username", "credential"}
            assert ice_server["urls"] == ["turn:t.example"]
            expires, _, user_id = ice_server["username"].partition(":")
            assert user_id == client.sid
            assert int(before) + 86400 <= int(expires) <= time.time() + 86400
            (again,) = TurnServers(TURN.turn, "north", 0).ice_servers(user_id, int(expires))
            assert ice_server["credential"] == again.credential
            seen.add(again.credential)
        assert len(seen) == 2


async def test_who_may_restart_what() -> None:
    async with a_server() as server, a_room(server) as (a, b, room):
        assert await refused(a, "restartIce", {**room, **payload_of("restartIce")}) == "transport-not-found"
        made = await a.request("createProducerTransport", room)
        mine = {**room, "transportId": made["id"]}
        assert await refused(b, "restartIce", mine) == "transport-not-found"
        assert await refused(a, "restartIce", {**mine, "roomId": "elsewhere"}) == "not-in-room"
        other = await a.request("createRoom", {})
        assert await refused(a, "restartIce", {**mine, **other}) == "transport-not-found"
        # Another transport has taken its place: it is closed, and its id names nothing.
        again = await a.request("createProducerTransport", room)
        assert await refused(a, "restartIce", mine) == "transport-not-found"
        assert set(await a.request("restartIce", {**room, "transportId": again["id"]})) == {"iceParameters"}
        await a.request("leaveRoom", room)
        assert await refused(a, "restartIce", {**room, "transportId": again["id"]}) == "not-in-room"


NO_ID: list[Any] = [None, "", 5, True, 1.5, [], {}, ["x"], b"x", "x" * 65, "\ud800"]


@pytest.mark.parametrize(
    "payload",
    [
        {},
        *({"transportId": wrong} for wrong in NO_ID),
        {"transportId": "x", "roomId": 5},
        {"transportId": "x", "roomId": ""},
    ],
)
async def test_strange_payloads(payload: Json, caplog: pytest.LogCaptureFixture) -> None:
    async with a_server() as server, a_room(server) as (a, _, room):
        made = await a.request("createProducerTransport", room)
        assert await refused(a, "restartIce", {**room, **payload}) == "invalid-payload"
        strange: list[Any] = ["x", 5, []]
        for wrong in strange:
            assert await refused(a, "restartIce", wrong) == "invalid-payload"
        assert await refused(a, "restartIce", {}, {}) == "invalid-payload"
        # What nobody asked for is ignored: the server makes the credentials.
        evil = {"iceParameters": {"usernameFragment": "evil", "password": "p" * 22}}
        ack = await a.request("restartIce", {**room, "transportId": made["id"], **evil})
        assert ack["iceParameters"]["usernameFragment"] != "evil"
    assert complaints(caplog) == []


def go_on_with(transport: MediaTransport, ice_parameters: dict[str, Any]) -> None:
    """The client's part: its next checks bear the new credentials."""
    client = transport.client
    client.remote = replace(
        client.remote,
        username_fragment=ice_parameters["usernameFragment"],
        password=ice_parameters["password"],
    )
    client._check(trio.current_time())
    transport._flush()


async def has_ended(server: Server, ufrag: str) -> None:
    await until(lambda: server.endpoint.owner_of(ufrag) is None)


async def test_media_go_on() -> None:
    """Not a packet is lost on either side, whatever is restarted, and the old credentials are good for nothing."""
    async with (
        a_server() as server,
        media_user(server.url) as sender,
        media_user(server.url, room=sender.room_id) as viewer,
    ):
        video = await sender.produce_video(size=200)
        received = await viewer.consume(video.producer_id)
        sender.start_sending(pps=200)
        await received.wait_received(10)
        for user, transport in ((sender, sender.send_transport), (viewer, viewer.receive_transport)) * 3:
            assert transport is not None
            old = transport.client.remote.username_fragment
            mine = {"roomId": sender.room_id, "transportId": transport.client.remote.transport_id}
            first = await user.request("restartIce", mine)
            ack = await user.request("restartIce", mine)
            assert first != ack
            await received.wait_received(len(received.received) + 10)
            go_on_with(transport, ack["iceParameters"])
            await has_ended(server, old)
            assert holds(server)["registered"] == holds(server)["transports"] == 2
            await received.wait_received(len(received.received) + 10)
        sender.stop_sending()
        await received.wait_number(video.sent - 1)
        assert received.numbers == list(range(received.numbers[0], video.sent))
