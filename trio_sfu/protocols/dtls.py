"""DTLS-SRTP (RFC 5764) over a path that ICE has authenticated: pyOpenSSL on memory BIOs.

Owns each transport's handshake: datagrams and ``now`` in, datagrams and, once the peer's certificate has the
fingerprint that signalling announced, SRTP keys out. Owned by a WebRTC transport, which feeds it datagrams from
authenticated paths only; hence no cookie exchange.

What OpenSSL leaves to us:

- A memory BIO has no datagram boundaries, so what it gives is cut at whole records.
- Its retransmission timer starts at one second, by its own clock: long for someone waiting for a picture.
  So the last flight is also sent again as it was, after 100 ms, 200 ms, and so on (RFC 9147 section 5.8.2). A
  peer that had it drops it as a replay; one that had not goes on. OpenSSL's own timer still runs: only it
  makes new records, which a peer needs that has everything and whose own last flight was lost.
- With no SRTP profile in common the handshake succeeds all the same; here it fails.
- An SSL object is 80 to 93 KiB, for as long as it is there, and all that is left for it to do once the handshake is
  through is to say and hear close_notify. So a session lets go of it then: its own close_notify was made in advance,
  the peer's alerts are read by :mod:`trio_sfu.protocols.dtls_alerts`, and the last flight is sent again as it was.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from trio_sfu.protocols.dtls_alerts import CLOSE_NOTIFY, AlertReader
from trio_sfu.protocols.dtls_certificate import DtlsCertificate, choose_fingerprints, fingerprint
from trio_sfu.protocols.dtls_context import MAX_DATAGRAM, SRTP_PROFILES, DtlsContext, DtlsRole, SrtpProfile
from trio_sfu.wire.dtls_records import CHANGE_CIPHER_SPEC, HANDSHAKE, looks_like_dtls, pack_records

__all__ = [
    "MAX_DATAGRAM",
    "DtlsCertificate",
    "DtlsContext",
    "DtlsRole",
    "DtlsSession",
    "DtlsState",
    "SrtpKeys",
    "SrtpProfile",
]

DtlsState = Literal["new", "connecting", "connected", "failed", "closed"]

_FATAL: Final = 2  # level of an alert (RFC 5246, section 7.2)
_CHUNK: Final = 16384  # the largest plaintext of a record; a flight is about 1 to 3 KiB

_FIRST_RESEND: Final = 0.1
_MAX_RESEND: Final = 2.0
# How soon the last flight may answer a repeated one again; how long after completion it is kept for that.
_ANSWER_INTERVAL: Final = 0.05
_KEEP_LAST_FLIGHT: Final = 60.0
# Datagrams waiting in datagrams_to_send(); the oldest are dropped. A flight is 2 or 3.
_MAX_OUTGOING: Final = 64


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """SRTP master keys, each followed by its salt, as ``pylibsrtp.Policy.key`` wants them."""

    profile: SrtpProfile
    local: bytes = field(repr=False)
    """For what this side sends."""
    remote: bytes = field(repr=False)
    """For what the peer sends."""


class DtlsSession:
    """One DTLS association. Whatever the peer does shows in :attr:`state`; no method raises because of it.

    .. code-block:: text

        new ── start(); a server's first datagram ──▶ connecting ── handshake, fingerprint ──▶ connected
                                                           │                                       │
                      alert, wrong fingerprint,            ▼                                       │ alert
                      no common profile, time-out:       failed ◀──────────────────────────────────┘

        any of these but failed ── close(), or the peer's close_notify ──▶ closed

    After every call the owner sends :meth:`datagrams_to_send` and looks at :meth:`get_timer`. A session holds
    memory only: it ends by being dropped.
    """

    def __init__(
        self,
        context: DtlsContext,
        *,
        role: DtlsRole,
        remote_fingerprints: Sequence[tuple[str, str]],
        handshake_timeout: float = 30.0,
    ) -> None:
        """``remote_fingerprints``: (algorithm, ``"AA:BB:…"``) pairs from signalling, in any letter case.

        Those of the best algorithm among them count; the certificate must match one (RFC 8122 section 5).
        ``handshake_timeout``: seconds from the first datagram, either way, until the session fails.

        Raises ``ValueError`` where no fingerprint has a known algorithm, or one of the best has a malformed
        value: a sentence that may be shown to the client.
        """
        # Given.
        self.role: DtlsRole = role
        self._algorithm, self._expected = choose_fingerprints(remote_fingerprints)
        self._handshake_timeout = handshake_timeout
        # Owned.
        self.state: DtlsState = "new"
        self.failure: str | None = None
        """Why the session failed: one sentence."""
        self.srtp_keys: SrtpKeys | None = None
        """There from ``connected`` on."""
        self._connection: SSL.Connection | None = context.connection(role)
        # In its place once the handshake is through: who hears the peer's alerts, and our close_notify.
        self._alerts: AlertReader | None = None
        self._farewell: list[bytes] = []
        self._outgoing: list[bytes] = []
        # The last handshake flight as it was sent, and when it is sent again.
        self._flight: list[bytes] = []
        self._resend_at: float | None = None
        self._resend_delay = _FIRST_RESEND
        self._answered_at = float("-inf")
        self._openssl_timer: float | None = None
        self._give_up_at: float | None = None
        self._connected_at: float | None = None

    def start(self, now: float) -> None:
        """Begin: the client's ClientHello is ready to be sent; a server waits for its peer's.

        Does nothing once the session is past ``new``.
        """
        if self.state == "new" and self.role == "client":
            self._begin(now)
            self._advance(now)

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Take one datagram of the peer. What is not DTLS, or comes when all is over, is dropped."""
        if self.state in ("failed", "closed") or not looks_like_dtls(data):
            return
        if self.state == "new":
            if self.role == "client":
                return  # nothing was asked yet, so this answers nothing
            self._begin(now)
        if self._connection is None:
            self._receive_alerts(data)
            answered = False
        else:
            self._connection.bio_write(data)
            before = len(self._outgoing)
            self._advance(now)
            answered = len(self._outgoing) != before
        if self.state == "connected" and not answered:
            self._answer_repeated_flight(data, now)

    def datagrams_to_send(self) -> list[bytes]:
        """What is to be sent now, in order, each given once and of at most :data:`MAX_DATAGRAM` bytes."""
        outgoing = self._outgoing
        self._outgoing = []
        return outgoing

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` is due, if ever."""
        if self.state != "connecting":
            return None
        return min(each for each in (self._resend_at, self._openssl_timer, self._give_up_at) if each is not None)

    def handle_timer(self, now: float) -> None:
        """Send the last flight again if it is time, or give up. Harmless when called early."""
        if self.state != "connecting":
            return
        assert self._give_up_at is not None
        if now >= self._give_up_at:
            self._fail(f"the DTLS handshake was not complete after {self._handshake_timeout:g} s")
            return
        if self._openssl_timer is not None and now >= self._openssl_timer:
            assert self._connection is not None
            try:
                self._connection.DTLSv1_handle_timeout()
            except SSL.Error as error:
                self._fail(f"the DTLS handshake timed out: {_describe(error)}")
                return
            if self._drain():
                self._postpone_resend(now)  # these were the same flight, in new records
            self._read_openssl_timer(now)
        if self._resend_at is not None and now >= self._resend_at:
            self._send(self._flight)
            self._postpone_resend(now)

    def close(self) -> None:
        """Say close_notify, where there is somebody to say it to. Does nothing the second time."""
        if self.state in ("failed", "closed"):
            return
        if self.state == "connected":
            self._shut_down()
        self._end("closed")

    def _begin(self, now: float) -> None:
        self.state = "connecting"
        self._give_up_at = now + self._handshake_timeout

    def _advance(self, now: float) -> None:
        """Let OpenSSL work on what it has been given, and take what it has to say."""
        assert self._connection is not None
        if self.state == "connecting":
            complete = False
            try:
                self._connection.do_handshake()
                complete = True
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                self._drain()  # the alert
                self._fail(f"the DTLS handshake failed: {_describe(error)}")
                return
            if complete and not self._complete(now):
                return
            flight = self._drain()
            if flight or complete:
                # Who completes with nothing left to say keeps no flight: two peers that both answer
                # repetitions would never stop.
                self._flight = flight
                self._resend_delay = _FIRST_RESEND
                self._resend_at = now + _FIRST_RESEND
            self._read_openssl_timer(now)
        if self.state == "connected":
            self._read()
        if self.state == "connected":
            self._let_go()

    def _read(self) -> None:
        """After completion: alerts, repeated flights, and application data, which nobody here wants."""
        assert self._connection is not None
        try:
            while True:
                self._connection.recv(_CHUNK)
        except SSL.WantReadError:
            self._drain()
        except SSL.ZeroReturnError:
            self.close()
        except SSL.Error as error:
            self._drain()
            self._fail(f"the DTLS association ended: {_describe(error)}")

    def _let_go(self) -> None:
        """Free what OpenSSL has of the session, where what may still come can be read without it.

        A peer that repeats its last flight has lost the whole of ours, which is one datagram: so the same bytes do.
        """
        assert self._connection is not None
        self._alerts = AlertReader.of(self._connection, from_client=self.role == "server")
        if self._alerts is None:
            return
        waiting, self._outgoing = self._outgoing, []
        self._shut_down()
        self._farewell, self._outgoing = self._outgoing, waiting
        self._connection = None

    def _receive_alerts(self, data: bytes) -> None:
        assert self._alerts is not None
        for level, description in self._alerts.read(data):
            if description == CLOSE_NOTIFY:
                self.close()
            elif level == _FATAL:
                self._fail(f"the DTLS association ended: the peer sent alert {description}")
            if self.state != "connected":
                return

    def _complete(self, now: float) -> bool:
        """The handshake is through: compare the certificate, export the keys; returns whether all is well."""
        assert self._connection is not None
        failure = self._check_certificate()
        name = self._connection.get_selected_srtp_profile()
        if failure is None and name not in SRTP_PROFILES:
            failure = "the peer offers no SRTP protection profile that this server has"
        if failure is not None:
            self._drain()  # the last flight, so that the peer knows what the alert is about
            self._shut_down()
            self._fail(failure)
            return False
        profile, key_length, salt_length = SRTP_PROFILES[name]
        # RFC 5764 section 4.2: client key, server key, client salt, server salt.
        material = self._connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key_length + salt_length))
        salts = 2 * key_length
        client = material[:key_length] + material[salts : salts + salt_length]
        server = material[key_length:salts] + material[salts + salt_length :]
        local, remote = (client, server) if self.role == "client" else (server, client)
        self.srtp_keys = SrtpKeys(profile, local, remote)
        self.state = "connected"
        self._connected_at = now
        return True

    def _check_certificate(self) -> str | None:
        """Why the peer's certificate is not the announced one, if it is not."""
        assert self._connection is not None
        try:
            certificate = self._connection.get_peer_certificate(as_cryptography=True)
        except ValueError:
            return "the peer's certificate cannot be read"
        if certificate is None:
            return "the peer showed no certificate"
        actual = fingerprint(certificate.public_bytes(Encoding.DER), self._algorithm)
        if not any(hmac.compare_digest(actual, expected) for expected in self._expected):
            return "the peer's certificate does not have the fingerprint that was announced for it"
        return None

    def _answer_repeated_flight(self, data: bytes, now: float) -> None:
        """Send the last flight again to a peer that repeats its own: ours seems to have been lost.

        OpenSSL does so itself where the repetition comes in new records; this is for one that is byte by byte
        the same, as ours are.
        """
        assert self._connected_at is not None
        if not self._flight or data[0] not in (CHANGE_CIPHER_SPEC, HANDSHAKE):
            return
        if now - self._connected_at > _KEEP_LAST_FLIGHT:
            self._flight = []
        elif now - self._answered_at >= _ANSWER_INTERVAL:
            self._answered_at = now
            self._send(self._flight)

    def _postpone_resend(self, now: float) -> None:
        self._resend_delay = min(2 * self._resend_delay, _MAX_RESEND)
        self._resend_at = now + self._resend_delay

    def _read_openssl_timer(self, now: float) -> None:
        assert self._connection is not None
        remaining = self._connection.DTLSv1_get_timeout()
        self._openssl_timer = None if remaining is None else now + remaining

    def _shut_down(self) -> None:
        """Say close_notify by OpenSSL, or what it has said in advance."""
        if self._connection is None:
            self._send(self._farewell)
            return
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass  # in the middle of something: then without
        self._drain()

    def _fail(self, failure: str) -> None:
        self.failure = failure
        self.srtp_keys = None
        self._end("failed")

    def _end(self, state: Literal["failed", "closed"]) -> None:
        self.state = state
        self._flight = []
        self._farewell = []
        self._connection = self._alerts = None
        self._resend_at = self._openssl_timer = self._give_up_at = None

    def _drain(self) -> list[bytes]:
        """Move what OpenSSL wants to send to the outgoing datagrams, and return these datagrams."""
        assert self._connection is not None
        chunks = []
        try:
            while True:
                chunks.append(self._connection.bio_read(_CHUNK))
        except SSL.Error:  # WantReadError: there is no more
            pass
        datagrams = pack_records(b"".join(chunks), MAX_DATAGRAM)
        self._send(datagrams)
        return datagrams

    def _send(self, datagrams: Sequence[bytes]) -> None:
        self._outgoing.extend(datagrams)
        del self._outgoing[:-_MAX_OUTGOING]


def _describe(error: SSL.Error) -> str:
    """The first reason OpenSSL gives; for some malformed messages it gives none."""
    if isinstance(error, SSL.ZeroReturnError):
        return "closed by the peer"
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return next((entry[2] for entry in queue if entry[2]), "malformed message")
