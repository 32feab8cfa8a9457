"""Whether the process has more to do than it can, and how much of the video it leaves out for that.

One for a process, owned by :mod:`trio_sfu.transport.load`, which tells it every 20 ms how late what comes is handled.
Routers act on it (:mod:`trio_sfu.media.relief`). Pure: times are arguments.

A queue that empties now and then is a burst; one that never does has more coming than is served. So what counts is the
*least* lateness of a while (CoDel, RFC 8289, section 3.2), and what it grows by tells how much too much there is: where
it grows by half a second a second, half of what comes is served. A full queue gets no later; what it drops tells then.
"""

from typing import Final, NamedTuple

__all__ = ["Measured", "Overload"]

_LATE_SECONDS: Final = 0.05  # what has waited this long is late
_STRAINED_SECONDS: Final = 0.1  # of lateness without a break: repairs and probes stop
_OVERLOADED_SECONDS: Final = 0.4  # the same: video goes, and more of it after as long again
# Where the queue is full, for then sound is lost, too: the first cut, and from one to the next.
_LOSING_SECONDS: Final = 0.04
_LOSING_STILL_SECONDS: Final = 0.2
_CALM_SECONDS: Final = 1.0  # without lateness, before anything comes back
_DRAINING: Final = 1.1  # served of what comes: the queue gets shorter by itself
_LEAST_SERVED: Final = 0.1
_AIM: Final = 0.75  # of what is served: the rest of the time works off what waits
_LEAST_KEPT: Final = 0.04  # less is nothing, and as much comes back at first where nothing is left
_RISE_TO: Final = 0.9  # of a core; more is not risked
_LEAST_RISE: Final = 1.05
_MOST_RISE: Final = 2.0
_WINDOW_SECONDS: Final = 0.5  # to measure the load in
_FAILED_SECONDS: Final = 10.0  # a cut this soon after a rise is the rise's fault
_MOST_BACK_OFF: Final = 30.0


class Measured(NamedTuple):
    """What the process is like at a time ``at``; but for ``late``, all count on from its start."""

    at: float
    late: float
    """The least time, in seconds, that anything waited since the last measurement; 0.0 where everything that had come
    was handled at some moment."""
    cpu: float
    """Seconds that the thread has used."""
    received: int = 0
    dropped: int = 0
    """Datagrams that found the queue full."""


class Overload:
    """Down by as much as is too much, once 0.4 s have shown it; up after a second without lateness, as far as the CPU
    time used promises that it will fit, with a back-off of 2 to 30 s after a rise that failed."""

    __slots__ = (
        "_back_off",
        "_late_at",
        "_late_since",
        "_latest",
        "_load",
        "_mark",
        "_rose_at",
        "_window",
        "episodes",
        "keep",
        "seconds",
        "strained",
    )

    def __init__(self) -> None:
        self.keep = 1.0
        """How much of the video is sent on, 0.0 to 1.0. Sound always is."""
        self.strained = False
        """Whether lateness lasts, or has less than a second ago: no repairs of video."""
        self.episodes = 0
        """How often video began to be left out."""
        self.seconds = 0.0
        """In which video was left out, in all episodes."""
        self._latest = Measured(0.0, 0.0, 0.0)
        self._late_since: float | None = None
        self._late_at = float("-inf")  # when lateness lasted, the last time
        self._mark = self._latest  # when lateness began, or of the last cut: how much too much there is shows from here
        self._window = self._latest  # what the load is measured from
        self._load = 0.0  # CPU time a second
        self._rose_at = float("-inf")  # since the last cut
        self._back_off = _CALM_SECONDS

    @property
    def late(self) -> float:
        """The latest lateness, in seconds."""
        return self._latest.late

    @property
    def overloaded(self) -> bool:
        """Whether video is left out."""
        return self.keep < 1.0

    def update(self, latest: Measured) -> None:
        """To be called every 20 ms or so."""
        now = latest.at
        if self.overloaded:
            self.seconds += now - self._latest.at
        self._latest = latest
        if now - self._window.at >= _WINDOW_SECONDS:
            self._load = min(1.0, (latest.cpu - self._window.cpu) / (now - self._window.at))
            self._window = latest
        if latest.late >= _LATE_SECONDS:
            self._on_late(latest)
        else:
            self._late_since = None
            self._on_time(now)

    # -- down ---

    def _on_late(self, latest: Measured) -> None:
        now = latest.at
        if self._late_since is None:
            self._late_since = now
            if not self.overloaded or now - self._mark.at >= _OVERLOADED_SECONDS:
                self._mark = latest
        mark = self._mark
        losing = latest.dropped > mark.dropped
        if now - self._late_since < _STRAINED_SECONDS and not losing:
            return  # a burst, more likely than not
        self.strained = True
        self._late_at = now
        settled = _OVERLOADED_SECONDS
        if losing:
            settled = _LOSING_STILL_SECONDS if self.overloaded else _LOSING_SECONDS
        if now - mark.at < settled:
            return
        self._mark = latest
        served = _served(mark, latest)
        if served < _DRAINING:
            self._cut(max(_LEAST_SERVED, min(1.0, served)), now)

    def _cut(self, served: float, now: float) -> None:
        if not self.overloaded:
            self.episodes += 1
        keep = self.keep * served * _AIM
        self.keep = keep if keep >= _LEAST_KEPT else 0.0
        if self._rose_at > float("-inf"):
            failed = now - self._rose_at < _FAILED_SECONDS
            self._back_off = min(2 * self._back_off, _MOST_BACK_OFF) if failed else _CALM_SECONDS
            self._rose_at = float("-inf")

    # -- up ---

    def _on_time(self, now: float) -> None:
        if now - self._late_at < _CALM_SECONDS:
            return
        self.strained = False
        if not self.overloaded or now - self._rose_at < _CALM_SECONDS or now - self._late_at < self._back_off:
            return
        room = min(_MOST_RISE, _RISE_TO / self._load) if self._load > 0.0 else _MOST_RISE
        if self.keep * room < 1.0 and room < _LEAST_RISE:
            return
        self.keep = min(1.0, self.keep * room) if self.keep > 0.0 else _LEAST_KEPT
        self._rose_at = now


def _served(since: Measured, latest: Measured) -> float:
    """Of what has come; more than 1.0 where the queue has become shorter."""
    received, dropped = latest.received - since.received, latest.dropped - since.dropped
    lost = dropped / max(1, received + dropped)
    return (1.0 - (latest.late - since.late) / (latest.at - since.at)) * (1.0 - lost)
