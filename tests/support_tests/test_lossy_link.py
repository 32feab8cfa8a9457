"""LossyLink: each setting does what it says, and the same seed does the same again."""

from __future__ import annotations

import random

from tests.support.lossy_link import LinkSettings, LossyLink


def _link(settings: LinkSettings, *, seed: int = 1, max_in_flight: int = 4096) -> LossyLink[None]:
    return LossyLink(settings, random.Random(seed), max_in_flight=max_in_flight)


def _numbers(link: LossyLink[None], now: float) -> list[int]:
    return [int.from_bytes(datagram[:4]) for _, datagram in link.receive(now)]


def _send(link: LossyLink[None], numbers: range, *, interval: float = 0.0, size: int = 4) -> None:
    for i in numbers:
        link.send(i.to_bytes(4) + bytes(size - 4), None, i * interval)


def test_a_perfect_link_delivers_at_once_and_in_order() -> None:
    link = _link(LinkSettings())
    _send(link, range(10))
    assert link.get_timer() == 0.0
    assert _numbers(link, 0.0) == list(range(10))
    assert link.get_timer() is None


def test_delay_holds_a_datagram_until_it_is_due() -> None:
    link = _link(LinkSettings(delay=0.05))
    link.send(b"\0\0\0\7", None, 1.0)
    assert link.get_timer() == 1.05
    assert link.receive(1.049) == []
    assert _numbers(link, 1.05) == [7]


def test_loss_takes_its_share_and_the_same_seed_loses_the_same() -> None:
    outcomes = []
    for seed in (1, 1, 2):
        link = _link(LinkSettings(loss=0.05), seed=seed, max_in_flight=10_000)
        _send(link, range(10_000))
        outcomes.append(_numbers(link, 0.0))
        assert 400 < link.counters.lost < 600
        assert link.counters.delivered + link.counters.lost == link.counters.offered == 10_000
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_jitter_spreads_arrivals_and_keeps_their_order() -> None:
    link = _link(LinkSettings(delay=0.05, jitter=0.03))
    _send(link, range(100), interval=0.001)
    arrivals = []
    while (timer := link.get_timer()) is not None:
        arrivals += [(timer, number) for number in _numbers(link, timer)]
    assert [number for _, number in arrivals] == list(range(100))
    waits = [arrival - number * 0.001 for arrival, number in arrivals]
    assert min(waits) >= 0.05
    assert max(waits) <= 0.0801
    assert max(waits) - min(waits) > 0.01


def test_rate_spaces_datagrams_and_its_queue_is_bounded() -> None:
    # 1000 bytes at 80 kb/s take 100 ms; a queue of 0.25 s then holds three besides the one being sent.
    link = _link(LinkSettings(rate=80_000, queue=0.25))
    for i in range(10):
        link.send(i.to_bytes(4) + bytes(996), None, 0.0)
    assert link.counters.queue_full == 7
    assert _numbers(link, 0.11) == [0]
    assert _numbers(link, 0.31) == [1, 2]
    link.send((10).to_bytes(4) + bytes(996), None, 1.0)
    assert _numbers(link, 1.11) == [10]


def test_duplicates_and_reordering() -> None:
    link = _link(LinkSettings(duplicate=0.1, reorder=0.1, reorder_delay=0.02))
    _send(link, range(1000), interval=0.005)
    arrived = _numbers(link, 100.0)
    assert len(arrived) == 1000 + link.counters.duplicated
    assert set(arrived) == set(range(1000))
    assert link.counters.duplicated > 50
    assert link.counters.reordered > 50
    assert arrived != sorted(arrived)


def test_a_cut_swallows_what_is_sent_and_what_is_under_way() -> None:
    link = _link(LinkSettings(delay=0.05))
    _send(link, range(1))
    link.is_cut = True
    _send(link, range(1, 2))
    assert link.receive(1.0) == []
    assert link.counters.cut == 2
    link.is_cut = False
    link.send(b"\0\0\0\2", None, 2.0)
    assert _numbers(link, 2.1) == [2]


def test_datagrams_under_way_are_bounded() -> None:
    link = _link(LinkSettings(delay=1.0), max_in_flight=8)
    _send(link, range(20))
    assert link.counters.queue_full == 12
    assert _numbers(link, 1.0) == list(range(8))
