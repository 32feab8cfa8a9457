"""Leases of UDP ports for a process that binds them itself: FFmpeg, which takes RTP on one port and RTCP on the next.

The pipeline leases a pair for each of its inputs, starts FFmpeg, and waits with :func:`wait_bound` until it listens.
"""

import os
import re
import socket
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Final

import trio

__all__ = ["NoPorts", "PortPair", "PortRange", "wait_bound"]

_POLL_SECONDS: Final = 0.01
_TABLES: Final = ("/proc/net/udp", "/proc/net/udp6")

# The RTP ports of all pairs that this process has leased, by whatever range: ports belong to the machine.
_leased: Final[set[int]] = set()


class NoPorts(Exception):
    """No pair is free; the message is a sentence for a person."""


class PortPair:
    """Two ports that nobody else is given until :meth:`release`, also as a context manager.

    ``rtp`` is even and ``rtcp`` the port after it, as RFC 3550, section 11 has it.
    """

    __slots__ = ("_range", "released", "rtcp", "rtp")

    def __init__(self, port_range: "PortRange", rtp: int) -> None:
        self._range: Final = port_range
        self.rtp: Final = rtp
        self.rtcp: Final = rtp + 1
        self.released = False

    def __repr__(self) -> str:
        return f"<PortPair {self.rtp}/{self.rtcp}{' released' if self.released else ''}>"

    def release(self) -> None:
        """Give the pair back; does nothing the second time."""
        if not self.released:
            self.released = True
            self._range._take_back(self.rtp)

    def __enter__(self) -> "PortPair":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class PortRange:
    """The even/odd pairs between ``first`` and ``last``, both included, on the IP address ``host``.

    Pairs are handed out in turn: the one given back last is the last to be used again, as datagrams for its former
    owner may still be under way. The range should lie outside of the kernel's own choice
    (``/proc/sys/net/ipv4/ip_local_port_range``): from there, anybody's socket may get one of its ports between lease
    and use. Raises :class:`ValueError` where there is no pair in it.
    """

    def __init__(self, first: int, last: int, host: str = "127.0.0.1") -> None:
        if not 0 < first <= last < 65536:
            raise ValueError(f"{first} to {last} is no range of ports")
        # Given
        self.first: Final = first
        self.last: Final = last
        self.host: Final = host
        # Owned
        self._free: Final = deque(range(first + first % 2, last, 2))
        self.leases = 0
        """How many pairs are leased now."""
        if not self._free:
            raise ValueError(f"there is no even port with the odd one after it from {first} to {last}")

    def lease(self) -> PortPair:
        """A pair that is not leased and that nobody has bound. Raises :class:`NoPorts` after one turn of the range."""
        for _ in range(len(self._free)):
            rtp = self._free.popleft()
            if rtp not in _leased and _is_free(self.host, rtp):
                _leased.add(rtp)
                self.leases += 1
                return PortPair(self, rtp)
            self._free.append(rtp)
        raise NoPorts(
            f"no pair of UDP ports is free from {self.first} to {self.last}: {self.leases} pairs are in use here, and "
            f"{len(self._free)} by others"
        )

    def _take_back(self, rtp: int) -> None:
        _leased.discard(rtp)
        self.leases -= 1
        self._free.append(rtp)


def _is_free(host: str, rtp: int) -> bool:
    """Whether both ports can be bound at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as even, socket.socket(family, socket.SOCK_DGRAM) as odd:
        try:
            even.bind((host, rtp))
            odd.bind((host, rtp + 1))
        except OSError:
            return False
    return True


async def wait_bound(ports: Collection[int], *, pid: int, seconds: float) -> None:
    """Return when the process ``pid`` has bound each of the UDP ``ports``, on whatever address.

    Looks every 10 ms. Raises :class:`trio.TooSlowError` after ``seconds``, also where the process has ended.
    """
    lines = _lines_of(ports)
    wanted = set(ports)
    with trio.fail_after(seconds):
        while not wanted <= _bound_by(pid, lines):  # noqa: ASYNC110
            await trio.sleep(_POLL_SECONDS)


def _lines_of(ports: Iterable[int]) -> re.Pattern[bytes]:
    """Finds the lines of these ports in the kernel's tables; port and inode are its groups.

    A machine may have thousands of others, which cost no Python here.
    """
    # "sl: local:PORT remote:port st tx:rx tr:when retransmit uid timeout INODE ref pointer drops", see proc(5)
    numbers = "|".join(f"{port:04X}" for port in ports)
    return re.compile(rf"^ *\d+: [0-9A-F]+:({numbers})(?: +[^ \n]+){{7}} +(\d+) ".encode(), re.MULTILINE)


def _bound_by(pid: int, lines: re.Pattern[bytes]) -> set[int]:
    """Those of the ports that the process has bound."""
    owners: list[tuple[int, int]] = []
    for table in _TABLES:
        with suppress(FileNotFoundError), open(table, "rb", buffering=0) as file:  # none of IPv6 on some machines
            owners += [(int(port, 16), int(inode)) for port, inode in lines.findall(file.read())]
    inodes = _sockets_of(pid) if owners else set()
    return {port for port, inode in owners if inode in inodes}


def _sockets_of(pid: int) -> set[int]:
    """The inodes of a process's sockets; none where it has ended."""
    found: set[int] = set()
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):  # closed meanwhile
                target = os.readlink(f"{folder}/{name}")
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found
