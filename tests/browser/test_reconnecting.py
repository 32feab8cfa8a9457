"""A page loses its connection to the server in the middle of a call, while its media go on; real Chromium."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.users import SMALL, User, connect
from tests.support.server import Server, running_server
from tests.support.tcp_proxy import TcpProxy, running_tcp_proxy

PARKED = "trio_sfu_resumption_parked_total"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    """Pings soon: a page whose connection is cut between two polls is not missed before the next ping's time is up."""
    with running_server("--ping-interval", "2", "--ping-timeout", "4") as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[TcpProxy]:
    """The way on which the page under test reaches the server."""
    port = urlsplit(server.url).port
    assert port is not None
    with running_tcp_proxy(port) as proxy:
        yield proxy


def call_of_two(open_page: OpenPage, proxy: TcpProxy, transport: str, *, resumable: bool) -> tuple[User, User]:
    """Somebody behind the proxy, and another user; they see and hear each other."""
    other = connect(open_page())
    lost = connect(
        open_page(f"http://127.0.0.1:{proxy.port}/"), transports=[transport], reconnection=True, timeoutMs=15_000
    )
    options = {"resumable": True} if resumable else {}
    other.call("join", lost.call("create", options))
    for user in (lost, other):
        user.call("loadDevice")
        user.call("produce", {"kind": "audio"})
        user.call("produce", {"kind": "video", "codec": "VP8", **SMALL})
    for user in (lost, other):
        user.call("consumeAll")
        user.call("waitDecoding", {})
        user.call("clearEvents")
    return lost, other


def names(user: User) -> set[str]:
    return {event["name"] for event in user.call("events")}


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_the_call_goes_on(transport: str, proxy: TcpProxy, open_page: OpenPage, server: Server) -> None:
    lost, other = call_of_two(open_page, proxy, transport, resumable=True)
    user_id = lost.call("socketState")["socketId"]
    consumers = [sorted(each["id"] for each in user.call("consumed")) for user in (lost, other)]
    proxy.cut()
    lost.call("waitEvent", "disconnect")
    server.wait_gauge("parked_users", 1)
    # Both go on decoding, though the page has tried in vain to come back.
    for user in (lost, other):
        user.call("waitDecoding", {})
    screen = other.call("produce", {"kind": "video", "codec": "VP8", "source": "screen", **SMALL})["id"]
    lost.call("autoConsume", {})
    proxy.heal()
    ack = lost.call("waitEvent", "resumed")
    assert ack["userId"] == user_id
    assert lost.call("socketState")["socketId"] != user_id
    server.wait_gauge("parked_users", 0)
    # What happened meanwhile is told, and consumed.
    lost.call("waitEvent", "newProducer", {"producerId": screen})
    lost.wait_consumers(3)
    lost.call("consumed", True)
    assert lost.call("failures") == []
    # The other one has noticed nothing, and knows the user by the old id.
    assert not names(other) & {"producerClosed", "consumerClosed", "peersChanged"}
    (mine,) = [each["id"] for each in lost.call("stats")["producers"] if each["kind"] == "audio"]
    lost.call("pauseProducer", mine)
    other.call("waitEvent", "producerPaused", {"producerId": mine, "userId": user_id})
    lost.call("resumeProducer", mine)
    for user, before in zip((lost, other), consumers, strict=True):
        user.call("waitDecoding", {})
        assert set(before) <= {each["id"] for each in user.call("consumed")}
    figures = server.gauges()
    assert (figures["trio_sfu_peers"], figures["trio_sfu_transports"]) == (2, 4)
    assert not names(lost) & {"producerClosed", "transportClosed", "peerClosed"}
    # A page that polls says no goodbye, and one that is closed between two polls is not missed for a while.
    for user in (lost, other):
        user.call("leave")
    server.wait_gauge("rooms", 0)


def test_without_asking_for_it_everything_is_closed_at_once(
    proxy: TcpProxy, open_page: OpenPage, server: Server
) -> None:
    lost, other = call_of_two(open_page, proxy, "websocket", resumable=False)
    before = server.metrics()[PARKED]
    proxy.cut()
    other.wait_consumers(0)
    other.wait_event("peersChanged")  # the last to come: the peer's task has ended
    assert {"producerClosed", "consumerClosed"} <= names(other)
    figures = server.metrics()
    assert (figures["trio_sfu_peers"], figures[PARKED]) == (1, before)
    assert "resumed" not in names(lost)


def test_a_page_that_is_closed_has_left(proxy: TcpProxy, open_page: OpenPage, server: Server) -> None:
    """It says goodbye: nobody waits for it."""
    lost, other = call_of_two(open_page, proxy, "websocket", resumable=True)
    before = server.metrics()[PARKED]
    lost.page.close()
    other.wait_consumers(0)
    figures = server.metrics()
    assert (figures["trio_sfu_peers"], figures[PARKED]) == (1, before)
