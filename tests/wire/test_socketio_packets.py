"""The Socket.IO codec: what it takes, what it refuses, and that it raises nothing but BadPacket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.socketio import (
    MAX_DEPTH,
    MAX_MARKS,
    Packet,
    PacketDecoder,
    PacketType,
    RefusedEvent,
    encode_packet,
    refused_event,
)

EVENT, ACK, CONNECT = PacketType.EVENT, PacketType.ACK, PacketType.CONNECT


@pytest.mark.parametrize(
    ("frames", "packet"),
    [
        (["0"], Packet(CONNECT)),
        (['0{"token":"123"}'], Packet(CONNECT, "/", {"token": "123"})),
        (['0/admin,{"sid":"x"}'], Packet(CONNECT, "/admin", {"sid": "x"})),
        (["1"], Packet(PacketType.DISCONNECT)),
        (['2["hey"]'], Packet(EVENT, "/", ["hey"])),
        (['213["hey",-1.5,null]'], Packet(EVENT, "/", ["hey", -1.5, None], 13)),
        (['2/a-1,0["x"]'], Packet(EVENT, "/a-1", ["x"], 0)),
        (["312[]"], Packet(ACK, "/", [], 12)),
        (['4{"message":"no"}'], Packet(PacketType.CONNECT_ERROR, "/", {"message": "no"})),
        (
            ['52-["b",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]', b"\x01", b""],
            Packet(EVENT, "/", ["b", b"\x01", [b""]]),
        ),
        (['61-/n,7[{"_placeholder":true,"num":0}]', b"x"], Packet(ACK, "/n", [b"x"], 7)),
    ],
)
def test_packets_both_ways(frames: list[str | bytes], packet: Packet) -> None:
    decoder = PacketDecoder()
    *before, last = [decoder.feed(frame) for frame in frames]
    assert before == [None] * (len(frames) - 1)
    assert last == packet
    assert encode_packet(packet) == frames


@pytest.mark.parametrize(
    ("frame", "packet"),
    [
        ("0/admin", Packet(CONNECT, "/admin")),
        ("0/admin,", Packet(CONNECT, "/admin")),
        ('50-["hey"]', Packet(EVENT, "/", ["hey"])),
        ('50-7["hey"]', Packet(EVENT, "/", ["hey"], 7)),
        ('2["x",{"_placeholder":true,"num":9}]', Packet(EVENT, "/", ["x", {"_placeholder": True, "num": 9}])),
    ],
)
def test_other_ways_to_write_it(frame: str, packet: Packet) -> None:
    assert PacketDecoder().feed(frame) == packet


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "7",
        "9",
        "abc",
        "\u0662[]",
        "2",
        "2{}",
        "2[]",
        "2[1]",
        "2[null]",
        '2["connect"]',
        '2["newListener"]',
        "2null",
        "2/ns",
        '2abc["x"]',
        '2["x"',
        '2["x"]]',
        '31["x",NaN]',
        '0{"x":1e400}',
        '21234567890123456["x"]',
        '2\u0663["x"]',
        '20-["x"]',
        "0[]",
        "0null",
        '0"x"',
        "1[]",
        "1null",
        "3",
        "3{}",
        "31",
        "4",
        "4[]",
        '5["x"]',
        '5-["x"]',
        '565-["x"]',
        '59999999999-["x"]',
        "52-",
        "6[]",
        b"unasked",
    ],
)
def test_bad_packets(frame: str | bytes) -> None:
    with pytest.raises(BadPacket):
        PacketDecoder().feed(frame)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "-1e400", "1" * 101])
def test_no_number(number: str) -> None:
    """JSON in the eyes of many an encoder: its sender is told, and stays."""
    assert PacketDecoder().feed(f'2/a,7["x",[{number}]]') == RefusedEvent("/a", 7, "no-number")
    with pytest.raises(BadPacket):
        PacketDecoder().feed(f'51-["x",{number}]')


@pytest.mark.parametrize("number", ["1", "-1", "true", "0.5", '"0"', "null", "[]", "99999999999999999999"])
def test_bad_placeholders(number: str) -> None:
    decoder = PacketDecoder()
    assert decoder.feed(f'51-["x",[{{"_placeholder":true,"num":{number}}}]]') is None
    with pytest.raises(BadPacket):
        decoder.feed(b"x")


def test_attachments_too_large_or_interrupted() -> None:
    decoder = PacketDecoder(max_bytes=10)
    decoder.feed('52-["x"]')
    decoder.feed(b"12345")
    with pytest.raises(BadPacket):
        decoder.feed(b"123456")
    decoder = PacketDecoder()
    decoder.feed('51-["x"]')
    with pytest.raises(BadPacket):
        decoder.feed('2["y"]')


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("item", ["[]", "{}", '{"a":[]}', "0", "[[[]]]"])
def test_events_made_of_marks_can_be_answered(item: str) -> None:
    """They are not parsed: that would take long."""
    items = ",".join([item] * MAX_MARKS)
    assert PacketDecoder().feed(f'27["x",{items}]') == RefusedEvent("/", 7, "too-large")
    with pytest.raises(BadPacket):
        PacketDecoder().feed(f"37[[{items}]]")


@pytest.mark.parametrize("levels", [MAX_DEPTH, 900, 20_000])
def test_events_nested_too_deep_can_be_answered(levels: int) -> None:
    decoder = PacketDecoder()
    assert decoder.feed(f'2/n,5["x",{nested(levels)}]') == RefusedEvent("/n", 5, "too-deep")
    assert decoder.feed(f'2["x",{nested(levels)}]') == RefusedEvent("/", None, "too-deep")
    for head in ("0", "3", "50-", "4"):
        with pytest.raises(BadPacket):
            decoder.feed(head + nested(levels + 1))


def test_depth_below_the_bound_is_fine() -> None:
    assert isinstance(PacketDecoder().feed(f'2["x",{nested(MAX_DEPTH - 1)}]'), Packet)


@pytest.mark.parametrize(
    ("head", "refused"),
    [
        ('25["x","', RefusedEvent("/", 5, "too-large")),
        ('2/n,["x","', RefusedEvent("/n", None, "too-large")),
        ('50-["x"', None),
        ("25{", None),
        ("35[", None),
        ("2" + "1" * 255, None),
        ("2/" + "n" * 254, None),
        ("", None),
    ],
)
def test_what_is_told_of_a_packet_too_large(head: str, refused: RefusedEvent | None) -> None:
    assert refused_event(head) == refused


@pytest.mark.parametrize("data", [[object()], [float("nan")], [{1: {2}}], ["\ud800", float("inf")]])
def test_what_is_not_json_raises_for_the_application(data: list[Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_packet(Packet(EVENT, "/", ["x", *data]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
binary_values = st.recursive(
    st.none() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["e", "\x00", "ä, /"]),
    st.lists(json_values | binary_values, max_size=3),
    st.sampled_from(["/", "/a", "/a/b-3"]),
    st.none() | st.integers(0, 10**15 - 1),
)
def test_fuzz_events_come_back(name: str, args: list[Any], namespace: str, ack_id: int | None) -> None:
    """An event that is encoded decodes to itself."""
    packet = Packet(EVENT, namespace, [name, *args], ack_id)
    decoder = PacketDecoder(max_attachments=1000)
    *before, last = [decoder.feed(frame) for frame in encode_packet(packet)]
    assert before == [None] * len(before)
    assert last == packet


fragments = st.lists(
    st.sampled_from([*'0123456789-/,[]{}":', '["a"', '{"_placeholder":true,"num":', "true", "null", "٣", "²"])
    | st.text(max_size=3),
    max_size=12,
).map("".join)


@given(st.lists(fragments | st.text() | st.binary(max_size=5), max_size=4))
def test_fuzz_frames(frames: list[str | bytes]) -> None:
    """Any sequence of frames gives packets that can be encoded, refusals, or BadPacket."""
    decoder = PacketDecoder()
    for frame in frames:
        try:
            packet = decoder.feed(frame)
        except BadPacket:
            return
        if isinstance(packet, Packet):
            assert encode_packet(packet)


@given(st.data())
def test_fuzz_mutated_packets(data: st.DataObject) -> None:
    """A valid packet with a few characters changed gives packets that can be encoded, refusals, or
    BadPacket.
    """
    frame = data.draw(
        st.sampled_from(
            [
                '0/admin,{"token":"123"}',
                '2/n,12["hey",{"a":[1,2.5,null]}]',
                '51-/n,7["b",{"_placeholder":true,"num":0}]',
                '62-1[{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]',
            ]
        )
    )
    characters = list(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(characters) - 1))
        characters[position] = data.draw(st.characters() | st.sampled_from('0129-/,[]{}"'))
    decoder = PacketDecoder()
    try:
        packet = decoder.feed("".join(characters))
        while packet is None:
            packet = decoder.feed(b"x")
    except BadPacket:
        return
    if isinstance(packet, Packet):
        assert encode_packet(packet)


@given(st.text(max_size=256) | fragments)
def test_fuzz_heads(head: str) -> None:
    """The beginning of anything is a refusal or None."""
    refused = refused_event(head)
    assert refused is None or refused.why == "too-large"
