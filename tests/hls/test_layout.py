"""Tiles: none outside, none over another, all of one size but for a large one, even numbers."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.hls.layout import Tile, stage, tiles


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


def test_a_large_one_alone() -> None:
    assert stage(1, 1280, 720) == tiles(1, 1280, 720)


def test_a_large_one_and_two_below() -> None:
    assert stage(3, 1280, 720) == (
        Tile(0, 0, 1280, 576),
        Tile(384, 576, 256, 144),
        Tile(640, 576, 256, 144),
    )


def test_many_small_ones_are_in_rows() -> None:
    large, *small = stage(16, 1280, 720)
    assert large == Tile(0, 0, 1280, 540)
    assert {each.y for each in small} == {540, 630}
    assert {(each.width, each.height) for each in small} == {(160, 90)}


@given(st.integers(1, 49), st.integers(128, 3840), st.integers(128, 2160))
def test_small_ones_lie_below_the_large_one(count: int, width: int, height: int) -> None:
    try:
        large, *small = stage(count, width, height)
    except ValueError:
        assert min(width, height) // 16 < 18
        return
    assert len(small) == count - 1
    assert large[:3] == (0, 0, width // 2 * 2)
    assert large.height >= height * 0.7
    assert len({each[2:] for each in small}) <= 1
    for each in small:
        assert not any(number % 2 for number in each)
        assert each.x >= 0
        assert each.y >= large.height
        assert each.x + each.width <= width
        assert each.y + each.height <= height
    for one, other in combinations(small, 2):
        assert abs(one.x - other.x) >= one.width or abs(one.y - other.y) >= one.height


@pytest.mark.parametrize(("count", "width", "height"), [(0, 1280, 720), (49, 128, 128)])
def test_a_stage_that_cannot_be_is_refused(count: int, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="picture"):
        stage(count, width, height)


@pytest.mark.parametrize(("count", "width", "height"), [(0, 1280, 720), (49, 64, 64)])
def test_what_cannot_be_is_refused(count: int, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="picture"):
        tiles(count, width, height)
