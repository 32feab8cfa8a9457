"""Batched datagrams over real loopback sockets."""

import errno
import gc
import socket
import struct
from collections.abc import Iterator

import pytest

from trio_sfu.transport.mmsg import SLOT, BatchReceiver, BatchSender, address_of

FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
both_families = pytest.mark.parametrize(("family", "host"), FAMILIES, ids=["ipv4", "ipv6"])


class Name:
    """A raw socket address at a fixed place in memory."""

    def __init__(self, host: str, port: int) -> None:
        if ":" in host:
            raw = (
                struct.pack("=H", socket.AF_INET6)
                + struct.pack("!HI", port, 0)
                + socket.inet_pton(socket.AF_INET6, host)
            )
            raw += bytes(4)
        else:
            raw = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
        self.raw = bytearray(raw)
        self.address = address_of(self.raw)
        self.size = len(self.raw)


class Sockets:
    def __init__(self) -> None:
        self.opened: list[socket.socket] = []

    def open(self, family: socket.AddressFamily, host: str) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((host, 0))
        sock.setblocking(False)
        self.opened.append(sock)
        return sock

    def pair(self, family: socket.AddressFamily, host: str) -> tuple[socket.socket, socket.socket, Name]:
        """A sender, a receiver, and the receiver's name."""
        sender, receiver = self.open(family, host), self.open(family, host)
        return sender, receiver, Name(host, receiver.getsockname()[1])


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    for sock in made.opened:
        sock.close()


def drain(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(SLOT))
        except BlockingIOError:
            return found


@both_families
def test_receive(sockets: Sockets, family: socket.AddressFamily, host: str) -> None:
    sender, sock, _ = sockets.pair(family, host)
    receiver = BatchReceiver(sock, slots=4)
    assert receiver.receive(receiver.slots) == 0
    sent = [bytes([index]) * size for index, size in enumerate((0, 1, 1200, SLOT, 3, 5))]
    for data in sent:
        sender.sendto(data, sock.getsockname())
    received = []
    for expected in (4, 2, 0):
        count = receiver.receive(receiver.slots)
        assert count == expected
        for index, (size, source) in enumerate(zip(receiver.sizes(count), receiver.sources(count), strict=True)):
            received.append(bytes(receiver.buffer[index * SLOT : index * SLOT + size]))
            assert source == bytes(Name(host, sender.getsockname()[1]).raw)[: len(source)]
    assert received == sent


def test_longer_datagrams_are_cut(sockets: Sockets) -> None:
    sender, sock, _ = sockets.pair(*FAMILIES[0])
    receiver = BatchReceiver(sock)
    sender.sendto(b"a" * 5000, sock.getsockname())
    sender.sendto(b"b", sock.getsockname())
    assert receiver.receive(receiver.slots) == 2
    assert receiver.sizes(1) == [SLOT]
    assert bytes(receiver.buffer[SLOT : SLOT + 1]) == b"b"


def test_sources_differ_by_address_and_port(sockets: Sockets) -> None:
    sock = sockets.open(*FAMILIES[0])
    receiver = BatchReceiver(sock)
    for host in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
        sockets.open(socket.AF_INET, host).sendto(b"x", sock.getsockname())
    assert receiver.receive(receiver.slots) == 3
    assert len(set(receiver.sources(3))) == 3


def test_a_dead_socket_raises() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver = BatchReceiver(sock)
    sock.close()
    with pytest.raises(OSError, match="recvmmsg"):
        receiver.receive(receiver.slots)


@both_families
@pytest.mark.parametrize("segmentation", [True, False])
def test_send(sockets: Sockets, family: socket.AddressFamily, host: str, *, segmentation: bool) -> None:
    sock, target, name = sockets.pair(family, host)
    arena = bytearray(1 << 16)
    sender = BatchSender(sock, arena)
    if segmentation and not sender.segmentation:
        pytest.skip("this kernel has no UDP_SEGMENT")
    chunks = [bytes([index]) * 100 for index in range(7)] + [b"short"]
    data = b"".join(chunks)
    arena[10 : 10 + len(data)] = data
    if segmentation:
        sender.add(name.address, name.size, 10, len(data), 100, len(chunks), name)
    else:
        for index, chunk in enumerate(chunks):
            sender.add(name.address, name.size, 10 + 100 * index, len(chunk), len(chunk), 1, name)
    assert drain(target) == []
    sender.flush()
    assert drain(target) == chunks
    assert (sender.counters.datagrams, sender.counters.octets) == (8, len(data))
    sender.flush()
    assert drain(target) == []


def test_long_runs(sockets: Sockets) -> None:
    sock, target, name = sockets.pair(*FAMILIES[0])
    arena = bytearray(range(256)) * 240
    sender = BatchSender(sock, arena)
    if not sender.segmentation:
        pytest.skip("this kernel has no UDP_SEGMENT")
    sender.add(name.address, name.size, 0, 64 * 900, 900, 64, name)
    sender.flush()
    assert drain(target) == [bytes(arena[at : at + 900]) for at in range(0, 64 * 900, 900)]


def test_a_run_that_cannot_be_segmented_goes_one_by_one(sockets: Sockets) -> None:
    """The kernel refuses segments beyond the path's MTU; others keep segmentation."""
    sock, target, name = sockets.pair(*FAMILIES[0])
    _, other, other_name = sockets.pair(*FAMILIES[0])
    arena = bytearray(1 << 20)
    sender = BatchSender(sock, arena)
    if not sender.segmentation:
        pytest.skip("this kernel has no UDP_SEGMENT")
    # 65 segments are more than UDP_MAX_SEGMENTS of older kernels and the size is more than 64 KiB: refused by any.
    sender.add(name.address, name.size, 0, 70 * 1000, 1000, 70, name)
    sender.add(other_name.address, other_name.size, 0, 2000, 1000, 2, other_name)
    sender.flush()
    assert len(drain(target)) == 70
    assert len(drain(other)) == 2
    assert sender.segmentation
    assert sender.counters.datagrams == 72
    assert sender.counters.failed == 0


def test_a_refused_destination_does_not_stop_the_others(sockets: Sockets) -> None:
    sock, target, name = sockets.pair(*FAMILIES[0])
    # Without SO_BROADCAST: EACCES; port 0: EINVAL.
    bad = [Name("255.255.255.255", 9), Name("127.0.0.1", 0)]
    arena = bytearray(b"0123456789")
    sender = BatchSender(sock, arena, messages=16)
    for index in range(10):
        where = bad[index // 3 % 2] if index % 3 == 1 else name
        sender.add(where.address, where.size, index, 1, 1, 1, where)
    sender.flush()
    assert drain(target) == [b"0", b"2", b"3", b"5", b"6", b"8", b"9"]
    assert sender.counters.failed == 3
    assert sender.counters.datagrams == 7


def test_a_refused_run(sockets: Sockets) -> None:
    sock, target, name = sockets.pair(*FAMILIES[0])
    bad = Name("255.255.255.255", 9)
    arena = bytearray(b"0123456789")
    sender = BatchSender(sock, arena, messages=4)
    if not sender.segmentation:
        pytest.skip("this kernel has no UDP_SEGMENT")
    sender.add(bad.address, bad.size, 0, 10, 1, 10, bad)
    sender.add(name.address, name.size, 0, 10, 4, 3, name)
    sender.flush()
    assert drain(target) == [b"0123", b"4567", b"89"]
    assert sender.counters.failed == 10
    assert sender.segmentation


def test_capacity(sockets: Sockets) -> None:
    sock, target, name = sockets.pair(*FAMILIES[0])
    sender = BatchSender(sock, bytearray(8), messages=3)
    for _ in range(3):
        sender.add(name.address, name.size, 0, 1, 1, 1, name)
    assert not drain(target)
    sender.add(name.address, name.size, 0, 1, 1, 1, name)
    assert len(drain(target)) == 3
    sender.flush()
    assert len(drain(target)) == 1


def test_a_full_queue_drops_the_rest(sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is never congested, so the kernel's answer is made up."""
    sock, target, name = sockets.pair(*FAMILIES[0])
    sender = BatchSender(sock, bytearray(8))

    class Full:
        errno = errno.EAGAIN

        @staticmethod
        def sendmmsg(*_: object) -> int:
            return -1

    monkeypatch.setattr("trio_sfu.transport.mmsg._libc", Full)
    monkeypatch.setattr("trio_sfu.transport.mmsg._ffi", Full)
    for count in (1, 3):
        sender.add(name.address, name.size, 0, count, 1, count, name)
    sender.flush()
    assert drain(target) == []
    assert sender.counters.congested == 4


def test_names_live_until_the_flush(sockets: Sockets) -> None:
    sock = sockets.open(*FAMILIES[0])
    targets = [sockets.open(*FAMILIES[0]) for _ in range(20)]
    sender = BatchSender(sock, bytearray(range(20)))
    for index, target in enumerate(targets):
        name = Name("127.0.0.1", target.getsockname()[1])
        sender.add(name.address, name.size, index, 1, 1, 1, name)
        del name
    gc.collect()
    sender.flush()
    assert [drain(target) for target in targets] == [[bytes([index])] for index in range(20)]
