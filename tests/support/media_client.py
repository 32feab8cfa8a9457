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

import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import trio

from bench import rtcp
from bench.dtls import CHROME, ClientIdentity
from bench.mmsg import open_connected_socket
from bench.peer import Address, ClientTransport, PacketKind, RemoteParameters, TransportError
from bench.rtp import PacketSource, RtpError, RtpPacket, StreamFormat, TransportSequence, parse_rtp
from tests.support.socketio_client import SocketIOClient, connect_socketio

_CONNECT_TIMEOUT: Final = 10.0
_MAX_RECORDS: Final = 100_000
_MAX_EARLY: Final = 1000
_PACKETS_PER_FRAME: Final = 4


class MediaUserError(Exception):
    """The server refused a request; ``code`` is its code."""

    def __init__(self, event: str, reply: dict[str, Any]) -> None:
        super().__init__(f"{event}: {reply.get('error')} ({reply.get('code')})")
        self.code = reply.get("code")


@dataclass(frozen=True, slots=True)
class ReceivedPacket:
    """One packet as it came: the wire's fields, and ``number`` and ``sent_ns`` that its sender wrote into it.

    ``number`` is None where the payload bears no mark (probation padding). ``retransmitted`` packets came by
    RTX; their ``sequence_number`` is the original one. ``received_at`` is trio's clock.
    """

    number: int | None
    sent_ns: int | None
    sequence_number: int
    timestamp: int
    ssrc: int
    payload_type: int
    marker: bool
    extensions: dict[int, bytes]
    payload: bytes
    received_at: float
    retransmitted: bool


class OutgoingStream:
    """One producer's media. ``sent`` packets have left, numbered 0 to ``sent`` − 1."""

    def __init__(self, producer_id: str, source: PacketSource, transport: MediaTransport) -> None:
        self.producer_id = producer_id
        self.source = source
        self.key_frame_requests = 0
        self.nacked: list[int] = []
        self._transport = transport
        self._frame_left = 0
        self._key_frame_wanted = True
        self._key_frame = False

    @property
    def sent(self) -> int:
        return self.source.packets

    def send_packet(self) -> None:
        """Send the next packet now: of a frame of four for video (a key frame first, and where asked for)."""
        now = trio.current_time()
        first = self._frame_left == 0
        if first:
            self._frame_left = _PACKETS_PER_FRAME if self.source.stream.kind == "video" else 1
            self._key_frame, self._key_frame_wanted = self._key_frame_wanted, False
            self.source.start_frame(now)
        self._frame_left -= 1
        packet = self.source.packet(
            now, time.time_ns(), first=first, last=self._frame_left == 0, key_frame=self._key_frame
        )
        self._transport.send_rtp(packet)

    def send_report(self) -> None:
        """Send an RTCP sender report."""
        source = self.source
        self._transport.send_rtcp(
            rtcp.sender_report(source.stream.ssrc, time.time(), source.timestamp, source.packets, source.octets)
        )

    def take_rtcp(self, item: rtcp.RtcpItem) -> None:
        """Key frame requests are met with the next frame, NACKs by RTX at once."""
        media_ssrc = item.media_ssrc
        if item.is_key_frame_request and media_ssrc in (0, self.source.stream.ssrc):
            self._key_frame_wanted = True
            self.key_frame_requests += 1
        if media_ssrc == self.source.stream.ssrc:
            for lost in item.lost:
                self.nacked.append(lost)
                packet = self.source.retransmission(lost, trio.current_time())
                if packet is not None:
                    self._transport.send_rtp(packet)


class IncomingStream:
    """One consumer's media: ``received`` keeps the last 100,000 packets in the order they came."""

    def __init__(self, reply: dict[str, Any], transport: MediaTransport, *, nack: bool) -> None:
        self.consumer_id: str = reply["id"]
        self.producer_id: str = reply["producerId"]
        self.rtp_parameters: dict[str, Any] = reply["rtpParameters"]
        encoding = self.rtp_parameters["encodings"][0]
        self.ssrc: int = encoding["ssrc"]
        self.rtx_ssrc: int | None = encoding.get("rtx", {}).get("ssrc")
        self.received: deque[ReceivedPacket] = deque(maxlen=_MAX_RECORDS)
        self.sender_reports = 0
        self._transport = transport
        self._nack = nack
        self._highest: int | None = None
        self._progress = trio.Event()

    @property
    def numbers(self) -> list[int]:
        """The senders' numbers of all packets kept, in the order they came."""
        return [packet.number for packet in self.received if packet.number is not None]

    def missing(self) -> list[int]:
        """The numbers between the lowest and the highest received that never came."""
        numbers = set(self.numbers)
        return sorted(set(range(min(numbers), max(numbers) + 1)) - numbers) if numbers else []

    async def wait_received(self, count: int, *, timeout: float = 10.0) -> None:  # noqa: ASYNC109
        """Return when ``received`` holds so many packets. Raises trio.TooSlowError."""
        await self.wait_until(lambda: len(self.received) >= count, timeout=timeout)

    async def wait_number(self, number: int, *, timeout: float = 10.0) -> None:  # noqa: ASYNC109
        """Return when a packet of this number, or a later one, has come. Raises trio.TooSlowError."""

        def has_come() -> bool:
            latest = self.received[-1].number if self.received else None
            return latest is not None and latest >= number

        await self.wait_until(has_come, timeout=timeout)

    async def wait_until(self, ready: Callable[[], bool], *, timeout: float = 10.0) -> None:  # noqa: ASYNC109
        """Return when ``ready`` says so, which is asked after each packet. Raises trio.TooSlowError."""
        with trio.fail_after(timeout):
            while not ready():
                await self._progress.wait()

    def request_key_frame(self) -> None:
        """Send a PLI."""
        self._transport.send_rtcp(rtcp.picture_loss_indication(self._transport.ssrc, self.ssrc))

    def nack(self, sequence_numbers: Sequence[int]) -> None:
        """Ask for packets again, by the sequence numbers of this stream's wire."""
        self._transport.send_rtcp(rtcp.nack(self._transport.ssrc, self.ssrc, sequence_numbers))

    def take(self, packet: RtpPacket, now: float) -> None:
        retransmitted = packet.ssrc == self.rtx_ssrc
        if retransmitted:
            if len(packet.payload) < 2:
                return  # Padding for probing.
            # RFC 4588, section 4: the original sequence number stands before the payload.
            original = int.from_bytes(packet.payload[:2])
            packet = replace(packet, sequence_number=original, payload=packet.payload[2:])
        elif self._nack:
            self._ask_for_gap(packet.sequence_number)
        mark = packet.mark
        self.received.append(
            ReceivedPacket(
                number=mark.number if mark else None,
                sent_ns=mark.sent_ns if mark else None,
                sequence_number=packet.sequence_number,
                timestamp=packet.timestamp,
                ssrc=packet.ssrc,
                payload_type=packet.payload_type,
                marker=packet.marker,
                extensions=packet.extensions,
                payload=packet.payload,
                received_at=now,
                retransmitted=retransmitted,
            )
        )
        self._wake()

    def take_rtcp(self, item: rtcp.RtcpItem) -> None:
        if item.packet_type == rtcp.SENDER_REPORT and int.from_bytes(item.body[:4]) == self.ssrc:
            self.sender_reports += 1
            self._wake()

    def _wake(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    def _ask_for_gap(self, number: int) -> None:
        if self._highest is not None:
            ahead = (number - self._highest) & 0xFFFF
            if ahead >= 0x8000:
                return
            if 1 < ahead <= 100:
                self.nack([(self._highest + i) & 0xFFFF for i in range(1, ahead)])
        self._highest = number


class MediaTransport:
    """One WebRTC transport on a socket and a task of its own."""

    def __init__(self, remote: RemoteParameters, identity: ClientIdentity) -> None:
        self.client = ClientTransport(remote, identity)
        self.ssrc = 1  # Of our own RTCP, where no stream of ours gives one.
        self.sequence = TransportSequence()
        self.outgoing: list[OutgoingStream] = []
        self.incoming: list[IncomingStream] = []
        self.unexpected_ssrcs: set[int] = set()
        self.send_errors = 0
        self.connected = trio.Event()
        self._socket: socket.socket = open_connected_socket(remote.address)
        self._early: deque[tuple[RtpPacket, float]] = deque(maxlen=_MAX_EARLY)

    async def connect(self) -> None:
        """Wait for ICE and DTLS. Raises TransportError, or trio.TooSlowError after ten seconds."""
        with trio.fail_after(_CONNECT_TIMEOUT):
            await self.connected.wait()
        if self.client.state != "connected":
            raise TransportError(self.client.failure)

    async def run(self) -> None:
        """Receive and serve timers until cancelled; then say goodbye and close the socket."""
        try:
            self.client.start(trio.current_time())
            while True:
                self._flush()
                timer = self.client.get_timer()
                with trio.move_on_at(float("inf") if timer is None else timer):
                    await trio.lowlevel.wait_readable(self._socket)
                self._drain()
                self.client.handle_timer(trio.current_time())
                if self.client.state in ("connected", "failed", "closed"):
                    self.connected.set()
        finally:
            self.client.close()
            self._flush()
            self._socket.close()

    def add_incoming(self, stream: IncomingStream) -> None:
        """Deliver to ``stream``, what came before the reply to ``consume`` too."""
        self.incoming.append(stream)
        early, self._early = self._early, deque(maxlen=_MAX_EARLY)
        for packet, at in early:
            self._dispatch(packet, at)

    def send_rtp(self, packet: bytes) -> None:
        self._send(self.client.protect_rtp(packet))

    def send_rtcp(self, *packets: bytes) -> None:
        self._send(self.client.protect_rtcp(packets))

    def send_raw(self, datagram: bytes) -> None:
        """Send any bytes, for hostile tests."""
        self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.send(datagram)
        except OSError:
            self.send_errors += 1

    def _flush(self) -> None:
        for datagram in self.client.datagrams_to_send():
            self._send(datagram)

    def _drain(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # ECONNREFUSED: the server has gone.
            now = trio.current_time()
            received = self.client.receive_datagram(datagram, now)
            if received is not None:
                self._take(*received, now)

    def _take(self, kind: PacketKind, plain: bytes, now: float) -> None:
        try:
            if kind == "rtp":
                self._dispatch(parse_rtp(plain), now)
                return
            items = rtcp.parse_rtcp(plain)
        except (RtpError, rtcp.RtcpError):
            self.client.counters["unknown"] += 1
            return
        for item in items:
            for sent in self.outgoing:
                sent.take_rtcp(item)
            for received in self.incoming:
                received.take_rtcp(item)

    def _dispatch(self, packet: RtpPacket, now: float) -> None:
        for stream in self.incoming:
            if packet.ssrc in (stream.ssrc, stream.rtx_ssrc):
                stream.take(packet, now)
                return
        self.unexpected_ssrcs.add(packet.ssrc)
        self._early.append((packet, now))


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
