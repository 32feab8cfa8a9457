"""The call page on networks that are not good: what it sends and asks for, how it shows it, and how it holds on.

What the server does about bandwidth is tested elsewhere. Pictures go to tests/output, to be looked at.
"""

from typing import Any

from playwright.sync_api import Locator, Page, ViewportSize, expect

from tests.browser.line import Line
from tests.browser.test_pages import call_of_two, room
from tests.browser.visitor import LYING_PHONE, PHONE, SMALL_PHONE, SMALL_PICTURES, Visit, Visitor

__all__ = ["room"]  # the fixture

AS_THEY_ARE = ""  # cameras that give 1280 × 720, as people's do

TRANSPORTS = ("createProducerTransport", "createConsumerTransport")

FIGURE = """([about, name]) => {
  const cells = document.querySelectorAll(`#figures section[data-about="${about}"] dd[data-name="${name}"]`);
  return cells.length > 0 && [...cells].every((cell) => Number(cell.dataset.value) > 0);
}"""

KEEP_CONNECTIONS = """
window.connections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...options) {
    super(...options);
    window.connections.push(this);
  }
};
"""

FRAGMENTS = """() => window.connections
  .filter(({ connectionState }) => connectionState === "connected")
  .map(({ localDescription }) => /a=ice-ufrag:(\\S+)/.exec(localDescription.sdp)[1])"""

RESTARTED = f"""(before) => {{
  const now = ({FRAGMENTS})();
  return now.length === before.length && now.some((each) => !before.includes(each));
}}"""

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""

FRAMES = "(video) => video.getVideoPlaybackQuality().totalVideoFrames"


class Lines:
    """The lines of the pages that are opened with ``prepare=lines.add``, in that order."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._lines: list[Line] = []

    def add(self, page: Page) -> None:
        self._lines.append(Line(page, **self._options))

    def __getitem__(self, index: int) -> Line:
        return self._lines[index]


def waits_for(visitor: Visitor, condition: Any, what: str) -> None:
    """Let the page go on until ``condition()``, for 20 s at most."""
    for _ in range(200):
        if condition():
            return
        visitor.page.wait_for_timeout(100)
    raise AssertionError(f"never: {what}")


def producer_id(visitor: Visitor, line: Line, source: str) -> str:
    """The id of what the visitor sends as ``source``."""
    waits_for(visitor, lambda: len(line.answered("produce")) == len(line.asked("produce")), "producing")
    asked = [payload["appData"]["source"] for payload in line.asked("produce")]
    return str(line.answered("produce")[asked.index(source)]["id"])


def consumer_ids(line: Line, kind: str = "video") -> dict[str, str]:
    """Of what a page receives: consumers' ids by their producers'."""
    return {ack["producerId"]: ack["id"] for ack in line.answered("consume") if ack.get("kind") == kind}


def figures(visitor: Visitor, about: str) -> Locator:
    return visitor.page.locator(f'#figures section[data-about="{about}"]')


def is_large(visitor: Visitor, name: str) -> None:
    """That tile alone is the large one."""
    stage = visitor.page.locator("#stage").get_by_test_id("tile")
    expect(stage).to_have_count(1)
    expect(stage.get_by_test_id("tile-name")).to_have_text(name)


def test_camera_is_sent_as_simulcast_and_watched_at_the_size_of_its_tile(visit: Visit, room: str) -> None:
    lines = Lines()
    ann = visit(room, script=AS_THEY_ARE, prepare=lines.add)
    ann.join("Ann")
    bob = visit(room, prepare=lines.add)
    bob.join("Bob")
    of_ann, of_bob = lines[0], lines[1]
    ann.get("figures-toggle").click()

    def streams() -> list[Any]:
        stats = [each for ack in of_ann.answered("getStats")[-1:] for each in ack["stats"]]
        camera = producer_id(ann, of_ann, "camera")
        return [each for each in stats if each.get("producerId") == camera and each["bitrate"] > 0]

    waits_for(ann, lambda: len(streams()) == 3, "three encodings that the server gets")
    assert [each["rid"] for each in streams()] == ["r0", "r1", "r2"]
    layers = figures(ann, "camera").locator('dd[data-name="layer"]')
    expect(layers).to_have_count(3)
    for layer, size in zip(layers.all(), ("320 × 180", "640 × 360", "1280 × 720"), strict=True):
        expect(layer).to_contain_text(size)
    ann.picture("figures-simulcast")
    # A small capture is sent once: there is nothing to choose from.
    (small,) = [each for each in of_bob.asked("produce") if each["kind"] == "video"]
    assert len(small["rtpParameters"]["encodings"]) == 1

    video = bob.tile("Ann").locator("video").element_handle()
    width = "([video, width]) => video.videoWidth === width"
    bob.page.wait_for_function(width, arg=[video, 640])
    bob.page.set_viewport_size(PHONE)
    bob.page.wait_for_function(width, arg=[video, 320])
    assert [each["spatialLayer"] for each in of_bob.asked("setPreferredLayers")] == [1, 0]

    # Layers that nobody watches are not made.
    camera = producer_id(ann, of_ann, "camera")
    for wanted, sent in ((None, 1), (1, 2), (2, 3)):
        of_ann.tell("layersWanted", {"roomId": room[6:], "producerId": camera, "spatialLayer": wanted})
        expect(layers.filter(has_text="nobody watches")).to_have_count(3 - sent)
    bob.sees(bob.tile("Ann"))


def test_statistics_are_laid_over_the_call_and_taken_away(visit: Visit, room: str) -> None:
    lines = Lines()
    ann, bob = visit(room, prepare=lines.add), visit(room)
    ann.get("name").press("i")
    expect(ann.get("figures")).to_be_hidden()
    ann.join("Ann")
    bob.join("Bob")
    ann.sees(ann.tile("Bob"))
    assert lines[0].asked("getStats") == []
    ann.page.keyboard.press("i")
    expect(ann.get("figures")).to_be_visible()
    expect(ann.get("figures-toggle")).to_have_attribute("aria-pressed", "true")
    (picture,), (sound,) = consumer_ids(lines[0]), consumer_ids(lines[0], "audio")
    for about, names in (
        ("send", ["roundTrip", "available"]),
        ("receive", ["roundTrip"]),
        ("camera", ["layer", "roundTrip", "serverBitrate"]),
        ("microphone", ["layer"]),
        (picture, ["size", "bitrate", "jitterBuffer", "serverBitrate"]),
        (sound, ["bitrate", "jitterBuffer"]),
    ):
        for name in names:
            ann.page.wait_for_function(FIGURE, arg=[about, name])
    for direction in ("send", "receive"):
        expect(figures(ann, direction).locator('dd[data-name="path"]')).to_have_text("UDP")
    expect(figures(ann, picture).locator("h2")).to_have_text("Bob: picture")
    expect(figures(ann, picture).locator('dd[data-name="codec"]')).to_have_text("VP8")
    lines[0].tell("score", {"roomId": room[6:], "consumerId": consumer_ids(lines[0])[picture], "score": SCORE})
    lines[0].tell("score", {"roomId": room[6:], "producerId": producer_id(ann, lines[0], "camera"), "score": SCORES})
    expect(figures(ann, picture).locator('dd[data-name="score"]')).to_have_text("7")
    expect(figures(ann, "camera").locator('dd[data-name="score"]')).to_have_text("9")
    ann.picture("figures")
    ann.get("figures-toggle").click()
    expect(ann.get("figures")).to_be_hidden()
    ann.page.keyboard.press("i")
    ann.get("leave").click()
    expect(ann.get("figures")).to_be_hidden()


SCORE = {"score": 7, "producerScore": 8, "producerScores": [8]}
SCORES = [{"ssrc": 1234, "encodingIdx": 0, "score": 9}]


def test_speaker_is_large_unless_another_is_pinned(visit: Visit, room: str) -> None:
    lines = Lines()
    ann, bob = call_of_two(visit, room)
    cleo = visit(room, prepare=lines.add)
    cleo.join("Cleo")
    cleo.sees(cleo.tile("Ann"), cleo.tile("Bob"))
    cleo.toggle("mute", False)
    bob.toggle("mute", False)
    cleo.toggle("layout", True)
    is_large(cleo, "Ann")
    cleo.picture("speaker")
    bob.toggle("mute", True)
    ann.toggle("mute", False)
    is_large(cleo, "Bob")
    cleo.sees(cleo.tile("Ann"), cleo.tile("Bob"))
    cleo.hears(cleo.tile("Bob"))
    waits_for(cleo, lambda: lines[0].asked("setConsumerPriority"), "a request for priority")
    # Pinned, by the keyboard too: it stays, and is said.
    pin = cleo.page.get_by_role("button", name="Pin Ann")
    pin.press("Enter")
    is_large(cleo, "Ann")
    expect(pin).to_have_attribute("aria-pressed", "true")
    expect(pin).to_be_focused()
    cleo.picture("pinned")
    pin.click()
    is_large(cleo, "Bob")
    # One who shares a screen wants it seen.
    bob.toggle("share", True)
    is_large(cleo, "Bob’s screen")
    expect(cleo.page.locator("#people").get_by_test_id("tile")).to_have_count(3)
    bob.toggle("share", False)
    is_large(cleo, "Bob")
    # The liking is remembered, and a click in the grid makes large, too.
    cleo.page.reload()
    cleo.join("Cleo")
    is_large(cleo, "Bob")
    cleo.toggle("layout", False)
    expect(cleo.page.locator("#stage")).to_be_hidden()
    expect(cleo.page.locator("#people").get_by_test_id("tile")).to_have_count(3)
    cleo.page.get_by_role("button", name="Pin Ann").click()
    is_large(cleo, "Ann")
    expect(cleo.get("layout")).to_have_attribute("aria-pressed", "true")


def test_speaker_layout_and_statistics_on_a_phone(visit: Visit, room: str) -> None:
    ann = visit(room, viewport=PHONE, is_mobile=True, has_touch=True)
    ann.join("Ann")
    ann.get("layout").tap()
    is_large(ann, "Ann (you)")
    for name in ("Bob", "Cleo", "Dan"):
        visit(room).join(name)
    ann.sees(ann.tile("Bob"), ann.tile("Cleo"), ann.tile("Dan"))
    for viewport in (SMALL_PHONE, LYING_PHONE, PHONE):
        ann.page.set_viewport_size(viewport)
        ann.fits()
        ann.picture(f"phone-{viewport['width']}-speaker")
        large, small = (ann.page.locator(f"{each} .tile").first.bounding_box() for each in ("#stage", "#people"))
        assert large is not None
        assert small is not None
        assert large["width"] > small["width"]
    ann.get("figures-toggle").tap()
    expect(figures(ann, "camera")).to_be_visible()
    ann.page.wait_for_function(FIGURE, arg=["camera", "serverBitrate"])
    ann.picture("phone-390-figures")
    width = ann.page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= PHONE["width"]


def test_tiles_that_nobody_sees_are_paused(visit: Visit, room: str) -> None:
    lines = Lines()
    call_of_two(visit, room)
    cleo = visit(room, prepare=lines.add)
    line = lines[0]
    cleo.join("Cleo")
    cleo.sees(cleo.tile("Ann"), cleo.tile("Bob"))
    videos = set(consumer_ids(line).values())
    assert len(videos) == 2

    def paused() -> set[str]:
        """Consumers by the last that was asked about each."""
        paused: set[str] = set()
        for name, payload in line.requests:
            if name == "pauseConsumer":
                paused.add(payload["consumerId"])
            elif name == "resumeConsumer":
                paused.discard(payload["consumerId"])
        return paused

    # Another tab is in front: pictures stop, sound goes on.
    cleo.page.evaluate(HIDE, True)
    waits_for(cleo, lambda: paused() == videos, "both videos paused")
    waits_for(cleo, lambda: len(line.answered("pauseConsumer")) == 2, "both pauses answered")
    cleo.hears(cleo.tile("Ann"), cleo.tile("Bob"))
    expect(cleo.tile("Ann").get_by_test_id("tile-held")).to_be_empty()
    cleo.page.evaluate(HIDE, False)
    cleo.sees(cleo.tile("Ann"), cleo.tile("Bob"))
    assert paused() == set()
    # A window so low that the last of three tiles is below its edge.
    cleo.page.set_viewport_size(ViewportSize(width=320, height=230))
    waits_for(cleo, lambda: len(paused()) == 1, "one video paused")
    last = cleo.page.locator("#people").get_by_test_id("tile").last
    frames = last.locator("video").evaluate(FRAMES)
    last.scroll_into_view_if_needed()
    waits_for(
        cleo,
        lambda: last.locator("video").evaluate(FRAMES) > frames + 3,
        f"the picture comes again: {line.requests[-8:]} {line.acks[-8:]}",
    )


def test_video_that_the_server_holds_back_says_so(visit: Visit, room: str) -> None:
    lines = Lines()
    ann = visit(room, prepare=lines.add)
    ann.join("Ann")
    bob = visit(room)
    bob.join("Bob")
    seen = ann.tile("Bob")
    ann.sees(seen)
    (consumer_id,) = consumer_ids(lines[0]).values()
    told = {"roomId": room[6:], "consumerId": consumer_id}
    lines[0].tell("layersChanged", {**told, "spatialLayer": None})
    expect(seen.get_by_test_id("tile-held")).to_contain_text("too little bandwidth")
    ann.picture("held")
    # Its sender's doing, it is not the network's.
    bob.toggle("camera", False)
    expect(seen).to_have_attribute("data-video", "off")
    expect(seen.get_by_test_id("tile-held")).to_be_empty()
    bob.toggle("camera", True)
    expect(seen.get_by_test_id("tile-held")).to_contain_text("too little bandwidth")
    lines[0].tell("layersChanged", {**told, "spatialLayer": 0})
    expect(seen.get_by_test_id("tile-held")).to_be_empty()


def test_another_network_makes_the_page_restart_ice(visit: Visit, room: str) -> None:
    """Once on both transports. Answers are the line's: the parameters that the server goes on taking.

    Where they do not change, the browser begins anew only where it makes the offer, which is for sending.
    """
    lines = Lines()
    ann = visit(room, script=SMALL_PICTURES + KEEP_CONNECTIONS, prepare=lines.add)
    ann.join("Ann")
    bob = visit(room)
    bob.join("Bob")
    ann.sees(ann.tile("Bob"))
    line = lines[0]
    transports = {each["id"]: each for name in TRANSPORTS for each in line.answered(name)}
    assert len(transports) == 2

    line.answers["restartIce"] = lambda payload: {"iceParameters": transports[payload["transportId"]]["iceParameters"]}
    before = ann.page.evaluate(FRAGMENTS)
    assert len(before) == 2
    ann.page.evaluate("() => dispatchEvent(new Event('online'))")
    ann.page.wait_for_function(RESTARTED, arg=before)
    assert len(line.asked("restartIce")) == 2
    assert {each["transportId"] for each in line.asked("restartIce")} == transports.keys()
    ann.sees(ann.tile("Bob"))
    bob.sees(bob.tile("Ann"))
    ann.is_in_state("connected")
    for name in TRANSPORTS:
        assert len(line.asked(name)) == 1


def test_call_goes_on_where_the_server_restarts_no_ice(visit: Visit, room: str) -> None:
    lines = Lines()
    ann, bob = visit(room, prepare=lines.add), visit(room)
    ann.join("Ann")
    bob.join("Bob")
    ann.sees(ann.tile("Bob"))
    line = lines[0]
    refusals: list[str] = []

    def refuse(payload: dict[str, str]) -> dict[str, str]:
        refusals.append(payload["transportId"])
        return {"error": "The server knows no such event", "code": "unknown-event"}

    line.answers["restartIce"] = refuse
    for _ in range(2):
        ann.page.evaluate("() => dispatchEvent(new Event('online'))")
        waits_for(ann, lambda: refusals, "a refusal")
        ann.sees(ann.tile("Bob"))
    assert len(refusals) <= 2  # what it does not know it is not asked again
    bob.sees(bob.tile("Ann"))
    ann.is_in_state("connected")
    for name in TRANSPORTS:
        assert len(line.asked(name)) == 1


def test_call_goes_on_while_its_line_is_resumed(visit: Visit, room: str) -> None:
    """Behind a server that resumes, played by the line: nothing is made anew, and what was clicked meanwhile counts."""
    lines = Lines(token="secret")
    ann = visit(room, prepare=lines.add)
    ann.join("Ann")
    bob = visit(room)
    bob.join("Bob")
    ann.sees(ann.tile("Bob"))
    bob.sees(bob.tile("Ann"))
    line = lines[0]
    line.cut(for_long=True)
    ann.is_in_state("resuming")
    ann.reads("state", "line to the server is lost")
    ann.sees(ann.tile("Bob"))
    ann.toggle("mute", False)
    ann.picture("resuming")
    line.mend()
    ann.is_in_state("connected")
    (resume,) = line.asked("resume")
    assert resume["resumeToken"] == "secret"
    assert 0 < resume["received"] <= line.events_since_token  # what was under way at the cut is lost
    expect(bob.tile("Ann")).to_have_attribute("data-muted", "true")
    bob.sees(bob.tile("Ann"))
    ann.reads("state", "with one other")
    for name in TRANSPORTS:
        assert len(line.asked(name)) == 1
    assert len(line.asked("produce")) == 2


def test_call_is_entered_anew_where_the_server_does_not_resume(visit: Visit, room: str) -> None:
    lines = Lines()
    ann = visit(room, prepare=lines.add)
    ann.join("Ann")
    bob = visit(room)
    bob.join("Bob")
    ann.sees(ann.tile("Bob"))
    lines[0].cut()
    waits_for(ann, lambda: len(lines[0].answered("joinRoom")) > 1, "another entry")
    ann.is_in_state("connected")
    ann.sees(ann.tile("Bob"))
    bob.sees(bob.tile("Ann"))
    expect(bob.get("tile")).to_have_count(2)
