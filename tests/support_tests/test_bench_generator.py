"""What the compiled generator is told: keys, templates, arrivals; and that libsrtp understands what it sends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pylibsrtp
import pytest

from bench.cc import NoCompiler, compiled
from bench.endpoint import packed_arrivals
from bench.mmsg import open_connected_socket
from bench.native import Generator
from bench.recipe import FIRST, LAST, extension_at, recipe, recording
from bench.rtp import ABS_SEND_TIME_ID, MID_ID, TRANSPORT_CC_ID, StreamFormat, parse_rtp
from bench.srtp_keys import derive, gcm_session_keys
from trio_sfu.wire.rtcp import ReceiverReport, parse_compound

MASTER = bytes(range(28))


def test_session_keys_are_those_of_rfc_3711_appendix_b3() -> None:
    key, salt = bytes.fromhex("E1F97A0D3E018BE0D64FA32C06DE4139"), bytes.fromhex("0EC675AD498AFEEBB6960B3AABE6")
    assert derive(key, salt, 0, 16).hex().upper() == "C61E7A93744F39EE10734AFE3FF7A087"
    assert derive(key, salt, 2, 14).hex().upper() == "30CBBC08863D8C85D49DB34A9AE1"


def test_only_keys_of_gcm_are_taken() -> None:
    with pytest.raises(ValueError, match="AES-128-GCM"):
        gcm_session_keys(bytes(30))


def test_templates_are_a_stream_s_own_packets() -> None:
    stream = StreamFormat.vp8()
    made = recipe(stream)
    assert len(made.packets) == 3
    packets = [parse_rtp(packet) for packet in made.packets]
    assert {packet.ssrc for packet in packets} == {stream.ssrc}
    assert {len(packet) for packet in made.packets} == {1200}
    whole = made.packets[0]
    assert whole[extension_at(whole, MID_ID)] == ord("0")
    assert made.transport_cc_at == extension_at(whole, TRANSPORT_CC_ID)
    assert made.send_time_at == extension_at(whole, ABS_SEND_TIME_ID)
    assert whole[made.picture_at] & 0x80  # the PictureID's M bit
    assert whole[-made.mark_at :].startswith(b"mark")
    assert extension_at(whole, 14) == -1


def test_a_recording_keeps_its_frames() -> None:
    made = recording(StreamFormat.vp8(), [[b"a", b"b"], [b"c"]])
    assert made.flags == (FIRST, LAST, FIRST | LAST)
    assert [parse_rtp(packet).payload for packet in made.packets] == [b"a", b"b", b"c"]
    assert made.clip
    assert made.mark_at == -1


def test_packets_of_one_drain_came_together() -> None:
    reference_time, deltas = packed_arrivals([(3, 64_000_000 * 5 + 250_000 * 8), (1, 64_000_000 * 5 + 250_000 * 12)])
    assert (reference_time, deltas) == (5, bytes((8, 0, 0, 4)))


def test_the_server_reads_a_report_of_many_blocks() -> None:
    from bench.rtcp import Block, receiver_reports

    (report,) = parse_compound(receiver_reports(1, [Block(2, 70_000, lost=3), Block(4, 5)]))
    assert isinstance(report, ReceiverReport)
    assert [(block.ssrc, block.highest_sequence) for block in report.reports] == [(2, 70_000), (4, 5)]


@pytest.fixture
def generator() -> Generator:
    try:
        compiled("generator.c", shared=True, crypto=True)
    except NoCompiler as error:
        pytest.skip(str(error))
    return Generator(ports=2, sources=1)


def _run_until(generator: Generator, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not ready():
        assert time.monotonic() < deadline
        generator.run(time.monotonic_ns() + 1_000_000, 0)


def _session(kind: int) -> pylibsrtp.Session:
    policy = pylibsrtp.Policy(key=MASTER, ssrc_type=kind, srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
    return pylibsrtp.Session(policy)


def test_libsrtp_understands_the_generator_through_a_rollover(generator: Generator) -> None:
    stream = StreamFormat.vp8(size=200)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        with open_connected_socket(server.getsockname()) as sock:
            keys = gcm_session_keys(MASTER)
            port = generator.add_port(sock, keys, keys)
            now = time.monotonic_ns()
            source = generator.add_source(port, recipe(stream), rate=300, frames=30, due=now)
            source.number = 65530
            # Two frames are due at once; no time need pass.
            generator.run(now, now + source.interval)
            source.due = now
            generator.run(now, now + source.interval)
            received = [server.recv(2048) for _ in range(source.sent)]
    generator.close()
    session = _session(pylibsrtp.Policy.SSRC_ANY_INBOUND)
    packets = [parse_rtp(session.unprotect(data)) for data in received]
    assert [packet.sequence_number for packet in packets] == [(65530 + i) & 0xFFFF for i in range(20)]
    marks = [packet.mark for packet in packets]
    assert [mark.number if mark else None for mark in marks] == list(range(20))
    assert [packet.marker for packet in packets] == ([False] * 9 + [True]) * 2
    assert [int.from_bytes(packet.extensions[TRANSPORT_CC_ID]) for packet in packets] == list(range(20))
    assert packets[0].payload[4] & 1 == 0  # a key frame first (RFC 7741, section 4.3)
    assert packets[10].payload[4] & 1 == 1


def test_the_generator_counts_gaps_and_checks_what_libsrtp_sends(generator: Generator) -> None:
    stream = StreamFormat.vp8(size=200)
    template = bytearray(recipe(stream).packets[0])
    session = _session(pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with open_connected_socket(server.getsockname()) as sock:
            keys = gcm_session_keys(MASTER)
            port = generator.add_port(sock, keys, keys, TRANSPORT_CC_ID)
            counted = generator.add_stream(port, stream.ssrc)
            late = b""
            for number in (65534, 65535, 0, 1, 3, 4):
                template[2:4] = number.to_bytes(2)
                template[-8:] = time.time_ns().to_bytes(8)
                server.sendto(session.protect(bytes(template)), sock.getsockname())
            template[2:4] = (2).to_bytes(2)
            late = session.protect(bytes(template))
            server.sendto(b"\x00\x01other", sock.getsockname())
            _run_until(generator, lambda: generator.counts.other_count == 1)
            assert (counted.delivered, counted.gaps, counted.missing_count, counted.missing[0]) == (6, 1, 1, 2)
            assert (counted.cycles, counted.expected) == (1, 5)
            server.sendto(late, sock.getsockname())
            server.sendto(late, sock.getsockname())
            _run_until(generator, lambda: counted.duplicates == 1)
            assert (counted.delivered, counted.gaps, counted.missing_count, counted.duplicates) == (7, 0, 0, 1)
    assert generator.counts.samples == 2  # the first, and number 0
    assert generator.counts.bad_samples == 0
    assert len(generator.take_latencies()) == 2
    assert generator.take_others() == [(port, b"\x00\x01other")]
    generator.close()
