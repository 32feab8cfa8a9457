"""Viewers who change the layer that they want, over and over: simulcast and SVC, of every codec that has them."""

import random
from typing import Any

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.figures import note
from tests.browser.layered import RATE, WIDTHS, keyframe_requests, send_layers, wait_top_layer
from tests.browser.quality import Quality, describe
from tests.browser.users import User, connect

# A hundred of one codec; thirty show of the others whether they can be switched at all.
SWITCHES = {"VP8": 100}
LAYERS = [
    ("VP8", 3, "L1T3"),
    ("H264", 3, "L1T2"),
    ("VP9", 1, "L3T3_KEY"),
    ("VP9", 1, "L3T3"),
    ("AV1", 1, "L3T3_KEY"),
]


def one_sees_layers(
    open_page: OpenPage, codec: str, layers: int, mode: str, **picture: Any
) -> tuple[User, User, str, Quality]:
    """A sender of all the layers, a viewer who gets the highest; the producer, and how well the viewer is served."""
    sender, viewer = (connect(open_page()) for _ in range(2))
    room = sender.join(video=None, audio=False)
    if not sender.call("encodes", codec, mode):
        pytest.skip(f"this Chromium does not encode {codec} with {mode}")
    producer = send_layers(sender, codec, layers, mode, **picture)
    viewer.join(room, audio=False, video=None)
    viewer.call("consumeAll", {"timeoutMs": 20_000})
    viewer.call("waitDecoding", {"timeoutMs": 20_000})
    quality = Quality(viewer)
    wait_top_layer(quality)
    return sender, viewer, producer, quality


def temporal_layers(mode: str) -> int:
    return int(mode[3])


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("codec", "layers", "mode"), LAYERS)
def test_switches_at_random(open_page: OpenPage, codec: str, layers: int, mode: str) -> None:
    """Nothing breaks: no decoder asks for a keyframe, nothing stands still, and no switch costs more than one PLI."""
    sender, viewer, producer, quality = one_sees_layers(open_page, codec, layers, mode)
    quality.begin_anew()
    (consumer,) = [each["id"] for each in viewer.call("consumed")]
    decoder = quality.seen().decoder
    requests = keyframe_requests(sender, producer)
    rng = random.Random(f"{codec} {mode}")
    spatial = 2
    switches = 0
    count = SWITCHES.get(codec, 30)
    for _ in range(count):
        wanted = {"spatialLayer": rng.randrange(3), "temporalLayer": rng.randrange(temporal_layers(mode))}
        assert viewer.call("setPreferredLayers", consumer, wanted) == wanted
        switches += wanted["spatialLayer"] != spatial
        spatial = wanted["spatialLayer"]
        viewer.page.wait_for_timeout(300)
    video = quality.seen()
    requests = keyframe_requests(sender, producer) - requests
    note(
        f"{count} switches of {codec} {mode}: {describe(video)}, {requests} requests to the sender, "
        f"{video.dropped} dropped, {len(video.sizes)} changes of size"
    )
    assert len(viewer.call("layerChanges", consumer)) > 10
    assert {width for _, width in video.sizes} == set(WIDTHS)
    assert video.plis == 0
    assert video.decoder == decoder
    assert video.dropped <= 0.05 * video.frames
    # The old layer goes on until the new one's keyframe is there, so there is no wait to be seen.
    assert video.longest_gap <= 0.5
    assert requests <= switches
    for user in (sender, viewer):
        user.call("close")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("codec", "layers", "mode"), [LAYERS[0], LAYERS[2], LAYERS[4]])
def test_size_and_rate_are_those_of_the_layer(open_page: OpenPage, codec: str, layers: int, mode: str) -> None:
    """Each pair of layers, held for a while, in an order that goes up and down in both; others are not affected."""
    sender, viewer, producer, quality = one_sees_layers(open_page, codec, layers, mode)
    del producer
    (consumer,) = [each["id"] for each in viewer.call("consumed")]
    highest = temporal_layers(mode) - 1
    wanted: list[tuple[int, int]] = [(2, 0), (0, highest), (0, 0), (1, highest), (2, 1), (2, highest)]
    for spatial, temporal in wanted:
        layer: dict[str, Any] = {"spatialLayer": spatial, "temporalLayer": temporal}
        assert viewer.call("setPreferredLayers", consumer, layer) == layer
        quality.wait_width(lambda width, spatial=spatial: width == WIDTHS[spatial], 5)  # type: ignore[misc]
        viewer.page.wait_for_timeout(400)
        quality.begin_anew()
        viewer.page.wait_for_timeout(1500)
        video = quality.seen()
        # Each temporal layer doubles the rate.
        expected = RATE / 2 ** (highest - temporal)
        note(f"{codec} {mode}, layer {spatial} {temporal}: {video.width} wide, {video.rate:.1f} of {expected:.0f} fps")
        assert {width for _, width in video.sizes} == {WIDTHS[spatial]}
        assert 0.6 * expected <= video.rate <= 1.4 * expected
        assert video.plis == 0
    told = viewer.call("layerChanges", consumer)[-1]
    assert (told["spatialLayer"], told["temporalLayer"]) == (2, highest)
    for user in (sender, viewer):
        user.call("close")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("codec", "layers", "mode"), [LAYERS[2], LAYERS[4]])
def test_an_encoder_that_leaves_layers_out_costs_no_picture(
    open_page: OpenPage, codec: str, layers: int, mode: str
) -> None:
    """It has not got the bits for so much detail. What it sends is shown, if smaller; nobody asks for a keyframe."""
    sender, viewer, _, quality = one_sees_layers(open_page, codec, layers, mode, detail=0.1)
    quality.begin_anew()
    viewer.page.wait_for_timeout(8000)
    video = quality.seen()
    note(f"{codec} {mode}, too much detail: {describe(video)}, {video.dropped} dropped, {len(video.sizes)} sizes")
    assert {width for _, width in video.sizes} > {WIDTHS[-1]}, "nothing has been left out"
    assert video.plis == 0
    assert video.dropped <= 0.05 * video.frames
    assert 0.6 * RATE <= video.rate <= 1.4 * RATE
    for user in (sender, viewer):
        user.call("close")
