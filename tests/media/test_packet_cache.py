"""The retransmission cache: bounded by time and number."""

from trio_sfu.media.packet import Packet, make_packet
from trio_sfu.media.packet_cache import PacketCache


def packet(number: int, arrival: float = 0.0) -> Packet:
    return make_packet(number & 0xFFFF, 0, 96, False, (False, b""), b"", keyframe=False, arrival=arrival)


def test_finds_what_was_added() -> None:
    cache = PacketCache(2.0)
    kept = [packet(number) for number in (65534, 65535, 0, 1)]
    for each in kept:
        cache.add(each)
    assert [cache.get(number) for number in (65534, 65535, 0, 1)] == kept
    assert cache.get(2) is None
    assert 0 in cache
    assert 2 not in cache
    assert len(cache) == 4


def test_expires_by_time() -> None:
    cache = PacketCache(2.0)
    for number in range(10):
        cache.add(packet(number, arrival=float(number)))
    cache.expire(7.5)
    assert [number for number in range(10) if number in cache] == [6, 7, 8, 9]
    assert len(cache) == 4
    cache.expire(100.0)
    assert len(cache) == 0


def test_is_bounded_by_number() -> None:
    cache = PacketCache(2.0)
    for number in range(10_000):
        cache.add(packet(number))
    cache.expire(0.0)
    assert len(cache) == 4096
    assert 10_000 - 4097 not in cache
    assert 10_000 - 4096 in cache


def test_a_number_that_comes_round_again() -> None:
    cache = PacketCache(2.0)
    old, new = packet(5, 0.0), packet(5, 1.5)
    cache.add(old)
    cache.add(new)
    assert cache.get(5) is new
    cache.expire(2.5)
    assert cache.get(5) is new
    cache.expire(4.0)
    assert cache.get(5) is None
    assert len(cache) == 0


def test_clear() -> None:
    cache = PacketCache(2.0)
    cache.add(packet(5))
    cache.clear()
    assert len(cache) == 0
    assert 5 not in cache
