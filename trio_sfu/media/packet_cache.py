"""The packets of one stream that may be asked for again: one copy, shared by all consumers."""

from collections import deque
from typing import Final

from trio_sfu.media.packet import Packet

__all__ = ["PacketCache"]

# A bound in packets, for senders that flood: 2 s at 2000 packets a second.
_MAX_PACKETS: Final = 4096


class PacketCache:
    """Keeps packets for ``seconds``, by the sequence number they arrived with.

    Drop policy: the oldest go first, when they are too old or too many.
    """

    __slots__ = ("_by_number", "_order", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._by_number: dict[int, Packet] = {}
        self._order: deque[Packet] = deque()

    def __contains__(self, sequence_number: int) -> bool:
        return sequence_number in self._by_number

    def __len__(self) -> int:
        return len(self._order)

    def add(self, packet: Packet) -> None:
        """Keep ``packet``; a number that comes round again replaces its older namesake."""
        self._by_number[packet.sequence_number] = packet
        self._order.append(packet)

    def replace(self, packet: Packet) -> None:
        """Keep ``packet`` instead of its namesake, one of the newest; nothing where that has gone already."""
        before = self._by_number.get(packet.sequence_number)
        if before is None:
            return
        order = self._order
        for back in range(1, len(order) + 1):
            if order[-back] is before:
                order[-back] = self._by_number[packet.sequence_number] = packet
                return

    def get(self, sequence_number: int) -> Packet | None:
        """The packet that arrived with ``sequence_number``, if it is kept still."""
        return self._by_number.get(sequence_number)

    def since_keyframe(self, newest: int = 0) -> list[Packet]:
        """The last keyframe and all that came after it, in order of arrival, without the ``newest`` packets.

        Empty where that holds no keyframe. A keyframe of several marked packets is taken from its first.
        """
        found = 0
        timestamp: int | None = None
        order = self._order
        for back in range(newest + 1, len(order) + 1):
            packet = order[-back]
            if timestamp is not None and packet.timestamp != timestamp:
                break
            if packet.keyframe:
                found = back
                timestamp = packet.timestamp
        return [order[-back] for back in range(found, newest, -1)]

    def expire(self, now: float) -> None:
        """Let go of what is too old; to be called once a batch."""
        order = self._order
        oldest = now - self._seconds
        while order and (order[0].arrival < oldest or len(order) > _MAX_PACKETS):
            packet = order.popleft()
            if self._by_number.get(packet.sequence_number) is packet:
                del self._by_number[packet.sequence_number]

    def clear(self) -> None:
        """Forget everything: the stream has started anew."""
        self._by_number.clear()
        self._order.clear()
