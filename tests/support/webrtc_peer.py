"""A client for one WebRtcTransport of this process, over a real socket, UDP or TCP, without signalling.

:class:`bench.peer.ClientTransport` does the protocols; this gives it a socket and a task. What comes is kept: see
``rtp`` and ``rtcp`` (decrypted).
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import msgspec
import trio
import trio.socket

from bench.dtls import CHROME, ClientIdentity
from bench.peer import ClientTransport, RemoteParameters
from trio_sfu.media.parameters import DtlsFingerprint, DtlsParameters, IceParameters
from trio_sfu.transport.addresses import ListenAddress
from trio_sfu.transport.webrtc import WebRtcTransport
from trio_sfu.wire.rtcp import RtcpPacket, parse_compound

__all__ = ["WebRtcPeer", "loopback", "webrtc_peer"]

_TIMEOUT: Final = 10.0


def loopback(*hosts: str) -> list[ListenAddress]:
    """Addresses for an endpoint on free ports."""
    return [ListenAddress(host, (host,), 0) for host in hosts]


class WebRtcPeer:
    """Made by :func:`webrtc_peer`."""

    def __init__(self, transport: WebRtcTransport, *, candidate: int, profiles: Sequence[str]) -> None:
        chosen = transport.ice_candidates[candidate]
        reply = {
            "id": transport.id,
            "iceParameters": msgspec.to_builtins(transport.ice_parameters),
            "iceCandidates": [{**msgspec.to_builtins(chosen), "protocol": "udp"}],
            "dtlsParameters": msgspec.to_builtins(transport.dtls_parameters),
        }
        self.client = ClientTransport(RemoteParameters.from_reply(reply), ClientIdentity(profiles))
        self.rtp: list[bytes] = []
        self.rtcp: list[RtcpPacket] = []
        self.server = self.client.remote.address
        self.reading = trio.Event()
        self.reading.set()
        """With one that is not set, what comes by TCP stays in the kernel's queue."""
        self.closed_by_server = False
        self._kind: Final = socket.SOCK_STREAM if chosen.protocol == "tcp" else socket.SOCK_DGRAM
        self._sending = trio.Lock()
        self._moved = trio.Event()
        self._news = trio.Event()

    @property
    def dtls_parameters(self) -> DtlsParameters:
        """What the server's ``connect`` is to be given."""
        fingerprint = DtlsFingerprint(algorithm="sha-256", value=self.client.identity.fingerprint)
        return DtlsParameters(role="client", fingerprints=(fingerprint,))

    async def open(self) -> None:
        """Have a socket, which for TCP is a connection."""
        family = socket.AF_INET6 if ":" in self.server[0] else socket.AF_INET
        made = trio.socket.socket(family, self._kind)
        if self._kind == socket.SOCK_STREAM:
            await made.connect(self.server)
        else:
            await made.bind((self.server[0], 0))
        self.socket = made
        self._moved.set()
        self._moved = trio.Event()

    async def move(self) -> None:
        """Go on from another port, as behind a NAT that has forgotten; the server is told by a binding request."""
        old = self.socket
        await self.open()
        old.close()
        self.client._check(trio.current_time())
        await self.flush()

    async def restart(self, parameters: IceParameters) -> None:
        """Go on with other ICE credentials of the server, by its candidate that is in use."""
        self.client.remote = replace(
            self.client.remote, username_fragment=parameters.username_fragment, password=parameters.password
        )
        self.client._check(trio.current_time())
        await self.flush()

    async def send(self, data: bytes) -> None:
        """Any bytes, as one datagram."""
        if self._kind == socket.SOCK_DGRAM:
            await self.socket.sendto(data, self.server)
            return
        async with self._sending:
            rest = len(data).to_bytes(2) + data
            while rest:
                try:
                    rest = rest[await self.socket.send(rest) :]
                except OSError:
                    return  # closed by the server: the reader notices

    async def send_rtp(self, *packets: bytes) -> None:
        for packet in packets:
            await self.send(self.client.protect_rtp(packet))

    async def send_rtcp(self, *packets: RtcpPacket) -> None:
        await self.send(self.client.protect_rtcp([packet.to_bytes() for packet in packets]))

    async def flush(self) -> None:
        """Send what the protocols want sent."""
        for datagram in self.client.datagrams_to_send():
            await self.send(datagram)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Return when ``ready`` says so, which is asked after each event. Raises trio.TooSlowError after 10 s."""
        with trio.fail_after(_TIMEOUT):
            while not ready():
                await self._news.wait()

    async def run(self) -> None:
        """Serve the protocols until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            while True:
                self.client.handle_timer(trio.current_time())
                await self.flush()
                timer = self.client.get_timer()
                with trio.move_on_at(float("inf") if timer is None else timer):
                    await self._news.wait()

    async def _receive(self) -> None:
        while True:
            moved = self._moved
            try:
                if self._kind == socket.SOCK_DGRAM:
                    while True:
                        self._take((await self.socket.recvfrom(2048))[0])
                await self._receive_frames()
            except (trio.ClosedResourceError, OSError):
                pass
            if self._kind == socket.SOCK_DGRAM:
                await trio.lowlevel.checkpoint()  # it has moved
            else:
                await moved.wait()

    async def _receive_frames(self) -> None:
        stream = bytearray()
        sock = self.socket
        while True:
            await self.reading.wait()
            data = await sock.recv(4096)
            if not data:
                if sock is self.socket:
                    self.closed_by_server = True
                    self._wake()
                return
            stream += data
            while len(stream) >= 2 and len(stream) >= 2 + int.from_bytes(stream[:2]):
                end = 2 + int.from_bytes(stream[:2])
                self._take(bytes(stream[2:end]))
                del stream[:end]

    def _take(self, data: bytes) -> None:
        found = self.client.receive_datagram(data, trio.current_time())
        if found is not None:
            kind, plain = found
            if kind == "rtp":
                self.rtp.append(plain)
            else:
                self.rtcp += parse_compound(plain)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def webrtc_peer(
    transport: WebRtcTransport, *, candidate: int = 0, start: bool = True, profiles: Sequence[str] = CHROME
) -> AsyncIterator[WebRtcPeer]:
    """A client of ``transport``, by its candidate of that index; ``start``: begins with the connectivity checks."""
    peer = WebRtcPeer(transport, candidate=candidate, profiles=profiles)
    await peer.open()
    if start:
        peer.client.start(trio.current_time())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            yield peer
            nursery.cancel_scope.cancel()
    finally:
        peer.socket.close()
