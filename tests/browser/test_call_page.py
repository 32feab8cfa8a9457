"""The call page on networks that are not good: what it sends and asks for, and how it shows it.

What the server does about bandwidth is tested elsewhere. Pictures go to tests/output, to be looked at.
"""

from typing import Any

import pytest
from playwright.sync_api import Locator, ViewportSize, expect

from tests.browser.line import Line, Lines
from tests.browser.test_pages import call_of_two, room
from tests.browser.visitor import (
    DESKTOP,
    KEEP_CONNECTIONS,
    LYING_PHONE,
    PHONE,
    SMALL_PHONE,
    Visit,
    Visitor,
)
from tests.support.lossy_link import LinkSettings
from tests.support.relay import running_relay
from tests.support.server import Server

__all__ = ["room"]  # the fixture

FIGURE = """([about, name]) => {
  const cells = document.querySelectorAll(`#figures section[data-about="${about}"] dd[data-name="${name}"]`);
  return cells.length > 0 && [...cells].every((cell) => Number(cell.dataset.value) > 0);
}"""

# Whether each encoding of the camera is active, and how many bytes of it have been sent.
ENCODINGS = """async () => {
  const senders = window.connections.flatMap((each) => each.getSenders());
  const sender = senders.find(({ track, transport }) => track?.kind === "video" && transport?.state === "connected");
  const { encodings } = sender.getParameters();
  const streams = [...(await sender.getStats()).values()].filter(({ type }) => type === "outbound-rtp");
  const bytes = (rid) => streams.find((each) => each.rid === rid)?.bytesSent ?? 0;
  return encodings.map(({ rid, active }) => ({ active, bytes: bytes(rid) }));
}"""

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""

NARROW = 250_000  # bit/s, for more than one of SMALL_PICTURES with everybody's sound, and less than two

FRAMES = "(video) => video.getVideoPlaybackQuality().totalVideoFrames"


def producer_id(visitor: Visitor, line: Line, source: str) -> str:
    """The id of what the visitor sends as ``source``."""
    visitor.waits_for(lambda: len(line.answered("produce")) == len(line.asked("produce")), "producing")
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
    ann = visit(room, script=KEEP_CONNECTIONS, prepare=lines.add)
    ann.join("Ann")
    bob = visit(room, prepare=lines.add)
    bob.join("Bob")
    of_ann, of_bob = lines[0], lines[1]
    ann.get("figures-toggle").click()
    video = bob.tile("Ann").locator("video").element_handle()
    layers = figures(ann, "camera").locator('dd[data-name="layer"]')
    unwatched = layers.filter(has_text="nobody watches")

    def comes(width: int) -> None:
        bob.page.wait_for_function("([video, width]) => video.videoWidth === width", arg=[video, width])

    def streams() -> list[Any]:
        """What the server gets of Ann's camera."""
        stats = [each for ack in of_ann.answered("getStats")[-1:] for each in ack["stats"]]
        camera = producer_id(ann, of_ann, "camera")
        return [each["rid"] for each in stats if each.get("producerId") == camera and each["bitrate"] > 0]

    # Large, it comes as it was taken.
    bob.page.get_by_role("button", name="Pin Ann").click()
    comes(1280)
    ann.waits_for(lambda: streams() == ["r0", "r1", "r2"], "three encodings that the server gets")
    for layer, size in zip(layers.all(), ("320 × 180", "640 × 360", "1280 × 720"), strict=True):
        expect(layer).to_contain_text(size)
    ann.picture("figures-simulcast")
    # A small capture is sent once: there is nothing to choose from.
    (small,) = [each for each in of_bob.asked("produce") if each["kind"] == "video"]
    assert len(small["rtpParameters"]["encodings"]) == 1

    # In smaller tiles a lower one; and what nobody watches is not made.
    bob.toggle("layout", False)
    comes(640)
    expect(unwatched).to_have_count(1)
    bob.page.set_viewport_size(PHONE)
    comes(320)
    expect(unwatched).to_have_count(2)
    ann.picture("figures-unwatched")
    assert of_ann.told("layersWanted")[-1]["spatialLayer"] == 0
    before = ann.page.evaluate(ENCODINGS)
    assert [each["active"] for each in before] == [True, False, False]
    bob.sees(bob.tile("Ann"))
    now = ann.page.evaluate(ENCODINGS)
    assert [each["bytes"] for each in now[1:]] == [each["bytes"] for each in before[1:]]
    assert now[0]["bytes"] > before[0]["bytes"]
    # When the tile grows it is made again.
    bob.page.set_viewport_size(DESKTOP)
    bob.page.get_by_role("button", name="Pin Ann").click()
    comes(1280)
    assert [each["active"] for each in ann.page.evaluate(ENCODINGS)] == [True, True, True]

    # Whoever knows the size of the tile says so at once; and sound can be asked for again, to the server and from it.
    (consume,) = [each for each in of_bob.asked("consume") if each["producerId"] == producer_id(ann, of_ann, "camera")]
    assert consume["preferredLayers"] == {"spatialLayer": 1}
    for line in (of_ann, of_bob):
        (sound,) = [each for each in line.asked("produce") if each["kind"] == "audio"]
        assert {"type": "nack", "parameter": ""} in sound["rtpParameters"]["codecs"][0]["rtcpFeedback"]


def test_statistics_are_laid_over_the_call_and_taken_away(visit: Visit, room: str, server: Server) -> None:
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port)) as relay:
        lines = Lines(media_port=relay.port)
        ann, bob = visit(room, prepare=lines.add), visit(room, prepare=Lines(protocol="tcp").add)
        ann.get("name").press("i")
        expect(ann.get("figures")).to_be_hidden()
        ann.join("Ann")
        bob.join("Bob")
        ann.sees(ann.tile("Bob"))
        assert lines[0].asked("getStats") == []
        ann.page.keyboard.press("i")
        expect(ann.get("figures")).to_be_visible()
        expect(ann.get("figures-toggle")).to_have_attribute("aria-pressed", "true")
        # On a network that loses much: what comes well has no score to speak of.
        relay.to_client.settings = relay.to_server.settings = LinkSettings(loss=0.1)
        (picture,), (sound,) = consumer_ids(lines[0]), consumer_ids(lines[0], "audio")
        for about, names in (
            ("send", ["roundTrip", "available"]),
            ("receive", ["roundTrip", "available"]),
            ("camera", ["layer", "roundTrip", "serverBitrate", "score"]),
            ("microphone", ["layer"]),
            (picture, ["size", "bitrate", "jitterBuffer", "serverBitrate", "score"]),
            (sound, ["bitrate", "jitterBuffer"]),
        ):
            for name in names:
                ann.page.wait_for_function(FIGURE, arg=[about, name])
        expect(figures(ann, picture).locator("h2")).to_have_text("Bob: picture")
        expect(figures(ann, picture).locator('dd[data-name="codec"]')).to_have_text("VP8")
        ann.picture("figures")
        bob.get("figures-toggle").click()
        for visitor, path in ((ann, "UDP"), (bob, "TCP")):
            for direction in ("send", "receive"):
                expect(figures(visitor, direction).locator('dd[data-name="path"]')).to_have_text(path)
        ann.get("figures-toggle").click()
        expect(ann.get("figures")).to_be_hidden()
        ann.page.keyboard.press("i")
        ann.get("leave").click()
        expect(ann.get("figures")).to_be_hidden()


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
    cleo.waits_for(lambda: {"priority": 200} in lines[0].answered("setConsumerPriority"), "priority for the speaker")
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
    cleo.waits_for(lambda: paused() == videos, "both videos paused")
    cleo.waits_for(lambda: len(line.answered("pauseConsumer")) == 2, "both pauses answered")
    cleo.hears(cleo.tile("Ann"), cleo.tile("Bob"))
    expect(cleo.tile("Ann").get_by_test_id("tile-held")).to_be_empty()
    cleo.page.evaluate(HIDE, False)
    cleo.sees(cleo.tile("Ann"), cleo.tile("Bob"))
    assert paused() == set()
    # A window so low that the last of three tiles is below its edge.
    cleo.page.set_viewport_size(ViewportSize(width=320, height=230))
    cleo.waits_for(lambda: len(paused()) == 1, "one video paused")
    last = cleo.page.locator("#people").get_by_test_id("tile").last
    frames = last.locator("video").evaluate(FRAMES)
    last.scroll_into_view_if_needed()
    cleo.waits_for(
        lambda: last.locator("video").evaluate(FRAMES) > frames + 3,
        f"the picture comes again: {line.requests[-8:]} {line.acks[-8:]}",
    )


@pytest.mark.timeout(120)
def test_what_is_large_comes_first_where_there_is_too_little_bandwidth(visit: Visit, room: str, server: Server) -> None:
    """The other picture stands still and says so, until there is room for both."""
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port), delay=0.01) as relay:
        lines = Lines(media_port=relay.port)
        cleo = visit(room, prepare=lines.add)
        cleo.join("Cleo")
        senders = {"Ann": visit(room), "Bob": visit(room)}
        for name, visitor in senders.items():
            visitor.join(name)
        cleo.sees(cleo.tile("Ann"), cleo.tile("Bob"))
        relay.to_client.settings = LinkSettings(delay=0.01, rate=NARROW)
        for large, small in (("Bob", "Ann"), ("Ann", "Bob")):
            cleo.page.get_by_role("button", name=f"Pin {large}").click()
            is_large(cleo, large)
            expect(cleo.tile(small).get_by_test_id("tile-held")).to_contain_text("too little bandwidth")
            cleo.sees(cleo.tile(large))
            expect(cleo.tile(large).get_by_test_id("tile-held")).to_be_empty()
        cleo.picture("held")
        assert None in [each["spatialLayer"] for each in lines[0].told("layersChanged")]
        # Its sender's doing, it is not the network's.
        held = cleo.tile("Bob").get_by_test_id("tile-held")
        senders["Bob"].toggle("camera", False)
        expect(cleo.tile("Bob")).to_have_attribute("data-video", "off")
        expect(held).to_be_empty()
        senders["Bob"].toggle("camera", True)
        expect(held).to_contain_text("too little bandwidth")
        relay.to_client.settings = LinkSettings(delay=0.01)
        expect(held).to_be_empty()
        cleo.sees(cleo.tile("Ann"), cleo.tile("Bob"))
