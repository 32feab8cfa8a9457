"""What ``GET /metrics`` answers: gauges and counters of the whole process, in Prometheus' text format.

server.py makes one :class:`Metrics` and names the sources; each is read when somebody asks, and costs nothing
before. Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).
"""

import gc
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

import trio

from trio_sfu.hls.service import HlsService
from trio_sfu.media.overload import Overload
from trio_sfu.rooms.registry import Rooms
from trio_sfu.signalling.engineio import EngineServer
from trio_sfu.signalling.http import HttpStats
from trio_sfu.signalling.resumption import Resumption
from trio_sfu.signalling.socketio import SocketIOStats
from trio_sfu.transport.tcp_connection import TcpCounters
from trio_sfu.transport.udp import UdpEndpoint

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
NAMESPACE: Final = "trio_sfu_"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its values, each with its labels. A counter's name ends in ``_total``."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    values: tuple[tuple[Labels, float], ...]


def gauge(name: str, help_text: str, value: float) -> Metric:
    """A metric that goes up and down."""
    return Metric(name, "gauge", help_text, (({}, value),))


def counter(name: str, help_text: str, value: float) -> Metric:
    """A metric that only goes up while the process lives."""
    return Metric(name, "counter", help_text, (({}, value),))


def counters(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    """Several counters of one name, told apart by a label."""
    return Metric(name, "counter", help_text, tuple(({label: key}, value) for key, value in values.items()))


@dataclass(slots=True)
class Metrics:
    """The sources of metrics, in the order in which they are shown."""

    sources: list[Callable[[], Iterable[Metric]]] = field(default_factory=list)

    def add(self, source: Callable[[], Iterable[Metric]]) -> None:
        """Ask ``source`` too. It must be quick and not raise."""
        self.sources.append(source)

    def render(self) -> str:
        """The whole page."""
        return render(metric for source in self.sources for metric in source())


def render(metrics: Iterable[Metric]) -> str:
    """Metrics as text, one value a line."""
    lines: list[str] = []
    for metric in metrics:
        name = NAMESPACE + metric.name
        lines.append(f"# HELP {name} {_escape(metric.help, quotes=False)}")
        lines.append(f"# TYPE {name} {metric.kind}")
        for labels, value in metric.values:
            inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def process_metrics() -> Iterable[Metric]:
    """Of this process and its trio run. Call it inside trio."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield gauge("tasks", "Trio tasks alive.", trio.lowlevel.current_statistics().tasks_living)
    yield gauge("open_fds", "File descriptors open.", open_fds())
    yield counter("cpu_seconds_total", "User and system CPU time.", usage.ru_utime + usage.ru_stime)
    yield gauge("resident_bytes", "Memory resident now.", resident_bytes())
    yield counter("gc_collections_total", "Garbage collections.", sum(s["collections"] for s in gc.get_stats()))
    yield gauge("start_time_seconds", "When the process started, Unix time.", _STARTED)


def room_metrics(rooms: Rooms) -> Iterable[Metric]:
    """What the rooms hold."""
    count, held = rooms.counts()
    yield gauge("rooms", "Rooms.", count)
    yield gauge("peers", "Users in rooms.", held.peers)
    yield gauge("transports", "WebRTC transports of users in rooms.", held.transports)
    yield gauge("producers", "Producers.", held.producers)
    yield gauge("consumers", "Consumers.", held.consumers)


def endpoint_metrics(endpoint: UdpEndpoint) -> Iterable[Metric]:
    """What went through the UDP sockets."""
    received = endpoint.counters
    sent = [each.sender.counters for each in endpoint.sockets]
    kernel = sum(each.kernel_drops() for each in endpoint.sockets)
    yield gauge("udp_transports", "Transports registered at the UDP endpoint.", endpoint.transport_count)
    yield counter("udp_received_packets_total", "Datagrams received.", received.received)
    yield counter("udp_received_bytes_total", "Bytes in them.", received.octets)
    yield counters(
        "udp_received_drops_total",
        "Datagrams dropped on the way in.",
        "reason",
        {
            "unknown": received.unknown,
            "invalid": received.invalid,
            "limited": received.limited,
            "early": received.early,
            "refused": received.refused,
            "replayed": received.replayed,
            "unauthentic": received.unauthentic,
            "kernel": kernel,
        },
    )
    yield counter("udp_sent_packets_total", "Datagrams sent.", sum(c.datagrams for c in sent))
    yield counter("udp_sent_bytes_total", "Bytes in them.", sum(c.octets for c in sent))
    yield counters(
        "udp_sent_drops_total",
        "Datagrams dropped on the way out.",
        "reason",
        {"congested": sum(c.congested for c in sent), "failed": sum(c.failed for c in sent)},
    )


def overload_metrics(overload: Overload) -> Iterable[Metric]:
    """What is left out where there is more to do than can be done."""
    yield gauge("behind_seconds", "How late what came last was handled.", overload.late)
    yield gauge("overload_strained", "1 while video is not repaired for want of time, else 0.", overload.strained)
    yield gauge("overload_video_kept", "Share of the video that is sent on: 1 unless overloaded.", overload.keep)
    yield counter("overload_episodes_total", "Times that video began to be left out.", overload.episodes)
    yield counter("overload_seconds_total", "Time in which video was left out.", overload.seconds)


def tcp_metrics(counted: TcpCounters) -> Iterable[Metric]:
    """What went through the TCP connections of the media."""
    yield gauge("media_tcp_connections", "TCP connections for media.", counted.connections)
    yield counter("media_tcp_accepted_total", "TCP connections accepted for media.", counted.accepted)
    yield counters(
        "media_tcp_refused_total",
        "Those closed before a transport had authenticated them, or because of what came.",
        "reason",
        {
            "late": counted.late,
            "strange": counted.strange,
            "invalid": counted.invalid,
            "too_many": counted.refused,
        },
    )
    yield counter("media_tcp_received_packets_total", "Datagrams received by TCP.", counted.received)
    yield counter("media_tcp_received_bytes_total", "Bytes in them.", counted.octets_received)
    yield counter("media_tcp_sent_packets_total", "Datagrams sent by TCP.", counted.sent)
    yield counter("media_tcp_sent_bytes_total", "Bytes in them, with their lengths.", counted.octets_sent)
    yield counters(
        "media_tcp_sent_drops_total",
        "Datagrams dropped on the way out by TCP.",
        "reason",
        {"congested": counted.congested, "gone": counted.gone},
    )


def hls_metrics(hls: HlsService) -> Iterable[Metric]:
    """The live streams."""
    stats, streams = hls.stats, hls.streams
    yield gauge("hls_pipelines", "Pipelines of rooms that are streamed.", stats.pipelines)
    yield gauge("hls_ffmpeg_processes", "FFmpeg processes that are not reaped.", stats.processes)
    yield gauge("hls_plain_transports", "Plain transports to FFmpeg.", stats.transports)
    yield gauge("hls_port_leases", "Pairs of ports leased.", hls.ports.leases)
    yield gauge("hls_streams", "Live streams in memory, ended ones included.", len(streams))
    yield gauge("hls_bytes", "Bytes of media in memory for viewers.", streams.bytes)
    yield gauge("hls_waiting_viewers", "Requests that wait for what comes next.", streams.waiting)
    yield from _counters_of("hls", stats, but=("pipelines", "processes", "transports"))
    yield from _counters_of("hls_files", hls.written)


def signalling_metrics(http: HttpStats, engine: EngineServer, socketio: SocketIOStats) -> Iterable[Metric]:
    """The front door."""
    yield gauge("tcp_connections", "TCP connections.", http.connections)
    yield gauge("websockets", "WebSockets among them.", http.websockets)
    yield gauge("engineio_sessions", "Engine.IO sessions.", engine.session_count)
    yield gauge("socketio_sockets", "Socket.IO sockets.", socketio.sockets)
    yield from _counters_of("http", http, but=("connections", "websockets"))
    yield from _counters_of("engineio", engine.stats)
    yield from _counters_of("socketio", socketio, but=("sockets",))


def resumption_metrics(resumption: Resumption) -> Iterable[Metric]:
    """Users who are away for a moment."""
    yield gauge("parked_users", "Users whose socket is lost, and who may come back.", resumption.parked_count)
    yield from _counters_of("resumption", resumption.stats)


def _counters_of(prefix: str, stats: Any, but: Sequence[str] = ()) -> Iterable[Metric]:
    """The fields of a dataclass of counters, each by its own name."""
    for each in fields(stats):
        if each.name not in but:
            words = each.name.replace("_", " ")
            yield counter(f"{prefix}_{each.name}_total", f"{words.capitalize()}.", getattr(stats, each.name))


def open_fds() -> int:
    """How many file descriptors this process has open; 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # the listing itself
    except OSError:
        return 0


def resident_bytes() -> int:
    """Resident memory; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


_STARTED: Final = time.time()


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escape(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
