"""Participants and viewers in one Chromium: the pages that :mod:`bench.hls` drives, as the browser tests do."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from bench.hls_stream import CODE_COLUMNS, CODE_ROWS, read_code
from tests.browser.conftest import CHROMIUM_ARGUMENTS
from tests.browser.users import User, connect
from trio_sfu.hls.layout import Tile

SIZE: Final = {"width": 320, "height": 240}
ASPECT: Final = 4 / 3
_WAIT_MS: Final = 30_000

_WATCH: Final = """() => {
  const video = document.querySelector("#video");
  window.watched = { pictures: [], places: [], codes: [], anew: 0 };
  video.addEventListener("emptied", () => window.watched.anew++);
  const shown = () => {
    window.watched.pictures.push(Date.now());
    video.requestVideoFrameCallback(shown);
  };
  video.requestVideoFrameCallback(shown);
  setInterval(() => window.watched.places.push([Date.now(), video.currentTime]), 20);
}"""

_READ_CODES: Final = """([x, y, width, height, columns, rows]) => {
  const video = document.querySelector("#video");
  const canvas = Object.assign(document.createElement("canvas"), { width: columns * 4, height: rows * 4 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  window.reading = setInterval(() => {
    const now = Date.now();
    context.drawImage(video, x, y, width, height, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    let bits = "";
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        bits += data[((row * 4 + 2) * canvas.width + column * 4 + 2) * 4 + 1] > 128 ? "1" : "0";
    window.watched.codes.push([now, bits]);
  }, 100);
}"""


class Viewer:
    """A page on ``/watch/<room>``; times are Unix times in seconds."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.evaluate(_WATCH)

    def wait_playing(self) -> float:
        """When the first picture was shown."""
        self.page.wait_for_function("() => window.watched.pictures.length > 0")
        first: float = self.page.evaluate("() => window.watched.pictures[0]")
        return first / 1000

    def latencies(self, seconds: float, tile: Tile) -> list[float]:
        """How old the time code in ``tile`` was, ten times a second."""
        self.page.evaluate(_READ_CODES, [tile.x, tile.y, tile.width, tile.height, CODE_COLUMNS, CODE_ROWS])
        self.page.wait_for_timeout(seconds * 1000)
        codes = self.page.evaluate("() => { clearInterval(window.reading); return window.watched.codes; }")
        drawn = ((at / 1000, read_code(bits, at / 1000)) for at, bits in codes)
        return [at - time_code for at, time_code in drawn if time_code is not None]

    def forget(self) -> None:
        """Forget how it played until now."""
        self.page.evaluate(
            "() => { window.watched.places.length = window.watched.pictures.length = window.watched.anew = 0; }"
        )

    def longest_stall(self) -> float:
        """The longest time that the video's time stood still, in seconds."""
        longest, since, place = 0.0, None, None
        for at, now in self.page.evaluate("() => window.watched.places"):
            if now != place:
                longest = max(longest, at - (at if since is None else since))
                since, place = at, now
        return longest / 1000

    def begun_anew(self) -> int:
        """How often the player threw away what it had and began anew."""
        times: int = self.page.evaluate("() => window.watched.anew")
        return times

    def longest_picture(self) -> float:
        """The longest time between two pictures, in seconds."""
        pictures = self.page.evaluate("() => window.watched.pictures")
        return max((after - before for before, after in pairwise(pictures)), default=0.0) / 1000


class Pages:
    """Opens pages of one server; each has a browser profile of its own."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url

    def user(self) -> User:
        """Somebody connected, in no room."""
        return connect(self._open("/"))

    def participant(self, room: str | None, video: dict[str, Any], audio: dict[str, Any]) -> tuple[User, str]:
        """A user who sends both, and the room."""
        user = self.user()
        room = enter(user, room)
        user.call("produce", {"kind": "audio", **audio})
        user.call("produce", {"kind": "video", "codec": "VP8", **SIZE, **video})
        return user, room

    def viewer(self, room: str) -> Viewer:
        return Viewer(self._open(f"/watch/{room}"))

    def _open(self, path: str) -> Page:
        # The pages' security policy would keep the test client out.
        context = self._browser.new_context(base_url=self._url, permissions=["camera", "microphone"], bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(_WAIT_MS)
        page.goto(path)
        return page

    def close_all(self) -> None:
        for context in self._browser.contexts:
            context.close()


def enter(user: User, room: str | None) -> str:
    room = user.call("join", room) if room else user.call("create")
    user.call("loadDevice")
    assert room is not None
    return room


def wait(user: User, seconds: float) -> None:
    """Let time pass without keeping the browser's events waiting."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        user.page.wait_for_timeout(min(left, 1.0) * 1000)


@contextmanager
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        raise SystemExit("Debian's chromium is needed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()
