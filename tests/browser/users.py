"""Users of the tests: a page with the test client, driven by one Python object."""

from typing import Any

from playwright.sync_api import Page

from tests.browser.conftest import CLIENT

__all__ = ["User", "connect"]

# The least that still is a video: several encoders and decoders share two cores here.
SMALL = {"width": 320, "height": 240, "frameRate": 15}

# How many there are, as soon as there are so many, or after 20 s.
_CONSUMERS = """async (count) => {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const found = (await window.sfu.consumed()).length;
    if (found === count || performance.now() > deadline) return found;
    await new Promise((done) => setTimeout(done, 20));
  }
}"""

# Whether an event of this name has come, as soon as it has, or after 20 s.
_HAS_COME = """async (name) => {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const found = (await window.sfu.events()).some((event) => event.name === name);
    if (found || performance.now() > deadline) return found;
    await new Promise((done) => setTimeout(done, 20));
  }
}"""


class User:
    """``window.sfu`` of one page: ``user.call("join", room)`` is ``await sfu.join(room)``."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.add_script_tag(path=CLIENT)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the client and wait for its result. Raises what it rejects with."""
        return self.page.evaluate("([name, args]) => window.sfu[name](...args)", [method, list(arguments)])

    def begin(self, method: str, *arguments: Any) -> None:
        """Start a method without waiting; :meth:`end` gives its result."""
        self.page.evaluate(
            "([name, args]) => { window.begun = window.sfu[name](...args); window.begun.catch(() => {}); }",
            [method, list(arguments)],
        )

    def end(self) -> Any:
        """The result of what :meth:`begin` started."""
        return self.page.evaluate("() => window.begun")

    def wait_consumers(self, count: int) -> None:
        """Wait until the user has ``count`` consumers. (Playwright takes a predicate's promise for true.)"""
        found = self.page.evaluate(_CONSUMERS, count)
        assert found == count, f"{found} consumers, not {count}"

    def wait_event(self, name: str) -> None:
        """Wait until such an event has come."""
        assert self.page.evaluate(_HAS_COME, name), f"no {name}"

    def join(self, room: str | None = None, *, audio: bool = True, video: str | None = "VP8") -> str:
        """Join ``room`` or make one, load the device, and produce; returns the room's id."""
        room = self.call("join", room) if room else self.call("create")
        self.call("loadDevice")
        if audio:
            self.call("produce", {"kind": "audio"})
        if video:
            self.call("produce", {"kind": "video", "codec": video, **SMALL})
        return room


def connect(page: Page, **options: Any) -> User:
    """A user with a connected socket on ``page``."""
    user = User(page)
    user.call("connect", options)
    return user
