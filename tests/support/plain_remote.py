"""The other end of a plain transport: sockets of the test; and a router whose transports are real."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.media_core import VIDEO_SSRC, Call, audio_parameters
from tests.support.until import until
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.parameters import RtpParameters
from trio_sfu.media.producer import Producer
from trio_sfu.protocols.dtls import SrtpKeys
from trio_sfu.transport.plain import PlainTransport, plain_rtp_capabilities
from trio_sfu.transport.srtp import SrtpProfile
from trio_sfu.wire.rtcp import RtcpPacket, SenderReport, parse_compound
from trio_sfu.wire.rtp import parse_rtp

__all__ = [
    "AUDIO",
    "REPORT",
    "LiveCall",
    "Remote",
    "keys",
    "numbers",
    "open_socket",
    "payloads",
    "received",
    "remote",
    "running",
    "state",
    "waiting",
]

AUDIO = msgspec.convert(audio_parameters(), RtpParameters)
REPORT = SenderReport(VIDEO_SSRC, 0xAA << 32, 3000, 1, 1)


class LiveCall(Call):
    """A router with its senders, on trio's clock."""

    @property
    def now(self) -> float:
        return trio.current_time()

    @now.setter
    def now(self, value: float) -> None:
        pass

    def watch(self, transport: PlainTransport, producer: Producer) -> Consumer:
        """A consumer on a plain transport."""
        return self.router.consume(transport, producer, plain_rtp_capabilities(self.router.rtp_capabilities))


class Remote:
    """The other end: its sockets, and everything that has come on them."""

    def __init__(self, *, mux: bool = False, host: str = "127.0.0.1") -> None:
        self.rtp = open_socket(host)
        self.rtcp = self.rtp if mux else open_socket(host)
        self.packets: list[bytes] = []
        self.reports: list[RtcpPacket] = []

    @property
    def address(self) -> tuple[str, int, int]:
        """What ``connect`` is to be given."""
        return self.rtp.getsockname()[0], self.rtp.getsockname()[1], self.rtcp.getsockname()[1]

    def send_rtp(self, transport: PlainTransport, *packets: bytes) -> None:
        for packet in packets:
            self.rtp.sendto(packet, (transport.tuple.local_ip, transport.tuple.local_port))

    def send_rtcp(self, transport: PlainTransport, data: bytes) -> None:
        self.rtcp.sendto(data, (transport.rtcp_tuple.local_ip, transport.rtcp_tuple.local_port))

    async def until(self, ready: Callable[[], object]) -> None:
        """Receive until ``ready()``."""

        def arrived() -> object:
            for sock in {self.rtp, self.rtcp}:
                for data in waiting(sock):
                    if 192 <= data[1] <= 223:
                        assert sock is self.rtcp
                        self.reports += parse_compound(data)
                    else:
                        assert sock is self.rtp
                        self.packets.append(data)
            return ready()

        await until(arrived)

    async def receive(self, count: int) -> list[bytes]:
        """The next ``count`` RTP packets."""
        await self.until(lambda: len(self.packets) >= count)
        taken, self.packets = self.packets, []
        assert len(taken) == count
        return taken

    def of(self, kind: type[RtcpPacket]) -> list[Any]:
        return [each for each in self.reports if isinstance(each, kind)]


def open_socket(host: str) -> socket.socket:
    """A non-blocking UDP socket on a free port."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


def waiting(sock: socket.socket) -> Iterator[bytes]:
    """The datagrams that have come."""
    while True:
        try:
            yield sock.recv(65536)
        except BlockingIOError:
            return


@contextmanager
def remote(*, mux: bool = False, host: str = "127.0.0.1") -> Iterator[Remote]:
    """A remote end; its sockets are closed with the block."""
    made = Remote(mux=mux, host=host)
    with made.rtp, made.rtcp:
        yield made


@asynccontextmanager
async def running(*transports: PlainTransport) -> AsyncIterator[None]:
    """Run them; nothing of them is open afterwards."""
    async with trio.open_nursery() as nursery:
        for transport in transports:
            await nursery.start(transport.run)
        yield
        nursery.cancel_scope.cancel()
    for transport in transports:
        assert state(transport) == "closed"
        assert transport.session.closed
        assert transport.session not in transport._router._sessions
        assert transport._rtp.fileno() == transport._rtcp.fileno() == -1


def state(transport: PlainTransport) -> str:
    """Read anew: what is asserted of an attribute, mypy takes to stay."""
    return transport.state


def keys(profile: SrtpProfile, size: int) -> SrtpKeys:
    """Made-up SRTP keys of ``size`` bytes."""
    return SrtpKeys(profile, local=bytes(range(size)), remote=bytes(range(100, 100 + size)))


def payloads(packets: Sequence[bytes]) -> list[bytes]:
    """The RTP payloads."""
    return [data[parsed.payload_start : parsed.payload_end] for data in packets for parsed in (parse_rtp(data),)]


def numbers(packets: Sequence[bytes]) -> list[int]:
    """Sequence numbers, counted from the first."""
    found = [parse_rtp(data).sequence_number for data in packets]
    return [number - found[0] & 0xFFFF for number in found]


async def received(transport: PlainTransport, count: int) -> None:
    """Wait until the transport has handled its first ``count`` datagrams; there must be no more."""
    await until(lambda: transport.counters.received >= count)
    await wait_all_tasks_blocked()
    assert transport.counters.received == count
