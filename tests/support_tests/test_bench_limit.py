"""How the highest rate is searched, and what a trial of it proves."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bench.limit import Judge, Trial, search


@pytest.mark.parametrize("limit", [80.0, 700.0, 1000.0, 4321.0])
def test_the_search_comes_within_three_per_cent_of_the_limit(limit: float) -> None:
    found = search(lambda rate: rate <= limit, 500.0)
    assert limit / 1.03 <= found <= limit


def test_the_search_gives_up_where_nothing_holds() -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return False

    assert search(holds, 800.0) == 0.0
    assert tried == [800.0, 100.0]


GOOD, LATE, DISTURBED = (1.0, 5.0, 0.0), (1.0, 25.0, 0.0), (1.0, 25.0, 0.5)


def judge(outcomes: Iterable[tuple[float, float, float]]) -> Judge:
    """Of trials that give (delivered, p99, disturbed), one after the other."""
    left = iter(outcomes)

    def attempt(rate: float) -> Trial:
        delivered, p99, disturbed = next(left)
        return Trial(rate, delivered, p99, 0.5, disturbed)

    return Judge(attempt)


def test_what_a_trial_broke_is_said() -> None:
    assert Trial(1.0, 0.9995, 20.0, 0.5).holds
    assert Trial(1.0, 1.0, 21.4, 0.5).breach == "p99 21 ms"
    assert Trial(1.0, 0.99, 21.4, 0.5).breach == "99.00% delivered, p99 21 ms"
    assert Trial(1.0, 1.0, 5.0, 0.5).breach == ""


@pytest.mark.parametrize(
    ("outcomes", "holds"),
    [
        ([GOOD], True),
        ([LATE, GOOD], True),
        ([LATE, LATE], False),
        ([DISTURBED, LATE, GOOD], True),
        ([DISTURBED, DISTURBED, DISTURBED, GOOD], True),
        ([DISTURBED, LATE, DISTURBED, LATE], False),
        ([DISTURBED, DISTURBED, DISTURBED, DISTURBED], False),
    ],
)
def test_a_rate_fails_by_two_undisturbed_trials(outcomes: list[tuple[float, float, float]], holds: bool) -> None:
    found = judge(outcomes)
    assert found.holds(100.0) is holds
    assert len(found.trials) == len(outcomes)


def test_a_limit_that_does_not_hold_again_goes_down() -> None:
    """Up to 1000 all holds at first; the best is then found to have been luck."""
    tried: list[float] = []

    def attempt(rate: float) -> Trial:
        again = tried.count(rate)
        tried.append(rate)
        lucky = 900 < rate <= 1000 and again == 0
        return Trial(rate, 1.0, 5.0 if rate <= 900 or lucky else 25.0, 0.5)

    found = Judge(attempt).find(500.0)
    assert 900 / 1.06 < found <= 900
    assert tried.count(found) >= 2
    assert any(900 < rate <= 1000 for rate in tried)
