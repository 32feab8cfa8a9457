"""When keyframes are asked for."""

from trio_sfu.media.keyframes import KeyFrameRequester


def sent_at(requester: KeyFrameRequester, start: float, end: float) -> list[float]:
    """When a tick every 10 ms sends requests, in seconds from ``start``."""
    times = []
    for step in range(round((end - start) * 100) + 1):
        now = start + step / 100
        if requester.due(now):
            times.append(round(now - start, 2))
    return times


def test_nothing_is_due_unasked() -> None:
    requester = KeyFrameRequester()
    assert not requester.due(0.0)
    assert not requester.waiting


def test_an_urgent_request_goes_at_once_and_again_until_a_keyframe_comes() -> None:
    requester = KeyFrameRequester()
    assert requester.request(10.0, urgent=True)
    assert requester.waiting
    assert sent_at(requester, 10.0, 10.35) == [0.1, 0.2, 0.3]
    requester.on_keyframe(10.36)
    assert not requester.waiting
    assert sent_at(requester, 10.36, 12.0) == []
    assert requester.requests_sent == 4


def test_many_urgent_requests_share() -> None:
    requester = KeyFrameRequester()
    assert requester.request(10.0, urgent=True)
    assert not any(requester.request(10.0 + step / 1000, urgent=True) for step in range(90))
    assert requester.requests_sent == 1


def test_others_wait_for_half_a_second_after_the_last_keyframe() -> None:
    requester = KeyFrameRequester()
    requester.on_keyframe(10.0)
    assert not requester.request(10.1, urgent=False)
    assert requester.waiting
    assert not requester.due(10.49)
    assert requester.due(10.5)
    requester.on_keyframe(10.6)
    assert requester.request(12.0, urgent=False)


def test_an_urgent_request_does_not_wait_for_one_put_off() -> None:
    """A newcomer is served at once even where a loss has just been reported by somebody else."""
    requester = KeyFrameRequester()
    requester.on_keyframe(10.0)
    assert not requester.request(10.1, urgent=False)
    assert requester.request(10.2, urgent=True)


def test_a_request_put_off_is_met_by_a_keyframe_that_comes_first() -> None:
    requester = KeyFrameRequester()
    requester.on_keyframe(10.0)
    requester.request(10.1, urgent=False)
    requester.on_keyframe(10.2)
    assert sent_at(requester, 10.2, 12.0) == []


def test_a_search_becomes_slow_and_ends() -> None:
    requester = KeyFrameRequester()
    assert requester.request(10.0, urgent=True)
    times = sent_at(requester, 10.0, 100.0)
    assert times[:19] == [round(each / 10, 1) for each in range(1, 20)]
    assert times[19:22] == [2.9, 3.9, 4.9]
    assert requester.requests_sent == 60
    assert not requester.waiting


def test_a_newcomer_makes_a_slow_search_quick() -> None:
    for seconds in (1.95, 2.5, 3.7):
        requester = KeyFrameRequester()
        requester.request(10.0, urgent=True)
        sent_at(requester, 10.0, 10.0 + seconds)
        at_once = requester.request(10.0 + seconds, urgent=True)
        assert at_once == (seconds > 2)  # the one before 1.95 is too recent
        assert len(sent_at(requester, 10.0 + seconds, 10.5 + seconds)) == 5


def test_a_slow_search_stays_slow_for_others() -> None:
    requester = KeyFrameRequester()
    requester.request(10.0, urgent=True)
    sent_at(requester, 10.0, 13.0)
    assert not requester.request(13.1, urgent=False)


def test_the_rate_is_bounded_whatever_is_asked() -> None:
    requester = KeyFrameRequester()
    sent = sum(requester.request(step / 1000, urgent=True) for step in range(10_000))
    assert sent <= 101
