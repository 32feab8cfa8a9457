"""What a transport's consumers are sent for the bandwidth there is: estimate, allocation and probes together.

Owned by the :class:`~trio_sfu.media.rtp_session.RtpSession` of a transport whose peer tells of what arrives (by
transport-wide feedback or REMB). Consumers are told by :meth:`~trio_sfu.media.consumer.Consumer.set_limit`.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from trio_sfu.media.bandwidth.allocation import Allocator, Claim, wanted_bitrate
from trio_sfu.media.bandwidth.estimator import BandwidthEstimator
from trio_sfu.media.bandwidth.pacing import Pacer
from trio_sfu.media.frame_mark import EVERYTHING, Layers

if TYPE_CHECKING:
    from trio_sfu.media.consumer import Consumer

__all__ = ["BandwidthControl"]

_ALLOCATION_SECONDS: Final = 0.25
_FULL_SECONDS: Final = 0.1  # a queue this long is full
# Of the estimate, for retransmissions: enough to repair 20 % loss. As much of it as comes in 0.6 s at once.
_REPAIR_SHARE: Final = 0.25
_REPAIR_BURST: Final = 0.6
_LEAST_REPAIR: Final = 20_000  # bytes
# Whose packets have gone out for so long without trouble has shown that the path carries them.
_BEGUN_SECONDS: Final = 0.5
_HEADROOM: Final = 1.2  # a little more than the allocator keeps free
_DROP: Final = 0.95  # the estimate has fallen so far: allocate at once
_OVERFLOWING_SECONDS: Final = 0.2  # a queue this long does not drain by itself
_DRAINING_SHARE: Final = 0.6  # of the estimate, for what is chosen while it is so
# What packets are longer than the payload that streams are measured by: RTP, its extensions, SRTP, UDP and IP.
_OVERHEAD: Final = 1.08
# As long as nothing of a video has been measured: enough to find out whether the path carries one.
_GUESS: Final = 1_500_000
# A path that has been too narrow gets video at so much of the estimate: bursts become longer, and the queue drains.
_PACE: Final = 1.5
_DRAINING_PACE: Final = 0.7  # while the queue is full, what comes on top is lost


class BandwidthControl:
    """One transport's. :meth:`tick` is to be called every 20 ms while it says so or feedback comes, else at times."""

    __slots__ = (
        "_allocated",
        "_allocated_at",
        "_allocator",
        "_enough_at",
        "_limited",
        "_repair",
        "_repaired_at",
        "estimator",
        "pacer",
    )

    def __init__(self) -> None:
        self.estimator: Final = BandwidthEstimator()
        self.pacer: Final = Pacer()
        self._allocator: Final = Allocator()
        self._enough_at = float("-inf")  # when there was enough for all the last time
        self._allocated_at = float("-inf")
        self._allocated: int | None = None
        self._limited = False
        self._repair = float(_LEAST_REPAIR)
        self._repaired_at = 0.0

    def tick(self, consumers: Collection["Consumer"], now: float) -> bool:
        """Send what waits and the probes that are due, and divide the bandwidth anew from time to time.

        Returns whether the next tick must not be left out.
        """
        estimator = self.estimator
        if self.pacer.is_holding:
            self.pacer.release(now)
        estimator.tick(now)
        probe = estimator.take_probe(now)
        if probe is not None and probe.size and not self.pacer.is_holding:
            self._send_probe(consumers, probe.size, now)
        if now - self._allocated_at >= _ALLOCATION_SECONDS:
            self.allocate_now(consumers, now)
        elif self._allocated is not None:
            bitrate = estimator.bitrate
            if bitrate is not None and bitrate < self._allocated * _DROP:
                self.allocate_now(consumers, now)
        return probe is not None or self.pacer.is_holding

    def allocate_now(self, consumers: Collection["Consumer"], now: float) -> None:
        """Divide the bandwidth before somebody begins, who would take all that there is otherwise."""
        self._allocated_at = now
        self._allocated = self.estimator.bitrate
        self._allocate(consumers, self._allocated, now)

    def may_repair(self, octets: int, now: float) -> bool:
        """Whether so much may be sent again: where a full queue loses packets, sending more of them fills it more."""
        bitrate = self.estimator.bitrate
        if bitrate is None:
            return True
        rate = bitrate / 8 * _REPAIR_SHARE
        most = max(_LEAST_REPAIR, rate * _REPAIR_BURST)
        self._repair = min(most, self._repair + rate * (now - self._repaired_at))
        self._repaired_at = now
        if octets > self._repair:
            return False
        self._repair -= octets
        return True

    def _send_probe(self, consumers: Collection["Consumer"], octets: int, now: float) -> None:
        for consumer in consumers:
            if consumer.kind == "video" and consumer.reports and octets > 0:
                octets -= consumer.probe(octets, now)

    def _allocate(self, consumers: Collection["Consumer"], bitrate: int | None, now: float) -> None:
        if bitrate is None:
            if self._limited:
                self._limited = False
                self.pacer.set_rate(None, now)
                for consumer in consumers:
                    consumer.set_limit(EVERYTHING)
            return
        self._limited = True
        going_out = 0
        claims: list[Claim] = []
        layers: dict[str, tuple[Consumer, tuple[Layers, ...]]] = {}
        guessed = 0
        for consumer in consumers:
            if consumer.paused or consumer.producer.paused:
                continue
            options = consumer.options(now)
            if options:
                bitrates = tuple(round(each * _OVERHEAD) for _, each in options)
                # Where there are more or less options than before the choice is made anew, at once.
                claim = f"{consumer.id} {len(options)}"
                claims.append(Claim(claim, consumer.kind, bitrates, consumer.priority))
                layers[claim] = (consumer, tuple(each for each, _ in options))
                if len(options) == 1 or now - consumer.sending_since > _BEGUN_SECONDS:
                    places = [each for each, _ in options]
                    going_out += _current(consumer, places, bitrates)
            elif consumer.kind == "video":
                guessed += _GUESS
        wanted = wanted_bitrate(claims) + guessed
        self.estimator.set_wanted(wanted)
        full = self.estimator.queueing_delay > _FULL_SECONDS
        if self.estimator.is_calm:
            # What goes out makes no trouble, so nothing of it is taken away, whatever the estimate has come to so far.
            bitrate = max(bitrate, round(going_out * _HEADROOM))
        self._pace(bitrate, wanted, now, full=full)
        if going_out > bitrate and self.estimator.queueing_delay > _OVERFLOWING_SECONDS:
            # What goes out instead is to leave room for the queue to drain, and for the keyframe that it begins with.
            bitrate = round(bitrate * _DRAINING_SHARE)
        for decision in self._allocator.decide(bitrate, claims, now):
            consumer, choices = layers[decision.id]
            if decision.index is None:
                consumer.set_limit(None)
            else:
                # Who has the most that there is may have more when there is.
                last = decision.index == len(choices) - 1
                consumer.set_limit(EVERYTHING if last else choices[decision.index], at_once=full)

    def _pace(self, bitrate: int, wanted: int, now: float, *, full: bool) -> None:
        """Hold bursts back where the path has shown that it is too narrow for what is wanted, until it is not."""
        if bitrate >= wanted:
            self._enough_at = now
            self.pacer.set_rate(None, now)
        elif self.estimator.fell_at > self._enough_at:
            self.pacer.set_rate((_DRAINING_PACE if full else _PACE) * bitrate, now)


def _current(consumer: "Consumer", places: list[Layers], bitrates: tuple[int, ...]) -> int:
    """What goes out to ``consumer`` now, of its options, or would if the server had the time for it.

    What is only left out for that has shown before that the path carries it, and need not show it again.
    """
    if consumer.granted is None:
        return 0
    allowed = [bitrate for layers, bitrate in zip(places, bitrates, strict=True) if consumer.granted.hold(layers)]
    return allowed[-1] if allowed else bitrates[0]
