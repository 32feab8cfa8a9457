"""Which addresses are bound and announced."""

import pytest

from trio_sfu.transport.addresses import (
    ListenAddress,
    NoAddress,
    describe,
    listen_addresses,
    local_addresses,
    source_address,
)

MACHINE = ["127.0.0.1", "192.168.1.10", "::1", "fe80::1%2", "2001:db8::10", "10.0.0.7", "192.168.1.10"]


def addresses(host: str | None = None, *announce: str, machine: list[str] | None = None) -> list[tuple[str, ...]]:
    def source_for(destination: str) -> str | None:
        return None if destination == "203.0.113.99" else "2001:db8::10" if ":" in destination else "10.0.0.7"

    found = listen_addresses(
        host, announce, 44444, local=lambda: MACHINE if machine is None else machine, source_for=source_for
    )
    assert all(address.port == 44444 for address in found)
    return [(address.bind_ip, *address.announced_ips) for address in found]


def own(*ips: str) -> list[tuple[str, ...]]:
    return [(ip, ip) for ip in ips]


@pytest.mark.parametrize(
    ("host", "announce", "expected"),
    [
        (None, (), own("192.168.1.10", "10.0.0.7", "2001:db8::10")),
        ("::", (), own("192.168.1.10", "10.0.0.7", "2001:db8::10")),
        ("0.0.0.0", (), own("192.168.1.10", "10.0.0.7")),
        ("127.0.0.1", (), own("127.0.0.1")),
        ("192.168.1.10", (), own("192.168.1.10")),
        ("::1", (), own("::1")),
        (None, ("192.168.1.10",), own("192.168.1.10")),
        (None, ("127.0.0.1",), own("127.0.0.1")),
        (None, ("203.0.113.5",), [("10.0.0.7", "203.0.113.5")]),
        (None, ("203.0.113.5", "10.0.0.7"), [("10.0.0.7", "203.0.113.5", "10.0.0.7")]),
        (None, ("203.0.113.5", "203.0.113.5"), [("10.0.0.7", "203.0.113.5")]),
        (None, ("203.0.113.5", "2001:DB8::5"), [("10.0.0.7", "203.0.113.5"), ("2001:db8::10", "2001:db8::5")]),
        ("192.168.1.10", ("203.0.113.5",), [("192.168.1.10", "203.0.113.5")]),
        ("192.168.1.10", ("2001:db8::5",), [("2001:db8::10", "2001:db8::5")]),
        ("127.0.0.1", ("10.0.0.7",), [("127.0.0.1", "10.0.0.7")]),
    ],
)
def test_choice(host: str | None, announce: tuple[str, ...], expected: list[tuple[str, ...]]) -> None:
    assert addresses(host, *announce) == expected


def test_loopback_where_there_is_nothing_else() -> None:
    assert addresses(machine=["127.0.0.1", "::1", "127.0.1.1", "fe80::1"]) == own("127.0.0.1", "::1")
    with pytest.raises(NoAddress):
        addresses(machine=[])


def test_an_address_nobody_reaches() -> None:
    with pytest.raises(NoAddress, match="reaches"):
        addresses(None, "203.0.113.99")


def test_this_machine() -> None:
    assert "127.0.0.1" in local_addresses()
    assert source_address("127.0.0.1") == "127.0.0.1"
    assert listen_addresses(None, [], 0)


def test_description() -> None:
    lines = describe([ListenAddress("10.0.0.7", ("203.0.113.5", "10.0.0.7"), 44444)])
    assert lines[0] == ("media: clients are told to send to 203.0.113.5 port 44444, UDP (received on 10.0.0.7)")
    assert lines[1] == "media: clients are told to send to 10.0.0.7 port 44444, UDP"
    assert "--announce" in lines[-1]
    tcp = [ListenAddress("10.0.0.7", ("203.0.113.5", "10.0.0.7"), 443)]
    more = describe([ListenAddress("10.0.0.7", ("203.0.113.5", "10.0.0.7"), 44444)], tcp)
    assert [line for line in more if line not in lines] == [
        "media: from networks that block UDP, to 203.0.113.5 port 443, TCP",
        "media: from networks that block UDP, to 10.0.0.7 port 443, TCP",
    ]
    assert "only browsers on this machine" in "\n".join(describe([ListenAddress("::1", ("::1",), 1)]))
