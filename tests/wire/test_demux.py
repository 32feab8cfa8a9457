import pytest

from trio_sfu.wire import demux


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [
        (0, 3, demux.STUN),
        (4, 15, demux.UNKNOWN),
        (16, 19, demux.ZRTP),
        (20, 63, demux.DTLS),
        (64, 79, demux.TURN),
        (80, 127, demux.UNKNOWN),
        (128, 191, demux.RTP_OR_RTCP),
        (192, 255, demux.UNKNOWN),
    ],
)
def test_ranges_of_rfc_7983(first: int, last: int, kind: int) -> None:
    assert {demux.KIND_OF_FIRST_BYTE[byte] for byte in range(first, last + 1)} == {kind}


def test_the_table_answers_for_every_byte_with_distinct_kinds() -> None:
    kinds = {demux.UNKNOWN, demux.STUN, demux.ZRTP, demux.DTLS, demux.TURN, demux.RTP_OR_RTCP}
    assert len(kinds) == 6
    assert len(demux.KIND_OF_FIRST_BYTE) == 256
    assert set(demux.KIND_OF_FIRST_BYTE) == kinds


def test_rtcp_by_second_byte() -> None:
    assert [byte for byte in range(256) if demux.is_rtcp(byte)] == list(range(192, 224))
    marker = 0x80
    assert not demux.is_rtcp(111)  # Opus
    assert not demux.is_rtcp(marker | 96)  # the first dynamic payload type, last packet of a frame
    assert demux.is_rtcp(200)  # a sender report
    assert demux.is_rtcp(206)  # payload-specific feedback
