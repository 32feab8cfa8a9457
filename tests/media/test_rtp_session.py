"""One transport's RTP session: routing, feedback, reports, and what hostile clients send."""

from collections import Counter
from collections.abc import Collection
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lossy_link import LinkSettings, LossyLink
from tests.support.media_core import (
    AUDIO_SSRC,
    AUDIO_TYPE,
    IDS,
    VIDEO_RTX_SSRC,
    VIDEO_SSRC,
    Call,
    FakeSession,
    audio,
    rtp,
    rtx,
    video,
    video_parameters,
    video_payload,
)
from trio_sfu.media.bandwidth.control import BandwidthControl
from trio_sfu.media.capabilities import ABS_SEND_TIME_URI, MID_URI, RID_URI, TRANSPORT_CC_URI
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.errors import MediaError
from trio_sfu.media.parameters import RtpParameters
from trio_sfu.media.receive_limit import ReceiveLimit
from trio_sfu.wire.rtcp import (
    FullIntraRequest,
    GenericNack,
    Goodbye,
    PictureLossIndication,
    ReceiverReport,
    Remb,
    ReportBlock,
    SenderReport,
    SourceDescription,
    TransportFeedback,
    pack_compound,
)


def feedback_of(parameters: dict[str, object], *feedback: tuple[str, str]) -> dict[str, object]:
    """``parameters`` with only these RTCP feedback messages."""
    decoded = msgspec.convert(parameters, RtpParameters)
    codecs = msgspec.to_builtins(decoded.codecs)
    codecs[0]["rtcpFeedback"] = [{"type": type_, "parameter": parameter} for type_, parameter in feedback]
    return {**parameters, "codecs": codecs}


# -- routing


def test_packets_go_to_their_producers() -> None:
    call = Call()
    sender = call.session()
    picture, sound = call.produce_video(sender), call.produce_audio(sender)
    sender.feed(video(1), audio(1), audio(2), rtx(1, video(5)))
    assert picture.streams[0].packets == 1
    assert sound.streams[0].packets == 2
    assert sender.session.packets_received == 4
    assert sender.session.counters.unknown_ssrc == sender.session.counters.invalid == 0


@pytest.mark.parametrize(
    "encoding",
    [
        {"ssrc": VIDEO_SSRC},
        {"ssrc": VIDEO_RTX_SSRC},
        {"ssrc": 5, "rtx": {"ssrc": VIDEO_SSRC}},
        {"ssrc": 5, "rtx": {"ssrc": VIDEO_RTX_SSRC}},
    ],
)
def test_duplicate_ssrcs_are_refused(encoding: dict[str, object]) -> None:
    call = Call()
    sender = call.session()
    first = call.produce_video(sender)
    with pytest.raises(MediaError) as error:
        call.produce_video(sender, mid="7", encodings=[encoding])
    assert error.value.code == "duplicate-ssrc"
    assert list(sender.session.producers.values()) == [first]
    # Another transport may have them, and so may this one when the first has closed.
    call.produce_video(call.session(), mid="7", encodings=[encoding])
    first.close()
    call.produce_video(sender, mid="7", encodings=[encoding])


def test_duplicate_mids_are_refused() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    with pytest.raises(MediaError) as error:
        call.produce_video(sender, encodings=[{"ssrc": 5}])
    assert error.value.code == "invalid-rtp-parameters"


def test_a_mid_decides_among_producers() -> None:
    call = Call()
    sender = call.session()
    first = call.produce_video(sender, mid="a", encodings=[{"rid": "x"}])
    second = call.produce_video(sender, mid="b", encodings=[{"rid": "x"}])
    sender.feed(rtp(7, 1, extensions=[(IDS[MID_URI], b"b"), (IDS[RID_URI], b"x")]))
    sender.feed(rtp(8, 1, extensions=[(IDS[MID_URI], b"c"), (IDS[RID_URI], b"x")]))
    assert first.streams == {}
    assert second.streams[0].ssrc == 7
    assert sender.session.counters.unknown_ssrc == 1


def test_unused_ssrcs_and_mids() -> None:
    session = Call().session().session
    assert len({session.unused_ssrc() for _ in range(1000)}) == 1000
    mids = [session.unused_mid() for _ in range(40)]
    assert len(set(mids)) == 40
    assert all(len(mid) == 4 for mid in mids)
    assert mids[:2] + mids[35:37] == ["0000", "0001", "000z", "0010"]


def test_nothing_is_made_on_a_closed_session() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    viewer.close()
    with pytest.raises(MediaError) as error:
        call.consume(viewer, producer)
    assert error.value.code == "transport-closed"
    sender.close()
    with pytest.raises(MediaError) as error:
        call.produce_video(sender)
    assert error.value.code == "transport-closed"


# -- feedback to producers


def test_nacks_go_to_the_producer_and_again_until_it_comes() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    sender.feed(video(65534), video(1))
    assert sender.sink.take_rtcp()[0] == GenericNack(sender.session.ssrc, VIDEO_SSRC, (65535, 0))
    call.pass_time(0.25)
    again = [item for item in sender.sink.take_rtcp() if isinstance(item, GenericNack)]
    assert [item.lost for item in again] == [(65535, 0)] * 2
    sender.feed(rtx(1, video(65535)), video(0))
    call.pass_time(1.0)
    assert not [item for item in sender.sink.take_rtcp() if isinstance(item, GenericNack)]


def test_long_nacks_are_cut() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    for number in range(0, 20_000, 20):
        sender.feed(video(number))
    call.pass_time(0.5)
    assert max(sender.sink.rtcp_sizes) <= 1200


def test_transport_feedback() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    call.produce_audio(sender)
    numbers = [65534, 65535, 0, 2, 3]
    for index, number in enumerate(numbers):
        extension = (IDS[TRANSPORT_CC_URI], number.to_bytes(2, "big"))
        packet = audio(index, extensions=[extension]) if index % 2 else video(index, extensions=[extension])
        sender.feed(packet)
    # Of RTX and of unknown streams too: all of them take the link.
    sender.feed(rtp(999, 1, extensions=[(IDS[TRANSPORT_CC_URI], b"\x00\x04")]))
    call.pass_time(0.12)
    reported = [
        item.base_sequence + index & 0xFFFF
        for item in sender.sink.rtcp
        if isinstance(item, TransportFeedback)
        for index, delta in enumerate(item.deltas)
        if delta is not None
    ]
    assert sorted(reported) == sorted([*numbers, 4])
    counts = [item.feedback_count for item in sender.sink.rtcp if isinstance(item, TransportFeedback)]
    assert counts == list(range(len(counts)))


@pytest.mark.parametrize("value", [b"\x01", b"\x01\x02\x03", bytes(16)])
def test_a_transport_sequence_of_the_wrong_size_is_ignored(value: bytes) -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    sender.feed(video(1, extensions=[(IDS[TRANSPORT_CC_URI], value)]))
    call.pass_time(0.2)
    assert not [item for item in sender.sink.rtcp if isinstance(item, TransportFeedback)]


def test_remb_where_only_that_is_negotiated() -> None:
    call = Call()
    sender = call.session()
    parameters = feedback_of(video_parameters(), ("goog-remb", ""))
    parameters["headerExtensions"] = [{"uri": ABS_SEND_TIME_URI, "id": 2}]
    call.produce(sender, "video", parameters)
    for number in range(200):
        sender.feed(video(number, payload=video_payload("x" * 1000)))
        call.pass_time(0.02)
    rembs = [item for item in sender.sink.rtcp if isinstance(item, Remb)]
    assert 3 <= len(rembs) <= 5
    assert rembs[-1].ssrcs == (VIDEO_SSRC,)
    assert rembs[-1].bitrate > 1_000_000
    assert not [item for item in sender.sink.rtcp if isinstance(item, TransportFeedback)]


def test_remb_for_any_number_of_streams() -> None:
    call = Call()
    sender = call.session()
    for number in range(300):
        call.produce_audio(sender, mid=f"a{number}", encodings=[{"ssrc": number + 1}])
        sender.feed(rtp(number + 1, 1, payload_type=AUDIO_TYPE))
    sender.session._limit = ReceiveLimit()
    call.pass_time(1.1)
    assert [item for item in sender.sink.rtcp if isinstance(item, Remb)]
    assert max(sender.sink.rtcp_sizes) <= 1200
    assert not sender.faults


# -- reports


def test_receiver_reports() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    call.produce_audio(sender)
    sender.feed_rtcp(SenderReport(VIDEO_SSRC, 0x1234_5678_9ABC_DEF0, 1, 1, 1))
    sender.feed(video(65535), video(1), video(2))
    call.pass_time(1.1)
    sender.feed(video(3))
    call.pass_time(1.0)
    reports = [item for item in sender.sink.rtcp if isinstance(item, ReceiverReport)]
    assert {item.ssrc for item in reports} == {sender.session.ssrc}
    # Audio has not begun, so it is not reported on.
    blocks = [block for item in reports for block in item.reports]
    assert {block.ssrc for block in blocks} == {VIDEO_SSRC}
    assert blocks[-1].packets_lost == 1
    assert blocks[-1].highest_sequence == 0x10003
    assert blocks[-1].lsr == 0x5678_9ABC
    assert blocks[-1].dlsr > 65536


def test_sender_reports_with_names() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    consumers = [call.consume(viewer, call.produce_video(sender)), call.consume(viewer, call.produce_audio(sender))]
    call.pass_time(0.1)
    sender.feed(video(1, key=True), audio(1))
    sender.feed_rtcp(
        SenderReport(VIDEO_SSRC, 1 << 40, 0, 1, 1),
        SenderReport(AUDIO_SSRC, 1 << 40, 0, 1, 1),
    )
    viewer.sink.take_rtcp()
    call.pass_time(1.0)
    first, second, names = viewer.sink.take_rtcp()[:3]
    assert isinstance(first, SenderReport)
    assert isinstance(second, SenderReport)
    assert {first.ssrc, second.ssrc} == {consumer.ssrc for consumer in consumers}
    assert isinstance(names, SourceDescription)
    assert dict(names.chunks) == {consumer.ssrc: "c" for consumer in consumers}


def test_reports_stay_below_the_mtu_whatever_the_names() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    consumers = []
    for number in range(40):
        length = 255 if number % 3 else 1
        producer = call.produce_audio(
            sender, mid=f"a{number}", encodings=[{"ssrc": number + 1}], rtcp={"cname": "n" * length}
        )
        consumers.append(call.consume(viewer, producer))
    call.pass_time(0.1)
    for number in range(40):
        sender.feed(rtp(number + 1, 1, payload_type=AUDIO_TYPE))
        sender.feed_rtcp(SenderReport(number + 1, 1 << 40, 0, 1, 1))
    call.pass_time(2.0)
    reported = Counter(item.ssrc for item in viewer.sink.rtcp if isinstance(item, SenderReport))
    assert set(reported) == {consumer.ssrc for consumer in consumers}
    named = {ssrc for item in viewer.sink.rtcp if isinstance(item, SourceDescription) for ssrc, _ in item.chunks}
    assert named == set(reported)
    assert max(viewer.sink.rtcp_sizes + sender.sink.rtcp_sizes) <= 1200
    assert not viewer.faults + sender.faults


def test_closing_says_bye_to_all() -> None:
    call = Call()
    sender, viewer, other = call.session(), call.session(), call.session()
    producer = call.produce_video(sender)
    consumers = [call.consume(viewer, producer), call.consume(other, producer)]
    sender.close()
    sender.close()
    for session, consumer in zip((viewer, other), consumers, strict=True):
        (goodbye,) = [item for item in session.sink.rtcp if isinstance(item, Goodbye)]
        assert consumer.ssrc in goodbye.ssrcs
        assert consumer.closed
        assert session.session.consumers == {}
    assert producer.closed
    assert sender.session.sink is None
    sender.feed(video(1))
    call.pass_time(1.0)
    assert not sender.faults + viewer.faults


def test_nothing_is_sent_before_the_transport_is_connected() -> None:
    call = Call()
    sender = call.session(connected=False)
    producer = call.produce_video(sender)
    consumer = call.consume(call.session(), producer)
    consumer.request_key_frame()
    call.pass_time(2.0)
    assert sender.sink.rtcp == []
    sender.connect()
    call.pass_time(0.2)
    assert [item for item in sender.sink.rtcp if isinstance(item, PictureLossIndication)]


# -- hostile


def test_ssrcs_invented_without_end_are_abuse() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    for ssrc in range(1000, 1064):
        sender.feed(rtp(ssrc, 1), rtp(ssrc, 2))
    assert not sender.abuses
    for ssrc in range(2000, 2010):
        sender.feed(rtp(ssrc, 1))
    assert sender.abuses
    assert sender.session.counters.unknown_ssrc == 138


def test_so_are_those_of_rtcp_and_of_malformed_packets() -> None:
    """libsrtp makes state for each authenticated SSRC, whatever the packet holds."""
    for make in (
        lambda ssrc: ReceiverReport(ssrc).to_bytes(),
        lambda ssrc: b"\x80\xc8\x00\x01" + ssrc.to_bytes(4, "big"),
    ):
        call = Call()
        sender = call.session()
        for ssrc in range(64):
            sender.session.receive_rtcp(make(ssrc), call.now)
        assert not sender.abuses
        sender.session.receive_rtcp(make(64), call.now)
        assert sender.abuses
    call = Call()
    sender = call.session()
    for ssrc in range(65):
        sender.feed(b"\xa0" + rtp(ssrc, 1, payload=b"\xff")[1:])
    assert sender.abuses
    assert sender.session.counters.invalid == 65


def test_many_changes_of_producers_are_no_abuse() -> None:
    """The last packets of closed producers still arrive, and Firefox has an RTCP SSRC for each consumer."""
    call = Call()
    sender, viewer = call.session(), call.session()
    for number in range(200):
        ssrc = 10_000 + 2 * number
        producer = call.produce_video(sender, encodings=[{"ssrc": ssrc, "rtx": {"ssrc": ssrc + 1}}])
        consumer = call.consume(viewer, producer)
        sender.feed(rtp(ssrc, 1))
        viewer.feed_rtcp(ReceiverReport(50_000 + number))
        producer.close()
        assert consumer.closed
        sender.feed(rtp(ssrc, 2), rtp(ssrc + 1, 1))
    assert not sender.abuses + viewer.abuses


def test_malformed_packets_are_counted() -> None:
    call = Call()
    sender = call.session()
    call.produce_video(sender)
    sender.feed(b"\x90" + video(1)[1:12], b"\xa0" + video(1)[1:12] + b"\x00")
    sender.session.receive_rtcp(b"\x80\xc8\x00\x06" + bytes(8), call.now)
    assert sender.session.counters.invalid == 3


def test_rtcp_about_streams_of_others_is_ignored() -> None:
    call = Call()
    sender, viewer, stranger = call.session(), call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.1)
    sender.feed(video(1, key=True))
    sender.sink.take_rtcp()
    number = viewer.sink.of(consumer.ssrc)[0].sequence_number
    for session in (stranger, sender):
        session.feed_rtcp(
            GenericNack(1, consumer.ssrc, (number,)),
            PictureLossIndication(1, consumer.ssrc),
            FullIntraRequest(1, ((consumer.ssrc, 1),)),
            PictureLossIndication(1, VIDEO_SSRC),
        )
        session.feed_rtcp(ReceiverReport(1, (ReportBlock(consumer.ssrc, 255, 1, 1, 1, 1, 1),)))
        session.feed_rtcp(SenderReport(VIDEO_SSRC + 1, 1, 1, 1, 1))
    stranger.feed_rtcp(SenderReport(VIDEO_SSRC, 1, 1, 1, 1))
    assert consumer.retransmitted == 0
    assert consumer.fraction_lost == 0
    assert producer.streams[0].sender_report is None
    assert not [item for item in sender.sink.take_rtcp() if isinstance(item, PictureLossIndication)]


def test_the_viewers_goodbye_and_names_change_nothing() -> None:
    call = Call()
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.1)
    viewer.feed_rtcp(Goodbye((consumer.ssrc, VIDEO_SSRC)), SourceDescription(((1, "x"),)), Remb(1, 1000, ()))
    sender.feed_rtcp(Goodbye((VIDEO_SSRC,)))
    sender.feed(video(1, key=True))
    assert len(viewer.sink.of(consumer.ssrc)) == 1


ssrcs = st.sampled_from([0, 1, VIDEO_SSRC, VIDEO_RTX_SSRC, AUDIO_SSRC, 0xFFFFFFFF])
words = st.integers(0, 0xFFFFFFFF)
blocks = st.builds(
    ReportBlock, ssrcs, st.integers(0, 255), st.integers(-0x800000, 0x7FFFFF), words, words, words, words
)
rtcp_packets = st.one_of(
    st.builds(SenderReport, ssrcs, st.integers(0, (1 << 64) - 1), words, words, words, st.tuples(blocks)),
    st.builds(ReceiverReport, ssrcs, st.tuples(blocks, blocks)),
    st.builds(GenericNack, ssrcs, ssrcs, st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=50).map(tuple)),
    st.builds(PictureLossIndication, ssrcs, ssrcs),
    st.builds(FullIntraRequest, ssrcs, st.lists(st.tuples(ssrcs, st.integers(0, 255)), min_size=1).map(tuple)),
    st.builds(Goodbye, st.lists(ssrcs, max_size=5).map(tuple)),
)


@settings(max_examples=60)
@given(st.lists(st.one_of(rtcp_packets, st.binary(max_size=60)), max_size=12), st.randoms(use_true_random=False))
def test_hostile_rtcp(items: list[object], random: Random) -> None:
    """Whatever RTCP comes, on either side: no fault, and media goes on."""
    call = Call()
    sender, viewer = call.session(), call.session()
    call.produce_audio(sender)
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.1)
    sender.feed(video(1, key=True))
    for item in items:
        session = random.choice((sender, viewer))
        data = item if isinstance(item, bytes) else pack_compound((item,))  # type: ignore[arg-type]
        data = data.replace(
            VIDEO_SSRC.to_bytes(4, "big"), random.choice((VIDEO_SSRC, consumer.ssrc)).to_bytes(4, "big")
        )
        session.session.receive_rtcp(data, call.now)
        call.pass_time(random.choice((0.0, 0.02, 1.0)))
    sender.feed(video(2), video(3, key=True))
    assert viewer.sink.of(consumer.ssrc)[-1].payload[2:] == b"3"
    assert not sender.faults + viewer.faults + sender.abuses


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(ssrcs, st.integers(0, 0xFFFF), st.sampled_from([96, 100, 101, 111]), st.binary(max_size=30)),
            st.binary(max_size=60),
        ),
        max_size=60,
    )
)
def test_hostile_rtp(items: list[tuple[int, int, int, bytes] | bytes]) -> None:
    """Whatever RTP comes: no fault with anybody, and what goes out has numbers that SRTP takes."""
    call = Call()
    sender, viewer = call.session(), call.session()
    consumers = [call.consume(viewer, call.produce_video(sender)), call.consume(viewer, call.produce_audio(sender))]
    call.pass_time(0.1)
    for index, item in enumerate(items):
        packet = item if isinstance(item, bytes) else rtp(item[0], item[1], payload_type=item[2], payload=item[3])
        sender.session.receive_rtp(memoryview(packet), call.now)
        if index % 7 == 0:
            sender.session.flush(call.now)
            call.pass_time(0.02)
    sender.session.flush(call.now)
    assert not sender.faults + viewer.faults
    for consumer in consumers:
        newest = None
        for sent in viewer.sink.of(consumer.ssrc):
            step = 0 if newest is None else sent.sequence_number - newest & 0xFFFF
            assert step < 3000 or step > 0x10000 - 1000
            newest = sent.sequence_number if step < 0x8000 else newest


# -- all of it over a bad network


@pytest.mark.parametrize("seed", range(6))
def test_a_bad_link_to_the_server(seed: int) -> None:
    """What goes out is each packet that came, exactly once, numbered without a gap but for what was lost for good."""
    random = Random(seed)
    call = Call(seed)
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.1)
    settings = LinkSettings(loss=0.05, delay=0.02, jitter=0.01, duplicate=0.03, reorder=0.05, reorder_delay=0.015)
    up: LossyLink[None] = LossyLink(settings, random)
    start = random.choice((0, 65_000, 65_535))
    history: dict[int, bytes] = {}
    rtx_number = random.randrange(1 << 16)
    count = 3000
    next_packet = 0
    while next_packet < count or up.get_timer() is not None:
        if next_packet < count:
            for _ in range(random.randrange(1, 12)):
                number = start + next_packet
                packet = video(number, 3000 * next_packet, key=next_packet % 300 == 0)
                history[number & 0xFFFF] = packet
                up.send(packet, None, call.now)
                next_packet += 1
        for _ in range(10):
            call.pass_time(0.002)
            arrived = [data for _, data in up.receive(call.now)]
            if arrived:
                sender.feed(*arrived)
            for item in sender.sink.take_rtcp():
                for number in item.lost if isinstance(item, GenericNack) else ():
                    rtx_number += 1
                    up.send(rtx(rtx_number, history[number]), None, call.now)
    sent = viewer.sink.of(consumer.ssrc)
    texts = [int(packet.payload[2:]) for packet in sent]
    assert len(set(texts)) == len(texts), "a packet went out twice"
    begin = min((text - start & 0xFFFF) for text in texts)
    assert begin % 300 == 0
    offsets = {packet.sequence_number - text & 0xFFFF for packet, text in zip(sent, texts, strict=True)}
    assert len(offsets) == 1, "numbering is the sender's, moved"
    missing = set(range(begin, next_packet)) - {text - start & 0xFFFF for text in texts}
    assert len(missing) <= 3, "RTX has repaired all but what was lost ten times, or at the very end"
    stream = producer.streams[0]
    assert stream.packets == len(stream.cache) or stream.packets >= len(texts)
    assert stream.repaired > 50
    assert not sender.faults + viewer.faults + sender.abuses


@pytest.mark.parametrize("seed", range(4))
def test_a_bad_link_to_the_viewer(seed: int) -> None:
    """A viewer that asks for what it misses gets all, from whichever stretch it is."""
    random = Random(seed)
    call = Call(seed)
    sender, viewer = call.session(), call.session()
    producer = call.produce_video(sender)
    consumer = call.consume(viewer, producer)
    call.pass_time(0.1)
    received: dict[int, bytes] = {}
    highest: int | None = None
    taken = 0
    number = 65_500
    key = True
    for step in range(300):
        if step % 40 == 39:
            consumer.pause()
            sender.feed(video(number))
            number += 1
            call.pass_time(0.6)
            consumer.resume()
            key = True
        sender.feed(*[video(number + index, key=key and index == 0) for index in range(5)])
        number += 5
        key = False
        for packet in viewer.sink.rtp[taken:]:
            if random.random() < 0.1:
                continue
            if packet.ssrc == consumer.rtx_ssrc:
                received[int.from_bytes(packet.payload[:2], "big")] = packet.payload[2:]
                continue
            received[packet.sequence_number] = packet.payload
            if highest is not None:
                ahead = packet.sequence_number - highest & 0xFFFF
                if ahead >= 0x8000:
                    continue
            highest = packet.sequence_number
        taken = len(viewer.sink.rtp)
        first = viewer.sink.of(consumer.ssrc)[0].sequence_number
        assert highest is not None
        lost = [
            first + index & 0xFFFF
            for index in range((highest - first & 0xFFFF) + 1)
            if first + index & 0xFFFF not in received
        ]
        if lost:
            viewer.feed_rtcp(GenericNack(1, consumer.ssrc, tuple(lost)))
        call.pass_time(0.06)
    sent = {packet.sequence_number: packet.payload for packet in viewer.sink.of(consumer.ssrc)[:-20]}
    assert all(received[sequence_number] == payload for sequence_number, payload in sent.items())
    assert consumer.retransmitted > 50
    assert not sender.faults + viewer.faults


def test_the_fakes_are_what_the_session_wants(capsys: pytest.CaptureFixture[str]) -> None:
    """The helper's own invariant: without loss everything arrives in order."""
    call = Call()
    sender: FakeSession = call.session()
    viewer = call.session()
    consumer = call.consume(viewer, call.produce_audio(sender))
    call.pass_time(0.1)
    for number in range(100):
        sender.feed(audio(number))
    assert [int(packet.payload) for packet in viewer.sink.of(consumer.ssrc)] == list(range(100))
    assert capsys.readouterr() == ("", "")


def test_a_transport_has_room_for_so_many_streams_only() -> None:
    """What SRTP keeps of each SSRC stays as long as the transport, however often a client produces and stops."""
    call = Call()
    sender = call.session()
    for _ in range(2048):
        call.produce_video(sender).close()
    with pytest.raises(MediaError, match="too many RTP streams"):
        call.produce_video(sender)


# -- the clock


def test_where_nothing_waits_ticks_matter_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost as much as forwarding several packets, for every session of the process."""
    call = Call()
    sender, viewer = call.session(), call.session()
    consumer = call.consume(viewer, call.produce_video(sender))
    looked: list[float] = []
    tick = BandwidthControl.tick

    def counted(control: BandwidthControl, consumers: Collection[Consumer], now: float) -> bool:
        looked.append(now)
        return tick(control, consumers, now)

    monkeypatch.setattr(BandwidthControl, "tick", counted)
    call.pass_time(0.2)
    assert len(looked) >= 9  # it waits for a keyframe
    sender.feed(video(0, key=True))
    call.pass_time(0.1)
    looked.clear()
    call.pass_time(1.0)
    assert len(looked) <= 11
    looked.clear()
    viewer.feed_rtcp(ReceiverReport(5, ()))
    call.pass_time(0.02)
    assert looked == [call.now]
    looked.clear()
    consumer.pause()
    consumer.resume()
    call.pass_time(0.1)
    assert len(looked) == 5


def test_what_a_tick_brings_about_is_looked_at_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where bandwidth is divided anew, and a consumer begins again that waits for a keyframe."""
    call = Call()
    sender, viewer = call.session(), call.session()
    call.consume(viewer, call.produce_video(sender))
    sender.feed(video(0, key=True))
    call.pass_time(0.1)
    looked: list[float] = []

    def hurried(_: BandwidthControl, __: Collection[Consumer], now: float) -> bool:
        looked.append(now)
        if len(looked) == 1:
            viewer.session.hurry()
        return False

    monkeypatch.setattr(BandwidthControl, "tick", hurried)
    call.pass_time(0.14)
    assert looked[1] - looked[0] == pytest.approx(0.02)
    assert len(looked) == 2
