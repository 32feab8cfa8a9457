"""What is left to hear of a DTLS 1.2 association once its handshake is through: the peer's alerts.

SRTP does all the rest, and an SSL object of OpenSSL's is 80 to 93 KiB. So :class:`~trio_sfu.protocols.dtls.DtlsSession`
lets go of it, and keeps the key by which the peer's close_notify can be told from a forgery. Made by that class only.

Sources: RFC 5246 sections 5 (PRF), 6.2.3.3, 6.3 and 7.2; RFC 5288 (AES-GCM), RFC 7905 (ChaCha20-Poly1305), RFC 6347
section 4.1 (epoch and number in the place of TLS's sequence number).
"""

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from OpenSSL import SSL

from trio_sfu.wire.dtls_records import ALERT, DtlsRecord, split_records

__all__ = ["CLOSE_NOTIFY", "Alert", "AlertReader"]

Alert = tuple[int, int]
"""Level and description (RFC 5246, section 7.2)."""

CLOSE_NOTIFY: Final = 0

_TAG: Final = 16
_RECORD_IV: Final = 12
_EPOCH: Final = b"\x00\x01"  # the one that the handshake begins; nobody renegotiates
# By the end of OpenSSL's name: cipher, bytes of its key and of the implicit part of its nonce, the PRF's hash.
_SUITES: Final[dict[str, tuple[type[AESGCM] | type[ChaCha20Poly1305], int, int, str]]] = {
    "AES128-GCM-SHA256": (AESGCM, 16, 4, "sha256"),
    "AES256-GCM-SHA384": (AESGCM, 32, 4, "sha384"),
    "CHACHA20-POLY1305": (ChaCha20Poly1305, 32, 12, "sha256"),
}


class AlertReader:
    """Keys for what the peer sends. Holds some hundred bytes and nothing of OpenSSL's."""

    __slots__ = ("_cipher", "_implicit", "_key")

    def __init__(self, cipher: type[AESGCM] | type[ChaCha20Poly1305], key: bytes, implicit: bytes) -> None:
        """``implicit``: the 4 bytes that begin each nonce of AES-GCM, the 12 that mask each one of ChaCha20."""
        self._cipher = cipher
        self._key = key
        self._implicit = implicit

    @classmethod
    def of(cls, connection: SSL.Connection, *, from_client: bool) -> "AlertReader | None":
        """For a connection whose handshake is complete; None where only OpenSSL itself can read what comes.

        That is CBC, and another version than DTLS 1.2. ``from_client``: whether the peer is the client.
        """
        name = connection.get_cipher_name() or ""
        suite = next((suite for end, suite in _SUITES.items() if name.endswith(end)), None)
        if suite is None or connection.get_protocol_version_name() != "DTLSv1.2":
            return None
        master, server, client = connection.master_key(), connection.server_random(), connection.client_random()
        if not master or not server or not client:
            return None
        cipher, key_length, implicit_length, digest = suite
        # RFC 5246, section 6.3: client key, server key, client IV, server IV; AEAD has no MAC keys.
        block = _expand(master, b"key expansion" + server + client, 2 * (key_length + implicit_length), digest)
        keys, ivs = block[: 2 * key_length], block[2 * key_length :]
        if from_client:
            return cls(cipher, keys[:key_length], ivs[:implicit_length])
        return cls(cipher, keys[key_length:], ivs[implicit_length:])

    def read(self, datagram: bytes) -> list[Alert]:
        """The alerts in one datagram that are the peer's beyond doubt. Never raises."""
        found = []
        for record in split_records(datagram):
            if record.content_type == ALERT and record.number[:2] == _EPOCH:
                plain = self._decrypt(record)
                if plain is not None and len(plain) == 2:
                    found.append((plain[0], plain[1]))
        return found

    def _decrypt(self, record: DtlsRecord) -> bytes | None:
        explicit = _RECORD_IV - len(self._implicit)  # 8 bytes of AES-GCM, none of ChaCha20
        length = len(record.fragment) - explicit - _TAG
        if length < 0:
            return None
        if explicit:
            nonce = self._implicit + record.fragment[:explicit]
        else:
            padded = bytes(4) + record.number
            nonce = bytes(mask ^ byte for mask, byte in zip(self._implicit, padded, strict=True))
        header = record.number + bytes((record.content_type,)) + record.version + length.to_bytes(2, "big")
        try:
            return self._cipher(self._key).decrypt(nonce, record.fragment[explicit:], header)
        except InvalidTag:
            return None


def _expand(secret: bytes, seed: bytes, length: int, digest: str) -> bytes:
    """P_hash (RFC 5246, section 5); ``seed`` begins with the label."""
    out, part = b"", seed
    while len(out) < length:
        part = hmac.digest(secret, part, digest)
        out += hmac.digest(secret, part + seed, digest)
    return out[:length]
