"""The relay between real sockets: both directions, one upstream socket a client, cut and heal, the thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from tests.support.lossy_link import LinkSettings
from tests.support.relay import Address, Relay, open_relay, running_relay


@asynccontextmanager
async def _echo_server() -> AsyncIterator[tuple[Address, set[Address]]]:
    """Answers each datagram with ``echo:`` before it; the set holds the addresses it has seen."""
    seen: set[Address] = set()
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))

        async def echo() -> None:
            while True:
                data, source = await sock.recvfrom(2048)
                seen.add(source)
                await sock.sendto(b"echo:" + data, source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            yield sock.getsockname(), seen
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _client(relay: Relay) -> AsyncIterator[trio.socket.SocketType]:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.connect(relay.address)
        yield sock


async def _exchange(sock: trio.socket.SocketType, data: bytes) -> bytes:
    await sock.send(data)
    with trio.fail_after(5):
        return await sock.recv(2048)


async def _until(happened: Callable[[], bool]) -> None:
    """The relay's counters have no event to wait for: they may be read from another thread."""
    with trio.fail_after(5):
        while not happened():  # noqa: ASYNC110
            await trio.sleep(0.001)


async def test_each_client_has_its_own_address_towards_the_server() -> None:
    async with _echo_server() as (server, seen), open_relay(server) as relay:
        async with _client(relay) as first, _client(relay) as second:
            assert await _exchange(first, b"1") == b"echo:1"
            assert await _exchange(second, b"2") == b"echo:2"
            assert await _exchange(first, b"3") == b"echo:3"
        assert len(seen) == 2
        assert relay.clients == 2
        assert relay.to_server.counters.delivered == relay.to_client.counters.delivered == 3


async def test_delay_is_added_in_both_directions() -> None:
    async with (
        _echo_server() as (server, _),
        open_relay(server, delay=0.03) as relay,
        _client(relay) as client,
    ):
        start = trio.current_time()
        assert await _exchange(client, b"x") == b"echo:x"
        assert trio.current_time() - start >= 0.06


async def test_loss_applies_to_the_direction_it_is_set_for() -> None:
    async with (
        _echo_server() as (server, _),
        open_relay(server, to_client=LinkSettings(loss=0.5), seed=3) as relay,
        _client(relay) as client,
    ):
        for i in range(200):
            await client.send(b"%d" % i)
        await _until(lambda: relay.to_client.counters.offered == 200)
        assert relay.to_server.counters.lost == 0
        assert 60 < relay.to_client.counters.lost < 140


async def test_a_rate_limits_the_direction_it_is_set_for_until_it_is_replaced() -> None:
    narrow = LinkSettings(rate=800_000, queue_bytes=3500)
    async with _echo_server() as (server, _), open_relay(server, to_server=narrow) as relay, _client(relay) as client:
        link = relay.to_server
        for _ in range(50):
            await client.send(bytes(1000))
        await _until(lambda: link.counters.delivered + link.counters.queue_full == 50)
        assert link.counters.queue_full > 0
        assert link.longest_queue_delay > 0.03
        assert relay.to_client.longest_queue_delay == 0.0
        link.settings = LinkSettings()
        dropped = link.counters.queue_full
        for _ in range(50):
            await client.send(bytes(1000))
        await _until(lambda: link.counters.offered == 100)
        assert link.counters.queue_full == dropped


async def test_cut_and_heal() -> None:
    async with _echo_server() as (server, _), open_relay(server) as relay, _client(relay) as client:
        assert await _exchange(client, b"before") == b"echo:before"
        relay.cut()
        await client.send(b"during")
        await _until(lambda: relay.to_server.counters.cut == 1)
        relay.heal()
        assert await _exchange(client, b"after") == b"echo:after"


async def test_clients_that_move_come_from_another_address() -> None:
    async with _echo_server() as (server, seen), open_relay(server) as relay, _client(relay) as client:
        for moves in range(3):
            assert await _exchange(client, b"a") == b"echo:a"
            assert await _exchange(client, b"b") == b"echo:b"
            assert len(seen) == moves + 1
            relay.move()
        assert relay.evicted == 0


async def test_what_was_sent_before_a_move_finds_no_way_back() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        async with open_relay(server.getsockname()) as relay, _client(relay) as client:
            await client.send(b"before")
            await trio.lowlevel.wait_readable(server)
            _, old = server.recvfrom(100)
            relay.move()
            server.sendto(b"late", old)
            await client.send(b"after")
            await trio.lowlevel.wait_readable(server)
            data, new = server.recvfrom(100)
            assert data == b"after"
            assert new != old
            server.sendto(b"to the old one", old)
            server.sendto(b"to the new one", new)
            assert await client.recv(100) == b"to the new one"


async def test_clients_are_bounded_and_the_least_recently_used_goes() -> None:
    async with (
        _echo_server() as (server, seen),
        open_relay(server, max_clients=2) as relay,
        _client(relay) as a,
        _client(relay) as b,
        _client(relay) as c,
    ):
        for client in (a, b, a, c):
            await _exchange(client, b"x")
        assert relay.evicted == 1
        await _exchange(a, b"still the same upstream socket")
        assert len(seen) == 3
        await _exchange(b, b"a new one")
        assert len(seen) == 4


async def test_a_shut_server_port_does_not_end_the_relay() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        shut = probe.getsockname()
    async with open_relay(shut) as relay, _client(relay) as client:
        for _ in range(5):
            await client.send(b"x")
        await _until(lambda: relay.to_server.counters.delivered == 5)


def test_the_synchronous_facade_relays_cuts_and_ends_its_thread() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        with (
            running_relay(server.getsockname(), delay=0.001, seed=1) as relay,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(5)
            client.connect(("127.0.0.1", relay.port))
            client.send(b"there")
            data, source = server.recvfrom(100)
            assert data == b"there"
            server.sendto(b"back", source)
            assert client.recv(100) == b"back"
            relay.cut()
            server.sendto(b"lost", source)
            relay.to_client.settings = LinkSettings(loss=1.0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", relay.port))  # The port is free again.
    assert not any(thread.name == "relay" for thread in threading.enumerate())
