"""What the server keeps for a transport that is there, measured as the benchmark does, and bounded."""

from bench.memory import growth


def test_a_connected_transport_takes_no_more_than_60_kilobytes_beyond_the_first() -> None:
    """With a hundred of each: the interpreter takes memory by the megabyte."""
    joined, first, second = growth(100, consume=True)
    assert 0 < first <= 60_000
    assert 0 < second <= 60_000  # with a consumer
    assert 0 < joined <= 100_000  # the user's signalling
