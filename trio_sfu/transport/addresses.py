"""Which local addresses media listens on, and which addresses the candidates say.

server.py asks once, at start-up. A reply must leave from the address that the request came to, so
every address is bound itself, never the wildcard. No packet is sent to find anything out.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import ifaddr

IPAddress = IPv4Address | IPv6Address

_ANY: Final = ("0.0.0.0", "::")
_DISCARD_PORT: Final = 9


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """One socket's address: where it is bound, and what clients are told (never empty)."""

    bind_ip: str
    announced_ips: tuple[str, ...]
    port: int


class NoAddress(Exception):
    """There is no address to listen on; the message is a sentence for a person."""


def listen_addresses(
    host: str | None,
    announce: Sequence[str],
    media_port: int,
    *,
    local: Callable[[], Iterable[str]] | None = None,
    source_for: Callable[[str], str | None] | None = None,
) -> list[ListenAddress]:
    """The sockets to open. ``host``, ``announce``: IP addresses; ``host`` None or a wildcard means all.

    - ``announce``d addresses are what candidates say, and nothing else. One that this machine has is
      bound itself; for another (a NAT's outside) the local address is bound that routes to it.
    - Without: ``host``, where that is one address; else all unicast addresses of this machine but
      loopback and IPv6 link-local ones (of IPv4 only, for host 0.0.0.0), loopback if there are no others.

    ``local`` and ``source_for`` are the system's answers; tests give others. Raises :class:`NoAddress`.
    """
    addresses = _usable(local() if local is not None else local_addresses())
    find_source = source_for or source_address
    specific = None if host is None or host in _ANY else str(ip_address(host))
    bound: dict[str, list[str]] = {}
    for text in announce:
        announced = str(ip_address(text))
        if specific is not None and _same_family(specific, announced):
            bind_ip: str | None = specific
        elif announced in addresses:
            bind_ip = announced
        else:
            bind_ip = find_source(announced)
        if bind_ip is None:
            raise NoAddress(f"No address of this machine reaches {announced}, so it cannot be announced")
        announced_here = bound.setdefault(bind_ip, [])
        if announced not in announced_here:
            announced_here.append(announced)
    if not announce:
        for ip in [specific] if specific is not None else _automatic(addresses, host):
            bound[ip] = [ip]
    if not bound:
        raise NoAddress("This machine has no address that media could be sent to")
    return [ListenAddress(ip, tuple(announced), media_port) for ip, announced in bound.items()]


def local_addresses() -> list[str]:
    """All addresses of this machine's interfaces that can be bound now, as text, without IPv6 scopes.

    An IPv6 address that the kernel still checks for duplicates cannot, for a second or two.
    """
    ips = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    return [ip for ip in (ip if isinstance(ip, str) else ip[0] for ip in ips) if _can_bind(ip)]


def _can_bind(ip: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((ip, 0))
        except OSError:
            return False
        return True


def source_address(destination: str) -> str | None:
    """The local address that packets to ``destination`` would leave from, or None. Sends nothing."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((destination, _DISCARD_PORT))
            return str(sock.getsockname()[0])
        except OSError:
            return None


def describe(addresses: Sequence[ListenAddress], tcp: Sequence[ListenAddress] = ()) -> list[str]:
    """For a person, at start-up: what is announced, by UDP and by ``tcp``, and what to do where that is wrong."""
    lines = []
    for address in addresses:
        for announced in address.announced_ips:
            where = "" if announced == address.bind_ip else f" (received on {address.bind_ip})"
            lines.append(f"media: clients are told to send to {announced} port {address.port}, UDP{where}")
    for address in tcp:
        for announced in address.announced_ips:
            lines.append(f"media: from networks that block UDP, to {announced} port {address.port}, TCP")
    every = [ip for address in addresses for ip in address.announced_ips]
    if all(ip_address(ip).is_loopback for ip in every):
        lines.append("media: only browsers on this machine can reach that")
    lines.append(
        "media: if browsers cannot reach these addresses (behind NAT, in a container), "
        "say which they can: --announce ADDRESS or TRIO_SFU_ANNOUNCE"
    )
    return lines


def _usable(found: Iterable[str]) -> dict[str, IPAddress]:
    """In a stable order without duplicates: what a unicast socket can be bound to without a scope."""
    addresses: dict[str, IPAddress] = {}
    for text in found:
        ip = ip_address(text.partition("%")[0])
        scoped = ip.version == 6 and ip.is_link_local
        if not (scoped or ip.is_multicast or ip.is_unspecified):
            addresses[str(ip)] = ip
    return addresses


def _automatic(addresses: dict[str, IPAddress], host: str | None) -> list[str]:
    # IPv4 first: candidates' preference follows this order.
    ips = sorted(addresses.values(), key=lambda ip: ip.version)
    if host == "0.0.0.0":
        ips = [ip for ip in ips if ip.version == 4]
    routable = [str(ip) for ip in ips if not ip.is_loopback]
    return routable or [str(ip) for ip in ips if ip in _LOOPBACK]


_LOOPBACK: Final = (ip_address("127.0.0.1"), ip_address("::1"))


def _same_family(one: str, other: str) -> bool:
    return ip_address(one).version == ip_address(other).version
