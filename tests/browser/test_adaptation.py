"""A viewer whose link becomes too narrow gets less of a simulcast, and more again later; others notice nothing."""

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.figures import note
from tests.browser.layered import WIDTHS, send_layers, wait_top_layer
from tests.browser.quality import Quality, describe
from tests.browser.users import connect
from tests.support.lossy_link import LinkSettings
from tests.support.relay import running_relay
from tests.support.server import Server

WIDE = LinkSettings(delay=0.02)
NARROW = LinkSettings(delay=0.02, rate=400_000)


def wait_settled(quality: Quality) -> None:
    """Wait until the viewer has had the top layer alone for 2 s: everybody begins with it, and may have to go back."""
    for _ in range(15):
        wait_top_layer(quality)
        quality.begin_anew()
        quality.wait_width(lambda width: width > 0, 5)
        quality.wait_seconds(2)
        if [width for _, width in quality.seen().sizes] == [WIDTHS[-1]]:
            return
    raise AssertionError("the top layer comes and goes")


@pytest.mark.timeout(180)
def test_a_narrow_link_gets_a_lower_layer(open_page: OpenPage, server: Server) -> None:
    """From no limit to 400 kb/s and back, on one viewer's way from the server; the other viewer's is clean."""
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port), to_server=WIDE, to_client=WIDE, seed=3) as relay:
        sender, narrow, clean = (connect(open_page()) for _ in range(3))
        narrow.call("mapCandidatePort", 0, relay.port)
        room = sender.join(video=None)
        send_layers(sender, "VP8", 3, "L1T3", detail=0.06)
        for viewer in (narrow, clean):
            viewer.join(room, audio=False, video=None)
            viewer.call("consumeAll", {"timeoutMs": 20_000})
            viewer.call("waitDecoding", {"timeoutMs": 20_000})
        qualities = [Quality(narrow), Quality(clean)]
        for quality in qualities:
            wait_settled(quality)
        (consumer,) = [each["id"] for each in narrow.call("consumed") if each["kind"] == "video"]

        for quality in qualities:
            quality.begin_anew()
        relay.to_client.settings = NARROW
        down = qualities[0].wait_width(lambda width: 0 < width < WIDTHS[-1], 5)
        narrow.page.wait_for_timeout(5000)
        relay.to_client.longest_queue_delay = 0.0
        narrow.page.wait_for_timeout(5000)
        queue = relay.to_client.longest_queue_delay
        video, sound = qualities[0].seen(), qualities[0].heard()
        note(
            f"400 kb/s: a lower layer after {down:.1f} s, {describe(video)}, "
            f"widths {[width for _, width in video.sizes]}, "
            f"{sound.concealed:.1%} of the sound made up, "
            f"{1000 * queue:.0f} ms in the queue at most"
        )
        told = narrow.call("layerChanges", consumer)
        assert told[-1]["spatialLayer"] < 2
        assert video.width < WIDTHS[-1]
        assert video.longest_gap <= 1.5
        assert sound.concealed < 0.1
        assert queue < 0.25

        qualities[0].begin_anew()
        relay.to_client.settings = WIDE
        up = wait_top_layer(qualities[0], 15)
        video = qualities[0].seen()
        note(f"no limit again: the highest layer after {up:.1f} s, {describe(video)}")
        assert video.longest_gap <= 1.5

        other, sound = qualities[1].seen(), qualities[1].heard()
        note(f"the viewer beside it: {describe(other)}, {sound.concealed:.1%} of the sound made up")
        assert [width for _, width in other.sizes] == [WIDTHS[-1]]
        assert other.longest_gap <= 0.5
        assert sound.concealed < 0.1
        for user in (sender, narrow, clean):
            user.call("close")
