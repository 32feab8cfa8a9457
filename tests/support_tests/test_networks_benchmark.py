"""The table of bench/networks.py: the worse direction of each row, and what is asked for."""

from dataclasses import replace

from bench.networks import Direction, row, wanted
from tests.browser.quality import Heard, Seen

SEEN = Seen(
    consumer_id="c",
    producer_id="p",
    seconds=20.0,
    frames=590,
    dropped=0,
    keyframes=0,
    width=640,
    freezes=1,
    frozen=0.3,
    longest_gap=0.31,
    gaps=(),
    sizes=((1.0, 640),),
    plis=0,
    nacks=40,
    retransmissions=35,
    jitter_buffer=0.061,
    decoder="libvpx",
)
HEARD = Heard("c", "p", seconds=20.0, concealed=0.0123, concealments=20, nacks=0, jitter_buffer=0.037)


def test_a_row_is_the_worse_of_both_directions() -> None:
    good = Direction(30.0, 590 / 600, SEEN, HEARD)
    worse = Direction(29.0, 0.8, replace(SEEN, frames=464, longest_gap=0.9), replace(HEARD, concealed=0.2))
    expected = ["5%", "80%", "29.0", "23.2", "1", "0.90 s", "40", "35", "0", "61 ms", "20.0%", "37 ms"]
    assert row(0.05, [good, worse]) == row(0.05, [worse, good]) == expected


def test_what_is_asked_for() -> None:
    assert [wanted(percent / 100) for percent in (1, 5, 10, 20, 3)] == [0.95, 0.90, 0.80, 0.60, 0.0]
