"""Reception statistics of one incoming RTP stream, for report blocks (RFC 3550, appendices A.1, A.3 and A.8).

One instance an SSRC. Its owner tells it of each packet that came under that SSRC and of each sender report,
and asks for a block whenever it sends an RTCP report. A packet recovered by RTX came under another SSRC and
is none of this one's (RFC 4588, section 8).
"""

from __future__ import annotations

from trio_sfu.wire.rtcp import ReportBlock, SenderReport

#: RFC 3550, A.1: a larger step forward, or one further back, is a restart of the sender if the next packet
#: follows on it.
MAX_DROPOUT = 3000
MAX_MISORDER = 100
#: A larger step of the transit time, in seconds, is a new timestamp base rather than jitter (libwebrtc has
#: the same bound).
MAX_JITTER_STEP = 5.0


class ReceptionStatistics:
    """Loss, jitter and the highest sequence number of one SSRC. Times are seconds, monotonic.

    ``clock_rate``: of the RTP timestamps, in Hz.
    """

    __slots__ = (
        "_bad_seq",
        "_base",
        "_clock_rate",
        "_expected_prior",
        "_highest",
        "_jitter",
        "_max_step",
        "_next_seq",
        "_ntp_middle",
        "_received_prior",
        "_sr_at",
        "_transit",
        "fraction_lost",
        "received",
        "restarts",
        "ssrc",
    )

    def __init__(self, ssrc: int, clock_rate: int) -> None:
        self.ssrc = ssrc
        self._clock_rate = clock_rate
        self._max_step = MAX_JITTER_STEP * clock_rate
        #: Packets received since the (re)start of the stream, duplicates included.
        self.received = 0
        self.restarts = 0
        #: Of the last report, in 1/256.
        self.fraction_lost = 0
        # The successor of the highest number, 16 bits; -1 before the first packet.
        self._next_seq = -1
        # Extended numbers.
        self._highest = 0
        self._base = 0
        # The successor of a packet that was out of range, -1 for none.
        self._bad_seq = -1
        self._expected_prior = 0
        self._received_prior = 0
        # Arrival minus timestamp of the last packet, in timestamp units; None before the first.
        self._transit: float | None = None
        self._jitter = 0.0
        self._ntp_middle = 0
        self._sr_at = 0.0

    def on_packet(self, seq: int, rtp_timestamp: int, arrival: float) -> None:
        """A packet has come: its 16-bit sequence number and 32-bit timestamp, and when."""
        if seq == self._next_seq:
            self._highest += 1
            self._next_seq = seq + 1 & 0xFFFF
        elif not self._on_unexpected(seq):
            return
        self.received += 1
        # A.8. Both clocks' offsets cancel out; so does a wrap-around of the timestamp, below.
        transit = arrival * self._clock_rate - rtp_timestamp
        last = self._transit
        self._transit = transit
        if last is None:
            return
        step = abs(transit - last)
        if step > self._max_step:
            step = abs(step - 0x1_0000_0000)
            if step > self._max_step:
                return
        self._jitter += (step - self._jitter) / 16.0

    def on_sender_report(self, report: SenderReport, now: float) -> None:
        """A sender report of this SSRC has come."""
        self._ntp_middle = report.ntp_time >> 16 & 0xFFFFFFFF
        self._sr_at = now

    @property
    def packets_lost(self) -> int:
        """Lost since the (re)start of the stream; negative where duplicates outnumber losses (A.3)."""
        if self._next_seq < 0:
            return 0
        return self._highest - self._base + 1 - self.received

    @property
    def jitter(self) -> float:
        """The interarrival jitter, in seconds."""
        return self._jitter / self._clock_rate

    def report(self, now: float) -> ReportBlock:
        """The block for a report sent now; its fraction lost is of the time since the last call.

        Before the first packet all of it but the SSRC is zero; such a block is better not sent.
        """
        lost = self.packets_lost
        expected = lost + self.received
        expected_interval = expected - self._expected_prior
        lost_interval = expected_interval - (self.received - self._received_prior)
        self._expected_prior = expected
        self._received_prior = self.received
        # Late packets and duplicates can make the loss of an interval negative: then it counts as none.
        fraction = 0
        if expected_interval > 0 and lost_interval > 0:
            fraction = min(255, (lost_interval << 8) // expected_interval)
        self.fraction_lost = fraction
        return ReportBlock(
            self.ssrc,
            fraction,
            max(-0x800000, min(0x7FFFFF, lost)),
            self._highest & 0xFFFFFFFF,
            int(self._jitter) & 0xFFFFFFFF,
            self._ntp_middle,
            min(0xFFFFFFFF, max(0, round((now - self._sr_at) * 65536))) if self._ntp_middle else 0,
        )

    def _on_unexpected(self, seq: int) -> bool:
        """The rest of A.1's update_seq; whether the packet counts."""
        if self._next_seq < 0:
            self._start(seq)
            return True
        step = seq - self._highest & 0xFFFF
        if step < MAX_DROPOUT:
            # Ahead with a gap, or (0) the highest once more.
            self._highest += step
            self._next_seq = seq + 1 & 0xFFFF
        elif step <= 0x10000 - MAX_MISORDER:
            if seq != self._bad_seq:
                self._bad_seq = seq + 1 & 0xFFFF
                return False
            self.restarts += 1
            self._start(seq)
        return True

    def _start(self, seq: int) -> None:
        self._base = self._highest = seq
        self._next_seq = seq + 1 & 0xFFFF
        self._bad_seq = -1
        self.received = self._expected_prior = self._received_prior = 0
        self._transit = None
