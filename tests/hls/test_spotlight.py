"""Who is large, and when that changes."""

from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.hls.spotlight import HOLD_SECONDS, Spotlight

NO_SCREENS = (False, False, False)


def test_the_first_before_anybody_spoke() -> None:
    spotlight = Spotlight("abc")
    assert spotlight.begin(NO_SCREENS) == 0
    assert spotlight.turn(NO_SCREENS, 100.0) is None


def test_who_spoke_before_the_start_is_large_at_once() -> None:
    spotlight = Spotlight("abc")
    spotlight.speaks("b")
    assert spotlight.begin(NO_SCREENS) == 1
    assert spotlight.turn(NO_SCREENS, 0.0) is None


def test_two_seconds_between_changes() -> None:
    spotlight = Spotlight("abc")
    assert turns(spotlight, [(0.0, "b"), (0.5, "c"), (1.0, "a"), (1.9, "c"), (2.0, "c"), (3.9, "a"), (4.0, "a")]) == [
        (0.0, 1),
        (2.0, 2),
        (4.0, 0),
    ]


def test_a_short_word_changes_nothing() -> None:
    assert turns(Spotlight("abc"), [(0.0, "b"), (0.5, "c"), (1.5, "b"), (2.5, "b")]) == [(0.0, 1)]


def test_who_is_not_in_the_picture_changes_nothing() -> None:
    spotlight = Spotlight("abc")
    assert turns(spotlight, [(0.0, "b"), (5.0, "x")]) == [(0.0, 1)]


def test_a_screen_goes_before_who_speaks() -> None:
    spotlight = Spotlight("abc")
    spotlight.speaks("b")
    screens = (False, False, True)
    assert spotlight.begin(screens) == 2
    spotlight.speaks("a")
    assert spotlight.turn(screens, 10.0) is None
    assert spotlight.turn(NO_SCREENS, 11.0) == 0, "it is paused, say"


def test_of_several_screens_that_of_who_speaks() -> None:
    spotlight = Spotlight("abc")
    screens = (False, True, True)
    assert spotlight.begin(screens) == 1
    assert turns(spotlight, [(0.0, "a"), (3.0, "c"), (6.0, "a")], screens) == [(3.0, 2)]


def test_a_change_that_could_not_be_made_is_tried_again_later() -> None:
    spotlight = Spotlight("abc")
    spotlight.speaks("b")
    assert spotlight.turn(NO_SCREENS, 0.0) == 1
    assert spotlight.turn(NO_SCREENS, 1.0) is None
    assert spotlight.large == 0
    assert spotlight.turn(NO_SCREENS, 2.0) == 1


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abcx"), st.tuples(*[st.booleans()] * 3)), max_size=50))
def test_never_sooner_and_always_to_somebody(steps: list[tuple[float, str, tuple[bool, ...]]]) -> None:
    spotlight, now, last = Spotlight("abc"), 0.0, float("-inf")
    for seconds, user, screens in steps:
        now += seconds
        spotlight.speaks(user)
        turn = spotlight.turn(screens, now)
        if turn is not None:
            assert turn in range(3)
            assert turn != spotlight.large
            assert screens[turn] or not any(screens)
            assert now - last >= HOLD_SECONDS
            spotlight.large, last = turn, now


def turns(
    spotlight: Spotlight, speakers: list[tuple[float, str]], screens: tuple[bool, ...] = NO_SCREENS
) -> list[tuple[float, int]]:
    """Each change, and when; every one can be made."""
    made = []
    for now, user in speakers:
        spotlight.speaks(user)
        if (turn := spotlight.turn(screens, now)) is not None:
            spotlight.large = turn
            made.append((now, turn))
    return made
