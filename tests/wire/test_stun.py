"""The vectors of RFC 5769, the replies against aioice's own, hostile bytes."""

import binascii
import hashlib
import struct

import pytest
from aioice import stun as aioice_stun
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.wire import stun
from trio_sfu.wire.errors import BadPacket

ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"

# RFC 5769 section 2.1
REQUEST = bytes.fromhex(
    "00010058 2112a442 b7e7a701bc34d686fa87dfae"
    "80220010 5354554e207465737420636c69656e74"  # SOFTWARE "STUN test client"
    "00240004 6e0001ff"  # PRIORITY
    "80290008 932ff9b151263b36"  # ICE-CONTROLLED
    "00060009 6576746a3a68367659 202020"  # USERNAME "evtj:h6vY", padded with spaces
    "00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"  # MESSAGE-INTEGRITY
    "80280004 e57a3bcf"  # FINGERPRINT
)
# RFC 5769 section 2.2
IPV4_RESPONSE = bytes.fromhex(
    "0101003c 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f72 20"
    "00200008 0001a147e112a643"
    "00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004 c07d4c96"
)
# RFC 5769 section 2.3
IPV6_RESPONSE = bytes.fromhex(
    "01010048 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f72 20"
    "00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014 a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004 c8fb0b4c"
)
# RFC 5769 section 2.4
LONG_TERM_REQUEST = bytes.fromhex(
    "00010060 2112a442 78ad3433c6ad72c029da412e"
    "00060012 e3839ee38388e383aae38383e382afe382b9 0000"
    "0015001c 662f2f3439396b39353464364f4c33346f4c394653547679363473 41"
    "0014000b 6578616d706c652e6f7267 00"
    "00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666"
)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def message(*attributes: bytes, message_type: int = 0x0001, cookie: int = 0x2112A442) -> bytes:
    body = b"".join(attributes)
    return struct.pack("!HHI", message_type, len(body), cookie) + ID + body


def fingerprint_of(data: bytes) -> bytes:
    head = data[:2] + struct.pack("!H", len(data) - 20 + 8) + data[4:]
    return attribute(0x8028, struct.pack("!I", binascii.crc32(head) ^ 0x5354554E))


def test_rfc_5769_request() -> None:
    parsed = stun.parse_message(REQUEST)
    assert parsed.message_class == "request"
    assert parsed.transaction_id == ID
    assert parsed.username == "evtj:h6vY"
    assert parsed.priority == 0x6E0001FF
    assert parsed.ice_controlled == 0x932FF9B151263B36
    assert parsed.ice_controlling is None
    assert not parsed.use_candidate
    assert parsed.unknown_required == ()
    assert parsed.has_integrity
    assert parsed.has_fingerprint
    assert parsed.verify(PASSWORD)
    assert not parsed.verify(PASSWORD + b"x")
    assert stun.peek_username(REQUEST) == "evtj:h6vY"
    assert stun.parse_message(memoryview(REQUEST)) == parsed
    assert stun.peek_username(memoryview(REQUEST)) == "evtj:h6vY"


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (IPV4_RESPONSE, ("192.0.2.1", 32853)),
        (IPV6_RESPONSE, ("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_rfc_5769_responses(data: bytes, address: tuple[str, int]) -> None:
    parsed = stun.parse_message(data)
    assert parsed.message_class == "success"
    assert parsed.xor_mapped_address == address
    assert parsed.verify(PASSWORD)
    with pytest.raises(BadPacket):
        stun.peek_username(data)
    # The same without SOFTWARE is what success_response() makes of it.
    ours = stun.success_response(ID, *address, PASSWORD)
    again = stun.parse_message(ours)
    assert again.xor_mapped_address == address
    assert again.verify(PASSWORD)
    assert again.has_fingerprint
    xor_mapped_address = data[36:-32]
    assert ours[20 : 20 + len(xor_mapped_address)] == xor_mapped_address


def test_rfc_5769_long_term_credentials() -> None:
    parsed = stun.parse_message(LONG_TERM_REQUEST)
    assert parsed.username == "マトリックス"
    assert not parsed.has_fingerprint
    assert parsed.verify(hashlib.md5("マトリックス:example.org:TheMatrIX".encode()).digest())


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_success_response_is_what_aioice_would_send(host: str) -> None:
    theirs = aioice_stun.Message(
        message_method=aioice_stun.Method.BINDING,
        message_class=aioice_stun.Class.RESPONSE,
        transaction_id=ID,
        attributes={"XOR-MAPPED-ADDRESS": (host, 54321)},
    )
    theirs.add_message_integrity(PASSWORD)
    assert stun.success_response(ID, host, 54321, PASSWORD) == bytes(theirs)


@pytest.mark.parametrize("code", [400, 401, 487])
@pytest.mark.parametrize("key", [None, PASSWORD])
def test_error_response_is_what_aioice_would_send(code: int, key: bytes | None) -> None:
    theirs = aioice_stun.Message(
        message_method=aioice_stun.Method.BINDING,
        message_class=aioice_stun.Class.ERROR,
        transaction_id=ID,
        attributes={"ERROR-CODE": (code, stun.REASONS[code])},
    )
    if key is None:
        theirs.add_fingerprint()
    else:
        theirs.add_message_integrity(key)
    ours = stun.error_response(ID, code, key=key)
    assert ours == bytes(theirs)
    parsed = stun.parse_message(ours)
    assert parsed.message_class == "error"
    assert parsed.error_code == code
    assert parsed.has_integrity == (key is not None)


def test_unknown_attributes_are_named() -> None:
    reply = stun.error_response(ID, 420, key=PASSWORD, unknown=(0x0042, 0x7FFF, 0x0043))
    parsed = stun.parse_message(reply)
    assert parsed.error_code == 420
    assert parsed.verify(PASSWORD)
    assert attribute(0x000A, bytes.fromhex("00427fff0043")) in reply
    assert len(stun.error_response(ID, 420, key=PASSWORD, unknown=range(1, 400))) < 150


@pytest.mark.parametrize("host", ["::ffff:192.0.2.1", "192.0.2.1"])
def test_mapped_ipv4_goes_out_as_ipv4(host: str) -> None:
    reply = stun.success_response(ID, host, 32853, PASSWORD)
    assert stun.parse_message(reply).xor_mapped_address == ("192.0.2.1", 32853)


def test_scope_of_a_link_local_address_stays_here() -> None:
    reply = stun.success_response(ID, "fe80::1%eth0", 1, PASSWORD)
    assert stun.parse_message(reply).xor_mapped_address == ("fe80::1", 1)


def test_unknown_attributes_are_no_error_and_required_ones_are_listed() -> None:
    parsed = stun.parse_message(
        message(
            attribute(0xC057, b"\x00\x01\x00\x0a"),  # libwebrtc's GOOG-NETWORK-INFO
            attribute(0x7F01, b"odd"),
            attribute(0x0030, struct.pack("!I", 7)),
            attribute(0x0042, b""),
            attribute(0x0006, b"a:b"),
            attribute(0x0025, b""),
        )
    )
    assert parsed.unknown_required == (0x7F01, 0x0042)
    assert parsed.nomination == 7
    assert parsed.use_candidate
    assert parsed.username == "a:b"
    assert not parsed.verify(b"")


@pytest.mark.parametrize("kind", [0x0030, 0xC001])
def test_nomination_at_both_numbers(kind: int) -> None:
    assert stun.parse_message(message(attribute(kind, b"\x00\x00\x00\x05"))).nomination == 5


def test_what_follows_message_integrity_is_not_read() -> None:
    request = aioice_stun.Message(
        message_method=aioice_stun.Method.BINDING,
        message_class=aioice_stun.Class.REQUEST,
        transaction_id=ID,
        attributes={"USERNAME": "a:b"},
    )
    request.add_message_integrity(PASSWORD)
    signed = bytes(request)[:-8]
    forged = signed + attribute(0x0025, b"") + attribute(0x0030, b"\0\0\0\x09") + attribute(0x7F01, b"")
    forged = forged[:2] + struct.pack("!H", len(forged) - 20 + 8) + forged[4:]
    forged += fingerprint_of(forged)
    parsed = stun.parse_message(forged)
    assert not parsed.use_candidate
    assert parsed.nomination is None
    assert parsed.unknown_required == ()
    assert parsed.verify(PASSWORD)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        message()[:19],
        message(cookie=0x2112A443),
        message(message_type=0x4001),  # the leading bits are not zero
        message(message_type=0x8001),
        message(message_type=0x0003),  # Allocate
        message()[:2] + b"\x00\x04" + message()[4:],  # says more than there is
        message(attribute(0x8022, b"x" * 3000)),
        message(b"\x00\x06\x00\x05abcd"),  # an attribute that runs past the end
        message(b"\x00\x06\x00\x03abc"),  # not padded
        message(b"\x00\x06"),
        message(attribute(0x0006, b"\xff\xfe")),  # not UTF-8
        message(attribute(0x0024, b"\x00\x01")),
        message(attribute(0x0025, b"\x00")),
        message(attribute(0x8029, b"\x00" * 7)),
        message(attribute(0x0030, b"\x00\x01")),
        message(attribute(0x0008, b"\x00" * 19)),
        message(attribute(0x0020, b"\x00\x03\x00\x00")),
        message(attribute(0x8028, b"\x00\x00\x00\x00")),  # a wrong FINGERPRINT
        message(attribute(0x0006, b"a:b"), attribute(0x0006, b"c:d")),
        REQUEST[:-1] + b"\x00",
        REQUEST[:-8][:2] + b"\x00\x58" + REQUEST[4:-8],
    ],
)
def test_bad_packets(data: bytes) -> None:
    with pytest.raises(BadPacket):
        stun.parse_message(data)


def test_fingerprint_is_the_last_attribute() -> None:
    body = message(attribute(0x0006, b"a:b"))
    data = body[:2] + struct.pack("!H", len(body) - 20 + 8) + body[4:] + fingerprint_of(body)
    assert stun.parse_message(data).has_fingerprint
    data = data[:2] + struct.pack("!H", len(data) - 20 + 4) + data[4:] + attribute(0x8022, b"")
    with pytest.raises(BadPacket):
        stun.parse_message(data)


def check_invariant(data: bytes) -> None:
    """Any bytes are a StunMessage or a BadPacket; what parses as a request routes by the same username."""
    try:
        parsed = stun.parse_message(data)
    except BadPacket:
        parsed = None
    try:
        username = stun.peek_username(data)
    except BadPacket:
        assert parsed is None or parsed.message_class != "request"
    else:
        assert parsed is None or parsed.username == username
    if parsed is not None:
        parsed.verify(PASSWORD)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    check_invariant(data)


@settings(deadline=None)
@given(
    st.sampled_from([0x0001, 0x0011, 0x0101, 0x0111]),
    st.lists(
        st.tuples(
            st.sampled_from([kind for kind, *_ in aioice_stun.ATTRIBUTES] + [0x0030, 0xC001, 0xC057, 0x000A])
            | st.integers(0, 0xFFFF),
            st.binary(max_size=24),
        ),
        max_size=6,
    ),
)
def test_random_attributes(message_type: int, attributes: list[tuple[int, bytes]]) -> None:
    body = (attribute(kind, value) for kind, value in attributes)
    check_invariant(message(*body, message_type=message_type))


@settings(deadline=None)
@given(
    st.sampled_from([REQUEST, IPV4_RESPONSE, IPV6_RESPONSE, LONG_TERM_REQUEST]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
    st.booleans(),
)
def test_mutated_messages(original: bytes, changes: list[tuple[int, int]], cut: int, with_fingerprint: bool) -> None:
    data = bytearray(original[: len(original) - cut] if cut % 4 == 0 else original)
    for position, value in changes:
        if position < len(data):
            data[position] = value
    mutated = bytes(data)
    if with_fingerprint and len(mutated) >= 28:
        # Past the checksum, so that the parser behind it is reached.
        mutated = mutated[:2] + struct.pack("!H", len(mutated) - 28) + mutated[4:-8]
        mutated = mutated[:2] + struct.pack("!H", len(mutated) - 20 + 8) + mutated[4:] + fingerprint_of(mutated)
    check_invariant(mutated)
