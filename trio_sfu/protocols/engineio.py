"""The Engine.IO v4 session, server side: packets and ``now`` in, messages and packets out, no I/O.

One :class:`EngineSession` is one client, whatever connections it uses. The session owns the state and the
queue of what is to be sent; an HTTP request or a WebSocket only lends itself for a while. Called by
:mod:`trio_sfu.signalling.engineio`, from one thread.

::

    transport   polling ──(attach, "2probe")──▶ polling, probed ──("5")──▶ websocket
    state       open ──(close())──▶ closing: what is queued still goes out ──▶ closed
                open ──(client's "1", lost connection, misuse, ping timeout, full queue)──▶ closed

Source: the Engine.IO protocol, revision 4; where it is silent, what the engine.io server does.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Literal

from trio_sfu.wire.engineio import (
    Packet,
    PacketType,
    decode_packet,
    decode_payload,
    encode_packet,
    encode_payload,
)
from trio_sfu.wire.errors import BadPacket

#: How much longer than ``max_payload`` a WebSocket message may be and still be answered rather than cut off.
OVERSIZE_FACTOR: Final = 4

#: How much of a message too large is handed on, so that its sender can be told.
_HEAD_LENGTH: Final = 256

_PING: Final = Packet(PacketType.PING)
_CLOSE: Final = Packet(PacketType.CLOSE)
_NOOP: Final = Packet(PacketType.NOOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Times in seconds, sizes in bytes."""

    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    upgrade_timeout: float = 10.0
    #: How long a session that the server closes may take to fetch what is still queued.
    close_timeout: float = 5.0
    #: The largest message or POST that is taken.
    max_payload: int = 1_000_000
    #: The bounds of what is queued for a client. Past either, the client is too slow and its session is
    #: closed.
    max_queued_packets: int = 1024
    max_queued_bytes: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the client."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class OversizedMessage:
    """A text message above ``max_payload`` came over the WebSocket and was dropped; ``head`` is how it
    began.
    """

    head: str


EngineEvent = Message | OversizedMessage


class EngineSession:
    """One session from its handshake to its end.

    Remote misuse never raises: the session becomes "closed" and ``close_reason`` says why, in the words of
    the engine.io server where it has some. After every call the caller looks at ``state``.
    """

    def __init__(
        self,
        sid: str,
        config: EngineConfig,
        *,
        transport: Literal["polling", "websocket"],
        now: float,
    ) -> None:
        # given
        self.sid: Final = sid
        self.config: Final = config
        # observable
        self.transport: Literal["polling", "websocket"] = transport
        self.state: Literal["open", "closing", "closed"] = "open"
        self.close_reason: str | None = None
        # owned: what is to be sent
        self._queue: deque[Packet] = deque()
        self._queued_bytes = 0
        # owned: who lends itself at the moment
        self._polling = False
        self._final_poll: bytes | None = None
        self._websocket: Hashable | None = None
        self._prober: Hashable | None = None
        self._probed = False
        self._probe_answers: deque[Packet] = deque()
        # owned: deadlines
        self._ping_at: float | None = now + config.ping_interval
        self._pong_by: float | None = None
        self._upgrade_by: float | None = None
        self._close_by: float | None = None

        handshake = {
            "sid": sid,
            "upgrades": ["websocket"] if transport == "polling" else [],
            "pingInterval": round(config.ping_interval * 1000),
            "pingTimeout": round(config.ping_timeout * 1000),
            "maxPayload": config.max_payload,
        }
        self._append(Packet(PacketType.OPEN, json.dumps(handshake, separators=(",", ":"))))

    # What the application sends

    def send(self, data: str | bytes) -> None:
        """Queue one message. Not heeded unless open; closes the session ("slow client") where the queue is
        full.
        """
        if self.state == "open":
            self._enqueue(Packet(PacketType.MESSAGE, data))

    def close(self, reason: str, now: float) -> None:
        """Close once the client has what is queued, or after ``close_timeout``."""
        if self.state != "open":
            return
        self.state = "closing"
        self.close_reason = reason
        self._ping_at = self._pong_by = None
        self._close_by = now + self.config.close_timeout
        self._abandon_upgrade()
        if self.transport == "polling":
            self._append(_CLOSE)  # ends a polling client; a WebSocket's end is its own sign

    def abort(self, reason: str) -> None:
        """Close at once; what is queued is dropped."""
        self._end(reason, _CLOSE)

    # Polling

    def begin_poll(self) -> bool:
        """A GET has come. False: answer 400. Two at a time end the session (the first is answered with
        CLOSE): a loss, since browsers repeat a GET whose connection was reset before the server knows of that.
        """
        if self.transport != "polling" or self.state == "closed":
            return False
        if self._polling:
            self.abort("transport error")
            return False
        self._polling = True
        return True

    @property
    def poll_ready(self) -> bool:
        """Whether the waiting GET is to be answered now."""
        return self.state == "closed" or self.transport != "polling" or self._probed or bool(self._queue)

    def take_poll(self) -> bytes:
        """The body for the waiting GET, no larger than it must be above ``max_payload``; ends the poll."""
        self._polling = False
        if self._final_poll is not None:
            return self._final_poll
        if self.transport != "polling" or not self._queue:
            return encode_payload([_NOOP])
        packets: list[Packet] = []
        size = 0
        while self._queue:
            size += _size_as_text(self._queue[0])
            # CLOSE goes alone: engine.io-client acts on it before the messages that came with it.
            if packets and (size > self.config.max_payload or self._queue[0] is _CLOSE):
                break
            packets.append(self._dequeue())
        return encode_payload(packets)

    def poll_answered(self) -> None:
        """The answer to a GET has been written. A closing session whose queue is empty is then closed."""
        if self.state == "closing" and self.transport == "polling" and not self._queue:
            self._end(self.close_reason or "forced close", _NOOP)

    def poll_lost(self, reason: str) -> None:
        """The waiting GET's connection is gone, or its answer could not be written: packets may be
        missing.
        """
        self._polling = False
        self._end(reason, _NOOP)

    def receive_payload(self, body: bytes, now: float) -> list[EngineEvent] | None:
        """A POST's body. None: answer 400 (the session is closed too, unless it has left polling behind)."""
        if self.transport != "polling" or self.state == "closed":
            return None
        if len(body) > self.config.max_payload:
            self.abort("parse error")
            return None
        events: list[EngineEvent] = []
        try:
            for packet in decode_payload(body):
                self._receive(packet, events, now)
        except BadPacket:
            self.abort("parse error")
            return None
        return events

    # WebSocket: ``token`` stands for one connection

    def attach(self, token: Hashable, now: float) -> bool:
        """A WebSocket lends itself: the session's own from the start, or one that wants to take over from
        polling.

        False: close it, the session has one already.
        """
        if self.state != "open" or self._websocket is not None or self._prober is not None:
            return False
        if self.transport == "websocket":
            self._websocket = token
        else:
            self._prober = token
            self._upgrade_by = now + self.config.upgrade_timeout
        return True

    def holds(self, token: Hashable) -> bool:
        """Whether the session still wants this WebSocket. If not: close it."""
        return token is not None and token in (self._websocket, self._prober)

    def detach(self, token: Hashable, reason: str) -> None:
        """This WebSocket is gone."""
        if token == self._prober:
            self._abandon_upgrade()
        elif token == self._websocket:
            self._end(reason, _NOOP)

    def receive_frame(self, token: Hashable, frame: str | bytes, now: float) -> list[EngineEvent]:
        """One WebSocket message."""
        if not self.holds(token):
            return []
        if token == self._prober:
            self._receive_probe(frame)
            return []
        events: list[EngineEvent] = []
        limit = self.config.max_payload
        if len(frame) > limit or (isinstance(frame, str) and len(frame) * 4 > limit < len(frame.encode())):
            if isinstance(frame, str) and frame[0] == "4":
                return [OversizedMessage(frame[1 : 1 + _HEAD_LENGTH])]
            self.abort("parse error")
            return []
        try:
            self._receive(decode_packet(frame), events, now)
        except BadPacket:
            self.abort("parse error")
        return events

    def next_frame(self, token: Hashable) -> str | bytes | None:
        """The next frame for this WebSocket, the one before having been written; None: nothing at the
        moment.
        """
        if token is not None and token == self._prober:
            return encode_packet(self._probe_answers.popleft()) if self._probe_answers else None
        if token is None or token != self._websocket:
            return None
        if self._queue:
            return encode_packet(self._dequeue())
        if self.state == "closing":
            self._end(self.close_reason or "forced close", _NOOP)
        return None

    # Time

    def get_timer(self) -> float | None:
        """When handle_timer() is due; None once closed."""
        if self.state == "closed":
            return None
        deadlines = (self._ping_at, self._pong_by, self._upgrade_by, self._close_by)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due: ping, give the client up, give an upgrade up."""
        if self.state == "closed":
            return
        if self._close_by is not None and now >= self._close_by:
            self._end(self.close_reason or "forced close", _CLOSE)
            return
        if self._pong_by is not None and now >= self._pong_by:
            self.abort("ping timeout")
            return
        if self._upgrade_by is not None and now >= self._upgrade_by:
            self._abandon_upgrade()
        if self._ping_at is not None and now >= self._ping_at:
            # The client's time runs from when the ping was due; but if it is us who are late, that is not its
            # fault.
            due = max(self._ping_at, now - self.config.ping_timeout / 10)
            self._pong_by = due + self.config.ping_timeout
            self._ping_at = None
            self._enqueue(_PING)

    # Inside

    def _receive(self, packet: Packet, events: list[EngineEvent], now: float) -> None:
        """Raises BadPacket for a packet that a client has no business to send here."""
        if self.state == "closed":
            return
        match packet.type:
            case PacketType.MESSAGE:
                if self.state == "open":
                    events.append(Message(packet.data))
            case PacketType.PONG:
                if self._pong_by is not None:
                    self._pong_by = None
                    self._ping_at = now + self.config.ping_interval
            case PacketType.CLOSE:
                self._end("transport close", _NOOP)
            case PacketType.NOOP | PacketType.UPGRADE:
                pass  # an UPGRADE here is one too many: harmless, and the engine.io server lets it pass
            case PacketType.OPEN | PacketType.PING:
                raise BadPacket("a packet that only servers send")

    def _receive_probe(self, frame: str | bytes) -> None:
        """``2probe`` then ``5``; anything else ends the attempt, not the session."""
        if not self._probed and frame == "2probe":
            self._probed = True
            self._probe_answers.append(Packet(PacketType.PONG, "probe"))
        elif self._probed and frame == "5":
            if self._probe_answers:  # written before anything else, even where the client did not wait for it
                self._queue.extendleft(self._probe_answers)
                self._queued_bytes += sum(_size(answer) for answer in self._probe_answers)
            self._websocket = self._prober
            self.transport = "websocket"
            self._abandon_upgrade()
        else:
            self._abandon_upgrade()

    def _abandon_upgrade(self) -> None:
        self._prober = None
        self._probed = False
        self._probe_answers.clear()
        self._upgrade_by = None

    def _append(self, packet: Packet) -> None:
        self._queue.append(packet)
        self._queued_bytes += _size(packet)

    def _enqueue(self, packet: Packet) -> None:
        self._append(packet)
        config = self.config
        if len(self._queue) > config.max_queued_packets or self._queued_bytes > config.max_queued_bytes:
            self.abort("slow client")

    def _dequeue(self) -> Packet:
        packet = self._queue.popleft()
        self._queued_bytes -= _size(packet)
        return packet

    def _end(self, reason: str, last: Packet) -> None:
        """To "closed". ``last`` answers a GET that waits."""
        if self.state == "closed":
            return
        self.state = "closed"
        self.close_reason = self.close_reason or reason
        self._final_poll = encode_payload([last])
        self._queue.clear()
        self._queued_bytes = 0
        self._websocket = None
        self._abandon_upgrade()


def _size(packet: Packet) -> int:
    return len(packet.data) + 1


def _size_as_text(packet: Packet) -> int:
    if isinstance(packet.data, bytes):
        return len(packet.data) * 4 // 3 + 4
    return len(packet.data) + 2
