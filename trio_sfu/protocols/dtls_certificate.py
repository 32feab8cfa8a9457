"""DTLS certificates: the one a process makes for itself, and the fingerprints by which peers know each other's.

Signalling carries the fingerprints (RFC 8122), so nobody has to sign anything. Used by :mod:`trio_sfu.protocols.dtls`,
which compares, and by the transports, which announce.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

__all__ = ["FINGERPRINT_ALGORITHMS", "DtlsCertificate", "choose_fingerprints", "fingerprint"]

FINGERPRINT_ALGORITHMS: Final = ("sha-512", "sha-384", "sha-256", "sha-224", "sha-1")
"""Names (RFC 8122) of the hash functions a remote fingerprint may use, best first."""

_HASHES: Final = {algorithm: algorithm.replace("-", "") for algorithm in FINGERPRINT_ALGORITHMS}


class DtlsCertificate:
    """A self-signed ECDSA P-256 certificate and its private key, both in memory only."""

    def __init__(self, certificate: x509.Certificate, private_key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.private_key = private_key
        der = certificate.public_bytes(Encoding.DER)
        self.fingerprints: tuple[tuple[str, str], ...] = tuple(
            (algorithm, fingerprint(der, algorithm)) for algorithm in ("sha-256", "sha-384", "sha-512")
        )
        """``(algorithm, "AA:BB:…")`` as in SDP's and mediasoup's fingerprints."""

    @classmethod
    def generate(cls) -> "DtlsCertificate":
        """A new one, valid from yesterday (clocks differ) for a year: a process makes one when it starts."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "trio_sfu")])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365))
        )
        return cls(builder.sign(key, hashes.SHA256()), key)


def fingerprint(der: bytes, algorithm: str) -> str:
    return hashlib.new(_HASHES[algorithm], der).digest().hex(":").upper()


def choose_fingerprints(fingerprints: Sequence[tuple[str, str]]) -> tuple[str, tuple[str, ...]]:
    """The best algorithm among them, and its values."""
    by_algorithm: dict[str, list[str]] = {}
    for algorithm, value in fingerprints:
        by_algorithm.setdefault(algorithm.lower(), []).append(value.upper())
    for algorithm in FINGERPRINT_ALGORITHMS:
        values = by_algorithm.get(algorithm)
        if values is None:
            continue
        size = hashlib.new(_HASHES[algorithm]).digest_size
        for value in values:
            try:
                well_formed = bytes.fromhex(value.replace(":", " ")).hex(":").upper() == value
            except ValueError:
                well_formed = False
            if not well_formed or len(value) != 3 * size - 1:
                raise ValueError(f"a {algorithm} fingerprint is {size} pairs of hexadecimal digits joined by colons")
        return algorithm, tuple(values)
    raise ValueError(f"no DTLS fingerprint with a known algorithm ({', '.join(FINGERPRINT_ALGORITHMS)})")
