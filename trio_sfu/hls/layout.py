"""Where each participant's tile is in the picture. Pure arithmetic; used by the FFmpeg command."""

from math import ceil, isqrt
from typing import NamedTuple

__all__ = ["Tile", "stage", "tiles"]


class Tile(NamedTuple):
    """A rectangle in pixels; all four numbers are even, as 4:2:0 pictures need."""

    x: int
    y: int
    width: int
    height: int


def tiles(count: int, width: int, height: int) -> tuple[Tile, ...]:
    """One participant gets the whole picture, two get a half each, more a grid whose last row is centred.

    Raises ValueError where ``count`` is less than 1 or the picture too small for it.
    """
    if count < 1:
        raise ValueError("a picture needs a participant")
    columns = 2 if count == 2 else isqrt(count - 1) + 1
    rows = ceil(count / columns)
    tile_width, tile_height = width // columns // 2 * 2, height // rows // 2 * 2
    if tile_width < 16 or tile_height < 16:
        raise ValueError(f"a picture of {width}x{height} is too small for {count} participants")
    places: list[Tile] = []
    for row in range(rows):
        in_row = min(columns, count - row * columns)
        left = (width - in_row * tile_width) // 4 * 2
        top = (height - rows * tile_height) // 4 * 2 + row * tile_height
        places += (Tile(left + column * tile_width, top, tile_width, tile_height) for column in range(in_row))
    return tuple(places)


def stage(count: int, width: int, height: int) -> tuple[Tile, ...]:
    """A large tile, the first, as wide as the picture, and a strip of small ones below it, centred.

    Up to five small ones are in one row of a fifth of the height; more get a quarter, in rows that hold all of them.
    Raises ValueError where ``count`` is less than 1 or the picture too small for it.
    """
    small = count - 1
    if small < 1:
        return tiles(count, width, height)
    share, rows = (5, 1) if small <= 5 else (4, isqrt((small - 1) // 4) + 1)
    columns = min(share * rows, ceil(small / rows))
    tile_width, tile_height = width // (share * rows) // 2 * 2, height // (share * rows) // 2 * 2
    if tile_width < 16 or tile_height < 16:
        raise ValueError(f"a picture of {width}x{height} is too small for {count} participants")
    strip = height - rows * tile_height
    places = [Tile(0, 0, width // 2 * 2, strip // 2 * 2)]
    for index in range(small):
        row, column = divmod(index, columns)
        left = (width - min(columns, small - row * columns) * tile_width) // 4 * 2
        places.append(Tile(left + column * tile_width, strip // 2 * 2 + row * tile_height, tile_width, tile_height))
    return tuple(places)
