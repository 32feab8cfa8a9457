"""Reception statistics: RFC 3550, A.1, A.3 and A.8, as tables and against the RFC's own code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.media.reception import MAX_DROPOUT, MAX_MISORDER, ReceptionStatistics
from trio_sfu.wire.rtcp import ReceiverReport, ReportBlock, SenderReport, parse_compound

SSRC = 0x1234


def received(*seqs: int) -> ReceptionStatistics:
    stats = ReceptionStatistics(SSRC, 90000)
    for seq in seqs:
        stats.on_packet(seq, 0, 0.0)
    return stats


def wrapped(first: int, count: int) -> list[int]:
    return [(first + i) & 0xFFFF for i in range(count)]


def test_before_the_first_packet() -> None:
    assert ReceptionStatistics(SSRC, 90000).report(5.0) == ReportBlock(SSRC, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("seqs", "highest", "lost", "fraction"),
    [
        ([0], 0, 0, 0),
        ([65535], 65535, 0, 0),
        ([10, 11, 12], 12, 0, 0),
        ([10, 12], 12, 1, 256 // 3),
        ([10, 12, 11], 12, 0, 0),
        ([10, 11, 11], 11, -1, 0),
        ([10, 11, 11, 13], 13, 0, 0),
        ([10, 9], 10, -1, 0),  # A.1: what came before the first counts as received, not as expected
        ([65534, 65535, 0, 1], 0x10001, 0, 0),
        ([65534, 1], 0x10001, 2, 128),
        ([65534, 1, 65535, 0], 0x10001, 0, 0),
        ([65535, 0, 65535], 0x10000, -1, 0),
        ([0, 65535], 0, -1, 0),
        ([*wrapped(0, 65536), *wrapped(0, 65536)], 0x1FFFF, 0, 0),
        ([0, MAX_DROPOUT - 1], MAX_DROPOUT - 1, MAX_DROPOUT - 2, (MAX_DROPOUT - 2) * 256 // MAX_DROPOUT),
        ([1000, 1000 - MAX_MISORDER + 1], 1000, -1, 0),
        # Out of range once: not counted.
        ([0, MAX_DROPOUT], 0, 0, 0),
        ([0, MAX_DROPOUT, 1], 1, 0, 0),
        ([0, 30000, 1, 20000, 2], 2, 0, 0),
        ([1000, 1000 - MAX_MISORDER], 1000, 0, 0),
        # And then its successor: a restart.
        ([0, MAX_DROPOUT, MAX_DROPOUT + 1], MAX_DROPOUT + 1, 0, 0),
        ([40000, 65535, 0, 2], 2, 1, 256 // 3),
        ([1000, 800, 801, 802], 802, 0, 0),
        ([0, 2, 4, 30000, 30001], 30001, 0, 0),
    ],
)
def test_sequence_numbers(seqs: list[int], highest: int, lost: int, fraction: int) -> None:
    block = received(*seqs).report(0.0)
    assert (block.highest_sequence, block.packets_lost, block.fraction_lost) == (highest, lost, fraction)


def test_the_fraction_is_of_the_interval() -> None:
    stats = received(*range(0, 20, 2))
    block = stats.report(0.0)
    assert (block.fraction_lost, block.packets_lost) == (9 * 256 // 19, 9)
    assert stats.report(0.0).fraction_lost == 0
    for seq in range(19, 59):
        stats.on_packet(seq, 0, 0.0)
    block = stats.report(0.0)
    assert (block.fraction_lost, block.packets_lost) == (0, 9)
    # Four lost, then four late ones of the interval before.
    for seq in (59, 64):
        stats.on_packet(seq, 0, 0.0)
    block = stats.report(0.0)
    assert (block.fraction_lost, block.packets_lost) == (4 * 256 // 6, 13)
    for seq in (60, 61, 62, 63, 65):
        stats.on_packet(seq, 0, 0.0)
    block = stats.report(0.0)
    assert (block.fraction_lost, block.packets_lost) == (0, 9)


def test_a_restart_begins_anew() -> None:
    stats = received(0, 2, 4)
    stats.report(0.0)
    for seq in (30000, 30001, 30003):
        stats.on_packet(seq, 0, 0.0)
    assert stats.restarts == 1
    assert stats.received == 2
    block = stats.report(0.0)
    assert (block.highest_sequence, block.packets_lost, block.fraction_lost) == (30003, 1, 256 // 3)


def test_lost_is_clamped_to_24_bits() -> None:
    stats = ReceptionStatistics(SSRC, 90000)
    for i in range(3000):
        stats.on_packet(i * 2999 & 0xFFFF, 0, 0.0)
    assert stats.packets_lost > 0x7FFFFF
    block = stats.report(0.0)
    assert block.packets_lost == 0x7FFFFF
    report = ReceiverReport(1, (block,))
    assert parse_compound(report.to_bytes()) == (report,)


# Jitter.


def test_a_steady_stream_has_no_jitter() -> None:
    stats = ReceptionStatistics(SSRC, 48000)
    for i in range(100):
        stats.on_packet(i, i * 960, 5.0 + i * 0.02)
    assert stats.report(10.0).jitter == 0
    assert stats.jitter == pytest.approx(0.0, abs=1e-9)


def test_jitter_is_a_sixteenth_of_each_step() -> None:
    stats = ReceptionStatistics(SSRC, 8000)
    stats.on_packet(0, 0, 0.0)
    stats.on_packet(1, 160, 0.02 + 0.01)  # 80 units late
    assert stats.jitter * 8000 == pytest.approx(5.0)
    stats.on_packet(2, 320, 0.04)  # and back
    assert stats.jitter * 8000 == pytest.approx(5.0 + 75.0 / 16)
    assert stats.report(0.0).jitter == 9


@pytest.mark.parametrize("start", [0, 2**32 - 960, 2**32 - 960 * 3, 2**31])
def test_the_timestamp_wraps(start: int) -> None:
    stats = ReceptionStatistics(SSRC, 48000)
    for i in range(10):
        stats.on_packet(i, start + i * 960 & 0xFFFFFFFF, i * 0.02 + (0.01 if i == 9 else 0))
    assert stats.jitter * 48000 == pytest.approx(480 / 16)


def test_a_new_timestamp_base_is_no_jitter() -> None:
    stats = ReceptionStatistics(SSRC, 48000)
    for i in range(10):
        stats.on_packet(i, (0 if i < 5 else 0x40000000) + i * 960, i * 0.02)
    assert stats.jitter == pytest.approx(0.0, abs=1e-9)


def test_a_restart_keeps_the_jitter_and_compares_nothing_across_it() -> None:
    stats = ReceptionStatistics(SSRC, 8000)
    stats.on_packet(0, 0, 0.0)
    stats.on_packet(1, 160, 0.03)
    stats.on_packet(30000, 7000, 0.04)
    stats.on_packet(30001, 7160, 0.06)
    stats.on_packet(30002, 7320, 0.08)
    assert stats.jitter * 8000 == pytest.approx(5.0 * 15 / 16)


# LSR and DLSR.


def test_last_sender_report() -> None:
    stats = received(1)
    stats.on_sender_report(SenderReport(SSRC, 0xAAAABBBB_CCCCDDDD, 0, 0, 0), 10.0)
    block = stats.report(12.5)
    assert (block.lsr, block.dlsr) == (0xBBBBCCCC, 2 * 65536 + 32768)
    stats.on_sender_report(SenderReport(SSRC, 0x1_00000000, 0, 0, 0), 13.0)
    block = stats.report(13.0)
    assert (block.lsr, block.dlsr) == (0x10000, 0)


def test_the_delay_is_clamped() -> None:
    stats = received(1)
    stats.on_sender_report(SenderReport(SSRC, 1 << 32, 0, 0, 0), 10.0)
    assert stats.report(9.0).dlsr == 0
    assert stats.report(10.0 + 70000).dlsr == 0xFFFFFFFF


class Rfc3550:
    """update_seq, the loss computation and the jitter as RFC 3550 prints them (A.1 without probation, A.3, A.8)."""

    def __init__(self, seq: int) -> None:
        self.init_seq(seq)
        self.jitter = 0.0
        self.received = 1

    def init_seq(self, seq: int) -> None:
        self.base_seq = self.max_seq = seq
        self.bad_seq = 65537
        self.cycles = self.received = self.received_prior = self.expected_prior = 0

    def update_seq(self, seq: int) -> None:
        udelta = (seq - self.max_seq) & 0xFFFF
        if udelta < 3000:
            if seq < self.max_seq:
                self.cycles += 65536
            self.max_seq = seq
        elif udelta <= 65536 - 100:
            if seq != self.bad_seq:
                self.bad_seq = (seq + 1) & 0xFFFF
                return
            self.init_seq(seq)
        self.received += 1

    def report(self) -> tuple[int, int, int]:
        extended = self.cycles + self.max_seq
        expected = extended - self.base_seq + 1
        expected_interval = expected - self.expected_prior
        self.expected_prior = expected
        received_interval = self.received - self.received_prior
        self.received_prior = self.received
        lost_interval = expected_interval - received_interval
        fraction = 0
        if expected_interval != 0 and lost_interval > 0:
            fraction = (lost_interval << 8) // expected_interval
        return extended, expected - self.received, fraction


steps = st.one_of(st.integers(-3, 5), st.integers(-150, 150), st.integers(0, 0xFFFF))


@given(st.integers(0, 0xFFFF), st.lists(st.tuples(steps, st.integers(1, 4), st.booleans()), max_size=80))
def test_against_the_rfc(start: int, moves: list[tuple[int, int, bool]]) -> None:
    """Loss, fraction and extended highest number are those of the RFC's code, whatever comes."""
    stats = ReceptionStatistics(SSRC, 90000)
    stats.on_packet(start, 0, 0.0)
    model = Rfc3550(start)
    seq = start
    for step, run, reported in moves:
        seq = seq + step & 0xFFFF
        for _ in range(run):
            stats.on_packet(seq, 0, 0.0)
            model.update_seq(seq)
            seq = seq + 1 & 0xFFFF
        if reported:
            block = stats.report(0.0)
            highest, lost, fraction = model.report()
            assert block.highest_sequence == highest & 0xFFFFFFFF
            assert (block.packets_lost, block.fraction_lost) == (lost, min(255, fraction))
