from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.wire.dtls_records import looks_like_dtls, pack_records, split_records

LIMIT = 1200


def _record(length: int) -> bytes:
    return b"\x16\xfe\xfd" + bytes(8) + length.to_bytes(2, "big") + bytes([length % 251]) * length


@settings(deadline=None)
@given(st.lists(st.integers(0, LIMIT - 13), max_size=20))
def test_records_stay_whole_and_in_order(lengths: list[int]) -> None:
    """Datagrams join up to the input, none is too long, none begins or ends inside a record, none could have
    taken the first record of the next one."""
    records = [_record(length) for length in lengths]
    datagrams = pack_records(b"".join(records), LIMIT)
    assert b"".join(datagrams) == b"".join(records)
    waiting = list(records)
    for datagram in datagrams:
        assert len(datagram) <= LIMIT
        while datagram:
            record = waiting.pop(0)
            assert datagram.startswith(record)
            datagram = datagram[len(record) :]
    for datagram, after in pairwise(datagrams):
        first_record = 13 + int.from_bytes(after[11:13], "big")
        assert len(datagram) + first_record > LIMIT


def test_records_of_dtls_1_3() -> None:
    """Unified headers (RFC 9147 section 4): 8-bit or 16-bit sequence number, length or none."""
    short = b"\x26\x01" + (600).to_bytes(2, "big") + bytes(600)
    long = b"\x2e\x00\x02" + (700).to_bytes(2, "big") + bytes(700)
    to_the_end = b"\x2a\x00\x03" + bytes(100)
    assert pack_records(short + long + to_the_end, LIMIT) == [short, long + to_the_end]


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_packing_never_loses_a_byte(data: bytes) -> None:
    """Whatever OpenSSL should ever give, all of it goes out."""
    assert b"".join(pack_records(data, LIMIT)) == data


def test_a_record_longer_than_the_limit_goes_alone() -> None:
    long, short = _record(LIMIT), _record(5)
    assert pack_records(short + long + short, LIMIT) == [short, long, short]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", False),
        (b"\x16" * 12, False),
        (b"\x16" + bytes(12), True),
        (b"\x13" + bytes(12), False),
        (b"\x3f" + bytes(12), True),
        (b"\x40" + bytes(12), False),
    ],
)
def test_looks_like_dtls(data: bytes, expected: bool) -> None:
    assert looks_like_dtls(data) == expected
    assert looks_like_dtls(memoryview(data)) == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(20, 31), st.binary(max_size=50)), max_size=5), st.binary(max_size=12))
def test_what_is_split_is_what_was_joined(records: list[tuple[int, bytes]], rest: bytes) -> None:
    """Up to what is no whole record."""
    numbers = [bytes((0, 1)) + index.to_bytes(6, "big") for index in range(len(records))]
    joined = b"".join(
        bytes((content_type,)) + b"\xfe\xfd" + number + len(fragment).to_bytes(2, "big") + fragment
        for number, (content_type, fragment) in zip(numbers, records, strict=True)
    )
    found = list(split_records(joined + rest))
    assert [(record.content_type, record.fragment) for record in found] == records
    assert [record.number for record in found] == numbers
    assert {record.version for record in found} <= {b"\xfe\xfd"}


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_splitting_never_raises_and_never_reads_on(data: bytes) -> None:
    assert sum(13 + len(record.fragment) for record in split_records(data)) <= len(data)


def test_a_record_that_is_cut_is_none() -> None:
    whole = _record(20)
    assert [record.fragment for record in split_records(whole + whole[:-1])] == [whole[13:]]
