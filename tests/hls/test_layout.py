"""Tiles: none outside, none over another, all of one size, even numbers."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.hls.layout import Tile, tiles


def test_one_fills_the_picture() -> None:
    assert tiles(1, 1280, 720) == (Tile(0, 0, 1280, 720),)


def test_two_are_side_by_side() -> None:
    assert tiles(2, 1280, 720) == (Tile(0, 0, 640, 720), Tile(640, 0, 640, 720))


def test_three_are_a_grid_with_the_last_one_centred() -> None:
    assert tiles(3, 1280, 720) == (Tile(0, 0, 640, 360), Tile(640, 0, 640, 360), Tile(320, 360, 640, 360))


def test_five() -> None:
    first, *_, last = tiles(5, 1280, 720)
    assert (first.width, first.height) == (426, 360)
    assert last == Tile(640, 360, 426, 360)


@given(st.integers(1, 49), st.integers(128, 3840), st.integers(128, 2160))
def test_tiles_lie_inside_and_apart(count: int, width: int, height: int) -> None:
    try:
        places = tiles(count, width, height)
    except ValueError:
        assert width // 7 < 18 or height // 7 < 18
        return
    assert len(places) == count
    assert len({(each.width, each.height) for each in places}) == 1
    for each in places:
        assert not any(number % 2 for number in each)
        assert each.x >= 0
        assert each.y >= 0
        assert each.x + each.width <= width
        assert each.y + each.height <= height
    for one, other in combinations(places, 2):
        apart = abs(one.x - other.x) >= one.width or abs(one.y - other.y) >= one.height
        assert apart


@pytest.mark.parametrize(("count", "width", "height"), [(0, 1280, 720), (49, 64, 64)])
def test_what_cannot_be_is_refused(count: int, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="picture"):
        tiles(count, width, height)
