"""A small HTTP/1.1 client over one trio connection, for tests: it shows what came over the wire and hides
nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import trio


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class HttpClient:
    """One connection. Requests go one after the other."""

    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self.stream = stream
        self._host = host
        self._h11 = h11.Connection(h11.CLIENT)

    async def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        await self.send(method, target, body=body, headers=headers)
        return await self.answer()

    async def send(
        self, method: str, target: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        all_headers = {"Host": self._host, **(headers or {})}
        if body or method == "POST":
            all_headers["Content-Length"] = str(len(body))
        data = self._h11.send(h11.Request(method=method, target=target, headers=list(all_headers.items())))
        data = (data or b"") + (self._h11.send(h11.Data(data=body)) or b"")
        await self.stream.send_all(data + (self._h11.send(h11.EndOfMessage()) or b""))

    async def answer(self) -> Answer:
        """Raises ConnectionError where there is none, or only a part of it."""
        status, headers, parts = 0, {}, []
        with trio.fail_after(10):
            while True:
                try:
                    event = self._h11.next_event()
                except h11.RemoteProtocolError as error:
                    raise ConnectionError(str(error)) from error
                if event is h11.NEED_DATA:
                    self._h11.receive_data(bytes(await self.stream.receive_some(65536)))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    parts.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    return Answer(status, headers, b"".join(parts))
                elif not isinstance(event, h11.InformationalResponse):
                    raise ConnectionError(f"no answer but {event!r}")

    async def closed(self) -> bytes:
        """Everything until the server closes the connection."""
        received = bytearray()
        with trio.fail_after(10):
            try:
                while data := await self.stream.receive_some(65536):
                    received += data
            except trio.BrokenResourceError:
                pass
        return bytes(received)


@asynccontextmanager
async def connect_http(url: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpClient]:
    """A connection to the server of ``url`` (scheme and authority)."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    stream: trio.abc.Stream = await trio.open_tcp_stream(parts.hostname, port)
    if parts.scheme == "https":
        assert isinstance(stream, trio.SocketStream)
        stream = trio.SSLStream(stream, tls or ssl.create_default_context(), server_hostname=parts.hostname)
    try:
        yield HttpClient(stream, parts.netloc)
    finally:
        await trio.aclose_forcefully(stream)


async def fetch(
    url: str,
    method: str = "GET",
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    async with connect_http(url, tls=tls) as client:
        return await client.request(method, target, body=body, headers=headers)
