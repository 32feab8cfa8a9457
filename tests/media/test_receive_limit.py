"""The estimate for REMB."""

from trio_sfu.media.receive_limit import ReceiveLimit


def run(limit: ReceiveLimit, seconds: int, *, bitrate: float, lost: float = 0.0, start: float = 0.0) -> int:
    estimate = 0
    for second in range(seconds):
        limit.on_packet(int(bitrate / 8))
        estimate = limit.update(lost, start + second)
    return estimate


def test_grows_while_it_is_used() -> None:
    assert run(ReceiveLimit(), 12, bitrate=3_000_000) > 8_000_000


def test_does_not_grow_unused() -> None:
    assert run(ReceiveLimit(), 60, bitrate=100_000) == 1_000_000


def test_a_little_loss_holds_it_and_much_lowers_it() -> None:
    assert run(ReceiveLimit(), 10, bitrate=1_000_000, lost=0.05) == 1_000_000
    assert run(ReceiveLimit(), 1, bitrate=1_000_000, lost=0.5) == 750_000


def test_bounds() -> None:
    assert run(ReceiveLimit(), 60, bitrate=100_000_000) == 50_000_000
    assert run(ReceiveLimit(), 60, bitrate=0, lost=1.0) == 100_000


def test_the_same_instant_twice() -> None:
    limit = ReceiveLimit()
    assert limit.update(0.0, 5.0) == limit.update(0.0, 5.0) == 1_000_000
