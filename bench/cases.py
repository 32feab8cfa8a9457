"""The loads: who sends what to whom. Pure values, used by every part that forwards media."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FRAMES_PER_SECOND: Final = 30.0
VIDEO_SIZE: Final = 1200
AUDIO_SIZE: Final = 120
MOST_IN_A_ROOM: Final = 500
"""The server's own limit (``RoomLimits.peers``)."""

VIDEO_RATE: Final = 990.0
"""Packets a second of the one video: 33 a burst."""

ROOM_RATES: Final = (250.0, 50.0)
"""The same of each participant's video and audio in a room of four."""

SHARED_RATE: Final = 198.0
"""That of one video for hundreds of consumers, whom one core must all serve: 99 thousand packets/s out to 499.

What a consumer costs that is not forwarding (RTCP, timers) stays: only rows of one rate show whether a packet's cost is
flat.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """Equal rooms, in each of which every sender's streams go to every other participant that receives.

    :param senders: participants who send in each room.
    :param receivers: participants who receive; where ``everyone``, the senders are they.
    :param video: packets a second of each sender's video, in 30 bursts; 0: none.
    :param audio: packets a second of each sender's audio, one by one; 0: none.
    """

    name: str
    rooms: int
    senders: int
    receivers: int
    video: float
    audio: float
    everyone: bool = False

    @property
    def packets_in(self) -> float:
        """A second, into the server."""
        return self.rooms * self.senders * (self.video + self.audio)

    @property
    def packets_out(self) -> float:
        """A second, out of the server, where nothing is lost."""
        each = self.senders - 1 if self.everyone else self.senders
        return self.rooms * self.receivers * each * (self.video + self.audio)

    @property
    def transports(self) -> int:
        """How many the server has."""
        return self.rooms * (self.senders + self.receivers)


def one_to(consumers: int, rate: float = VIDEO_RATE) -> Case:
    """One room, one video of so many packets a second."""
    return Case(f"1 → {consumers}{'' if rate == VIDEO_RATE else f', {rate:g}/s'}", 1, 1, consumers, rate, 0.0)


def audio_to(consumers: int) -> Case:
    """One room, one audio of 50 packets a second."""
    return Case(f"audio only, 1 → {consumers}", 1, 1, consumers, 0.0, 50.0)


def rooms_of_four(rooms: int, video: float = ROOM_RATES[0], audio: float = ROOM_RATES[1]) -> Case:
    """Everyone sends audio and video and receives everyone else's."""
    rates = "" if (video, audio) == ROOM_RATES else f", {video:g} + {audio:g}/s"
    return Case(f"{rooms} rooms of 4{rates}", rooms, 4, 4, video, audio, everyone=True)


FULL: Final = (
    *(one_to(consumers) for consumers in (10, 50, 100, 200)),
    *(one_to(consumers, SHARED_RATE) for consumers in (50, 200, MOST_IN_A_ROOM - 1)),
    rooms_of_four(10),
    rooms_of_four(50, 15.0, 25.0),  # at the usual rates 180 thousand packets/s, one by one: more than a core sends
    audio_to(MOST_IN_A_ROOM - 1),
)
QUICK: Final = (one_to(10), one_to(50), rooms_of_four(10))
