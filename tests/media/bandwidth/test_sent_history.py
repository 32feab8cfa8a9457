"""Feedback against what was sent: groups, losses, and whatever a client may claim."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.media.bandwidth.sent_history import SentHistory
from trio_sfu.wire.transport_feedback import TransportFeedback

MS = 0.001


def feedback(base: int, *deltas: int | None, reference: int = 100) -> TransportFeedback:
    return TransportFeedback(1, 2, base & 0xFFFF, reference, 0, deltas)


def three_groups(first: int = 100) -> SentHistory:
    history = SentHistory()
    for index in range(3):
        history.on_sent(first + 10 * index & 0xFFFF, 10_000 * (index + 1), 10, 5.0 + 0.033 * index)
    return history


@pytest.mark.parametrize("first", [0, 100, 0xFFF0, 0xFFFF])
def test_groups_are_reported_with_their_last_arrival(first: int) -> None:
    history = three_groups(first)
    summary = history.on_feedback(feedback(first, *[4] * 30), 5.2)
    assert [group[1] for group in summary.groups] == [5.0, 5.033, 5.066]
    assert [group[2] for group in summary.groups] == pytest.approx([6.41, 6.42, 6.43])
    assert [group[3] for group in summary.groups] == [10_000, 20_000, 30_000]
    assert (summary.size, summary.received, summary.lost, summary.presumed) == (60_000, 30, 0, 0)
    assert summary.last - summary.first == 29
    assert summary.first & 0xFFFF == first
    assert summary.round_trip == pytest.approx(5.2 - 5.066)
    assert len(history) == 0


def test_what_is_sent_within_five_ms_is_one_group() -> None:
    history = SentHistory()
    for index, now in enumerate((5.0, 5.002, 5.005, 5.0051, 5.02)):
        history.on_sent(index * 2, 100, 2, now)
    summary = history.on_feedback(feedback(0, *[1] * 10), 6)
    assert [(sent, size) for _, sent, _, size, _ in summary.groups] == [(5.005, 300), (5.0051, 100), (5.02, 100)]


def test_a_group_may_be_split_between_two_messages() -> None:
    history = three_groups()
    first = history.on_feedback(feedback(100, *[4] * 5), 5.1).groups
    second = history.on_feedback(feedback(105, *[4] * 25, reference=101), 5.2).groups
    assert first[0][0] == second[0][0]
    assert first[0][3] == second[0][3] == 5_000
    assert len(second) == 3


def test_a_group_that_goes_on_after_it_was_reported() -> None:
    """On loopback feedback comes back within the 5 ms of a group."""
    history = SentHistory()
    history.on_sent(0, 1000, 2, 5.0)
    assert history.on_feedback(feedback(0, 1, 1), 5.001).received == 2
    history.on_sent(2, 1000, 2, 5.002)
    history.on_sent(4, 1000, 2, 5.003)
    assert history.on_feedback(feedback(2, 1, 1), 5.004).received == 2
    history.on_sent(6, 1000, 2, 5.005)
    summary = history.on_feedback(feedback(4, 1, 1, 1, 1), 5.006)
    assert (summary.received, summary.size) == (4, 2000)


def test_losses_take_their_share_of_the_bytes() -> None:
    summary = three_groups().on_feedback(feedback(100, *[4, None] * 15), 5.2)
    assert (summary.received, summary.lost, summary.size) == (15, 15, 30_000)
    assert [group[2] for group in summary.groups] == pytest.approx([6.405, 6.41, 6.415])


def test_the_last_arrival_of_a_group_that_was_reordered() -> None:
    summary = three_groups().on_feedback(feedback(100, *[4] * 8, 40, -20), 5.2)
    assert [group[2] for group in summary.groups] == [6.4 + 72 / 4000]


def test_a_group_of_which_nothing_came_is_lost_and_not_reported() -> None:
    summary = three_groups().on_feedback(feedback(100, *[4] * 10, *[None] * 10, *[4] * 10), 5.2)
    assert [group[1] for group in summary.groups] == [5.0, 5.066]
    assert summary.lost == 10


def test_a_late_arrival_takes_a_loss_back_once() -> None:
    history = three_groups()
    assert history.on_feedback(feedback(100, *[4] * 8, None, 4), 5.1).lost == 1
    again = feedback(108, 4, 4, *[4] * 10)
    summary = history.on_feedback(again, 5.2)
    assert (summary.recovered, summary.received, summary.lost) == (1, 10, 0)
    assert history.on_feedback(again, 5.2).recovered == 0


def test_arrivals_after_those_reported_before_are_right() -> None:
    history = three_groups()
    history.on_feedback(feedback(100, *[4] * 20), 5.1)
    summary = history.on_feedback(feedback(100, *[4] * 30), 5.2)
    assert [group[2] for group in summary.groups] == pytest.approx([6.43])


def test_what_lost_feedback_would_have_told_is_presumed() -> None:
    history = three_groups()
    summary = history.on_feedback(feedback(115, *[4] * 15), 5.2)
    assert summary.presumed == 10_000 + 10_000
    assert summary.size == 10_000 + 30_000
    history = three_groups()
    assert history.on_feedback(feedback(115, *[4] * 15), 8).presumed == 0  # an outage


@pytest.mark.parametrize(
    "message",
    [
        feedback(130, 4, 4),  # never sent
        feedback(99 - 20, *[4] * 10),  # from before the first
        feedback(100 + 0x8000, 4),
        feedback(100),
    ],
)
def test_feedback_on_nothing_that_was_sent(message: TransportFeedback) -> None:
    history = three_groups()
    summary = history.on_feedback(message, 5.2)
    assert summary.groups == []
    assert summary.received == summary.lost == 0
    assert history.on_feedback(feedback(100, *[4] * 30), 5.2).received == 30  # nothing is spoilt


def test_what_goes_beyond_the_last_number_is_cut_off() -> None:
    history = three_groups()
    assert history.on_feedback(feedback(90, *[4] * 500), 5.2).received == 30
    assert SentHistory().on_feedback(feedback(90, *[4] * 500), 5.2).received == 0


def test_a_repeated_message_tells_nothing() -> None:
    history = three_groups()
    message = feedback(100, *[4] * 20)
    assert history.on_feedback(message, 5.2).received == 20
    assert history.on_feedback(message, 5.2).received == 0
    assert history.on_feedback(feedback(105, *[4] * 25), 5.2).received == 10


def test_numbers_that_were_left_out_are_nobodys() -> None:
    history = SentHistory()
    history.on_sent(10, 1000, 10, 5.0)
    history.on_sent(25, 1000, 5, 5.001)
    summary = history.on_feedback(feedback(10, *[4] * 10, *[None] * 5, *[4] * 5), 5.1)
    assert (summary.received, summary.lost) == (15, 0)
    assert [size for _, _, _, size, _ in summary.groups] == [1000, 1000]


def test_the_reference_time_wraps() -> None:
    history = three_groups()
    one = history.on_feedback(feedback(100, *[4] * 10, reference=0x7FFFFF), 5.1).groups[0]
    two = history.on_feedback(feedback(110, *[4] * 10, reference=-0x800000), 5.2).groups[0]
    assert two[2] - one[2] == pytest.approx(0.064)


def test_the_history_is_bounded() -> None:
    history = SentHistory()
    for step in range(20_000):
        history.on_sent(step * 3 & 0xFFFF, 300, 3, step * 0.006)
    assert len(history) <= 10 / 0.006 + 1
    for step in range(20_000):
        history.on_sent((60_000 + step * 64) & 0xFFFF, 300, 64, 130 + step * 0.0051)
    assert len(history) <= 0x7000 // 64
    # Forgotten: no verdict, and what is younger is found.
    last = 60_000 + 20_000 * 64
    summary = history.on_feedback(feedback(last - 0x7000 - 640, *[0] * (0x7000 + 640)), 240)
    assert summary.lost == 0
    assert 0x7000 - 64 <= summary.received <= 0x7000


def test_probe_clusters_are_groups_of_their_own() -> None:
    history = SentHistory()
    history.on_sent(0, 100, 1, 5.0)
    history.probe = 7
    history.on_sent(1, 100, 1, 5.001)
    history.probe = 0
    history.on_sent(2, 100, 1, 5.002)
    assert [probe for *_, probe in history.on_feedback(feedback(0, 1, 1, 1), 6).groups] == [0, 7, 0]


def test_what_a_probe_loses_is_counted() -> None:
    history = SentHistory()
    history.on_sent(0, 1000, 4, 5.0)
    history.probe = 7
    history.on_sent(4, 2000, 4, 5.02)
    history.on_sent(8, 500, 1, 5.04)
    assert history.on_feedback(feedback(0, None, 1, 1, 1, 1, None, 1, 1, None), 6).probe_lost == 1000


delta = st.one_of(st.none(), st.integers(0, 255), st.integers(-0x8000, 0x7FFF))
messages = st.builds(
    TransportFeedback,
    st.just(1),
    st.just(2),
    st.one_of(st.integers(0, 0xFFFF), st.integers(0, 300)),
    st.one_of(st.integers(-0x800000, 0x7FFFFF), st.integers(0, 100)),
    st.integers(0, 255),
    st.lists(delta, max_size=60).map(tuple),
)
steps = st.lists(st.one_of(messages, st.tuples(st.integers(1, 64), st.integers(0, 3))), max_size=60)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(0, 0xFFFF))
def test_fuzz(script: list[TransportFeedback | tuple[int, int]], first: int) -> None:
    """Whatever the feedback, no packet is counted twice and no byte comes from nowhere."""
    history = SentHistory()
    number = first
    now = 1.0
    packets = size = counted = received = 0
    last_group = 0
    for step in script:
        now += 0.004
        if isinstance(step, tuple):
            count, skipped = step
            number = number + skipped & 0xFFFF
            history.on_sent(number, count * 100, count, now)
            number = number + count & 0xFFFF
            packets += count
            size += count * 100
        else:
            summary = history.on_feedback(step, now)
            counted += summary.received + summary.lost
            received += summary.size + summary.presumed
            for group, sent, _, some, _ in summary.groups:
                assert group >= last_group
                assert 1.0 <= sent <= now
                assert some > 0
                last_group = group
    assert counted <= packets
    assert received <= size
    assert history.bytes_sent == size


def test_a_long_run_with_lost_feedback_accounts_for_all_that_is_reported() -> None:
    random = Random(3)
    history = SentHistory()
    number = 0xFF00
    pending: list[int | None] = []
    base = number
    expected = got = 0
    for step in range(2000):
        count = random.randrange(1, 20)
        history.on_sent(number & 0xFFFF, count * 500, count, step * 0.01)
        number += count
        pending += [None if random.random() < 0.1 else 2 for _ in range(count)]
        if step % 7 == 6:
            if random.random() < 0.8:
                expected += len(pending)
                summary = history.on_feedback(feedback(base, *pending, reference=step), step * 0.01)
                got += summary.received + summary.lost
            base, pending = number, []
    assert got == expected > 10_000
