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


def test_the_queue_is_bounded_in_bytes_too() -> None:
    link = _link(LinkSettings(rate=80_000, queue=10.0, queue_bytes=2500))
    _send(link, range(10), size=1000)
    # The fourth finds 3000 bytes before it.
    assert link.counters.queue_full == 7
    assert _numbers(link, 10.0) == [0, 1, 2]


def test_the_gauge_tells_what_a_datagram_has_to_wait() -> None:
    link = _link(LinkSettings(rate=64_000))
    for wait in (0.0, 0.125, 0.25, 0.375, 0.375):
        link.send(bytes(1000), None, 0.0)
        assert link.queue_delay == wait
    assert link.counters.queue_full == 2  # 300 ms is the most, unless it is set
    link.send(bytes(1000), None, 0.25)
    assert link.queue_delay == 0.125
    assert link.longest_queue_delay == 0.375
    link.longest_queue_delay = 0.0
    link.send(bytes(1000), None, 2.0)
    assert (link.queue_delay, link.longest_queue_delay) == (0.0, 0.0)


def test_settings_may_be_replaced_while_datagrams_are_under_way() -> None:
    link = _link(LinkSettings(delay=0.01))
    _send(link, range(1))
    link.settings = LinkSettings(rate=80_000)
    _send(link, range(1, 3), size=1000)
    link.settings = LinkSettings()
    _send(link, range(3, 5), size=1000)
    # The limit is gone, and nothing overtakes what it still holds back.
    arrivals = []
    while (timer := link.get_timer()) is not None:
        arrivals += [(round(timer, 3), number) for number in _numbers(link, timer)]
    assert arrivals == [(0.01, 0), (0.1, 1), (0.2, 2), (0.2, 3), (0.2, 4)]
    link.send(bytes(1000), None, 0.5)
    assert link.get_timer() == 0.5


def test_all_of_it_is_the_same_again_with_the_same_seed() -> None:
    settings = LinkSettings(loss=0.1, delay=0.02, jitter=0.03, rate=1_000_000, duplicate=0.1, reorder=0.1)
    runs = []
    for seed in (5, 5, 6):
        link = _link(settings, seed=seed)
        _send(link, range(300), interval=0.005, size=500)
        runs.append(_numbers(link, 100.0))
    assert runs[0] == runs[1] != runs[2]


def test_the_extent_of_reordering() -> None:
    """One held back by 20 ms is overtaken by the four that follow 5 ms apart, and by no more."""
    link = _link(LinkSettings(reorder=0.05, reorder_delay=0.0201))
    _send(link, range(1000), interval=0.005)
    arrived = []
    while (timer := link.get_timer()) is not None:
        arrived += _numbers(link, timer)
    late = [place - number for place, number in enumerate(arrived) if place > number]
    assert link.counters.reordered == len(late) > 20
    assert max(late) == 4


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
