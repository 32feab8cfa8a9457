"""What is kept of a user's events: all of the latest, within bounds of number, size and time."""

import pytest

from trio_sfu.signalling.event_log import MAX_BYTES, MAX_EVENTS, EventLog, SentEvent


def event(number: int, size: int = 10) -> SentEvent:
    return SentEvent("numbered", {"number": number}, size)


def log_of(count: int, size: int = 10) -> EventLog:
    """A log of events 1 to ``count``, one a second."""
    log = EventLog()
    for number in range(1, count + 1):
        log.append(event(number, size), float(number))
    return log


def numbers(log: EventLog, after: int) -> list[int] | None:
    events = log.after(after)
    assert log.has_all_after(after) == (events is not None)
    return None if events is None else [each.payload["number"] for each in events]


@pytest.mark.parametrize(("after", "wanted"), [(0, [1, 2, 3]), (1, [2, 3]), (2, [3]), (3, [])])
def test_what_came_after_an_event(after: int, wanted: list[int]) -> None:
    assert numbers(log_of(3), after) == wanted


def test_an_empty_log() -> None:
    log = EventLog()
    assert (log.last, numbers(log, 0)) == (0, [])


def test_the_number_is_bounded() -> None:
    log = log_of(MAX_EVENTS + 5)
    assert log.last == MAX_EVENTS + 5
    assert numbers(log, 4) is None
    assert numbers(log, 5) == list(range(6, MAX_EVENTS + 6))


def test_the_size_is_bounded() -> None:
    log = log_of(5, MAX_BYTES // 4)
    assert numbers(log, 0) is None
    assert numbers(log, 1) == [2, 3, 4, 5]
    log.append(event(6, MAX_BYTES + 1), 6.0)
    assert numbers(log, 5) is None
    assert numbers(log, 6) == []
    log.append(event(7, MAX_BYTES), 7.0)
    assert numbers(log, 6) == [7]


def test_what_is_old_is_forgotten() -> None:
    log = log_of(5)
    log.forget_before(3.0)
    assert numbers(log, 1) is None
    assert numbers(log, 2) == [3, 4, 5]
    log.forget_before(100.0)
    assert numbers(log, 4) is None
    assert numbers(log, 5) == []
