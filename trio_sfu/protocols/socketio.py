"""The Socket.IO v5 session, server side: Engine.IO messages and ``now`` in, events and messages out, no I/O.

One :class:`SocketIOSession` goes with one Engine.IO session and holds what namespaces it is connected to.
Called by
:mod:`trio_sfu.signalling.socketio`, from one thread.

Source: the Socket.IO protocol, revision 5; where it is silent, what the socket.io server does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.socketio import (
    Packet,
    PacketDecoder,
    PacketType,
    RefusedEvent,
    encode_packet,
    refused_event,
)


@dataclass(frozen=True, slots=True)
class Connected:
    """The client is in ``namespace`` now, as ``sid``; the answer to it is in the ``frames`` to be sent
    first.
    """

    namespace: str
    sid: str
    auth: Any


@dataclass(frozen=True, slots=True)
class EventReceived:
    """``ack_id`` is not None where the client waits for an acknowledgement."""

    namespace: str
    name: str
    args: list[Any]
    ack_id: int | None


@dataclass(frozen=True, slots=True)
class AckReceived:
    """The client's answer to the event that was sent with this id. The id may be one never given out."""

    namespace: str
    id: int
    args: list[Any]


@dataclass(frozen=True, slots=True)
class EventRefused:
    """An event whose payload was not taken; ``why`` as in RefusedEvent."""

    namespace: str
    ack_id: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The client has left ``namespace``."""

    namespace: str
    reason: str


SocketIOEvent = Connected | EventReceived | AckReceived | EventRefused | Disconnected


class SocketIOSession:
    """Which namespaces a client is in, its unfinished packet, and its time limit for being in none.

    ``failed`` is set where the client broke the protocol or came to no namespace in time: close its
    connection.
    """

    def __init__(
        self,
        *,
        namespaces: Collection[str],
        connect_timeout: float,
        make_sid: Callable[[], str],
        now: float,
        max_bytes: int = 4_000_000,
    ) -> None:
        # given
        self._served: Final = frozenset(namespaces)
        self._connect_timeout: Final = connect_timeout
        self._make_sid: Final = make_sid
        # observable
        self.failed: str | None = None
        # owned
        self._decoder = PacketDecoder(max_bytes=max_bytes)
        self._sids: dict[str, str] = {}
        self._frames: list[str | bytes] = []
        self._connect_by: float | None = now + connect_timeout

    def receive(self, frame: str | bytes, now: float) -> list[SocketIOEvent]:
        """One Engine.IO message."""
        if self.failed is not None:
            return []
        try:
            packet = self._decoder.feed(frame)
            if packet is None:
                return []
            if isinstance(packet, RefusedEvent):
                return self._refuse(packet)
            return self._receive(packet, now)
        except BadPacket:
            self.failed = "parse error"
            return []

    def receive_oversized(self, head: str) -> list[SocketIOEvent]:
        """A text message too large to be read, of which only the beginning is left."""
        if self.failed is not None:
            return []
        refused = refused_event(head)
        if refused is None or refused.namespace not in self._sids:
            self.failed = "parse error"
            return []
        return self._refuse(refused)

    def frames_to_send(self) -> list[str | bytes]:
        """What the session itself answers; drained."""
        frames, self._frames = self._frames, []
        return frames

    def event(self, namespace: str, name: str, args: list[Any], ack_id: int | None) -> list[str | bytes]:
        """The frames of an event; none where the client is not in the namespace.

        Raises TypeError or ValueError where ``args`` is not JSON and bytes.
        """
        if namespace not in self._sids:
            return []
        return encode_packet(Packet(PacketType.EVENT, namespace, [name, *args], ack_id))

    def ack(self, namespace: str, ack_id: int, args: list[Any]) -> list[str | bytes]:
        """The frames of an acknowledgement; as :meth:`event`."""
        if namespace not in self._sids:
            return []
        return encode_packet(Packet(PacketType.ACK, namespace, args, ack_id))

    def disconnect(self, namespace: str) -> list[str | bytes]:
        """The frames that take the client out of the namespace."""
        if self._sids.pop(namespace, None) is None:
            return []
        return encode_packet(Packet(PacketType.DISCONNECT, namespace))

    def sid(self, namespace: str) -> str | None:
        """Who the client is in this namespace; None: not in it."""
        return self._sids.get(namespace)

    def get_timer(self) -> float | None:
        return self._connect_by if self.failed is None else None

    def handle_timer(self, now: float) -> None:
        if self._connect_by is not None and now >= self._connect_by:
            self._connect_by = None
            self.failed = self.failed or "connect timeout"

    def _receive(self, packet: Packet, now: float) -> list[SocketIOEvent]:
        namespace = packet.namespace
        if packet.type is PacketType.CONNECT:
            return self._connect(namespace, packet.data)
        if namespace not in self._sids:
            raise BadPacket("a packet for a namespace the client is not in")
        match packet.type:
            case PacketType.EVENT:
                name, *args = packet.data
                return [EventReceived(namespace, name, args, packet.id)]
            case PacketType.ACK:
                if packet.id is None:
                    raise BadPacket("an acknowledgement of nothing")
                return [AckReceived(namespace, packet.id, packet.data)]
            case PacketType.DISCONNECT:
                del self._sids[namespace]
                if not self._sids:
                    self._connect_by = now + self._connect_timeout
                return [Disconnected(namespace, "client namespace disconnect")]
            case _:
                raise BadPacket("a packet that only servers send")

    def _connect(self, namespace: str, auth: Any) -> list[SocketIOEvent]:
        if namespace in self._sids:
            raise BadPacket("connected twice")
        if namespace not in self._served:
            # The time limit goes on: whoever wants nothing that is here has no business here.
            error = Packet(PacketType.CONNECT_ERROR, namespace, {"message": "Invalid namespace"})
            self._frames += encode_packet(error)
            return []
        sid = self._make_sid()
        self._sids[namespace] = sid
        self._connect_by = None
        self._frames += encode_packet(Packet(PacketType.CONNECT, namespace, {"sid": sid}))
        return [Connected(namespace, sid, auth)]

    def _refuse(self, refused: RefusedEvent) -> list[SocketIOEvent]:
        if refused.namespace not in self._sids:
            raise BadPacket("an event for a namespace the client is not in")
        return [EventRefused(refused.namespace, refused.id, refused.why)]
