"""What a room has to do with its live stream: it says who is to be seen and heard, and is told how that goes.

The room knows this interface only; :mod:`trio_sfu.hls.broadcast` implements it, and server.py puts the two together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from trio_sfu.media.producer import Producer
from trio_sfu.media.router import Router
from trio_sfu.rooms.messages import LiveState

__all__ = ["LiveOutput", "LiveOutputFactory", "LiveParticipant", "LiveState"]


@dataclass(frozen=True, slots=True)
class LiveParticipant:
    """A user who produces both audio and video."""

    user_id: str
    name: str | None
    audio: Producer
    video: Producer


class LiveOutput(Protocol):
    """A room's live stream. ``run`` is a task of the room's nursery; all else is synchronous."""

    async def run(self) -> None:
        """Stream whenever there is somebody to stream, until cancelled. Has its own fault boundary: never raises."""

    def changed(self, participants: Sequence[LiveParticipant]) -> None:
        """Those who are to be streamed from now on, the longest there first. May be called as often as one likes."""

    def speaks(self, user_id: str) -> None:
        """Who speaks from now on, whether they are to be streamed or not. Nobody says when somebody stops."""


#: Room id, the room's router, and whom to tell: a state, and the reason where it is "failed".
LiveOutputFactory: TypeAlias = Callable[[str, Router, Callable[[LiveState, str | None], None]], LiveOutput]
