"""The sequence numbers, timestamps and picture ids under which a consumer sends what comes under others.

Owned by a :class:`~trio_sfu.media.consumer.Consumer`. Numbers go on without a break whatever the source does: at each
beginning, of another stream or other layers, the offsets change and the next number is the one after the last.
"""

from typing import Final

from trio_sfu.media.frame_mark import FrameIds, shifted
from trio_sfu.media.incoming_stream import IncomingStream
from trio_sfu.media.layer_view import LayerView
from trio_sfu.media.layers import step_at_switch
from trio_sfu.media.packet import Batch, Packet
from trio_sfu.media.retransmitter import Stretch

__all__ = ["OutgoingNumbers"]

_MOST_MISSING: Final = 256  # packets that keep their numbers when a consumer crosses over


class OutgoingNumbers:
    """What is sent is the view's plus the offsets, each modulo its width."""

    __slots__ = (
        "_lag",
        "_last_ids",
        "floor",
        "last",
        "last_timestamp",
        "picture_offset",
        "sequence_offset",
        "timestamp_offset",
        "tl0_offset",
    )

    def __init__(self, first_sequence_number: int) -> None:
        """``first_sequence_number``: 16 bits, of the first packet."""
        self.sequence_offset = 0
        self.timestamp_offset = 0
        self.picture_offset = 0
        self.tl0_offset = 0
        self.last = first_sequence_number + 0xFFFF
        """The last number sent, extended: it does not wrap."""
        self.last_timestamp = 0
        self._lag = 0  # how much of the timestamps' offset is not the clocks' difference
        self._last_ids: FrameIds | None = None
        self.floor: int | None = None
        """The view's number that the last beginning was with, as long as something from before it may still come."""

    def advance(self, batch: Batch) -> None:
        """``batch`` has been sent."""
        newest = batch.newest
        step = newest.sequence_number + self.sequence_offset - self.last & 0xFFFF
        if step < 0x8000:
            self.last += step
            self.last_timestamp = newest.timestamp + self.timestamp_offset & 0xFFFFFFFF
            mark = newest.mark
            if mark is not None and mark.ids is not None:
                self._last_ids = shifted(mark.ids, self.picture_offset, self.tl0_offset)

    def is_past(self, packet: Packet) -> bool:
        """Whether ``packet``, on the same clock, is from before what has gone out last."""
        return self.last_timestamp - packet.timestamp - self.timestamp_offset & 0xFFFFFFFF < 0x80000000

    def keep_missing(self, number: int, picture_id: int | None) -> None:
        """What has not come of the view before its packet ``number`` keeps its numbers, should it still come."""
        missing = number + self.sequence_offset - self.last - 1 & 0xFFFF
        if missing < _MOST_MISSING:
            self.last += missing
            if picture_id is not None and self._last_ids is not None:
                self._last_ids = self._last_ids._replace(picture_id=picture_id + self.picture_offset - 1 & 0x7FFF)

    def begin(self, view: LayerView, number: int, picture_id: int | None) -> Stretch:
        """Let the packet ``number`` of ``view`` be the next one, and the picture of that id, where it is given."""
        self.floor = number
        self.sequence_offset = self.last + 1 - number & 0xFFFF
        if picture_id is not None and self._last_ids is not None:
            self.picture_offset = self._last_ids.picture_id + 1 - picture_id & 0x7FFF
        return Stretch(
            self.last + 1,
            self.sequence_offset,
            self.timestamp_offset,
            self.picture_offset,
            self.tl0_offset,
            view,
        )

    def go_on_with_keyframe(self, ids: FrameIds) -> None:
        """A keyframe with these ids is next: it begins another period of the lowest temporal layer."""
        if self._last_ids is not None:
            self.tl0_offset = self._last_ids.tl0_pic_idx + 1 - ids.tl0_pic_idx & 0xFF

    def go_on_from(self, before: IncomingStream | None, stream: IncomingStream, first: int, elapsed: float) -> None:
        """Find the timestamp offset for another clock, on which ``stream`` begins with the timestamp ``first``.

        Exact by the sender's reports on both streams. The new stream's keyframe may show an earlier moment than what
        went out last; timestamps do not go back, so it lags then, until the next change. Without reports: as much
        later as the time that has passed, ``elapsed`` seconds.
        """
        last = self.last_timestamp
        step = None
        if (
            before is not None
            and before.clock_rate == stream.clock_rate
            and before.sender_report is not None
            and stream.sender_report is not None
        ):
            step = step_at_switch(
                before.sender_report[0],
                stream.sender_report[0],
                last=last - self.timestamp_offset + self._lag,
                first=first,
                clock_rate=stream.clock_rate,
                elapsed=elapsed,
            )
        self._lag = 0 if step is None else max(0, 1 - step)
        if step is None:
            step = round(elapsed * stream.clock_rate)
        self.timestamp_offset = last + max(1, step) - first

    def above_floor(self, batch: Batch) -> Batch | None:
        """``batch`` without packets from before the one that the current stretch began with.

        Their numbers would be those of packets sent before. Late ones are possible for a short while only.
        To be called while there is a :attr:`floor`.
        """
        floor = self.floor
        assert floor is not None
        if 2048 <= batch.newest.sequence_number - floor & 0xFFFF < 0x8000:
            self.floor = None
            return batch
        if batch.count == 1 and batch.newest.sequence_number - floor & 0xFFFF < 0x8000:
            return batch
        kept = [packet for packet in batch.packets if packet.sequence_number - floor & 0xFFFF < 0x8000]
        if len(kept) == len(batch.packets):
            return batch
        return Batch(kept) if kept else None
