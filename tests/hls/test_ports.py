"""Leases of port pairs, and waiting until a process has bound them: with real sockets."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.support.until import until
from trio_sfu.hls import ports
from trio_sfu.hls.ports import NoPorts, PortPair, PortRange, wait_bound

# Below what the kernel gives out by itself, above what is registered for many things.
FIRST = 23_400
# Binds the port of its argument where that is not 0, says so, and stays until its input ends.
BINDER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    if sys.argv[1] != "0":
        sock.bind(("127.0.0.1", int(sys.argv[1])))
    print("done", flush=True)
    sys.stdin.read()
"""


@contextmanager
def bound(port: int, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        yield sock


@contextmanager
def binder(port: int) -> Iterator[int]:
    """The id of a process that has bound ``port``."""
    with subprocess.Popen(
        [sys.executable, "-c", BINDER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        yield process.pid


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


@pytest.fixture
def all_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else goes on at the machine."""
    monkeypatch.setattr(ports, "_is_free", lambda host, rtp: True)


# -- leases


@pytest.mark.usefixtures("all_free")
@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        (100, 105, [100, 102, 104]),
        (101, 106, [102, 104]),
        (101, 105, [102, 104]),
        (100, 104, [100, 102]),
        (100, 101, [100]),
        (65534, 65535, [65534]),
    ],
)
def test_pairs_of_a_range(first: int, last: int, wanted: list[int]) -> None:
    made = PortRange(first, last)
    pairs = [made.lease() for _ in wanted]
    assert [pair.rtp for pair in pairs] == wanted
    assert [pair.rtcp for pair in pairs] == [rtp + 1 for rtp in wanted]
    assert made.leases == len(wanted)
    with pytest.raises(NoPorts, match=f"^no pair of UDP ports is free from {first} to {last}: {len(wanted)} pairs "):
        made.lease()
    for pair in pairs:
        pair.release()
    assert made.leases == 0


@pytest.mark.parametrize(
    ("first", "last"), [(100, 100), (101, 102), (101, 101), (102, 101), (0, 9), (-2, 9), (9, 65536)]
)
def test_ranges_without_a_pair(first: int, last: int) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        PortRange(first, last)


@pytest.mark.usefixtures("all_free")
def test_what_was_just_given_back_is_used_last() -> None:
    made = PortRange(100, 107)
    pairs = [made.lease() for _ in range(4)]
    for index in (2, 0, 3, 1):
        pairs[index].release()
    assert [made.lease().rtp for _ in range(2)] == [104, 100]
    # The start moves on also where nothing is left to wait for.
    other = PortRange(200, 207)
    seen = []
    for _ in range(5):
        with other.lease() as pair:
            seen.append(pair.rtp)
    assert seen == [200, 202, 204, 206, 200]
    for rtp in (104, 100):
        ports._leased.discard(rtp)


@pytest.mark.usefixtures("all_free")
def test_a_second_release_takes_nothing_from_the_next_owner() -> None:
    made = PortRange(100, 101)
    first = made.lease()
    first.release()
    with made.lease() as second:
        first.release()
        assert second.rtp == first.rtp
        assert made.leases == 1
        with pytest.raises(NoPorts):
            made.lease()
    assert second.released
    assert made.leases == 0


@pytest.mark.usefixtures("all_free")
def test_ranges_that_overlap_share_nothing() -> None:
    one, other = PortRange(100, 103), PortRange(102, 105)
    with one.lease() as first, one.lease() as second, other.lease() as third:
        assert (first.rtp, second.rtp, third.rtp) == (100, 102, 104)
        with pytest.raises(NoPorts, match="1 pairs are in use here, and 1 by others"):
            other.lease()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("taken", [0, 1], ids=["rtp", "rtcp"])
def test_a_port_that_somebody_has_bound_is_passed_over(host: str, taken: int) -> None:
    made = PortRange(FIRST, FIRST + 39, host)
    free = made.lease()
    free.release()
    # In front again: nobody else has it.
    only = PortRange(free.rtp, free.rtcp, host)
    with bound(free.rtp + taken, host):
        with pytest.raises(NoPorts):
            only.lease()
        assert only.leases == 0
    with only.lease() as pair, bound(pair.rtp, host), bound(pair.rtcp, host):
        assert pair.rtp == free.rtp


@given(st.lists(st.integers(-9, 9), max_size=60))
def test_leased_pairs_are_disjoint(steps: list[int]) -> None:
    """Numbers from 0 on release one of the pairs, the others lease one."""
    made = PortRange(FIRST, FIRST + 11)
    pairs: list[PortPair] = []
    try:
        for step in steps:
            if step >= 0 and pairs:
                pairs.pop(step % len(pairs)).release()
            else:
                try:
                    pairs.append(made.lease())
                except NoPorts:
                    assert pairs or made._free
            taken = [port for pair in pairs for port in (pair.rtp, pair.rtcp)]
            assert len(set(taken)) == len(taken) == 2 * made.leases
            assert all(FIRST <= port <= FIRST + 11 for port in taken)
            assert all(pair.rtp % 2 == 0 and pair.rtcp == pair.rtp + 1 for pair in pairs)
            assert sorted([*made._free, *(pair.rtp for pair in pairs)]) == list(range(FIRST, FIRST + 11, 2))
    finally:
        for pair in pairs:
            pair.release()
    assert made.leases == 0
    assert not ports._leased


# -- waiting


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
async def test_ports_of_this_process(host: str) -> None:
    with bound(0, host) as one, bound(0, host) as other:
        await wait_bound([port_of(one), port_of(other)], pid=os.getpid(), seconds=5)


async def test_it_waits_for_the_last_port() -> None:
    with bound(0) as first, bound(0) as second:
        wanted = [port_of(first), port_of(second)]
        second.close()
        done = trio.Event()

        async def wait() -> None:
            await wait_bound(wanted, pid=os.getpid(), seconds=5)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            with bound(wanted[1]):
                await until(done.is_set)


async def test_no_ports_need_no_waiting() -> None:
    with trio.fail_after(5):
        await wait_bound([], pid=os.getpid(), seconds=5)


async def test_only_the_process_itself_counts(autojump_clock: trio.testing.MockClock) -> None:
    with bound(0) as mine:
        port = port_of(mine)
        with binder(0) as other, pytest.raises(trio.TooSlowError):
            await wait_bound([port], pid=other, seconds=1)
        mine.close()
        with binder(port) as other:
            await wait_bound([port], pid=other, seconds=5)
            with pytest.raises(trio.TooSlowError):
                await wait_bound([port], pid=os.getpid(), seconds=1)
        # It has ended and been reaped.
        with bound(port), pytest.raises(trio.TooSlowError):
            await wait_bound([port], pid=other, seconds=1)


async def test_tcp_and_neighbours_do_not_count(autojump_clock: trio.testing.MockClock) -> None:
    with socket.socket() as listener, bound(0) as neighbour:
        listener.bind(("127.0.0.1", 0))
        port = port_of(listener)
        if port != port_of(neighbour):
            with pytest.raises(trio.TooSlowError):
                await wait_bound([port, port_of(neighbour)], pid=os.getpid(), seconds=1)
        await wait_bound([port_of(neighbour)], pid=os.getpid(), seconds=1)


async def test_the_inode_is_the_one_of_the_table() -> None:
    """Of all columns of numbers the right one: the socket's own."""
    with bound(0) as sock:
        inode = os.fstat(sock.fileno()).st_ino
        lines = ports._lines_of([port_of(sock)])
        with open("/proc/net/udp", "rb") as file:  # noqa: ASYNC230
            assert [int(found) for _, found in lines.findall(file.read())] == [inode]
