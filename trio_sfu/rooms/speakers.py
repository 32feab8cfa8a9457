"""Who is speaking in a room and how loud, told to everyone in it.

Owned and called by the room. What is measured and who counts as speaking: :mod:`trio_sfu.media.audio_levels`.
"""

from collections.abc import Callable
from typing import Final

from trio_sfu.media.audio_levels import AudioLevelObserver, Volume
from trio_sfu.media.producer import Producer
from trio_sfu.rooms.messages import ActiveSpeaker, AudioLevel, AudioLevels, EventPayload

__all__ = ["Speakers"]

# Levels are told every 0.3 s, and less often in rooms of more than 150 users: so many events a second at most.
_DELIVERIES: Final = 500


class Speakers:
    """``tell_all`` sends an event to everyone in the room, ``listeners`` says how many they are."""

    def __init__(self, room_id: str, tell_all: Callable[[EventPayload], None], listeners: Callable[[], int]) -> None:
        # Given
        self._room_id: Final = room_id
        self._tell_all: Final = tell_all
        self._listeners: Final = listeners
        # Owned
        self.active: ActiveSpeaker | None = None
        """The last event of that name: for newcomers. None before anybody has spoken."""
        self._audio: dict[str, tuple[str, Producer]] = {}  # by producer id, with the user's
        self._observer: Final = AudioLevelObserver()
        self._levels: tuple[AudioLevel, ...] = ()  # as last told
        self._next_levels = float("-inf")

    def add(self, user_id: str, producer: Producer) -> None:
        """Listen to a producer, where it is one of audio."""
        if producer.kind == "audio":
            self._audio[producer.id] = (user_id, producer)

    def remove(self, producer_id: str) -> None:
        """A producer closes: name it no more."""
        if self._audio.pop(producer_id, None) is not None:
            self.refresh()

    def refresh(self) -> None:
        """A producer was paused: name it no more, until it has been heard again."""
        present = {each.id for _, each in self._audio.values() if not (each.paused or each.closed)}
        self._observer.keep(present)
        self._tell_speaker()
        rest = tuple(each for each in self._levels if each.producer_id in present)
        if rest != self._levels:
            self._tell_levels(rest)

    def tick(self, now: float) -> None:
        """To be called every 20 ms. ``now``: seconds, monotonic."""
        if not self._audio or not self._observer.due(now):
            return
        heard: dict[str, tuple[int, ...]] = {}
        for producer_id, (_, producer) in self._audio.items():
            octets = tuple(octet for stream in producer.streams.values() for octet in stream.take_audio_levels())
            if not (producer.paused or producer.closed):
                heard[producer_id] = octets
        complete = self._observer.update(heard, now)
        self._tell_speaker()
        volumes = self._observer.volumes
        if complete and now >= self._next_levels and (volumes or self._levels):
            self._next_levels = now + self._listeners() / _DELIVERIES
            self._tell_levels(tuple(map(self._level, volumes)))

    def _level(self, volume: Volume) -> AudioLevel:
        user_id, _ = self._audio[volume.producer_id]
        return AudioLevel(user_id=user_id, producer_id=volume.producer_id, volume=volume.volume)

    def _tell_speaker(self) -> None:
        producer_id = self._observer.dominant_speaker
        told = self.active.producer_id if self.active is not None else None
        if producer_id != told:
            user_id = self._audio[producer_id][0] if producer_id is not None else None
            self.active = ActiveSpeaker(room_id=self._room_id, user_id=user_id, producer_id=producer_id)
            self._tell_all(self.active)

    def _tell_levels(self, levels: tuple[AudioLevel, ...]) -> None:
        self._levels = levels
        self._tell_all(AudioLevels(room_id=self._room_id, levels=levels))
