"""One participant's video on its way to FFmpeg: whole frames, and pictures of ours where there are none."""

from collections.abc import Sequence
from typing import Final

from trio_sfu.hls.clocks import ClockOffset
from trio_sfu.hls.feed_base import START_LAG, Feed
from trio_sfu.hls.frames import Frame, FrameAssembler, Incoming
from trio_sfu.hls.reorder import Reorder
from trio_sfu.hls.timeline import Timeline
from trio_sfu.media.stills import Repeater, make_plain

__all__ = ["VideoFeed"]

_RATE: Final = 90_000  # of all video
# As long as a repair by NACK and RTX may take.
_REORDER_SECONDS: Final = 0.2
_MOST_HELD: Final = 1024
_MOST_OCTETS: Final = 2_000_000
_MOST_FRAME_PACKETS: Final = 2048
_MOST_FRAME_OCTETS: Final = 2_000_000
_FILL_INTERVAL: Final = 0.1
_FILL_LAG: Final = 0.15
# However old a frame is, the timeline has to go on.
_MOST_LAG: Final = 0.4
# Frames cannot all have their least distance for long, or the stream would run ahead.
_MOST_LEAD: Final = 0.5
_LEAST_STEP: Final = _RATE // 1000


class VideoFeed(Feed):
    """Passes on frames that are whole and whose predecessors all were passed on; after a hole, from a keyframe on.

    Where the participant has sent no frame for ``fill_after`` seconds, the last picture is shown again ten times a
    second, by ``repeater``; where that cannot be, or after ``card_after`` seconds, or while paused, ``card`` is shown
    (RTP payloads of a keyframe), and then nothing until a keyframe.

    Drop policy: packets are held for 0.2 s, at most 1024 of them, and a frame of more than 2 MB or 2048 packets, or
    one too many in too short a time, counts as a hole.
    """

    def __init__(
        self,
        timeline: Timeline,
        clock: ClockOffset,
        *,
        mime_type: str,
        payload_type: int,
        ssrc: int,
        repeater: Repeater | None,
        card: Sequence[bytes],
        fill_after: float = 0.25,
        card_after: float = 5.0,
    ) -> None:
        """Raises ValueError for a ``mime_type`` that is not known (:mod:`trio_sfu.wire.keyframe`)."""
        super().__init__(
            timeline,
            clock,
            Reorder(_REORDER_SECONDS, _MOST_HELD, _MOST_OCTETS),
            payload_type=payload_type,
            ssrc=ssrc,
            clock_rate=_RATE,
        )
        # Given
        self._repeater: Final = repeater
        self._card: Final = card
        self._fill_after: Final = fill_after
        self._card_after: Final = card_after
        # Owned
        self.forwarded_keyframe = False
        """Whether FFmpeg has been sent a keyframe of the participant's own."""
        self._plain: Final = make_plain(mime_type)
        self._frames: Final = FrameAssembler(mime_type)
        self._waiting = True  # for a keyframe
        self._shows_card = True
        self._silent = False  # for so long that it is worth asking whether the participant is still there
        self._framed_at = float("-inf")
        self._sent_at = float("-inf")
        self._last = 0  # position of the last frame sent
        self._last_timestamp: int | None = None  # of the participant, where the last frame sent is his

    @property
    def wants_keyframe(self) -> bool:
        """Whether the producer should be asked for a keyframe.

        Also when nothing has come for half of ``card_after``: a still screen may have nothing to send, and answers; a
        card would hide it.
        """
        return not self.paused and (self._waiting or self._silent)

    def _begin(self, now: float) -> None:
        # A keyframe mostly comes before it is time for a card: a new run need not begin in the dark.
        self._last = self._timeline.ticks(now - START_LAG, _RATE) - _LEAST_STEP
        self._framed_at = now
        if self.paused:
            self._show_card(now)

    def _interrupt(self, now: float) -> None:
        self._lose()
        self._framed_at = float("-inf")
        if self._started:
            self._show_card(now)

    # -- the participant's frames ---

    def _lose(self) -> None:
        for frame in self._frames.lose():
            self.counters.dropped += len(frame.payloads)
        self._waiting = True

    def _take(self, packet: Incoming, now: float) -> None:
        frames = self._frames
        for frame in frames.add(packet):
            self._pass_on(frame, now)
        if len(frames) > _MOST_FRAME_PACKETS or frames.octets > _MOST_FRAME_OCTETS:
            self.counters.holes += 1
            self._lose()

    def _pass_on(self, frame: Frame, now: float) -> None:
        position = self._place(frame, now)
        ahead = position - self._timeline.ticks(now, _RATE)
        if (
            not frame.whole
            or (self._waiting and not frame.keyframe)
            or ahead > (_MOST_LEAD + self._clock.delay) * _RATE
        ):
            self._waiting = True
            self.counters.dropped += len(frame.payloads)
            return
        self._show([self._plain(payload) for payload in frame.payloads], position, now)
        self._last_timestamp = frame.timestamp
        self._framed_at = now
        self._waiting = self._shows_card = self._silent = False
        self.forwarded_keyframe = self.forwarded_keyframe or frame.keyframe
        self.counters.frames += 1

    def _place(self, frame: Frame, now: float) -> int:
        """The position of a frame. Another part of the frame before, each with a marker, has that one's."""
        if frame.timestamp == self._last_timestamp:
            return self._last
        time = max(self._stream.time(frame.timestamp, now), now - _MOST_LAG)
        return max(self._timeline.ticks(time, _RATE), self._last + _LEAST_STEP)

    def _show(self, payloads: Sequence[bytes], position: int, now: float) -> None:
        if self._repeater is not None:
            last = len(payloads) - 1
            for index, payload in enumerate(payloads):
                self._repeater.observe(payload, marker=index == last, first=index == 0)
        self._send(payloads, position)
        self._last = position
        self._last_timestamp = None
        self._sent_at = now

    # -- ours ---

    def _fill(self, now: float) -> None:
        idle = now - self._framed_at
        self._silent = idle >= self._card_after / 2
        if idle < self._fill_after or now - self._sent_at < _FILL_INTERVAL:
            return
        payloads = None
        if self._repeater is not None and not self._shows_card and idle < self._card_after:
            payloads = self._repeater.repeat()
        if payloads is None:
            self._show_card(now)
        else:
            self._show(payloads, self._now_position(now), now)
            self.counters.repeats += 1

    def _show_card(self, now: float) -> None:
        self._show(self._card, self._now_position(now), now)
        if self._repeater is not None:
            self._repeater.forget()
        self._waiting = self._shows_card = True
        self.counters.cards += 1

    def _now_position(self, now: float) -> int:
        return max(self._timeline.ticks(now - _FILL_LAG, _RATE), self._last + _LEAST_STEP)
