"""One ticker for all rooms."""

import pytest
import trio
import trio.testing

from trio_sfu.rooms.ticker import TICK_SECONDS, Ticker


async def test_all_are_ticked_together_until_they_want_no_more(autojump_clock: trio.testing.MockClock) -> None:
    ticked: list[tuple[str, float]] = []
    ticker = Ticker()

    async def room(name: str, times: int) -> None:
        def tick(now: float) -> bool:
            ticked.append((name, round((now - start) / TICK_SECONDS, 6)))
            return sum(each == name for each, _ in ticked) < times

        await ticker.drive(tick)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        async with trio.open_nursery() as rooms:
            rooms.start_soon(room, "a", 3)
            rooms.start_soon(room, "b", 2)
        nursery.cancel_scope.cancel()
    assert sorted(ticked) == [("a", 1.0), ("a", 2.0), ("a", 3.0), ("b", 1.0), ("b", 2.0)]


async def test_nobody_there_no_tick(autojump_clock: trio.testing.MockClock) -> None:
    ticker = Ticker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        await ticker.drive(lambda _: False)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_or_fails_disturbs_nobody(autojump_clock: trio.testing.MockClock) -> None:
    ticker = Ticker()
    others: list[float] = []

    def other(now: float) -> bool:
        others.append(now)
        return len(others) < 10

    def fails(_: float) -> bool:
        raise ValueError("a bug")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        async with trio.open_nursery() as rooms:
            rooms.start_soon(ticker.drive, other)
            with trio.move_on_after(2.5 * TICK_SECONDS) as scope:
                await ticker.drive(lambda _: True)
            assert scope.cancelled_caught
            with pytest.raises(ValueError, match="a bug"):
                await ticker.drive(fails)
        nursery.cancel_scope.cancel()
    assert len(others) == 10


async def test_one_that_ends_another_one_within_a_tick(autojump_clock: trio.testing.MockClock) -> None:
    """It is called once more, and no harm is done."""
    ticker = Ticker()
    scope = trio.CancelScope()

    def ends_the_other(_: float) -> bool:
        scope.cancel()
        return False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        async with trio.open_nursery() as rooms:
            rooms.start_soon(ticker.drive, ends_the_other)
            with scope:
                await ticker.drive(lambda _: True)
        nursery.cancel_scope.cancel()
    assert scope.cancelled_caught
