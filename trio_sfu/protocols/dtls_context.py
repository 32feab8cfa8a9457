"""What all DTLS sessions of a process have in common: the SSL context, and what it offers and accepts.

Used by :mod:`trio_sfu.protocols.dtls`; whoever starts a process's media makes the one context.
"""

from collections.abc import Sequence
from typing import Final, Literal

from OpenSSL import SSL

from trio_sfu.protocols.dtls_certificate import DtlsCertificate

__all__ = ["MAX_DATAGRAM", "SRTP_PROFILES", "DtlsContext", "DtlsRole", "SrtpProfile"]

DtlsRole = Literal["client", "server"]
SrtpProfile = Literal["AEAD_AES_128_GCM", "AEAD_AES_256_GCM", "AES128_CM_SHA1_80"]

MAX_DATAGRAM: Final = 1200
"""Bytes of UDP payload of the largest datagram sent."""

# In order of preference, which the server decides (RFC 5764 section 4.1.1): GCM costs half of CM-SHA1.
# OpenSSL's name: ours, bytes of master key and of salt (RFC 7714 section 12, RFC 5764 section 4.1.2).
SRTP_PROFILES: Final[dict[bytes, tuple[SrtpProfile, int, int]]] = {
    b"SRTP_AEAD_AES_128_GCM": ("AEAD_AES_128_GCM", 16, 12),
    b"SRTP_AEAD_AES_256_GCM": ("AEAD_AES_256_GCM", 32, 12),
    b"SRTP_AES128_CM_SHA1_80": ("AES128_CM_SHA1_80", 16, 14),
}
# Forward secrecy and AEAD; the two CBC suites are for older stacks (RFC 8827 section 6.5).
_CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    b"ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"
)
_DTLS_1_2: Final = 0xFEFD
_MODE_RELEASE_BUFFERS: Final = 0x10  # SSL_MODE_RELEASE_BUFFERS: pyOpenSSL does not name it


class DtlsContext:
    """The one SSL context of a process, for both roles; never changed once it is made."""

    def __init__(self, certificate: DtlsCertificate, *, srtp_profiles: Sequence[SrtpProfile] | None = None) -> None:
        """``srtp_profiles``: those to negotiate, the preferred one first; all, GCM first, where not given."""
        self.certificate = certificate
        names = {profile: name for name, (profile, _, _) in SRTP_PROFILES.items()}
        profiles = list(names) if srtp_profiles is None else srtp_profiles
        context = SSL.Context(SSL.DTLS_METHOD)
        # No upper bound: DTLS 1.3 comes with the OpenSSL that has it.
        context.set_min_proto_version(_DTLS_1_2)
        # No tickets, no session cache: every transport has a certificate to check. No MTU queries: no socket.
        context.set_options(
            SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE
        )
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(_MODE_RELEASE_BUFFERS)  # 11 KiB of a session that cannot be let go of
        # The peer must show a certificate and prove that it has the key; who signed it says nothing: its
        # fingerprint decides, when the handshake is through and before any key is exported.
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(certificate.certificate)
        context.use_privatekey(certificate.private_key)
        context.set_cipher_list(_CIPHERS)
        context.set_tlsext_use_srtp(b":".join(names[profile] for profile in profiles))
        self._context = context

    def connection(self, role: DtlsRole) -> SSL.Connection:
        """A new one, for one session."""
        connection = SSL.Connection(self._context, None)
        if role == "client":
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        connection.set_ciphertext_mtu(MAX_DATAGRAM)
        return connection
