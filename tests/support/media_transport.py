"""Transports and streams of the media client (:mod:`tests.support.media_client`), which makes them all.

A :class:`MediaTransport` puts :class:`bench.peer.ClientTransport` on a socket and a trio task; its streams send
numbered packets and record received ones.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import trio

from bench import rtcp
from bench.dtls import ClientIdentity
from bench.mmsg import open_connected_socket
from bench.peer import ClientTransport, PacketKind, RemoteParameters, TransportError
from bench.rtp import PacketSource, RtpError, RtpPacket, TransportSequence, parse_rtp

_CONNECT_TIMEOUT: Final = 10.0
_MAX_RECORDS: Final = 100_000
_MAX_EARLY: Final = 1000
_PACKETS_PER_FRAME: Final = 4


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
