"""Calls from networks that let no UDP through: media by ICE-TCP."""

import socket
import time
from typing import Any

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.figures import note
from tests.browser.users import User, connect
from tests.support.server import Server


def protocols(user: User) -> list[tuple[str, int]]:
    """By which protocol and port of the server each of the user's transports goes, as the server sees it."""
    stats = user.call("request", "getStats")["stats"]
    found = [each["iceSelectedTuple"] for each in stats if each["type"] == "webrtc-transport"]
    return [(each["protocol"], each["localPort"]) for each in found]


@pytest.mark.parametrize("how", ["no UDP candidates", "UDP goes nowhere"])
def test_call_without_udp(open_page: OpenPage, server: Server, how: str) -> None:
    """Two users who send and receive audio and video by TCP; a third by UDP sees and hears them, and they him."""
    (udp_port,) = server.media_ports
    before = server.metrics()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nowhere:
        nowhere.bind(("127.0.0.1", 0))
        users = [connect(open_page()) for _ in range(3)]
        room = None
        for user in users[:2]:
            if how == "UDP goes nowhere":
                user.call("mapCandidatePort", udp_port, nowhere.getsockname()[1])
            else:
                user.call("useProtocols", ["tcp"])
        for user in users:
            room = user.join(room)
        for user in users:
            consumed = user.call("consumeAll", {"timeoutMs": 20_000})
            assert sorted(each["kind"] for each in consumed) == ["audio", "audio", "video", "video"]
            note(f"{how}: first frames {[round(each['timing']['firstMs'] or 0) for each in consumed]} ms")
        for user in users:
            user.call("waitDecoding", {"frames": 15})
        for user in users[:2]:
            by_tcp = protocols(user)
            assert [protocol for protocol, _ in by_tcp] == ["tcp", "tcp"]
            assert udp_port not in [port for _, port in by_tcp]
        assert protocols(users[2]) == [("udp", udp_port)] * 2
    figures = server.metrics()
    assert figures["trio_sfu_media_tcp_connections"] == 4
    assert figures["trio_sfu_media_tcp_sent_packets_total"] > before["trio_sfu_media_tcp_sent_packets_total"] + 100
    dropped = {name: figures[name] - before[name] for name in figures if "media_tcp_sent_drops" in name}
    assert set(dropped.values()) == {0.0}, dropped
    for user in users:
        user.call("close")
    server.wait_gauge("media_tcp_connections", 0)


def test_udp_is_preferred(open_page: OpenPage, server: Server) -> None:
    """Where both get through, no media goes by TCP, whatever connections are tried."""
    (udp_port,) = server.media_ports
    users = [connect(open_page()) for _ in range(2)]
    room = None
    for user in users:
        room = user.join(room)
    for user in users:
        user.call("consumeAll")
    for user in users:
        user.call("waitDecoding", {"frames": 15})
        assert protocols(user) == [("udp", udp_port)] * 2
    for user in users:
        user.call("close")


def wait_for(viewer: User, figure: str, least: int) -> None:
    """Wait until that figure of the one thing it sees is so much."""
    deadline = time.monotonic() + 15
    while (viewer.call("stats")["consumers"][0][figure] or 0) < least:
        assert time.monotonic() < deadline, f"{figure} stays below {least}"
        viewer.page.wait_for_timeout(50)


@pytest.mark.timeout(120)
def test_large_keyframes_by_tcp(open_page: OpenPage, server: Server) -> None:
    """720p both ways by TCP: keyframes, asked for again and again, are decoded whole."""
    sender, viewer = (connect(open_page()) for _ in range(2))
    for user in (sender, viewer):
        user.call("useProtocols", ["tcp"])
    room = sender.call("create")
    sender.call("loadDevice")
    viewer.join(room, audio=False, video=None)
    options: dict[str, Any] = {
        "width": 1280,
        "height": 720,
        "frameRate": 30,
        "maxBitrate": 2_500_000,
        "keepResolution": True,
    }
    producer = sender.call(
        "produce", {"kind": "video", "codec": "VP8", "capture": "canvas", "startBitrate": 2000, **options}
    )
    (consumed,) = viewer.call("consumeAll")
    wait_for(viewer, "frameWidth", 1280)
    before = viewer.call("stats")["consumers"][0]["keyFramesDecoded"]
    for wanted in range(1, 4):
        viewer.call("request", "requestKeyFrame", {"consumerId": consumed["id"]})
        wait_for(viewer, "keyFramesDecoded", before + wanted)
    video = viewer.call("waitDecoding", {"frames": 30})["consumers"][0]
    sent = sender.call("stats")["producers"][0]["streams"][0]
    size = f"{video['frameWidth']}x{video['frameHeight']}"
    note(
        f"{size} by TCP: {video['framesDecoded']} frames, {video['keyFramesDecoded']} keyframes, "
        f"{video['bytesReceived'] >> 10} KiB, {video['packetsLost']} lost, {sent['qualityLimitationReason']}"
    )
    assert producer["codec"] == "video/VP8"
    assert size == "1280x720"
    assert video["packetsLost"] == 0
    assert [protocol for protocol, _ in protocols(viewer)] == ["tcp"]
    for user in (sender, viewer):
        user.call("close")
