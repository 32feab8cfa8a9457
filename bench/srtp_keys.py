"""The session keys that SRTP derives from its master key (RFC 3711, section 4.3), for AES-128-GCM.

For :mod:`bench.native`, whose C encrypts by itself; everything else leaves it to libsrtp.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_ENCRYPTION, _SALT = 0, 2  # Labels of RTP; RTCP's stay libsrtp's.


def derive(master_key: bytes, master_salt: bytes, label: int, size: int) -> bytes:
    """AES-CM as a pseudo-random function; the key derivation rate is zero.

    RFC 7714, section 11: a salt of 12 bytes is followed by two of zeros.
    """
    salt = int.from_bytes(master_salt.ljust(14, b"\0"))
    counter = (salt ^ label << 48) << 16
    encryptor = Cipher(algorithms.AES(master_key), modes.CTR(counter.to_bytes(16))).encryptor()
    return encryptor.update(bytes(size))


def gcm_session_keys(master: bytes) -> bytes:
    """Session key (16 bytes) and session salt (12) of RTP, of master key and master salt end to end.

    Raises ValueError where it is not AES-128-GCM's master.
    """
    if len(master) != 28:
        raise ValueError("not a key and salt of AES-128-GCM")
    key, salt = master[:16], master[16:]
    return derive(key, salt, _ENCRYPTION, 16) + derive(key, salt, _SALT, 12)
