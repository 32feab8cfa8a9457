"""The watch page against an origin that does what pipelines and servers do. It is never loaded a second time.

Pictures of its states go to tests/output, to be looked at.
"""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, WebSocketRoute, expect

from tests.browser.hls_origin import Run, Served, make_run, served
from tests.browser.visitor import DESKTOP, LYING_PHONE, PHONE, SMALL_PHONE, Visit, Visitor

FIRST_SIZE = (320, 180)
SECOND_SIZE = (240, 180)

NO_MEDIA_SOURCE = "delete window.MediaSource; delete window.ManagedMediaSource; delete window.WebKitMediaSource;"

# As browsers do by default. Chromium itself would take what Playwright runs in a page for the person's doing.
SOUND_NEEDS_A_CLICK = """
const play = HTMLMediaElement.prototype.play;
let clicked = false;
addEventListener("click", () => (clicked = true), true);
HTMLMediaElement.prototype.play = function () {
  if (this.muted || clicked) return play.call(this);
  return Promise.reject(new DOMException("the user didn't interact with the document first", "NotAllowedError"));
};
"""

NO_HLS = "HTMLMediaElement.prototype.canPlayType = () => '';"

PLAYS_ON = """([frames, time]) => {
  const video = document.querySelector("video");
  return video.getVideoPlaybackQuality().totalVideoFrames >= frames + 10 && video.currentTime > time + 0.3;
}"""

LOUDEST = """async () => {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(document.querySelector("video").captureStream()).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const deadline = performance.now() + 10_000;
  let loudest = 0;
  while (loudest < 0.01 && performance.now() < deadline) {
    await new Promise((done) => setTimeout(done, 20));
    analyser.getFloatTimeDomainData(samples);
    loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  }
  await context.close();
  return loudest;
}"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two runs of a pipeline that can be told apart by their pictures' size."""
    folder = tmp_path_factory.mktemp("hls")
    pictures = ("testsrc2=size={}x{}".format(*FIRST_SIZE), "testsrc=size={}x{}".format(*SECOND_SIZE))
    return [make_run(folder / str(index), picture, 440) for index, picture in enumerate(pictures)]


@pytest.fixture
def stream(runs: list[Run]) -> Iterator[Served]:
    """The stream of the room; nothing is there yet."""
    with served(runs) as stream:
        yield stream


class Viewer:
    """A person before the watch page."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.page = visitor.page
        self.page.evaluate("() => { window.loadedOnce = true; }")

    def get(self, test_id: str) -> Locator:
        return self.visitor.get(test_id)

    def is_in_state(self, state: str, words: str) -> None:
        self.visitor.is_in_state(state)
        self.visitor.reads("state", words)
        assert self.page.evaluate("() => window.loadedOnce"), "the page was loaded anew"

    def sees_new_pictures(self, size: tuple[int, int] = FIRST_SIZE) -> None:
        """Wait until pictures of that size come, and go on coming."""
        self.page.wait_for_function("(width) => document.querySelector('video').videoWidth === width", arg=size[0])
        seen = self.page.evaluate(
            "() => { const video = document.querySelector('video');"
            " return [video.getVideoPlaybackQuality().totalVideoFrames, video.currentTime]; }"
        )
        self.page.wait_for_function(PLAYS_ON, arg=seen)
        expect(self.page.locator("#still")).to_be_hidden()
        expect(self.get("spinner")).to_be_hidden()
        expect(self.get("cover")).to_be_hidden()

    def is_live(self, size: tuple[int, int] = FIRST_SIZE) -> None:
        self.is_in_state("live", "Live")
        self.sees_new_pictures(size)
        self.visitor.reads("latency", "s behind")


@pytest.fixture
def viewer(visit: Visit, stream: Served) -> Viewer:
    """One who waits for the stream."""
    return open_watch_page(visit, stream)


def open_watch_page(visit: Visit, stream: Served, **options: object) -> Viewer:
    return Viewer(visit("/watch/room_x7k2p9", prepare=stream.take_over, **options))


def test_waits_for_the_stream_and_plays_it(viewer: Viewer, stream: Served) -> None:
    viewer.is_in_state("absent", "Waiting for the room to go live")
    viewer.visitor.reads("cover", "Waiting for the room to go live")
    expect(viewer.get("room-name")).to_have_text("room_x7k2p9")
    expect(viewer.get("play")).to_be_hidden()
    viewer.visitor.picture("watch-waiting")
    stream.origin.go_live()
    viewer.is_live()
    assert viewer.page.evaluate(LOUDEST) >= 0.01
    expect(viewer.get("sound-on")).to_be_hidden()
    expect(viewer.get("go-live")).to_be_hidden()
    viewer.visitor.picture("watch-live")


def test_a_server_without_live_streams_says_so(visit: Visit) -> None:
    """Such as the tests' shared one."""
    viewer = Viewer(visit("/watch/room_x7k2p9"))
    viewer.is_in_state("off", "This server makes no live streams")
    viewer.visitor.reads("cover", "This server makes no live streams")
    expect(viewer.get("spinner")).to_be_hidden()
    expect(viewer.get("play")).to_be_hidden()
    viewer.visitor.picture("watch-off")


def test_stream_that_is_on_already(visit: Visit, stream: Served) -> None:
    stream.origin.go_live(since=3)
    viewer = open_watch_page(visit, stream)
    viewer.is_live()


def test_rides_through_restarts(viewer: Viewer, stream: Served) -> None:
    """A discontinuity with a new init segment and pictures of another size; then back, and into the wait for data."""
    stream.origin.go_live()
    viewer.is_live()
    viewer.page.evaluate("() => { window.source = document.querySelector('video').src; }")
    stream.origin.restart()
    viewer.is_live(SECOND_SIZE)
    stream.origin.halt()
    viewer.is_in_state("stalled", "Waiting for the stream to go on")
    expect(viewer.get("spinner")).to_be_visible()
    expect(viewer.get("cover")).to_be_hidden()
    viewer.visitor.picture("watch-stalled")
    stream.origin.restart()
    stream.origin.go_on()
    viewer.is_live(FIRST_SIZE)
    assert viewer.page.evaluate("() => window.source === document.querySelector('video').src"), "it began anew"


def test_end_and_the_next_stream(viewer: Viewer, stream: Served) -> None:
    stream.origin.go_live()
    viewer.is_live()
    stream.origin.end()
    viewer.is_in_state("ended", "The stream has ended")
    viewer.visitor.reads("cover", "plays it by itself")
    expect(viewer.get("play")).to_be_hidden()
    expect(viewer.get("latency")).to_be_hidden()
    viewer.visitor.picture("watch-ended")
    stream.origin.forget()  # as a while later: for the viewer that is no news
    with viewer.page.expect_response(lambda response: response.status == 404):
        pass
    viewer.is_in_state("ended", "The stream has ended")
    stream.origin.go_live()
    viewer.is_live(SECOND_SIZE)


def test_stream_that_ended_before(visit: Visit, stream: Served) -> None:
    stream.origin.go_live(since=1)
    stream.origin.end()
    viewer = open_watch_page(visit, stream)
    viewer.is_in_state("ended", "The stream has ended")
    stream.origin.go_live()
    viewer.is_live(SECOND_SIZE)


def test_server_comes_back(viewer: Viewer, stream: Served) -> None:
    """It counts from zero again, as it knows nothing of what was; meanwhile the last picture stays."""
    stream.origin.go_live()
    viewer.is_live()
    stream.reachable = False
    viewer.is_in_state("unreachable", "The server cannot be reached")
    expect(viewer.page.locator("#still")).to_be_visible()
    viewer.visitor.picture("watch-unreachable")
    stream.origin.forget()
    stream.reachable = True
    viewer.is_in_state("absent", "Waiting for the room to go live")
    stream.origin.go_live()
    viewer.is_live(SECOND_SIZE)


def test_pictures_that_cannot_be_decoded(viewer: Viewer, stream: Served) -> None:
    stream.origin.go_live()
    viewer.is_live()
    stream.origin.spoil(3)
    expect(viewer.page.locator("#still")).to_be_visible()
    viewer.visitor.picture("watch-undecodable")
    viewer.is_live()


def test_network_that_blinks(viewer: Viewer, stream: Served) -> None:
    stream.origin.go_live()
    viewer.is_live()
    with viewer.page.expect_event("requestfailed"):
        stream.reachable = False
    viewer.is_in_state("stalled", "Waiting for the stream to go on")
    stream.reachable = True
    viewer.is_live()


def test_server_says_why_there_is_no_stream(viewer: Viewer, stream: Served) -> None:
    stream.origin.reason = "FFmpeg is not installed on the server."
    viewer.is_in_state("failed", "The stream cannot be made")
    viewer.visitor.reads("cover", "FFmpeg is not installed on the server.")
    viewer.visitor.picture("watch-failed")
    stream.origin.reason = ""
    stream.origin.go_live()
    viewer.is_live()


def test_sound_needs_a_click(visit: Visit, stream: Served) -> None:
    stream.origin.go_live()
    viewer = open_watch_page(visit, stream, script=SOUND_NEEDS_A_CLICK)
    viewer.is_live()
    expect(viewer.get("sound")).to_have_attribute("aria-pressed", "false")
    expect(viewer.get("volume")).to_have_value("0")
    viewer.visitor.picture("watch-muted")
    viewer.get("sound-on").click()
    expect(viewer.get("sound-on")).to_be_hidden()
    expect(viewer.get("sound")).to_have_attribute("aria-pressed", "true")
    expect(viewer.get("sound")).to_be_focused()
    expect(viewer.get("volume")).to_have_value("1")
    assert not viewer.page.evaluate("() => document.querySelector('video').muted")
    viewer.is_live()


def test_sound_and_volume(viewer: Viewer, stream: Served) -> None:
    stream.origin.go_live()
    viewer.is_live()
    viewer.visitor.toggle("sound", False)
    expect(viewer.get("volume")).to_have_value("0")
    viewer.get("volume").fill("0.4")
    expect(viewer.get("sound")).to_have_attribute("aria-pressed", "true")
    assert viewer.page.evaluate("() => document.querySelector('video').volume") == 0.4
    viewer.page.locator("body").press("m")
    expect(viewer.get("sound")).to_have_attribute("aria-pressed", "false")
    viewer.visitor.toggle("sound", True)
    expect(viewer.get("volume")).to_have_value("0.4")


def test_pausing_and_going_live(viewer: Viewer, stream: Served) -> None:
    stream.origin.go_live()
    viewer.is_live()
    viewer.get("play").click()
    viewer.is_in_state("paused", "Paused")
    expect(viewer.get("play")).to_have_text(re.compile("Play"))
    expect(viewer.get("go-live")).to_be_visible()
    expect(viewer.get("latency")).to_have_text(re.compile(r"^[5-9]\.\d s behind$"))
    viewer.page.locator("body").press(" ")
    viewer.is_in_state("behind", "Behind live")
    viewer.sees_new_pictures()
    viewer.visitor.picture("watch-behind")
    viewer.get("go-live").press("Enter")
    viewer.is_live()
    expect(viewer.get("go-live")).to_be_hidden()
    expect(viewer.get("play")).to_be_focused()


def test_going_back(visit: Visit, stream: Served) -> None:
    """The last minute can be seen again; a player that was sent back stays there."""
    stream.origin.go_live(since=8)
    viewer = open_watch_page(visit, stream)
    viewer.is_live()
    position = viewer.get("position")
    expect(position).to_have_attribute("aria-valuetext", "Live")
    position.fill("-5")
    viewer.is_in_state("behind", "Behind live")
    expect(position).to_have_attribute("aria-valuetext", re.compile("^[4-7] seconds behind live$"))
    viewer.sees_new_pictures()
    viewer.is_in_state("behind", "Behind live")
    position.fill("0")
    viewer.is_live()


def test_end_while_behind_is_played_out(visit: Visit, stream: Served) -> None:
    stream.origin.go_live(since=6)
    viewer = open_watch_page(visit, stream)
    viewer.is_live()
    viewer.get("position").fill("-4")
    viewer.is_in_state("behind", "Behind live")
    stream.origin.end()
    viewer.sees_new_pictures()
    viewer.is_in_state("ended", "The stream has ended")


def test_pop_out_and_full_screen(viewer: Viewer, stream: Served) -> None:
    stream.origin.go_live()
    viewer.is_live()
    viewer.visitor.toggle("full-screen", True)
    assert viewer.page.evaluate("() => document.fullscreenElement.contains(document.querySelector('video'))")
    viewer.is_live()
    viewer.visitor.picture("watch-full-screen")
    viewer.page.locator("body").press("f")
    expect(viewer.get("full-screen")).to_have_attribute("aria-pressed", "false")
    viewer.visitor.toggle("pop-out", True)
    viewer.visitor.toggle("pop-out", False)
    viewer.is_live()


def test_without_media_source(visit: Visit, stream: Served) -> None:
    """Where hls.js cannot be used, the browser's own player is; what it makes of the stream is its own affair."""
    viewer = open_watch_page(visit, stream, script=NO_MEDIA_SOURCE)
    viewer.is_in_state("absent", "Waiting for the room to go live")
    stream.origin.go_live()
    viewer.is_in_state("live", "Live")
    viewer.sees_new_pictures()


def test_browser_that_cannot_play_streams(visit: Visit, stream: Served) -> None:
    viewer = open_watch_page(visit, stream, script=NO_MEDIA_SOURCE + NO_HLS)
    viewer.is_in_state("impossible", "cannot be shown")
    viewer.visitor.reads("cover", "This browser cannot play live streams")


def test_room_of_an_impossible_name(visit: Visit) -> None:
    ann = visit("/")
    for name in ("l%C3%A4rm", "a%20b", "%3Cscript%3E", "a.b", "%"):
        ann.page.goto(f"/watch/{name}")
        ann.reads("cover", "leads to no room")
        ann.is_in_state("impossible")
        expect(ann.get("copy-link")).to_be_hidden()
    ann.picture("watch-impossible")
    ann.get("home").click()
    expect(ann.get("create")).to_be_visible()


def test_link_is_copied(viewer: Viewer) -> None:
    viewer.get("copy-link").click()
    expect(viewer.get("copy-link")).to_have_text("Copied")
    assert viewer.page.evaluate("() => navigator.clipboard.readText()") == viewer.page.url


def test_phone(visit: Visit, stream: Served) -> None:
    viewer = open_watch_page(visit, stream, viewport=PHONE, is_mobile=True, has_touch=True, color_scheme="light")

    def everything_fits(name: str) -> None:
        """On a phone of usual size, a small one and one held sideways."""
        for viewport in (SMALL_PHONE, LYING_PHONE, PHONE):
            viewer.page.set_viewport_size(viewport)
            viewer.visitor.fits()
            viewer.visitor.picture(f"watch-phone-{viewport['width']}-{name}")

    viewer.is_in_state("absent", "Waiting for the room to go live")
    everything_fits("waiting")
    stream.origin.go_live()
    viewer.is_live()
    everything_fits("live")
    viewer.get("play").tap()
    viewer.is_in_state("paused", "Paused")
    everything_fits("paused")
    viewer.get("go-live").tap()
    viewer.is_live()
    viewer.page.set_viewport_size(DESKTOP)
    viewer.visitor.fits()
    viewer.visitor.picture("watch-light")


def test_call_page_leads_to_the_stream(visit: Visit) -> None:
    """The link is there; how the stream does is said beside it as soon as the server says so."""
    lines: list[WebSocketRoute] = []

    def overhear(line: WebSocketRoute) -> None:
        line.connect_to_server()
        lines.append(line)

    def tell(state: str, room: str = "leads", **more: str) -> None:
        event = ["hlsStateChanged", {"roomId": room, "state": state, **more}]
        lines[-1].send(f"42{json.dumps(event)}")

    ann = visit("/room/leads", prepare=lambda page: page.route_web_socket("**/ws/**", overhear))
    expect(ann.get("watch")).to_have_attribute("href", "/watch/leads")
    expect(ann.get("watch")).to_have_attribute("target", "_blank")
    ann.join("Ann")
    stream = ann.get("stream")
    expect(stream).to_be_hidden()
    tell("starting")
    expect(stream).to_have_text("Starting…")
    tell("failed", room="another")
    tell("live", url="/hls/leads/index.m3u8")
    expect(stream).to_have_text("Live")
    ann.picture("watch-link")
    tell("failed", reason="FFmpeg is not installed.")
    expect(stream).to_have_text("Failed")
    expect(ann.get("watch")).to_have_attribute("title", "FFmpeg is not installed.")
    tell("restarting")
    expect(stream).to_have_text("Restarting…")
    expect(ann.get("watch")).to_have_attribute("title", "")
    tell("ended")
    expect(stream).to_be_hidden()
    for viewport in (SMALL_PHONE, PHONE):
        ann.page.set_viewport_size(viewport)
        for state in ("starting", "live", "restarting", "failed"):
            tell(state)
            expect(stream).to_have_attribute("data-state", state)
            ann.fits()
    ann.get("leave").click()
    ann.is_in_state("left")
    expect(stream).to_be_hidden()
    with ann.page.context.expect_page() as opened:
        ann.get("watch").click()
    watching = Visitor(opened.value)
    watching.is_in_state("off")  # of the tests' shared server
