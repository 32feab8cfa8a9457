"""A user: who rooms know by an id, whichever socket speaks for them at the moment.

Made by handlers.py, one for each new socket, and parked and given to other sockets by resumption.py. The user's id is
the sid of their first socket, and stays that.
"""

from collections.abc import Callable
from typing import Final, Protocol

import trio

from trio_sfu.rooms.envelopes import Event
from trio_sfu.rooms.messages import AudioLevels, Direction, PeerClosed, TransportClosed
from trio_sfu.signalling.event_log import EventLog, SentEvent

#: How long, in seconds, events are kept that went to a socket: nobody may have been there any more to read them.
KEPT_SECONDS: Final = 60.0


class ClientSocket(Protocol):
    """What signalling needs of a Socket.IO socket."""

    @property
    def id(self) -> str:
        """The Socket.IO sid."""

    @property
    def connected(self) -> bool:
        """Whether what is emitted may arrive."""

    def emit(self, name: str, *args: object) -> None:
        """Send an event; never blocks."""

    def after_ack(self, action: Callable[[], None]) -> None:
        """Call ``action`` when the acknowledgement of the event that is being handled has been sent."""

    def disconnect(self) -> None:
        """Put the client out."""


class User:
    """Somebody who may be in rooms."""

    __slots__ = ("_base", "_log", "_told", "_transports", "id", "over", "socket", "speaker", "token")

    def __init__(self, socket: ClientSocket) -> None:
        # Given
        self.id: Final = socket.id
        # Observable
        self.socket: ClientSocket | None = socket
        """Where events go. None while parked, and until the acknowledgement of a resumption is out."""
        self.speaker = socket.id
        """The sid of the one socket whose requests are this user's; "" while parked."""
        self.token = ""
        """What a socket must know to speak for this user; "": no other socket may."""
        self.over: trio.Event | None = None
        """While parked: set where there is no point in waiting any longer."""
        # Owned
        self._log: EventLog | None = None
        self._base = 0  # the number of the last event before the token was given
        self._told = 0  # the number of the last event that went to a socket
        self._transports: dict[tuple[str, Direction], str | None] = {}  # None: it failed

    def give_token(self, token: str) -> None:
        """From now on events are kept, and counted from 1 for whoever gets this token."""
        self.token = token
        self._log = self._log or EventLog()
        self._base = self._told

    def deliver(self, event: Event, sent: SentEvent, now: float) -> None:
        """Take an event of a room: to the socket, and to be kept. Never blocks.

        Audio levels are not kept: old ones are of no use.
        """
        payload = event.payload
        if isinstance(payload, TransportClosed):
            key = (payload.room_id, payload.direction)
            if self._transports.get(key) == payload.transport_id:
                self._transports[key] = None
        elif isinstance(payload, PeerClosed):
            self.left(payload.room_id)
        if self._log is not None and not isinstance(payload, AudioLevels):
            self._log.append(sent, now)
            if self.socket is not None and self.socket.connected:
                self._told = self._log.last
                self._log.forget_before(now - KEPT_SECONDS)
        if self.socket is not None:
            self.socket.emit(sent.name, sent.payload)
        elif self.over is not None and (self.lost_all_transports or self._missed_too_much):
            self.over.set()

    def transport_created(self, room_id: str, direction: Direction, transport_id: str) -> None:
        """There is another transport, which replaces that of the same room and direction."""
        self._transports[room_id, direction] = transport_id

    def left(self, room_id: str) -> None:
        """The user is not in this room any more."""
        for key in [key for key in self._transports if key[0] == room_id]:
            del self._transports[key]

    @property
    def lost_all_transports(self) -> bool:
        """Whether there were some, and all of them have failed: nobody is at the other end."""
        return bool(self._transports) and not any(self._transports.values())

    @property
    def _missed_too_much(self) -> bool:
        return self._log is not None and not self._log.has_all_after(self._told)

    # For resumption.py

    def find_missed(self, received: int | None) -> list[SentEvent] | None:
        """What a client has not had that had ``received`` events since it got the token.

        Where ``received`` is None: what no socket was there for. The result is None where that is not kept any more.
        """
        assert self._log is not None
        return self._log.after(self._last_received(received))

    def park(self) -> trio.Event:
        """No socket speaks for this user; events are kept. Returns :attr:`over`."""
        self.socket, self.speaker = None, ""
        self.over = trio.Event()
        return self.over

    def hand_over(self, socket: ClientSocket, received: int | None, token: str) -> None:
        """Only this socket's requests are the user's from now on. Events wait for :meth:`attach`."""
        self._told = self._last_received(received)
        self.socket = self.over = None
        self.speaker = socket.id
        self.give_token(token)

    def attach(self, socket: ClientSocket) -> None:
        """Events go to this socket from now on; first those that have been missed, in order."""
        assert self._log is not None
        self.socket = socket
        for sent in self._log.after(self._told) or ():
            socket.emit(sent.name, sent.payload)
        if socket.connected:
            self._told = self._log.last

    def _last_received(self, received: int | None) -> int:
        """The number of the last event that the client has had. A client that counts wrongly misleads itself only."""
        assert self._log is not None
        return self._told if received is None else min(self._base + received, self._log.last)
