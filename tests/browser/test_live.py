"""Rooms as live streams, end to end: real Chromium users, and FFmpeg and hls.js in Chromium as those who judge.

Times are printed, not asserted: how long things take on a busy machine says nothing. What never may stop is asserted.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.figures import note
from tests.browser.performer import SCREEN_COLOUR, TINY, TONES, Performer
from tests.browser.received import RATE, Received, flashes_and_beeps, has_tone, look_at, sound_of
from tests.browser.viewer import Viewer, centres
from tests.browser.visitor import Visit
from tests.support.relay import running_relay
from tests.support.server import Server, running_server

SIZE = (320, 180)
FRAME_RATE = 30
#: What any player may need to go on, on a busy machine.
GENEROUS = 5.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    """With live streams, of a size that leaves the processor to the browsers."""
    options = ["--hls-size", "{}x{}".format(*SIZE), "--hls-fps", str(FRAME_RATE), "--hls-video-bitrate", "800000"]
    with running_server(*options, "--ping-interval", "2", "--ping-timeout", "4", hls=True) as server:
        yield server


@pytest.fixture
def perform(open_page: OpenPage) -> Callable[[int], list[Performer]]:
    """So many users, connected, in no room yet."""
    return lambda count: [Performer(open_page(), part) for part in range(count)]


Perform = Callable[[int], list[Performer]]


def launches(server: Server) -> float:
    """How many FFmpegs have been started."""
    return server.metrics()["trio_sfu_hls_launches_total"]


def all_join(users: list[Performer]) -> str:
    """All are in one room, and produce nothing yet."""
    room = users[0].join()
    for user in users[1:]:
        user.join(room)
    return room


def states(user: Performer) -> list[str]:
    """The states that the room was told of, so far."""
    return [event["payload"]["state"] for event in user.call("events", "hlsStateChanged")]


@pytest.mark.parametrize("codecs", [["VP8"], ["VP8", "H264"], ["VP8", "VP9", "H264", "AV1", "VP8"]], ids=len)
def test_everybody_is_seen_and_heard(open_page: OpenPage, server: Server, perform: Perform, codecs: list[str]) -> None:
    """Each tile has its own picture and moves, each tone is in the mix; whatever the codecs."""
    users = perform(len(codecs))
    room = all_join(users)
    viewer = Viewer(open_page(f"/watch/{room}"))
    stream = Received(server, room)
    viewer.is_in_state("absent")
    users[0].perform(codecs[0], TINY)
    answered = stream.answers() - users[0].performed_at
    for user, codec in zip(users[1:], codecs[1:], strict=True):
        user.perform(codec, TINY)
    seen = viewer.sees(*(user.hue for user in users))
    note(
        f"live, {len(users)} users: playlist {answered:.2f} s, first picture "
        f"{viewer.first_picture_at - users[0].performed_at:.2f} s after the first one's second produce, "
        f"the last one's tile {seen - users[-1].performed_at:.2f} s after theirs"
    )
    for user, look in zip(users, viewer.watch_tiles(len(users), 3), strict=True):
        assert look.hues == {user.hue}
        assert look.longest_still < GENEROUS / 2
    stream.settles()
    description, sound = stream.play()
    assert [has_tone(sound, tone) for tone in TONES] == [True] * len(users) + [False] * (5 - len(users))
    assert "Video: h264 (Main)" in description
    assert "{}x{}".format(*SIZE) in description
    assert f"{FRAME_RATE} fps" in description
    assert f"Audio: aac (LC) (mp4a / 0x6134706D), {RATE} Hz, stereo" in description


def test_others_come_and_go_while_one_watches(open_page: OpenPage, server: Server, perform: Perform) -> None:
    """The player rides through every restart of FFmpeg; a shared screen takes the camera's place."""
    users = perform(2)
    room = all_join(users)
    viewer = Viewer(open_page(f"/watch/{room}"))
    before = launches(server)
    first, second = users
    first.perform()
    viewer.sees(first.hue)
    second.perform()
    viewer.sees(first.hue, second.hue)
    screen = first.share_screen()
    viewer.sees(SCREEN_COLOUR, second.hue)
    first.call("closeProducer", screen)
    viewer.sees(first.hue, second.hue)
    second.call("leave")
    viewer.sees(first.hue)
    (look,) = viewer.watch_tiles(1, 2)
    assert look.hues == {first.hue}
    assert viewer.was_never_reloaded
    assert launches(server) == before + 5
    stall, missing = viewer.longest_stall, Received(server, room).missing
    note(f"live, 4 restarts: longest stall {stall:.2f} s, missing {', '.join(f'{each:.2f}' for each in missing)} s")
    assert stall < GENEROUS
    assert len(missing) == 4
    assert max(missing) < GENEROUS
    assert states(first) == ["starting", "live"] + 4 * ["restarting", "live"]


def test_one_freezes(open_page: OpenPage, server: Server, perform: Perform) -> None:
    """The media of one of three is cut off for ten seconds: the others are seen and heard all the time."""
    (port,) = server.media_ports
    users = perform(3)
    room = all_join(users)
    viewer = Viewer(open_page(f"/watch/{room}"))
    stream = Received(server, room)
    with running_relay(("127.0.0.1", port), seed=3) as relay:
        users[2].call("mapCandidatePort", 0, relay.port)
        for user in users:
            user.perform()
        viewer.sees(*(user.hue for user in users))
        before = launches(server)
        relay.cut()
        watched = viewer.watch_tiles(3, 10)
        relay.heal()
        viewer.sees(*(user.hue for user in users), seconds=30)
        moving = viewer.watch_tiles(3, 2)
        stream.settles()
        assert launches(server) == before
        run = stream.newest_run()
    assert watched[2].longest_still > 3
    assert watched[2].hues <= {users[2].hue, None}  # the last picture, then a card
    assert moving[2].longest_still < GENEROUS / 2
    note(
        f"live, one of three frozen for 10 s: the others' longest stills {watched[0].longest_still:.2f} and "
        f"{watched[1].longest_still:.2f} s at the viewer"
    )
    # Whether the stream itself stopped is read from it: the viewer's browser may have had other things to do.
    tiles = look_at(run, centres(3))
    assert max(tiles[0].longest_still, tiles[1].longest_still) <= 1
    assert tiles[2].longest_still > 3
    sound = sound_of(run)
    half = RATE // 2
    pieces = [sound[at : at + half] for at in range(RATE, len(sound) - half, half)]
    heard = [[has_tone(piece, tone) for piece in pieces] for tone in TONES[:3]]
    # A browser with too much to do leaves out a piece of its own; the stream must not be silent for a second.
    assert not any(pair == (False, False) for tone in heard[:2] for pair in pairwise(tone))
    assert (False, False) in pairwise(heard[2])


def test_muting_and_turning_need_no_restart(open_page: OpenPage, server: Server, perform: Perform) -> None:
    """What the first of two does changes their own tile only."""
    users = perform(2)
    room = all_join(users)
    viewer = Viewer(open_page(f"/watch/{room}"))
    stream = Received(server, room)
    first, second = users
    for user in users:
        user.perform()
    viewer.sees(first.hue, second.hue)
    before = launches(server)

    # As the protocol has it, then as pages do that tell nobody.
    for producer in (first.video, first.audio):
        first.call("pauseProducer", producer)
    viewer.sees(None, second.hue)
    viewer.hears(second.frequency, among=TONES)
    for producer in (first.video, first.audio):
        first.call("resumeProducer", producer)
    viewer.sees(first.hue, second.hue)
    viewer.hears(first.frequency, second.frequency, among=TONES)
    first.enable_tracks(False)
    viewer.sees(None, second.hue)
    viewer.hears(second.frequency, among=TONES)
    first.enable_tracks(True)
    viewer.sees(first.hue, second.hue)
    viewer.hears(first.frequency, second.frequency, among=TONES)

    # The tiles are 160x180: a 4:3 picture leaves bars above and below it, a tall one at its sides.
    above, left = (40, 6), (6, 45)
    first.turn(120, 480)
    viewer.sees_at({above: first.hue, left: None})
    first.turn(320, 240)
    viewer.sees_at({above: None, left: first.hue})
    first.scale_down(4)
    looks = viewer.watch(3, left, *centres(2))
    assert [look.hues for look in looks] == [{first.hue}, {first.hue}, {second.hue}]
    assert max(look.longest_still for look in looks) < GENEROUS / 2

    assert launches(server) == before
    _, witness = look_at(stream.newest_run(), centres(2))
    assert witness.hues == {second.hue}
    assert witness.longest_still <= 1


def test_picture_and_sound_are_together(server: Server, perform: Perform) -> None:
    """A flash and a beep in each second, read from the segments."""
    (user,) = perform(1)
    stream = Received(server, user.join())
    user.perform(capture="flash", size={"width": 320, "height": 180, "frameRate": 30})
    stream.settles(8, seconds=40)
    flashes, beeps = flashes_and_beeps(stream.newest_run())
    # Of the sound's offset, the seconds' fraction: which beep belongs to which flash is then no question.
    offsets = [min((beep - flash for beep in beeps), key=abs) for flash in flashes]
    assert len(offsets) >= 10
    note(f"live, sound after picture: {median(offsets) * 1000:.0f} ms, {min(offsets):.3f} to {max(offsets):.3f} s")
    assert abs(median(offsets)) <= 0.08


def test_states_until_the_end_and_after(open_page: OpenPage, server: Server, perform: Perform) -> None:
    """A user's page crashes, the last one stops and comes back: the room is told, the watch page goes along."""
    first, doomed = perform(2)
    room = all_join([first, doomed])
    viewer = Viewer(open_page(f"/watch/{room}"))
    first.perform()
    first.call("waitEvent", "hlsStateChanged", {"state": "live"})
    doomed.perform()
    viewer.sees(first.hue, doomed.hue)
    doomed.crash()
    viewer.sees(first.hue)
    first.call("stopProducing")
    first.call("waitEvent", "hlsStateChanged", {"state": "ended"})
    viewer.is_in_state("ended")
    *told, last = states(first)
    assert told[:4] == ["starting", "live", "restarting", "live"]
    assert told[4:] in ([], ["restarting"], ["restarting", "live"])  # by how soon the server notices the crash
    assert last == "ended"
    first.call("clearEvents")
    first.perform()
    viewer.is_in_state("live")
    viewer.sees(first.hue)
    viewer.hears(first.frequency, among=TONES)
    assert viewer.was_never_reloaded
    assert states(first) == ["starting", "live"]
    first.call("leave")
    viewer.is_in_state("ended")


def test_call_page_leads_to_the_stream(visit: Visit) -> None:
    ann = visit("/room/live-from-the-call")
    expect(ann.get("stream")).to_have_attribute("data-state", "")
    ann.join("Ann")
    expect(ann.get("stream")).to_have_text("Live")
    with ann.page.expect_popup() as popup:
        ann.get("watch").click()
    viewer = Viewer(popup.value)
    viewer.is_in_state("live")
    (look,) = viewer.watch_tiles(1, 3)
    assert look.longest_still < GENEROUS / 2
