"""One socket of the load: its transport, what is sent and expected on it, and the RTCP of its receiver.

Owned by :class:`bench.scene.Scene`. Python until the transport is connected; then the compiled generator takes the
socket over, and only what it does not know (STUN, DTLS, RTCP, retransmissions) comes back here.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

from bench import rtcp
from bench.dtls import ClientIdentity
from bench.native import Generator
from bench.peer import ClientTransport, RemoteParameters
from bench.peers import Expected, LocalParameters
from bench.recipe import Recipe
from bench.rtp import StreamFormat, parse_rtp
from bench.srtp_keys import gcm_session_keys

_MOST_RTCP: Final = 1300  # bytes; what does not fit is asked for next time
_GIVE_UP: Final = 10  # feedbacks until what is missing is not asked for again


class Endpoint:
    """A transport with its socket, which becomes its own.

    :meth:`hand_over` when connected; ``close`` at the end, after the generator's.
    """

    def __init__(
        self, remote: RemoteParameters, identity: ClientIdentity, credentials: tuple[str, str], sock: socket.socket
    ) -> None:
        self.transport = ClientTransport(remote, identity, credentials)
        self.sock = sock
        sock.connect(remote.address)
        self.expected: tuple[Expected, ...] = ()
        self.transport_cc_id = 0
        self.formats: tuple[StreamFormat, ...] = ()
        self.sources: list[Any] = []
        self.streams: list[Any] = []
        self.recovered = 0
        self.key_frame_requests = 0
        self.nacked = 0
        self._generator: Generator | None = None
        self._port = -1
        self._ssrc = secrets.randbits(32) | 1
        self._feedback_count = 0
        self._asked = 0
        self._last_reports: dict[int, tuple[int, float]] = {}
        self._rtx: dict[int, Any] = {}

    def send(self, datagram: bytes) -> None:
        try:
            self.sock.send(datagram)
        except OSError:
            pass  # lost, as any datagram may be

    def flush(self) -> None:
        """Send what the transport has to say."""
        for datagram in self.transport.datagrams_to_send():
            self.send(datagram)

    def read(self, now: float) -> None:
        """Take all that waits on the socket, before the generator has it."""
        while True:
            try:
                data = self.sock.recv(2048)
            except OSError:
                return
            self.receive(data, now)

    def receive(self, data: bytes, now: float) -> None:
        """One datagram that is not an expected stream's."""
        received = self.transport.receive_datagram(data, now)
        if received is None:
            self.flush()
            return
        kind, plain = received
        if kind == "rtcp":
            self._receive_rtcp(plain, now)
            return
        stream = self._rtx.get(int.from_bytes(plain[8:12]))
        if stream is not None:
            payload = parse_rtp(plain).payload  # RFC 4588: the original number first; none in a probe
            if len(payload) >= 2 and _forget(stream, int.from_bytes(payload[:2])):
                self.recovered += 1

    def hand_over(self, generator: Generator, recipes: Sequence[tuple[Recipe, float, float, int]]) -> None:
        """Let the generator have the socket.

        :param recipes: (recipe, packets a second, frames a second, first due) of each stream to send.
        """
        dtls = self.transport.dtls
        inbound, outbound = gcm_session_keys(dtls.inbound_master), gcm_session_keys(dtls.outbound_master)
        self._generator = generator
        self._port = generator.add_port(self.sock, inbound, outbound, self.transport_cc_id)
        for each in self.expected:
            stream = generator.add_stream(self._port, each.ssrc)
            self.streams.append(stream)
            if each.rtx_ssrc is not None:
                self._rtx[each.rtx_ssrc] = stream
        for recipe, rate, frames, due in recipes:
            self.sources.append(generator.add_source(self._port, recipe, rate=rate, frames=frames, due=due))

    def feedback(self, now: float) -> None:
        """What a browser's receiver says ten times a second: reports, transport-wide feedback, NACKs."""
        started = [stream for stream in self.streams if stream.started]
        if not started or self._generator is None:
            return
        packets = [rtcp.receiver_reports(self._ssrc, [self._block(stream, now) for stream in started[:31]])]
        packets += self._transport_feedback(started[0].ssrc)
        self._asked += 1
        for stream in started:
            if stream.missing_count:
                if self._asked % _GIVE_UP == 0:
                    stream.missing_count = 0
                lost = [stream.missing[i] for i in range(stream.missing_count)]
                request = rtcp.nack(self._ssrc, stream.ssrc, lost) if lost else b""
                if request and len(request) + sum(map(len, packets)) <= _MOST_RTCP:
                    packets.append(request)
        self.send(self.transport.protect_rtcp(packets))

    def report(self) -> None:
        """A sender report for each stream sent."""
        packets = [
            rtcp.sender_report(each.ssrc, time.time(), source.timestamp, source.sent, source.octets)
            for each, source in zip(self.formats, self.sources, strict=True)
            if source.sent
        ]
        if packets:
            self.send(self.transport.protect_rtcp(packets))

    def close(self) -> None:
        self.transport.close()
        self.flush()
        self.sock.close()

    def _receive_rtcp(self, plain: bytes, now: float) -> None:
        for item in rtcp.parse_rtcp(plain):
            if item.packet_type == rtcp.SENDER_REPORT:
                self._last_reports[int.from_bytes(item.body[:4])] = (int.from_bytes(item.body[6:10]), now)
            elif item.is_key_frame_request:
                self.key_frame_requests += 1
                for each, source in zip(self.formats, self.sources, strict=False):
                    if each.ssrc == item.media_ssrc:
                        source.key_frame_wanted = 1
            self.nacked += len(item.lost)

    def _block(self, stream: Any, now: float) -> rtcp.Block:
        lsr, at = self._last_reports.get(stream.ssrc, (0, now))
        highest = (stream.cycles << 16) + stream.expected - 1
        return rtcp.Block(stream.ssrc, highest, min(stream.gaps, 0x7FFFFF), lsr, int((now - at) * 65536) if lsr else 0)

    def _transport_feedback(self, media_ssrc: int) -> list[bytes]:
        assert self._generator is not None
        port = self._generator.port(self._port)
        arrivals = [(port.arrivals[i].count, port.arrivals[i].at) for i in range(port.arrival_count)]
        port.arrival_count = 0
        if port.transport_cc_last < 0 or not arrivals:
            return []
        reference_time, deltas = packed_arrivals(arrivals)
        self._feedback_count += 1
        return [
            rtcp.transport_feedback(
                self._ssrc,
                media_ssrc,
                base_sequence=(port.transport_cc_last - len(deltas) + 1) & 0xFFFF,
                feedback_count=self._feedback_count,
                reference_time=reference_time,
                deltas=deltas,
            )
        ]


def packed_arrivals(arrivals: Sequence[tuple[int, int]]) -> tuple[int, bytes]:
    """Reference time (64 ms) and deltas (250 µs) of (packets, ns) that came; those of one drain came together."""
    reference_time = arrivals[0][1] // 64_000_000
    previous = reference_time * 256
    deltas = bytearray()
    for count, at in arrivals:
        ticks = at // 250_000
        deltas.append(min(255, max(0, ticks - previous)))
        deltas += bytes(count - 1)
        previous = ticks
    return reference_time, bytes(deltas[-900:])


def _forget(stream: Any, number: int) -> bool:
    """Strike a number out of what is missing; whether it was there."""
    for i in range(stream.missing_count):
        if stream.missing[i] == number:
            stream.missing[i] = stream.missing[stream.missing_count - 1]
            stream.missing_count -= 1
            return True
    return False


def connected(endpoints: Sequence[Endpoint]) -> bool:
    return all(endpoint.transport.state == "connected" for endpoint in endpoints)


def local_parameters(identity: ClientIdentity, credentials: tuple[str, str], sock: socket.socket) -> LocalParameters:
    """What signalling is told of a transport that is about to be."""
    return LocalParameters(*credentials, identity.fingerprint, local_port(sock))


def local_port(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port
