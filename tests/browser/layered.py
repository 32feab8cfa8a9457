"""Senders of several layers for the browser tests, and what the server says of them."""

from typing import Any, Final

from tests.browser.quality import Quality
from tests.browser.users import User

__all__ = ["RATE", "WIDTHS", "keyframe_requests", "send_layers", "wait_top_layer"]

#: Chromium drops layers of smaller pictures: VP8's and H.264's below 960x540, AV1's where one were narrower than 256.
PICTURE: Final[dict[str, Any]] = {"capture": "canvas", "width": 1024, "height": 576, "frameRate": 16, "detail": 0.02}
#: Of SVC. libwebrtc gives a spatial layer 50 kbit/s and 1.6 bit/s a pixel at most: with much more detail its encoders
#: have to leave the highest layer out of pictures. With that of above AV1's did so in every sixth.
SVC_DETAIL: Final = 0.005
WIDTHS: Final = (256, 512, 1024)
RATE: Final = 16


def send_layers(sender: User, codec: str, layers: int, mode: str | None, **picture: Any) -> str:
    """Produce simulcast of ``layers`` encodings, or one with the layers of ``mode``; returns the producer's id."""
    options = {"kind": "video", "codec": codec, "layers": layers, "startBitrate": 1500, "steady": True}
    options |= PICTURE
    if layers == 1:
        options["detail"] = SVC_DETAIL
    options |= picture
    if mode is not None:
        options["scalabilityMode"] = mode
    producer: str = sender.call("produce", options)["id"]
    return producer


def wait_top_layer(quality: Quality, seconds: float = 30) -> float:
    """Wait until the sender's bandwidth estimate lets it send everything, and the viewer gets it."""
    return quality.wait_width(lambda width: width == WIDTHS[-1], seconds)


def keyframe_requests(sender: User, producer_id: str) -> int:
    """How often the server has asked the producer for a keyframe, all its streams together."""
    entries = sender.call("request", "getStats", {"producerId": producer_id})["stats"]
    counts = [each["pliCount"] for each in entries if "pliCount" in each]
    assert counts, "the server tells no pliCount"
    return int(sum(counts))
