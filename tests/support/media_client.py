"""A user in Python for protocol tests: real signalling, real ICE and DTLS-SRTP, packets numbered without a gap.

::

    async with media_user(url) as sender, media_user(url, room=sender.room_id) as viewer:
        video = await sender.produce_video()
        sender.start_sending(pps=100)
        stream = await viewer.consume(video.producer_id)
        await stream.wait_received(200)
        assert stream.missing() == []

Media goes through :class:`bench.peer.ClientTransport`, which shares no code with the server. A stream records
every packet it receives with the number its sender gave it, so a test can say "not one packet was missed".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio

from bench.dtls import CHROME, ClientIdentity
from bench.peer import Address, RemoteParameters
from bench.rtp import PacketSource, StreamFormat
from tests.support.media_transport import IncomingStream, MediaTransport, OutgoingStream, ReceivedPacket
from tests.support.socketio_client import SocketIOClient, connect_socketio

__all__ = [
    "IncomingStream",
    "MediaTransport",
    "MediaUser",
    "MediaUserError",
    "OutgoingStream",
    "ReceivedPacket",
    "media_user",
]


class MediaUserError(Exception):
    """The server refused a request; ``code`` is its code."""

    def __init__(self, event: str, reply: dict[str, Any]) -> None:
        super().__init__(f"{event}: {reply.get('error')} ({reply.get('code')})")
        self.code = reply.get("code")


class MediaUser:
    """Made by :func:`media_user`."""

    def __init__(
        self,
        socket_client: SocketIOClient,
        room_id: str,
        nursery: trio.Nursery,
        *,
        identity: ClientIdentity,
        media_address: Address | None,
        nack: bool,
    ) -> None:
        self.socket = socket_client
        self.room_id = room_id
        self.outgoing: list[OutgoingStream] = []
        self.incoming: list[IncomingStream] = []
        self.send_transport: MediaTransport | None = None
        self.receive_transport: MediaTransport | None = None
        self._nursery = nursery
        self._sending: trio.CancelScope | None = None
        self._identity = identity
        self._media_address = media_address
        self._nack = nack
        self._capabilities: dict[str, Any] | None = None

    @property
    def user_id(self) -> str:
        return self.socket.sid

    async def request(self, event: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request about this room. Raises MediaUserError on an error ack."""
        reply = await self.socket.request(event, {"roomId": self.room_id, **(payload or {})})
        if "error" in reply:
            raise MediaUserError(event, reply)
        return reply

    async def produce_video(self, *, size: int = 400, app_data: dict[str, Any] | None = None) -> OutgoingStream:
        """A VP8 producer as Chrome would make it; ``size`` is that of its RTP packets."""
        return await self._produce(StreamFormat.vp8(size=size), app_data)

    async def produce_audio(self, *, size: int = 120, app_data: dict[str, Any] | None = None) -> OutgoingStream:
        """An Opus producer."""
        return await self._produce(StreamFormat.opus(size=size), app_data)

    def start_sending(self, pps: float = 100) -> None:
        """Send ``pps`` evenly spaced packets a second on each stream there is, until :meth:`stop_sending`."""
        self.stop_sending()
        scope = self._sending = trio.CancelScope()
        for stream in self.outgoing:
            self._nursery.start_soon(self._send, stream, 1 / pps, scope)

    def stop_sending(self) -> None:
        """Not one packet leaves after this returns."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    async def consume(
        self, producer_id: str, *, paused: bool = False, rtp_capabilities: dict[str, Any] | None = None
    ) -> IncomingStream:
        """Consume with the router's own capabilities, or others."""
        transport = await self._open_receive_transport()
        capabilities = rtp_capabilities or await self.router_capabilities()
        reply = await self.request(
            "consume", {"producerId": producer_id, "rtpCapabilities": capabilities, "paused": paused}
        )
        stream = IncomingStream(reply, transport, nack=self._nack)
        self.incoming.append(stream)
        transport.add_incoming(stream)
        return stream

    async def router_capabilities(self) -> dict[str, Any]:
        if self._capabilities is None:
            self._capabilities = (await self.request("getRouterRtpCapabilities"))["rtpCapabilities"]
        return self._capabilities

    async def _produce(self, stream: StreamFormat, app_data: dict[str, Any] | None) -> OutgoingStream:
        if self.send_transport is None:
            self.send_transport = await self._open_transport("Producer")
        transport = self.send_transport
        payload: dict[str, Any] = {"kind": stream.kind, "rtpParameters": stream.rtp_parameters()}
        if app_data is not None:
            payload["appData"] = app_data
        reply = await self.request("produce", payload)
        outgoing = OutgoingStream(reply["id"], PacketSource(stream, transport.sequence), transport)
        transport.ssrc = stream.ssrc
        transport.outgoing.append(outgoing)
        self.outgoing.append(outgoing)
        return outgoing

    async def _open_receive_transport(self) -> MediaTransport:
        if self.receive_transport is None:
            self.receive_transport = await self._open_transport("Consumer")
        return self.receive_transport

    async def _open_transport(self, side: str) -> MediaTransport:
        remote = RemoteParameters.from_reply(await self.request(f"create{side}Transport"))
        if self._media_address is not None:
            remote = replace(remote, candidates=(self._media_address,))
        transport = MediaTransport(remote, self._identity)
        self._nursery.start_soon(transport.run)
        await self.request(f"connect{side}Transport", {"dtlsParameters": transport.client.dtls_parameters})
        await transport.connect()
        return transport

    async def _send(self, stream: OutgoingStream, interval: float, scope: trio.CancelScope) -> None:
        due = trio.current_time()
        report_due = due
        while not scope.cancel_called:
            if due >= report_due:
                stream.send_report()
                report_due = due + 1
            stream.send_packet()
            due += interval
            await trio.sleep_until(due)


@asynccontextmanager
async def media_user(
    url: str,
    room: str | None = None,
    *,
    media_address: Address | None = None,
    nack: bool = False,
    profiles: Sequence[str] = CHROME,
    **connect_options: Any,
) -> AsyncIterator[MediaUser]:
    """A user in ``room``, or in a new one, who has left when the block ends.

    :param media_address: where to send media instead of the server's candidate: a relay's address.
    :param nack: whether streams ask for what is missing.
    :param profiles: SRTP profiles to offer (:mod:`bench.dtls`).
    :param connect_options: for ``connect_socketio``.

    Raises MediaUserError where the room cannot be joined.
    """
    async with connect_socketio(url, **connect_options) as client, trio.open_nursery() as nursery:
        event, payload = ("createRoom", {}) if room is None else ("joinRoom", {"roomId": room})
        reply = await client.request(event, payload)
        if "error" in reply:
            raise MediaUserError(event, reply)
        yield MediaUser(
            client,
            reply["roomId"],
            nursery,
            identity=ClientIdentity(profiles),
            media_address=media_address,
            nack=nack,
        )
        nursery.cancel_scope.cancel()
