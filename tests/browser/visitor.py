"""A person before a page, who reads, types and clicks; and windows to do it in. The ``visit`` fixture makes them."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, ViewportSize, expect

OUTPUT = Path(__file__).parents[1] / "output"

DESKTOP = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=390, height=844)
SMALL_PHONE = ViewportSize(width=320, height=568)
LYING_PHONE = ViewportSize(width=844, height=390)

# Two cores cannot encode and decode several 720p videos; nothing else differs from what people's pages ask for.
SMALL_PICTURES = """
for (const method of window.MediaDevices ? ["getUserMedia", "getDisplayMedia"] : []) {
  const original = MediaDevices.prototype[method];
  MediaDevices.prototype[method] = function (constraints) {
    const video = constraints.video && { width: 320, height: 180, frameRate: 15 };
    return original.call(this, { ...constraints, video });
  };
}
"""

# The page's connections in ``window.connections``; mediasoup-client makes some to try out what the browser can do.
KEEP_CONNECTIONS = """
window.connections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...options) {
    super(...options);
    window.connections.push(this);
  }
};
"""

NEW_FRAMES = """([videos, seen]) => videos.every((video, index) =>
  video.videoWidth > 0 && video.getVideoPlaybackQuality().totalVideoFrames >= seen[index] + 3)
"""

MISFITS = """async () => {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
  const { scrollWidth } = document.documentElement;
  const misfits = [];
  if (scrollWidth > innerWidth) misfits.push(`the page is ${scrollWidth} wide`);
  const controls = [...document.querySelectorAll("button, input, a")].filter((each) => each.checkVisibility());
  if (controls.length === 0) misfits.push("no controls");
  for (const control of controls) {
    const { left, top, right, bottom, width, height } = control.getBoundingClientRect();
    const what = control.outerHTML.slice(0, 60);
    if (Math.min(width, height) < 36) misfits.push(`${what} is small: ${width} x ${height}`);
    if (left < 0 || top < 0 || right > innerWidth || bottom > innerHeight) misfits.push(`${what} is outside`);
    const hit = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    if (!control.contains(hit)) misfits.push(`${what} is covered`);
    if (control.scrollWidth > control.clientWidth) misfits.push(`${what} has too long a text`);
  }
  return misfits;
}"""

LISTEN = """(sounds) => Promise.all(sounds.map(async (audio) => {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(audio.srcObject).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const deadline = performance.now() + 10_000;
  let loudest = 0;
  while (loudest < 0.01 && performance.now() < deadline) {
    await new Promise((done) => setTimeout(done, 20));
    analyser.getFloatTimeDomainData(samples);
    loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  }
  await context.close();
  return { loudest, muted: audio.muted, paused: audio.paused };
}))"""


class Visitor:
    """A person before a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def get(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    def reads(self, test_id: str, text: str) -> None:
        """Wait until the text is to be read there."""
        expect(self.get(test_id)).to_contain_text(text)

    def is_in_state(self, state: str) -> None:
        """Wait until the page says so."""
        expect(self.get("state")).to_have_attribute("data-state", state)

    def tile(self, name: str, source: str = "camera") -> Locator:
        """The tile of that caption (one's own: "Ann (you)")."""
        caption = self.page.get_by_test_id("tile-name").filter(has_text=re.compile(f"^{re.escape(name)}$"))
        return self.page.locator(f'[data-testid="tile"][data-source="{source}"]').filter(has=caption)

    def sees(self, *tiles: Locator) -> None:
        """Wait until new frames have come in each."""
        videos = []
        for tile in tiles:
            expect(tile).to_have_attribute("data-video", "on")
            expect(tile.locator("video")).to_be_visible()
            videos.append(tile.locator("video").element_handle())
        seen = self.page.evaluate(
            "(videos) => videos.map((each) => each.getVideoPlaybackQuality().totalVideoFrames)", videos
        )
        self.page.wait_for_function(NEW_FRAMES, arg=[videos, seen])

    def waits_for(self, condition: Callable[[], object], what: str) -> None:
        """Let the page go on until ``condition()``, for 20 s at most."""
        for _ in range(200):
            if condition():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never: {what}")

    def hears(self, *tiles: Locator) -> None:
        """Wait until there is sound in each."""
        for tile in tiles:
            expect(tile).to_have_attribute("data-muted", "false")
        sounds = self.page.evaluate(LISTEN, [tile.locator("audio").element_handle() for tile in tiles])
        for sound in sounds:
            assert sound["loudest"] >= 0.01
            assert not sound["muted"]
            assert not sound["paused"]

    def toggle(self, test_id: str, pressed: bool) -> None:
        """Click a button that must show the other state then."""
        expect(self.get(test_id)).to_have_attribute("aria-pressed", str(not pressed).lower())
        self.get(test_id).click()
        expect(self.get(test_id)).to_have_attribute("aria-pressed", str(pressed).lower())

    def join(self, name: str) -> None:
        """From before the call into it, with both devices."""
        expect(self.get("preview")).to_have_attribute("data-video", "on")
        self.get("name").fill(name)
        self.get("join").click()
        self.is_in_state("connected")

    def picture(self, name: str) -> None:
        OUTPUT.mkdir(exist_ok=True)
        self.page.screenshot(path=OUTPUT / f"{name}.png")

    def fits(self) -> None:
        """Nothing is wider than the window, and each control in it can be hit with a thumb."""
        assert self.page.evaluate(MISFITS) == []


Visit = Callable[..., Visitor]
