"""Every message survives JSON and msgpack, and what a stranger sent is bounded."""

from typing import Any, get_args

import msgspec
import pytest

from tests.support.fake_media import FakeMedia, FakeTransport, dtls_parameters
from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.media.parameters import RtpCodecParameters, RtpParameters
from trio_sfu.rooms import envelopes, messages
from trio_sfu.rooms.messages import REQUESTS, TAG_FIELD, EventPayload, Reply, Request, to_wire

_TRANSPORT = FakeTransport(FakeMedia(), None)  # type: ignore[arg-type]
_PARAMETERS = RtpParameters(codecs=(RtpCodecParameters(mime_type="audio/opus", clock_rate=48000, payload_type=111),))

# A value for each field name there is.
_VALUES: dict[str, Any] = {
    "room_id": "room_abc123",
    "name": "Åsa",
    "kind": "audio",
    "paused": True,
    "producer_paused": False,
    "app_data": {"source": "screen", "deep": [1, 2.5, None, {"a": True}]},
    "rtp_parameters": _PARAMETERS,
    "rtp_capabilities": router_rtp_capabilities(),
    "dtls_parameters": dtls_parameters(),
    "ice_parameters": _TRANSPORT.ice_parameters,
    "ice_candidates": _TRANSPORT.ice_candidates,
    "ice_servers": (messages.IceServer(urls=("turn:a.example",), username="1:u", credential="c"),),
    "direction": "consumer",
    "type": "simple",
    "user_ids": ("a", "b"),
    "producers": (),
    "peers": (messages.PeerEntry(user_id="a", name=None),),
    "levels": (messages.AudioLevel(user_id="a", producer_id="p", volume=-20),),
    "request": messages.JoinRoom(room_id="r"),
    "reply": messages.RoomEntered(room_id="r"),
    "payload": messages.PeerClosed(room_id="r", reason="why"),
    "state": "live",
    "url": "/hls/r/index.m3u8",
    "stats": (),
    "spatial_layer": 1,
    "temporal_layer": 0,
    "priority": 3,
    "bitrate": 1_000_000,
    "score": messages.ConsumerScore(score=9, producer_score=10, producer_scores=(10, 8)),
    "resumable": True,
    "resume_seconds": 15.0,
    "preferred_layers": messages.PreferredLayers(spatial_layer=2),
}


def _example(cls: type[Any]) -> Any:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        name = field.name
        if name in _VALUES and not (cls is envelopes.RoomCounts and name in ("producers", "peers")):
            values[name] = _VALUES[name]
        elif field.type is int:
            values[name] = 7
        elif field.type is bool:
            values[name] = True
        else:
            values[name] = f"some-{name}"
    return cls(**values)


_UNIONS = [Request, Reply, EventPayload, envelopes.ToRoom, envelopes.FromRoom]
_CASES = [(union, cls) for union in _UNIONS for cls in get_args(union)]


@pytest.mark.parametrize(("union", "cls"), _CASES, ids=lambda value: getattr(value, "__name__", "union"))
def test_round_trip(union: Any, cls: type[Any]) -> None:
    message = _example(cls)
    assert msgspec.json.decode(msgspec.json.encode(message), type=union) == message
    assert envelopes.round_trip(message, union) == message


def test_requests_are_the_contract() -> None:
    assert set(REQUESTS) == {
        "createRoom", "joinRoom", "leaveRoom", "getRouterRtpCapabilities",
        "createProducerTransport", "connectProducerTransport", "produce", "stopProducing", "listProducers",
        "createConsumerTransport", "connectConsumerTransport", "consume",
        "closeProducer", "pauseProducer", "resumeProducer",
        "closeConsumer", "pauseConsumer", "resumeConsumer", "requestKeyFrame", "getStats",
        "setPreferredLayers", "setConsumerPriority", "setMaxIncomingBitrate", "restartIce",
    }  # fmt: skip


def test_a_client_gets_camel_case_without_the_tag() -> None:
    wire = to_wire(_example(messages.Consumed))
    assert TAG_FIELD not in wire
    assert wire["producerId"] == "some-producer_id"
    assert wire["type"] == "simple"
    assert wire["rtpParameters"]["codecs"][0]["mimeType"] == "audio/opus"
    error = to_wire(messages.RequestError(code="a-code", message="A sentence"))
    assert error == {"code": "a-code", "error": "A sentence"}


def test_absent_means_absent() -> None:
    new = messages.NewProducer(room_id="r", user_id="u", producer_id="p", kind="audio")
    assert "appData" not in to_wire(new)
    listed = messages.ListedProducer(user_id="u", producer_id="p", kind="audio", paused=False)
    wire = to_wire(messages.ProducerList(producers=(listed,)))
    assert wire == {"producers": [{"userId": "u", "producerId": "p", "kind": "audio", "paused": False}]}


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("createRoom", {"roomId": "with space"}),
        ("createRoom", {"roomId": "line\n"}),
        ("createRoom", {"roomId": "../../etc"}),
        ("createRoom", {"roomId": ""}),
        ("createRoom", {"roomId": "x" * 65}),
        ("createRoom", {"name": "x" * 65}),
        ("joinRoom", {"roomId": 5}),
        ("joinRoom", {"roomId": "x" * 65}),
        ("joinRoom", []),
        ("joinRoom", "room"),
        ("joinRoom", {TAG_FIELD: "createRoom"}),
        ("produce", {"kind": "video"}),
        ("produce", {"kind": "text", "rtpParameters": {"codecs": []}}),
        ("produce", {"kind": "audio", "rtpParameters": {"codecs": []}, "appData": []}),
        ("produce", {"kind": "audio", "rtpParameters": {"codecs": [{}] * 1000}}),
        ("consume", {"producerId": "p", "rtpCapabilities": {}, "paused": "yes"}),
        ("consume", {"producerId": "p" * 65, "rtpCapabilities": {}}),
        ("connectProducerTransport", {}),
        ("connectProducerTransport", {"dtlsParameters": {"fingerprints": []}}),
        ("closeProducer", {"producerId": None}),
        ("requestKeyFrame", {"consumerId": 1}),
    ],
)
def test_bounds(name: str, payload: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(payload, REQUESTS[name], strict=True)
