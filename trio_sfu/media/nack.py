"""Which packets of one incoming RTP stream to ask for again, and when (RFC 4585 generic NACK).

Modelled on mediasoup's NackGenerator. One instance an SSRC; its owner tells it of each packet (of those that came back
by RTX under their original number), calls ``due`` on a timer, and sends the NACKs.
"""

from __future__ import annotations

from typing import Literal

from trio_sfu.media.sequence import newer

#: A number is asked for at most so often, the first time included.
MAX_TRIES = 10
MIN_RETRY_INTERVAL = 0.020
#: Where no round-trip time is known yet.
DEFAULT_RTT = 0.100
#: After so many tries there is no answer because nothing comes through for a while: the others are spread out, so that
#: they are not all gone within ten short round trips.
QUICK_TRIES = 5
SLOW_RETRY_INTERVAL = 0.100
#: Senders' caches hold no more, and viewers would not wait longer.
GIVE_UP_AFTER = {"video": 2.0, "audio": 1.0}
MAX_ENTRIES = 1000
#: A step forward by more than this is a restart of the sender, not loss.
MAX_JUMP = 1000
#: What is further behind than this is no late packet: the second such in a row, being the first one's successor, is a
#: restart of the sender (the rule of RFC 3550, appendix A.1).
MAX_BEHIND = 3000

_NONE: tuple[int, ...] = ()


class _Missing:
    """When a packet was found missing, when it was last asked for, how often."""

    __slots__ = ("asked_at", "found_at", "tries")

    def __init__(self, now: float) -> None:
        self.found_at = now
        self.asked_at = now
        self.tries = 1


class NackGenerator:
    """The packets missing from one incoming stream. Sequence numbers are 16 bits, times monotonic seconds.

    At most ``MAX_ENTRIES`` numbers are kept. When more are missing, those before the newest keyframe are dropped; where
    that is not enough all are, and ``needs_keyframe`` is set (video only).
    """

    __slots__ = (
        "_expected",
        "_give_up_after",
        "_keyframe_at",
        "_keyframe_seq",
        "_missing",
        "_restart_seq",
        "_video",
        "given_up",
        "needs_keyframe",
        "recovered",
        "requested",
        "resets",
    )

    def __init__(self, kind: Literal["audio", "video"]) -> None:
        self._video = kind == "video"
        self._give_up_after = GIVE_UP_AFTER[kind]
        # The successor of the newest packet, -1 before the first.
        self._expected = -1
        # In the order of the sequence numbers: only newer ones are ever added.
        self._missing: dict[int, _Missing] = {}
        # The newest keyframe's first packet. It counts only while it is younger than what is given up anyway, so that
        # its number cannot have wrapped around.
        self._keyframe_seq = -1
        self._keyframe_at = 0.0
        # The successor of a packet that was too far behind, -1 if the last one was not.
        self._restart_seq = -1
        #: Set where packets are lost for good; the owner asks for a keyframe and clears it. A keyframe clears it too.
        self.needs_keyframe = False
        #: Counters, for statistics: numbers asked for (each time), come back, given up; restarts of the sender.
        self.requested = 0
        self.recovered = 0
        self.given_up = 0
        self.resets = 0

    @property
    def pending(self) -> int:
        """How many packets are missing and still waited for."""
        return len(self._missing)

    def __contains__(self, seq: int) -> bool:
        """Whether this packet is missing and still waited for."""
        return seq in self._missing

    def on_packet(self, seq: int, now: float, *, keyframe: bool) -> tuple[int, ...]:
        """A packet has come; the numbers to ask for at once, ascending: those missing right before it.

        ``keyframe``: it begins a keyframe.
        """
        if seq == self._expected:
            self._expected = seq + 1 & 0xFFFF
            if keyframe:
                self._on_keyframe(seq, now)
            return _NONE
        return self._on_unexpected(seq, now, keyframe)

    def due(self, now: float, rtt: float) -> tuple[int, ...]:
        """The numbers to ask for again now, ascending; also where they are given up. Call it every 20 ms or so.

        ``rtt``: to the sender and back, in seconds, at most; 0 where it is not known.
        """
        if not self._missing:
            return _NONE
        interval = max(rtt or DEFAULT_RTT, MIN_RETRY_INTERVAL)
        asked_before = now - interval
        asked_long_before = now - max(interval, SLOW_RETRY_INTERVAL)
        found_before = now - self._give_up_after
        due: list[int] = []
        given_up: list[int] = []
        for seq, missing in self._missing.items():
            if missing.found_at <= found_before:
                given_up.append(seq)
            elif missing.asked_at <= (asked_before if missing.tries < QUICK_TRIES else asked_long_before):
                if missing.tries >= MAX_TRIES:
                    given_up.append(seq)
                else:
                    missing.tries += 1
                    missing.asked_at = now
                    due.append(seq)
        for seq in given_up:
            del self._missing[seq]
        self.given_up += len(given_up)
        self.requested += len(due)
        return tuple(due) if due else _NONE

    def reset(self) -> None:
        """Forget the stream's position and all that is missing: the next packet is taken as the first."""
        self._missing.clear()
        self._expected = self._restart_seq = self._keyframe_seq = -1

    def _on_keyframe(self, seq: int, now: float) -> None:
        self._keyframe_seq = seq
        self._keyframe_at = now
        self.needs_keyframe = False

    def _on_unexpected(self, seq: int, now: float, keyframe: bool) -> tuple[int, ...]:
        if self._expected < 0:
            self._advance(seq, now, keyframe)
            return _NONE
        gap = seq - self._expected & 0xFFFF
        if gap >= 0x8000:
            self._on_older(seq, 0x10000 - gap, now, keyframe)
            return _NONE
        if gap > MAX_JUMP:
            self._restart(seq, now, keyframe)
            return _NONE
        first = self._expected
        self._advance(seq, now, keyframe)
        return self._add(first, gap, now)

    def _advance(self, seq: int, now: float, keyframe: bool) -> None:
        self._expected = seq + 1 & 0xFFFF
        self._restart_seq = -1
        if keyframe:
            self._on_keyframe(seq, now)

    def _on_older(self, seq: int, behind: int, now: float, keyframe: bool) -> None:
        """A packet that came back, or late, or twice; or the sender has started again at a lower number."""
        if self._missing.pop(seq, None) is not None:
            self.recovered += 1
            if keyframe and not (self._keyframe_counts(now) and newer(self._keyframe_seq, seq)):
                self._on_keyframe(seq, now)
        elif behind > MAX_BEHIND:
            if seq == self._restart_seq:
                self._restart(seq, now, keyframe)
            else:
                self._restart_seq = seq + 1 & 0xFFFF

    def _restart(self, seq: int, now: float, keyframe: bool) -> None:
        self.resets += 1
        self.given_up += len(self._missing)
        self.reset()
        # What lay between cannot be had; a keyframe on its way makes the request needless.
        self.needs_keyframe = self._video
        self._advance(seq, now, keyframe)

    def _add(self, first: int, count: int, now: float) -> tuple[int, ...]:
        if len(self._missing) + count > MAX_ENTRIES:
            self._drop_before_keyframe(now)
            if len(self._missing) + count > MAX_ENTRIES:
                self.given_up += len(self._missing) + count
                self._missing.clear()
                self.needs_keyframe = self._video
                return _NONE
        if first + count <= 0x10000:
            added = tuple(range(first, first + count))
        else:
            added = tuple([seq & 0xFFFF for seq in range(first, first + count)])
        missing = self._missing
        for seq in added:
            missing[seq] = _Missing(now)
        self.requested += count
        return added

    def _drop_before_keyframe(self, now: float) -> None:
        """Drop what is missing from before the newest keyframe: what comes after does not need it."""
        if not self._keyframe_counts(now):
            return
        dropped = [seq for seq in self._missing if newer(self._keyframe_seq, seq)]
        for seq in dropped:
            del self._missing[seq]
        self.given_up += len(dropped)

    def _keyframe_counts(self, now: float) -> bool:
        return self._keyframe_seq >= 0 and now - self._keyframe_at <= self._give_up_after
