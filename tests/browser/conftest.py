"""Real Chromium pages against a real server process."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, ViewportSize, expect, sync_playwright

from tests.browser.figures import FIGURES
from tests.browser.visitor import DESKTOP, SMALL_PICTURES, Visit, Visitor
from tests.support.server import Server, running_server

CLIENT = Path(__file__).parent / "dist" / "client.js"
WAIT_MS = 20_000

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


@contextmanager
def another_browser(browser: Browser, *without: str) -> Iterator[Browser]:
    """A browser started ``without`` some of the usual arguments."""
    arguments = [argument for argument in CHROMIUM_ARGUMENTS if argument not in without]
    another = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=arguments)
    yield another
    another.close()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visit]:
    """Open a page in a browser profile of its own. None may meet an uncaught error or break its security policy."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            errors.append(message.text)

    def open_page(
        path: str,
        *,
        permissions: tuple[str, ...] = ("camera", "microphone", "clipboard-read", "clipboard-write"),
        script: str = SMALL_PICTURES,
        within: Browser = browser,
        viewport: ViewportSize = DESKTOP,
        prepare: Callable[[Page], object] | None = None,
        **options: Any,
    ) -> Visitor:
        options = {"color_scheme": "dark", "reduced_motion": "reduce", **options}
        context = within.new_context(base_url=server.url, permissions=list(permissions), viewport=viewport, **options)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        context.add_init_script(script)
        context.on("console", heard)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        page = context.new_page()
        if prepare:
            prepare(page)
        page.goto(path)
        return Visitor(page)

    expect.set_options(timeout=WAIT_MS)
    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
