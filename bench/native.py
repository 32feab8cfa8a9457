"""The compiled half of the load generator (``bench/generator.c``), reached through cffi's ABI mode.

Owns the library's memory and nothing else: sockets belong to :mod:`bench.scene`, which calls :meth:`Generator.run`
turn by turn. One core of it sends and takes several hundred thousand packets a second.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cffi

from bench.cc import compiled
from bench.recipe import Recipe

_TEMPLATE: Final = 1600
_SOURCE: Final = "generator.c"


def _declarations() -> str:
    text = (Path(__file__).parent / _SOURCE).read_text(encoding="utf-8")
    return text[text.index("/* cdef") : text.index("/* end of cdef")]


class Generator:
    """Ports (a socket with its keys), the streams expected on them, and sources that send on them.

    :param offload: receive with UDP_GRO. What a sender gave the kernel as one run is then never cut, on loopback, and
        its sender saves that work too, which no network would spare it: leave it off when that is measured.

    Raises :class:`bench.cc.NoCompiler`. ``counts`` is the C struct ``gen_t``.
    """

    def __init__(self, *, ports: int, sources: int, offload: bool = False) -> None:
        self._ffi: Any = cffi.FFI()
        self._ffi.cdef(_declarations())
        library: Any = self._ffi.dlopen(str(compiled(_SOURCE, shared=True, crypto=True)))
        self._library = library
        self.counts: Any = library.gen_new(ports, sources, int(offload))

    def close(self) -> None:
        """Free it; a second call does nothing. The sockets stay open."""
        if self.counts is not None:
            self._library.gen_free(self.counts)
            self.counts = None

    def add_port(self, sock: socket.socket, inbound: bytes, outbound: bytes, transport_cc_id: int = 0) -> int:
        """Take over a connected socket: only :meth:`run` reads it from now on.

        :param inbound: key and salt, 28 bytes, of :func:`bench.srtp_keys.gcm_session_keys`.
        :param transport_cc_id: the header extension with the transport-wide number in what comes; 0: none.
        """
        index: int = self._library.gen_add_port(self.counts, sock.fileno(), inbound, outbound, transport_cc_id)
        if index < 0:
            raise RuntimeError("the generator has no room for another port")
        return index

    def port(self, index: int) -> Any:
        """The C struct ``port_t``."""
        return self.counts.ports[index]

    def add_stream(self, port: int, ssrc: int) -> Any:
        """Expect an SSRC on a port; the C struct ``stream_t``, alive as long as the generator."""
        index = self._library.gen_add_stream(self.counts, port, ssrc)
        if index < 0:
            raise RuntimeError("too many streams on one port")
        return self._ffi.addressof(self.counts.ports[port].streams, index)

    def add_source(self, port: int, recipe: Recipe, *, rate: float, frames: float, due: int) -> Any:
        """Send by ``recipe`` on a port; the C struct ``source_t``.

        :param rate: packets a second; a recording goes by its own.
        :param frames: bursts a second.
        :param due: when the first one leaves, ns of the monotonic clock.
        """
        packets = b"".join(packet.ljust(_TEMPLATE, b"\0") for packet in recipe.packets)
        sizes = self._ffi.new("int[]", [len(packet) for packet in recipe.packets])
        flags = bytes(recipe.flags)
        index = self._library.gen_add_source(self.counts, port, len(recipe.packets), packets, sizes, flags)
        if index < 0:
            raise RuntimeError("the generator has no room for another source")
        source = self.counts.sources[index]
        source.video = recipe.video
        source.clip = recipe.clip
        source.transport_cc_at = recipe.transport_cc_at
        source.send_time_at = recipe.send_time_at
        source.picture_at = recipe.picture_at
        source.mark_at = recipe.mark_at
        source.clock_rate = recipe.clock_rate
        source.per_frame = rate / frames
        source.interval = round(1e9 / frames)
        source.due = due
        source.number = recipe.first_number
        return source

    def run(self, until: int, end: int) -> None:
        """Send what is due before ``end`` and drain what comes until ``until``, both ns of the monotonic clock."""
        self._library.gen_run(self.counts, until, end)

    def take_others(self) -> Sequence[tuple[int, bytes]]:
        """What came and is not an expected stream's: STUN, DTLS, RTCP, retransmissions; with the port's index."""
        counts = self.counts
        found = [
            (counts.others[i].port, bytes(self._ffi.buffer(counts.others[i].data, counts.others[i].size)))
            for i in range(counts.other_count)
        ]
        counts.other_count = 0
        return found

    def take_latencies(self) -> list[int]:
        """One-way latencies of the samples so far, in µs; they are forgotten."""
        counts = self.counts
        found = list(self._ffi.unpack(counts.latencies, counts.latency_count)) if counts.latency_count else []
        counts.latency_count = 0
        return found
