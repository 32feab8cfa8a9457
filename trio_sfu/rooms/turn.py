"""TURN servers that clients are told of, with credentials that expire (coturn's ``use-auth-secret``).

The server never talks to them: it shares a secret, and a TURN server can check by it what a client shows
(draft-uberti-behave-turn-rest-00). config.py checks URLs; a room's peers ask for what their users get.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

from trio_sfu.rooms.messages import IceServer

__all__ = ["TurnServers", "check_turn_url"]

_SCHEME: Final = re.compile(r"turns?:", re.IGNORECASE)
# RFC 7065: "turn:" host [":" port] ["?transport=" ("udp" / "tcp")]
_URL: Final = re.compile(
    r"turns?:(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?:\?(?P<query>.*))?", re.IGNORECASE
)
_TRANSPORTS: Final = ("transport=udp", "transport=tcp")


@dataclass(frozen=True, slots=True)
class TurnServers:
    """``urls`` as :func:`check_turn_url` gives them; ``ttl``: for how many seconds credentials are good."""

    urls: tuple[str, ...]
    secret: str = field(repr=False)
    ttl: int

    def ice_servers(self, user_id: str, unix_time: float) -> tuple[IceServer, ...]:
        """What ``iceServers`` of a user's transport is from ``unix_time`` (seconds) on."""
        username = f"{int(unix_time) + self.ttl}:{user_id}"
        digest = hmac.digest(self.secret.encode(), username.encode(), hashlib.sha1)
        return (IceServer(urls=self.urls, username=username, credential=base64.b64encode(digest).decode()),)


def check_turn_url(text: str) -> str:
    """The URL, where a browser would take it (RFC 7065). Raises ``ValueError`` with a sentence for a person."""
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise ValueError(f"{text!r} is no TURN URL: it begins with turn: or turns:")
    if text[scheme.end() :].startswith("//"):
        raise ValueError(f"{text!r}: a TURN URL has no slashes, as in turn:turn.example.org:3478")
    if "@" in text:
        raise ValueError("a TURN URL holds no user and password: --turn-secret is what makes them")
    parts = _URL.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not like turn:turn.example.org:3478 or turns:turn.example.org?transport=tcp")
    host, port, query = parts["host"], parts["port"], parts["query"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r}: a port is between 1 and 65535")
    if query is not None and query.lower() not in _TRANSPORTS:
        raise ValueError(f"{text!r}: after the question mark there can be transport=udp or transport=tcp")
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError(f"{text!r}: {host} is not an IPv6 address") from None
    return text
