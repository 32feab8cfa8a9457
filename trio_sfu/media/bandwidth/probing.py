"""When to send more than there is to send, to learn what the link carries, and what came of it.

Owned by :class:`~trio_sfu.media.bandwidth.estimator.BandwidthEstimator`. An estimate cannot grow past one and a half
of what is really sent; the next layer of a video may need three times as much. So for a tenth of a second padding is
added to the media up to a target rate, and the rate at which that arrives is the answer. As libwebrtc's
ProbeController and ProbeBitrateEstimator do, with bursts in place of packets.
"""

from itertools import pairwise
from typing import Final, NamedTuple

from trio_sfu.media.bandwidth.sent_history import GroupReport

__all__ = ["Probe", "ProbeController", "ProbeResult"]

TICK_SECONDS: Final = 0.02
_CLUSTER_SECONDS: Final = 0.09  # five ticks
_MOST_TICKS: Final = 3  # what a tick makes up for when the ones before it were late
_FIRST_FACTOR: Final = 3.0
_FACTOR: Final = 2.0
_MOST_OF_WANTED: Final = 1.5
_LEAST_GAIN: Final = 1.1  # a target this near the estimate tells nothing
_ENOUGH: Final = 1.25  # times what is wanted
_WORTH_GOING_ON: Final = 0.9
_INTERVAL: Final = 2.0
_MOST_INTERVAL: Final = 5.0
_BACK_OFF: Final = 1.5
_AFTER_DROP: Final = 1.5
_LATEST_SECONDS: Final = 1.5  # what has not been reported by then is not waited for
_WAKE_SECONDS: Final = 0.3  # until what was lost at the end of a probe has been reported
_AFTER_LOSS: Final = 1.0  # of the feedback
_LEAST_PAIRS: Final = 2
_LEAST_RECEIVED: Final = 0.3
_LEAST_SENT: Final = 0.5  # of the target, or nobody sends the padding
_LOST_BY_CHANCE: Final = 0.85
_FULL: Final = 0.9  # what was sent in less than this share of the time in which it arrived has filled the link
_TARGET_UTILISATION: Final = 0.95
_MOST_SQUEEZED: Final = 2.0  # arrivals closer together than this were held up on the way, or are made up


class Probe(NamedTuple):
    """What to send now beside the media: ``size`` bytes of padding. ``bitrate`` is what the cluster aims at."""

    id: int
    bitrate: int
    size: int


class ProbeResult(NamedTuple):
    """``bitrate``: what the link carried, at least; None where it cannot be said."""

    target: float
    bitrate: float | None


class _Cluster:
    __slots__ = ("began", "bytes_before", "ended", "groups", "id", "lost", "size", "target")

    def __init__(self, identifier: int, target: float, now: float, bytes_before: int) -> None:
        self.id = identifier
        self.target = target
        self.began = now
        self.bytes_before = bytes_before
        self.size = 0
        self.lost = 0
        self.ended: float | None = None
        self.groups: list[tuple[int, float, float, int]] = []  # number, sent, arrival, bytes received

    def add(self, report: GroupReport) -> None:
        number, sent, arrival, size, _ = report
        if self.groups and self.groups[-1][0] == number:
            _, _, before, had = self.groups[-1]
            self.groups[-1] = (number, sent, max(before, arrival), had + size)
        else:
            self.groups.append((number, sent, arrival, size))

    def measure(self) -> float | None:
        """What came through, by pairs of groups that are both reported: feedback may have been lost.

        A burst leaves at once, and has arrived with its last packet. Where the groups arrive no further apart than
        they were sent, all that was sent came through; else the link was busy all the time with what came.
        """
        received = pairs = 0
        sending = receiving = 0.0
        for before, after in pairwise(self.groups):
            if after[0] == before[0] + 1:
                received += after[3]
                sending += after[1] - before[1]
                receiving += after[2] - before[2]
                pairs += 1
        ended = self.ended
        if ended is None or pairs < _LEAST_PAIRS or received < _LEAST_RECEIVED * self.size or sending <= 0:
            return None
        if receiving < sending / _MOST_SQUEEZED:
            return None
        if receiving * _FULL > sending:
            return min(_TARGET_UTILISATION * received * 8 / receiving, self.target)
        # A queue too short for the probe drops what others would delay.
        arrived = sum([each[3] for each in self.groups])
        share = arrived / (arrived + self.lost)
        rate = self.size * 8 / (ended - self.began)
        return min(rate if share > _LOST_BY_CHANCE else rate * share, self.target)


class ProbeController:
    """One cluster at a time. ``wanted`` is the rate that all consumers together could use; nothing is probed for
    above one and a half of it.
    """

    __slots__ = ("_cluster", "_interval", "_next", "_next_factor", "_next_id", "_quiet_until", "wanted")

    def __init__(self) -> None:
        self.wanted = 0.0
        self._cluster: _Cluster | None = None
        self._next_id = 1
        self._next = 0.0
        self._next_factor = _FIRST_FACTOR
        self._interval = _INTERVAL
        self._quiet_until = 0.0

    def disturbs(self, now: float) -> bool:
        """Whether loss seen now may be a probe's doing."""
        return self._cluster is not None or now < self._quiet_until

    def take(self, bitrate: float, now: float, bytes_sent: int, *, calm: bool) -> Probe | None:
        """The padding to send in this tick of 20 ms, which belongs to the cluster ``id``.

        ``bitrate``: the estimate. ``bytes_sent``: all that was ever sent. ``calm``: no sign of congestion; a cluster
        that has begun is finished all the same.
        """
        cluster = self._cluster
        if cluster is None:
            target = self._due(bitrate, now) if calm else None
            if target is None:
                return None
            self._cluster = cluster = _Cluster(self._next_id, target, now, bytes_sent)
            self._next_id += 1
        elif cluster.ended is not None:
            return None
        elapsed = now - cluster.began
        cluster.size = bytes_sent - cluster.bytes_before
        if elapsed > _CLUSTER_SECONDS:
            cluster.ended = now
            if cluster.size * 8 < _LEAST_SENT * cluster.target * elapsed:
                self._cluster = None
                self._next = now + _MOST_INTERVAL
            return None
        per_tick = cluster.target * TICK_SECONDS / 8
        due = cluster.target * (elapsed + TICK_SECONDS) / 8 - cluster.size
        return Probe(cluster.id, round(cluster.target), max(0, round(min(due, per_tick * _MOST_TICKS))))

    def _due(self, bitrate: float, now: float) -> float | None:
        if now < self._next or bitrate >= _ENOUGH * self.wanted:
            return None
        target = min(self._next_factor * bitrate, _MOST_OF_WANTED * self.wanted)
        return target if target >= _LEAST_GAIN * bitrate else None

    def on_groups(self, groups: list[GroupReport], now: float, *, lost: int = 0) -> ProbeResult | None:
        """Take in what feedback reports, ``lost`` bytes of the cluster too; its result once it is complete."""
        cluster = self._cluster
        if cluster is None:
            return None
        cluster.lost += lost
        beyond = False
        for report in groups:
            if report[4] == cluster.id:
                cluster.add(report)
            elif cluster.groups:
                beyond = True
        if cluster.ended is None or not beyond:
            return self.expire(now)
        return self._finish(cluster, now)

    def expire(self, now: float) -> ProbeResult | None:
        """Give up a cluster that is not reported on."""
        cluster = self._cluster
        if cluster is None or now - cluster.began < _LATEST_SECONDS:
            return None
        return self._finish(cluster, now)

    def _finish(self, cluster: _Cluster, now: float) -> ProbeResult:
        self._cluster = None
        self._next_factor = _FACTOR
        self._quiet_until = now + _WAKE_SECONDS
        found = cluster.measure()
        if found is not None and found >= _WORTH_GOING_ON * cluster.target:
            self._interval = _INTERVAL
            self._next = now
        elif found is None:
            self._next = now + _AFTER_LOSS
        else:
            self._next = now + self._interval
            self._interval = min(self._interval * _BACK_OFF, _MOST_INTERVAL)
        return ProbeResult(cluster.target, found)

    def on_drop(self, now: float) -> None:
        """The estimate has fallen: look again soon, but not into a full queue."""
        self._next = max(self._next, now + _AFTER_DROP)
