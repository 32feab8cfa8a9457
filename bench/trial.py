"""One case, measured: a scene set up, warmed up, and run for a while under the eyes of :class:`bench.measure.Watch`.

Used by :mod:`bench.forward` and :mod:`bench.peers_run`, so that servers are measured alike.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.cases import Case
from bench.cc import NoCompiler
from bench.dtls import ClientIdentity
from bench.gauge import Gauge
from bench.measure import Watch, cost
from bench.peers import Running
from bench.python_scene import PythonScene
from bench.result import Result, percentile
from bench.scene import Clip, Scene, Totals
from bench.server_process import CpuTime, resident_memory, split_cpus


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure. ``python``: the generator in Python, which knows one room, one video and N consumers only.

    :param awake: keep the server's core from sleeping between bursts; without it no window is dropped.
    :param even: packets evenly spaced (Python's generator only).
    """

    seconds: float = 10.0
    warm_up: float = 3.0
    awake: bool = True
    python: bool = False
    even: bool = False
    feedback: bool = True
    offload: bool = False
    identity: ClientIdentity | None = None


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """This process on one CPU for as long as the block lasts; None: anywhere."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def memory_of(pids: Sequence[int]) -> int:
    return sum(resident_memory(pid) for pid in pids)


def measure(server: str, peer: Running, case: Case, plan: Plan, clip: Clip | None = None) -> Result:
    """Run ``case`` against a started server. Its CPU time is not known where ``peer.pids`` is empty."""
    cpus = split_cpus()
    python = plan.python
    with ExitStack() as stack:
        gauge = stack.enter_context(Gauge(cpus[0])) if cpus is not None and plan.awake and peer.pids else None
        stack.enter_context(pinned(cpus[1] if cpus is not None else None))
        try:
            scene: Scene | PythonScene = (
                PythonScene(peer, case, even=plan.even, feedback=plan.feedback, identity=plan.identity)
                if python
                else Scene(peer, case, clip=clip, offload=plan.offload)
            )
        except NoCompiler:
            python = True
            scene = PythonScene(peer, case, even=plan.even, feedback=plan.feedback, identity=plan.identity)
        stack.enter_context(scene)
        scene.run(plan.warm_up)
        return _window(server, peer, case, plan, scene, gauge, "Python" if python else "C", clip is not None)


def _window(
    server: str,
    peer: Running,
    case: Case,
    plan: Plan,
    scene: Scene | PythonScene,
    gauge: Gauge | None,
    generator: str,
    clip: bool,
) -> Result:
    pids = peer.pids
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        scene.restart()
        watch = Watch(pids, lambda: scene.delivered, gauge)
        before = [CpuTime.read(pid) for pid in pids]
        own, start = time.process_time(), time.monotonic()
        watch.start()
        delivered = scene.delivered
        scene.run(plan.seconds, watch.poll, settle=False)
        wall = time.monotonic() - start
        own = time.process_time() - own
        after = [CpuTime.read(pid) for pid in pids]
        timely = scene.delivered - delivered
        scene.settle()  # what is late is delivered, but neither its CPU time nor its number is of the window
        totals = scene.totals()
    finally:
        gc.enable()
        gc.unfreeze()
    out = totals.delivered + totals.generator_drops
    user = sum(b.user - a.user for a, b in zip(before, after, strict=True))
    system = sum(b.system - a.system for a, b in zip(before, after, strict=True))
    waited = sum(b.waited - a.waited for a, b in zip(before, after, strict=True))
    found = cost(watch.windows) if pids else None
    known = found is not None and timely > 0
    extra = scene.receivers - 1
    return Result(
        server=server,
        case=case.name,
        generator=generator,
        seconds=plan.seconds,
        packets_in=totals.sent,
        packets_out=out,
        packets_timely=timely,
        delivery_ratio=totals.ratio,
        worst_ratio=totals.worst_ratio,
        median=found.median if found is not None else None,
        best=found.best if found is not None else None,
        user=user * 1e6 / timely if known else None,
        system=system * 1e6 / timely if known else None,
        windows_kept=found.kept if found is not None else 0,
        windows=found.total if found is not None else 0,
        speed=found.speed if found is not None else None,
        server_cpu_share=(user + system) / wall if known else None,
        server_waited_share=waited / wall if known else None,
        latency_p50=_milliseconds(totals, 0.50),
        latency_p99=_milliseconds(totals, 0.99),
        latency_max=_milliseconds(totals, 1.0),
        memory=memory_of(pids) / (1 << 20) if pids else None,
        memory_per_transport=scene.memory_growth / extra / 1024 if pids and extra > 0 else None,
        server_drops=totals.server_drops,
        generator_drops=totals.generator_drops,
        generator_cpu_share=own / wall,
        latest_burst=totals.latest_burst,
        recovered=totals.recovered,
        duplicates=totals.duplicates,
        samples=totals.samples,
        bad_samples=0 if clip else totals.bad_samples,  # real pictures carry no marks
    )


def _milliseconds(totals: Totals, share: float) -> float | None:
    found = percentile(totals.latencies, share)
    return None if found is None else found / 1000
