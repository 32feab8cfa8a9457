"""Users who lose their socket and come back by another one: every way it can go, on a clock of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.fake_media import FakeMedia
from trio_sfu.rooms.envelopes import Event
from trio_sfu.rooms.messages import ActiveSpeaker, AudioLevel, AudioLevels
from trio_sfu.rooms.registry import Rooms, open_rooms
from trio_sfu.rooms.room import RoomLimits
from trio_sfu.signalling import resumption as resumption_module
from trio_sfu.signalling.event_log import MAX_EVENTS
from trio_sfu.signalling.handlers import Handlers, Sockets
from trio_sfu.signalling.resumption import LOSSES, Resumption, open_resumption
from trio_sfu.signalling.user import KEPT_SECONDS

GRACE = 15.0
Json = dict[str, Any]


class FakeSocket:
    """A Socket.IO socket with what came out of it, acknowledgements among it as ``ack``."""

    def __init__(self, sid: str, world: "World") -> None:
        self.id = sid
        self.connected = True
        self.out: list[tuple[str, Any]] = []
        self._world = world
        self._after: list[Callable[[], None]] = []

    def emit(self, name: str, *args: object) -> None:
        if self.connected:
            msgspec.json.encode(args)  # must be JSON
            self.out.append((name, args[0]))

    def after_ack(self, action: Callable[[], None]) -> None:
        self._after.append(action)

    def disconnect(self) -> None:
        self.connected = False
        self._world.put_out.append(self.id)

    async def ask(self, name: str, payload: Json | None = None) -> Json:
        """A request, as the Socket.IO layer carries it out."""
        (ack,) = await self._world.handlers.event(self, name, [payload or {}])
        self.emit("ack", ack)
        actions, self._after = self._after, []
        for action in actions:
            action()
        assert isinstance(ack, dict)
        return ack

    async def code(self, name: str, payload: Json | None = None) -> str:
        ack = await self.ask(name, payload)
        assert set(ack) == {"error", "code"}, ack
        return str(ack["code"])

    async def lose(self, reason: str = "transport close") -> None:
        """The socket is gone; returns when the server has done with it."""
        self.connected = False
        await self._world.handlers.disconnected(self, reason)

    def take(self, *, volatile: bool = False) -> list[str]:
        """The names of what came since the last look."""
        names = [name for name, _ in self.out if volatile or name != "audioLevels"]
        self.out.clear()
        return names


class World:
    def __init__(self, rooms: Rooms, sockets: Sockets, resumption: Resumption, media: FakeMedia) -> None:
        self.rooms, self.sockets, self.resumption, self.media = rooms, sockets, resumption, media
        self.handlers = Handlers(rooms, sockets, resumption)
        self.put_out: list[str] = []

    async def socket(self, sid: str) -> FakeSocket:
        socket = FakeSocket(sid, self)
        await self.handlers.connected(socket, None)
        return socket

    async def room(self) -> tuple[FakeSocket, FakeSocket, str]:
        """Two users of the room ``tea``: one who stays, and ``b``, who is resumable and has this token."""
        stays, b = await self.socket("stays"), await self.socket("b")
        await stays.ask("createRoom", {"roomId": "tea"})
        token = (await b.ask("joinRoom", {"roomId": "tea", "resumable": True}))["resumeToken"]
        stays.take()
        b.take()
        return stays, b, token

    def say(self, producer_id: str, user: str = "b") -> None:
        """An event for a user."""
        payload = ActiveSpeaker(room_id="tea", user_id=user, producer_id=producer_id)
        self.sockets.deliver(Event(user_ids=(user,), payload=payload))

    @property
    def peers(self) -> int:
        """How often somebody is in a room."""
        return sum(map(len, self.rooms._memberships.values()))


@asynccontextmanager
async def a_world(grace: float = GRACE) -> AsyncIterator[World]:
    """At the end nobody is parked, and nothing is open."""
    media, sockets = FakeMedia(), Sockets()
    async with (
        open_rooms(media.room_media(), RoomLimits(), sockets.deliver) as rooms,
        open_resumption(rooms, sockets, grace) as resumption,
    ):
        yield World(rooms, sockets, resumption, media)
        await wait_all_tasks_blocked()
    assert media.open == set()


def said(socket: FakeSocket) -> list[str]:
    return [payload["producerId"] for name, payload in socket.out if name == "activeSpeaker"]


async def test_a_user_comes_back(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        stays, b, token = await world.room()
        assert len(token) >= 22  # 128 bits in base64
        transport = await b.ask("createProducerTransport")
        await b.lose()
        assert (world.resumption.parked_count, world.peers, len(world.sockets)) == (1, 2, 2)
        assert stays.take() == []
        await trio.sleep(GRACE - 0.1)
        for number in "123":
            world.say(number)
        c = await world.socket("c")
        ack = await c.ask("resume", {"resumeToken": token})
        assert ack.pop("resumeToken") not in ("", token)
        assert ack == {"userId": "b", "roomIds": ["tea"], "resumeSeconds": GRACE}
        # Events come after the acknowledgement, in order.
        assert c.out[0][0] == "ack"
        assert said(c) == ["1", "2", "3"]
        assert len(c.out) == 4
        assert world.resumption.parked_count == 0
        # And it is the same user: others see the old id, and what was theirs is theirs.
        await trio.sleep(10 * GRACE)
        assert world.peers == 2
        assert (await c.ask("connectProducerTransport", {"dtlsParameters": DTLS})) == {"connected": True}
        assert transport["id"] in {each.id for each in world.media.transports if each.state == "connecting"}
        await c.ask("joinRoom", {"roomId": "tea", "name": "Bea"})
        peers = [payload["peers"] for name, payload in stays.out if name == "peersChanged"]
        assert peers[-1] == [{"userId": "stays", "name": None}, {"userId": "b", "name": "Bea"}]
        world.say("4")
        assert said(c)[-1] == "4"
        await c.ask("leaveRoom")
        assert world.peers == 1


DTLS = {"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": ":".join(["AB"] * 32)}]}


async def test_a_user_does_not_come_back(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        stays, b, token = await world.room()
        await b.ask("createProducerTransport")
        await b.lose()
        await trio.sleep(GRACE - 0.01)
        assert (world.peers, stays.take()) == (2, [])
        await trio.sleep(0.02)
        await wait_all_tasks_blocked()
        assert (world.peers, len(world.sockets), world.resumption.parked_count) == (1, 1, 0)
        assert stays.take() == ["peersChanged", "roomProducersChanged"]
        assert world.media.open == set()
        c = await world.socket("c")
        assert await c.code("resume", {"resumeToken": token}) == "resume-failed"
        assert world.resumption.stats.expired == 1


@pytest.mark.parametrize("reason", sorted(LOSSES))
async def test_losses(reason: str, autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, _ = await world.room()
        await b.lose(reason)
        assert (world.resumption.parked_count, world.peers) == (1, 2)


@pytest.mark.parametrize(
    "reason",
    [
        "client namespace disconnect", "client going away", "server namespace disconnect", "server shutting down",
        "forced server close", "parse error", "slow client", "",
    ],
)  # fmt: skip
async def test_goodbyes(reason: str, autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, token = await world.room()
        await b.lose(reason)
        assert (world.resumption.parked_count, world.peers, len(world.sockets)) == (0, 1, 1)
        assert await (await world.socket("c")).code("resume", {"resumeToken": token}) == "resume-failed"


@pytest.mark.parametrize("payload", [{}, {"resumable": False}, {"resumable": None}])
async def test_who_has_not_asked_for_it_leaves_at_once(payload: Json, autojump_clock: MockClock) -> None:
    async with a_world() as world:
        b = await world.socket("b")
        assert await b.ask("createRoom", {"roomId": "tea", **payload}) == {"roomId": "tea"}
        assert await b.ask("joinRoom", {"roomId": "tea", **payload}) == {"roomId": "tea"}
        await b.lose()
        assert (world.resumption.parked_count, world.peers, len(world.sockets)) == (0, 0, 0)


async def test_a_server_that_resumes_nothing(autojump_clock: MockClock) -> None:
    async with a_world(grace=0) as world:
        b = await world.socket("b")
        assert await b.ask("createRoom", {"roomId": "tea", "resumable": True}) == {"roomId": "tea"}
        assert await (await world.socket("c")).code("resume", {"resumeToken": "b.x"}) == "resume-failed"
        await b.lose()
        assert world.peers == 0


async def test_who_is_in_no_room_leaves_at_once(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, token = await world.room()
        await b.ask("leaveRoom")
        await b.lose()
        assert (world.resumption.parked_count, len(world.sockets)) == (0, 1)
        assert await (await world.socket("c")).code("resume", {"resumeToken": token}) == "resume-failed"


async def test_a_token_is_one_users_and_works_once(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, token = await world.room()
        assert (await b.ask("joinRoom", {"roomId": "tea", "resumable": True}))["resumeToken"] == token
        other = await b.ask("createRoom", {"roomId": "coffee", "resumable": True})
        assert other == {"roomId": "coffee", "resumeToken": token, "resumeSeconds": GRACE}
        tokens = [token]
        socket = b
        for number in range(3):
            await socket.lose()
            socket = await world.socket(f"c{number}")
            for old in tokens[:-1]:
                assert await socket.code("resume", {"resumeToken": old}) == "resume-failed"
            ack = await socket.ask("resume", {"resumeToken": tokens[-1]})
            assert (ack["userId"], ack["roomIds"]) == ("b", ["coffee", "tea"])
            tokens.append(ack["resumeToken"])
        assert len(set(tokens)) == 4


async def test_wrong_tokens(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, token = await world.room()
        await b.lose()
        c = await world.socket("c")
        wrong = [
            token[:-1],
            token + "x",
            token.upper(),
            "b",
            "b.",
            ".",
            "b.ä",
            "stays.",
            "nobody." + token[2:],
            "x" * 128,
        ]
        for each in wrong:
            assert await c.code("resume", {"resumeToken": each}) == "resume-failed"
        for bad in ({}, {"resumeToken": ""}, {"resumeToken": "x" * 129}, {"resumeToken": 5}, {"resumeToken": None}):
            assert await c.code("resume", bad) == "invalid-payload"
        for received in (-1, "5", 1.5, 2**63):
            assert await c.code("resume", {"resumeToken": token, "received": received}) == "invalid-payload"
        assert world.resumption.stats.refused == len(wrong)
        assert (await c.ask("resume", {"resumeToken": token}))["userId"] == "b"


async def test_who_is_in_a_room_cannot_resume(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        stays, b, token = await world.room()
        assert await b.code("resume", {"resumeToken": token}) == "already-in-room"
        assert await stays.code("resume", {"resumeToken": token}) == "already-in-room"
        await b.lose()
        c = await world.socket("c")
        token = (await c.ask("resume", {"resumeToken": token}))["resumeToken"]
        await c.ask("leaveRoom")
        assert await c.code("resume", {"resumeToken": token}) == "already-in-room"


async def test_the_old_socket_is_still_there(autojump_clock: MockClock) -> None:
    """The server has not noticed yet that it is dead: it is put out, and can do nothing any more."""
    async with a_world() as world:
        stays, b, token = await world.room()
        c = await world.socket("c")
        assert (await c.ask("resume", {"resumeToken": token}))["userId"] == "b"
        assert world.put_out == ["b"]
        assert await b.code("leaveRoom") == "resumed-elsewhere"
        await world.handlers.disconnected(b, "server namespace disconnect")
        await trio.sleep(2 * GRACE)
        assert world.peers == 2
        world.say("1")
        assert said(c) == ["1"]
        assert said(b) == []
        assert stays.take() == []


async def test_a_request_of_the_old_socket_that_is_under_way(autojump_clock: MockClock) -> None:
    """It is carried out, and gives the old socket no token."""
    async with a_world() as world, trio.open_nursery() as nursery:
        _, b, token = await world.room()
        c = await world.socket("c")
        acks: list[Json] = []

        async def create() -> None:
            acks.append(await b.ask("createRoom", {"roomId": "coffee", "resumable": True}))

        nursery.start_soon(create)
        while world.rooms.room_ids("b") == ("tea",):
            await trio.lowlevel.checkpoint()
        assert acks == []
        new = (await c.ask("resume", {"resumeToken": token}))["resumeToken"]
        await wait_all_tasks_blocked()
        assert acks == [{"roomId": "coffee"}]
        await world.handlers.disconnected(b, "server namespace disconnect")
        await c.lose()
        d = await world.socket("d")
        assert (await d.ask("resume", {"resumeToken": new}))["roomIds"] == ["coffee", "tea"]


async def test_a_client_that_counts_gets_exactly_what_it_has_missed(autojump_clock: MockClock) -> None:
    """Events that went to a dead connection are sent again, those that arrived are not."""
    async with a_world() as world:
        _, _, token = await world.room()
        for number in range(1, 6):
            world.say(str(number))
        c = await world.socket("c")
        ack = await c.ask("resume", {"resumeToken": token, "received": 3})
        assert said(c) == ["4", "5"]
        world.say("6")  # arrives: three since the new token
        await c.lose()
        world.say("7")
        world.say("8")
        d = await world.socket("d")
        ack = await d.ask("resume", {"resumeToken": ack["resumeToken"], "received": 3})
        assert said(d) == ["7", "8"]
        # One of them arrived; and who claims more than there was has had all.
        e = await world.socket("e")
        ack = await e.ask("resume", {"resumeToken": ack["resumeToken"], "received": 1})
        assert said(e) == ["8"]
        f = await world.socket("f")
        await f.ask("resume", {"resumeToken": ack["resumeToken"], "received": 10**9})
        assert said(f) == []
        assert world.put_out == ["b", "d", "e"]


async def test_audio_levels_are_neither_kept_nor_counted(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, token = await world.room()
        levels = AudioLevels(room_id="tea", levels=(AudioLevel(user_id="stays", producer_id="p", volume=-20),))

        def hear() -> None:
            world.sockets.deliver(Event(user_ids=("b",), payload=levels))

        hear()
        world.say("1")
        hear()
        assert b.take(volatile=True) == ["audioLevels", "activeSpeaker", "audioLevels"]
        await b.lose()
        for _ in range(2 * MAX_EVENTS):
            hear()
        world.say("2")
        c = await world.socket("c")
        await c.ask("resume", {"resumeToken": token, "received": 1})
        assert c.take(volatile=True) == ["ack", "activeSpeaker"]
        hear()
        assert c.take(volatile=True) == ["audioLevels"]


async def test_who_misses_too_much_leaves(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, token = await world.room()
        for _ in range(3 * MAX_EVENTS):
            world.say("heard")
        await b.lose()
        for _ in range(MAX_EVENTS):
            world.say("missed")
        await wait_all_tasks_blocked()
        assert world.peers == 2
        world.say("one too many")
        c = await world.socket("c")
        assert await c.code("resume", {"resumeToken": token}) == "resume-failed"
        await wait_all_tasks_blocked()
        assert (world.peers, world.resumption.parked_count, world.resumption.stats.given_up) == (1, 0, 1)
        assert c.take() == ["ack"]


@pytest.mark.parametrize("how", ["too many", "too old"])
async def test_what_went_to_a_dead_connection_is_kept_within_bounds(how: str, autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, token = await world.room()
        world.say("lost")
        if how == "too many":
            for _ in range(MAX_EVENTS):
                world.say("later")
        else:
            await trio.sleep(KEPT_SECONDS + 1)
            world.say("later")
        c = await world.socket("c")
        assert await c.code("resume", {"resumeToken": token, "received": 0}) == "resume-failed"
        assert world.put_out == ["b"]
        await world.handlers.disconnected(b, "server namespace disconnect")
        assert world.peers == 1


async def test_all_transports_are_gone(autojump_clock: MockClock) -> None:
    """Then nobody is at the other end, and waiting is of no use."""
    async with a_world() as world:
        stays, b, _ = await world.room()
        for direction in ("Producer", "Producer", "Consumer"):  # the second replaces the first
            await b.ask(f"create{direction}Transport")
        _, sending, receiving = world.media.transports
        await b.lose()
        sending.lose()
        await wait_all_tasks_blocked()
        assert world.peers == 2
        receiving.lose()
        await wait_all_tasks_blocked()
        assert (world.peers, world.resumption.parked_count) == (1, 0)
        assert "peersChanged" in stays.take()


async def test_all_transports_were_gone_before(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, _ = await world.room()
        await b.ask("createProducerTransport")
        world.media.transports[0].lose()
        await wait_all_tasks_blocked()
        await b.lose()
        assert (world.peers, world.resumption.parked_count) == (1, 0)


async def test_transports_of_a_room_that_was_left_do_not_matter(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, _ = await world.room()
        await b.ask("createRoom", {"roomId": "coffee"})
        await b.ask("createProducerTransport", {"roomId": "coffee"})
        world.media.transports[0].lose()
        await wait_all_tasks_blocked()
        await b.ask("leaveRoom", {"roomId": "coffee"})
        await b.lose()
        assert (world.peers, world.resumption.parked_count) == (2, 1)


async def test_who_is_put_out_meanwhile_is_told(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        _, b, token = await world.room()
        await b.lose()
        await world.rooms.close_room("tea", "for a test")
        await wait_all_tasks_blocked()
        c = await world.socket("c")
        ack = await c.ask("resume", {"resumeToken": token})
        assert (ack["userId"], ack["roomIds"]) == ("b", [])
        assert c.out[-1] == ("peerClosed", {"roomId": "tea", "reason": "for a test"})
        # The identity stays.
        await c.ask("createRoom", {"roomId": "tea"})
        assert world.rooms.room_ids("b") == ("tea",)
        await c.lose("client namespace disconnect")
        assert world.peers == 0


async def test_many_who_are_away(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption_module, "MAX_PARKED", 3)
    async with a_world() as world:
        users = [await world.socket(f"u{number}") for number in range(5)]
        for user in users:
            await user.ask("createRoom", {"resumable": True})
        for user in users:
            await user.lose()
        assert (world.resumption.parked_count, world.peers) == (3, 3)
        await trio.sleep(GRACE + 1)
        await wait_all_tasks_blocked()
        assert (world.resumption.parked_count, world.peers) == (0, 0)


async def test_guessing_is_limited_as_everything(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        c = await world.socket("c")
        codes = [await c.code("resume", {"resumeToken": "b.x"}) for _ in range(201)]
        assert codes == ["resume-failed"] * 200 + ["rate-limited"]


async def test_the_end_of_the_server_ends_the_wait(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with a_world() as world:
        _, b, _ = await world.room()
        await b.ask("createProducerTransport")
        await b.lose()
        assert world.media.open != set()
    assert trio.current_time() == started
