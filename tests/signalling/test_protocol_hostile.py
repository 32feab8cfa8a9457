"""Whatever a client sends: it gets its ack, keeps its socket, and a call next door misses not one packet.

Everything here goes through real sockets to one real server, in which another room's call is running.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.support.protocol import (
    ABOUT_CONSUMER,
    ABOUT_PRODUCER,
    CAPABILITIES,
    LOCAL,
    Json,
    Scene,
    a_scene,
    answers,
    holds,
    payload_of,
    refused,
    told,
)
from tests.support.socketio_client import ClientClosed, SocketIOClient, connect_socketio
from tests.support.until import until
from trio_sfu.rooms.messages import REQUESTS

MAX_PAYLOAD = LOCAL.max_payload


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


#: Arguments that no request takes.
NO_OBJECT: list[list[Any]] = [
    ["a string"], [""], [5], [0], [-1.5], [True], [False], [[]], [[{}]], [["roomId"]], [b"bytes"], [b""],
    [{}, {}], [None, None], [{}, "more"], [{}] * 100, [{}, *[b"x"] * 60],
]  # fmt: skip
NOTHING: list[list[Any]] = [[], [None], [{}]]
#: Objects that no request takes.
NO_PAYLOAD: list[Json] = [
    {"roomId": 5}, {"roomId": True}, {"roomId": ["room"]}, {"roomId": {}}, {"roomId": ""}, {"roomId": "x" * 65},
    {"roomId": b"room"}, {"roomId": "\ud800"}, {"\udfff": 1}, {"extra": b"bytes"}, {"extra": [{"deeper": b""}]},
    {"extra": deep(30)}, {"extra": deep(60)}, {"extra": [0] * 20_000}, {"extra": {str(i): i for i in range(9_000)}},
    {"extra": 2**63}, {"extra": -(10**30)}, {"extra": "x" * 300_000}, {"x" * 300_000: 1}, {"@": "noSuchTag"},
]  # fmt: skip
#: Objects whose strange parts are ignored, because the request has no field so called.
STRANGE: list[Json] = [
    {"__proto__": {"roomId": "x"}, "constructor": {"prototype": {}}, "hasOwnProperty": 1, "toString": None},
    {"tag": "x", "type": "x", "__class__": "x", "": "", "room_id": 5, "self": {}, "user_id": "me"},
    {"extra": {"_placeholder": True, "num": 0}},
    {"userId": "somebody else", "sid": "somebody else", "code": "x", "error": "x"},
]
#: Socket.IO's own text, where the client library would not say it like this.
NO_NUMBERS = ["NaN", "-Infinity", "1e400", "-1e999", "1" * 101, "9" * 100_000]


@pytest.mark.parametrize("events", [sorted(REQUESTS)[i::4] for i in range(4)], ids=" ".join)
async def test_no_payload_does_harm(events: list[str], caplog: pytest.LogCaptureFixture) -> None:
    async with a_scene(caplog) as scene:
        for event in events:
            async with scene.attacker() as client:
                await _strange_payloads(scene, client, event)


async def _strange_payloads(scene: Scene, client: SocketIOClient, event: str) -> None:
    good = payload_of(event)
    for args in NO_OBJECT:
        assert await answers(client, event, *args) == "invalid-payload", (event, args)
    for bad in NO_PAYLOAD:
        assert await answers(client, event, {**good, **bad}) == "invalid-payload", (event, str(bad)[:100])
    await scene.call.goes_on()
    # Above what a message may be, and just below.
    below = MAX_PAYLOAD - len(json.dumps(good)) - 1000
    assert await answers(client, event, {**good, "extra": "x" * 2_000_000}) == "payload-too-large"
    assert await answers(client, event, {**good, "extra": "x" * below}) == "invalid-payload"
    costly: list[Any] = [[[]] * (below // 4), [0] * (below // 3)]
    for each in costly if event == "produce" else ():
        assert await answers(client, event, {**good, "extra": each}) == "payload-too-large"
    await scene.call.goes_on()
    # Nothing at all is an empty object; parts that nobody asked for are ignored.
    for args in NOTHING:
        assert (await answers(client, event, *args) == "invalid-payload") == bool(good), (event, args)
    if event == "leaveRoom":
        await client.request("createRoom", {})
    for strange in STRANGE:
        assert await answers(client, event, {**good, **strange}) != "invalid-payload", (event, strange)
    # Rooms that are not there, or are none of its business.
    if event != "createRoom":
        unknown = {**good, "roomId": "room_000000"}
        assert await answers(client, event, unknown) == ("room-not-found" if event == "joinRoom" else "not-in-room")
    if event not in ("createRoom", "joinRoom"):
        assert await answers(client, event, {**good, "roomId": scene.call.room_id}) == "not-in-room"


async def test_no_text_does_harm(caplog: pytest.LogCaptureFixture) -> None:
    """Messages as no client library writes them, though they are Socket.IO."""
    async with a_scene(caplog) as scene:
        for event in sorted({*REQUESTS, "resume"}):
            async with scene.attacker() as client:
                await _strange_texts(client, event)


async def _strange_texts(client: SocketIOClient, event: str) -> None:
    objects = {
        "[" * 10_000 + "]" * 10_000: "payload-too-deep",
        '{"roomId":' * 10_000 + "1" + "}" * 10_000: "payload-too-deep",
        '{"extra":' * 20 + "1" + "}" * 20: "invalid-payload",
        '{"roomId":"a","roomId":5}': "invalid-payload",
        '{"roomId":"\\ud800"}': "invalid-payload",
        '{"\\u0000":1},1': "invalid-payload",
        **{f'{{"extra":{number}}}': "invalid-payload" for number in NO_NUMBERS},
    }
    for text, code in objects.items():
        ack = await client.request_text(f'["{event}",{text}]')
        assert set(ack) == {"error", "code"}
        assert ack["code"] == code, (event, text[:100])
        await client.send_raw(f'42["{event}",{text}]')  # without an ack: nothing comes
    # Attachments that are named twice, or not at all; an id as long as ids get.
    twice = '{"a":{"_placeholder":true,"num":0}},{"_placeholder":true,"num":0}'
    for text in (twice, "5"):
        ack = await client.request_text(f'["{event}",{text}]', b"1", b"2", ack_id=10**15 - 1)
        assert ack["code"] == "invalid-payload"
        await client.send_raw(f'452-["{event}",{text}]', b"1", b"2")


async def test_what_polling_cannot_carry(caplog: pytest.LogCaptureFixture) -> None:
    """A POST above maxPayload is refused as HTTP refuses it, without an ack: the session goes on all the same."""
    async with a_scene(caplog) as scene, scene.attacker("polling") as client:
        with pytest.raises(ClientClosed):
            await client.send_raw(f'421["createRoom",{{"extra":"{"x" * 2_000_000}"}}]')
        assert await answers(client, "createRoom", {"extra": "x" * (MAX_PAYLOAD - 5000)}) == "invalid-payload"
        assert await answers(client, "joinRoom", {"roomId": b"\0\1"}) == "invalid-payload"
        assert (await client.request_text(f'["joinRoom",{"[" * 10_000}{"]" * 10_000}]'))["code"] == "payload-too-deep"


@pytest.mark.parametrize(
    "packets",
    [
        ["42[" + "0," * 2_100_000 + "0]"],  # above four times maxPayload
        [b"x" * (MAX_PAYLOAD + 1)],
        ['42["joinRoom",'],
        ['42["disconnect"]'],
        ["42[5]"],
        ["45"],
        ["7"],
        ["0{}"],
        ['451-["joinRoom",{"_placeholder":true,"num":-1}]', b"x"],
        ['451-["joinRoom",{"_placeholder":true,"num":0}]', '42["joinRoom"]'],
        ['4565-["joinRoom"]'],
        ['42/admin,1["joinRoom"]'],
    ],
    ids=lambda packets: str(packets[0][:20]),
)
async def test_who_breaks_the_protocol_itself_is_put_out(
    packets: list[str | bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """No ack can be given to what is no request. All that the client owned is freed."""
    async with a_scene(caplog) as scene, connect_socketio(scene.server.url) as client:
        before = holds(scene.server)
        await client.request("createRoom", {})
        await client.request("createProducerTransport", {})
        await client.request("produce", payload_of("produce"))
        try:
            await client.send_raw(*packets)
        except ClientClosed:
            pass
        await until(client.closed.is_set)
        await until(lambda: holds(scene.server) == before)


async def test_a_flood_is_its_senders_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Above 200 at once and 100 a second requests are refused, each with its ack; others' are not."""
    async with (
        a_scene(caplog) as scene,
        connect_socketio(scene.server.url, transport="polling") as client,
        connect_socketio(scene.server.url) as other,
    ):
        # In one POST, so that no machine is too slow for it to be a flood.
        codes = [ack["code"] for ack in await client.request_texts(['["listProducers"]'] * 800)]
        assert set(codes[:200]) == {"not-in-room"}
        assert set(codes) == {"not-in-room", "rate-limited"}
        assert await refused(other, "listProducers", {}) == "not-in-room"
        # It is let in again by and by.
        with trio.fail_after(5):
            while "error" in await client.request("createRoom", {}):
                await scene.call.goes_on()


async def test_strangers_cannot_touch_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """Who knows all its ids, but is in another room, gets nothing and changes nothing."""
    async with a_scene(caplog) as scene, scene.attacker() as client:
        producer, consumer = scene.call.sent.producer_id, scene.call.received.consumer_id
        ids = {"producerId": producer, "consumerId": consumer}
        for event in ABOUT_PRODUCER:
            assert await refused(client, event, ids) == "producer-not-found"
            assert await refused(client, event, {**ids, "producerId": consumer}) == "producer-not-found"
        for event in ABOUT_CONSUMER:
            assert await refused(client, event, ids) == "consumer-not-found"
            assert await refused(client, event, {**ids, "consumerId": producer}) == "consumer-not-found"
        assert await refused(client, "consume", {**ids, "rtpCapabilities": CAPABILITIES}) == "producer-not-found"
        assert await refused(client, "stopProducing", {"roomId": scene.call.room_id}) == "not-in-room"
        names = {name for name, _ in await told(client)}
        assert names <= {"peersChanged", "roomProducersChanged"}
