"""One ticker for all rooms."""

import trio
import trio.testing

from trio_sfu.rooms.ticker import TICK_SECONDS, Ticker


async def test_all_who_wait_are_woken_together(autojump_clock: trio.testing.MockClock) -> None:
    woken: list[tuple[str, float]] = []
    ticker = Ticker()

    async def room(name: str) -> None:
        for _ in range(3):
            await ticker.wait()
            woken.append((name, round((trio.current_time() - start) / TICK_SECONDS, 6)))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        async with trio.open_nursery() as rooms:
            rooms.start_soon(room, "a")
            rooms.start_soon(room, "b")
        nursery.cancel_scope.cancel()
    assert sorted(woken) == [("a", 1.0), ("a", 2.0), ("a", 3.0), ("b", 1.0), ("b", 2.0), ("b", 3.0)]


async def test_nobody_waits_no_tick(autojump_clock: trio.testing.MockClock) -> None:
    ticker = Ticker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_keeps_nobody_from_being_woken(autojump_clock: trio.testing.MockClock) -> None:
    ticker = Ticker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        with trio.move_on_after(TICK_SECONDS / 2) as scope:
            await ticker.wait()
        assert scope.cancelled_caught
        with trio.fail_after(1):
            await ticker.wait()
        nursery.cancel_scope.cancel()
