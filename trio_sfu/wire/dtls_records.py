"""DTLS records seen from outside: where one ends, and which datagram may hold one at all.

A memory BIO gives and takes a stream of bytes, but the network carries datagrams. RFC 6347 section 4.1 is DTLS 1.2,
RFC 9147 section 4 the unified header of 1.3. Used by :mod:`trio_sfu.protocols.dtls`; pure functions.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = [
    "ALERT",
    "CHANGE_CIPHER_SPEC",
    "HANDSHAKE",
    "DtlsRecord",
    "looks_like_dtls",
    "pack_records",
    "split_records",
]

CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
_HEADER_LENGTH: Final = 13


class DtlsRecord(NamedTuple):
    """One record of DTLS 1.2 (RFC 6347, section 4.1)."""

    content_type: int
    version: bytes
    """2 bytes."""
    number: bytes
    """8 bytes: epoch (2) and sequence number (6)."""
    fragment: bytes


def looks_like_dtls(data: bytes | memoryview) -> bool:
    """Whether a datagram may hold a DTLS record; OpenSSL looks closer."""
    # Content types of DTLS 1.2 are 20..25, the first byte of a DTLS 1.3 unified header is 32..63.
    return len(data) >= _HEADER_LENGTH and 20 <= data[0] <= 63


def split_records(datagram: bytes) -> Iterator[DtlsRecord]:
    """The whole records with a header of DTLS 1.2's shape that a datagram begins with. Never raises."""
    position = 0
    while position + _HEADER_LENGTH <= len(datagram) and 20 <= datagram[position] <= 31:
        start = position + _HEADER_LENGTH
        end = start + int.from_bytes(datagram[start - 2 : start], "big")
        if end > len(datagram):
            return
        yield DtlsRecord(
            datagram[position],
            datagram[position + 1 : position + 3],
            datagram[position + 3 : position + 11],
            datagram[start:end],
        )
        position = end


def pack_records(data: bytes, limit: int) -> list[bytes]:
    """Cut a run of records into datagrams of at most ``limit`` bytes, each with as many whole records as fit.

    A record longer than ``limit`` goes alone. Never raises: bytes that are no records come out all the same.
    """
    datagrams: list[bytes] = []
    start = end = 0
    for record_end in _record_ends(data):
        if record_end - start > limit and end > start:
            datagrams.append(data[start:end])
            start = end
        end = record_end
    if end > start:
        datagrams.append(data[start:end])
    return datagrams


def _record_ends(data: bytes) -> Iterator[int]:
    """Where each record ends (RFC 6347 section 4.1, RFC 9147 section 4)."""
    position = 0
    while position < len(data):
        first = data[position]
        if first & 0b1110_0000 == 0b0010_0000:  # DTLS 1.3: 0 0 1 C S L E E; no connection ids here
            length_at = position + (3 if first & 0b1000 else 2)
            if not first & 0b100:
                position = len(data)  # no length: it is the datagram's last
                yield position
                continue
        else:
            length_at = position + 11
        position = length_at + 2 + int.from_bytes(data[length_at : length_at + 2], "big")
        yield min(position, len(data))
