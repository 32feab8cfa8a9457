"""The drivers' SDP: what is offered can be read back, and what others write is understood."""

from __future__ import annotations

from bench.clip import payloads
from bench.peers import DRIVERS, Expected, LocalParameters, driver, sdp
from bench.rtp import TRANSPORT_CC_ID, TRANSPORT_CC_URI, StreamFormat

LOCAL = LocalParameters("ufrag", "password", "AA:BB", 4000)


def test_an_offer_reads_back_as_what_it_was_made_of() -> None:
    video, audio = StreamFormat.vp8(), StreamFormat.opus()
    remote, media = sdp.parse(sdp.offer(LOCAL, [video, audio]))
    assert (remote.username_fragment, remote.password) == ("ufrag", "password")
    assert remote.candidates == (("127.0.0.1", 4000),)
    assert remote.fingerprints == (("sha-256", "AA:BB"),)
    assert [(each.kind, each.mid) for each in media] == [("video", "0"), ("audio", "1")]
    subscription = sdp.subscription(remote, media)
    assert subscription.streams == (Expected("video", video.ssrc, video.rtx_ssrc), Expected("audio", audio.ssrc))
    assert subscription.transport_cc_id == TRANSPORT_CC_ID


def test_an_answer_takes_all_that_was_offered() -> None:
    _, offered = sdp.parse(sdp.offer(LOCAL, [StreamFormat.vp8()]))
    _, answered = sdp.parse(sdp.answer(LOCAL, offered, host="192.0.2.1"))
    assert answered[0].payload_types == ("96", "97")
    assert answered[0].codecs == offered[0].codecs
    assert answered[0].extensions[TRANSPORT_CC_URI] == TRANSPORT_CC_ID
    assert answered[0].ssrcs == []


def test_an_offer_to_receive_names_no_source() -> None:
    text = sdp.offer(LOCAL, [StreamFormat.vp8()], sending=False)
    assert "a=recvonly" in text
    assert "a=ssrc" not in text


def test_a_frame_begins_where_its_descriptor_says() -> None:
    assert payloads(b"abcde", 2) == [b"\x10ab", b"\x00cd", b"\x00e"]


def test_every_driver_is_there_and_says_what_it_lacks() -> None:
    found = [driver(name) for name in DRIVERS]
    assert [each.name for each in found] == list(DRIVERS)
    assert found[0].missing() is None
    assert all(isinstance(each.missing(), str | None) for each in found)
