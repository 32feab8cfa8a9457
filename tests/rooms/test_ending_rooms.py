"""A room that is ending still has its name: who wants it for a new room gets it when that is over."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.fake_media import FakeMedia
from trio_sfu.media.router import Router
from trio_sfu.rooms import messages as m
from trio_sfu.rooms.live import LiveOutput, LiveParticipant
from trio_sfu.rooms.registry import Rooms, open_rooms
from trio_sfu.rooms.room import RoomLimits

TEA = "tea"


class SlowToLetGo:
    """A live output, such as one whose FFmpeg and disk take their time at the end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def run(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.seconds)

    def changed(self, participants: Sequence[LiveParticipant]) -> None:
        pass

    def speaks(self, user_id: str) -> None:
        pass


@asynccontextmanager
async def rooms_that_end_in(seconds: float) -> AsyncIterator[Rooms]:
    def live(room_id: str, router: Router, tell: object) -> LiveOutput:
        return SlowToLetGo(seconds)

    media = replace(FakeMedia().room_media(), live=live)
    async with open_rooms(media, RoomLimits(), lambda event: None, serialise=True) as rooms:
        yield rooms


async def create(rooms: Rooms, user: str) -> str:
    """The code of a refusal; "" where the room is there."""
    reply = await rooms.request(user, m.CreateRoom(room_id=TEA))
    if isinstance(reply, m.RequestError):
        return reply.code
    assert cast(m.RoomEntered, reply).room_id == TEA
    return ""


@pytest.mark.parametrize("by", ["leaving", "vanishing", "being closed"])
async def test_its_name_is_waited_for(by: str, autojump_clock: MockClock) -> None:
    async with rooms_that_end_in(2.0) as rooms:
        await create(rooms, "a")
        match by:
            case "leaving":
                await rooms.request("a", m.LeaveRoom())
            case "vanishing":
                await rooms.leave_all("a")
            case _:
                await rooms.close_room(TEA, "for a test")
                await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        assert await create(rooms, "b") == ""
        assert trio.current_time() - started == pytest.approx(2.0)
        assert rooms.room_ids("b") == (TEA,)
        assert rooms.room_ids("a") == ()
        assert rooms.counts()[0] == 1


async def test_its_last_user_may_make_it_anew(autojump_clock: MockClock) -> None:
    async with rooms_that_end_in(2.0) as rooms:
        for _ in range(3):
            assert await create(rooms, "a") == ""
            await rooms.request("a", m.LeaveRoom(room_id=TEA))


async def test_one_of_those_who_wait_gets_it(autojump_clock: MockClock) -> None:
    async with rooms_that_end_in(2.0) as rooms:
        await create(rooms, "a")
        await rooms.request("a", m.LeaveRoom())
        codes: list[str] = []

        async def ask(user: str) -> None:
            codes.append(await create(rooms, user))

        async with trio.open_nursery() as nursery:
            for user in "bcd":
                nursery.start_soon(ask, user)
            # Who comes to a room that is ending does not keep its name from the others.
            reply = await rooms.request("e", m.JoinRoom(room_id=TEA))
        assert isinstance(reply, m.RequestError)
        assert reply.code == "room-not-found"
        assert sorted(codes) == ["", "room-exists", "room-exists"]


async def test_it_is_not_waited_for_for_ever(autojump_clock: MockClock) -> None:
    async with rooms_that_end_in(20.0) as rooms:
        await create(rooms, "a")
        await rooms.request("a", m.LeaveRoom())
        started = trio.current_time()
        assert await create(rooms, "b") == "room-exists"
        assert trio.current_time() - started == pytest.approx(5.0)
        assert rooms.room_ids("b") == ()


async def test_a_room_that_goes_on_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with rooms_that_end_in(2.0) as rooms:
        await create(rooms, "a")
        started = trio.current_time()
        assert await create(rooms, "b") == "room-exists"
        assert trio.current_time() == started


async def test_the_end_of_all_ends_the_wait(autojump_clock: MockClock) -> None:
    codes: list[str] = []

    async def ask(rooms: Rooms) -> None:
        codes.append(await create(rooms, "b"))

    async with trio.open_nursery() as nursery, rooms_that_end_in(2.0) as rooms:
        await create(rooms, "a")
        await rooms.request("a", m.LeaveRoom())
        nursery.start_soon(ask, rooms)
        await trio.testing.wait_all_tasks_blocked()
    assert codes == ["shutting-down"]
