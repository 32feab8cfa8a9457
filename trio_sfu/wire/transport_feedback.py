"""The transport-wide congestion control feedback message: parse, pack, and build it from arrival times.

Owns draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1. Called by :mod:`trio_sfu.wire.rtcp` for
the parsing, and by whoever keeps the arrival times of a transport (``build``, some ten times a second with up
to hundreds of arrivals).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P|  FMT=15 |    PT=205     |           length              |
    |                     SSRC of packet sender                     |
    |                      SSRC of media source                     |
    |      base sequence number     |      packet status count      |
    |                 reference time                | fb pkt. count |
    |          packet chunk         |  ...          |  recv delta   |
    |           ...                 |  recv delta   | zero padding  |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct, unpack_from

from trio_sfu.wire.errors import BadPacket

FMT = 15
PAYLOAD_TYPE = 205

#: One delta unit is 250 µs, one unit of the reference time 64 ms.
TICKS_PER_SECOND = 4000
TICKS_PER_REFERENCE = 256

#: More statuses than half the sequence number space are ambiguous; and each costs a hostile sender next to
#: nothing.
MAX_STATUS_COUNT = 0x8000
#: A longer hole in the sequence numbers is a jump of the sender, not loss: ``build`` does not report on it.
MAX_GAP = 1000
#: One message of ``build`` stands for fewer numbers than this, so that many holes do not add up.
MAX_SPAN = 0x2000
MAX_SIZE = 1200

_MAX_RUN = 0x1FFF
_HEADER = Struct("!BBHIIHHI")
_BODY = Struct("!IIHHI")
_U16 = Struct("!H")
_S16 = Struct("!h")

# Statuses are handled as ASCII digits, so that one `int(…, 2)` or `int(…, 4)` packs a whole vector chunk.
_RUN = re.compile(rb"0+|1+|2+")
_NOT_RECEIVED, _SMALL, _LARGE = b"0"[0], b"1"[0], b"2"[0]
_RESERVED = b"3"[0]
_DIGITS = (b"0", b"1", b"2")
#: The four statuses of eight bits of a vector chunk.
_FOUR = tuple(bytes(_NOT_RECEIVED + (bits >> shift & 3) for shift in (6, 4, 2, 0)) for bits in range(256))


@dataclass(frozen=True, slots=True)
class TransportFeedback:
    """One feedback message.

    ``reference_time``: in 64 ms, signed 24 bits. ``deltas``: one entry a sequence number from
    ``base_sequence`` on: None where that packet was not received, else its arrival in 250 µs after the
    previous received one (the first: after the reference time), -32768 … 32767.
    """

    sender_ssrc: int
    media_ssrc: int
    base_sequence: int
    reference_time: int
    feedback_count: int
    deltas: tuple[int | None, ...]

    def to_bytes(self) -> bytes:
        """The whole packet, zero-padded to four bytes; the P bit stays clear, as mediasoup has it."""
        symbols = bytearray()
        received = bytearray()
        for delta in self.deltas:
            if delta is None:
                symbols.append(_NOT_RECEIVED)
            elif 0 <= delta <= 255:
                symbols.append(_SMALL)
                received.append(delta)
            else:
                symbols.append(_LARGE)
                received += _S16.pack(delta)
        chunks = _pack_chunks(bytes(symbols))
        size = _HEADER.size + len(chunks) + len(received)
        padding = -size & 3
        header = _HEADER.pack(
            0x80 | FMT,
            PAYLOAD_TYPE,
            (size + padding) // 4 - 1,
            self.sender_ssrc,
            self.media_ssrc,
            self.base_sequence,
            len(symbols),
            (self.reference_time & 0xFFFFFF) << 8 | self.feedback_count,
        )
        return header + chunks + received + bytes(padding)


def _pack_chunks(symbols: bytes) -> bytearray:
    """Status symbols, an ASCII digit each, to packet chunks; every chunk but the last has at least seven."""
    chunks = bytearray()
    position = 0
    count = len(symbols)
    while position < count:
        match = _RUN.match(symbols, position, position + _MAX_RUN)
        assert match is not None
        run = match.end() - position
        if run < 14 and position + run < count:
            window = symbols[position : position + 14]
            if _LARGE not in window:
                chunks += _U16.pack(0x8000 | int(window, 2) << (14 - len(window)))
                position += 14
                continue
            if run < 7:
                window = window[:7]
                chunks += _U16.pack(0xC000 | int(window, 4) << (14 - 2 * len(window)))
                position += 7
                continue
        chunks += _U16.pack((symbols[position] - _NOT_RECEIVED) << 13 | run)
        position += run
    return chunks


def parse(data: bytes | memoryview) -> TransportFeedback:
    """Read one whole feedback packet, header included. Raises BadPacket."""
    data = bytes(data)
    if len(data) < _HEADER.size:
        raise BadPacket("transport feedback is shorter than its header")
    if data[0] & 0xDF != 0x80 | FMT or data[1] != PAYLOAD_TYPE:
        raise BadPacket("not a transport feedback packet")
    if (_U16.unpack_from(data, 2)[0] + 1) * 4 != len(data):
        raise BadPacket("transport feedback's length field does not match its size")
    end = len(data)
    if data[0] & 0x20:
        end -= data[-1]
        if end == len(data):
            raise BadPacket("transport feedback has a padding count of zero")
    return parse_body(data, 4, end)


def parse_body(data: bytes, start: int, end: int) -> TransportFeedback:
    """Read the message whose bytes after the common header, without padding, are ``data[start:end]``.

    Raises BadPacket.
    """
    position = start + _BODY.size
    if position > end:
        raise BadPacket("transport feedback is shorter than its header")
    sender_ssrc, media_ssrc, base_sequence, count, time_and_count = _BODY.unpack_from(data, start)
    if count > MAX_STATUS_COUNT:
        raise BadPacket("transport feedback's status count exceeds half the sequence number space")
    reference_time = time_and_count >> 8
    if reference_time & 0x800000:
        reference_time -= 0x1000000

    symbols = bytearray()
    while len(symbols) < count:
        if position + 2 > end:
            raise BadPacket("transport feedback has too few status chunks")
        (chunk,) = _U16.unpack_from(data, position)
        position += 2
        if not chunk & 0x8000:
            symbol = chunk >> 13
            if symbol == 3:
                raise BadPacket("transport feedback has a reserved status")
            symbols += _DIGITS[symbol] * (chunk & _MAX_RUN)
        elif not chunk & 0x4000:
            symbols += format(chunk & 0x3FFF, "014b").encode()
        else:
            symbols += _FOUR[chunk >> 6 & 0xFF] + _FOUR[chunk & 0x3F][1:]
    del symbols[count:]
    if _RESERVED in symbols:
        raise BadPacket("transport feedback has a reserved status")

    # Run by run: a feedback on packets that all came within 64 ms of each other is a single slice.
    deltas: list[int | None] = []
    for run in _RUN.finditer(symbols):
        first, last = run.span()
        length = last - first
        symbol = symbols[first]
        if symbol == _SMALL:
            stop = position + length
            if stop > end:
                raise BadPacket("transport feedback has too few deltas")
            deltas += data[position:stop]
            position = stop
        elif symbol == _NOT_RECEIVED:
            deltas += [None] * length
        else:
            if position + 2 * length > end:
                raise BadPacket("transport feedback has too few deltas")
            if length == 1:
                deltas += _S16.unpack_from(data, position)
            else:
                deltas += unpack_from(f"!{length}h", data, position)
            position += 2 * length
    return TransportFeedback(
        sender_ssrc, media_ssrc, base_sequence, reference_time, time_and_count & 0xFF, tuple(deltas)
    )


def build(
    sender_ssrc: int,
    media_ssrc: int,
    feedback_count: int,
    arrivals: Sequence[tuple[int, float]],
    base_ext_seq: int,
    *,
    max_size: int = MAX_SIZE,
) -> list[TransportFeedback]:
    """The messages that report ``arrivals``, each at most ``max_size`` bytes long.

    ``arrivals``: (extended transport-wide sequence number, arrival in seconds), in any order; of a duplicate
    the first one in order of time counts. ``base_ext_seq``: the first number not reported yet; what is
    missing from there to the highest arrival is reported as not received. An arrival before it (a late one)
    is reported too, and then the message starts there: senders ignore a second verdict on a packet they know
    to be received.

    A new message starts where a delta does not fit into 16 bits, where the size would be exceeded, and after
    a hole of more than ``MAX_GAP`` numbers, on which nothing is reported. The messages count up from
    ``feedback_count`` (modulo 256): the caller's next one is ``feedback_count + len(result)``, its next base
    the highest arrival plus one.
    """
    messages: list[TransportFeedback] = []
    if not arrivals:
        return messages
    ordered = sorted(arrivals)
    # The budget is in sevenths of a byte: a status costs at most 2/7 of a byte in chunks and its delta one or
    # two bytes, a hole of seven or more at most two chunks. (A chunk either holds seven statuses outside such
    # holes, or the first status of one, or begins within one; at most one chunk begins within each.) Left out
    # are the last chunk and the padding.
    budget = (max_size - _HEADER.size - 2 - 3) * 7
    deltas: list[int | None] = []
    append = deltas.append
    base = expected = min(base_ext_seq, ordered[0][0])
    if ordered[0][0] - base > MAX_GAP:
        base = expected = ordered[0][0]
    reference = last_tick = _floor(int(ordered[0][1] * TICKS_PER_SECOND + 0.5))
    cost = 0
    for sequence, seconds in ordered:
        gap = sequence - expected
        if gap < 0:
            continue
        tick = int(seconds * TICKS_PER_SECOND + 0.5)
        delta = tick - last_tick
        if 0 <= delta <= 255:
            cost += 9
        else:
            cost += 16
        if gap:
            cost += _gap_cost(gap)
            if sequence - base >= MAX_SPAN:
                cost = budget + 1
        if cost > budget or gap > MAX_GAP or not -0x8000 <= delta <= 0x7FFF:
            if deltas:
                messages.append(
                    _message(sender_ssrc, media_ssrc, base, reference, feedback_count + len(messages), deltas)
                )
                deltas.clear()
            if gap > MAX_GAP:
                expected = sequence
                gap = 0
            base = expected
            reference = _floor(tick)
            delta = tick - reference
            cost = 9 + _gap_cost(gap)
        if gap:
            deltas += [None] * gap
        append(delta)
        last_tick = tick
        expected = sequence + 1
    messages.append(_message(sender_ssrc, media_ssrc, base, reference, feedback_count + len(messages), deltas))
    return messages


def _floor(tick: int) -> int:
    return tick - tick % TICKS_PER_REFERENCE


def _gap_cost(gap: int) -> int:
    return 2 * gap if gap < 7 else 28


def _message(
    sender_ssrc: int,
    media_ssrc: int,
    base: int,
    reference: int,
    feedback_count: int,
    deltas: list[int | None],
) -> TransportFeedback:
    # The reference time wraps at 24 bits, signed: some twelve days.
    reference_time = (reference // TICKS_PER_REFERENCE + 0x800000 & 0xFFFFFF) - 0x800000
    return TransportFeedback(
        sender_ssrc, media_ssrc, base & 0xFFFF, reference_time, feedback_count & 0xFF, tuple(deltas)
    )
