"""Whether the process has more to do than it can, and how much of the video it leaves out for that.

One for a process, owned by :mod:`trio_sfu.transport.load`, which tells it every 20 ms how late what comes is handled.
Routers act on it (:mod:`trio_sfu.media.relief`). Pure: times are arguments.

A queue that empties now and then is a burst; one that never does has more coming than is served. So what counts is the
*least* lateness of a while (CoDel, RFC 8289, section 3.2), and what it grows by tells how much too much there is: where
it grows by half a second a second, half of what comes is served.
"""

from typing import Final

__all__ = ["LATE_SECONDS", "Overload"]

LATE_SECONDS: Final = 0.05
"""What has waited this long is late."""
_STRAINED_SECONDS: Final = 0.1  # of lateness without a break: repairs and probes stop
_OVERLOADED_SECONDS: Final = 0.2  # the same: video goes
_SETTLE_SECONDS: Final = 0.4  # from one cut to the next; a change of layers takes a keyframe
_CALM_SECONDS: Final = 1.0  # without lateness, before anything comes back
_DRAINING: Final = 1.1  # served of what comes: the queue gets shorter by itself
_LEAST_SERVED: Final = 0.1
_LOST_WEIGHT: Final = 0.2  # of the latest share lost, in the average
_AIM: Final = 0.75  # of what is served: the rest of the time works off what waits
_LEAST_KEPT: Final = 0.04  # below this: nothing
_FIRST: Final = 0.1  # what comes back at first where nothing is left
_RISE_TO: Final = 0.9  # of the load that was too much; more is not risked
_LEAST_RISE: Final = 1.05
_MOST_RISE: Final = 2.0
_WINDOW_SECONDS: Final = 0.5  # to measure the load in
_RECOVERY_SECONDS: Final = 30.0  # in which what the machine gives us is thought to be back at all of a core
_FAILED_SECONDS: Final = 10.0  # a cut this soon after a rise is the rise's fault
_MOST_BACK_OFF: Final = 30.0


class Overload:
    """Down by as much as is too much, once 0.2 s have shown it; up after a second without lateness, as far as the CPU
    time used promises that it will fit, with a back-off of 2 to 30 s after a rise that failed."""

    __slots__ = (
        "_back_off",
        "_capacity",
        "_late_at",
        "_late_since",
        "_load",
        "_lost",
        "_mark",
        "_rose_at",
        "_updated_at",
        "_window",
        "episodes",
        "keep",
        "late",
        "seconds",
        "strained",
    )

    def __init__(self) -> None:
        self.keep = 1.0
        """How much of the video is sent on, 0.0 to 1.0. Sound always is."""
        self.strained = False
        """Whether lateness lasts, or has less than a second ago: no repairs of video."""
        self.late = 0.0
        """The latest lateness, in seconds."""
        self.episodes = 0
        """How often video began to be left out."""
        self.seconds = 0.0
        """In which video was left out, in all episodes."""
        self._updated_at = 0.0
        self._late_since: float | None = None
        self._late_at = float("-inf")  # when lateness lasted, the last time
        self._mark = (0.0, 0.0, 0.0)  # time, lateness, and CPU time: what is grown and used is measured from here
        self._window = (0.0, 0.0)  # time and CPU time that the load is measured from
        self._load = 0.0  # CPU time a second
        self._capacity = 1.0  # the load where there was lateness: below 1 where others use the core, too
        self._lost = 0.0
        self._rose_at = float("-inf")  # since the last cut
        self._back_off = _CALM_SECONDS

    @property
    def overloaded(self) -> bool:
        """Whether video is left out."""
        return self.keep < 1.0

    def update(self, late: float, cpu: float, now: float, lost: float = 0.0) -> None:
        """To be called every 20 ms or so.

        ``late``: the least time, in seconds, that anything waited since the last call; 0.0 where everything that had
        come was handled at some moment. ``cpu``: the CPU time in seconds that the thread has used so far. ``lost``: the
        share of what has come since the last call that found the queue full. A full queue gets no later.
        """
        self.late = late
        self._lost += (lost - self._lost) * _LOST_WEIGHT
        if self.overloaded:
            passed = now - self._updated_at
            self.seconds += passed
            self._capacity = min(1.0, self._capacity + passed / _RECOVERY_SECONDS)
        self._updated_at = now
        since, used = self._window
        if now - since >= _WINDOW_SECONDS:
            self._load = min(1.0, (cpu - used) / (now - since))
            self._window = (now, cpu)
        if late >= LATE_SECONDS:
            self._on_late(cpu, now)
        else:
            self._late_since = None
            self._on_time(now)

    # -- down ---

    def _on_late(self, cpu: float, now: float) -> None:
        late, settled = self.late, _SETTLE_SECONDS if self.overloaded else _OVERLOADED_SECONDS
        if self._late_since is None:
            self._late_since = now
            if not self.overloaded or now - self._mark[0] >= settled:
                self._mark = (now, late, cpu)
        lasted = now - self._late_since
        if lasted < _STRAINED_SECONDS:
            return  # a burst, more likely than not
        self.strained = True
        self._late_at = now
        since, before, used = self._mark
        if lasted < _OVERLOADED_SECONDS or now - since < settled:
            return
        self._mark = (now, late, cpu)
        served = (1.0 - (late - before) / (now - since)) * (1.0 - self._lost)
        if served < _DRAINING:
            self._capacity = min(1.0, (cpu - used) / (now - since))
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
        room = min(_MOST_RISE, _RISE_TO * self._capacity / self._load) if self._load > 0.0 else _MOST_RISE
        if self.keep * room < 1.0 and room < _LEAST_RISE:
            return
        self.keep = min(1.0, self.keep * room) if self.keep > 0.0 else _FIRST
        self._rose_at = now
