"""Answers made of bytes that keep: conditional requests, byte ranges, static files.

Used by whoever serves pages, assets and media segments.

Source: RFC 9110, sections 8.8 (validators), 13 (conditional requests) and 14 (ranges).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Final

import trio

from trio_sfu.signalling.routes import HttpRequest, HttpResponse, text_response

#: For files whose name changes with their content.
IMMUTABLE: Final = "public, max-age=31536000, immutable"
#: For everything else: kept, but asked about each time.
REVALIDATE: Final = "no-cache"

#: Files up to this size are read at once, larger ones piece by piece.
_WHOLE: Final = 262144
_PIECE: Final = 65536

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})[ \t]*-[ \t]*([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')

_CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4s": "video/mp4",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ts": "video/mp2t",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one version of a resource from another: a strong ETag (quotes included), a time in
    seconds.
    """

    etag: str
    modified: float | None = None

    @property
    def last_modified(self) -> str | None:
        return None if self.modified is None else formatdate(int(self.modified), usegmt=True)

    def headers(self) -> list[tuple[str, str]]:
        headers = [("ETag", self.etag)]
        if (last_modified := self.last_modified) is not None:
            headers.append(("Last-Modified", last_modified))
        return headers


@dataclass(frozen=True, slots=True)
class Plan:
    """How to answer: 200, 206 with ``start`` and ``length``, 304 or 416."""

    status: int
    start: int
    length: int


def plan_response(request: HttpRequest, validators: Validators, size: int) -> Plan:
    """Judge the conditions first, the range after them (RFC 9110, section 13.2.2)."""
    if _not_modified(request, validators):
        return Plan(304, 0, 0)
    whole = Plan(200, 0, size)
    wanted = request.headers.get("range")
    if wanted is None or request.method != "GET" or not _if_range_holds(request, validators):
        return whole
    match = _RANGE.fullmatch(wanted)
    if match is None or not (match[1] or match[2]):
        return whole  # several ranges, another unit, nonsense: a server may ignore them all
    if not match[1]:
        length = min(int(match[2]), size)
        return Plan(206, size - length, length) if length else Plan(416, 0, 0)
    start = int(match[1])
    end = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < start:
        return whole
    return Plan(206, start, end - start + 1) if start < size else Plan(416, 0, 0)


def respond_with_bytes(
    request: HttpRequest,
    data: bytes,
    *,
    content_type: str,
    validators: Validators,
    cache_control: str = REVALIDATE,
) -> HttpResponse:
    """The answer to GET or HEAD for bytes at hand."""
    plan = plan_response(request, validators, len(data))
    response = _head(plan, len(data), content_type, validators, cache_control)
    if plan.length:
        response.body = data[plan.start : plan.start + plan.length]
    return response


async def respond_with_file(request: HttpRequest, path: Path, *, cache_control: str = REVALIDATE) -> HttpResponse:
    """The answer to GET or HEAD for one file that the server chose; 404 where it is not a regular file."""
    content_type = _CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream")
    return await trio.to_thread.run_sync(_file_response, request, path, content_type, cache_control)


class StaticFiles:
    """A directory's files, for a route that ends in ``/*``.

    Nothing outside the directory is reachable: not by "..", encoded or not, nor by a symbolic link. Names
    that begin with a dot do not exist.
    """

    def __init__(self, root: Path, *, cache_control: str = IMMUTABLE) -> None:
        # given
        self._root: Final = root
        self._cache_control: Final = cache_control

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        path = await trio.to_thread.run_sync(self._find, request.tail)
        if path is None:
            return _not_found()
        return await respond_with_file(request, path, cache_control=self._cache_control)

    def _find(self, tail: str) -> Path | None:
        parts = tail.split("/")
        if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            return None
        try:
            root = self._root.resolve(strict=True)
            path = root.joinpath(*parts).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return None
        return path if path.is_relative_to(root) else None


def _file_response(request: HttpRequest, path: Path, content_type: str, cache_control: str) -> HttpResponse:
    """In a thread. The file is opened before it is looked at, so that both are the same file."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return _not_found()
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return _not_found()
        validators = Validators(f'"{status.st_mtime_ns:x}-{status.st_size:x}"', status.st_mtime)
        plan = plan_response(request, validators, status.st_size)
        response = _head(plan, status.st_size, content_type, validators, cache_control)
        if plan.length == 0:
            return response
        if request.method == "HEAD":
            response.length = plan.length
        elif plan.length <= _WHOLE:
            response.body = os.pread(descriptor, plan.length, plan.start)
        else:
            response.length = plan.length
            response.body = FilePieces(descriptor, plan.start, plan.length)
            descriptor = -1
        return response
    finally:
        if descriptor >= 0:
            os.close(descriptor)


class FilePieces:
    """A part of an open file, 64 KiB at a time. Owns the descriptor; ``aclose`` closes it."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        # owned
        self._descriptor = descriptor
        self._position = start
        self._end = start + length

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        wanted = min(_PIECE, self._end - self._position)
        piece = b""
        if wanted > 0:
            piece = await trio.to_thread.run_sync(os.pread, self._descriptor, wanted, self._position)
        if not piece:
            raise StopAsyncIteration
        self._position += len(piece)
        return piece

    async def aclose(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _not_found() -> HttpResponse:
    return text_response(404, "There is no such file.\n")


def _head(plan: Plan, size: int, content_type: str, validators: Validators, cache_control: str) -> HttpResponse:
    if plan.status == 416:
        response = text_response(416, "The range is not in the file.\n")
        response.headers.append(("Content-Range", f"bytes */{size}"))
        return response
    headers = [*validators.headers(), ("Cache-Control", cache_control), ("Accept-Ranges", "bytes")]
    if plan.status != 304:
        headers += [("Content-Type", content_type), ("X-Content-Type-Options", "nosniff")]
    if plan.status == 206:
        last = plan.start + plan.length - 1
        headers.append(("Content-Range", f"bytes {plan.start}-{last}/{size}"))
    return HttpResponse(plan.status, headers=headers)


def _not_modified(request: HttpRequest, validators: Validators) -> bool:
    if request.method not in ("GET", "HEAD"):
        return False
    etags = request.headers.get("if-none-match")
    if etags is not None:
        mine = _weak(validators.etag)
        return etags.strip() == "*" or any(_weak(etag) == mine for etag in _ETAG.findall(etags))
    since = _parse_date(request.headers.get("if-modified-since"))
    return since is not None and validators.modified is not None and int(validators.modified) <= since


def _if_range_holds(request: HttpRequest, validators: Validators) -> bool:
    condition = request.headers.get("if-range")
    if condition is None:
        return True
    if '"' in condition:
        return condition.strip() == validators.etag  # a weak one never holds
    return condition.strip() == validators.last_modified


def _weak(etag: str) -> str:
    return etag.removeprefix("W/")


def _parse_date(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
