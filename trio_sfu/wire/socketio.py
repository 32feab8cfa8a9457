"""Socket.IO v5 packets: text and binary frames to frozen values and back.

Owns the decision to use python-socketio's codec, and everything that codec is too kind about. Used by
:mod:`trio_sfu.protocols.socketio` only. The parser raises :class:`BadPacket` and nothing else.

Source: the Socket.IO protocol, revision 5, "Packet encoding".
"""

from __future__ import annotations

import enum
import json
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from socketio.packet import Packet as _CodecPacket

from trio_sfu.wire.errors import BadPacket

#: The most binary attachments of one packet.
MAX_ATTACHMENTS: Final = 64

#: The deepest nesting of a payload's lists and objects. mediasoup's deepest message has seven levels.
MAX_DEPTH: Final = 64

#: The most commas and brackets of a message. To parse what is made of nothing else takes ten times as long as text
#: of its length, and the calls of everybody wait for it; a browser's RtpCapabilities have some 2,000.
MAX_MARKS: Final = 50_000

#: Names that only the two ends themselves may raise.
RESERVED_EVENTS: Final = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)

# Type, number of attachments, namespace (up to a comma), acknowledgement id; the rest is JSON.
_HEAD = re.compile(
    r"(?P<type>[0-6])(?:(?P<attachments>[0-9]{1,9})-)?"
    r"(?:(?P<namespace>/[^,]*)(?:,|\Z))?(?P<id>[0-9]{1,15})?(?![0-9])",
    re.ASCII,
)


class PacketType(enum.IntEnum):
    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


@dataclass(frozen=True, slots=True)
class Packet:
    """One whole packet, attachments put back into ``data``.

    ``data`` is JSON-like (with bytes in it): a list for EVENT (its first item the name) and ACK, an object or
    None for CONNECT, an object or a string for CONNECT_ERROR, None for DISCONNECT. A packet with attachments
    is an EVENT or an ACK here: that it was binary on the wire is the codec's affair.
    """

    type: PacketType
    namespace: str = "/"
    data: Any = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event whose head is in order but whose payload is not taken: it can still be answered."""

    namespace: str
    id: int | None
    why: Literal["too-large", "too-deep", "no-number"]


class _NoNumber(ValueError):
    """NaN, an infinity, or what is as good as one: not JSON, or not to be written back as JSON."""


def _parse_int(digits: str) -> int:
    if len(digits) > 100:  # int() is quadratic
        raise _NoNumber
    return int(digits)


def _parse_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NoNumber
    return value


def _parse_constant(name: str) -> float:
    raise _NoNumber(name)


class _StrictJson:
    """Stands where the codec expects a JSON module: RFC 8259 both ways, without Python's extensions."""

    @staticmethod
    def loads(text: str) -> Any:
        return json.loads(text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_parse_constant)

    @staticmethod
    def dumps(value: Any, separators: tuple[str, str]) -> str:
        return json.dumps(value, separators=separators, allow_nan=False)


class _Codec(_CodecPacket):  # type: ignore[misc]  # the package is untyped
    json: ClassVar[type[_StrictJson]] = _StrictJson


def encode_packet(packet: Packet) -> list[str | bytes]:
    """The packet as frames: the text first, then its attachments.

    ``data`` is made of what JSON has, and bytes; lists, not tuples. Raises TypeError or ValueError for
    anything else: the application's mistake.
    """
    fields = (int(packet.type), packet.data, packet.namespace, packet.id)
    try:
        encoded = _Codec(*fields, binary=False).encode()
    except TypeError:  # bytes in it: the codec's own search for them costs as much as all the rest
        encoded = _Codec(*fields, binary=True).encode()
    return encoded if isinstance(encoded, list) else [encoded]


def refused_event(head: str) -> RefusedEvent | None:
    """What can be told of a packet too large to be read, from its first characters; None: not an event."""
    match = _HEAD.match(head)
    if match is None or match["type"] != "2" or not head[match.end() :].startswith("["):
        return None
    return RefusedEvent(match["namespace"] or "/", int(match["id"]) if match["id"] else None, "too-large")


class PacketDecoder:
    """Puts frames together to packets: one for each Engine.IO session."""

    def __init__(self, *, max_attachments: int = MAX_ATTACHMENTS, max_bytes: int = 4_000_000) -> None:
        # given
        self._max_attachments = max_attachments
        self._max_bytes = max_bytes
        # owned: a packet that waits for attachments
        self._waiting: _Codec | None = None
        self._waiting_bytes = 0

    def feed(self, frame: str | bytes) -> Packet | RefusedEvent | None:
        """One Engine.IO message; None while attachments are missing. Raises BadPacket: close the client."""
        if isinstance(frame, str):
            if self._waiting is not None:
                raise BadPacket("text where an attachment is due")
            return self._feed_text(frame)
        return self._feed_attachment(frame)

    def _feed_text(self, text: str) -> Packet | RefusedEvent | None:
        head = _HEAD.match(text)
        # Nothing but these begins a payload; and the codec takes the digits of any script for an id.
        if head is None or text[head.end() : head.end() + 1] not in ("", "[", "{", '"'):
            raise BadPacket("malformed Socket.IO packet")
        packet_type = PacketType(int(head["type"]))
        binary = packet_type in (PacketType.BINARY_EVENT, PacketType.BINARY_ACK)
        if (head["attachments"] is not None) != binary:
            raise BadPacket("attachments do not go with the packet type")
        if binary and int(head["attachments"]) > self._max_attachments:
            raise BadPacket("too many attachments")
        why: Literal["too-large", "too-deep", "no-number"] | None = None
        try:
            if sum(map(text.count, ",[{")) > MAX_MARKS:
                why = "too-large"
            else:
                packet = _Codec(encoded_packet=text)
                if _is_too_deep(packet.data):
                    why = "too-deep"
        except RecursionError:
            why = "too-deep"
        except _NoNumber:
            why = "no-number"
        except (ValueError, TypeError, LookupError) as error:
            raise BadPacket("malformed Socket.IO packet") from error
        if why is not None:
            if packet_type is not PacketType.EVENT:
                raise BadPacket(f"a payload that is not taken: {why}")
            ack_id = int(head["id"]) if head["id"] else None
            return RefusedEvent(head["namespace"] or "/", ack_id, why)
        _check_payload(packet_type, packet.data)
        if packet.attachment_count == 0:
            return _finished(packet)
        self._waiting = packet
        self._waiting_bytes = 0
        return None

    def _feed_attachment(self, data: bytes) -> Packet | None:
        packet = self._waiting
        if packet is None:
            raise BadPacket("an attachment that nothing asked for")
        self._waiting_bytes += len(data)
        if self._waiting_bytes > self._max_bytes:
            raise BadPacket("attachments too large")
        _check_placeholders(packet.data, packet.attachment_count)
        if not packet.add_attachment(data):
            return None
        self._waiting = None
        return _finished(packet)


def _finished(packet: Any) -> Packet:
    plain = {PacketType.BINARY_EVENT: PacketType.EVENT, PacketType.BINARY_ACK: PacketType.ACK}
    packet_type = PacketType(packet.packet_type)
    return Packet(plain.get(packet_type, packet_type), packet.namespace or "/", packet.data, packet.id)


def _check_payload(packet_type: PacketType, data: Any) -> None:
    match packet_type:
        case PacketType.CONNECT:
            valid = data is None or isinstance(data, dict)
        case PacketType.DISCONNECT:
            valid = data is None
        case PacketType.CONNECT_ERROR:
            valid = isinstance(data, (dict, str))
        case PacketType.ACK | PacketType.BINARY_ACK:
            valid = isinstance(data, list)
        case _:
            valid = isinstance(data, list) and bool(data) and isinstance(data[0], str)
            valid = valid and data[0] not in RESERVED_EVENTS
    if not valid:
        raise BadPacket(f"a payload that no {packet_type.name} has")


def _nested(level: list[Any]) -> list[Any]:
    """The lists and objects directly inside those of ``level``."""
    return [
        child
        for value in level
        for child in (value.values() if isinstance(value, dict) else value)
        if isinstance(child, (dict, list))
    ]


def _is_too_deep(data: Any) -> bool:
    level = [data] if isinstance(data, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = _nested(level)
    return bool(level)


def _check_placeholders(data: Any, count: int) -> None:
    """The codec indexes with whatever ``num`` is: negative, a string, too large."""
    level = [data]
    while level:
        for value in level:
            if isinstance(value, dict) and value.get("_placeholder") and "num" in value:
                number = value["num"]
                if type(number) is not int or not 0 <= number < count:
                    raise BadPacket("a placeholder for no attachment")
        level = _nested(level)
