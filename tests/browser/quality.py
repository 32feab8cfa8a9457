"""How well a user is served from some moment on: what he sees and hears of each of his consumers."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.browser.users import User

__all__ = ["Heard", "Quality", "Seen", "describe"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A video consumer. Counters are of the time watched, by getStats; gaps are by the track's own frames."""

    consumer_id: str
    producer_id: str
    seconds: float
    frames: int
    """Decoded."""
    dropped: int
    keyframes: int
    width: int
    """Of the last frame; 0 where none was seen."""
    freezes: int
    frozen: float
    """Seconds."""
    longest_gap: float
    """Seconds between two frames; the last of them may not have come yet."""
    gaps: tuple[tuple[float, float], ...]
    """Those of 0.15 s or more: when each ended (seconds of the page's clock), and how long it was."""
    sizes: tuple[tuple[float, int], ...]
    """Widths: when each was first seen."""
    plis: int
    nacks: int
    retransmissions: int
    jitter_buffer: float
    """Mean seconds that a frame waited there."""
    decoder: str

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds


@dataclass(frozen=True, slots=True)
class Heard:
    """An audio consumer."""

    consumer_id: str
    producer_id: str
    seconds: float
    concealed: float
    """The share of what was played that was made up, silence not counted: 0 to 1."""
    concealments: int
    nacks: int
    jitter_buffer: float


class Quality:
    """Measures ``user``, all of whose consumers exist, from now on; :meth:`begin_anew` forgets what was."""

    def __init__(self, user: User) -> None:
        self._user: Final = user
        self._before: dict[str, Any] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        self._user.call("watchFrames")
        self._before = self._user.call("stats")

    def take(self) -> tuple[list[Seen], list[Heard]]:
        """What has been so far."""
        now = self._user.call("stats")
        watched = self._user.call("watched")
        seconds = (now["nowMs"] - self._before["nowMs"]) / 1000
        earlier = {each["id"]: each for each in self._before["consumers"]}
        pairs = [(each, earlier[each["id"]]) for each in now["consumers"]]
        seen = [
            _seen(after, before, watched[after["id"]], seconds) for after, before in pairs if after["kind"] == "video"
        ]
        return seen, [_heard(after, before, seconds) for after, before in pairs if after["kind"] == "audio"]

    def seen(self) -> Seen:
        """Of the only video."""
        (video,) = self.take()[0]
        return video

    def wait_width(self, wanted: Callable[[int], bool], seconds: float) -> float:
        """Wait until the only video's frames are as wide as ``wanted`` says; returns the seconds that it took."""
        begin = time.monotonic()
        while not wanted((video := self.seen()).width):
            took = time.monotonic() - begin
            assert took < seconds, f"still {video.width} pixels wide after {took:.1f} s; widths: {video.sizes}"
            self._user.page.wait_for_timeout(50)
        return time.monotonic() - begin

    def wait_seconds(self, seconds: float) -> None:
        """Let the user go on for so long."""
        self._user.page.wait_for_timeout(1000 * seconds)

    def heard(self) -> Heard:
        """Of the only audio."""
        (audio,) = self.take()[1]
        return audio


def describe(video: Seen) -> str:
    """For the figures at the end."""
    return (
        f"{video.frames} frames in {video.seconds:.1f} s, {video.freezes} freezes, "
        f"longest gap {video.longest_gap:.2f} s, {video.nacks} NACKs, "
        f"{video.retransmissions} retransmissions, {video.plis} PLIs"
    )


def _seen(after: dict[str, Any], before: dict[str, Any], watched: dict[str, Any], seconds: float) -> Seen:
    sizes = tuple((each["atMs"] / 1000, each["width"]) for each in watched["sizes"])
    return Seen(
        consumer_id=after["id"],
        producer_id=after["producerId"],
        seconds=seconds,
        frames=round(_more("framesDecoded", after, before)),
        dropped=round(_more("framesDropped", after, before)),
        keyframes=round(_more("keyFramesDecoded", after, before)),
        width=sizes[-1][1] if sizes else 0,
        freezes=round(_more("freezeCount", after, before)),
        frozen=_more("totalFreezesDuration", after, before),
        longest_gap=watched["longestGapMs"] / 1000,
        gaps=tuple((each["atMs"] / 1000, each["ms"] / 1000) for each in watched["gaps"]),
        sizes=sizes,
        plis=round(_more("pliCount", after, before)),
        nacks=round(_more("nackCount", after, before)),
        retransmissions=round(_more("retransmittedPacketsReceived", after, before)),
        jitter_buffer=_jitter_buffer(after, before),
        decoder=after["decoderImplementation"] or "",
    )


def _heard(after: dict[str, Any], before: dict[str, Any], seconds: float) -> Heard:
    concealed = _more("concealedSamples", after, before) - _more("silentConcealedSamples", after, before)
    return Heard(
        consumer_id=after["id"],
        producer_id=after["producerId"],
        seconds=seconds,
        concealed=concealed / max(1.0, _more("totalSamplesReceived", after, before)),
        concealments=round(_more("concealmentEvents", after, before)),
        nacks=round(_more("nackCount", after, before)),
        jitter_buffer=_jitter_buffer(after, before),
    )


def _more(figure: str, after: dict[str, Any], before: dict[str, Any]) -> float:
    """How much a counter has grown; Chromium leaves some out while they are 0."""
    return float(after[figure] or 0) - float(before[figure] or 0)


def _jitter_buffer(after: dict[str, Any], before: dict[str, Any]) -> float:
    return _more("jitterBufferDelay", after, before) / max(1.0, _more("jitterBufferEmittedCount", after, before))
