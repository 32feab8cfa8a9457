"""A case set up against a server: rooms of users with their transports, and the compiled generator that loads them.

Owns every socket and session of one case. ``with Scene(...)`` sets all up, :meth:`run` puts the load on, leaving the
block ends all. One thread; whoever measures is called back often, between two turns.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from bench.cases import AUDIO_SIZE, FRAMES_PER_SECOND, VIDEO_SIZE, Case
from bench.dtls import GCM, ClientIdentity
from bench.endpoint import Endpoint, connected, local_parameters, local_port
from bench.mmsg import open_local_socket, queue_drops
from bench.native import Generator
from bench.peer import TransportError, ice_credentials
from bench.peers import Running, Session
from bench.recipe import Recipe, recipe, recording
from bench.rtp import StreamFormat
from bench.server_process import resident_memory

_TURN: Final = 0.005
_FEEDBACK_RATE: Final = 10.0
_CONNECT_SECONDS: Final = 30.0
_TOGETHER: Final = 20  # transports that shake hands at a time

_COUNTED: Final = (
    "sent",
    "expected",
    "delivered",
    "duplicates",
    "samples",
    "bad_samples",
    "recovered",
    "nacked_upstream",
    "server_drops",
    "generator_drops",
)

Clip = Sequence[Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Totals:
    """What was counted since the last :meth:`Scene.restart`. ``expected`` is what a lossless server delivers."""

    sent: int
    expected: int
    delivered: int
    duplicates: int
    samples: int
    bad_samples: int
    recovered: int
    nacked_upstream: int
    server_drops: int
    generator_drops: int
    latest_burst: float  # s
    latencies: tuple[int, ...]  # µs, sorted
    worst_ratio: float

    @property
    def ratio(self) -> float:
        return self.delivered / max(1, self.expected)


class _User:
    """A participant: a session and up to two transports."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sending: Endpoint | None = None
        self.receiving: Endpoint | None = None


class Scene:
    """:param clip: payloads of real pictures, frame by frame, in place of filler, for servers that decode."""

    def __init__(self, peer: Running, case: Case, *, clip: Clip | None = None, offload: bool = False) -> None:
        # Given.
        self.case = case
        self._peer = peer
        self._clip = clip
        # Owned.
        self._identity = ClientIdentity(GCM)
        self._generator = Generator(ports=case.transports, sources=2 * case.rooms * case.senders, offload=offload)
        self._rooms: list[list[_User]] = []
        self._endpoints: list[Endpoint] = []
        self._receivers: list[Endpoint] = []
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[float], None]] = {}
        # Derived.
        self._sending: list[Endpoint] = []
        self._owed = 0.0
        self._next = 0
        self._timers_due = self._reports_due = 0.0
        self._since: Totals | None = None
        self.memory_growth = 0
        """Bytes that the server grew by from the first receiver's connection to the last one's, before any load."""

    def __enter__(self) -> Self:
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def delivered(self) -> int:
        """Packets that reached consumers, so far."""
        return int(self._generator.counts.delivered)

    @property
    def receivers(self) -> int:
        return len(self._receivers)

    def close(self) -> None:
        self._generator.close()
        for endpoint in self._endpoints:
            endpoint.close()
        for room in self._rooms:
            for user in room:
                user.session.close()
        self._endpoints, self._rooms = [], []
        self._epoll.close()

    # -- the load

    def run(self, seconds: float, watch: Callable[[], None] = lambda: None, *, settle: bool = True) -> None:
        """Send for so long, then wait for the last packets; ``watch`` is called every few milliseconds.

        :param settle: False: do not wait; :meth:`settle` does.
        """
        end = time.monotonic() + seconds
        now = time.monotonic_ns()
        for endpoint in self._sending:  # go on evenly after a pause
            for source in endpoint.sources:
                missed = max(0, now - source.due)
                source.due += -(-missed // source.interval) * source.interval
        while time.monotonic() < end:
            self._turn(end)
            watch()
        if settle:
            self.settle()

    def set_rate(self, video: float, *, frames: float = FRAMES_PER_SECOND) -> None:
        """From now on ``video`` packets a second of each sender, in ``frames`` bursts a second."""
        for endpoint in self._sending:
            for stream, source in zip(endpoint.formats, endpoint.sources, strict=True):
                if stream.kind == "video":
                    source.per_frame, source.interval = video / frames, round(1e9 / frames)

    def look_at_frames(self, packets: int) -> None:
        """From now on a frame of video that has come with fewer packets counts as torn."""
        for stream in self._received("video"):
            stream.whole = packets

    def frames(self) -> tuple[int, int]:
        """Frames of video that have ended at consumers so far, and those that came in part only."""
        streams = list(self._received("video"))
        return sum(stream.frames for stream in streams), sum(stream.torn for stream in streams)

    def counted(self, kind: str) -> tuple[int, int]:
        """Packets of a kind that have reached consumers so far, and what a lossless server would have delivered."""
        expected = 0
        for room in self._rooms:
            sent = {
                id(user): sum(
                    source.sent
                    for each, source in zip(user.sending.formats, user.sending.sources, strict=True)
                    if each.kind == kind
                )
                for user in room
                if user.sending is not None
            }
            expected += sum(sum(sent.values()) - sent.get(id(user), 0) for user in room if user.receiving is not None)
        return sum(stream.delivered for stream in self._received(kind)), expected

    def _received(self, kind: str) -> Iterator[Any]:
        for endpoint in self._receivers:
            for each, stream in zip(endpoint.expected, endpoint.streams, strict=True):
                if each.kind == kind:
                    yield stream

    def restart(self) -> None:
        """Count from here."""
        counts = self._generator.counts
        self._generator.take_latencies()
        counts.latest_burst = 0
        self._since = None
        self._since = self.totals()

    def totals(self) -> Totals:
        """What was counted since :meth:`restart`; takes the latencies."""
        counts = self._generator.counts
        before = self._since
        sources = [source for endpoint in self._sending for source in endpoint.sources]
        sent_by = {id(endpoint): sum(s.sent for s in endpoint.sources) for endpoint in self._sending}
        expected = 0
        ratios = []
        for room in self._rooms:
            for user in room:
                if user.receiving is None:
                    continue
                due = sum(
                    sent_by[id(other.sending)] for other in room if other is not user and other.sending is not None
                )
                got = sum(stream.delivered for stream in user.receiving.streams)
                ratios.append(got / due if due else 1.0)
                expected += due
        now = Totals(
            sent=sum(source.sent for source in sources),
            expected=expected,
            delivered=counts.delivered,
            duplicates=sum(s.duplicates for e in self._receivers for s in e.streams),
            samples=counts.samples,
            bad_samples=counts.bad_samples,
            recovered=sum(endpoint.recovered for endpoint in self._receivers),
            nacked_upstream=sum(endpoint.nacked for endpoint in self._sending),
            server_drops=queue_drops({endpoint.transport.remote.address[1] for endpoint in self._sending}),
            generator_drops=queue_drops({local_port(endpoint.sock) for endpoint in self._receivers}),
            latest_burst=counts.latest_burst / 1e9,
            latencies=tuple(sorted(self._generator.take_latencies())),
            worst_ratio=min(ratios, default=0.0),
        )
        if before is None:
            return now
        passed: dict[str, int] = {name: getattr(now, name) - getattr(before, name) for name in _COUNTED}
        return replace(now, **passed)  # type: ignore[arg-type]

    def take_latencies(self) -> Sequence[int]:
        """Of the samples since they were last taken, in µs; :meth:`totals` then has the later ones only."""
        return self._generator.take_latencies()

    def settle(self) -> None:
        """Until nothing has come for 0.3 s; 5 s at most."""
        quiet = give_up = time.monotonic()
        seen = self.delivered
        while (now := time.monotonic()) < give_up + 5 and now < quiet + 0.3:
            self._turn(0.0)
            if self.delivered != seen:
                quiet, seen = now, self.delivered

    def _turn(self, end: float) -> None:
        now = time.monotonic()
        until = min(now + _TURN, end) if end else now + _TURN
        self._generator.run(int(until * 1e9), int(end * 1e9))
        passed, now = time.monotonic() - now, time.monotonic()
        for port, data in self._generator.take_others():
            self._endpoints[port].receive(data, now)
        if self._receivers:
            self._owed = min(self._owed + passed * _FEEDBACK_RATE * len(self._receivers), len(self._receivers))
            while self._owed >= 1:
                self._owed -= 1
                self._next = (self._next + 1) % len(self._receivers)
                self._receivers[self._next].feedback(now)
        if now >= self._reports_due:
            self._reports_due = now + 1.0
            for endpoint in self._sending:
                endpoint.report()
        self._serve(now)

    def _serve(self, now: float) -> None:
        """Signalling and timers, 20 times a second."""
        if now < self._timers_due:
            return
        self._timers_due = now + 0.05
        for fd, _ in self._epoll.poll(0):
            self._readers[fd](now)
        for endpoint in self._endpoints:
            due = endpoint.transport.get_timer()
            if due is not None and due <= now:
                endpoint.transport.handle_timer(now)
                endpoint.flush()

    def first_packet(self) -> float:
        """Seconds from before a new user's ``subscribe`` to his first packet, in the first room; he leaves again."""
        user = self._join(0)
        publishers = [other.session for other in self._rooms[0] if other.sending is not None]
        far = time.monotonic() + 3600  # the load goes on meanwhile
        for _ in range(20):
            self._turn(far)
        began = time.monotonic()
        endpoint = self._subscribe(user.session, publishers)
        while not endpoint.transport.counters["rtp"]:
            now = time.monotonic()
            if now > began + _CONNECT_SECONDS:
                raise TransportError("no packet came")
            self._generator.run(time.monotonic_ns() + 500_000, int(far * 1e9))
            for port, data in self._generator.take_others():
                self._endpoints[port].receive(data, now)
            endpoint.read(now)
            endpoint.transport.handle_timer(now)
            endpoint.flush()
        took = time.monotonic() - began
        for fd in (endpoint.sock.fileno(), user.session.fileno()):
            self._epoll.unregister(fd)
        self._endpoints.remove(endpoint)
        self._rooms[0].remove(user)
        endpoint.close()
        user.session.close()
        return took

    # -- setting up

    def _set_up(self) -> None:
        case = self.case
        for number in range(case.rooms):
            self._rooms.append([])
            for _ in range(case.senders):
                user = self._join(number)
                user.sending = self._publish(user.session)
                self._connect_some()
        self._connect_all()
        memory = 0
        for number, room in enumerate(self._rooms):
            for user in list(room) if case.everyone else (self._join(number) for _ in range(case.receivers)):
                others = [other.session for other in room if other is not user and other.sending is not None]
                user.receiving = self._subscribe(user.session, others)
                self._connect_some()
                if not memory:
                    self._connect_all()
                    memory = self._memory()
        self._connect_all()
        self.memory_growth = self._memory() - memory
        self._sending = [user.sending for room in self._rooms for user in room if user.sending is not None]
        self._receivers = [user.receiving for room in self._rooms for user in room if user.receiving is not None]
        start = time.monotonic_ns() + 50_000_000
        for endpoint in self._endpoints:
            self._epoll.unregister(endpoint.sock.fileno())
            endpoint.hand_over(self._generator, [self._plan(stream, start) for stream in endpoint.formats])

    def _join(self, number: int) -> _User:
        session = self._peer.join(f"bench{number}")
        user = _User(session)
        self._rooms[number].append(user)
        self._watch(session.fileno(), lambda _: session.read_waiting())
        return user

    def _memory(self) -> int:
        return sum(resident_memory(pid) for pid in self._peer.pids)

    def _plan(self, stream: StreamFormat, start: int) -> tuple[Recipe, float, float, int]:
        video = stream.kind == "video"
        made = recording(stream, self._clip) if video and self._clip else recipe(stream)
        rate = self.case.video if video else self.case.audio
        frames = FRAMES_PER_SECOND if video else rate
        return made, rate, frames, start + round(random.random() / frames * 1e9)

    def _publish(self, session: Session) -> Endpoint:
        formats: list[StreamFormat] = []
        if self.case.video:
            formats.append(StreamFormat.vp8(size=VIDEO_SIZE, mid="0"))
        if self.case.audio:
            formats.append(StreamFormat.opus(size=AUDIO_SIZE, mid="1" if self.case.video else "0"))
        credentials, sock = ice_credentials(), open_local_socket()
        remote = session.publish(local_parameters(self._identity, credentials, sock), formats)
        endpoint = Endpoint(remote, self._identity, credentials, sock)
        endpoint.formats = tuple(formats)
        return self._begin(endpoint)

    def _subscribe(self, session: Session, others: Sequence[Session]) -> Endpoint:
        credentials, sock = ice_credentials(), open_local_socket()
        subscription = session.subscribe(local_parameters(self._identity, credentials, sock), others)
        endpoint = Endpoint(subscription.remote, self._identity, credentials, sock)
        endpoint.expected = subscription.streams
        endpoint.transport_cc_id = subscription.transport_cc_id
        return self._begin(endpoint)

    def _begin(self, endpoint: Endpoint) -> Endpoint:
        self._endpoints.append(endpoint)
        self._watch(endpoint.sock.fileno(), endpoint.read)
        endpoint.transport.start(time.monotonic())
        endpoint.flush()
        return endpoint

    def _watch(self, fd: int, read: Callable[[float], None]) -> None:
        self._readers[fd] = read
        self._epoll.register(fd, select.EPOLLIN)

    def _connect_some(self) -> None:
        """Go on with those that shake hands; wait where they are many."""
        self._connect(lambda: sum(e.transport.state != "connected" for e in self._endpoints) < _TOGETHER)

    def _connect_all(self) -> None:
        self._connect(lambda: connected(self._endpoints))

    def _connect(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _CONNECT_SECONDS
        while True:
            now = time.monotonic()
            for fd, _ in self._epoll.poll(0):
                self._readers[fd](now)
            for endpoint in self._endpoints:
                endpoint.transport.handle_timer(now)
                endpoint.flush()
                if endpoint.transport.state == "failed":
                    raise TransportError(endpoint.transport.failure)
            if ready():
                return
            if now > deadline:
                raise TransportError(f"ICE and DTLS did not finish within {_CONNECT_SECONDS:g} s")
            self._epoll.poll(0.005)
