"""Video frames out of packets in order. Owned by a video feed."""

from typing import Final, NamedTuple

from trio_sfu.wire.keyframe import keyframe_test

__all__ = ["Frame", "FrameAssembler", "Incoming"]

# H.264's packets by the type in their first byte (RFC 6184, section 5.2).
_H264_BEGINNINGS: Final = (7, 24)  # SPS; a STAP-A of parameter sets
_H264_BEFORE_SLICES: Final = (6, 7, 8, 9, 24)  # SEI, PPS, access unit delimiter as well


class Incoming(NamedTuple):
    """One packet of a participant."""

    timestamp: int
    marker: bool
    payload: bytes


class Frame(NamedTuple):
    """All packets' payloads with one timestamp, or of one marked part of it where a sender marks several."""

    timestamp: int
    payloads: list[bytes]
    keyframe: bool
    whole: bool
    """Whether nothing of it is missing."""


class FrameAssembler:
    """Puts packets together. ``mime_type`` is one that :func:`trio_sfu.wire.keyframe.keyframe_test` knows.

    A frame ends with the marker. One without a marker ends where the next timestamp begins, and is whole as well, but
    not before a keyframe: there the consumer may have gone over from another stream in the middle of a frame.
    A keyframe of H.264 is one with its parameter sets: without them it may be none for the decoder.
    """

    __slots__ = ("_begun", "_h264", "_keyframe", "_payloads", "_test", "_timestamp", "_whole", "octets")

    def __init__(self, mime_type: str) -> None:
        """Raises ValueError for a ``mime_type`` that is not known."""
        test = keyframe_test(mime_type)
        if test is None:
            raise ValueError(f"no video whose keyframes are known: {mime_type}")
        # Derived
        self._test: Final = test
        self._h264: Final = mime_type.lower() == "video/h264"
        # Owned
        self.octets = 0
        """The size of the frame that has begun."""
        self._begun = False  # whether what comes next begins a frame for sure
        self._whole = False
        self._keyframe = False
        self._timestamp = 0
        self._payloads: list[bytes] = []

    def __len__(self) -> int:
        return len(self._payloads)

    def lose(self) -> list[Frame]:
        """There is a hole here: the next frame may lack its beginning. Returns what had begun, which is not whole."""
        self._whole = False
        frames = self._end()
        self._begun = False
        return frames

    def add(self, packet: Incoming) -> list[Frame]:
        """The next packet; returns the frames that it ends: none, its own, the one before, or both."""
        if not packet.payload:
            return []  # padding
        frames: list[Frame] = []
        keyframe = self._begins_keyframe(packet.payload)
        if self._payloads and packet.timestamp != self._timestamp:
            if keyframe and not self._is_preface():
                self._whole = False
            frames += self._end()
        if not self._payloads:
            self._whole = self._begun or keyframe
            self._timestamp = packet.timestamp
            self._keyframe = False
        self._keyframe = self._keyframe or keyframe
        self._payloads.append(packet.payload)
        self.octets += len(packet.payload)
        if packet.marker:
            frames += self._end()
        return frames

    def _begins_keyframe(self, payload: bytes) -> bool:
        """Whether this is the first packet of a keyframe. In H.264 every slice of one looks alike."""
        return self._test(payload) and (not self._h264 or payload[0] & 0x1F in _H264_BEGINNINGS)

    def _is_preface(self) -> bool:
        """Whether what has begun are parameter sets with a timestamp of their own, before their keyframe."""
        return self._h264 and all(payload[0] & 0x1F in _H264_BEFORE_SLICES for payload in self._payloads)

    def _end(self) -> list[Frame]:
        payloads, self._payloads, self.octets, self._begun = self._payloads, [], 0, True
        return [Frame(self._timestamp, payloads, self._keyframe, self._whole)] if payloads else []
