"""What has been sent on a transport, by transport-wide sequence number, until feedback accounts for it.

Owned by :class:`~trio_sfu.media.bandwidth.estimator.BandwidthEstimator`. One record stands for a group: everything
that was sent within 5 ms. Feedback is worked through group by group; nothing is stored or computed for a single
packet, unless it was lost.
"""

from collections import deque
from itertools import accumulate
from typing import Final, NamedTuple

from trio_sfu.media.sequence import extend
from trio_sfu.wire.transport_feedback import TICKS_PER_REFERENCE, TICKS_PER_SECOND, TransportFeedback

__all__ = ["FeedbackSummary", "GroupReport", "SentHistory"]

#: What is sent within this time is one group (libwebrtc's InterArrival: kBurstDeltaThreshold).
GROUP_SECONDS: Final = 0.005
_MAX_SECONDS: Final = 10.0
_MAX_GROUPS: Final = 4000
# Feedback on what was sent further than this behind the newest is not waited for: half of the number space.
_MAX_NUMBERS: Final = 0x7000
# A lost feedback message leaves what it would have reported unknown; more than this is an outage.
_MAX_UNKNOWN_SECONDS: Final = 1.0
_MAX_MISSING: Final = 512
_WRAP: Final = 1 << 32  # ticks: 24 bits of reference time


GroupReport = tuple[int, float, float, int, int]
"""The packets of one group that one message reports (a group may be split between two): a plain tuple, for there are
thousands a second.

- the group's number, ascending;
- when its last packet was sent;
- when its last packet that has come arrived, in seconds on the receiver's clock, whose zero is anywhere;
- bytes received: an even share of the group's where some were lost;
- the probe cluster that it belongs to, 0: none.
"""


class FeedbackSummary(NamedTuple):
    """What one feedback message has told. Empty for one that is old, repeated or about nothing that was sent."""

    groups: list[GroupReport]
    size: int
    """Bytes received."""
    received: int
    lost: int
    recovered: int
    """Packets reported lost before, that have come after all."""
    probe_lost: int
    """Bytes lost that belonged to a probe cluster."""
    presumed: int
    """Bytes that no message reported on (feedback was lost), of which the reported share has likely come."""
    first: int
    last: int
    """Extended transport-wide numbers that are accounted for now: ``first`` … ``last``."""
    round_trip: float | None
    """From sending the last packet received to this message, which includes the receiver's wait before it."""


_EMPTY: Final = FeedbackSummary([], 0, 0, 0, 0, 0, 0, 0, -1, None)


class _Group:
    """Packets ``first`` … ``end - 1``, ``size`` bytes in all."""

    __slots__ = ("began", "end", "first", "number", "probe", "sent", "size")

    def __init__(self, number: int, first: int, end: int, size: int, now: float, probe: int) -> None:
        self.number = number
        self.first = first
        self.end = end
        self.size = size
        self.began = now
        self.sent = now
        self.probe = probe


class SentHistory:
    """Bounded to 10 s, 4000 groups and 28,672 packets: the oldest are forgotten, feedback on them is ignored."""

    __slots__ = (
        "_frontier",
        "_groups",
        "_missing",
        "_newest",
        "_next",
        "_next_group",
        "_reference",
        "bytes_sent",
        "probe",
    )

    def __init__(self) -> None:
        self._groups: deque[_Group] = deque()
        self._newest: _Group | None = None
        self._next = 0  # extended: one more than the last number sent
        self._next_group = 1
        self._frontier = 0  # everything before it is accounted for
        self._reference: int | None = None  # the last reference time, extended, in ticks
        self._missing: dict[int, None] = {}
        self.bytes_sent = 0
        """All that was ever sent."""
        self.probe = 0
        """The probe cluster that everything sent from now on belongs to; 0: none."""

    def __len__(self) -> int:
        """How many groups wait for feedback."""
        return len(self._groups)

    @property
    def waiting_since(self) -> float | None:
        """When the oldest group that has not been accounted for was sent."""
        return self._groups[0].began if self._groups else None

    def on_sent(self, first: int, size: int, count: int, now: float) -> None:
        """``count`` packets of ``size`` bytes in all have left, numbered from ``first`` (16 bits) on."""
        self.bytes_sent += size
        start = self._next
        if self._next_group == 1:
            start = self._frontier = 0x10000 + first  # room for a base before it
        elif first != start & 0xFFFF:
            start += first - start & 0xFFFF  # numbers were left out: nobody has sent them
            self._newest = None
        self._next = end = start + count
        group = self._newest
        if group is not None and now - group.began <= GROUP_SECONDS and group.probe == self.probe:
            group.end = end
            group.size += size
            group.sent = now
            return
        groups = self._groups
        self._newest = group = _Group(self._next_group, start, end, size, now, self.probe)
        self._next_group += 1
        groups.append(group)
        oldest = groups[0]
        while (
            now - oldest.began > _MAX_SECONDS or len(groups) > _MAX_GROUPS or end - oldest.first > _MAX_NUMBERS
        ) and len(groups) > 1:
            self._frontier = max(self._frontier, oldest.end)
            groups.popleft()
            oldest = groups[0]

    def on_feedback(self, feedback: TransportFeedback, now: float) -> FeedbackSummary:
        """Account for what ``feedback`` reports. Whatever it says, nothing is raised."""
        deltas: tuple[int | None, ...] = feedback.deltas
        if not deltas or self._next_group == 1:
            return _EMPTY
        base = extend(self._frontier, feedback.base_sequence)
        if base >= self._next or base < 0:
            return _EMPTY  # never sent
        ticks = self._unwrap(feedback.reference_time * TICKS_PER_REFERENCE)
        recovered = 0
        overlap = self._frontier - base
        if overlap > 0:
            # Reported before; here again because one of them has come late.
            recovered = self._recover(base, deltas[:overlap])
            if overlap >= len(deltas):
                return _EMPTY._replace(recovered=recovered) if recovered else _EMPTY
            ticks += sum(filter(None, deltas[:overlap]))
            deltas = deltas[overlap:]
            base = self._frontier
        if base + len(deltas) > self._next:
            deltas = deltas[: self._next - base]
        self._reference = ticks
        moves = list(filter(None, deltas))
        in_order = not moves or min(moves) >= 0
        return self._account(base, deltas, ticks, in_order, recovered, now)

    def _account(
        self, base: int, deltas: tuple[int | None, ...], ticks: int, in_order: bool, recovered: int, now: float
    ) -> FeedbackSummary:
        groups = self._groups
        presumed = received = lost = total = probe_lost = 0
        reports: list[GroupReport] = []
        latest = 0.0
        frontier = self._frontier
        at = base
        stop = base + len(deltas)
        while at < stop and groups:
            group = groups[0]
            first = group.first
            end = group.end
            if end <= at or first > at or frontier != at:
                # Numbers that nothing was reported on, or that were never sent.
                if at > frontier and now - group.sent < _MAX_UNKNOWN_SECONDS:
                    presumed += _share(group, frontier, at)
                if end <= at:
                    frontier = end
                    self._forget(group)
                    continue
                if first > at:
                    until = first if first < stop else stop
                    ticks += sum(filter(None, deltas[at - base : until - base]))
                    frontier = at = until
                    continue
            if end <= stop:
                until = end
                groups.popleft()
                if group is self._newest:
                    self._newest = None
            else:
                until = stop
            count = until - at
            some = deltas[at - base : until - base]
            if count == 1:
                delta = some[0]
                here = 0 if delta is None else 1
                ticks += delta or 0
                last = ticks
            else:
                here = count - some.count(None)
                before = ticks
                ticks += sum(filter(None, some))
                last = ticks if in_order else before + max(accumulate([each or 0 for each in some]))
            if here != count:
                lost += count - here
                if group.probe:
                    probe_lost += group.size * (count - here) // (end - first)
                self._note_missing(at, some)
            if here:
                received += here
                latest = group.sent
                size = group.size if here == end - first else group.size * here // (end - first)
                total += size
                reports.append((group.number, latest, last / TICKS_PER_SECOND, size, group.probe))
            frontier = at = until
        self._frontier = max(self._frontier, at)
        round_trip = max(0.0, now - latest) if received else None
        return FeedbackSummary(
            reports, total, received, lost, recovered, probe_lost, presumed, base, at - 1, round_trip
        )

    def _forget(self, group: _Group) -> None:
        self._groups.popleft()
        if group is self._newest:
            self._newest = None

    def _unwrap(self, ticks: int) -> int:
        """The reference time nearest to the last one."""
        if self._reference is None:
            return ticks % _WRAP
        return self._reference + (ticks - self._reference + _WRAP // 2) % _WRAP - _WRAP // 2

    def _note_missing(self, first: int, deltas: tuple[int | None, ...]) -> None:
        missing = self._missing
        for number, delta in enumerate(deltas, first):
            if delta is None:
                missing[number] = None
        while len(missing) > _MAX_MISSING:
            del missing[next(iter(missing))]

    def _recover(self, first: int, deltas: tuple[int | None, ...]) -> int:
        missing = self._missing
        if not missing:
            return 0
        found = [number for number, delta in enumerate(deltas, first) if delta is not None and number in missing]
        for number in found:
            del missing[number]
        return len(found)


def _share(group: _Group, start: int, stop: int) -> int:
    """The bytes of those packets of ``group`` that are numbered ``start`` … ``stop - 1``."""
    first = max(group.first, start)
    return group.size * max(0, min(group.end, stop) - first) // (group.end - group.first)
