"""A light WebRTC client: one transport to the server, without sockets and without a clock.

:class:`ClientTransport` does what a browser's transport does towards an ICE-lite server: it sends signed
binding requests as the controlling agent (RFC 8445), shakes hands as the DTLS client (RFC 5764) and then
protects and unprotects SRTP. It neither negotiates nor decodes media. Whoever owns the socket feeds it:
:mod:`bench.users` from epoll, ``tests/support/media_client.py`` from trio.
"""

from __future__ import annotations

import ipaddress
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pylibsrtp
from aioice import stun

from bench.dtls import ClientIdentity, DtlsClient

_CHECK_INTERVAL: Final = 0.05
"""Seconds before an unanswered first binding request is repeated; doubled up to a second."""

CONSENT_INTERVAL: Final = 2.5
"""Seconds between binding requests once connected (Chrome's own; RFC 7675 asks for about 5)."""

Address = tuple[str, int]
PacketKind = Literal["rtp", "rtcp"]


class TransportError(Exception):
    """The transport cannot carry media: the sentence says why."""


@dataclass(frozen=True, slots=True)
class RemoteParameters:
    """What the server's reply to ``create…Transport`` says, as far as this client uses it."""

    transport_id: str
    username_fragment: str
    password: str
    candidates: tuple[Address, ...]
    fingerprints: tuple[tuple[str, str], ...]

    @classmethod
    def from_reply(cls, reply: Mapping[str, Any]) -> RemoteParameters:
        """Raises KeyError where the reply is not what the contract says."""
        ice = reply["iceParameters"]
        return cls(
            transport_id=reply["id"],
            username_fragment=ice["usernameFragment"],
            password=ice["password"],
            candidates=tuple(
                (candidate.get("ip") or candidate["address"], candidate["port"])
                for candidate in reply["iceCandidates"]
                if candidate["protocol"] == "udp"
            ),
            fingerprints=tuple(
                (fingerprint["algorithm"], fingerprint["value"])
                for fingerprint in reply["dtlsParameters"]["fingerprints"]
            ),
        )

    @property
    def address(self) -> Address:
        """The candidate to use: loopback before all else, for both ends are on one machine."""
        if not self.candidates:
            raise TransportError("the server offers no UDP candidate")
        return min(self.candidates, key=lambda candidate: not ipaddress.ip_address(candidate[0]).is_loopback)


class ClientTransport:
    """The client's end of one WebRTC transport.

    :param remote: from the server's reply.
    :param identity: certificate and SRTP offer; may be shared between transports.
    :param credentials: the local username fragment and password, where the server was told them before.

    ``state`` goes ``new`` → ``connecting`` → ``connected``, or to ``failed`` with a sentence in ``failure``,
    or to ``closed``. ``counters`` counts datagrams by kind and everything dropped.
    """

    def __init__(
        self, remote: RemoteParameters, identity: ClientIdentity, credentials: tuple[str, str] | None = None
    ) -> None:
        # Given.
        self.remote = remote
        self.identity = identity
        self.local_username_fragment, self.local_password = credentials or ice_credentials()
        # Owned.
        self.dtls = DtlsClient(identity, remote.fingerprints)
        self.counters = {"stun": 0, "dtls": 0, "rtp": 0, "rtcp": 0, "undecryptable": 0, "unknown": 0}
        self._tie_breaker = secrets.randbits(64)
        self._outgoing: list[bytes] = []
        self._transactions: list[bytes] = []
        # Derived.
        self.ice_connected = False
        self.last_consent = 0.0
        self._interval = _CHECK_INTERVAL
        self._next_check: float | None = None
        self._closed = False

    @property
    def state(self) -> str:
        if self._closed:
            return "closed"
        if self._next_check is None:
            return "new"
        return self.dtls.state if self.dtls.state != "new" else "connecting"

    @property
    def failure(self) -> str | None:
        return self.dtls.failure

    @property
    def dtls_parameters(self) -> dict[str, Any]:
        """The payload of ``connect…Transport``."""
        return {
            "role": "client",
            "fingerprints": [{"algorithm": "sha-256", "value": self.identity.fingerprint}],
        }

    def start(self, now: float) -> None:
        """Begin the connectivity checks. Further calls do nothing."""
        if self._next_check is None:
            self._check(now)

    def close(self) -> None:
        """Say goodbye: close_notify is left in what is to be sent."""
        if not self._closed:
            self.dtls.close()
            self._outgoing += self.dtls.datagrams_to_send()
            self._closed = True

    def datagrams_to_send(self) -> list[bytes]:
        """Everything that waits for the socket; the list is the caller's."""
        waiting, self._outgoing = self._outgoing, []
        if not self._closed:
            waiting += self.dtls.datagrams_to_send()
        return waiting

    def receive_datagram(self, data: bytes, now: float) -> tuple[PacketKind, bytes] | None:
        """Take one datagram (RFC 7983); the plain packet where it was SRTP or SRTCP that verifies."""
        if not data or self._closed:
            return None
        first = data[0]
        if first < 4:
            self.counters["stun"] += 1
            self._receive_stun(data, now)
        elif 20 <= first < 64:
            self.counters["dtls"] += 1
            self.dtls.receive_datagram(data, now)
        elif 128 <= first < 192 and len(data) >= 8:
            # RFC 5761, section 4: RTCP packet types sit where RTP has marker and payload type.
            kind: PacketKind = "rtcp" if 192 <= data[1] < 224 else "rtp"
            self.counters[kind] += 1
            plain = self.unprotect(kind, data)
            if plain is not None:
                return kind, plain
        else:
            self.counters["unknown"] += 1
        return None

    def unprotect(self, kind: PacketKind, data: bytes) -> bytes | None:
        """The plain packet; None, and counted, where the keys are missing or the tag is wrong."""
        session = self.dtls.inbound
        if session is not None:
            try:
                plain: bytes = session.unprotect(data) if kind == "rtp" else session.unprotect_rtcp(data)
            except (pylibsrtp.Error, ValueError):
                pass
            else:
                return plain
        self.counters["undecryptable"] += 1
        return None

    def protect_rtp(self, packet: bytes) -> bytes:
        """Raises TransportError before the handshake is done."""
        if self.dtls.outbound is None:
            raise TransportError("no SRTP keys yet")
        protected: bytes = self.dtls.outbound.protect(packet)
        return protected

    def protect_rtcp(self, packets: Sequence[bytes]) -> bytes:
        """One compound of ``packets``. Raises TransportError before the handshake is done."""
        if self.dtls.outbound is None:
            raise TransportError("no SRTP keys yet")
        protected: bytes = self.dtls.outbound.protect_rtcp(b"".join(packets))
        return protected

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` is due; None when nothing will ever be."""
        if self._closed:
            return None
        due = [time for time in (self._next_check, self.dtls.get_timer()) if time is not None]
        return min(due, default=None)

    def handle_timer(self, now: float) -> None:
        """Repeat the binding request, the DTLS flight, or nothing, as their times have come."""
        if self._closed:
            return
        self.dtls.handle_timer(now)
        if self._next_check is not None and now >= self._next_check:
            self._check(now)

    def _check(self, now: float) -> None:
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{self.remote.username_fragment}:{self.local_username_fragment}"
        request.attributes["ICE-CONTROLLING"] = self._tie_breaker
        request.attributes["USE-CANDIDATE"] = None
        request.attributes["PRIORITY"] = 1853817087
        request.add_message_integrity(self.remote.password.encode("ascii"))
        self._transactions = [*self._transactions[-7:], request.transaction_id]
        self._outgoing.append(bytes(request))
        if self.ice_connected:
            self._next_check = now + CONSENT_INTERVAL
        else:
            self._next_check = now + self._interval
            self._interval = min(1.0, self._interval * 2)

    def _receive_stun(self, data: bytes, now: float) -> None:
        key = self.remote.password.encode("ascii")
        try:
            message = stun.parse_message(data)
        except (ValueError, struct.error):
            self.counters["unknown"] += 1
            return
        if message.message_class == stun.Class.REQUEST:
            self._answer(message)
            return
        answered = message.transaction_id in self._transactions
        if message.message_class != stun.Class.RESPONSE or not answered or not message.check_message_integrity(key):
            return
        self.last_consent = now
        if not self.ice_connected:
            self.ice_connected = True
            self._next_check = now + CONSENT_INTERVAL
            self.dtls.start(now)

    def _answer(self, request: stun.Message) -> None:
        """A full agent's own check (RFC 8445, section 7.3); an ICE-lite server sends none."""
        key = self.local_password.encode("ascii")
        if request.message_method != stun.Method.BINDING or not request.check_message_integrity(key):
            self.counters["unknown"] += 1
            return
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = self.remote.address
        response.add_message_integrity(key)
        self._outgoing.append(bytes(response))


def ice_credentials() -> tuple[str, str]:
    """A fresh username fragment and password (RFC 8445, section 5.3)."""
    return secrets.token_hex(2), secrets.token_hex(12)
