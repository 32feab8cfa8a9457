"""What crosses between the registry and a room, and nothing else does: messages in envelopes.

Only the registry and rooms make and read these (:class:`Event` goes on to signalling as it is). Like all
messages they survive JSON and msgpack, so that
a room can move into another process.
"""

from typing import Any, TypeAlias, TypeVar

import msgspec

from trio_sfu.rooms.messages import EventPayload, Message, Reply, Request, tag_of

_T = TypeVar("_T")


class RequestEnvelope(Message, frozen=True, kw_only=True, tag="request"):
    """A request of one user. ``id`` comes back in the :class:`ReplyEnvelope`."""

    id: int
    user_id: str
    request: Request


class CloseRoom(Message, frozen=True, kw_only=True, tag="closeRoom"):
    """End the room: everyone in it gets :class:`PeerClosed` with this reason."""

    reason: str


ToRoom: TypeAlias = RequestEnvelope | CloseRoom


class ReplyEnvelope(Message, frozen=True, kw_only=True, tag="reply"):
    """The answer to the request with this id; each gets exactly one."""

    id: int
    reply: Reply


class Event(Message, frozen=True, kw_only=True, tag="event"):
    """Something to tell these users."""

    user_ids: tuple[str, ...]
    payload: EventPayload

    @property
    def name(self) -> str:
        """The event's name on the wire."""
        return tag_of(type(self.payload))


class MemberLeft(Message, frozen=True, kw_only=True, tag="memberLeft"):
    """The user is not in the room (any more)."""

    room_id: str
    user_id: str


class RoomCounts(Message, frozen=True, kw_only=True, tag="roomCounts"):
    """How much a room holds now; posted at each change."""

    room_id: str
    peers: int = 0
    transports: int = 0
    producers: int = 0
    consumers: int = 0


class RoomEnding(Message, frozen=True, kw_only=True, tag="roomEnding"):
    """Nobody is let in any more; what the room had is being closed, and :class:`RoomEnded` follows."""

    room_id: str


class RoomEnded(Message, frozen=True, kw_only=True, tag="roomEnded"):
    """The last message of a room."""

    room_id: str


FromRoom: TypeAlias = ReplyEnvelope | Event | MemberLeft | RoomCounts | RoomEnding | RoomEnded


def round_trip(message: _T, union: Any) -> _T:
    """The message as it comes out of a process boundary: through msgpack and back."""
    copy: _T = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=union)
    return copy
