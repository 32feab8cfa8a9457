"""Pictures made without an encoder, for a decoder that must never be left waiting: the last one again, or a card.

For whoever keeps a video stream to FFmpeg going while its participant sends nothing (the feeds of ``hls``).
A *repeat* is one frame that shows the last picture again and leaves the decoder's references, probabilities and
numbering as they are, so that the participant's next frame decodes as if it had not been there. A *card* is a small
dark keyframe of its own. :func:`make_plain` says how the participant's own payloads must go to FFmpeg for that.
"""

from collections.abc import Callable
from typing import Protocol

from trio_sfu.media.stills.av1 import Av1Repeater
from trio_sfu.media.stills.cards import CARDS
from trio_sfu.media.stills.descriptors import plain_vp8, plain_vp9
from trio_sfu.media.stills.h264 import H264Repeater
from trio_sfu.media.stills.vp8 import Vp8Repeater
from trio_sfu.media.stills.vp9 import Vp9Repeater

__all__ = ["Repeater", "card", "make_plain", "make_repeater"]


class Repeater(Protocol):
    """Watches one video stream on its way to a decoder, and can show its last picture again."""

    def observe(self, payload: bytes, *, marker: bool, first: bool) -> None:
        """Told of every RTP payload that goes to the decoder, in order, payload descriptor included.

        ``marker``: the RTP marker bit; ``first``: the payload begins a frame. Never raises, whatever the bytes.
        """

    def repeat(self) -> list[bytes] | None:
        """The RTP payloads of one frame; the last one's packet carries the marker. To be sent between two frames.

        What it shows is the last picture that went into a reference slot, which is the last one shown unless that
        was of a temporal layer nobody refers to. None where no repeat can be made: no keyframe was seen, or the
        stream has something that this package does not do (spatial layers, interlacing, …).
        """

    def forget(self) -> None:
        """The decoder's state is another now: nothing is known until a keyframe has been observed."""


def make_repeater(mime_type: str) -> Repeater | None:
    """A repeater for one stream of VP8, VP9, H264 (packetization-mode 1) or AV1; None for another codec.

    ``mime_type``: as in RTP parameters, in any case: ``video/VP8``.
    """
    make = _REPEATERS.get(mime_type.lower())
    return None if make is None else make()


def make_plain(mime_type: str) -> Callable[[bytes], bytes]:
    """The function that turns a payload into what FFmpeg's depacketizer of that codec reads rightly.

    It leaves out the optional fields of VP8's and VP9's payload descriptors; see
    :mod:`trio_sfu.media.stills.descriptors` for the reasons. It never raises. A repeater may observe payloads before
    or after.
    """
    return _PLAIN.get(mime_type.lower(), _unchanged)


def card(mime_type: str) -> list[bytes]:
    """The RTP payloads of one keyframe, 128 x 72, dark grey. Raises :class:`KeyError` for an unknown codec."""
    return [CARDS[mime_type.lower()]]


def _unchanged(payload: bytes) -> bytes:
    return payload


_REPEATERS: dict[str, Callable[[], Repeater]] = {
    "video/vp8": Vp8Repeater,
    "video/vp9": Vp9Repeater,
    "video/h264": H264Repeater,
    "video/av1": Av1Repeater,
}
_PLAIN: dict[str, Callable[[bytes], bytes]] = {"video/vp8": plain_vp8, "video/vp9": plain_vp9}
