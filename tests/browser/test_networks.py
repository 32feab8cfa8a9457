"""Calls over links that lose, delay and break, by a relay between the pages and the server's UDP port."""

import time

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import OpenPage, new_context
from tests.browser.figures import note
from tests.browser.quality import Quality, describe
from tests.browser.users import SMALL, User, connect
from tests.support.lossy_link import LinkSettings
from tests.support.relay import Relay, running_relay
from tests.support.server import Server, running_server


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("count", "seconds"), [(2, 10), (3, 20)])
def test_call_over_a_lossy_link(open_page: OpenPage, server: Server, count: int, seconds: int) -> None:
    """5 % loss each way and 50 ms delay: every video goes on, and no freeze is longer than a second.

    Three see six videos, two see two: nearly all there is to be found is found with three.
    """
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port), loss=0.05, delay=0.05, seed=7) as relay:
        users = [connect(open_page()) for _ in range(count)]
        room = None
        for user in users:
            user.call("mapCandidatePort", 0, relay.port)
            room = user.join(room)
        for user in users:
            user.call("consumeAll", {"timeoutMs": 20_000})
        for user in users:
            user.call("waitDecoding", {"timeoutMs": 20_000})
        qualities = [Quality(user) for user in users]
        users[0].page.wait_for_timeout(seconds * 1000)
        for user, quality in zip(users, qualities, strict=True):
            videos, _ = quality.take()
            assert len(videos) == count - 1
            for video in videos:
                note(f"{count} users, 5 % loss: {describe(video)}")
                assert video.nacks > 0
                assert video.retransmissions > 0
                assert video.longest_gap <= 1.0
            (sent,) = [each["streams"][0] for each in user.call("stats")["producers"] if each["kind"] == "video"]
            assert sent["nackCount"] > 0
            assert sent["retransmittedPacketsSent"] > 0
        for user in users:
            user.call("close")


def call_of_two(open_page: OpenPage, relay: Relay) -> tuple[User, User]:
    """Both behind ``relay``; the second sees and hears the first."""
    sender, viewer = (connect(open_page()) for _ in range(2))
    for user in (sender, viewer):
        user.call("mapCandidatePort", 0, relay.port)
    viewer.join(sender.join(), audio=False, video=None)
    viewer.call("consumeAll", {"timeoutMs": 20_000})
    viewer.call("waitDecoding", {"timeoutMs": 20_000})
    return sender, viewer


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "settings",
    [
        LinkSettings(delay=0.03, reorder=0.05, reorder_delay=0.02),
        LinkSettings(delay=0.03, duplicate=0.1),
        LinkSettings(delay=0.03, jitter=0.03),
    ],
    ids=["reordering", "duplication", "jitter"],
)
def test_call_over_a_link_that_loses_nothing_but_is_uneven(
    open_page: OpenPage, server: Server, settings: LinkSettings
) -> None:
    """Video and sound go on for 8 s, no keyframe is asked for, and nobody gives up a packet."""
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port), to_server=settings, to_client=settings, seed=11) as relay:
        sender, viewer = call_of_two(open_page, relay)
        quality = Quality(viewer)
        uneven = [(link.counters.reordered, link.counters.duplicated) for link in (relay.to_server, relay.to_client)]
        viewer.page.wait_for_timeout(8000)
        video, sound = quality.seen(), quality.heard()
        note(f"{settings}: {describe(video)}, {sound.concealed:.1%} of the sound made up")
        for link, (reordered, duplicated) in zip((relay.to_server, relay.to_client), uneven, strict=True):
            assert (link.counters.reordered > reordered) == (settings.reorder > 0)
            assert (link.counters.duplicated > duplicated) == (settings.duplicate > 0)
        assert video.frames >= 0.8 * SMALL["frameRate"] * video.seconds
        assert video.longest_gap <= 1.0
        assert video.plis == 0
        assert sound.concealed < 0.1
        for user in (sender, viewer):
            user.call("close")


@pytest.mark.timeout(120)
def test_call_goes_on_after_an_outage(open_page: OpenPage, server: Server) -> None:
    """Nothing comes through for 2 s, either way: new frames and sound are there within 2 s after it."""
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port), delay=0.02, seed=5) as relay:
        sender, viewer = call_of_two(open_page, relay)
        quality = Quality(viewer)
        viewer.page.wait_for_timeout(1000)
        relay.cut()
        viewer.page.wait_for_timeout(2000)
        relay.heal()
        viewer.page.wait_for_timeout(2000)
        outage = quality.seen()
        note(f"an outage of 2 s: {describe(outage)}")
        quality.begin_anew()
        viewer.page.wait_for_timeout(2000)
        video, sound = quality.seen(), quality.heard()
        assert 1.5 < outage.longest_gap <= 4.0
        # It was back before the last 2 s began, and goes on.
        assert video.longest_gap <= 1.0
        assert video.frames >= 0.8 * SMALL["frameRate"] * video.seconds
        assert sound.concealed < 0.1
        for user in (sender, viewer):
            assert user.call("transportStates")["send" if user is sender else "recv"][-1] == "connected"
            user.call("close")


@pytest.mark.timeout(120)
def test_sender_that_begins_anew_over_a_lossy_link(open_page: OpenPage, server: Server) -> None:
    """The same user produces again, with other SSRCs and numbers: whoever watches follows, and the old is gone."""
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port), loss=0.05, delay=0.03, seed=9) as relay:
        sender, viewer = call_of_two(open_page, relay)
        viewer.call("autoConsume", {"timeoutMs": 20_000})
        seen: set[int] = set()
        for _ in range(3):
            made = sender.call("produce", {"kind": "video", "codec": "VP8", **SMALL})
            viewer.call("waitEvent", "newProducer", {"producerId": made["id"]})
            consumed = [each for each in viewer.call("consumed", True) if each["kind"] == "video"]
            assert [each["producerId"] for each in consumed] == [made["id"]]
            viewer.call("waitDecoding", {"consumerId": consumed[0]["id"], "frames": 15, "timeoutMs": 20_000})
            seen.update(made["ssrcs"])
        assert len(seen) == 3
        assert viewer.call("failures") == []
        for user in (sender, viewer):
            user.call("close")


def test_network_that_is_cut(browser: Browser) -> None:
    """Media stops without a word: both transports are given up by lack of consent, and the user is told."""
    with running_server("--ice-consent-timeout", "8") as server:
        (port,) = server.media_ports
        context = new_context(browser, server)
        try:
            with running_relay(("127.0.0.1", port), seed=1) as relay:
                pages = [context.new_page() for _ in range(2)]
                for page in pages:
                    page.goto("/")
                first, second = (connect(page) for page in pages)
                first.call("mapCandidatePort", 0, relay.port)
                room = first.join()
                second.join(room, audio=False, video=None)
                second.call("consumeAll")
                second.call("waitDecoding", {})
                relay.cut()
                first.call("waitEvent", "transportClosed", {}, 20_000)
                second.call("waitEvent", "producerClosed", {}, 5_000)
                assert second.call("request", "listProducers")["producers"] == []
                figures = server.gauges()
                assert figures["trio_sfu_peers"] == 2
                assert figures["trio_sfu_producers"] == 0
        finally:
            context.close()
        server.wait_idle()


def selected(user: User) -> dict[str, tuple[str, int]]:
    """Where the server sends to, by transport."""
    stats = user.call("request", "getStats")["stats"]
    tuples = {each["transportId"]: each.get("iceSelectedTuple") for each in stats if each["type"] == "webrtc-transport"}
    return {name: (found["protocol"], found["remotePort"]) for name, found in tuples.items() if found}


@pytest.mark.parametrize("network_changes", [False, True], ids=["restart", "network change"])
def test_ice_restart(open_page: OpenPage, server: Server, *, network_changes: bool) -> None:
    """All transports of a call restart, twice: no video stands still for longer than 2 s, and paths are new ones.

    Where the network changes, nothing comes through by the old paths from that moment on.
    """
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port), seed=1) as relay:
        users = [connect(open_page()) for _ in range(2)]
        room = None
        for user in users:
            user.call("mapCandidatePort", 0, relay.port)
            room = user.join(room)
        for user in users:
            user.call("consumeAll")
        for user in users:
            user.call("waitDecoding", {})
        for _ in range(2):
            before = [selected(user) for user in users]
            assert [len(each) for each in before] == [2, 2]
            qualities = [Quality(user) for user in users]
            if network_changes:
                relay.move()
            for user in users:
                user.page.evaluate(RESTART_BOTH)
            for user, quality in zip(users, qualities, strict=True):
                user.call("waitDecoding", {"frames": 15})
                gap = quality.seen().longest_gap
                note(f"ICE restart, {'network change' if network_changes else 'same network'}: {1000 * gap:.0f} ms")
                assert gap <= 2
            for user, old in zip(users, before, strict=True):
                wait_until_other(user, old)
                assert user.call("transportStates") == dict.fromkeys(("send", "recv"), STATES)
        for user in users:
            user.call("close")


STATES = ["new", "connecting", "connected"]

RESTART_BOTH = "() => Promise.all([sfu.restartIce('send'), sfu.restartIce('recv')])"


def wait_until_other(user: User, old: dict[str, tuple[str, int]]) -> None:
    """Until the server sends to other addresses than ``old`` by each transport."""
    deadline = time.monotonic() + 10
    while set(selected(user).items()) & set(old.items()):
        assert time.monotonic() < deadline, "a path is the old one"
        time.sleep(0.05)


@pytest.mark.timeout(180)
def test_720p_reaches_its_bitrate(open_page: OpenPage) -> None:
    """Transport-wide feedback lets Chromium's estimate climb: at least 1.5 Mb/s within 10 s of a clean link."""
    sender, viewer = (connect(open_page()) for _ in range(2))
    room = sender.call("create")
    sender.call("loadDevice")
    viewer.join(room, audio=False, video=None)
    sender.call(
        "produce",
        {
            "kind": "video",
            "codec": "VP8",
            "capture": "canvas",
            "width": 1280,
            "height": 720,
            "frameRate": 30,
            "maxBitrate": 2_500_000,
        },
    )
    viewer.call("consumeAll")
    best = 0.0
    sender.call("stats")
    for _ in range(10):
        sender.page.wait_for_timeout(1000)
        stats = sender.call("stats")
        bitrate = stats["producers"][0]["streams"][0]["bitrate"] or 0.0
        best = max(best, bitrate)
        if best >= 1_500_000:
            break
    available = stats["send"]["availableOutgoingBitrate"]
    note(f"720p: {best / 1e6:.2f} Mb/s, available {available / 1e6:.2f} Mb/s")
    assert best >= 1_500_000
