"""How loud each producer is, and who is speaking: mediasoup's AudioLevelObserver and ActiveSpeakerObserver in one.

Its owner (a room) hands in every 100 ms what the incoming streams have collected: the octets of the audio level
extension (RFC 6464, section 3), which senders put into each packet. No audio is decoded.

The dominant speaker is found as Volfin and Cohen do ("Dominant speaker identification for multipoint
videoconferencing", 2013), whose algorithm mediasoup has from Jitsi: by speech in the last instant, in the last tenth of
a second, and in the last second. With the constants that both use, the logarithms of their likelihood ratios come down
to comparisons, and these are what is written here: a challenger takes over where the dominant speaker is silent just
now, the challenger is not, and spoke more within the last second. So nobody is interrupted in the middle of a word.
Other than there:

* Only who has spoken for 0.3 s is named: no cough, no door, and nobody for being alone in the room.
* Speech that is loud counts, however steady. Above a noise floor alone, a speaker who joins in the middle of a sentence
  would have to pause first, and a tone would never count.
* Times are the clock's instead of numbers of packets: packets of 10 to 120 ms, losses and DTX come out alike.

Whoever is silent stays dominant until somebody else speaks, as in mediasoup: pictures should not jump in a pause.
Silence shows in the volumes. Levels are what senders say: one that lies is shown, and nothing worse comes of it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["BLOCK_SECONDS", "MAX_VOLUMES", "THRESHOLD", "AudioLevelObserver", "Volume"]

BLOCK_SECONDS: Final = 0.1
"""How often :meth:`AudioLevelObserver.update` is to be called."""
MAX_VOLUMES: Final = 5
THRESHOLD: Final = -60
"""dBov; what is below is not among the volumes. mediasoup's -80 lets the hiss of each open microphone through."""
_INTERVAL_BLOCKS: Final = 3
_HISTORY_BLOCKS: Final = 10
_HISTORY: Final = (1 << _HISTORY_BLOCKS) - 1
# How many active blocks of the last second a new speaker needs.
_LEAST_ACTIVE: Final = 3
# dBov. Below -47 (Jitsi's and mediasoup's bound) nothing is speech, from -30 on everything is. Between them it has to
# stand out from the noise floor.
_LEAST_SPEECH: Final = -47
_SURE_SPEECH: Final = -30
_ABOVE_NOISE: Final = 10
_SILENCE: Final = -127  # digital silence: a muted track, which says nothing about the noise
# The noise floor is the least level of the last 15 to 30 s in which there was any.
_NOISE_BLOCKS: Final = 150


@dataclass(frozen=True, slots=True)
class Volume:
    """The mean level of a producer's packets: ``volume`` in dBov, -127 to 0 (the loudest)."""

    producer_id: str
    volume: int


class _Meter:
    """One producer's last second."""

    __slots__ = ("_blocks_of_noise", "_count", "_least", "_least_before", "_total", "history", "volume")

    def __init__(self) -> None:
        self.history = 0
        """A bit for each block, the newest the lowest: whether most of its packets were speech."""
        self.volume: int | None = None
        """The last interval's mean, dBov; None where no packets came."""
        self._total = 0
        self._count = 0
        self._least = 0
        self._least_before = 0
        self._blocks_of_noise = 0

    @property
    def active(self) -> bool:
        """Whether there is speech in the newest block."""
        return bool(self.history & 1)

    @property
    def activity(self) -> int:
        """How many blocks of the last second have speech."""
        return self.history.bit_count()

    def add_block(self, octets: Collection[int], passed: int) -> None:
        """``passed``: how many blocks of time went by; all but the newest were silent."""
        self.history = self.history << min(passed, _HISTORY_BLOCKS) & _HISTORY
        if not octets:
            return
        levels = [-(octet & 0x7F) for octet in octets]  # the top bit is the sender's own guess: voice or not
        self._total += sum(levels)
        self._count += len(levels)
        bound = self._speech_bound(levels)
        if 2 * sum(level >= bound for level in levels) > len(levels):
            self.history |= 1

    def _speech_bound(self, levels: list[int]) -> int:
        noise = min((level for level in levels if level != _SILENCE), default=None)
        if noise is not None:
            self._least = min(self._least, noise)
            self._blocks_of_noise += 1
        floor = min(self._least, self._least_before)
        if self._blocks_of_noise == _NOISE_BLOCKS:
            self._least_before, self._least, self._blocks_of_noise = self._least, 0, 0
        return max(_LEAST_SPEECH, min(floor + _ABOVE_NOISE, _SURE_SPEECH))

    def end_interval(self) -> None:
        """Set ``volume`` and begin anew."""
        self.volume = round(self._total / self._count) if self._count else None
        self._total = self._count = 0


class AudioLevelObserver:
    """The levels of one room. Times are seconds, monotonic."""

    def __init__(self) -> None:
        self.dominant_speaker: str | None = None
        """A producer's id; None until somebody has spoken, and where the one who did has gone and nobody speaks."""
        self.volumes: tuple[Volume, ...] = ()
        """Of those who were audible in the last interval, the loudest first, :data:`MAX_VOLUMES` at most."""
        self._meters: dict[str, _Meter] = {}
        self._updated: float | None = None
        self._blocks = 0

    def due(self, now: float) -> bool:
        """Whether it is time for :meth:`update`."""
        return self._updated is None or now - self._updated >= BLOCK_SECONDS

    def update(self, heard: Mapping[str, Collection[int]], now: float) -> bool:
        """Take what has come since the last call: for each producer there is, its packets' audio level octets.

        A producer that is missing (closed, paused) has gone, as by :meth:`keep`; one that is there without octets
        is silent. True where an interval of 0.3 s is over: then :attr:`volumes` are new. The dominant speaker can
        be another after each call.
        """
        passed = 1
        if self._updated is not None:
            passed = max(1, round((now - self._updated) / BLOCK_SECONDS))
        self._updated = now
        for producer_id, octets in heard.items():
            meter = self._meters.get(producer_id)
            if meter is None:
                meter = self._meters[producer_id] = _Meter()
            meter.add_block(octets, passed)
        self.keep(heard.keys())
        self._blocks += 1
        if self._blocks < _INTERVAL_BLOCKS:
            return False
        self._blocks = 0
        for meter in self._meters.values():
            meter.end_interval()
        audible = [
            Volume(producer_id, meter.volume)
            for producer_id, meter in self._meters.items()
            if meter.volume is not None and meter.volume >= THRESHOLD
        ]
        audible.sort(key=lambda each: each.volume, reverse=True)
        self.volumes = tuple(audible[:MAX_VOLUMES])
        self._elect()
        return True

    def keep(self, producer_ids: Collection[str]) -> None:
        """All others have gone, and are named no more. Where one was dominant, whoever speaks just now follows."""
        gone = [producer_id for producer_id in self._meters if producer_id not in producer_ids]
        if not gone:
            return
        for producer_id in gone:
            del self._meters[producer_id]
        self.volumes = tuple(each for each in self.volumes if each.producer_id not in gone)
        if self.dominant_speaker in gone:
            self.dominant_speaker = None
            self._elect()

    def _elect(self) -> None:
        least = _LEAST_ACTIVE
        if self.dominant_speaker is not None:
            dominant = self._meters[self.dominant_speaker]
            if dominant.active:
                return
            least = max(least, dominant.activity + 1)
        best: tuple[int, int] | None = None
        for producer_id, meter in self._meters.items():
            if meter.active and meter.activity >= least:
                # Of those who spoke equally long, the louder one.
                rank = (meter.activity, _SILENCE if meter.volume is None else meter.volume)
                if best is None or rank > best:
                    best = rank
                    self.dominant_speaker = producer_id
