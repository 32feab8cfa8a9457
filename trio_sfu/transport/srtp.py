"""SRTP in place: the one module that reaches below pylibsrtp's public interface.

pylibsrtp's ``Session.protect`` makes new objects and three copies for each packet, which costs as much as the
encryption itself. libsrtp works in place, so this module calls it through pylibsrtp's own cffi binding on
buffers that the caller owns. pylibsrtp is pinned for that reason; a test holds both ways against each other.
Nothing else in the project imports ``pylibsrtp``'s internals.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from pylibsrtp import Error, Policy, Session
from pylibsrtp._binding import ffi, lib

__all__ = ["AUTH_FAILED", "REPLAYED", "Error", "SrtpReceiver", "SrtpSender", "pointer_to", "ssrc_at"]

SrtpProfile = Literal["AEAD_AES_128_GCM", "AEAD_AES_256_GCM", "AES128_CM_SHA1_80"]

_PROFILES: Final[dict[str, int]] = {
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
    "AES128_CM_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
}
_TAG_BYTES: Final[dict[str, int]] = {
    "AEAD_AES_128_GCM": 16,
    "AEAD_AES_256_GCM": 16,
    "AES128_CM_SHA1_80": 10,
}
# A retransmission may be older than what the default window of 128 packets lets through.
_WINDOW = 1024

AUTH_FAILED: Final = 7  # srtp_err_status_auth_fail
REPLAYED: Final = frozenset((9, 10))  # srtp_err_status_replay_fail, srtp_err_status_replay_old


def pointer_to(buffer: bytearray) -> Any:
    """A ``char *`` to the start of ``buffer``, which stays locked in size while the pointer lives."""
    return ffi.cast("char *", ffi.from_buffer(buffer))


def ssrc_at(pointer: Any) -> int:
    """The SSRC of the RTP packet at ``pointer``; 12 bytes must be there to read."""
    return int.from_bytes(ffi.buffer(pointer + 8, 4)[:], "big")


def _session(profile: SrtpProfile, key: bytes, direction: int) -> Session:
    policy = Policy(key=key, ssrc_type=direction, srtp_profile=_PROFILES[profile])
    # A number is never protected twice: with other bytes under it that would be the same nonce again (RFC 7714, 8.1).
    policy.allow_repeat_tx = False
    policy.window_size = _WINDOW
    session = Session(policy)
    del session._buffer, session._cdata  # 1.5 KB for its own way to protect
    return session


class SrtpSender:
    """Protects the packets that leave one transport. ``overhead`` is what RTP protection adds, in bytes."""

    __slots__ = (
        "_context",
        "_length",
        "_session",
        "overhead",
        "rtcp_overhead",
    )

    def __init__(self, profile: SrtpProfile, key: bytes) -> None:
        self._session = _session(profile, key, Policy.SSRC_ANY_OUTBOUND)
        self._context = self._session._srtp[0]
        self._length = ffi.new("int *")
        self.overhead: Final = _TAG_BYTES[profile]
        self.rtcp_overhead: Final = self.overhead + 4  # and the SRTCP index (RFC 3711, section 3.4)

    def protect_run(self, base: Any, start: int, sizes: Sequence[int]) -> None:
        """Protect consecutive RTP packets in place.

        The packets lie in the arena at ``base``, the first at ``start``, each followed by ``overhead`` free
        bytes. Raises :class:`Error` where libsrtp refuses one: a number that it has protected before, or one more
        than a thousand behind.
        """
        protect = lib.srtp_protect
        context = self._context
        length = self._length
        overhead = self.overhead
        pointer = base + start
        for size in sizes:
            length[0] = size
            if protect(context, pointer, length):
                raise Error("libsrtp could not protect an RTP packet")
            pointer += size + overhead

    def protect_rtcp(self, base: Any, start: int, size: int) -> int:
        """Protect one RTCP packet in place and return its new size; ``rtcp_overhead`` bytes must be free."""
        self._length[0] = size
        if lib.srtp_protect_rtcp(self._context, base + start, self._length):
            raise Error("libsrtp could not protect an RTCP packet")
        return int(self._length[0])

    def forget(self, ssrc: int) -> None:
        """Free the state of a stream that has ended; one that is not known is none.

        A receiver must not: its peer may use the SSRC again and goes on with its rollover counter (RFC 3711, 3.3.1),
        and what has been received once must stay refused.
        """
        with suppress(Error):  # libsrtp knows a stream from its first packet on
            self._session.remove_stream(ssrc)


class SrtpReceiver:
    """Unprotects the packets that arrive on one transport."""

    __slots__ = (
        "_context",
        "_length",
        "_session",
    )

    def __init__(self, profile: SrtpProfile, key: bytes) -> None:
        self._session = _session(profile, key, Policy.SSRC_ANY_INBOUND)
        self._context = self._session._srtp[0]
        self._length = ffi.new("int *")

    def unprotect(self, pointer: Any, size: int) -> int:
        """Unprotect one RTP packet in place; its new size, or the negated libsrtp status on failure."""
        length = self._length
        length[0] = size
        status = lib.srtp_unprotect(self._context, pointer, length)
        return -status if status else length[0]  # type: ignore[no-any-return]

    def unprotect_rtcp(self, pointer: Any, size: int) -> int:
        """Unprotect one RTCP packet in place; its new size, or the negated libsrtp status on failure."""
        length = self._length
        length[0] = size
        status = lib.srtp_unprotect_rtcp(self._context, pointer, length)
        return -status if status else length[0]  # type: ignore[no-any-return]
