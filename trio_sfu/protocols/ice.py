"""The ICE-lite agent of one transport (RFC 8445): answers checks, keeps the paths, notices lost consent.

It is always the controlled agent, sends no check of its own, and learns each path from an authenticated
request. Time is an argument. Owned by a WebRTC transport; the UDP endpoint uses :func:`peek_local_ufrag` and
:func:`unauthenticated_error` for datagrams from addresses it does not know yet.

States, each row a transition:

============  =========================================  ============
from          on                                         to
============  =========================================  ============
``new``       an authenticated request                   ``connected``
``connected`` 30 s without one, on any path (RFC 7675)   ``lost``
``lost``      an authenticated request                   ``connected``
============  =========================================  ============

:meth:`IceLite.restart` is no transition: media goes on by the selected path. The credentials from before it stay
valid until a request with newer ones has selected a path, or ``consent_timeout`` after the first such request,
whichever comes first. Where the client never uses the new ones, the old ones stay.
"""

import secrets
import string
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from trio_sfu.wire import stun

__all__ = [
    "IceLite",
    "IceResult",
    "IceState",
    "generate_pwd",
    "generate_ufrag",
    "peek_local_ufrag",
    "unauthenticated_error",
]

PathT = TypeVar("PathT", bound=Hashable)
IceState = Literal["new", "connected", "lost"]

_ICE_CHARS: Final = string.ascii_lowercase + string.digits
# The pair in use and the two newest: a client that restarts again and again still knows the one it started with.
_MAX_GENERATIONS: Final = 3


@dataclass(frozen=True, slots=True)
class IceResult(Generic[PathT]):
    """What a STUN datagram led to."""

    reply: bytes | None = None
    """To send back on the path the datagram came by."""
    selected_changed: bool = False
    """:attr:`IceLite.selected` is another path now."""
    added: bool = False
    """The path is newly authenticated: the endpoint may route by it."""
    evicted: tuple[PathT, ...] = ()
    """Paths that made room for it: no longer authenticated, to be forgotten by the endpoint."""
    retired: bool = False
    """Older credentials have ended: :attr:`IceLite.local_ufrags` has become shorter."""


@dataclass(slots=True)
class _Credentials:
    ufrag: str
    key: bytes
    generation: int


class IceLite(Generic[PathT]):
    """The agent. ``PathT`` is the endpoint's value for "this socket, that remote address", only compared."""

    def __init__(self, *, local_ufrag: str, local_pwd: str, max_paths: int = 8, consent_timeout: float = 30.0) -> None:
        """``max_paths`` is at least 1, ``consent_timeout`` in seconds.

        Raises ``ValueError`` for these, and for credentials that RFC 8445 section 5.3 does not allow.
        """
        if max_paths < 1:
            raise ValueError("max_paths must be at least 1")
        # Given.
        self._max_paths = max_paths
        self._consent_timeout = consent_timeout
        # Owned.
        self.state: IceState = "new"
        self.rejected_requests = 0
        """Requests answered with an error."""
        self._generations: list[_Credentials] = [_make_credentials(local_ufrag, local_pwd, 0)]  # newest first
        self._selected: PathT | None = None
        self._nominated = (0, 0)  # generation of the credentials, greatest nomination value within it
        self._closed: PathT | None = None  # the only path there is, where it cannot be used any more
        self._superseded_at: float | None = None  # first request with newer credentials than the oldest
        # Last authenticated request by path, the least recent first (deleted before it is stored anew).
        self._last_request: dict[PathT, float] = {}

    @property
    def local_ufrag(self) -> str:
        return self._generations[0].ufrag

    @property
    def local_pwd(self) -> str:
        return self._generations[0].key.decode()

    @property
    def local_ufrags(self) -> tuple[str, ...]:
        """All that are accepted, newest first: the endpoint routes by any of them."""
        return tuple(credentials.ufrag for credentials in self._generations)

    @property
    def selected(self) -> PathT | None:
        """The path to send by; ``None`` before the first authenticated request and once consent is lost."""
        return self._selected

    def paths(self) -> tuple[PathT, ...]:
        """All authenticated paths, the least recently heard first."""
        return tuple(self._last_request)

    def is_authenticated(self, path: PathT) -> bool:
        """Whether DTLS and SRTP may be accepted from ``path``."""
        return path in self._last_request

    def restart(self, new_ufrag: str, new_pwd: str) -> None:
        """Take new credentials (RFC 8445 section 9), without a break for media.

        Older pairs stay valid as the module says, and so do all paths: the client moves over when it has nominated
        anew. Of pairs that were never used only the two newest are kept. Raises ``ValueError`` like the constructor.
        """
        credentials = _make_credentials(new_ufrag, new_pwd, self._generations[0].generation + 1)
        self._generations.insert(0, credentials)
        del self._generations[_MAX_GENERATIONS - 1 : -1]  # never the oldest: it is the one in use

    def receive_stun(self, data: bytes | memoryview, path: PathT, host: str, port: int, now: float) -> IceResult[PathT]:
        """Handle one STUN datagram that came by ``path`` from the numeric address ``host`` and ``port``.

        Requests are answered; responses and indications are ignored, since a lite agent asks nothing and
        indications carry no consent. A request that is not authenticated is answered 400 or 401 and leaves no
        trace but a counter.

        Raises :class:`~trio_sfu.wire.errors.BadPacket` only.
        """
        message = stun.parse_message(data)
        if message.message_class != "request":
            return IceResult()
        transaction_id = message.transaction_id
        # RFC 8489 section 9.1.3: first what is missing, then who it is, then (6.3.1) what is not understood.
        if message.username is None or not message.has_integrity:
            return self._reject(stun.error_response(transaction_id, 400))
        credentials = self._find(message.username)
        if credentials is None or not message.verify(credentials.key):
            return self._reject(stun.error_response(transaction_id, 401))
        key = credentials.key
        if message.unknown_required:
            reply = stun.error_response(transaction_id, 420, key=key, unknown=message.unknown_required)
            return self._reject(reply)
        if message.ice_controlled is not None:
            # A lite agent cannot become the controlling one (RFC 8445 section 6.1.1).
            return self._reject(stun.error_response(transaction_id, 487, key=key))

        if self._closed is not None:
            self._last_request.pop(self._closed)
            self._closed = None
        added, evicted = self._refresh(path, now)
        chosen = self._chooses(path, message, credentials.generation, now)
        selected_changed = chosen and path != self._selected
        if chosen:
            self._selected = path
        retired = self._retire(credentials.generation, now, chosen=chosen)
        self.state = "connected"
        reply = stun.success_response(transaction_id, host, port, key)
        return IceResult(reply, selected_changed, added, evicted, retired)

    def forget(self, path: PathT) -> bool:
        """``path`` cannot be used any more: its TCP connection is closed. Returns whether another is selected now.

        The only one keeps its place until the next request: consent goes on, for the client may come again.
        """
        if path not in self._last_request:
            return False
        if len(self._last_request) == 1:
            self._closed = path
            return False
        del self._last_request[path]
        if path != self._selected:
            return False
        self._selected = next(reversed(self._last_request))  # the one heard last
        return True

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` is due: ``consent_timeout`` after the last authenticated request."""
        return self._consent_ends() if self.state == "connected" else None

    def handle_timer(self, now: float) -> bool:
        """Returns True when consent has just expired: nothing may be sent, and no path is authenticated."""
        if self.state != "connected" or now < self._consent_ends():
            return False
        self.state = "lost"
        self._selected = self._closed = None
        self._last_request.clear()
        return True

    def _consent_ends(self) -> float:
        return next(reversed(self._last_request.values())) + self._consent_timeout

    def _reject(self, reply: bytes) -> IceResult[PathT]:
        self.rejected_requests += 1
        return IceResult(reply)

    def _find(self, username: str) -> _Credentials | None:
        local_ufrag, colon, _ = username.partition(":")
        if not colon:
            return None
        return next((each for each in self._generations if each.ufrag == local_ufrag), None)

    def _refresh(self, path: PathT, now: float) -> tuple[bool, tuple[PathT, ...]]:
        """Note the request; returns whether the path is new and which path it pushed out."""
        known = self._last_request.pop(path, None)
        evicted: tuple[PathT, ...] = ()
        if known is None and len(self._last_request) >= self._max_paths:
            # The one heard least recently, but never the one in use, unless it is the only one there may be.
            victim = next((each for each in self._last_request if each != self._selected), self._selected)
            if victim is not None:
                del self._last_request[victim]
                evicted = (victim,)
        self._last_request[path] = now
        return known is None, evicted

    def _chooses(self, path: PathT, message: stun.StunMessage, generation: int, now: float) -> bool:
        """Decide whether ``path`` becomes, or stays, the selected one by this request."""
        # A restart begins anew: what still comes with older credentials cannot take its choice back.
        if message.nomination is not None:
            # A greater value wins, whatever the order of arrival.
            wins = (generation, message.nomination) > self._nominated
            if wins:
                self._nominated = (generation, message.nomination)
        else:
            wins = message.use_candidate and generation >= self._nominated[0]
            if wins:
                self._nominated = max(self._nominated, (generation, 0))
        if self._selected is None or self._selected not in self._last_request:
            wins = True  # the first path carries media before anything is nominated
        elif now - self._last_request[self._selected] >= self._consent_timeout:
            wins = True  # consent for the selected path is gone, this one has it
        return wins

    def _retire(self, generation: int, now: float, *, chosen: bool) -> bool:
        """End what is older than ``generation`` where that has taken over; returns whether there was anything."""
        if generation == self._generations[-1].generation:
            return False
        if self._superseded_at is None:
            self._superseded_at = now
        if not chosen and now - self._superseded_at < self._consent_timeout:
            return False
        self._generations = [each for each in self._generations if each.generation >= generation]
        self._superseded_at = None
        return True


def generate_ufrag() -> str:
    """A username fragment of 16 characters, 82 random bits (RFC 8445 section 5.3 asks for 24)."""
    return "".join(secrets.choice(_ICE_CHARS) for _ in range(16))


def generate_pwd() -> str:
    """A password of 32 characters, 165 random bits (RFC 8445 section 5.3 asks for 128)."""
    return "".join(secrets.choice(_ICE_CHARS) for _ in range(32))


def peek_local_ufrag(data: bytes | memoryview) -> str:
    """The ufrag of ours that a Binding request names, for routing; nothing is verified.

    It is empty where the request has no USERNAME: answer 400 with :func:`unauthenticated_error`, and 401 to a
    ufrag that nobody has.
    Raises :class:`~trio_sfu.wire.errors.BadPacket` for all that is not a Binding request: drop it.
    """
    username = stun.peek_username(data)
    return "" if username is None else username.partition(":")[0]


def unauthenticated_error(data: bytes | memoryview, code: int) -> bytes:
    """The unsigned reply, 400 or 401, to a Binding request that no transport takes.

    Raises :class:`~trio_sfu.wire.errors.BadPacket` for all that is not a Binding request. Whoever sends this
    limits its rate: the source address may be forged.
    """
    return stun.error_response(stun.transaction_id_of_request(data), code)


def _make_credentials(ufrag: str, pwd: str, generation: int) -> _Credentials:
    if not 4 <= len(ufrag) <= 256 or ":" in ufrag or not ufrag.isascii():
        raise ValueError("an ICE ufrag has 4 to 256 ASCII characters and no colon (RFC 8445 section 5.3)")
    if not 22 <= len(pwd) <= 256 or not pwd.isascii():
        raise ValueError("an ICE password has 22 to 256 ASCII characters (RFC 8445 section 5.3)")
    return _Credentials(ufrag, pwd.encode(), generation)
