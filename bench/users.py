"""The users of the load: one who sends, and those who watch, each with a socket and a signalling session.

Owned by :class:`bench.load.Call`, which calls them when their sockets are readable and their times have come.
To keep up with 100,000 packets a second a watcher looks into few of them: a batch's SSRCs and sequence numbers
are read with strided slices (SRTP leaves headers in the clear), and only one packet in fifty, besides the first,
is decrypted, which checks the tag, the payload and the one-way latency. Latency ends when the kernel queues the
packet on the watcher's socket (SO_TIMESTAMPNS), so the generator's own backlog is not in it.
"""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Final

from bench import rtcp
from bench.dtls import ClientIdentity
from bench.mmsg import SLOT, ReceiveArena, open_connected_socket
from bench.peer import ClientTransport, RemoteParameters
from bench.rtp import TRANSPORT_CC_URI, PacketSource, RtpError, StreamFormat, TransportSequence, parse_rtp
from bench.signalling_client import SignallingClient

PACKETS_PER_FRAME: Final = 33
SAMPLE_EVERY: Final = 50  # Coprime to 33: every place in a burst is sampled as often as any other.

_MAX_MISSING: Final = 500
_WORDS: Final = SLOT // 4
_HALVES: Final = SLOT // 2


@dataclass(slots=True)
class Counts:
    """Everything a run counts; a measured window starts with fresh ones."""

    sent: int = 0
    delivered: int = 0
    duplicates: int = 0
    gaps: int = 0
    recovered: int = 0
    samples: int = 0
    bad_samples: int = 0
    key_frame_requests: int = 0
    nacked_upstream: int = 0
    send_errors: int = 0
    latencies: list[int] = field(default_factory=list)
    latest_burst: float = 0.0


class ProducerUser:
    """The one who sends: 1200-byte VP8 packets, key frames where asked for, RTX where NACKed."""

    def __init__(self, url: str, identity: ClientIdentity, counts: Counts) -> None:
        self.counts = counts
        self.signalling = SignallingClient(url)
        self.room_id: str = self.signalling.request("createRoom", {})["roomId"]
        reply = self.signalling.request("createProducerTransport", {"roomId": self.room_id})
        self.transport = ClientTransport(RemoteParameters.from_reply(reply), identity)
        self.sock = open_connected_socket(self.transport.remote.address)
        self.source = PacketSource(StreamFormat.vp8(), TransportSequence())
        self.key_frame_wanted = True
        self.producer_id = ""
        self._frame_left = 0
        self._key_frame = False

    def connect(self) -> None:
        parameters = {"roomId": self.room_id, "dtlsParameters": self.transport.dtls_parameters}
        self.signalling.request("connectProducerTransport", parameters)
        self.transport.start(time.monotonic())

    def produce(self) -> None:
        reply = self.signalling.request(
            "produce",
            {"roomId": self.room_id, "kind": "video", "rtpParameters": self.source.stream.rtp_parameters()},
        )
        self.producer_id = reply["id"]

    def send_burst(self, count: int, now: float) -> None:
        """Send ``count`` packets back to back (about 15 µs each); a frame ends with every 33rd."""
        for _ in range(count):
            first = self._frame_left == 0
            if first:
                self._frame_left = PACKETS_PER_FRAME
                self._key_frame, self.key_frame_wanted = self.key_frame_wanted, False
                self.source.start_frame(now)
            self._frame_left -= 1
            plain = self.source.packet(
                now, time.time_ns(), first=first, last=self._frame_left == 0, key_frame=self._key_frame
            )
            self._send(self.transport.protect_rtp(plain))
        self.counts.sent += count

    def send_report(self) -> None:
        source = self.source
        report = rtcp.sender_report(source.stream.ssrc, time.time(), source.timestamp, source.packets, source.octets)
        self._send(self.transport.protect_rtcp([report]))

    def receive(self, data: bytes, now: float) -> None:
        received = self.transport.receive_datagram(data, now)
        if received is None or received[0] != "rtcp":
            return
        for item in rtcp.parse_rtcp(received[1]):
            if item.is_key_frame_request:
                self.key_frame_wanted = True
                self.counts.key_frame_requests += 1
            for lost in item.lost:
                self.counts.nacked_upstream += 1
                packet = self.source.retransmission(lost, now)
                if packet is not None:
                    self._send(self.transport.protect_rtp(packet))

    def _send(self, datagram: bytes) -> None:
        try:
            self.sock.send(datagram)
        except OSError:
            self.counts.send_errors += 1


class ConsumerUser:
    """One of those who watch: counts, samples, and answers as a browser's receiver would."""

    def __init__(self, url: str, room_id: str, identity: ClientIdentity, counts: Counts) -> None:
        self.counts = counts
        self.room_id = room_id
        self.signalling = SignallingClient(url)
        self.signalling.request("joinRoom", {"roomId": room_id})
        reply = self.signalling.request("createConsumerTransport", {"roomId": room_id})
        self.transport = ClientTransport(RemoteParameters.from_reply(reply), identity)
        self.sock = open_connected_socket(self.transport.remote.address)
        self.ssrc = 0
        self.wire_ssrc = -1
        self.rtx_wire_ssrc = -1
        self.delivered = 0
        self._local_ssrc = secrets.randbits(32) | 1
        self._transport_cc_id = 0
        self._expected: int | None = None
        self._cycles = 0
        self._missing: dict[int, int] = {}
        self._arrivals: list[tuple[int, float]] = []
        self._last_transport_sequence = -1
        self._feedback_count = 0
        self._last_report: tuple[int, float] | None = None

    def connect(self) -> None:
        parameters = {"roomId": self.room_id, "dtlsParameters": self.transport.dtls_parameters}
        self.signalling.request("connectConsumerTransport", parameters)
        self.transport.start(time.monotonic())

    def consume(self, producer_id: str, rtp_capabilities: dict[str, Any]) -> None:
        reply = self.signalling.request(
            "consume",
            {"roomId": self.room_id, "producerId": producer_id, "rtpCapabilities": rtp_capabilities},
        )
        parameters = reply["rtpParameters"]
        encoding = parameters["encodings"][0]
        self.ssrc = encoding["ssrc"]
        self.wire_ssrc = socket.htonl(self.ssrc)
        if "rtx" in encoding:
            self.rtx_wire_ssrc = socket.htonl(encoding["rtx"]["ssrc"])
        for extension in parameters.get("headerExtensions", []):
            if extension["uri"] == TRANSPORT_CC_URI:
                self._transport_cc_id = extension["id"]

    def drain(self, arena: ReceiveArena, now: float) -> None:
        """Take everything that waits on the socket."""
        while True:
            count = arena.receive(self.sock)
            if count == 0:
                return
            ssrcs = arena.words[2 : count * _WORDS : _WORDS].tolist()
            if ssrcs.count(self.wire_ssrc) == count:
                self._take_run(arena, 0, count, now)
            else:
                for i, ssrc in enumerate(ssrcs):
                    if ssrc == self.wire_ssrc:
                        self._take_run(arena, i, i + 1, now)
                    else:
                        self._take_other(arena.datagram(i), ssrc, now)
            if count < arena.batch:
                return

    def feedback(self, now: float) -> None:
        """Receiver report, transport-wide feedback and outstanding NACKs in one compound."""
        if self._expected is None:
            return
        lsr, dlsr = 0, 0
        if self._last_report is not None:
            lsr, dlsr = self._last_report[0], int((now - self._last_report[1]) * 65536)
        packets = [
            rtcp.receiver_report(
                self._local_ssrc,
                self.ssrc,
                highest_sequence=(self._cycles << 16) + self._expected - 1,
                lost=len(self._missing),
                lsr=lsr,
                dlsr=dlsr,
            )
        ]
        reference_time, deltas = self._transport_arrivals()
        if deltas:
            packets.append(
                rtcp.transport_feedback(
                    self._local_ssrc,
                    self.ssrc,
                    base_sequence=(self._last_transport_sequence - len(deltas) + 1) & 0xFFFF,
                    feedback_count=self._feedback_count,
                    reference_time=reference_time,
                    deltas=deltas,
                )
            )
            self._feedback_count += 1
        packets += self._nacks()
        self._send(self.transport.protect_rtcp(packets))

    def _take_run(self, arena: ReceiveArena, start: int, stop: int, now: float) -> None:
        count = stop - start
        self.counts.delivered += count
        self.delivered += count
        numbers = arena.halves[start * _HALVES + 1 : stop * _HALVES : _HALVES].tolist()
        first, last = socket.ntohs(numbers[0]), socket.ntohs(numbers[-1])
        fresh = self._expected is None
        if fresh:
            self._expected = first
        if first == self._expected and (last - first) & 0xFFFF == count - 1:
            self._advance((last + 1) & 0xFFFF)
        else:
            known = len(self._missing)
            for number in numbers:
                self._track(socket.ntohs(number))
            if len(self._missing) > known:
                self._send(self.transport.protect_rtcp(self._nacks()))
        step = 0 if fresh else -first % SAMPLE_EVERY
        for i in range(start + step, stop, SAMPLE_EVERY):
            self._sample(arena, i)
        if self._transport_cc_id:
            self._arrivals.append((count, now))
            self._read_transport_sequence(arena, stop - 1)

    def _advance(self, expected: int) -> None:
        if self._expected is not None and expected < self._expected:
            self._cycles += 1
        self._expected = expected

    def _track(self, number: int) -> None:
        assert self._expected is not None
        ahead = (number - self._expected) & 0xFFFF
        if ahead < 0x8000:
            self.counts.gaps += ahead
            for i in range(min(ahead, _MAX_MISSING - len(self._missing))):
                self._missing[(self._expected + i) & 0xFFFF] = 0
            self._advance((number + 1) & 0xFFFF)
        elif self._missing.pop(number, None) is not None:
            self.counts.gaps -= 1
        else:
            self.counts.duplicates += 1

    def _sample(self, arena: ReceiveArena, index: int) -> None:
        self.counts.samples += 1
        plain = self.transport.unprotect("rtp", arena.datagram(index))
        try:
            mark = parse_rtp(plain).mark if plain is not None else None
        except RtpError:
            mark = None
        received = arena.received_at(index)
        if mark is None or not received:
            self.counts.bad_samples += 1
        else:
            self.counts.latencies.append(received - mark.sent_ns)

    def _take_other(self, datagram: bytes, wire_ssrc: int, now: float) -> None:
        received = self.transport.receive_datagram(datagram, now)
        if received is None:
            return
        kind, plain = received
        if kind == "rtp" and wire_ssrc == self.rtx_wire_ssrc:
            payload = parse_rtp(plain).payload
            if len(payload) >= 2 and self._missing.pop(int.from_bytes(payload[:2]), None) is not None:
                self.counts.recovered += 1
        elif kind == "rtcp":
            for item in rtcp.parse_rtcp(plain):
                if item.packet_type == rtcp.SENDER_REPORT:
                    self._last_report = (int.from_bytes(item.body[6:10]), now)

    def _read_transport_sequence(self, arena: ReceiveArena, index: int) -> None:
        base = index * SLOT
        data = arena.data
        if data[base] & 0x1F != 0x10:
            return
        offset = base + 16
        end = offset + 4 * (data[base + 14] << 8 | data[base + 15])
        while offset < min(end, base + 128):
            element = data[offset]
            if element >> 4 == self._transport_cc_id:
                self._last_transport_sequence = data[offset + 1] << 8 | data[offset + 2]
                return
            offset += 1 if element == 0 else 2 + (element & 0x0F)

    def _transport_arrivals(self) -> tuple[int, bytes]:
        """Reference time and deltas of what came since the last feedback: a drain's packets came together."""
        arrivals, self._arrivals = self._arrivals[-100:], []
        if self._last_transport_sequence < 0 or not arrivals:
            return 0, b""
        reference_time = int(arrivals[0][1] / 0.064)
        previous = reference_time * 256
        deltas = bytearray()
        for count, at in arrivals:
            ticks = int(at * 4000)
            deltas.append(min(255, max(0, ticks - previous)))
            deltas += bytes(count - 1)
            previous = ticks
        return reference_time, bytes(deltas)

    def _nacks(self) -> list[bytes]:
        wanted = []
        for number, tries in list(self._missing.items()):
            if tries >= 10:
                del self._missing[number]
            else:
                self._missing[number] = tries + 1
                wanted.append(number)
        return [rtcp.nack(self._local_ssrc, self.ssrc, wanted[:200])] if wanted else []

    def _send(self, datagram: bytes) -> None:
        try:
            self.sock.send(datagram)
        except OSError:
            self.counts.send_errors += 1
