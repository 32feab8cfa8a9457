"""Real Chromium pages against a real server process."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.figures import FIGURES
from tests.support.server import Server, running_server

CLIENT = Path(__file__).parent / "dist" / "client.js"
OUTPUT = Path(__file__).parents[1] / "output"

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--auto-select-desktop-capture-source=Entire screen",
    "--autoplay-policy=no-user-gesture-required",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; each page has a context of its own."""
    executable = shutil.which("chromium")
    assert executable, "Debian's chromium is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """A server that most tests share; use :func:`server`, which checks what a test leaves in it."""
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The shared server: after the test no room, peer, transport, session, connection, task or file is left."""
    yield shared_server
    shared_server.wait_idle()
    assert not [line for line in shared_server.log if "Traceback" in line]


OpenPage = Callable[..., Page]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("figures")
        for figure in FIGURES:
            terminalreporter.line(figure)


def new_context(browser: Browser, server: Server, **options: Any) -> BrowserContext:
    """A browser profile of its own on ``server``'s pages, with camera and microphone allowed.

    The pages' security policy would keep the test client out.
    """
    return browser.new_context(
        base_url=server.url,
        permissions=["camera", "microphone"],
        ignore_https_errors=True,
        bypass_csp=True,
        **options,
    )


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[OpenPage]:
    """Open pages with camera and microphone allowed; they are closed after the test, before the server is checked."""
    contexts: list[BrowserContext] = []

    def open_one(path: str = "/", **options: Any) -> Page:
        context = new_context(browser, server, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(path)
        return page

    yield open_one
    for context in contexts:
        context.close()
