"""Calls of two and three users, over every codec and every kind of signalling connection."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error

from tests.browser.conftest import OpenPage, new_context
from tests.browser.users import SMALL, User, connect
from tests.support.certificate import write_certificate
from tests.support.server import Server, running_server

CODECS = ["VP8", "H264", "VP9", "AV1"]


def everyone_decodes(users: list[User], *, frames: int = 10) -> None:
    """Each user sees new frames of, and hears sound from, each other."""
    for user in users:
        stats = user.call("waitDecoding", {"frames": frames, "timeoutMs": 30_000})
        assert len(stats["consumers"]) == 2 * (len(users) - 1)
        assert user.call("failures") == []


@pytest.mark.parametrize("codec", CODECS)
def test_two_users_see_and_hear_each_other(open_page: OpenPage, codec: str) -> None:
    first, second = (connect(open_page()) for _ in range(2))
    room = first.join(video=codec)
    first.call("autoConsume", {"timeoutMs": 20_000})
    second.join(room, video=codec)
    consumed = second.call("consumeAll", {"timeoutMs": 20_000})
    assert {each["codec"].lower() for each in consumed} == {"audio/opus", f"video/{codec}".lower()}
    everyone_decodes([first, second])


@pytest.mark.parametrize("codec", CODECS)
def test_three_users_see_and_hear_each_other(open_page: OpenPage, codec: str) -> None:
    users = [connect(open_page()) for _ in range(3)]
    room = None
    for user in users:
        room = user.join(room, video=codec)
    for user in users:
        user.call("consumeAll", {"timeoutMs": 30_000})
    everyone_decodes(users, frames=5)


def test_users_with_different_codecs_see_each_other(open_page: OpenPage) -> None:
    first, second = (connect(open_page()) for _ in range(2))
    room = first.join(video="VP9")
    second.join(room, video="H264")
    for user, codec in ((first, "video/h264"), (second, "video/vp9")):
        consumed = user.call("consumeAll")
        assert codec in {each["codec"].lower() for each in consumed}
    everyone_decodes([first, second])


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("path", ["/ws", "/socket.io"])
def test_signalling_by_one_transport_only(open_page: OpenPage, server: Server, transport: str, path: str) -> None:
    first, second = (connect(open_page(), transports=[transport], path=path) for _ in range(2))
    room = first.join()
    second.join(room)
    second.call("consumeAll")
    second.call("waitDecoding", {})
    assert {user.call("socketState")["transport"] for user in (first, second)} == {transport}
    # A page that is closed before its goodbye is out is found by the ping time-out only.
    for user in (first, second):
        user.call("close")
    server.wait_gauge("engineio_sessions", 0)


def test_polling_is_upgraded_to_websocket(open_page: OpenPage) -> None:
    user = connect(open_page())
    user.page.wait_for_function("() => window.sfu.socketState().transport === 'websocket'")
    assert user.call("create").startswith("room_")


def test_simulcast_producer_is_seen(open_page: OpenPage) -> None:
    """Front ends that send several encodings get one of them through."""
    first, second = (connect(open_page()) for _ in range(2))
    room = first.join(video=None)
    encodings = [
        {"rid": "r0", "scaleResolutionDownBy": 2, "maxBitrate": 150_000},
        {"rid": "r1", "scaleResolutionDownBy": 1, "maxBitrate": 600_000},
    ]
    size = {**SMALL, "width": 640, "height": 480}
    first.call("produce", {"kind": "video", "codec": "VP8", "encodings": encodings, **size})
    second.join(room, audio=False, video=None)
    consumed = second.call("consumeAll")
    assert sorted(each["type"] for each in consumed) == ["simple", "simulcast"]
    second.call("waitDecoding", {"frames": 40, "timeoutMs": 30_000})


def one_sees_the_other(browser: Browser, server: Server) -> None:
    """A call of two on a server of its own; the second decodes what the first sends."""
    context = new_context(browser, server)
    try:
        users = []
        for _ in range(2):
            page = context.new_page()
            page.goto("/")
            users.append(connect(page))
        room = users[0].join()
        users[1].join(room)
        users[1].call("consumeAll")
        users[1].call("waitDecoding", {})
    finally:
        context.close()
    server.wait_idle()


def test_call_over_tls(browser: Browser, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    with running_server("--tls-cert", str(certificate), "--tls-key", str(key)) as server:
        assert server.url.startswith("https://")
        one_sees_the_other(browser, server)


def test_call_over_ipv6(browser: Browser) -> None:
    with running_server(host="::1") as server:
        one_sees_the_other(browser, server)


def test_unknown_room_is_refused_in_words(open_page: OpenPage, server: Server) -> None:
    user = connect(open_page())
    with pytest.raises(Error, match=r"Room does not exist \[room-not-found\]"):
        user.call("join", "room_nobody")
