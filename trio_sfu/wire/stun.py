"""STUN Binding messages (RFC 8489) as ICE uses them: strict parsing and the replies of an ICE-lite agent.

Parsing is ``aioice.stun`` behind checks it leaves out: the two leading zero bits, the magic cookie,
attributes that run past the end, what follows FINGERPRINT, attributes nobody understands. Replies are put
together here: aioice has no UNKNOWN-ATTRIBUTES, and takes three times as long.
Used by :mod:`trio_sfu.protocols.ice`; pure functions.

.. code-block:: text

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |0 0|  message type (class and method)  |     length of the attributes  |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                   magic cookie 0x2112A442                     |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                 transaction id (96 bits)                      |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
"""

import binascii
import hmac
import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from aioice import stun as _aioice

from trio_sfu.wire.errors import BadPacket

__all__ = [
    "REASONS",
    "StunMessage",
    "error_response",
    "parse_message",
    "peek_username",
    "success_response",
    "transaction_id_of_request",
]

MAGIC_COOKIE: Final = 0x2112A442
HEADER_LENGTH: Final = 20
FINGERPRINT_XOR: Final = 0x5354554E
# Far above any Binding message (Chrome's are about 120 bytes), far below what parsing would be felt.
MAX_LENGTH: Final = 2048

MAPPED_ADDRESS: Final = 0x0001
USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
REALM: Final = 0x0014
NONCE: Final = 0x0015
XOR_MAPPED_ADDRESS: Final = 0x0020
PRIORITY: Final = 0x0024
USE_CANDIDATE: Final = 0x0025
NOMINATION: Final = 0x0030  # draft-thatcher-ice-renomination
FINGERPRINT: Final = 0x8028
ICE_CONTROLLED: Final = 0x8029
ICE_CONTROLLING: Final = 0x802A
NOMINATION_LIBWEBRTC: Final = 0xC001  # the same thing, at the number libwebrtc gave it

_COMPREHENDED: Final = frozenset(
    {
        MAPPED_ADDRESS,
        USERNAME,
        MESSAGE_INTEGRITY,
        ERROR_CODE,
        UNKNOWN_ATTRIBUTES,
        REALM,
        NONCE,
        XOR_MAPPED_ADDRESS,
        PRIORITY,
        USE_CANDIDATE,
        NOMINATION,
    }
)
# Values that aioice would slice to size, or read past, without a word.
_FIXED_LENGTHS: Final = {
    MESSAGE_INTEGRITY: 20,
    PRIORITY: 4,
    USE_CANDIDATE: 0,
    NOMINATION: 4,
    NOMINATION_LIBWEBRTC: 4,
    FINGERPRINT: 4,
    ICE_CONTROLLED: 8,
    ICE_CONTROLLING: 8,
}

BINDING_REQUEST: Final = 0x0001
BINDING_INDICATION: Final = 0x0011
BINDING_SUCCESS: Final = 0x0101
BINDING_ERROR: Final = 0x0111

MessageClass = Literal["request", "indication", "success", "error"]
_CLASSES: Final[dict[int, MessageClass]] = {
    BINDING_REQUEST: "request",
    BINDING_INDICATION: "indication",
    BINDING_SUCCESS: "success",
    BINDING_ERROR: "error",
}

REASONS: Final = {
    400: "Bad Request",
    401: "Unauthenticated",
    420: "Unknown Attribute",
    487: "Role Conflict",
    500: "Server Error",
}

_HEADER: Final = struct.Struct("!HHI12s")
_TYPE_LENGTH: Final = struct.Struct("!HH")
_UINT32: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class StunMessage:
    """One parsed Binding message. An attribute that is absent, or follows MESSAGE-INTEGRITY, is ``None``."""

    message_class: MessageClass
    transaction_id: bytes
    """12 bytes."""
    username: str | None = None
    """In a request ``<ufrag of the receiver>:<ufrag of the sender>`` (RFC 8445 section 7.2.2)."""
    priority: int | None = None
    use_candidate: bool = False
    nomination: int | None = None
    """Of draft-thatcher-ice-renomination: the path with the greatest value is the selected one."""
    ice_controlling: int | None = None
    """Tie-breaker of a controlling agent."""
    ice_controlled: int | None = None
    """Tie-breaker of a controlled agent."""
    xor_mapped_address: tuple[str, int] | None = None
    error_code: int | None = None
    unknown_required: tuple[int, ...] = ()
    """Types of attributes that must be understood (below 0x8000) and are not: answer 420 (RFC 8489 6.3.1)."""
    has_integrity: bool = False
    has_fingerprint: bool = False
    _source: _aioice.Message | None = field(default=None, repr=False, compare=False)

    def verify(self, key: bytes) -> bool:
        """Whether MESSAGE-INTEGRITY is there and was made with ``key``, compared in constant time."""
        # aioice compares with hmac.compare_digest.
        return self._source is not None and bool(self._source.check_message_integrity(key))


def parse_message(data: bytes | memoryview) -> StunMessage:
    """Parse one datagram holding a Binding request, indication or response.

    A FINGERPRINT is checked where there is one; MESSAGE-INTEGRITY is left to :meth:`StunMessage.verify`.
    Unknown attributes never fail the parse.

    Raises :class:`BadPacket` only.
    """
    data = bytes(data)
    message_class, transaction_id = _parse_header(data)
    nomination: int | None = None
    unknown: list[int] = []
    seen: set[int] = set()
    integrity = fingerprint = False
    for kind, start, end in _walk(data):
        if fingerprint:
            raise BadPacket("STUN: an attribute follows FINGERPRINT")
        if integrity and kind != FINGERPRINT:
            continue  # not authenticated, so not read (RFC 8489 section 14.5)
        if kind in seen:
            # RFC 8489 section 14 reads the first only, aioice the last; no honest sender repeats one.
            raise BadPacket(f"STUN: attribute 0x{kind:04x} twice")
        seen.add(kind)
        expected = _FIXED_LENGTHS.get(kind)
        if expected is not None and end - start != expected:
            raise BadPacket(f"STUN: attribute 0x{kind:04x} has {end - start} bytes, not {expected}")
        if kind == FINGERPRINT:
            fingerprint = True
        elif kind == MESSAGE_INTEGRITY:
            integrity = True
        elif kind in (NOMINATION, NOMINATION_LIBWEBRTC):
            nomination = _UINT32.unpack_from(data, start)[0]
        elif kind < 0x8000 and kind not in _COMPREHENDED:
            unknown.append(kind)
    try:
        source = _aioice.parse_message(data)
    except (ValueError, struct.error, IndexError) as error:  # ValueError: also UnicodeDecodeError
        raise BadPacket(f"STUN: {error}") from None
    attributes = source.attributes
    error_code = attributes.get("ERROR-CODE")
    return StunMessage(
        message_class=message_class,
        transaction_id=transaction_id,
        username=attributes.get("USERNAME"),
        priority=attributes.get("PRIORITY"),
        use_candidate="USE-CANDIDATE" in attributes,
        nomination=nomination,
        ice_controlling=attributes.get("ICE-CONTROLLING"),
        ice_controlled=attributes.get("ICE-CONTROLLED"),
        xor_mapped_address=attributes.get("XOR-MAPPED-ADDRESS"),
        error_code=None if error_code is None else error_code[0],
        unknown_required=tuple(unknown),
        has_integrity=integrity,
        has_fingerprint=fingerprint,
        _source=source,
    )


def peek_username(data: bytes | memoryview) -> str | None:
    """USERNAME of a Binding request, or ``None`` where it has none: for routing, with nothing verified.

    Raises :class:`BadPacket` for all that is not a well-formed Binding request.
    """
    transaction_id_of_request(data)
    username: str | None = None
    for kind, start, end in _walk(data):
        if kind == USERNAME and username is None:
            try:
                username = str(data[start:end], "utf-8")
            except UnicodeDecodeError:
                raise BadPacket("STUN: USERNAME is not UTF-8") from None
        elif kind == MESSAGE_INTEGRITY:
            break
    return username


def transaction_id_of_request(data: bytes | memoryview) -> bytes:
    """The transaction id of a Binding request, from its header alone. Raises :class:`BadPacket`."""
    message_class, transaction_id = _parse_header(data)
    if message_class != "request":
        raise BadPacket(f"STUN: Binding {message_class}, not a request")
    return transaction_id


def success_response(transaction_id: bytes, host: str, port: int, key: bytes) -> bytes:
    """A Binding success response with XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY and FINGERPRINT.

    ``host`` is a numeric address; one that is IPv4 mapped into IPv6 goes out as IPv4, because that is the
    address the sender knows. ``key`` is the password of the agent that answers.
    Raises ``ValueError`` for a bad ``host``.
    """
    return _finish(BINDING_SUCCESS, transaction_id, _xor_mapped_address(host, port, transaction_id), key)


def error_response(transaction_id: bytes, code: int, *, key: bytes | None = None, unknown: Sequence[int] = ()) -> bytes:
    """A Binding error response with FINGERPRINT, signed with ``key`` or, where it is ``None``, unsigned.

    ``unknown`` are the attribute types for UNKNOWN-ATTRIBUTES of a 420; the first 16 are named.
    """
    reason = REASONS.get(code, "").encode()
    body = _attribute(ERROR_CODE, struct.pack("!HBB", 0, code // 100, code % 100) + reason)
    if unknown:
        named = unknown[:16]
        body += _attribute(UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(named)}H", *named))
    return _finish(BINDING_ERROR, transaction_id, body, key)


def _parse_header(data: bytes | memoryview) -> tuple[MessageClass, bytes]:
    if not HEADER_LENGTH <= len(data) <= MAX_LENGTH:
        raise BadPacket(f"STUN: {len(data)} bytes")
    message_type, length, cookie, transaction_id = _HEADER.unpack_from(data)
    # The leading zero bits are checked by the look-up too: no known type has them set.
    message_class = _CLASSES.get(message_type)
    if message_class is None:
        raise BadPacket(f"STUN: message type 0x{message_type:04x}")
    if cookie != MAGIC_COOKIE:
        raise BadPacket("STUN: no magic cookie")
    if length % 4 or length != len(data) - HEADER_LENGTH:
        raise BadPacket(f"STUN: says {length} bytes of attributes, has {len(data) - HEADER_LENGTH}")
    return message_class, transaction_id


def _walk(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each attribute's value; ``data`` has passed :func:`_parse_header`."""
    position = HEADER_LENGTH
    size = len(data)
    while position < size:
        kind, length = _TYPE_LENGTH.unpack_from(data, position)
        start = position + 4
        end = start + length
        position = end + (-length % 4)
        if position > size:
            raise BadPacket(f"STUN: attribute 0x{kind:04x} runs past the end")
        yield kind, start, end


def _attribute(kind: int, value: bytes) -> bytes:
    return _TYPE_LENGTH.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _xor_mapped_address(host: str, port: int, transaction_id: bytes) -> bytes:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    packed = address.packed
    pad = (_UINT32.pack(MAGIC_COOKIE) + transaction_id)[: len(packed)]
    xored = int.from_bytes(packed, "big") ^ int.from_bytes(pad, "big")
    family = 1 if address.version == 4 else 2
    return _attribute(
        XOR_MAPPED_ADDRESS,
        struct.pack("!BBH", 0, family, port ^ (MAGIC_COOKIE >> 16)) + xored.to_bytes(len(packed), "big"),
    )


def _finish(message_type: int, transaction_id: bytes, body: bytes, key: bytes | None) -> bytes:
    """Header, ``body``, MESSAGE-INTEGRITY where there is a key, FINGERPRINT.

    Both checksums are taken over a header whose length already counts the attribute that carries them, and no
    more (RFC 8489 sections 14.5 and 14.7).
    """
    if key is not None:
        head = _HEADER.pack(message_type, len(body) + 24, MAGIC_COOKIE, transaction_id)
        body += _attribute(MESSAGE_INTEGRITY, hmac.digest(key, head + body, "sha1"))
    message = _HEADER.pack(message_type, len(body) + 8, MAGIC_COOKIE, transaction_id) + body
    return message + _attribute(FINGERPRINT, _UINT32.pack(binascii.crc32(message) ^ FINGERPRINT_XOR))
