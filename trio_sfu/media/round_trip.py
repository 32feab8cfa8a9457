"""How long an answer takes from whoever sends to us, by RTCP XR (RFC 3611, sections 4.4 and 4.5).

Owned by an :class:`~trio_sfu.media.rtp_session.RtpSession`: one that only receives gets no reports on what it has sent,
so it sends reference times, which libwebrtc answers with its own next report. Times are seconds on one monotonic clock.
"""

from typing import Final

__all__ = ["RoundTrip"]

# References that an answer may name: senders of audio alone report every 5 s.
_MAX_REFERENCES: Final = 16
_LONGEST: Final = 1.0


class RoundTrip:
    """The round trip, smoothed as in RFC 6298, section 2."""

    __slots__ = ("_references", "_smoothed", "_variation", "latest")

    def __init__(self) -> None:
        self.latest: float | None = None
        """None before the first answer."""
        self._smoothed = 0.0
        self._variation = 0.0
        self._references: dict[int, float] = {}

    def refer(self, ntp_time: int, now: float) -> None:
        """A reference time has been sent: ``ntp_time``, in 64 bits."""
        self._references[ntp_time >> 16 & 0xFFFFFFFF] = now
        while len(self._references) > _MAX_REFERENCES:
            del self._references[next(iter(self._references))]

    def on_answer(self, last_reference: int, delay: int, now: float) -> None:
        """An item of a DLRR block: the middle 32 bits of a reference, and since when it has been there (1/65536 s).

        One that names no reference of ours, or claims more time than has passed, is not believed.
        """
        sent = self._references.get(last_reference)
        if sent is None or (took := now - sent - delay / 65536) < 0:
            return
        if self.latest is None:
            self._smoothed, self._variation = took, took / 4
        else:
            self._variation += (abs(self._smoothed - took) - self._variation) / 4
            self._smoothed += (took - self._smoothed) / 8
        self.latest = took

    @property
    def patience(self) -> float:
        """How long to wait for an answer before it is taken for lost; 0 where nothing is known."""
        if self.latest is None:
            return 0.0
        return min(max(self._smoothed + 2 * self._variation, 0.001), _LONGEST)
