"""SRTP in place, held against pylibsrtp's public interface."""

import struct
from typing import Any

import pytest
from pylibsrtp import Policy, Session

from trio_sfu.transport.srtp import AUTH_FAILED, REPLAYED, Error, SrtpProfile, SrtpReceiver, SrtpSender, pointer_to

PROFILES: list[tuple[SrtpProfile, int, int]] = [
    ("AEAD_AES_128_GCM", Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    ("AEAD_AES_256_GCM", Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
    ("AES128_CM_SHA1_80", Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
]
every_profile = pytest.mark.parametrize(("profile", "number", "key_size"), PROFILES)


def public(number: int, key: bytes, direction: int) -> Session:
    policy = Policy(key=key, ssrc_type=direction, srtp_profile=number)
    policy.allow_repeat_tx = True
    policy.window_size = 1024
    return Session(policy)


def rtp(number: int, payload: bytes = b"payload", ssrc: int = 1) -> bytes:
    return struct.pack("!BBHII", 0x80, 96, number & 0xFFFF, 0, ssrc) + payload


RTCP = struct.pack("!BBHI", 0x80, 201, 1, 5)


class Arena:
    def __init__(self, size: int = 4096) -> None:
        self.buffer = bytearray(size)
        self.pointer: Any = pointer_to(self.buffer)

    def unprotect(self, receiver: SrtpReceiver, data: bytes, *, rtcp: bool = False) -> bytes | int:
        self.buffer[: len(data)] = data
        size = (receiver.unprotect_rtcp if rtcp else receiver.unprotect)(self.pointer, len(data))
        return bytes(self.buffer[:size]) if size > 0 else size


@every_profile
def test_sender_against_the_public_receiver(profile: SrtpProfile, number: int, key_size: int) -> None:
    key = bytes(range(key_size))
    sender = SrtpSender(profile, key)
    receiver = public(number, key, Policy.SSRC_ANY_INBOUND)
    arena = Arena()
    packets = [rtp(65534, b""), rtp(65535, b"x" * 1300), rtp(0, b"y" * 7), rtp(1)]
    start = at = 3
    for packet in packets:
        arena.buffer[at : at + len(packet)] = packet
        at += len(packet) + sender.overhead
    sender.protect_run(arena.pointer, start, [len(packet) for packet in packets])
    at = start
    for packet in packets:
        size = len(packet) + sender.overhead
        protected = bytes(arena.buffer[at : at + size])
        assert protected[:12] == packet[:12]
        assert packet[12:] not in protected or len(packet) == 12
        assert receiver.unprotect(protected) == packet
        at += size
    assert bytes(arena.buffer[at:]) == bytes(4096 - at)


@every_profile
def test_receiver_against_the_public_sender(profile: SrtpProfile, number: int, key_size: int) -> None:
    key = bytes(range(key_size))
    receiver = SrtpReceiver(profile, key)
    sender = public(number, key, Policy.SSRC_ANY_OUTBOUND)
    arena = Arena()
    for sequence_number in (65535, 0, 1):
        packet = rtp(sequence_number, b"z" * sequence_number if sequence_number < 10 else b"p")
        assert arena.unprotect(receiver, sender.protect(packet)) == packet


@every_profile
def test_rtcp_both_ways(profile: SrtpProfile, number: int, key_size: int) -> None:
    key = bytes(range(key_size))
    arena = Arena()
    sender = SrtpSender(profile, key)
    arena.buffer[5 : 5 + len(RTCP)] = RTCP
    size = sender.protect_rtcp(arena.pointer, 5, len(RTCP))
    assert size == len(RTCP) + sender.rtcp_overhead
    protected = bytes(arena.buffer[5 : 5 + size])
    assert public(number, key, Policy.SSRC_ANY_INBOUND).unprotect_rtcp(protected) == RTCP
    receiver = SrtpReceiver(profile, key)
    theirs = public(number, key, Policy.SSRC_ANY_OUTBOUND).protect_rtcp(RTCP)
    assert arena.unprotect(receiver, theirs, rtcp=True) == RTCP
    assert -int(arena.unprotect(receiver, theirs, rtcp=True)) in REPLAYED


@every_profile
def test_tampering_and_replay(profile: SrtpProfile, number: int, key_size: int) -> None:
    key = bytes(range(key_size))
    sender = public(number, key, Policy.SSRC_ANY_OUTBOUND)
    receiver = SrtpReceiver(profile, key)
    arena = Arena()
    protected = sender.protect(rtp(7, b"payload" * 10))
    for position in range(2, len(protected)):
        changed = bytearray(protected)
        changed[position] ^= 1
        assert arena.unprotect(receiver, bytes(changed)) == -AUTH_FAILED, position
    for size in range(len(protected)):
        assert int(arena.unprotect(receiver, protected[:size])) < 0, size
    assert arena.unprotect(receiver, protected) == rtp(7, b"payload" * 10)
    assert -int(arena.unprotect(receiver, protected)) in REPLAYED
    assert arena.unprotect(SrtpReceiver(profile, bytes(key_size)), protected) == -AUTH_FAILED


@every_profile
def test_short_rtcp(profile: SrtpProfile, number: int, key_size: int) -> None:
    receiver = SrtpReceiver(profile, bytes(key_size))
    arena = Arena()
    for size in range(40):
        assert int(arena.unprotect(receiver, (RTCP * 5)[:size], rtcp=True)) < 0


def test_late_packets_within_the_window() -> None:
    profile, number, key_size = PROFILES[0]
    key = bytes(key_size)
    sender = public(number, key, Policy.SSRC_ANY_OUTBOUND)
    receiver = SrtpReceiver(profile, key)
    arena = Arena()
    protected = [sender.protect(rtp(sequence_number)) for sequence_number in range(2000)]
    assert arena.unprotect(receiver, protected[1999]) == rtp(1999)
    assert arena.unprotect(receiver, protected[1000]) == rtp(1000)
    assert -int(arena.unprotect(receiver, protected[900])) in REPLAYED


def test_the_sender_takes_each_number_once_and_old_ones_within_its_window_only() -> None:
    """What the media layer's bounds (1000 packets) stand on."""
    sender = SrtpSender("AEAD_AES_128_GCM", bytes(28))
    arena = Arena()

    def protect(number: int) -> None:
        arena.buffer[:19] = rtp(number)
        sender.protect_run(arena.pointer, 0, [19])

    for number in range(2000):
        if number != 999:
            protect(number)
    with pytest.raises(Error):
        protect(1999)  # the same nonce again
    protect(999)
    with pytest.raises(Error):
        protect(899)
    protect(2000)


def test_unknown_profiles_and_keys() -> None:
    with pytest.raises(KeyError):
        SrtpSender("NULL", bytes(28))  # type: ignore[arg-type]
    with pytest.raises((Error, ValueError, TypeError)):
        SrtpSender("AEAD_AES_128_GCM", b"")
