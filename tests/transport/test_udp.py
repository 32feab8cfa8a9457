"""The UDP endpoint over real sockets on loopback: whose datagram it is, and what leaves when."""

import socket
import struct
from typing import Any

import pytest
import trio
from aioice import stun
from trio.testing import wait_all_tasks_blocked

from tests.support.webrtc_peer import loopback
from trio_sfu.protocols.ice import generate_ufrag
from trio_sfu.transport.addresses import ListenAddress
from trio_sfu.transport.udp import Path, UdpEndpoint, UdpSocket, open_udp_endpoint
from trio_sfu.wire.errors import BadPacket

both_families = pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])

SRTP = b"\x80\x60" + bytes(20)
DTLS = b"\x16\xfe\xfd" + bytes(20)


class Owner:
    """Records what it is given; answers STUN with ``ok`` and takes the path."""

    def __init__(self, endpoint: UdpEndpoint) -> None:
        self.endpoint = endpoint
        self.got: list[tuple[str, object]] = []
        self.faults: list[Exception] = []
        self.path: Path | None = None
        self.bug: Exception | None = None
        self.news = trio.Event()

    def _note(self, kind: str, what: object) -> None:
        self.got.append((kind, what))
        self.news.set()
        self.news = trio.Event()
        if self.bug is not None:
            raise self.bug

    def receive_stun(self, data: bytes, path: Path, now: float) -> None:
        self.path = path
        self.endpoint.add_route(path, self)
        path.socket.send(path, b"ok")
        self._note("stun", path.port)

    def receive_dtls(self, data: bytes, path: Path, now: float) -> None:
        self._note("dtls", data)

    def receive_srtp(self, view: memoryview, pointer: Any, size: int, now: float) -> None:
        self._note("srtp", bytes(view[:size]))

    def flush(self, now: float) -> None:
        self._note("flush", None)

    def path_closed(self, path: Path, now: float) -> None:
        self._note("closed", path.port)

    def fault(self, error: Exception) -> None:
        self.faults.append(error)

    async def until(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.got) < count:
                await self.news.wait()


def binding_request(ufrag: str | None) -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    if ufrag is not None:
        message.attributes["USERNAME"] = f"{ufrag}:them"
    return bytes(message)


def client(udp_socket: UdpSocket) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in udp_socket.host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((udp_socket.host, 0))
    sock.connect((udp_socket.host, udp_socket.port))
    sock.setblocking(False)
    return sock


async def answer(sock: socket.socket) -> bytes:
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(sock)
    return sock.recv(2048)


async def settle(endpoint: UdpEndpoint, received: int) -> None:
    """Let the endpoint handle what has been sent: so many datagrams by now. (Loopback delivers at once.)"""
    await wait_all_tasks_blocked()
    assert endpoint.counters.received == received


@both_families
async def test_routes(host: str) -> None:
    async with open_udp_endpoint(loopback(host)) as endpoint:
        (udp_socket,) = endpoint.sockets
        owner = Owner(endpoint)
        endpoint.register("ufrag", owner)
        with client(udp_socket) as sock:
            # From an address that has not authenticated itself: dropped.
            sock.send(SRTP)
            sock.send(DTLS)
            await settle(endpoint, 2)
            assert endpoint.counters.unknown == 2
            sock.send(binding_request("ufrag"))
            assert await answer(sock) == b"ok"
            sock.send(DTLS)
            sock.send(SRTP + b"1")
            sock.send(SRTP + b"2")
            await owner.until(5)
            assert owner.path is not None
            assert (owner.path.host, owner.path.port) == (host, sock.getsockname()[1])
            await settle(endpoint, 6)
            assert [item for item in owner.got if item[0] != "flush"] == [
                ("stun", sock.getsockname()[1]),
                ("dtls", DTLS),
                ("srtp", SRTP + b"1"),
                ("srtp", SRTP + b"2"),
            ]
            assert owner.got[-1] == ("flush", None)
            endpoint.remove_route(owner.path, owner)
            endpoint.remove_route(owner.path, owner)
            endpoint.unregister("ufrag", owner)
            endpoint.unregister("ufrag", owner)
            assert udp_socket.routes == {}
            assert endpoint.transport_count == 0
            count = len(owner.got)
            sock.send(SRTP)
            await settle(endpoint, 7)
            assert len(owner.got) == count


async def test_one_flush_a_batch() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        owner = Owner(endpoint)
        endpoint.register("ufrag", owner)
        with client(endpoint.sockets[0]) as sock:
            sock.send(binding_request("ufrag"))
            await answer(sock)
            for _ in range(40):
                sock.send(SRTP)
            await settle(endpoint, 41)
            assert [kind for kind, _ in owner.got] == ["stun", *["srtp"] * 40, "flush"]


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x10" * 30, b"\x40" * 30, b"\xff" * 30, b"\x00\x01\x00\x00" + bytes(16), b"\x01" * 100]
)
async def test_what_is_no_protocol_of_ours(data: bytes) -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        with client(endpoint.sockets[0]) as sock:
            sock.send(data)
            await settle(endpoint, 1)
            assert endpoint.counters.invalid == 1


async def test_short_srtp_is_dropped() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        owner = Owner(endpoint)
        endpoint.register("ufrag", owner)
        with client(endpoint.sockets[0]) as sock:
            sock.send(binding_request("ufrag"))
            await answer(sock)
            for size in range(1, 8):
                sock.send(SRTP[:size])
            await settle(endpoint, 8)
            assert [kind for kind, _ in owner.got] == ["stun"]


async def test_strangers_get_errors_each_its_own() -> None:
    """In one batch: the answers' addresses live until they are sent."""
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        socks = [client(endpoint.sockets[0]) for _ in range(20)]
        requests = [binding_request(None if index % 2 else generate_ufrag()) for index in range(20)]
        for sock, request in zip(socks, requests, strict=True):
            sock.send(request)
        for index, (sock, request) in enumerate(zip(socks, requests, strict=True)):
            reply = stun.parse_message(await answer(sock))
            assert reply.transaction_id == request[8:20]
            assert reply.attributes["ERROR-CODE"][0] == (400 if index % 2 else 401)
            sock.close()
        assert endpoint.counters.unknown == 20


async def test_a_flood_of_strangers_is_limited_and_keeps_nobody_out() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        owner = Owner(endpoint)
        endpoint.register("ufrag", owner)
        endpoint._strangers = 0.0
        endpoint._strangers_at = trio.current_time() + 1000
        with client(endpoint.sockets[0]) as sock:
            for _ in range(20):
                sock.send(binding_request("nobody"))
            await settle(endpoint, 20)
            assert endpoint.counters.limited == 20
            sock.send(binding_request("ufrag"))
            assert await answer(sock) == b"ok"


def test_the_strangers_bucket() -> None:
    endpoint = UdpEndpoint()
    endpoint._strangers_at = 10.0
    assert sum(endpoint.admit_stranger(10.0) for _ in range(3000)) == 2000
    assert sum(endpoint.admit_stranger(10.1) for _ in range(3000)) in (199, 200)
    assert sum(endpoint.admit_stranger(100.0) for _ in range(3000)) == 2000


async def test_bugs_are_told_to_the_owner_and_stop_nobody() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        owner, other = Owner(endpoint), Owner(endpoint)
        endpoint.register("one", owner)
        endpoint.register("two", other)
        with client(endpoint.sockets[0]) as sock, client(endpoint.sockets[0]) as other_sock:
            for each, ufrag in ((sock, "one"), (other_sock, "two")):
                each.send(binding_request(ufrag))
                await answer(each)
            owner.bug = ZeroDivisionError()
            for data in (SRTP, DTLS, binding_request("one")):
                sock.send(data)
                other_sock.send(SRTP)
            await settle(endpoint, 8)
            assert len(owner.faults) >= 4  # the flush too
            assert set(map(type, owner.faults)) == {ZeroDivisionError}
            assert sum(kind == "srtp" for kind, _ in other.got) == 3
            assert not other.faults
            owner.bug = BadPacket("no")
            sock.send(binding_request("one"))
            await settle(endpoint, 9)
            assert endpoint.counters.invalid == 1


async def test_a_path_taken_over_stays_with_the_new_owner() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        first, second = Owner(endpoint), Owner(endpoint)
        endpoint.register("one", first)
        endpoint.register("two", second)
        with client(endpoint.sockets[0]) as sock:
            for ufrag in ("one", "two"):
                sock.send(binding_request(ufrag))
                await answer(sock)
            assert first.path == second.path
            assert first.path is not None
            endpoint.remove_route(first.path, first)
            sock.send(SRTP)
            await settle(endpoint, 3)
            assert [kind for kind, _ in second.got] == ["stun", "srtp", "flush"]


def test_a_ufrag_belongs_to_one() -> None:
    endpoint = UdpEndpoint()
    owner = Owner(endpoint)
    endpoint.register("ufrag", owner)
    with pytest.raises(ValueError, match="in use"):
        endpoint.register("ufrag", Owner(endpoint))
    endpoint.unregister("ufrag", Owner(endpoint))
    assert endpoint.owner_of("ufrag") is owner


async def test_sending_outside_of_a_batch_is_at_once_and_in_order() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        owner = Owner(endpoint)
        endpoint.register("ufrag", owner)
        with client(endpoint.sockets[0]) as sock:
            sock.send(binding_request("ufrag"))
            await answer(sock)
            path = owner.path
            assert path is not None
            for number in range(2000):  # more than the arena holds
                path.socket.send(path, struct.pack("!I", number) + bytes(1000))
                assert sock.recv(2048)[:4] == struct.pack("!I", number)


@pytest.mark.parametrize("segmentation", [True, False])
async def test_runs_with_and_without_segmentation(*, segmentation: bool) -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        owner = Owner(endpoint)
        endpoint.register("ufrag", owner)
        with client(endpoint.sockets[0]) as sock:
            sock.send(binding_request("ufrag"))
            await answer(sock)
            path = owner.path
            assert path is not None
            (udp_socket,) = endpoint.sockets
            assert path.socket is udp_socket
            udp_socket.sender.segmentation = segmentation and udp_socket.sender.segmentation
            data = b"".join(bytes([index]) * 100 for index in range(9)) + b"end"
            endpoint.in_batch = True
            start = udp_socket.reserve(len(data))
            udp_socket.arena[start : start + len(data)] = data
            udp_socket.queue(path, start, len(data), 100, 10)
            with pytest.raises(BlockingIOError):
                sock.recv(2048)
            endpoint.in_batch = False
            udp_socket.flush()
            assert [sock.recv(2048) for _ in range(10)] == [data[at : at + 100] for at in range(0, 1000, 100)]


async def test_the_arena_is_flushed_when_it_is_full() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        (udp_socket,) = endpoint.sockets
        with pytest.raises(ValueError, match="arena"):
            udp_socket.reserve((1 << 20) + 1)
        endpoint.in_batch = True
        assert [udp_socket.reserve(100_000) for _ in range(4)] == [0, 100_000, 200_000, 0]
        assert [udp_socket.reserve(1 << 20) for _ in range(2)] == [0, 0]


async def test_an_address_in_use_is_said() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        taken = ListenAddress("127.0.0.1", ("127.0.0.1",), endpoint.sockets[0].port)
        with pytest.raises(OSError, match=r"UDP 127\.0\.0\.1 port \d+ is in use"):
            async with open_udp_endpoint([*loopback("127.0.0.1"), taken]):
                pytest.fail("it was bound")


async def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(OSError, match="cannot be bound"):
        async with open_udp_endpoint(loopback("192.0.2.1")):
            pytest.fail("it was bound")


async def test_closing_frees_the_ports() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1", "::1")) as endpoint:
        ports = [(each.host, each.port) for each in endpoint.sockets]
    for host, port in ports:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((host, port))


async def test_counters_of_the_kernel() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        assert endpoint.sockets[0].kernel_drops() == 0


def test_paths_are_equal_when_both_ends_are() -> None:
    one, two = object(), object()
    key = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s", 80, bytes((1, 2, 3, 4)))
    path = Path(one, key)  # type: ignore[arg-type]
    assert path == Path(one, key)  # type: ignore[arg-type]
    assert hash(path) == hash(Path(one, key))  # type: ignore[arg-type]
    assert path != Path(two, key)  # type: ignore[arg-type]
    assert path != key
    assert (path.host, path.port, path.name_size) == ("1.2.3.4", 80, 16)
    assert "1.2.3.4" in repr(path)
