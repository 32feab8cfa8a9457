"""A consumer of everything pays nothing for layers that its stream does not tell of: counted, not timed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.layered_sender import LayeredSender
from tests.support.media_core import Call, rtp
from trio_sfu.media import frame_mark, layer_view
from trio_sfu.media.frame_mark import EVERYTHING, Layers

PLAIN = {
    "video/VP8": (b"\x90\x80\x85\x00", b"\x90\x80\x86\x01"),  # with a picture id, as Chromium sends it
    "video/VP9": (b"\x88\x05\x00", b"\xc8\x06\x00"),
    "video/H264": (b"\x65\x88\x80", b"\x41\x9a\x00"),
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "video/VP9": {"profile-id": 0},
    "video/H264": {"packetization-mode": 1, "level-asymmetry-allowed": 1, "profile-level-id": "42e01f"},
}


class Count:
    """How often each of the module's callables is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, int] = {}
        for module, name in (
            (frame_mark, "FrameMark"),
            (frame_mark, "FrameIds"),
            (frame_mark, "parse_vp8"),
            (frame_mark, "parse_vp9"),
            (frame_mark, "parse_dependency_descriptor"),
            (layer_view, "SequenceMap"),
            (layer_view, "with_ids"),
        ):
            self._wrap(monkeypatch, module, name)
        take = layer_view.LayerView.take

        def counted(view: layer_view.LayerView, *arguments: Any) -> Any:
            self.calls["take"] = self.calls.get("take", 0) + 1
            return take(view, *arguments)

        monkeypatch.setattr(layer_view.LayerView, "take", counted)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        original = getattr(module, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            return original(*arguments, **named)

        monkeypatch.setattr(module, name, counted)


@pytest.mark.parametrize("mime_type", PLAIN)
def test_nothing_is_read_of_a_stream_without_layers(mime_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = Count(monkeypatch)
    call = Call()
    sender, viewer = call.session(), call.session()
    codec = {
        "mimeType": mime_type,
        "payloadType": 100,
        "clockRate": 90000,
        "parameters": PARAMETERS.get(mime_type, {}),
        "rtcpFeedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"}],
    }
    producer = call.produce_video(sender, codecs=[codec])
    consumer = call.consume(viewer, producer)
    call.pass_time(0.1)
    key, delta = PLAIN[mime_type]
    for number in range(100):
        payload = (key if number == 0 else delta) + bytes(100)
        sender.feed(rtp(0x11111111, number, 3000 * number, marker=True, payload=payload))
        call.pass_time(0.02)
    assert len(viewer.sink.of(consumer.ssrc)) == 100
    assert count.calls == {}
    stream = producer.streams[0]
    assert stream.view(EVERYTHING) is stream.view(Layers(0, 0))
    assert [view.is_whole for view in stream._views] == [True]
    assert stream._crossing == ()


@pytest.mark.parametrize("codec", ["VP8", "VP9"])
def test_of_a_stream_with_layers_each_packet_is_read_once_for_all(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = Count(monkeypatch)
    sender = LayeredSender(codec)
    viewers = [sender.call.session() for _ in range(5)]
    consumers = [sender.call.consume(viewer, sender.producer) for viewer in viewers]
    for _ in range(50):
        sender.step()
    sent = 50 * sender.parts
    for viewer, consumer in zip(viewers, consumers, strict=True):
        assert len(viewer.sink.of(consumer.ssrc)) >= sent - 10
    assert count.calls == {"FrameMark": sent, "FrameIds": sent, f"parse_{codec.lower()}": sent}
    assert [view.is_whole for view in sender.producer.streams[0]._views] == [True]


def test_one_view_is_made_and_filled_once_for_all_who_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Count(monkeypatch)
    sender = LayeredSender("VP8")
    for _ in range(8):
        sender.step()
    session = sender.call.session()
    consumers = [sender.call.consume(session, sender.producer) for _ in range(5)]
    for consumer in consumers:
        consumer.set_preferred_layers(Layers(0, 0))
    for _ in range(12):
        sender.step()
    assert len(sender.producer.streams[0]._views) == 2
    assert count.calls["SequenceMap"] == 1
    count.calls.clear()
    for _ in range(20):
        sender.step()
    assert count.calls["take"] == 20  # one a batch
