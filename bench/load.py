"""The load itself: one producer, N consumers, real ICE, DTLS and SRTP, in one thread on one core.

:class:`Call` owns every socket of one call and is used by :mod:`bench.python_scene` only.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final, Literal, Self

from bench.dtls import ClientIdentity
from bench.mmsg import ReceiveArena, queue_drops
from bench.peer import TransportError
from bench.users import PACKETS_PER_FRAME, ConsumerUser, Counts, ProducerUser

Shape = Literal["burst", "even"]

FRAMES_PER_SECOND: Final = 30
EVEN_RATE: Final = 1000

_DRAIN_INTERVAL: Final = 0.003
_FEEDBACK_RATE: Final = 10.0


class Call:
    """One room with its producer and its consumers. ``close`` or the ``with`` statement frees all.

    :param feedback: whether consumers send receiver reports, transport-wide feedback and NACKs, 10 times
        a second each.
    :param on_first: called when the first consumer is there.
    """

    def __init__(
        self,
        url: str,
        consumers: int,
        identity: ClientIdentity,
        *,
        feedback: bool = True,
        on_first: Callable[[], None] = lambda: None,
    ) -> None:
        self.counts = Counts()
        self.consumers: list[ConsumerUser] = []
        self._feedback = feedback
        self._on_first = on_first
        self._arena = ReceiveArena()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[float], None]] = {}
        self._feedback_owed = 0.0
        self._feedback_next = 0
        self._clock = time.monotonic()
        self._next_timers = 0.0
        self.producer = ProducerUser(url, identity, self.counts)
        try:
            self._set_up(url, consumers, identity)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def _users(self) -> list[ProducerUser | ConsumerUser]:
        return [self.producer, *self.consumers]

    @property
    def ports(self) -> set[int]:
        """The local ports of all consumers: where the generator itself could lose packets."""
        return {consumer.sock.getsockname()[1] for consumer in self.consumers}

    @property
    def media_port(self) -> int:
        """The server's media port."""
        return self.producer.transport.remote.address[1]

    def run(
        self, seconds: float, shape: Shape, watch: Callable[[], None] = lambda: None, *, settle: bool = True
    ) -> None:
        """Send for so long, then wait for the last packets; ``watch`` is called between two turns."""
        count, interval = (PACKETS_PER_FRAME, 1 / FRAMES_PER_SECOND) if shape == "burst" else (1, 1 / EVEN_RATE)
        start = time.monotonic()
        due = start
        report_due = start
        end = start + seconds
        while due < end:
            now = time.monotonic()
            if now >= report_due:
                self.producer.send_report()
                report_due = now + 1
            while due <= now and due < end:
                self.counts.latest_burst = max(self.counts.latest_burst, now - due)
                self.producer.send_burst(count, now)
                due += interval
            self._turn(until=due)
            watch()
        if settle:
            self.settle()

    def settle(self) -> None:
        """Read until all has come or nothing more does for a second; 10 s at most."""
        now = time.monotonic()
        give_up = now + 10
        quiet_since, seen = now, self.counts.delivered
        expected = self.counts.sent * len(self.consumers)
        while now < give_up and now - quiet_since < (0.1 if seen >= expected else 1.0):
            self._turn(until=now + 0.01)
            now = time.monotonic()
            if self.counts.delivered != seen:
                quiet_since, seen = now, self.counts.delivered

    def restart_counts(self) -> Counts:
        """Count from zero, for a new window; the window's counts are returned and stay live."""
        self.counts = Counts()
        for user in self._users:
            user.counts = self.counts
        for consumer in self.consumers:
            consumer.delivered = 0
        return self.counts

    def generator_drops(self) -> int:
        """Packets that reached a consumer's socket and found its queue full: the generator's fault."""
        return queue_drops(self.ports)

    def server_drops(self) -> int:
        """Packets that found the server's queue full (only where the server is on this machine)."""
        return queue_drops({self.media_port})

    def close(self) -> None:
        for user in self._users:
            user.transport.close()
            for datagram in user.transport.datagrams_to_send():
                try:
                    user.sock.send(datagram)
                except OSError:
                    break
            user.sock.close()
            user.signalling.close()
        self._epoll.close()

    def _set_up(self, url: str, consumers: int, identity: ClientIdentity) -> None:
        producer = self.producer
        capabilities = producer.signalling.request("getRouterRtpCapabilities", {"roomId": producer.room_id})
        self._register(producer, self._drain_producer)
        producer.connect()
        self._wait(lambda: producer.transport.state == "connected")
        producer.produce()
        for _ in range(consumers):
            consumer = ConsumerUser(url, producer.room_id, identity, self.counts)
            self.consumers.append(consumer)
            self._register(consumer, lambda now, consumer=consumer: consumer.drain(self._arena, now))  # type: ignore[misc]
            consumer.connect()
            self._turn(until=0)
            if len(self.consumers) == 1:
                self._wait(lambda: self.consumers[0].transport.state == "connected")
                self._on_first()
        self._wait(lambda: all(consumer.transport.state == "connected" for consumer in self.consumers))
        for consumer in self.consumers:
            consumer.consume(producer.producer_id, capabilities["rtpCapabilities"])
            self._turn(until=0)

    def _register(self, user: ProducerUser | ConsumerUser, drain: Callable[[float], None]) -> None:
        self._handlers[user.sock.fileno()] = drain
        self._handlers[user.signalling.fileno()] = lambda now: user.signalling.read_waiting()
        self._epoll.register(user.sock.fileno(), select.EPOLLIN)
        self._epoll.register(user.signalling.fileno(), select.EPOLLIN)

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not ready():
            now = time.monotonic()
            for user in self._users:
                if user.transport.state == "failed":
                    raise TransportError(user.transport.failure)
            if now > deadline:
                raise TransportError("ICE and DTLS did not finish within 20 s")
            self._next_timers = 0.0
            self._turn(until=now + 0.005)

    def _turn(self, *, until: float) -> None:
        """Sleep at most until then, then look after every socket and timer once."""
        now = time.monotonic()
        wake = min(until, self._clock + _DRAIN_INTERVAL)
        if wake > now:
            time.sleep(wake - now)
            now = time.monotonic()
        if now - self._clock < _DRAIN_INTERVAL and until:
            return
        passed, self._clock = now - self._clock, now
        for fd, _ in self._epoll.poll(0):
            self._handlers[fd](now)
        if now >= self._next_timers:
            self._next_timers = now + 0.05
            self._serve_timers(now)
        if self._feedback and self.consumers:
            self._feedback_owed = min(
                self._feedback_owed + passed * _FEEDBACK_RATE * len(self.consumers),
                float(len(self.consumers)),
            )
            while self._feedback_owed >= 1:
                self._feedback_owed -= 1
                self._feedback_next = (self._feedback_next + 1) % len(self.consumers)
                self.consumers[self._feedback_next].feedback(now)

    def _serve_timers(self, now: float) -> None:
        for user in self._users:
            due = user.transport.get_timer()
            if due is not None and due <= now:
                user.transport.handle_timer(now)
            for datagram in user.transport.datagrams_to_send():
                try:
                    user.sock.send(datagram)
                except OSError:
                    self.counts.send_errors += 1

    def _drain_producer(self, now: float) -> None:
        while (count := self._arena.receive(self.producer.sock)) > 0:
            for i in range(count):
                self.producer.receive(self._arena.datagram(i), now)
