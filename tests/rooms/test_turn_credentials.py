"""TURN credentials against what OpenSSL computes, and which URLs are taken."""

from collections.abc import Sequence

import pytest

from trio_sfu.rooms.messages import IceServer
from trio_sfu.rooms.turn import TurnServers, check_turn_url

URLS = ("turn:turn.example.org:3478?transport=udp", "turns:turn.example.org")


@pytest.mark.parametrize(
    ("secret", "user_id", "now", "ttl", "username", "credential"),
    [
        # printf '1433065916:alice' | openssl dgst -sha1 -hmac north -binary | base64
        ("north", "alice", 1433065316.9, 600, "1433065916:alice", "Mf4on1SFftbyvGsi4mM2Um1ZIUQ="),
        ("sécret", "b:ob", 0.0, 86400, "86400:b:ob", "Zr2CuIgoU/sTYpjhzDB4r6uK0rg="),
    ],
)
def test_credentials(secret: str, user_id: str, now: float, ttl: int, username: str, credential: str) -> None:
    servers = TurnServers(URLS, secret, ttl).ice_servers(user_id, now)
    assert servers == (IceServer(urls=URLS, username=username, credential=credential),)


def test_the_secret_is_not_shown() -> None:
    assert "north" not in repr(TurnServers(URLS, "north", 600))


@pytest.mark.parametrize(
    "url",
    [
        "turn:turn.example.org",
        "turn:192.0.2.1:3478",
        "turn:[2001:db8::1]",
        "turn:[2001:db8::1]:3478?transport=tcp",
        "turns:turn.example.org:443?transport=tcp",
        "TURN:Turn.Example.ORG?transport=UDP",
        "turn:localhost:1",
        "turn:host:65535",
    ],
)
def test_good_urls(url: str) -> None:
    assert check_turn_url(url) == url


MISTAKES: Sequence[tuple[str, str]] = [
    ("", "begins with turn: or turns:"),
    ("turn.example.org", "begins with turn: or turns:"),
    ("stun:turn.example.org", "begins with turn: or turns:"),
    ("https://turn.example.org", "begins with turn: or turns:"),
    ("turn://turn.example.org", "no slashes"),
    ("turn:user:password@turn.example.org", "no user and password"),
    ("turn:", "is not like"),
    ("turn::3478", "is not like"),
    ("turn:a b", "is not like"),
    ("turn:host:port", "is not like"),
    ("turn:2001:db8::1", "is not like"),
    ("turn:host/path", "is not like"),
    ("turn:host\n", "is not like"),
    ("turn:host:0", "between 1 and 65535"),
    ("turn:host:65536", "between 1 and 65535"),
    ("turn:host?transport=sctp", "transport=udp or transport=tcp"),
    ("turn:host?", "transport=udp or transport=tcp"),
    ("turn:host?transport=udp&x=y", "transport=udp or transport=tcp"),
    ("turn:[1.2.3.4]", "not an IPv6 address"),
    ("turn:[::1::2]", "not an IPv6 address"),
]


@pytest.mark.parametrize(("url", "says"), MISTAKES)
def test_mistakes(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        check_turn_url(url)
    assert "password@" not in str(error.value)
