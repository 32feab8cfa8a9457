"""Every field of every payload wrong in every way, while a call is running next door: acks, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.protocol import (
    CAPABILITIES,
    DTLS,
    Json,
    a_scene,
    a_server,
    answers,
    complaints,
    holds,
    opus,
    payload_of,
    refused,
    told,
    vp8,
)
from tests.support.socketio_client import connect_socketio
from tests.support.until import until

WRONG: list[Any] = [None, True, -1, 2**32, 2.5, 1e300, "", "x", "\u2028\r\n", "x" * 5000, [], {}, [[]], [None], b"\0"]


def mutations(payload: Any) -> Iterator[Any]:
    """The payload with each of its parts left out, and with something else in its place."""
    for path in _paths(payload):
        for value in WRONG:
            yield _changed(payload, path, value)
        yield _changed(payload, path, _paths)  # a value that stands for "left out"


def _paths(value: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*so_far, key)
        yield from _paths(child, (*so_far, key))


def _changed(payload: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(payload)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if value is _paths:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed


#: With all there is in them.
FULL: dict[str, Json] = {
    "createRoom": {"roomId": "tea", "name": "Ann", "resumable": True},
    "joinRoom": {"roomId": "tea", "name": "Ann", "resumable": True},
    "resume": {"resumeToken": "somebody.token", "received": 3},
    "connectProducerTransport": {"dtlsParameters": DTLS},
    "connectConsumerTransport": {"dtlsParameters": DTLS},
    "consume": {
        "producerId": "mine",
        "paused": True,
        "rtpCapabilities": {
            "codecs": [
                {
                    "kind": "audio",
                    "mimeType": "audio/opus",
                    "clockRate": 48000,
                    "channels": 2,
                    "preferredPayloadType": 111,
                    "rtcpFeedback": [{"type": "nack", "parameter": "pli"}],
                    "parameters": {"useinbandfec": 1},
                }
            ],
            "headerExtensions": [CAPABILITIES["headerExtensions"][0]],
        },
    },
    "produce": {
        "kind": "video",
        "appData": {"source": "x", "more": [1]},
        "rtpParameters": {
            **vp8(5, rtx=6),
            "headerExtensions": [{"uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "id": 4, "parameters": {}}],
            "rtcp": {"cname": "x", "reducedSize": True, "mux": True},
            "msid": "a b",
        },
    },
}
FULL["produce"]["rtpParameters"]["encodings"][0] |= {
    "rid": "h", "scalabilityMode": "L1T3", "maxBitrate": 1, "dtx": False, "codecPayloadType": 96
}  # fmt: skip


@pytest.mark.parametrize("event", sorted({*FULL, "closeProducer", "requestKeyFrame", "leaveRoom"}))
async def test_no_field_does_harm(event: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each part of each payload is missing, or is something else: an ack in order, whatever it says."""
    todo = list(mutations(FULL.get(event) or {"roomId": "x", **payload_of(event)}))
    async with a_scene(caplog) as scene:
        for start in range(0, len(todo), 150):  # a socket may ask for 200 at once
            async with scene.attacker() as client:
                for changed in todo[start : start + 150]:
                    if changed.get("producerId") == "mine":
                        changed["producerId"] = scene.producer_id
                    await answers(client, event, changed)
            await scene.call.goes_on()


def changed_parameters(**changes: Any) -> Json:
    return {"kind": "video", "rtpParameters": {**vp8(5, rtx=6), **changes}}


def changed_codec(**changes: Any) -> Json:
    return changed_parameters(codecs=[{**vp8()["codecs"][0], **changes}])


RTX = {"mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000}


NO_PRODUCER: list[tuple[Json, str]] = [
    (changed_codec(mimeType="video/H266"), "unsupported-codec"),
    (changed_codec(mimeType="video/VP8\r\na=evil"), "invalid-payload"),
    (changed_codec(mimeType="audio/opus", clockRate=48000, channels=2), "invalid-rtp-parameters"),
    (changed_codec(clockRate=1), "unsupported-codec"),
    (changed_codec(clockRate=0), "invalid-payload"),
    (changed_codec(payloadType=128), "invalid-payload"),
    (changed_codec(parameters={"x": [1]}), "invalid-payload"),
    (changed_codec(parameters={"x": 2**60}), "invalid-payload"),
    (changed_codec(parameters={str(i): 1 for i in range(100)}), "invalid-payload"),
    (changed_parameters(codecs=[]), "invalid-rtp-parameters"),
    (changed_parameters(codecs=vp8()["codecs"] * 2), "invalid-rtp-parameters"),
    (changed_parameters(codecs=vp8()["codecs"] * 1000), "invalid-payload"),
    (changed_parameters(codecs=[*vp8()["codecs"], RTX]), "invalid-rtp-parameters"),
    (changed_parameters(codecs=[*vp8()["codecs"], {**RTX, "parameters": {"apt": 5}}]), "invalid-rtp-parameters"),
    (changed_parameters(codecs=[{**RTX, "parameters": {"apt": 97}}]), "invalid-rtp-parameters"),
    (changed_parameters(encodings=[]), "invalid-rtp-parameters"),
    (changed_parameters(encodings=[{"ssrc": i} for i in range(1, 10)]), "invalid-rtp-parameters"),
    (changed_parameters(encodings=[{"ssrc": 0}]), "invalid-rtp-parameters"),
    (changed_parameters(encodings=[{"ssrc": 2**32}]), "invalid-payload"),
    (changed_parameters(encodings=[{"ssrc": 7}, {"ssrc": 7}]), "duplicate-ssrc"),
    (changed_parameters(encodings=[{"ssrc": 7, "rtx": {"ssrc": 7}}]), "duplicate-ssrc"),
    (changed_parameters(encodings=[{"ssrc": 1111}]), "duplicate-ssrc"),  # the microphone's
    (changed_parameters(encodings=[{"ssrc": 7, "rtx": {"ssrc": 1111}}]), "duplicate-ssrc"),
    (changed_parameters(encodings=[{"rid": "h"}, {"rid": "h"}]), "invalid-rtp-parameters"),
    (changed_parameters(encodings=[{"rid": "é"}]), "invalid-payload"),
    (changed_parameters(mid="0"), "invalid-rtp-parameters"),  # the microphone's
    (changed_parameters(mid=""), "invalid-rtp-parameters"),
    (changed_parameters(mid=None, encodings=[{}]), "invalid-rtp-parameters"),
    (changed_parameters(rtcp={"cname": "\r\n"}), "invalid-payload"),
    ({**changed_parameters(), "kind": "audio"}, "invalid-rtp-parameters"),
    ({**changed_parameters(), "appData": {"x": "y" * 5000}}, "invalid-payload"),
    ({"kind": "audio", "rtpParameters": opus(ssrc=True)}, "invalid-payload"),
]


async def test_no_producer_does_harm(caplog: pytest.LogCaptureFixture) -> None:
    """A producer is refused for the right reason, the older ones stay, and a good one is welcome after it."""
    async with a_server() as server:
        for payload, code in NO_PRODUCER:
            async with connect_socketio(server.url) as client:
                await client.request("createRoom", {})
                await client.request("createProducerTransport", {})
                for good in (payload_of("produce"), {"kind": "video", "rtpParameters": vp8(2222, "v")}):
                    assert set(await client.request("produce", good)) == {"id"}
                await told(client)
                assert await refused(client, "produce", payload) == code, payload
                assert await told(client) == [], payload
                assert holds(server)["producers"] == 2
                assert set(await client.request("produce", changed_parameters())) == {"id"}
            await until(lambda: holds(server)["rooms"] == 0)
    assert complaints(caplog) == []
