"""What the server keeps for people who are there: for a user's signalling, for each transport, for a consumer.

    python -m bench.memory

Rooms of ten. First a sender in each, and a user who goes through all steps, so that what the server needs once is
there. Then all others take each step together, and a row is what resident memory grew by in a step, divided by their
number. In Python alone: nothing is loaded.
"""

from __future__ import annotations

import argparse
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Final, Self

from bench.cases import VIDEO_SIZE
from bench.dtls import GCM, ClientIdentity
from bench.endpoint import Endpoint, connected, local_parameters
from bench.mmsg import open_local_socket
from bench.peer import RemoteParameters, TransportError, ice_credentials
from bench.peers import Session
from bench.peers.trio_sfu_driver import TrioSfuDriver
from bench.plots import Plot
from bench.report import Section, run
from bench.rtp import StreamFormat
from bench.server_process import resident_memory
from bench.signalling import allow_files

ROOM: Final = 10  # users
_SETTLED: Final = 0.5  # seconds until what a step set off is done
_TIMEOUT: Final = 60.0
_TOGETHER: Final = 20  # transports that shake hands at a time


class Crowd:
    """The users of one server and their transports; ``with`` closes all."""

    def __init__(self, join: Callable[[str], Session]) -> None:
        # Given.
        self._join = join
        # Owned.
        self.users: list[tuple[int, Session]] = []
        """Room and session, in the order they came."""
        self._identity = ClientIdentity(GCM)
        self._endpoints: list[Endpoint] = []
        self._senders: dict[int, Session] = {}
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[float], None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for endpoint in self._endpoints:
            endpoint.close()
        for _room, session in self.users:
            session.close()
        for session in self._senders.values():
            session.close()
        self._epoll.close()

    def open_room(self, number: int) -> None:
        """Make a room, with somebody in it who sends video."""
        session = self._senders[number] = self._enter(number)
        self._publish(session, [StreamFormat.vp8(size=VIDEO_SIZE, mid="0")])
        self.serve(lambda: connected(self._endpoints))

    def join(self, number: int) -> None:
        """Another user for a room."""
        self.users.append((number, self._enter(number)))

    def send(self, user: tuple[int, Session]) -> None:
        """A transport to send by, and nothing on it."""
        self._publish(user[1], [])

    def receive(self, user: tuple[int, Session], *, consume: bool) -> None:
        """A transport to receive by; ``consume``: the video of the room's sender."""
        number, session = user
        credentials, sock = ice_credentials(), open_local_socket()
        publishers = [self._senders[number]] if consume else []
        subscription = session.subscribe(local_parameters(self._identity, credentials, sock), publishers)
        self._begin(Endpoint(subscription.remote, self._identity, credentials, sock))

    def settle(self) -> None:
        """Until everything is connected, and a little longer."""
        self.serve(lambda: connected(self._endpoints))
        end = time.monotonic() + _SETTLED
        self.serve(lambda: time.monotonic() > end)

    def serve(self, ready: Callable[[], bool]) -> None:
        """Read all sockets and drive all timers until then."""
        deadline = time.monotonic() + _TIMEOUT
        while not ready():
            now = time.monotonic()
            if now > deadline:
                raise TransportError(f"not connected within {_TIMEOUT:g} s")
            for fd, _ in self._epoll.poll(0.005):
                self._readers[fd](now)
            for endpoint in self._endpoints:
                due = endpoint.transport.get_timer()
                if due is not None and due <= now:
                    endpoint.transport.handle_timer(now)
                    endpoint.flush()

    def _enter(self, number: int) -> Session:
        session = self._join(f"memory{number}")
        self._watch(session.fileno(), lambda _: session.read_waiting())
        return session

    def _publish(self, session: Session, formats: Sequence[StreamFormat]) -> None:
        credentials, sock = ice_credentials(), open_local_socket()
        remote: RemoteParameters = session.publish(local_parameters(self._identity, credentials, sock), formats)
        self._begin(Endpoint(remote, self._identity, credentials, sock))

    def _begin(self, endpoint: Endpoint) -> None:
        self._endpoints.append(endpoint)
        self._watch(endpoint.sock.fileno(), endpoint.read)
        endpoint.transport.start(time.monotonic())
        endpoint.flush()
        self.serve(lambda: sum(each.transport.state != "connected" for each in self._endpoints) < _TOGETHER)

    def _watch(self, fd: int, read: Callable[[float], None]) -> None:
        self._readers[fd] = read
        self._epoll.register(fd, select.EPOLLIN)


def growth(users: int, *, consume: bool) -> tuple[float, float, float]:
    """Bytes for each of ``users``: signalling and membership; a first transport; a second one, to receive by."""
    allow_files(8 * users)
    with ExitStack() as stack:
        peer = stack.enter_context(TrioSfuDriver().start(None))
        crowd = stack.enter_context(Crowd(peer.join))
        rooms = -(-users // ROOM)
        for number in range(rooms):
            crowd.open_room(number)
        crowd.join(0)
        crowd.send(crowd.users[0])
        crowd.receive(crowd.users[0], consume=consume)
        crowd.settle()

        def resident() -> int:
            crowd.settle()
            return sum(map(resident_memory, peer.pids))

        marks = [resident()]
        for index in range(users):
            crowd.join(index % rooms)
        marks.append(resident())
        for user in crowd.users[1:]:
            crowd.send(user)
        marks.append(resident())
        for user in crowd.users[1:]:
            crowd.receive(user, consume=consume)
        marks.append(resident())
    joined, first, second = ((after - before) / users for before, after in pairwise(marks))
    return joined, first, second


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", type=int, metavar="N", help="default 400, quick 100")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    users = arguments.users or (100 if arguments.quick else 400)
    joined, first, second = growth(users, consume=False)
    _, _, consuming = growth(users, consume=True)
    figures = {
        "a user who has joined: WebSocket, sessions, tasks": joined,
        "their first transport, connected": first,
        "their second transport, connected": second,
        "a transport that receives a video": consuming,
    }
    yield Section(
        "memory",
        f"Memory: {users} users in rooms of {ROOM}",
        f"python -m bench.memory --users {users}",
        ("what", "kB", "KiB"),
        [(what, size / 1000, size / 1024) for what, size in figures.items()],
        ["Resident memory of the server's process, beyond what it takes for the first of each."],
        [Plot("Memory of each", "kB", bars={what.split(",")[0]: size / 1000 for what, size in figures.items()})],
    )


def main(arguments: list[str] | None = None) -> int:
    return run("memory", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
