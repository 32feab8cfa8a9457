"""Does this RTP payload begin (or contain the beginning of) a keyframe? Read from the payload's first bytes.

Called for each incoming video packet, so: plain functions on the payload, chosen once a producer by
``keyframe_test``. None of them raises; a payload too short to tell is not a keyframe.
"""

from __future__ import annotations

from collections.abc import Callable

KeyframeTest = Callable[[memoryview | bytes], bool]


def keyframe_test(mime_type: str) -> KeyframeTest | None:
    """The test for a codec's payloads, or None for a codec without keyframes (audio) or not known here.

    ``mime_type``: as in RTP parameters, in any case: ``video/VP8``. The test takes the RTP payload without
    padding.
    """
    return _TESTS.get(mime_type.lower())


def _vp8(payload: memoryview | bytes) -> bool:
    """RFC 7741, sections 4.2 and 4.3: begins partition 0 (S=1, PID=0) of a frame whose P bit is 0."""
    size = len(payload)
    if size < 2:
        return False
    first = payload[0]
    if first & 0x17 != 0x10:
        return False
    at = 1
    if first & 0x80:  # X
        extension = payload[1]
        at = 2
        if extension & 0x80:  # I: the picture id, two bytes where its M bit is set
            if size < 3:
                return False
            at = 4 if payload[2] & 0x80 else 3
        if extension & 0x40:  # L
            at += 1
        if extension & 0x30:  # T or K
            at += 1
    return size > at and not payload[at] & 0x01


def _vp9(payload: memoryview | bytes) -> bool:
    """RFC 9628, section 4.2: begins a frame (B=1) not inter-picture predicted (P=0), in the base layer.

    ``|I|P|L|F|B|E|V|Z|``, then the picture id (one or two bytes) where I, then
    ``| TID |U| SID |D|`` where L.
    """
    size = len(payload)
    if size < 2:
        return False
    first = payload[0]
    if first & 0x48 != 0x08:
        return False
    if not first & 0x20:
        return True
    at = 1
    if first & 0x80:
        at = 3 if payload[1] & 0x80 else 2
    return size > at and not payload[at] & 0x0E


def _h264(payload: memoryview | bytes) -> bool:
    """RFC 6184, sections 5.6 to 5.8: an IDR slice (5) or an SPS (7), alone, in a STAP-A or as FU-A."""
    size = len(payload)
    if size < 2:
        return False
    kind = payload[0] & 0x1F
    if kind == 28:  # FU-A; the S bit and the type are in the FU header
        fragment = payload[1]
        return fragment & 0x9F in (0x85, 0x87)
    if kind == 24:  # STAP-A: (16-bit size, NAL unit) …
        at = 1
        while at + 2 < size:
            if payload[at + 2] & 0x1F in (5, 7):
                return True
            at += 2 + (payload[at] << 8 | payload[at + 1])
        return False
    return kind in (5, 7)


def _av1(payload: memoryview | bytes) -> bool:
    """AV1 RTP specification, section 4.4: N, the first packet of a coded video sequence; Z must be 0 with it.

    ``|Z|Y|W W|N|-|-|-|``
    """
    return len(payload) > 1 and payload[0] & 0x88 == 0x08


_TESTS: dict[str, KeyframeTest] = {
    "video/vp8": _vp8,
    "video/vp9": _vp9,
    "video/h264": _h264,
    "video/av1": _av1,
}
