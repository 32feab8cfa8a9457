"""Static files, conditional requests and ranges: the decisions alone, and over real sockets."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.front_door import FrontDoor, nothing_left, open_front_door
from tests.support.http_client import connect_http, fetch
from tests.support.until import until
from trio_sfu.signalling.files import (
    IMMUTABLE,
    Plan,
    StaticFiles,
    Validators,
    plan_response,
    respond_with_bytes,
    respond_with_file,
)
from trio_sfu.signalling.http import HttpLimits, HttpRequest, HttpResponse, Route

BIG = bytes(range(256)) * 8192  # 2 MiB: read in pieces
MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT, as in RFC 9110
VALIDATORS = Validators('"abc"', MODIFIED)


def request(method: str = "GET", **headers: str) -> HttpRequest:
    return HttpRequest(method, "/", {}, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("wanted", "plan"),
    [
        ("bytes=0-9", Plan(206, 0, 10)),
        ("bytes=0-0", Plan(206, 0, 1)),
        ("bytes=90-", Plan(206, 90, 10)),
        ("bytes=90-1000", Plan(206, 90, 10)),
        ("bytes=-5", Plan(206, 95, 5)),
        ("bytes=-1000", Plan(206, 0, 100)),
        ("Bytes = 1 - 2", Plan(206, 1, 2)),
        ("bytes=100-", Plan(416, 0, 0)),
        ("bytes=100-200", Plan(416, 0, 0)),
        ("bytes=-0", Plan(416, 0, 0)),
        ("bytes=5-4", Plan(200, 0, 100)),
        ("bytes=-", Plan(200, 0, 100)),
        ("bytes=0-1,5-6", Plan(200, 0, 100)),
        ("lines=0-1", Plan(200, 0, 100)),
        ("bytes=a-b", Plan(200, 0, 100)),
        ("bytes=٣-", Plan(200, 0, 100)),
        ("", Plan(200, 0, 100)),
    ],
)
def test_ranges(wanted: str, plan: Plan) -> None:
    assert plan_response(request(range=wanted), VALIDATORS, 100) == plan


def test_ranges_are_for_get_only_and_empty_files_have_none() -> None:
    assert plan_response(request("HEAD", range="bytes=0-9"), VALIDATORS, 100) == Plan(200, 0, 100)
    assert plan_response(request(range="bytes=0-"), VALIDATORS, 0) == Plan(416, 0, 0)
    assert plan_response(request(range="bytes=-1"), VALIDATORS, 0) == Plan(416, 0, 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_none_match": '"abc"'}, 304),
        ({"if_none_match": 'W/"abc"'}, 304),
        ({"if_none_match": '"x", "abc"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_none_match": "abc"}, 200),
        ({"if_modified_since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 304),
        ({"if_modified_since": "Mon, 07 Nov 1994 08:49:37 GMT"}, 304),
        ({"if_modified_since": "Sun, 06 Nov 1994 08:49:36 GMT"}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        # If-None-Match decides where there are both.
        ({"if_none_match": '"x"', "if_modified_since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 200),
        ({"if_none_match": '"abc"', "range": "bytes=0-1"}, 304),
        ({"if_range": '"abc"', "range": "bytes=0-1"}, 206),
        ({"if_range": 'W/"abc"', "range": "bytes=0-1"}, 200),
        ({"if_range": '"x"', "range": "bytes=0-1"}, 200),
        ({"if_range": "Sun, 06 Nov 1994 08:49:37 GMT", "range": "bytes=0-1"}, 206),
        ({"if_range": "Mon, 07 Nov 1994 08:49:37 GMT", "range": "bytes=0-1"}, 200),
    ],
)
def test_conditions(headers: dict[str, str], status: int) -> None:
    assert plan_response(request(**headers), VALIDATORS, 100).status == status


def test_bytes_at_hand() -> None:
    def respond(asked: HttpRequest) -> HttpResponse:
        return respond_with_bytes(asked, b"0123456789", content_type="video/mp4", validators=VALIDATORS)

    whole = respond(request())
    assert (whole.status, whole.body) == (200, b"0123456789")
    part = respond(request(range="bytes=2-4"))
    assert (part.status, part.body) == (206, b"234")
    assert ("Content-Range", "bytes 2-4/10") in part.headers
    none = respond(request(range="bytes=10-"))
    assert none.status == 416
    assert ("Content-Range", "bytes */10") in none.headers
    same = respond(request(if_none_match='"abc"'))
    assert (same.status, same.body) == (304, b"")
    assert ("ETag", '"abc"') in same.headers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "assets"
    (root / "below").mkdir(parents=True)
    (root / "page-1f2e.js").write_text("let x;")
    (root / "below" / "a b.css").write_text("b{}")
    (root / "empty").touch()
    (root / "big.mp4").write_bytes(BIG)
    (root / ".hidden").write_text("hidden")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "assets-too").mkdir()
    (tmp_path / "assets-too" / "secret").write_text("secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "out-of-here").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "page-1f2e.js")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    return root


@asynccontextmanager
async def open_files(root: Path) -> AsyncIterator[FrontDoor]:
    async def page(request: HttpRequest) -> HttpResponse:
        return await respond_with_file(request, root / "page-1f2e.js")

    routes = [Route("/assets/*", StaticFiles(root)), Route("/page", page)]
    async with nothing_left(), open_front_door(routes, limits=HttpLimits(write_timeout=2)) as door:
        yield door


async def test_a_file(root: Path) -> None:
    async with open_files(root) as door:
        answer = await fetch(door.url + "/assets/page-1f2e.js")
        assert (answer.status, answer.text) == (200, "let x;")
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == IMMUTABLE
        assert answer.headers["accept-ranges"] == "bytes"
        head = await fetch(door.url + "/assets/page-1f2e.js", "HEAD")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "6")
        for name, value in (
            ("If-None-Match", answer.headers["etag"]),
            ("If-Modified-Since", answer.headers["last-modified"]),
        ):
            again = await fetch(door.url + "/assets/page-1f2e.js", headers={name: value})
            assert (again.status, again.body) == (304, b"")
            assert again.headers["etag"] == answer.headers["etag"]
        page = await fetch(door.url + "/page")
        assert (page.status, page.text, page.headers["cache-control"]) == (200, "let x;", "no-cache")
        (root / "page-1f2e.js").write_text("let yz;")
        changed = await fetch(door.url + "/page", headers={"If-None-Match": answer.headers["etag"]})
        assert (changed.status, changed.text) == (200, "let yz;")


async def test_large_files_empty_files_and_ranges(root: Path) -> None:
    async with open_files(root) as door, connect_http(door.url) as client:
        answer = await client.request("GET", "/assets/big.mp4")
        assert answer.body == BIG
        assert answer.headers["content-length"] == str(len(BIG))
        head = await client.request("HEAD", "/assets/big.mp4")
        assert head.headers["content-length"] == str(len(BIG))
        for first, last in ((0, 0), (1, 70_000), (100, len(BIG) - 1)):
            part = await client.request("GET", "/assets/big.mp4", headers={"Range": f"bytes={first}-{last}"})
            assert (part.status, part.body) == (206, BIG[first : last + 1])
            assert part.headers["content-range"] == f"bytes {first}-{last}/{len(BIG)}"
        part = await client.request("GET", "/assets/big.mp4", headers={"Range": f"bytes={len(BIG)}-"})
        assert (part.status, part.headers["content-range"]) == (416, f"bytes */{len(BIG)}")
        empty = await client.request("GET", "/assets/empty")
        assert (empty.status, empty.body) == (200, b"")
        assert (await client.request("HEAD", "/assets/empty")).headers["content-length"] == "0"
        assert (await client.request("GET", "/assets/below/a%20b.css")).text == "b{}"
        assert (await client.request("GET", "/assets/in")).text == "let x;"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "missing",
        "below",
        "below/",
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "%2e%2e%2fsecret",
        "below/../../secret",
        "..%5csecret",
        "../assets-too/secret",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "out",
        "out-of-here/secret",
        ".hidden",
        "./page-1f2e.js",
        "page-1f2e.js/",
        "page-1f2e.js/x",
        "loop",
        "pipe",
        "x" * 300,
        "%f0%9f%98%80",
    ],
)
async def test_nothing_else_is_reachable(root: Path, path: str) -> None:
    async with open_files(root) as door, connect_http(door.url) as client:
        answer = await client.request("GET", "/assets/" + path)
        assert answer.status == 404
        assert "secret" not in answer.text


async def test_a_zero_byte_is_400(root: Path) -> None:
    async with open_files(root) as door:
        assert (await fetch(door.url + "/assets/a%00b")).status == 400


async def test_a_download_given_up_closes_its_file(root: Path) -> None:
    (root / "huge").write_bytes(bytes(20_000_000))
    before = len(os.listdir("/proc/self/fd"))
    async with open_files(root) as door:
        async with connect_http(door.url) as client:
            await client.send("GET", "/assets/huge")
            assert await client.stream.receive_some(1000)
        await until(lambda: not door.stats.connections)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_file_cut_while_it_is_sent_ends_the_connection(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "huge").write_bytes(bytes(20_000_000))
    async with open_files(root) as door, connect_http(door.url) as client:
        await client.send("GET", "/assets/huge")
        assert await client.stream.receive_some(1000)
        os.truncate(root / "huge", 10_000_000)
        assert len(await client.closed()) < 20_000_000
    assert caplog.records == []


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    response = await StaticFiles(tmp_path / "missing")(request())
    assert response.status == 404
    await trio.lowlevel.checkpoint()
