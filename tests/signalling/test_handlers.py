"""Events in, acks out: every event gets its ack, whatever it holds; real rooms, stand-ins for the media."""

import logging
import string
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.fake_media import FakeMedia, dtls_parameters
from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.rooms.envelopes import round_trip
from trio_sfu.rooms.messages import REQUESTS, Request
from trio_sfu.rooms.registry import Rooms, open_rooms
from trio_sfu.rooms.room import RoomLimits
from trio_sfu.signalling.handlers import Handlers, Sockets
from trio_sfu.signalling.payloads import MAX_VALUES, InvalidPayload, decode_payload

OPUS = {"mimeType": "audio/opus", "clockRate": 48000, "channels": 2, "payloadType": 111}
RTP_PARAMETERS = {"codecs": [OPUS], "encodings": [{"ssrc": 1}], "mid": "0"}
CAPABILITIES = msgspec.json.decode(msgspec.json.encode(router_rtp_capabilities()))
DTLS = msgspec.json.decode(msgspec.json.encode(dtls_parameters()))


class FakeSocket:
    def __init__(self, id_: str) -> None:
        self.id = id_
        self.events: list[tuple[str, Any]] = []
        self.connected = True
        self.after: list[Callable[[], None]] = []

    def after_ack(self, action: Callable[[], None]) -> None:
        self.after.append(action)

    def disconnect(self) -> None:
        self.connected = False

    def emit(self, name: str, *args: object) -> None:
        msgspec.json.encode(args)  # must be JSON
        self.events.append((name, args[0]))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Server:
    def __init__(self, handlers: Handlers, sockets: Sockets, rooms: Rooms, media: FakeMedia) -> None:
        self.handlers = handlers
        self.sockets = sockets
        self.rooms = rooms
        self.media = media

    async def connect(self, id_: str) -> FakeSocket:
        socket = FakeSocket(id_)
        await self.handlers.connected(socket, None)
        return socket

    async def ask(self, socket: FakeSocket, name: str, *args: object) -> dict[str, Any]:
        with trio.fail_after(5):
            ack = await self.handlers.event(socket, name, list(args))
        assert len(ack) == 1
        assert isinstance(ack[0], dict)
        assert msgspec.json.decode(msgspec.json.encode(ack[0])) == ack[0]
        if "code" in ack[0]:
            assert set(ack[0]) == {"error", "code"}
            assert 0 < len(ack[0]["error"]) < 600
        return ack[0]


@asynccontextmanager
async def a_server(**options: Any) -> AsyncIterator[Server]:
    media = FakeMedia()
    sockets = Sockets()
    async with open_rooms(media.room_media(), RoomLimits(), sockets.deliver) as rooms:
        yield Server(Handlers(rooms, sockets, **options), sockets, rooms, media)
    assert media.open == set()


async def test_a_call() -> None:
    """Every row of the contract's table, with the names it promises."""
    async with a_server() as server:
        a, b = await server.connect("a"), await server.connect("b")
        created = await server.ask(a, "createRoom", {})
        assert set(created) == {"roomId"}
        room = {"roomId": created["roomId"]}
        assert await server.ask(b, "joinRoom", room) == room
        assert "roomProducersChanged" in a.names()
        capabilities = await server.ask(b, "getRouterRtpCapabilities", room)
        assert capabilities == {"rtpCapabilities": CAPABILITIES}
        for socket in (a, b):
            for direction in ("Producer", "Consumer"):
                transport = await server.ask(socket, f"create{direction}Transport", room)
                assert set(transport) == {"id", "iceParameters", "iceCandidates", "dtlsParameters"}
                connect = {**room, "dtlsParameters": DTLS}
                ack = await server.ask(socket, f"connect{direction}Transport", connect)
                assert ack == {"connected": True}
        produce = {**room, "kind": "audio", "rtpParameters": RTP_PARAMETERS, "appData": {"source": "mic"}}
        produced = await server.ask(a, "produce", produce)
        assert set(produced) == {"id"}
        producer = {"userId": "a", "producerId": produced["id"], "kind": "audio"}
        assert ("newProducer", {**room, **producer, "appData": {"source": "mic"}}) in b.events
        assert "newProducer" not in a.names()
        for socket in (a, b):
            assert socket.events[-1] == ("roomProducersChanged", {**room, "producers": [producer]})
        assert await server.ask(a, "listProducers", room) == {"producers": []}
        listed = await server.ask(b, "listProducers", None)
        assert listed == {"producers": [{**producer, "paused": False, "appData": {"source": "mic"}}]}
        consume = {**room, "producerId": produced["id"], "rtpCapabilities": CAPABILITIES, "paused": True}
        consumed = await server.ask(b, "consume", consume)
        assert consumed["producerId"] == produced["id"]
        assert consumed["kind"] == "audio"
        assert consumed["rtpParameters"]["codecs"][0]["mimeType"] == "audio/opus"
        assert (consumed["type"], consumed["paused"], consumed["producerPaused"]) == ("simple", True, False)
        assert consumed["appData"] == {"source": "mic"}
        consumer = {**room, "consumerId": consumed["id"]}
        assert await server.ask(b, "resumeConsumer", consumer) == {"resumed": True}
        assert await server.ask(b, "pauseConsumer", consumer) == {"paused": True}
        assert await server.ask(b, "requestKeyFrame", consumer) == {"requested": True}
        mine = {**room, "producerId": produced["id"]}
        assert await server.ask(a, "pauseProducer", mine) == {"paused": True}
        assert await server.ask(a, "resumeProducer", mine) == {"resumed": True}
        assert {"producerPaused", "producerResumed"} < set(b.names())
        assert await server.ask(a, "closeProducer", mine) == {"closed": True}
        closed = {**room, "consumerId": consumed["id"], "producerId": produced["id"]}
        assert ("consumerClosed", closed) in b.events
        assert ("producerClosed", {**room, "producerId": produced["id"], "userId": "a"}) in b.events
        assert await server.ask(b, "closeConsumer", consumer) == {
            "error": "You have no such consumer in this room",
            "code": "consumer-not-found",
        }
        assert await server.ask(a, "stopProducing", room) == {"stopped": True}
        assert await server.ask(a, "leaveRoom", room) == {"left": True}
        await server.handlers.disconnected(b, "transport close")
        await wait_all_tasks_blocked()
        assert server.rooms.counts()[0] == 0
        assert len(server.sockets) == 1


async def test_names() -> None:
    async with a_server() as server:
        a, b = await server.connect("a"), await server.connect("b")
        room = await server.ask(a, "createRoom", {"roomId": "tea", "name": "Ann"})
        assert room == {"roomId": "tea"}
        await server.ask(b, "joinRoom", {"roomId": "tea"})
        peers = [{"userId": "a", "name": "Ann"}, {"userId": "b", "name": None}]
        assert ("peersChanged", {"roomId": "tea", "peers": peers}) in b.events


async def test_documented_errors() -> None:
    async with a_server() as server:
        a = await server.connect("a")
        ack = await server.ask(a, "joinRoom", {"roomId": "nowhere"})
        assert ack == {"error": "Room does not exist", "code": "room-not-found"}
        assert (await server.ask(a, "listProducers", {"roomId": "nowhere"}))["code"] == "not-in-room"
        assert (await server.ask(a, "listProducers"))["code"] == "not-in-room"
        assert (await server.ask(a, "noSuchEvent", {}))["code"] == "unknown-event"
        assert (await server.ask(a, "disconnect"))["code"] == "unknown-event"
        assert (await server.ask(a, "x" * 100_000, {}))["code"] == "unknown-event"


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: list[list[object]] = [
    ["a string"],
    [5],
    [True],
    [[]],
    [[{}]],
    [b"bytes"],
    [{}, {}],
    [None, None],
    [{"roomId": 5}],
    [{"roomId": ["room"]}],
    [{"roomId": {}}],
    [{"roomId": ""}],
    [{"roomId": "x" * 2_000_000}],
    [{"roomId": "\ud800"}],
    [{"roomId": b"room"}],
    [{"\udfff": 1}],
    [{"extra": b"bytes"}],
    [{"extra": _deep(500)}],
    [{"extra": _deep(50_000)}],
    [{"extra": [0] * 100_000}],
    [{"extra": 10**30}],
    [{"extra": float("nan")}],
    [{"extra": float("inf")}],
    [{"extra": {1: 2}, "more": object()}],
    [{"@": "createRoom", "roomId": "/"}],
]


@pytest.mark.parametrize("name", sorted(REQUESTS))
async def test_hostile_payloads(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with a_server() as server:
        a = await server.connect("a")
        await server.ask(a, "createRoom", {})
        for args in HOSTILE:
            ack = await server.ask(a, name, *args)
            assert ack["code"] == "invalid-payload", (name, str(args)[:100], ack)
        assert "listProducers" not in a.names()
        assert "producers" in await server.ask(a, "listProducers", {})
    assert caplog.records == []


_PRODUCE = {"kind": "audio", "rtpParameters": RTP_PARAMETERS}


@pytest.mark.parametrize(
    ("name", "payload", "says"),
    [
        ("joinRoom", {"roomId": 5}, "joinRoom: expected `str | null`, got `int` in `roomId`"),
        ("produce", {}, "produce: object missing required field `kind`"),
        ("produce", {**_PRODUCE, "kind": "text"}, "produce: invalid enum value 'text' in `kind`"),
        ("produce", {**_PRODUCE, "kind": "t" * 100_000}, "produce: invalid enum value 'ttt"),
        ("produce", {**_PRODUCE, "rtpParameters": {"codecs": [1]}}, "in `rtpParameters.codecs[0]`"),
        ("produce", {**_PRODUCE, "appData": {"x": "y" * 5000}}, "`appData` is larger than"),
        ("produce", {**_PRODUCE, "appData": [1]}, "in `appData`"),
        ("consume", {"producerId": "x"}, "missing required field `rtpCapabilities`"),
        ("connectProducerTransport", {"dtlsParameters": None}, "in `dtlsParameters`"),
        ("closeProducer", None, "missing required field `producerId`"),
    ],
)
def test_the_sentence_names_the_field(name: str, payload: object, says: str) -> None:
    with pytest.raises(InvalidPayload) as error:
        decode_payload(name, REQUESTS[name], [payload])
    assert says in str(error.value)
    assert len(str(error.value)) < 500


def test_no_payload_is_an_empty_one() -> None:
    nothings: list[list[object]] = [[], [None], [{}], [{"roomId": None}]]
    for args in nothings:
        request: Request = decode_payload("leaveRoom", REQUESTS["leaveRoom"], args)
        assert request.room_id is None


def test_a_large_but_honest_payload() -> None:
    payload = {"producerId": "x", "rtpCapabilities": {"codecs": CAPABILITIES["codecs"] * 4}}
    decode_payload("consume", REQUESTS["consume"], [payload])


async def test_rate_limit(autojump_clock: MockClock) -> None:
    async with a_server(rate=10, burst=20) as server:
        a, b = await server.connect("a"), await server.connect("b")
        acks = [await server.ask(a, "noSuchEvent") for _ in range(25)]
        assert [ack["code"] for ack in acks] == ["unknown-event"] * 20 + ["rate-limited"] * 5
        assert (await server.ask(b, "noSuchEvent"))["code"] == "unknown-event"
        await trio.sleep(0.5)
        acks = [await server.ask(a, "noSuchEvent") for _ in range(6)]
        assert [ack["code"] for ack in acks] == ["unknown-event"] * 5 + ["rate-limited"]
        await server.handlers.disconnected(a, "gone")
        assert server.handlers._buckets.keys() == {"b"}


async def test_disconnecting_in_a_cancelled_scope_frees_everything() -> None:
    async with a_server() as server:
        a = await server.connect("a")
        await server.ask(a, "createRoom", {})
        await server.ask(a, "createProducerTransport", {})
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.handlers.disconnected(a, "server shutting down")
        await wait_all_tasks_blocked()
        assert server.rooms.counts()[0] == 0
        assert server.media.open == set()


async def test_a_bug_behind_a_request() -> None:
    async with a_server() as server:
        a, b = await server.connect("a"), await server.connect("b")
        room = await server.ask(a, "createRoom", {})
        await server.ask(b, "joinRoom", room)
        server.media.bugs.add("run")
        ack = await server.ask(a, "createProducerTransport", room)
        assert ack["code"] == "internal"
        assert "ZeroDivision" not in ack["error"]
        assert a.names()[-1] == "peerClosed"
        assert await server.ask(b, "listProducers", room) == {"producers": []}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(string.ascii_letters, max_size=8), inner),
    max_leaves=20,
)
_names = st.sampled_from(sorted(REQUESTS))
_fields = st.sampled_from(
    ["roomId", "name", "kind", "rtpParameters", "appData", "producerId", "consumerId", "rtpCapabilities", "paused",
     "dtlsParameters", "codecs", "encodings", "fingerprints", "@"]
)  # fmt: skip
_good: dict[str, Any] = {
    "kind": "audio",
    "rtpParameters": RTP_PARAMETERS,
    "producerId": "x",
    "consumerId": "y",
    "rtpCapabilities": CAPABILITIES,
    "dtlsParameters": DTLS,
}


@settings(max_examples=150, deadline=None)
@given(name=_names, args=st.lists(_json, max_size=2))
def test_fuzz(name: str, args: list[object]) -> None:
    """Any arguments give InvalidPayload or a request that survives a process boundary."""
    _decode(name, args)


@settings(max_examples=150, deadline=None)
@given(name=_names, changes=st.dictionaries(_fields, _json, max_size=3))
def test_fuzz_mutated(name: str, changes: dict[str, object]) -> None:
    """As above, for payloads that are nearly right."""
    _decode(name, [{**_good, **changes}])


def _decode(name: str, args: list[object]) -> None:
    try:
        request = decode_payload(name, REQUESTS[name], args)
    except InvalidPayload as error:
        sentence = str(error)
    else:
        assert round_trip(request, Request) == request
        return
    assert 0 < len(sentence) < 500


def test_the_walk_is_bounded() -> None:
    wide = {"a": [[0] * 100 for _ in range(1000)]}
    assert MAX_VALUES < 100_000
    with pytest.raises(InvalidPayload, match="too many values"):
        decode_payload("createRoom", REQUESTS["createRoom"], [wide])
