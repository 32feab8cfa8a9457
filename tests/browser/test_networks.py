"""Calls over links that lose, delay and break, by a relay between the pages and the server's UDP port."""

import time

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import OpenPage, new_context
from tests.browser.figures import note
from tests.browser.users import User, connect
from tests.support.relay import running_relay
from tests.support.server import Server, running_server


@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [2, 3])
def test_call_over_a_lossy_link(open_page: OpenPage, server: Server, count: int) -> None:
    """5 % loss each way and 50 ms delay for 20 s: every video goes on, and no freeze is longer than a second."""
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
            user.page.evaluate(WATCH_FREEZES)
        users[0].page.wait_for_timeout(20_000)
        for user in users:
            longest = user.page.evaluate("() => window.longestFreezes()")
            stats = user.call("stats")
            videos = [each for each in stats["consumers"] if each["kind"] == "video"]
            assert len(longest) == len(videos) == count - 1
            for video in videos:
                note(
                    f"{count} users, 5 % loss: {video['framesDecoded']} frames, {video['freezeCount']} freezes, "
                    f"longest gap {max(longest):.0f} ms, {video['nackCount']} NACKs, "
                    f"{video['retransmittedPacketsReceived']} retransmissions"
                )
                assert video["nackCount"] > 0
                assert video["retransmittedPacketsReceived"] > 0
            assert max(longest) <= 1000
            (sent,) = [each["streams"][0] for each in stats["producers"] if each["kind"] == "video"]
            assert sent["nackCount"] > 0
            assert sent["retransmittedPacketsSent"] > 0
        for user in users:
            user.call("close")


# The longest time between two decoded frames of each video, from now on: by the track itself, not by drawing.
WATCH_FREEZES = """() => {
  const videos = [...document.querySelectorAll("video")];
  const watches = videos.map((video) => {
    const watch = { last: performance.now(), longest: 0 };
    const track = video.srcObject.getVideoTracks()[0].clone();
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    const note = () => {
      const now = performance.now();
      watch.longest = Math.max(watch.longest, now - watch.last);
      watch.last = now;
    };
    const read = async () => {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        value.close();
        note();
      }
    };
    read();
    watch.note = note;
    return watch;
  });
  window.longestFreezes = () => watches.map((watch) => Math.max(watch.longest, performance.now() - watch.last));
}"""


def test_network_that_is_cut(browser: Browser) -> None:
    """Media stops without a word: both transports are given up by lack of consent, and the user is told."""
    with running_server() as server:
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
                first.call("waitEvent", "transportClosed", {}, 45_000)
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
            for user in users:
                user.page.evaluate(WATCH_FREEZES)
            if network_changes:
                relay.move()
            for user in users:
                user.page.evaluate(RESTART_BOTH)
            for user in users:
                user.call("waitDecoding", {"frames": 15})
                gaps = user.page.evaluate("() => window.longestFreezes()")
                note(f"ICE restart, {'network change' if network_changes else 'same network'}: {max(gaps):.0f} ms")
                assert len(gaps) == 1
                assert max(gaps) <= 2000
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
