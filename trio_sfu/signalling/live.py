"""Live streams over HTTP: ``/hls/<roomId>/index.m3u8``, and what it lists.

server.py puts :func:`live_routes` into the routes. Where the streams come from is the affair of ``hls``, which this
module knows by what it asks of it only.

Source: draft-pantos-hls-rfc8216bis-22, sections 6.2.5 (delivery directives) and 6.2.6 (preload hints).
"""

import re
from collections.abc import Callable
from typing import Final, Protocol

from trio_sfu.signalling.files import REVALIDATE, Validators, respond_with_bytes
from trio_sfu.signalling.routes import HttpRequest, HttpResponse, Route, text_response
from trio_sfu.wire.errors import BadPacket

__all__ = ["LiveStore", "LiveStream", "live_routes", "routes_without_streams"]

PLAYLIST: Final = "index.m3u8"
PLAYLIST_TYPE: Final = "application/vnd.apple.mpegurl"
#: No name is used twice.
_KEEP: Final = "public, max-age=3600, immutable"
_DECIMAL: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


class LiveStream(Protocol):
    """See ``hls/live_stream.py``."""

    @property
    def token(self) -> str: ...
    @property
    def progress(self) -> int: ...
    @property
    def trouble(self) -> str: ...
    @property
    def version(self) -> int: ...
    def playlist(self, *, skip: bool) -> bytes: ...
    def has(self, msn: int, part: int | None) -> bool: ...
    def is_far(self, msn: int, part: int | None) -> bool: ...
    def media(self, name: str) -> bytes | None: ...
    def announces(self, name: str) -> bool: ...
    async def wait(self, ready: Callable[[], bool]) -> bool: ...


class LiveStore(Protocol):
    """Who finds a room's stream."""

    def get(self, room_id: str) -> LiveStream | None: ...


def live_routes(store: LiveStore) -> list[Route]:
    """The routes below ``/hls/``. A request may wait for as long as the stream lets it; who goes away is forgotten."""

    async def live(request: HttpRequest) -> HttpResponse:
        room_id, _, rest = request.tail.partition("/")
        stream = store.get(room_id)
        if stream is None or not stream.progress:
            if stream is not None and stream.trouble:
                return text_response(503, f"The stream cannot be made: {stream.trouble}\n")
            return text_response(404, "There is no such stream, or not yet.\n")
        if rest == PLAYLIST:
            return await _playlist(request, stream)
        token, _, name = rest.partition("/")
        if token != stream.token:
            return _no_media()
        return await _media(request, stream, name)

    return [Route("/hls/*", live, watch_disconnect=True)]


def routes_without_streams() -> list[Route]:
    """The routes of a server that makes none: 404 with a code, so that nobody waits for what never comes."""
    body = '{"error":"This server makes no live streams","code":"no-live-streams"}'

    async def nothing(_: HttpRequest) -> HttpResponse:
        return text_response(404, body, content_type="application/json")

    return [Route("/hls/*", nothing)]


async def _playlist(request: HttpRequest, stream: LiveStream) -> HttpResponse:
    try:
        msn, part = _number(request, "_HLS_msn"), _number(request, "_HLS_part")
        skip = _directive(request, "_HLS_skip") in ("YES", "v2")
    except BadPacket as error:
        return text_response(400, f"{error}\n")
    if part is not None and msn is None:
        return text_response(400, "_HLS_part without _HLS_msn\n")
    if msn is not None and not stream.has(msn, part):
        if stream.is_far(msn, part):
            return text_response(400, "That is too far ahead.\n")
        wanted = msn
        if not await stream.wait(lambda: stream.has(wanted, part)):
            return _unavailable()
    return respond_with_bytes(
        request,
        stream.playlist(skip=skip),
        content_type=PLAYLIST_TYPE,
        validators=Validators(f'"{stream.token}-{stream.version}{"-skip" if skip else ""}"'),
        cache_control=REVALIDATE,
    )


async def _media(request: HttpRequest, stream: LiveStream, name: str) -> HttpResponse:
    # A part that has been announced comes, whole, when it is there.
    if stream.announces(name) and not await stream.wait(lambda: not stream.announces(name)):
        return _unavailable()
    data = stream.media(name)
    if data is None:
        return _no_media()
    return respond_with_bytes(
        request,
        data,
        content_type="video/mp4",
        validators=Validators(f'"{stream.token}-{name}"'),
        cache_control=_KEEP,
    )


def _directive(request: HttpRequest, name: str) -> str | None:
    """Raises BadPacket where it is there more than once."""
    if len(request.query.get(name, [])) > 1:
        raise BadPacket(f"{name} more than once")
    return request.query_value(name)


def _number(request: HttpRequest, name: str) -> int | None:
    """A directive's decimal integer (below 10**15). Raises BadPacket."""
    text = _directive(request, name)
    if text is None:
        return None
    if not _DECIMAL.fullmatch(text):
        raise BadPacket(f"{name} is not a number")
    return int(text)


def _no_media() -> HttpResponse:
    return text_response(404, "There is no such part of the stream.\n")


def _unavailable() -> HttpResponse:
    response = text_response(503, "It has not come in time, or too many are waiting for it.\n")
    response.headers.append(("Retry-After", "1"))
    return response
