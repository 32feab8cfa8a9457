"""All rooms of a process: who is in which, requests in, replies and events out.

Signalling opens it with :func:`open_rooms` and talks to :class:`Rooms`; nobody else does. Rooms are
reached by envelopes only (envelopes.py): the registry knows what they post, and nothing of their insides.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Final

import trio

from trio_sfu.rooms.envelopes import (
    CloseRoom,
    Event,
    FromRoom,
    MemberLeft,
    ReplyEnvelope,
    RequestEnvelope,
    RoomCounts,
    RoomEnding,
    ToRoom,
    round_trip,
)
from trio_sfu.rooms.messages import CreateRoom, JoinRoom, LeaveRoom, Reply, Request, RequestError
from trio_sfu.rooms.room import RoomLimits, RoomMedia, not_in_room, room_not_found, run_room
from trio_sfu.rooms.ticker import Ticker

logger = logging.getLogger(__name__)

ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
ID_LENGTH: Final = 6
#: How long, in seconds, a new room waits for the end of an old one that has its name.
ENDING_SECONDS: Final = 5.0


@asynccontextmanager
async def open_rooms(
    media: RoomMedia, limits: RoomLimits, emit: Callable[[Event], None], *, serialise: bool = False
) -> AsyncIterator["Rooms"]:
    """Rooms for as long as the block runs; all of them end with it.

    ``emit`` gets the events for users; it must not block. ``serialise`` (for tests) sends every
    envelope through msgpack and back, as if each room were another process.
    """
    async with trio.open_nursery() as nursery:
        rooms = Rooms(nursery, media, limits, emit, serialise=serialise)
        nursery.start_soon(rooms.keep_ticking)
        try:
            yield rooms
        finally:
            rooms.refuse()
            nursery.cancel_scope.cancel()


class _Waiter:
    """Somebody who waits for the answer of a room."""

    __slots__ = ("answered", "reply")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.reply: Reply | None = None

    def answer(self, reply: Reply) -> None:
        self.reply = reply
        self.answered.set()


class _Entry:
    """What the registry knows of a room."""

    __slots__ = ("counts", "ended", "ending", "inbox", "members", "waiters")

    def __init__(self, room_id: str, inbox: trio.MemorySendChannel[ToRoom]) -> None:
        self.inbox = inbox
        # A user is counted in from the moment the request is sent; the room says when that is over.
        self.members: set[str] = set()
        self.waiters: dict[int, _Waiter] = {}
        self.counts = RoomCounts(room_id=room_id)
        self.ending = False
        self.ended = trio.Event()


class Rooms:
    """The rooms, by id. Made by :func:`open_rooms`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        media: RoomMedia,
        limits: RoomLimits,
        emit: Callable[[Event], None],
        *,
        serialise: bool,
    ) -> None:
        # Given
        self._nursery = nursery
        self._media = media
        self._limits = limits
        self._emit = emit
        self._serialise = serialise
        # Owned
        self._rooms: dict[str, _Entry] = {}
        self._memberships: dict[str, set[str]] = {}  # user id → room ids, as in the entries' members
        self._ticker = Ticker(media.watch)
        self._ids = count(1)
        self._refusing = False

    async def keep_ticking(self) -> None:
        """Drive what is due by the clock in all rooms, until cancelled. For :func:`open_rooms`."""
        await self._ticker.run()

    async def request(self, user_id: str, request: Request) -> Reply:
        """Carry out a request of a user, and give the reply, an error reply included.

        Codes of its own, besides those of the contract: ``overloaded`` (the room's inbox is full),
        ``timeout`` (no answer in ``limits.request_seconds``), ``shutting-down``.
        """
        if self._refusing:
            return _shutting_down()
        with trio.move_on_after(self._limits.request_seconds):
            if isinstance(request, CreateRoom):
                return await self._create(user_id, request)
            room_id = self._room_of(user_id, request)
            if isinstance(room_id, RequestError):
                return room_id
            if isinstance(request, JoinRoom):
                return await self._join(user_id, room_id, request)
            return await self._ask(user_id, room_id, request)
        logger.warning("No answer to %s of user %s in time", type(request).__name__, user_id)
        return RequestError(code="timeout", message="The server took too long; the request may be under way")

    async def leave_all(self, user_id: str) -> None:
        """Take a user out of all rooms; returns when what they owned is closed.

        Sent before the first wait, so it works in a cancelled scope, too.
        """
        waiters: list[_Waiter] = []
        for room_id in tuple(self._memberships.get(user_id, ())):
            entry = self._rooms[room_id]
            envelope, waiter = self._envelope(user_id, entry, LeaveRoom(room_id=room_id))
            waiters.append(waiter)
            try:
                entry.inbox.send_nowait(envelope)
            except trio.WouldBlock:
                # Never lost: a room takes what is in its inbox at once, whatever it is.
                self._nursery.start_soon(self._send_late, entry, envelope)
            except trio.BrokenResourceError:
                waiter.answer(room_not_found())
        with trio.move_on_after(self._limits.request_seconds) as scope:
            for waiter in waiters:
                await waiter.answered.wait()
        if scope.cancelled_caught:
            logger.warning("User %s is not out of all rooms in time", user_id)

    def room_ids(self, user_id: str) -> tuple[str, ...]:
        """The rooms that a user is in, by name."""
        return tuple(sorted(self._memberships.get(user_id, ())))

    async def close_room(self, room_id: str, reason: str) -> None:
        """End a room: everyone in it gets ``peerClosed`` with this reason. Unknown: nothing happens."""
        entry = self._rooms.get(room_id)
        if entry is not None:
            try:
                await entry.inbox.send(self._inward(CloseRoom(reason=reason)))
            except trio.BrokenResourceError:
                pass

    def counts(self) -> tuple[int, RoomCounts]:
        """The number of rooms, and what they hold together (its ``room_id`` is empty)."""
        every = tuple(entry.counts for entry in self._rooms.values())
        return len(self._rooms), RoomCounts(
            room_id="",
            peers=sum(c.peers for c in every),
            transports=sum(c.transports for c in every),
            producers=sum(c.producers for c in every),
            consumers=sum(c.consumers for c in every),
        )

    def refuse(self) -> None:
        """Take no more requests."""
        self._refusing = True

    # Requests

    def _room_of(self, user_id: str, request: Request) -> str | RequestError:
        """The room that a request is for: the one it names, or its user's only one."""
        memberships = self._memberships.get(user_id, ())
        room_id = request.room_id
        if room_id is None:
            if len(memberships) == 1:
                return next(iter(memberships))
            if memberships or isinstance(request, JoinRoom):
                return RequestError(code="invalid-payload", message="roomId is needed to know which room is meant")
            return not_in_room()
        if room_id not in memberships and not isinstance(request, JoinRoom):
            return not_in_room()
        return room_id

    def _too_many(self, user_id: str) -> RequestError | None:
        if len(self._memberships.get(user_id, ())) >= self._limits.rooms_per_user:
            return RequestError(code="too-many-rooms", message="You are in too many rooms")
        return None

    async def _create(self, user_id: str, request: CreateRoom) -> Reply:
        if request.room_id is not None:
            await self._wait_for_end(request.room_id)
        if self._refusing:
            return _shutting_down()
        refusal = self._too_many(user_id)
        if refusal is not None:
            return refusal
        if len(self._rooms) >= self._limits.rooms:
            return RequestError(code="too-many-rooms", message="The server has too many rooms")
        room_id = request.room_id
        if room_id is None:
            room_id = self._free_id()
        elif room_id in self._rooms:
            return RequestError(code="room-exists", message="A room of this name exists")
        inbox, outlet = trio.open_memory_channel[ToRoom](self._limits.room_inbox)
        entry = _Entry(room_id, inbox)
        # From here on the name is taken; nothing was awaited since the look.
        self._rooms[room_id] = entry
        self._count_in(user_id, room_id)
        envelope, waiter = self._envelope(user_id, entry, request)
        try:
            await self._nursery.start(self._host, room_id, envelope, outlet)
        except BaseException:
            if self._rooms.get(room_id) is entry:
                self._room_ended(room_id)
            raise
        return await self._answer_of(entry, envelope.id, waiter)

    async def _wait_for_end(self, room_id: str) -> None:
        """Where a room of this name is ending: its live stream may take a moment to let go."""
        with trio.move_on_after(ENDING_SECONDS):
            while (entry := self._rooms.get(room_id)) is not None and entry.ending:
                await entry.ended.wait()

    async def _join(self, user_id: str, room_id: str, request: JoinRoom) -> Reply:
        entry = self._rooms.get(room_id)
        if entry is None:
            return room_not_found()
        newcomer = user_id not in entry.members
        if newcomer:
            refusal = self._too_many(user_id)
            if refusal is not None:
                return refusal
            self._count_in(user_id, room_id)
        reply = await self._ask(user_id, room_id, request)
        if newcomer and isinstance(reply, RequestError) and reply.code == "overloaded":
            self._count_out(user_id, room_id)  # the room never heard of it
        return reply

    async def _ask(self, user_id: str, room_id: str, request: Request) -> Reply:
        entry = self._rooms[room_id]
        envelope, waiter = self._envelope(user_id, entry, request)
        try:
            entry.inbox.send_nowait(envelope)
        except trio.WouldBlock:
            del entry.waiters[envelope.id]
            return RequestError(code="overloaded", message="The room has too much to do; try again")
        except trio.BrokenResourceError:
            del entry.waiters[envelope.id]
            return room_not_found()
        return await self._answer_of(entry, envelope.id, waiter)

    async def _send_late(self, entry: _Entry, envelope: RequestEnvelope) -> None:
        try:
            await entry.inbox.send(envelope)
        except trio.BrokenResourceError:
            waiter = entry.waiters.pop(envelope.id, None)
            if waiter is not None:
                waiter.answer(room_not_found())

    def _envelope(self, user_id: str, entry: _Entry, request: Request) -> tuple[RequestEnvelope, _Waiter]:
        request_id = next(self._ids)
        waiter = entry.waiters[request_id] = _Waiter()
        envelope = self._inward(RequestEnvelope(id=request_id, user_id=user_id, request=request))
        assert isinstance(envelope, RequestEnvelope)
        return envelope, waiter

    async def _answer_of(self, entry: _Entry, request_id: int, waiter: _Waiter) -> Reply:
        try:
            await waiter.answered.wait()
        finally:
            entry.waiters.pop(request_id, None)
        assert waiter.reply is not None
        return waiter.reply

    def _free_id(self) -> str:
        while True:
            room_id = "room_" + "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))
            if room_id not in self._rooms:
                return room_id

    # Rooms

    async def _host(
        self,
        room_id: str,
        first: RequestEnvelope,
        inbox: trio.MemoryReceiveChannel[ToRoom],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        # Peers have their fault boundary in the room. This one is the last resort: a bug in the room's
        # own code ends that room, not all of them.
        try:
            await run_room(
                room_id,
                first,
                inbox,
                partial(self._receive, room_id),
                self._media,
                self._limits,
                self._ticker,
                task_status=task_status,
            )
        except* Exception as faults:
            logger.error("Room %s ended", room_id, exc_info=faults)

    def _inward(self, message: ToRoom) -> ToRoom:
        return round_trip(message, ToRoom) if self._serialise else message

    def _receive(self, room_id: str, message: FromRoom) -> None:
        """What a room posts. Synchronous. A room's last message is :class:`RoomEnded`."""
        if self._serialise:
            message = round_trip(message, FromRoom)
        if isinstance(message, Event):
            self._emit(message)
        elif isinstance(message, ReplyEnvelope):
            waiter = self._rooms[room_id].waiters.pop(message.id, None)
            if waiter is not None:  # else: nobody waits any more
                waiter.answer(message.reply)
        elif isinstance(message, RoomCounts):
            self._rooms[room_id].counts = message
        elif isinstance(message, MemberLeft):
            self._count_out(message.user_id, room_id)
        elif isinstance(message, RoomEnding):
            self._rooms[room_id].ending = True
        else:
            self._room_ended(room_id)

    def _count_in(self, user_id: str, room_id: str) -> None:
        self._rooms[room_id].members.add(user_id)
        self._memberships.setdefault(user_id, set()).add(room_id)

    def _count_out(self, user_id: str, room_id: str) -> None:
        self._rooms[room_id].members.discard(user_id)
        rooms = self._memberships.get(user_id)
        if rooms is not None:
            rooms.discard(room_id)
            if not rooms:
                del self._memberships[user_id]

    def _room_ended(self, room_id: str) -> None:
        for user_id in tuple(self._rooms[room_id].members):
            self._count_out(user_id, room_id)
        entry = self._rooms.pop(room_id)
        entry.inbox.close()
        for waiter in entry.waiters.values():
            waiter.answer(room_not_found())
        entry.waiters.clear()
        entry.ended.set()


def _shutting_down() -> RequestError:
    return RequestError(code="shutting-down", message="The server is shutting down")
