"""Who gets what: the division, and how it changes over time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.media.bandwidth.allocation import Allocator, Claim, Decision, allocate, wanted_bitrate

SIMULCAST = (150_000, 500_000, 1_700_000)


def audio(name: str = "a", rate: int = 40_000) -> Claim:
    return Claim(name, "audio", (rate,))


def video(name: str = "v", options: tuple[int, ...] = SIMULCAST, priority: int = 1) -> Claim:
    return Claim(name, "video", options, priority)


@pytest.mark.parametrize(
    ("budget", "claims", "indices"),
    [
        (None, [audio(), video(), video("w")], [0, 2, 2]),
        (None, [], []),
        (10, [audio()], [0]),  # audio is never paused
        (10, [audio(), video()], [0, 0]),  # nor is the first video
        (10, [video(), video("w")], [0, None]),
        (10, [video(), video("w", priority=2)], [None, 0]),
        (340_000, [audio(), video(), video("w")], [0, 0, 0]),
        (339_999, [audio(), video(), video("w")], [0, 0, None]),
        (690_000, [audio(), video(), video("w")], [0, 1, 0]),
        (1_040_000, [audio(), video(), video("w")], [0, 1, 1]),
        (2_240_000, [audio(), video(), video("w")], [0, 2, 1]),
        (3_440_000, [audio(), video(), video("w")], [0, 2, 2]),
        (1_850_000, [video(), video("w")], [1, 1]),  # a round each
        (1_850_000, [video(), video("w", priority=2)], [0, 2]),  # two steps a round
        (1_000_000, [video("v", (2_000_000,), 5), video("w")], [0, None]),
        (1_000_000, [video("v", (2_000_000,)), video("w", priority=5)], [None, 1]),
        (600_000, [video("v", (300_000,)), video("w")], [0, 0]),
    ],
)
def test_division(budget: int | None, claims: list[Claim], indices: list[int | None]) -> None:
    assert [decision.index for decision in allocate(budget, claims)] == indices
    assert [decision.id for decision in allocate(budget, claims)] == [claim.id for claim in claims]


def test_what_is_wanted() -> None:
    assert wanted_bitrate([audio(), video(), video("w", (9,))]) == 1_740_009


options = st.lists(st.integers(10_000, 3_000_000), min_size=1, max_size=6).map(lambda rates: tuple(sorted(rates)))
claim_lists = st.lists(
    st.tuples(st.sampled_from(["audio", "video", "video"]), options, st.integers(1, 255)), max_size=8
).map(
    lambda drawn: [
        Claim(str(at), "audio" if kind == "audio" else "video", rates, priority)
        for at, (kind, rates, priority) in enumerate(drawn)
    ]
)


def total(claims: list[Claim], decisions: list[Decision]) -> int:
    return sum(
        claim.options[decision.index]
        for claim, decision in zip(claims, decisions, strict=True)
        if decision.index is not None
    )


def must_have(claims: list[Claim]) -> int:
    """Audio, and the lowest option of the first video."""
    videos = sorted((claim for claim in claims if claim.kind == "video"), key=lambda claim: -claim.priority)
    return sum(claim.options[-1] for claim in claims if claim.kind == "audio") + sum(
        claim.options[0] for claim in videos[:1]
    )


@settings(max_examples=200)
@given(st.integers(0, 12_000_000), claim_lists)
def test_the_budget_is_kept_and_nothing_that_fits_is_left(budget: int, claims: list[Claim]) -> None:
    decisions = allocate(budget, claims)
    used = total(claims, decisions)
    assert used <= max(budget, must_have(claims))
    for claim, decision in zip(claims, decisions, strict=True):
        if claim.kind == "audio":
            assert decision.index == len(claim.options) - 1
        elif decision.index is None:
            assert used + claim.options[0] > budget
        elif decision.index + 1 < len(claim.options):
            assert used + claim.options[decision.index + 1] - claim.options[decision.index] > budget


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 12_000_000)), st.integers(1, 30)), max_size=20), claim_lists
)
def test_over_time_the_budget_is_kept_too(budgets: list[tuple[int | None, int]], claims: list[Claim]) -> None:
    allocator = Allocator()
    again = Allocator()
    least = {claim.id: claim.options[0] for claim in claims if claim.kind == "video"}
    now = 0.0
    for budget, tenths in budgets:
        want = 0
        for _ in range(tenths):
            now += 0.1
            decisions = allocator.decide(budget, claims, now)
            assert decisions == again.decide(budget, claims, now)
            if budget is not None:
                # The least of each video goes on for a second, even where there is nothing for it.
                want += 1
                patience = sum(least.values()) if want <= 11 else 0
                assert total(claims, decisions) <= max(budget * 1.05, must_have(claims)) + patience


class Viewer:
    """Asks ten times a second."""

    def __init__(self, *claims: Claim) -> None:
        self.allocator = Allocator()
        self.claims = list(claims)
        self.now = 0.0

    def after(self, seconds: float, budget: int | None) -> list[int | None]:
        indices: list[int | None] = []
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            indices = [each.index for each in self.allocator.decide(budget, self.claims, self.now)]
        return indices

    def time_to(self, wanted: list[int | None], budget: int | None) -> float:
        start = self.now
        while self.after(0.1, budget) != wanted:
            assert self.now - start < 100
        return self.now - start


def test_who_is_new_gets_what_fits_with_room_to_spare_at_once() -> None:
    assert Viewer(video()).after(0.1, 570_000) == [0]
    assert Viewer(video()).after(0.1, 580_000) == [1]
    assert Viewer(audio(), video()).after(0.1, None) == [0, 2]


def test_rising_takes_a_second_and_fifteen_per_cent_of_room() -> None:
    viewer = Viewer(video())
    assert viewer.after(0.1, 200_000) == [0]
    assert viewer.after(30, 570_000) == [0]
    assert viewer.time_to([1], 580_000) == pytest.approx(1.1, abs=0.11)


def test_room_that_goes_and_comes_does_not_add_up() -> None:
    viewer = Viewer(video())
    viewer.after(0.1, 200_000)
    for _ in range(20):
        viewer.after(0.8, 600_000)
        assert viewer.after(0.2, 500_000) == [0]


def test_falling_is_at_once_but_not_for_a_trifle() -> None:
    viewer = Viewer(video())
    assert viewer.after(0.1, None) == [2]
    assert viewer.after(10, 1_620_000) == [2]
    assert viewer.after(0.1, 1_600_000) == [1]
    assert viewer.after(0.1, 100_000) == [0]


def test_after_a_drop_nobody_rises_for_two_seconds() -> None:
    viewer = Viewer(video())
    viewer.after(0.1, None)
    assert viewer.after(0.1, 400_000) == [0]
    assert viewer.time_to([2], 10_000_000) == pytest.approx(2, abs=0.21)


def test_each_rise_that_fails_is_waited_for_twice_as_long() -> None:
    viewer = Viewer(video())
    viewer.after(0.1, None)
    waits = []
    for _ in range(7):
        viewer.after(0.1, 400_000)
        waits.append(viewer.time_to([1], 600_000))
        viewer.after(2, 600_000)
    assert waits == pytest.approx([2, 4, 8, 16, 30, 30, 30], abs=0.3)
    viewer.after(20, 600_000)  # this one lasts
    viewer.after(0.1, 400_000)
    assert viewer.time_to([1], 600_000) == pytest.approx(2, abs=0.3)


def test_a_drop_over_several_steps_is_one_failure() -> None:
    viewer = Viewer(video())
    viewer.after(0.1, None)
    viewer.after(0.1, 600_000)
    viewer.after(0.1, 200_000)
    assert viewer.time_to([2], 10_000_000) == pytest.approx(2, abs=0.3)


def test_a_pause_lasts_two_seconds() -> None:
    viewer = Viewer(video("v", priority=2), video("w"))
    assert viewer.after(0.1, 400_000) == [0, 0]
    assert viewer.after(0.9, 200_000) == [0, 0]
    assert viewer.after(0.3, 200_000) == [0, None]
    assert viewer.after(1.6, 400_000) == [0, None]
    assert viewer.after(0.5, 400_000) == [0, 0]


def test_want_that_has_passed_does_not_count_later() -> None:
    viewer = Viewer(Claim("v", "video", (200_000,), 2), Claim("w", "video", (200_000,)))
    for _ in range(5):
        assert viewer.after(5, 1_000_000) == [0, 0]
        assert viewer.after(0.5, 250_000) == [0, 0]


def test_a_newcomer_is_given_room_by_those_who_have_more() -> None:
    viewer = Viewer(video())
    assert viewer.after(5, 2_000_000) == [2]
    viewer.claims.append(video("w"))
    assert viewer.after(0.1, 2_000_000)[1] is not None
    assert viewer.after(3, 2_000_000) == [1, 1]


def test_room_given_to_a_newcomer_is_no_failure() -> None:
    viewer = Viewer(video())
    viewer.after(5, 2_000_000)
    viewer.claims.append(video("w", (600_000,), 9))
    assert viewer.after(0.1, 2_000_000) == [1, 0]
    viewer.claims.pop()
    assert viewer.time_to([2], 2_000_000) < 1.3


def test_a_change_of_priority_moves_the_room() -> None:
    viewer = Viewer(video("v", priority=2), video("w"))
    assert viewer.after(3, 2_200_000) == [2, 0]
    viewer.claims = [video("v"), video("w", priority=2)]
    assert viewer.after(3, 2_200_000) == [0, 2]


def test_somebody_who_wants_less_gets_less_at_once() -> None:
    viewer = Viewer(video())
    assert viewer.after(1, None) == [2]
    viewer.claims = [video("v", SIMULCAST[:1])]
    assert viewer.after(0.1, 5_000_000) == [0]
    viewer.claims = [video()]
    assert viewer.time_to([2], 5_000_000) < 1.3
