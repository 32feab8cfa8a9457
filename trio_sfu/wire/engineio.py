"""Engine.IO v4 packets and payloads: text and bytes to frozen values and back.

Owns the decision to use python-engineio's codec, and everything that codec is too kind about. Used by
:mod:`trio_sfu.protocols.engineio` only. Pure functions; the parsers raise :class:`BadPacket` and nothing
else.

Source: the Engine.IO protocol, revision 4, "Packet encoding" and "HTTP long-polling".
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import ClassVar, Final

from engineio.packet import Packet as _CodecPacket
from engineio.payload import Payload as _CodecPayload

from trio_sfu.wire.errors import BadPacket

#: The record separator between the packets of one polling payload.
SEPARATOR: Final = "\x1e"

#: The most packets taken from one POST: far above what any client sends at once, low enough to stay cheap.
MAX_PACKETS_IN_PAYLOAD: Final = 4096

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)


class PacketType(enum.IntEnum):
    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. ``data`` is bytes only in a MESSAGE."""

    type: PacketType
    data: str | bytes = ""


class _TextAsItIs:
    """Stands where the codec expects a JSON module: Engine.IO has no business reading its payloads."""

    @staticmethod
    def loads(text: str) -> str:
        return text


class _Codec(_CodecPacket):  # type: ignore[misc]  # the package is untyped
    json: ClassVar[type[_TextAsItIs]] = _TextAsItIs


def decode_packet(frame: str | bytes) -> Packet:
    """One packet out of a WebSocket frame, or out of one record of a payload.

    ``bytes`` are a binary message; a string beginning with ``b`` is one in base64 (strict alphabet and
    padding). Raises BadPacket.
    """
    if isinstance(frame, str):
        if not frame:
            raise BadPacket("empty packet")
        if frame[0] == "b":
            if _BASE64.fullmatch(frame, 1) is None:
                raise BadPacket("not base64")
        elif frame[0] not in "0123456":
            raise BadPacket("unknown Engine.IO packet type")
    try:
        packet = _Codec(encoded_packet=frame)
    except (ValueError, TypeError, LookupError) as error:
        raise BadPacket("malformed Engine.IO packet") from error
    return Packet(PacketType(packet.packet_type), packet.data)


def encode_packet(packet: Packet) -> str | bytes:
    """The packet as one WebSocket frame."""
    # A codec object caches its first encoding, whichever that was: always a new one.
    encoded: str | bytes = _Codec(int(packet.type), packet.data).encode()
    return encoded


def decode_payload(body: bytes, *, max_packets: int = MAX_PACKETS_IN_PAYLOAD) -> list[Packet]:
    """The packets of a POST's body, at least one. Raises BadPacket."""
    # The package's own Payload is not used to decode: it takes 16 packets at most and reads "d=" as a form.
    if body.count(b"\x1e") >= max_packets:
        raise BadPacket("too many packets in one payload")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadPacket("payload is not UTF-8") from error
    return [decode_packet(record) for record in text.split(SEPARATOR)]


def encode_payload(packets: list[Packet]) -> bytes:
    """The packets as the body of an answer to a polling GET, binary ones in base64."""
    codec = _CodecPayload([_Codec(int(packet.type), packet.data) for packet in packets])
    text: str = codec.encode()
    return text.encode()
