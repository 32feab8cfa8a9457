"""The pages as people use them: read, typed into and clicked. Pictures of them go to tests/output, to be looked at.

Unlike for the test client, their security policy is in force here.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

import ifaddr
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import another_browser
from tests.browser.visitor import LYING_PHONE, PHONE, SMALL_PHONE, Visit, Visitor
from tests.support.server import running_server

# Without HTTPS mediasoup-client has this line only to know the browser by, and headless Chromium's it does not know.
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

ASK_FAKE_UI = "--use-fake-ui-for-media-stream"
FAKE_DEVICES = "--use-fake-device-for-media-stream"

CAMERA_IN_USE = """
const original = window.MediaDevices?.prototype.getUserMedia;
if (original) MediaDevices.prototype.getUserMedia = function (constraints) {
  if (constraints.video) return Promise.reject(new DOMException("Could not start video source", "NotReadableError"));
  return original.call(this, constraints);
};
"""

UNKNOWN_BROWSER = 'Object.defineProperty(Navigator.prototype, "userAgentData", { get: () => undefined });'


@pytest.fixture(scope="module")
def without_permission(browser: Browser) -> Iterator[Browser]:
    """A browser that has devices and gives them to nobody who was not permitted."""
    with another_browser(browser, ASK_FAKE_UI) as another:
        yield another


@pytest.fixture(scope="module")
def without_devices(browser: Browser) -> Iterator[Browser]:
    """A browser on a machine with neither camera nor microphone, as this one is."""
    with another_browser(browser, ASK_FAKE_UI, FAKE_DEVICES) as another:
        yield another


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """The path of a room that no other test uses."""
    return f"/room/{request.node.originalname.replace('_', '-')}"[:64]


def call_of_two(visit: Visit, room: str) -> tuple[Visitor, Visitor]:
    """Ann and Bob, who see each other."""
    ann, bob = visit(room), visit(room)
    ann.join("Ann")
    bob.join("Bob")
    ann.sees(ann.tile("Bob"))
    bob.sees(bob.tile("Ann"))
    return ann, bob


def test_create_a_room_and_share_its_link(visit: Visit) -> None:
    ann = visit("/")
    ann.picture("index")
    ann.get("name").fill("Ann Example")
    ann.get("create").click()
    ann.page.wait_for_url("**/room/room_*")
    ann.is_in_state("ready")
    expect(ann.get("name")).to_have_value("Ann Example")
    expect(ann.get("preview")).to_have_attribute("data-video", "on")
    expect(ann.get("leave")).to_be_hidden()
    ann.picture("ready")
    ann.get("copy-link").click()
    expect(ann.get("copy-link")).to_have_text("Copied")
    link = ann.page.evaluate("() => navigator.clipboard.readText()")
    assert link == ann.page.url
    ann.join("Ann Example")
    ann.reads("state", "nobody else")
    expect(ann.tile("Ann Example (you)")).to_have_attribute("data-own", "true")
    ann.picture("alone")

    bob = visit(link)
    expect(bob.get("room-name")).to_have_text(link.rpartition("/")[2])
    bob.join("Bob")
    cleo = visit("/")
    cleo.get("room-id").fill(link)
    cleo.get("name").fill("Cleo")
    cleo.get("join").click()
    cleo.page.wait_for_url(link)
    cleo.join("Cleo")
    everyone = {"Ann Example": ann, "Bob": bob, "Cleo": cleo}
    for own_name, visitor in everyone.items():
        expect(visitor.get("tile")).to_have_count(3)
        visitor.reads("state", "In the call with 2 others")
        others = [visitor.tile(name) for name in everyone if name != own_name]
        visitor.sees(*others)
        visitor.hears(*others)
    ann.picture("three")


def test_microphone_and_camera_off_and_on(visit: Visit, room: str) -> None:
    ann, bob = call_of_two(visit, room)
    seen = bob.tile("Ann")
    bob.hears(seen)
    for tile in (seen, ann.tile("Ann (you)")):  # the fake microphone beeps
        expect(tile).to_have_attribute("data-speaking", "true")
    bob.picture("speaking")
    ann.toggle("mute", False)
    expect(seen).to_have_attribute("data-muted", "true")
    expect(seen).to_have_attribute("data-speaking", "false")
    expect(seen.get_by_test_id("tile-status")).to_have_text("muted")
    expect(ann.tile("Ann (you)")).to_have_attribute("data-muted", "true")
    ann.toggle("camera", False)
    expect(seen).to_have_attribute("data-video", "off")
    expect(seen.locator("video")).to_be_hidden()
    bob.picture("muted")
    ann.toggle("camera", True)
    bob.sees(seen)
    ann.toggle("mute", True)
    bob.hears(seen)
    # Who comes while all is off learns of it too.
    ann.toggle("mute", False)
    ann.toggle("camera", False)
    cleo = visit(room)
    cleo.join("Cleo")
    cleo.sees(cleo.tile("Bob"))
    for wanted in ({"muted": "true"}, {"video": "off"}):
        ((name, value),) = wanted.items()
        expect(cleo.tile("Ann")).to_have_attribute(f"data-{name}", value)
    ann.toggle("camera", True)
    cleo.sees(cleo.tile("Ann"))


def test_joining_with_both_off(visit: Visit, room: str) -> None:
    ann = visit(room)
    expect(ann.get("preview")).to_have_attribute("data-video", "on")
    ann.toggle("mute", False)
    ann.toggle("camera", False)
    expect(ann.get("preview")).to_have_attribute("data-video", "off")
    ann.get("name").fill("Ann")
    ann.get("join").click()
    ann.is_in_state("connected")
    bob = visit(room)
    bob.join("Bob")
    expect(bob.tile("Ann")).to_have_attribute("data-video", "off")
    expect(bob.tile("Ann")).to_have_attribute("data-muted", "true")
    ann.sees(ann.tile("Bob"))
    ann.toggle("mute", True)
    ann.toggle("camera", True)
    bob.sees(bob.tile("Ann"))
    bob.hears(bob.tile("Ann"))


def test_sharing_a_screen(visit: Visit, room: str) -> None:
    ann, bob = call_of_two(visit, room)
    ann.toggle("share", True)
    shared = bob.tile("Ann’s screen", "screen")
    bob.sees(shared, bob.tile("Ann"))
    expect(ann.tile("Your screen", "screen")).to_be_visible()
    expect(bob.get("tile")).to_have_count(3)
    bob.picture("screen")
    ann.toggle("share", False)
    expect(shared).to_have_count(0)
    expect(ann.get("tile")).to_have_count(2)
    bob.sees(bob.tile("Ann"))
    # The browser's own "Stop sharing" ends the track.
    ann.toggle("share", True)
    bob.sees(shared)
    ann.tile("Your screen", "screen").locator("video").evaluate(
        "(video) => video.srcObject.getTracks().forEach((track) => track.dispatchEvent(new Event('ended')))"
    )
    expect(ann.get("share")).to_have_attribute("aria-pressed", "false")
    expect(shared).to_have_count(0)


def test_leaving_and_joining_again(visit: Visit, room: str) -> None:
    ann, bob = call_of_two(visit, room)
    ann.get("leave").click()
    ann.is_in_state("left")
    expect(ann.get("tile")).to_have_count(0)
    expect(bob.get("tile")).to_have_count(1)
    bob.reads("state", "nobody else")
    expect(ann.get("mute")).to_be_hidden()
    expect(ann.get("home")).to_be_visible()
    ann.picture("left")
    ann.get("rejoin").click()
    ann.is_in_state("ready")
    ann.join("Ann again")
    bob.sees(bob.tile("Ann again"))
    bob.hears(bob.tile("Ann again"))
    ann.sees(ann.tile("Bob"))
    ann.page.close()
    expect(bob.get("tile")).to_have_count(1)


def test_name_is_text(visit: Visit, room: str) -> None:
    name = "<img src=x onerror='window.broken = 1'>"
    ann = visit(room)
    ann.join(name)
    bob = visit(room)
    bob.join("Bob")
    expect(bob.tile(name)).to_be_visible()
    for visitor in (ann, bob):
        expect(visitor.page.locator("img")).to_have_count(0)
        assert visitor.page.evaluate("() => window.broken") is None


def test_room_of_an_impossible_name(visit: Visit) -> None:
    ann = visit("/")
    for name in ("l%C3%A4rm", "a%20b", "%3Cscript%3E", "a.b"):
        ann.page.goto(f"/room/{name}")
        ann.reads("message", "leads to no room")
        ann.reads("state", "no such room")
        expect(ann.get("join")).to_be_hidden()
    ann.picture("impossible")
    ann.get("home").click()
    expect(ann.get("create")).to_be_visible()


def test_start_page_knows_what_a_room_can_be_called(visit: Visit) -> None:
    ann = visit("/")
    ann.get("join").click()
    ann.reads("message", "Type the room's name")
    ann.get("room-id").fill("no room/<b>")
    ann.get("room-id").press("Enter")
    ann.reads("message", "only letters")
    ann.picture("index-message")
    ann.get("room-id").fill(" my-room ")
    ann.get("room-id").press("Enter")
    ann.page.wait_for_url("**/room/my-room")


def watches(visit: Visit, room: str, viewer: Visitor) -> None:
    """The viewer joins without devices, and Bob, who has them, is seen and heard."""
    viewer.get("name").fill("Ann")
    viewer.get("join").click()
    viewer.is_in_state("connected")
    bob = visit(room)
    bob.join("Bob")
    expect(bob.tile("Ann")).to_have_attribute("data-video", "off")
    expect(bob.tile("Ann")).to_have_attribute("data-muted", "true")
    viewer.sees(viewer.tile("Bob"))
    viewer.hears(viewer.tile("Bob"))


def test_permission_denied(visit: Visit, room: str, without_permission: Browser) -> None:
    ann = visit(room, within=without_permission, permissions=())
    ann.reads("message", "not allowed to use your camera and microphone")
    ann.reads("message", "You can join without them")
    ann.picture("denied")
    ann.page.get_by_label("Dismiss").click()
    expect(ann.get("message")).to_be_hidden()
    ann.get("mute").click()
    ann.reads("message", "not allowed to use your microphone")
    expect(ann.get("mute")).to_have_attribute("aria-pressed", "false")
    watches(visit, room, ann)
    # Allowed after all: no need to come anew.
    ann.page.context.grant_permissions(["camera"])
    ann.toggle("camera", True)
    expect(ann.tile("Ann (you)")).to_have_attribute("data-video", "on")


def test_no_device(visit: Visit, room: str, without_devices: Browser) -> None:
    ann = visit(room, within=without_devices)
    ann.reads("message", "No camera or microphone was found on this device.")
    watches(visit, room, ann)


def test_camera_in_use(visit: Visit, room: str) -> None:
    ann = visit(room, script=CAMERA_IN_USE)
    ann.reads("message", "Your camera is in use by another program")
    expect(ann.get("mute")).to_have_attribute("aria-pressed", "true")
    expect(ann.get("camera")).to_have_attribute("aria-pressed", "false")
    ann.get("camera").click()
    ann.reads("message", "Your camera is in use by another program")
    ann.get("join").click()
    ann.is_in_state("connected")
    bob = visit(room)
    bob.join("Bob")
    bob.hears(bob.tile("Guest"))


def test_page_without_https(visit: Visit) -> None:
    addresses = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    outside = [address for address in addresses if not address.startswith("127.")]
    if not outside:
        pytest.skip("this machine has its loopback address only, which browsers trust")
    with running_server(host=outside[0]) as server:
        ann = visit(f"{server.url}/room/plain", user_agent=CHROME)
        ann.reads("message", "only to pages that come by HTTPS or from localhost")
        ann.get("copy-link").click()
        ann.reads("message", f"Copy this link: {server.url}/room/plain")
        ann.get("join").click()
        ann.is_in_state("connected")
        ann.page.context.close()
        server.wait_idle()


def test_browser_that_is_not_known(visit: Visit, room: str) -> None:
    ann = visit(room, script=UNKNOWN_BROWSER, user_agent="Mozilla/5.0 (Toaster)")
    ann.get("join").click()
    ann.reads("message", "This browser is not one that calls work in.")
    ann.is_in_state("ready")
    expect(ann.get("join")).to_be_enabled()


def test_phone(visit: Visit, room: str) -> None:
    ann = visit("/", viewport=PHONE, is_mobile=True, has_touch=True)

    def everything_fits(name: str, *, tiles: int = 0) -> None:
        """On a phone of usual size, a small one and one held sideways."""
        for viewport in (SMALL_PHONE, LYING_PHONE, PHONE):
            ann.page.set_viewport_size(viewport)
            ann.fits()
            if viewport == PHONE or tiles > 3:
                ann.picture(f"phone-{viewport['width']}-{name}")
        expect(ann.get("tile")).to_have_count(tiles)
        for tile in ann.get("tile").all():
            expect(tile).to_be_in_viewport(ratio=0.9)

    everything_fits("index")
    ann.page.goto(room)
    expect(ann.get("preview")).to_have_attribute("data-video", "on")
    everything_fits("ready")
    ann.join("Ann")
    long_name = "A name of sixty-four characters, which are too many for one tile"
    bob, cleo = visit(room), visit(room)
    bob.join("Bob")
    cleo.join(long_name)
    ann.sees(ann.tile("Bob"), ann.tile(long_name))
    everything_fits("three", tiles=3)
    bob.toggle("share", True)
    ann.sees(ann.tile("Bob’s screen", "screen"))
    everything_fits("screen", tiles=4)
    ann.get("leave").tap()
    ann.is_in_state("left")
    everything_fits("left")


def test_server_comes_back(visit: Visit) -> None:
    """People in the call are told, and are in it again without a click; one who came meanwhile gets in, too."""
    # Long enough for the pages to find their media gone before they give up their place in the room.
    with running_server("--resume-grace", "7") as server:
        url = f"{server.url}/room/lasting"
        ann, bob = call_of_two(visit, url)
        cleo = visit(url)
        expect(cleo.get("preview")).to_have_attribute("data-video", "on")
    for visitor in (ann, bob):
        visitor.is_in_state("reconnecting")
        visitor.reads("state", "Connection lost; reconnecting")
        expect(visitor.get("tile")).to_have_count(1)
    ann.picture("reconnecting")
    cleo.get("join").click()
    cleo.is_in_state("waiting")
    cleo.reads("state", "cannot be reached")
    bob.toggle("mute", False)
    with running_server("--port", str(urlsplit(url).port)) as server:
        for visitor in (ann, bob, cleo):
            visitor.is_in_state("connected")
            expect(visitor.get("tile")).to_have_count(3)
        for visitor in (bob, cleo):
            visitor.sees(visitor.tile("Ann"))
            visitor.hears(visitor.tile("Ann"))
        ann.sees(ann.tile("Bob"), ann.tile("Guest"))
        expect(ann.tile("Bob")).to_have_attribute("data-muted", "true")
        for visitor in (ann, bob, cleo):
            visitor.page.context.close()
        server.wait_idle()
