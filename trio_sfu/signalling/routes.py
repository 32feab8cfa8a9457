"""HTTP requests, responses and the table that says who answers what. Values only, no I/O.

Made by :mod:`trio_sfu.server`, read by :mod:`trio_sfu.signalling.http`, used by everyone who answers
requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote

from trio_websocket import WebSocketConnection

from trio_sfu.wire.errors import BadPacket

#: The most fields of a query string.
MAX_QUERY_FIELDS: Final = 100


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, its body read to the end.

    ``path`` is percent-decoded; ``tail`` is what a route ending in ``/*`` left of it. ``headers`` have
    lower-case names, repeated ones joined by ", ". ``peer`` is the address the connection came from, "" where
    unknown.
    """

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""
    peer: str = ""
    secure: bool = False
    tail: str = ""

    def query_value(self, name: str) -> str | None:
        """The field's only value; None where it is missing or there several times."""
        values = self.query.get(name, [])
        return values[0] if len(values) == 1 else None


@dataclass(slots=True)
class HttpResponse:
    """What to answer. Framing, Date and CORS headers are the server's affair.

    A body that is an iterator is streamed: every piece has the server's write deadline, and the iterator is
    closed (``aclose``, where it has that) whatever happens. ``on_sent`` is called once, with whether
    everything was written; it must not raise.
    """

    status: int
    body: bytes | AsyncIterator[bytes] = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    #: The body's length where it is known before the body: of one that is streamed, or left out for HEAD.
    length: int | None = None
    on_sent: Callable[[bool], None] | None = None


def text_response(status: int, text: str, *, content_type: str = "text/plain; charset=utf-8") -> HttpResponse:
    """A short answer that nobody is to keep."""
    return HttpResponse(status, text.encode(), [("Content-Type", content_type), ("Cache-Control", "no-store")])


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


@dataclass(frozen=True, slots=True)
class WebSocketRoute:
    """``admit`` may refuse the upgrade with a plain answer; ``serve`` has the connection until it returns.

    ``max_message`` bounds a message, in bytes (binary) or characters (text); a longer one closes with 1009.
    """

    admit: Callable[[HttpRequest], HttpResponse | None]
    serve: Callable[[HttpRequest, WebSocketConnection], Awaitable[None]]
    max_message: int


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers requests for ``path``: an exact path, or one ending in ``/*`` for everything below it.

    ``methods`` None: the handler judges the method itself. HEAD comes with GET: the handler is asked as for
    GET and its body left unsent. ``watch_disconnect``: the handler is cancelled when the client goes away
    (for answers that are long in coming).
    """

    path: str
    handler: Handler
    methods: frozenset[str] | None = frozenset({"GET"})
    max_body: int = 0
    watch_disconnect: bool = False
    websocket: WebSocketRoute | None = None

    def allows(self, method: str) -> bool:
        return self.methods is None or method in self.methods or (method == "HEAD" and "GET" in self.methods)

    def allowed(self) -> str:
        """The Allow header's value."""
        methods = {"OPTIONS"} | (self.methods or {"GET", "POST"})
        return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


class RouteTable:
    """Exact paths first, then the longest ``/*``. Two routes for one path are the server's mistake:
    ValueError.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        # derived
        self._exact: dict[str, Route] = {}
        self._below: dict[str, Route] = {}
        for route in routes:
            table, path = self._exact, route.path
            if path.endswith("/*"):
                table, path = self._below, path[:-1]
            if path in table:
                raise ValueError(f"two routes for {route.path}")
            table[path] = route

    def match(self, path: str) -> tuple[Route, str] | None:
        """The route for a decoded path, and the tail."""
        if (exact := self._exact.get(path)) is not None:
            return exact, ""
        end = len(path)
        while (end := path.rfind("/", 0, end)) >= 0:
            if (below := self._below.get(path[: end + 1])) is not None:
                return below, path[end + 1 :]
        return None


def parse_target(target: str) -> tuple[str, dict[str, list[str]]]:
    """A request target (RFC 9112, section 3.2) to its decoded path and query. Raises BadPacket."""
    if not target.startswith("/"):
        if target == "*":
            return "*", {}
        scheme, separator, rest = target.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            raise BadPacket("not a request target")
        _, slash, rest = rest.partition("/")
        target = slash + rest or "/"
    raw_path, _, raw_query = target.partition("#")[0].partition("?")
    try:
        path = unquote(raw_path, errors="strict")
        query = parse_qs(raw_query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS, errors="replace")
    except ValueError as error:
        raise BadPacket("malformed request target") from error
    if "\0" in path:
        raise BadPacket("a zero byte in the path")
    return path, query
