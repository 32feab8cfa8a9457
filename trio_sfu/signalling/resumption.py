"""Coming back: a user whose socket is lost stays for a while, and another socket may then speak for them.

Owns the tokens and the parked users, each of whom is a task of its nursery for a bounded time. Opened by server.py
around the sockets; handlers.py calls it. Rooms notice nothing: a user's id stays the same.

::

    socket ──(lost)──▶ parked ──(resume: its token, another socket)──▶ socket
       │                  └──(grace over, all transports gone, too much missed)──▶ left
       └──(says goodbye, is put out)──▶ left
"""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import trio

from trio_sfu.rooms.messages import RequestError, UserResumed
from trio_sfu.signalling.user import ClientSocket, User

logger = logging.getLogger(__name__)

#: Why a socket is gone whose client may not even know of it. All else is a goodbye, or the server's own doing.
LOSSES: Final = frozenset({"transport close", "transport error", "ping timeout"})
MAX_PARKED: Final = 1000
_SECRET_BYTES: Final = 24


class Membership(Protocol):
    """What this module needs of the rooms."""

    def room_ids(self, user_id: str) -> tuple[str, ...]:
        """The rooms that a user is in."""

    async def leave_all(self, user_id: str) -> None:
        """Free all that a user owns."""


class Registered(Protocol):
    """Where users are known to those who have events for them."""

    def remove(self, user: User) -> None:
        """Events for this user are dropped from now on."""


@dataclass(slots=True)
class ResumptionStats:
    """Counters since the start."""

    parked: int = 0
    resumed: int = 0
    refused: int = 0
    expired: int = 0
    given_up: int = 0


@asynccontextmanager
async def open_resumption(rooms: Membership, users: Registered, seconds: float) -> AsyncIterator["Resumption"]:
    """Users may be away for ``seconds``; 0: nobody may. Leaving ends the wait for all of them; their rooms end then."""
    async with trio.open_nursery() as nursery:
        yield Resumption(nursery, rooms, users, seconds)
        nursery.cancel_scope.cancel()


class Resumption:
    """Use :func:`open_resumption`."""

    def __init__(self, nursery: trio.Nursery, rooms: Membership, users: Registered, seconds: float) -> None:
        # Given
        self.seconds: Final = seconds
        self._nursery: Final = nursery
        self._rooms: Final = rooms
        self._users: Final = users
        # Owned
        self.stats: Final = ResumptionStats()
        self._resumable: dict[str, User] = {}  # by user id
        self._parked: set[User] = set()

    @property
    def parked_count(self) -> int:
        """Users who are away at the moment."""
        return len(self._parked)

    def offer(self, user: User) -> str | None:
        """The token by which another socket may speak for this user: the same until it has been used."""
        if not self.seconds:
            return None
        if not user.token:
            user.give_token(_new_token(user))
            self._resumable[user.id] = user
        return user.token

    def forget(self, user: User) -> None:
        """Nobody may speak for this user but the socket that does."""
        user.token = ""
        self._resumable.pop(user.id, None)

    def park(self, user: User) -> bool:
        """The user's socket is lost: wait for another one. False: they are to leave at once."""
        if not user.token or not self._rooms.room_ids(user.id):
            return False
        if user.lost_all_transports or len(self._parked) >= MAX_PARKED:
            self.stats.given_up += 1
            return False
        self.stats.parked += 1
        self._parked.add(user)
        self._nursery.start_soon(self._keep, user, user.park())
        return True

    def resume(self, token: str, socket: ClientSocket, received: int | None) -> tuple[User, UserResumed] | RequestError:
        """Let ``socket`` speak for the token's user, from now on and instead of any other.

        ``received``: how many events its client has had since it got the token (audio levels not counted), where it
        knows. It gets those it has missed after the acknowledgement of the event that is being handled. The token
        ends; the reply holds the next one.
        """
        user = self._find(token)
        if user is None:
            self.stats.refused += 1
            return RequestError(code="resume-failed", message="There is nothing to resume, or not any more")
        if user.find_missed(received) is None:
            self.stats.refused += 1
            self._give_up(user)
            return RequestError(code="resume-failed", message="Too much has been missed in the meantime")
        old = user.socket
        self._parked.discard(user)
        if user.over is not None:
            user.over.set()  # its task has nothing to wait for
        user.hand_over(socket, received, _new_token(user))
        if old is not None:
            old.disconnect()
        socket.after_ack(partial(user.attach, socket))
        self.stats.resumed += 1
        logger.debug("Socket %s speaks for user %s", socket.id, user.id)
        return user, UserResumed(
            user_id=user.id,
            room_ids=self._rooms.room_ids(user.id),
            resume_token=user.token,
            resume_seconds=self.seconds,
        )

    def _find(self, token: str) -> User | None:
        # The user's id, which is no secret, finds the user: no search among secrets, whose time would tell.
        user_id, _, _ = token.partition(".")
        user = self._resumable.get(user_id)
        known = user is not None and secrets.compare_digest(user.token.encode(), token.encode())
        return user if known else None

    def _give_up(self, user: User) -> None:
        self.forget(user)
        if user.over is not None:
            user.over.set()
        elif user.socket is not None:
            user.socket.disconnect()

    async def _keep(self, user: User, over: trio.Event) -> None:
        """The task of a parked user: until another socket speaks for them, or they leave."""
        with trio.move_on_after(self.seconds) as scope:
            await over.wait()
        if user.over is not over:
            return
        self._parked.discard(user)
        self.forget(user)
        self._users.remove(user)
        if scope.cancelled_caught:
            self.stats.expired += 1
        else:
            self.stats.given_up += 1
        logger.debug("User %s does not come back", user.id)
        await self._rooms.leave_all(user.id)


def _new_token(user: User) -> str:
    return f"{user.id}.{secrets.token_urlsafe(_SECRET_BYTES)}"
