"""A DTLS-SRTP client over datagrams handed in and out (RFC 5764), as a browser would be.

Owned by :class:`bench.peer.ClientTransport`. Written apart from ``trio_sfu.protocols.dtls`` because its
purpose differs: it *chooses* what to offer (one SRTP profile, a wrong certificate), and two independent
halves of a handshake check each other.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pylibsrtp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

_MTU: Final = 1200

GCM: Final = ("SRTP_AEAD_AES_128_GCM",)
CM: Final = ("SRTP_AES128_CM_SHA1_80",)
CHROME: Final = ("SRTP_AEAD_AES_128_GCM", "SRTP_AEAD_AES_256_GCM", "SRTP_AES128_CM_SHA1_80")


@dataclass(frozen=True, slots=True)
class _Profile:
    srtp_profile: int
    key_size: int
    salt_size: int


_PROFILES: Final = {
    "SRTP_AEAD_AES_128_GCM": _Profile(pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    "SRTP_AEAD_AES_256_GCM": _Profile(pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
    "SRTP_AES128_CM_SHA1_80": _Profile(pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
}


class ClientIdentity:
    """A certificate of its own and the SSL context made of it; may serve any number of transports.

    :param profiles: what to offer in use_srtp, in order.
    """

    def __init__(self, profiles: Sequence[str] = CHROME) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "WebRTC")])
        today = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=30))
            .sign(key, hashes.SHA256())
        )
        self.fingerprint = _hex(certificate.fingerprint(hashes.SHA256()))
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET)
        context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_tlsext_use_srtp(":".join(profiles).encode("ascii"))
        self.context = context


def _hex(digest: bytes) -> str:
    return ":".join(f"{byte:02X}" for byte in digest)


class DtlsClient:
    """The client's half of one handshake.

    ``state`` goes ``new`` → ``connecting`` → ``connected``, or to ``failed`` with a sentence in ``failure``,
    or to ``closed`` when the server says close_notify.
    """

    def __init__(self, identity: ClientIdentity, remote_fingerprints: Sequence[tuple[str, str]]) -> None:
        self.state = "new"
        self.failure: str | None = None
        self.profile: str | None = None
        self.inbound: pylibsrtp.Session | None = None
        self.outbound: pylibsrtp.Session | None = None
        self.inbound_master = self.outbound_master = b""  # master key and salt, end to end
        self._remote_fingerprints = tuple(remote_fingerprints)
        self._connection = SSL.Connection(identity.context, None)
        self._connection.set_connect_state()
        self._connection.set_ciphertext_mtu(_MTU)
        self._due: float | None = None

    def start(self, now: float) -> None:
        """Make the ClientHello."""
        if self.state == "new":
            self.state = "connecting"
            self._progress(now)

    def receive_datagram(self, data: bytes, now: float) -> None:
        """One datagram whose first byte says DTLS (20 to 63)."""
        if self.state not in ("connecting", "connected"):
            return
        self._connection.bio_write(data)
        if self.state == "connecting":
            self._progress(now)
        if self.state == "connected":
            self._read(now)

    def datagrams_to_send(self) -> list[bytes]:
        """What waits to be sent, cut where records end."""
        try:
            data = self._connection.bio_read(1 << 16)
        except SSL.WantReadError:
            return []
        datagrams: list[bytes] = []
        begin = offset = 0
        while offset < len(data):
            size = 13 + int.from_bytes(data[offset + 11 : offset + 13])
            if offset > begin and offset + size - begin > _MTU:
                datagrams.append(data[begin:offset])
                begin = offset
            offset += size
        if begin < len(data):
            datagrams.append(data[begin:])
        return datagrams

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` is due, on the clock of ``now``."""
        return self._due if self.state in ("connecting", "connected") else None

    def handle_timer(self, now: float) -> None:
        """Retransmit the last flight if its time has come."""
        if self._due is None or now < self._due:
            return
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            self._fail(f"DTLS timed out: {error}")
        self._set_timer(now)

    def close(self) -> None:
        """Put close_notify into what is to be sent."""
        if self.state == "connected":
            try:
                self._connection.shutdown()
            except SSL.Error:
                pass
        self.state = "closed"

    def _progress(self, now: float) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._set_timer(now)
            return
        except SSL.Error as error:
            self._fail(f"DTLS handshake failed: {error}")
            return
        self._finish()
        self._set_timer(now)

    def _finish(self) -> None:
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            self._fail("the server sent no certificate")
            return
        actual = _hex(certificate.fingerprint(hashes.SHA256()))
        if not any(name == "sha-256" and value.upper() == actual for name, value in self._remote_fingerprints):
            self._fail("the server's certificate has another fingerprint than it announced")
            return
        name = self._connection.get_selected_srtp_profile().decode("ascii")
        profile = _PROFILES.get(name)
        if profile is None:
            self._fail(f"no common SRTP profile ({name or 'none selected'})")
            return
        key, salt = profile.key_size, profile.salt_size
        material = bytes(self._connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key + salt)))
        salts = material[2 * key :]
        self.outbound_master = material[:key] + salts[:salt]
        self.inbound_master = material[key : 2 * key] + salts[salt:]
        self.outbound = _session(profile, self.outbound_master, inbound=False)
        self.inbound = _session(profile, self.inbound_master, inbound=True)
        self.profile = name
        self.state = "connected"

    def _read(self, now: float) -> None:
        try:
            self._connection.recv(1 << 14)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.state = "closed"
        except SSL.Error as error:
            self._fail(f"DTLS failed: {error}")
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        timeout = self._connection.DTLSv1_get_timeout()
        self._due = None if timeout is None else now + timeout

    def _fail(self, reason: str) -> None:
        self.state = "failed"
        self.failure = reason


def _session(profile: _Profile, key: bytes, *, inbound: bool) -> pylibsrtp.Session:
    kind = pylibsrtp.Policy.SSRC_ANY_INBOUND if inbound else pylibsrtp.Policy.SSRC_ANY_OUTBOUND
    policy = pylibsrtp.Policy(key=key, ssrc_type=kind, srtp_profile=profile.srtp_profile)
    policy.window_size = 1024
    policy.allow_repeat_tx = True
    return pylibsrtp.Session(policy)
