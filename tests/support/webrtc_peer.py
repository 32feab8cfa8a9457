"""A client for one WebRtcTransport of this process, over a real UDP socket, without signalling.

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
        reply = {
            "id": transport.id,
            "iceParameters": msgspec.to_builtins(transport.ice_parameters),
            "iceCandidates": msgspec.to_builtins(transport.ice_candidates[candidate : candidate + 1]),
            "dtlsParameters": msgspec.to_builtins(transport.dtls_parameters),
        }
        self.client = ClientTransport(RemoteParameters.from_reply(reply), ClientIdentity(profiles))
        self.rtp: list[bytes] = []
        self.rtcp: list[RtcpPacket] = []
        self.server = self.client.remote.address
        family = socket.AF_INET6 if ":" in self.server[0] else socket.AF_INET
        self.socket = trio.socket.socket(family, socket.SOCK_DGRAM)
        self._news = trio.Event()

    @property
    def dtls_parameters(self) -> DtlsParameters:
        """What the server's ``connect`` is to be given."""
        fingerprint = DtlsFingerprint(algorithm="sha-256", value=self.client.identity.fingerprint)
        return DtlsParameters(role="client", fingerprints=(fingerprint,))

    async def move(self) -> None:
        """Go on from another port, as behind a NAT that has forgotten; the server is told by a binding request."""
        old, self.socket = self.socket, trio.socket.socket(self.socket.family, socket.SOCK_DGRAM)
        await self.socket.bind((self.server[0], 0))
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
        await self.socket.sendto(data, self.server)

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
            try:
                data, _ = await self.socket.recvfrom(2048)
            except trio.ClosedResourceError:
                await trio.lowlevel.checkpoint()
                continue  # it has moved
            found = self.client.receive_datagram(data, trio.current_time())
            if found is not None:
                kind, plain = found
                if kind == "rtp":
                    self.rtp.append(plain)
                else:
                    self.rtcp += parse_compound(plain)
            self._news.set()
            self._news = trio.Event()


@asynccontextmanager
async def webrtc_peer(
    transport: WebRtcTransport, *, candidate: int = 0, start: bool = True, profiles: Sequence[str] = CHROME
) -> AsyncIterator[WebRtcPeer]:
    """A client of ``transport``, by its candidate of that index; ``start``: begins with the connectivity checks."""
    peer = WebRtcPeer(transport, candidate=candidate, profiles=profiles)
    await peer.socket.bind((peer.server[0], 0))
    if start:
        peer.client.start(trio.current_time())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            yield peer
            nursery.cancel_scope.cancel()
    finally:
        peer.socket.close()
