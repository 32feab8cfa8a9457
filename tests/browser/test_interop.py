"""Chromium and aiortc in one room: what one sends the other decodes."""

import array
import asyncio
import threading
from itertools import pairwise

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.users import SMALL, connect
from tests.support.aiortc_client import aiortc_user, in_background, run_client
from tests.support.aiortc_tracks import PictureTrack, ToneTrack
from tests.support.server import Server

CODECS = ["VP8", "H264"]

# Width, height, and the mean of red, green and blue.
PICTURE = """() => {
    const video = document.querySelector("video");
    const { videoWidth: width, videoHeight: height } = video;
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(video, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const sums = [0, 0, 0];
    for (let at = 0; at < data.length; at += 4) for (const colour of [0, 1, 2]) sums[colour] += data[at + colour];
    return [width, height, ...sums.map((sum) => sum / (width * height))];
}"""


@pytest.mark.parametrize("codec", CODECS)
def test_aiortc_decodes_what_chromium_sends(open_page: OpenPage, server: Server, codec: str) -> None:
    chromium = connect(open_page())
    room = chromium.join(video=codec)

    async def watch() -> None:
        async with aiortc_user(server.url, room) as viewer:
            producers = await viewer.producers()
            video = await viewer.consume(producers["video"])
            audio = await viewer.consume(producers["audio"])
            pictures = await video.frames(20)
            shapes = {frame.width / frame.height for frame in pictures}
            assert shapes == {SMALL["width"] / SMALL["height"]}  # smaller where Chromium finds itself too slow
            assert all(after.pts > before.pts for before, after in pairwise(pictures))
            sound = b"".join(bytes(frame.planes[0]) for frame in await audio.frames(75))
            assert max(array.array("h", sound)) > 1000, "no beep in 1.5 s"

    run_client(watch)


@pytest.mark.parametrize("codec", CODECS)
def test_chromium_decodes_what_aiortc_sends(open_page: OpenPage, server: Server, codec: str) -> None:
    chromium = connect(open_page())
    room = chromium.join(audio=False, video=None)
    chromium.call("autoConsume", {"timeoutMs": 20_000})
    seen = threading.Event()

    async def send() -> None:
        async with aiortc_user(server.url, room) as sender:
            await sender.produce(PictureTrack(), codec)
            await sender.produce(ToneTrack())
            await asyncio.to_thread(seen.wait, 25)

    with in_background(send) as sending:
        try:
            for kind in ("video", "audio"):
                chromium.call("waitEvent", "newProducer", {"kind": kind})
            consumed = chromium.call("consumed", True)
            assert {each["codec"].lower() for each in consumed} == {"audio/opus", f"video/{codec}".lower()}
            chromium.call("waitDecoding", {"frames": 20, "timeoutMs": 20_000})
            width, height, red, green, blue = chromium.page.evaluate(PICTURE)
        finally:
            seen.set()
    sending.result()
    assert chromium.call("failures") == []
    assert (width, height) == (320, 240)
    assert red > green + 80, (red, green, blue)
    assert green > blue + 10, (red, green, blue)
