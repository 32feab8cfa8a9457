"""A way to a server on this machine that can be cut: what a TCP connection over a bad network is like.

For synchronous tests; each connection has two threads of its own, which end with it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["TcpProxy", "running_tcp_proxy"]

_RESET: Final = struct.pack("ii", 1, 0)  # closing without lingering sends RST


class TcpProxy:
    """Made by :func:`running_tcp_proxy`. ``port`` is where it listens, on 127.0.0.1."""

    def __init__(self, target: int) -> None:
        self._target: Final = target
        self._listener: Final = socket.create_server(("127.0.0.1", 0))
        self._lock: Final = threading.Lock()
        self._pairs: Final[set[tuple[socket.socket, socket.socket]]] = set()
        self._threads: Final[list[threading.Thread]] = []
        self._open = True
        self._ended = False
        self.port: Final[int] = self._listener.getsockname()[1]
        self.refused = 0
        """Connections that came while it was cut."""

    def cut(self) -> None:
        """Reset all connections, and those that come until :meth:`heal`."""
        with self._lock:
            self._open = False
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair, reset=True)

    def heal(self) -> None:
        """Let new connections through again."""
        self._open = True

    def serve(self) -> None:
        """Take connections until :meth:`close`."""
        while True:
            client, _ = self._listener.accept()
            with self._lock:
                if self._ended:
                    client.close()
                    return
                if not self._open:
                    self.refused += 1
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    client.close()
                    continue
                pair = (client, socket.create_connection(("127.0.0.1", self._target)))
                self._pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                thread = threading.Thread(target=self._pump, args=(source, sink, pair), daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        """End everything; the threads are gone when this returns."""
        with self._lock:
            self._ended = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()  # wakes serve()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _pump(self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        self._end(pair, reset=False)

    def _end(self, pair: tuple[socket.socket, socket.socket], *, reset: bool) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.remove(pair)
        for each in pair:
            with contextlib.suppress(OSError):
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.shutdown(socket.SHUT_RD)  # wakes its thread
            each.close()


@contextmanager
def running_tcp_proxy(port: int) -> Iterator[TcpProxy]:
    """A proxy to ``port`` of 127.0.0.1."""
    proxy = TcpProxy(port)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
