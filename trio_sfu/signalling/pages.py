"""The pages: ``/``, ``/room/<id>`` and ``/watch/<id>``, and their assets, as the wheel's build hook made them.

server.py puts :func:`page_routes` into the routes. A missing build is answered with how to make it.
"""

from pathlib import Path
from typing import Final

from trio_sfu.signalling.files import IMMUTABLE, StaticFiles, respond_with_file
from trio_sfu.signalling.routes import Handler, HttpRequest, HttpResponse, Route, text_response

# Scripts and styles come from here only, and nothing is inline. blob: is for media that scripts put together;
# ws: and wss: for browsers (Safari before 15.4) to which 'self' does not mean WebSockets of the same origin.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws: wss:; media-src 'self' blob:; worker-src 'self' blob:; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE_HEADERS: Final = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(self), microphone=(self), display-capture=(self), geolocation=()"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
)
MAX_ROOM_PATH: Final = 64

NOT_BUILT: Final = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>trio_sfu: the pages are not built</title></head>
<body>
<h1>The pages are not built</h1>
<p>The server works, and clients of their own can use it. To build its pages, in the source checkout:</p>
<pre>make run</pre>
<p>or, with the build requirements of pyproject.toml installed:</p>
<pre>python hatch_build.py</pre>
</body></html>
"""


def page_routes(dist: Path) -> list[Route]:
    """Routes for what the build hook put into ``dist``, which is looked at with each request."""

    def of_a_room(name: str) -> Handler:
        async def page(request: HttpRequest) -> HttpResponse:
            if "/" in request.tail or not 0 < len(request.tail) <= MAX_ROOM_PATH:
                return with_page_headers(text_response(404, "There is no such page.\n"))
            return await _page(request, dist / name)

        return page

    async def index(request: HttpRequest) -> HttpResponse:
        return await _page(request, dist / "index.html")

    assets = StaticFiles(dist / "assets", cache_control=IMMUTABLE)
    return [
        Route("/", index),
        Route("/room/*", of_a_room("room.html")),
        Route("/watch/*", of_a_room("watch.html")),
        Route("/assets/*", _asset(assets)),
    ]


def with_page_headers(response: HttpResponse) -> HttpResponse:
    """The response with what browsers need to hear with a page."""
    response.headers.extend(PAGE_HEADERS)
    return response


async def _page(request: HttpRequest, path: Path) -> HttpResponse:
    response = await respond_with_file(request, path)
    if response.status == 404:
        response = text_response(503, NOT_BUILT, content_type="text/html; charset=utf-8")
    return with_page_headers(response)


def _asset(files: StaticFiles) -> Handler:
    async def asset(request: HttpRequest) -> HttpResponse:
        response = await files(request)
        response.headers.append(("Cross-Origin-Resource-Policy", "cross-origin"))
        return response

    return asset
