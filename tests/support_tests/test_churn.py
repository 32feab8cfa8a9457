"""Who has left is forgotten: a short run of ``bench/churn.py``. Counts are compared, never memory or time."""

from __future__ import annotations

import pytest

from bench.churn import HELD, Point, churn_server, cycle, slope
from bench.dtls import ClientIdentity


def test_calls_that_have_ended_leave_no_object_behind() -> None:
    identity = ClientIdentity()
    counts: list[dict[str, int]] = []
    with churn_server() as server:
        # The first round makes what is made once and stays: caches, pages, tables.
        for _ in range(4):
            for polite in (True, False):
                assert cycle(server, identity, consumers=2, seconds=0.2, polite=polite) > 0
            server.wait_empty()
            counts.append(server.objects())
        assert server.held() == dict.fromkeys(HELD, 0)
    assert sum(counts[0].values()) > 0
    # What grows with each round is left behind by it; one that has just not gone yet is no more the next time.
    grown = {}
    for name in counts[3]:
        history = [each.get(name, 0) for each in counts[1:]]
        if history[0] < history[1] < history[2]:
            grown[name] = history
    assert grown == {}


def test_objects_are_counted_while_somebody_is_there() -> None:
    with churn_server() as server:
        empty = server.objects()
        from bench.load import Call

        with Call(server.url, 2, ClientIdentity()):
            full = server.objects()
            held = server.held()
        server.wait_empty()
    name = "trio_sfu.transport.webrtc.WebRtcTransport"
    assert (empty.get(name, 0), full[name]) == (0, 3)
    assert (held["peers"], held["transports"], held["producers"], held["consumers"]) == (3, 3, 1, 2)


def test_growth_is_a_slope_after_the_warm_up() -> None:
    flat = [Point(i, 5 * i, 100.0 if i else 10.0) for i in range(20)]
    assert slope(flat) == pytest.approx(0.0)
    assert slope([Point(i, i, 50 + i / 1024) for i in range(30)]) == pytest.approx(1024.0)
    assert slope([]) == 0.0
