"""Every way in which a call changes or ends; what is left in the server is counted after each test."""

import os
import signal

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import OpenPage, new_context
from tests.browser.users import SMALL, User, connect
from tests.support.server import Server, running_server


def call_of_two(open_page: OpenPage) -> tuple[User, User]:
    """Two users; the second sees and hears the first."""
    first, second = (connect(open_page()) for _ in range(2))
    room = first.join()
    second.join(room)
    second.call("consumeAll")
    second.call("waitDecoding", {})
    return first, second


def test_stop_and_produce_again(open_page: OpenPage, server: Server) -> None:
    first, second = call_of_two(open_page)
    first.call("stopProducing")
    second.wait_consumers(0)
    assert second.call("request", "listProducers")["producers"] == []
    second.call("autoConsume", {})
    first.call("produce", {"kind": "video", "codec": "VP8", **SMALL})
    second.wait_consumers(1)
    second.call("waitDecoding", {})
    figures = server.gauges()
    assert figures["trio_sfu_producers"] == 3
    assert figures["trio_sfu_consumers"] == 1


def test_pause_and_resume(open_page: OpenPage) -> None:
    first, second = call_of_two(open_page)
    (video,) = [each for each in second.call("consumed") if each["kind"] == "video"]
    first.call("pauseProducer", video["producerId"])
    second.call("waitEvent", "producerPaused", {"producerId": video["producerId"]})
    first.call("resumeProducer", video["producerId"])
    second.call("waitDecoding", {"consumerId": video["id"]})
    second.call("pauseConsumer", video["id"])
    second.call("resumeConsumer", video["id"])
    second.call("waitDecoding", {"consumerId": video["id"]})


def test_leave_and_come_back(open_page: OpenPage, server: Server) -> None:
    first, second = call_of_two(open_page)
    first.call("leave")
    second.wait_consumers(0)
    assert server.gauges()["trio_sfu_peers"] == 1
    room = second.page.evaluate("() => window.sfu.events('roomProducersChanged').at(-1).payload.roomId")
    first.join(room)
    second.call("consumeAll")
    second.call("waitDecoding", {})


def test_page_that_is_closed(open_page: OpenPage, server: Server) -> None:
    first, second = call_of_two(open_page)
    first.page.close()
    second.wait_consumers(0)
    figures = server.gauges()
    assert figures["trio_sfu_peers"] == 1
    assert figures["trio_sfu_transports"] == 2


def renderers(browser: Browser) -> set[int]:
    """The process ids of all pages."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return {process["id"] for process in processes if process["type"] == "renderer"}


def test_page_that_crashes(browser: Browser) -> None:
    """Nobody says goodbye: the ping time-out finds it, or the system closes its connections."""
    with running_server("--ping-interval", "1", "--ping-timeout", "1") as server:
        context = new_context(browser, server)
        doomed = new_context(browser, server)
        try:
            pages = [context.new_page(), doomed.new_page()]
            pages[0].goto("/")
            others = renderers(browser)
            pages[1].goto("/")
            doomed_renderers = renderers(browser) - others  # the page's own, and perhaps a spare one
            second, first = (connect(page) for page in pages)
            room = first.join()
            second.join(room)
            second.call("consumeAll")
            second.call("waitDecoding", {})
            with pages[1].expect_event("crash"):
                for renderer in doomed_renderers:
                    os.kill(renderer, signal.SIGKILL)
            second.wait_consumers(0)
            assert server.gauges()["trio_sfu_peers"] == 1
        finally:
            context.close()
            doomed.close()
        server.wait_idle()


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_server_that_is_stopped(browser: Browser, transport: str) -> None:
    with running_server() as server:
        context = new_context(browser, server)
        users = []
        for _ in range(2):
            page = context.new_page()
            page.goto("/")
            users.append(connect(page, transports=[transport]))
        room = users[0].join()
        users[1].join(room)
        users[1].call("consumeAll")
        users[1].call("waitDecoding", {})
    for user in users:
        user.page.wait_for_function("() => !window.sfu.socketState().connected")
    context.close()
