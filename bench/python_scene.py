"""The load without a compiler: :class:`bench.load.Call` in the clothes of :class:`bench.scene.Scene`.

One room, one video, N consumers: all that a generator in Python can keep up with. Also for what the compiled one does
not speak: AES-CM, evenly spaced packets. Used by :mod:`bench.trial`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from bench.cases import Case, one_to
from bench.cc import NoCompiler
from bench.dtls import GCM, ClientIdentity
from bench.load import Call
from bench.peers import Running
from bench.peers.trio_sfu_driver import TrioSfuServer
from bench.scene import Totals
from bench.server_process import resident_memory


class PythonScene:
    """Raises NoCompiler for a case, or a server, that only the compiled generator can do."""

    def __init__(
        self, peer: Running, case: Case, *, even: bool, feedback: bool, identity: ClientIdentity | None
    ) -> None:
        if not isinstance(peer, TrioSfuServer) or case != one_to(case.receivers):
            raise NoCompiler(f"{case.name} needs the compiled generator, which needs a C compiler and libcrypto 3")
        self._peer = peer
        self._case = case
        self._shape = "even" if even else "burst"
        self._feedback = feedback
        self._identity = identity or ClientIdentity(GCM)
        self._before = (0, 0)
        self._memory = 0
        self.memory_growth = 0

    def __enter__(self) -> Self:
        self._call = Call(
            self._peer.url, self._case.receivers, self._identity, feedback=self._feedback, on_first=self._on_first
        )
        self.memory_growth = self._resident() - self._memory
        return self

    def __exit__(self, *_: object) -> None:
        self._call.close()

    @property
    def delivered(self) -> int:
        return self._call.counts.delivered

    @property
    def receivers(self) -> int:
        return self._case.receivers

    def run(self, seconds: float, watch: Callable[[], None] = lambda: None, *, settle: bool = True) -> None:
        self._call.run(seconds, "even" if self._shape == "even" else "burst", watch, settle=settle)

    def settle(self) -> None:
        self._call.settle()

    def restart(self) -> None:
        self._call.restart_counts()
        self._before = self._call.server_drops(), self._call.generator_drops()

    def totals(self) -> Totals:
        counts = self._call.counts
        return Totals(
            sent=counts.sent,
            expected=counts.sent * self.receivers,
            delivered=counts.delivered,
            duplicates=counts.duplicates,
            samples=counts.samples,
            bad_samples=counts.bad_samples,
            recovered=counts.recovered,
            nacked_upstream=counts.nacked_upstream,
            server_drops=self._call.server_drops() - self._before[0],
            generator_drops=self._call.generator_drops() - self._before[1],
            latest_burst=counts.latest_burst,
            latencies=tuple(sorted(latency // 1000 for latency in counts.latencies)),
            worst_ratio=min(consumer.delivered for consumer in self._call.consumers) / max(1, counts.sent),
        )

    def _on_first(self) -> None:
        self._memory = self._resident()

    def _resident(self) -> int:
        return sum(resident_memory(pid) for pid in self._peer.pids)
