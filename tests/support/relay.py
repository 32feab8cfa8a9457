"""A lossy UDP relay in userspace: a bad network between clients on this machine and the server's media port.

Clients send to the relay's port; each client address gets an upstream socket of its own, so the server sees
as many addresses as there are clients. All clients of a relay share its two links, one in each direction, as
the people of one household do; give participants relays of their own to have their networks fail apart.

In trio tests::

    async with open_relay(server, loss=0.05, delay=0.05, seed=1) as relay: ...

In synchronous tests (Playwright), where trio runs in a thread of its own::

    with running_relay(server, loss=0.05, delay=0.05, seed=1) as relay:
        relay.port; relay.cut(); relay.heal(); relay.to_client.counters

The client must be made to use ``relay.port`` instead of the server's, by rewriting the ICE candidates of the
server's reply.
"""

from __future__ import annotations

import concurrent.futures
import random
import socket
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from tests.support.lossy_link import LinkSettings, LossyLink

Address = tuple[str, int]

_BATCH: Final = 64
_MAX_DATAGRAM: Final = 2048
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BUFFER: Final = 4 << 20


@dataclass(eq=False, slots=True)
class _Flow:
    client: Address
    upstream: socket.socket
    scope: trio.CancelScope
    move: int


class Relay:
    """Made by :func:`open_relay` and :func:`running_relay`; the members named here are for any thread.

    ``address`` and ``port`` say where it listens; ``to_server`` and ``to_client`` are the links, whose
    ``settings`` may be replaced and whose ``counters`` be read while it runs; ``clients`` counts the client
    addresses ever seen, ``evicted`` those forgotten because more than ``max_clients`` were in use at once,
    ``send_errors`` datagrams that the system would not take.
    """

    def __init__(
        self,
        server: Address,
        to_server: LinkSettings,
        to_client: LinkSettings,
        *,
        seed: int,
        max_clients: int,
    ) -> None:
        # Given.
        self.server = server
        self._max_clients = max_clients
        # Owned.
        rng = random.Random(seed)
        self.to_server: LossyLink[_Flow] = LossyLink(to_server, random.Random(rng.random()))
        self.to_client: LossyLink[_Flow] = LossyLink(to_client, random.Random(rng.random()))
        self.clients = 0
        self.evicted = 0
        self.send_errors = 0
        self._listener = _bind("::1" if ":" in server[0] else "127.0.0.1")
        self._flows: OrderedDict[Address, _Flow] = OrderedDict()
        self._wake = trio.Event()
        self._waits_until = 0.0
        self._moves = 0
        # Derived.
        host, port = self._listener.getsockname()[:2]
        self.address: Address = (host, port)
        self.port: int = port

    def cut(self) -> None:
        """Lose everything, both ways, what is under way too, until :meth:`heal`."""
        self.to_server.is_cut = self.to_client.is_cut = True

    def heal(self) -> None:
        """End the cut."""
        self.to_server.is_cut = self.to_client.is_cut = False

    def move(self) -> None:
        """From now on clients come to the server from other addresses, as when their network has changed.

        What the server sends to the old ones is lost; there is no way back for it until a client has sent something.
        """
        self._moves += 1

    async def run(self) -> None:
        """Relay until cancelled, then close every socket."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump)
                while True:
                    await trio.lowlevel.wait_readable(self._listener)
                    self._take_from_clients(nursery)
        finally:
            self._listener.close()
            for flow in self._flows.values():
                flow.upstream.close()
            self._flows.clear()

    def _take_from_clients(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        for _ in range(_BATCH):
            try:
                datagram, source = self._listener.recvfrom(_MAX_DATAGRAM)
            except OSError:
                break
            client = (source[0], source[1])
            flow = self._flows.get(client)
            if flow is not None and flow.move != self._moves:
                flow.scope.cancel()
                flow = None
            if flow is None:
                flow = self._open_flow(client)
                nursery.start_soon(self._take_from_server, flow)
            self._flows.move_to_end(client)
            self.to_server.send(datagram, flow, now)
        self._deliver(now)

    def _open_flow(self, client: Address) -> _Flow:
        if client not in self._flows and len(self._flows) >= self._max_clients:
            _, oldest = self._flows.popitem(last=False)
            oldest.scope.cancel()
            self.evicted += 1
        upstream = _bind(self.address[0])
        upstream.connect(self.server)
        flow = self._flows[client] = _Flow(client, upstream, trio.CancelScope(), self._moves)
        self.clients += 1
        return flow

    async def _take_from_server(self, flow: _Flow) -> None:
        try:
            with flow.scope:
                while True:
                    await trio.lowlevel.wait_readable(flow.upstream)
                    now = trio.current_time()
                    for _ in range(_BATCH):
                        try:
                            datagram = flow.upstream.recv(_MAX_DATAGRAM)
                        except BlockingIOError:
                            break
                        except OSError:
                            continue  # ECONNREFUSED: the server's port is shut; silence tells the client.
                        if flow.move != self._moves:
                            continue
                        self.to_client.send(datagram, flow, now)
                    self._deliver(now)
        finally:
            flow.upstream.close()

    async def _pump(self) -> None:
        while True:
            timers = [timer for link in (self.to_server, self.to_client) if (timer := link.get_timer()) is not None]
            self._waits_until = min(timers, default=float("inf"))
            self._wake = trio.Event()
            with trio.move_on_at(self._waits_until):
                await self._wake.wait()
            self._deliver(trio.current_time())

    def _deliver(self, now: float) -> None:
        for flow, datagram in self.to_server.receive(now):
            try:
                flow.upstream.send(datagram)
            except OSError:
                self.send_errors += 1
        for flow, datagram in self.to_client.receive(now):
            try:
                self._listener.sendto(datagram, flow.client)
            except OSError:
                self.send_errors += 1
        for link in (self.to_server, self.to_client):
            timer = link.get_timer()
            if timer is not None and timer < self._waits_until:
                self._wake.set()


def _bind(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.bind((host, 0))
    except BaseException:
        sock.close()
        raise
    return sock


@asynccontextmanager
async def open_relay(
    server: Address,
    *,
    loss: float = 0.0,
    delay: float = 0.0,
    jitter: float = 0.0,
    rate: float | None = None,
    duplicate: float = 0.0,
    reorder: float = 0.0,
    to_server: LinkSettings | None = None,
    to_client: LinkSettings | None = None,
    seed: int = 0,
    max_clients: int = 64,
) -> AsyncIterator[Relay]:
    """A relay in front of ``server`` (address of its media port) for the length of the block.

    The named settings hold for each direction (see :class:`LinkSettings`) that ``to_server`` or ``to_client``
    does not set otherwise. The least recently used client beyond ``max_clients`` is forgotten.
    """
    both = LinkSettings(loss=loss, delay=delay, jitter=jitter, rate=rate, duplicate=duplicate, reorder=reorder)
    relay = Relay(server, to_server or both, to_client or both, seed=seed, max_clients=max_clients)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        yield relay
        nursery.cancel_scope.cancel()


@contextmanager
def running_relay(
    server: Address,
    *,
    loss: float = 0.0,
    delay: float = 0.0,
    jitter: float = 0.0,
    rate: float | None = None,
    duplicate: float = 0.0,
    reorder: float = 0.0,
    to_server: LinkSettings | None = None,
    to_client: LinkSettings | None = None,
    seed: int = 0,
    max_clients: int = 64,
) -> Iterator[Relay]:
    """:func:`open_relay` for synchronous code: trio runs in a thread, which has ended when the block has."""
    started: concurrent.futures.Future[tuple[Relay, trio.CancelScope, trio.lowlevel.TrioToken]]
    started = concurrent.futures.Future()
    faults: list[BaseException] = []

    async def relay_until_cancelled() -> None:
        with trio.CancelScope() as scope:
            async with open_relay(
                server,
                loss=loss,
                delay=delay,
                jitter=jitter,
                rate=rate,
                duplicate=duplicate,
                reorder=reorder,
                to_server=to_server,
                to_client=to_client,
                seed=seed,
                max_clients=max_clients,
            ) as relay:
                started.set_result((relay, scope, trio.lowlevel.current_trio_token()))
                await trio.sleep_forever()

    def run() -> None:
        try:
            trio.run(relay_until_cancelled)
        except BaseException as fault:
            if not started.done():
                started.set_exception(fault)
            else:
                faults.append(fault)

    thread = threading.Thread(target=run, name="relay", daemon=True)
    thread.start()
    relay, scope, token = started.result(timeout=10)
    try:
        yield relay
    finally:
        try:
            token.run_sync_soon(scope.cancel)
        except trio.RunFinishedError:
            pass  # It has failed; the fault is raised below.
        thread.join(timeout=10)
        if thread.is_alive():
            raise RuntimeError("the relay's thread did not end")
        if faults:
            raise faults[0]
