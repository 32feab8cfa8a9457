"""Whatever the bytes: observing never raises, and a repeat is None or some payloads."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.coded_video import encode, packetize
from trio_sfu.media.stills import card, make_plain, make_repeater

REAL = {
    "VP8": "-c:v libvpx -deadline realtime -cpu-used 8 -error-resilient 1 -g 300",
    "VP9": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 300",
    "H264": "-c:v libx264 -tune zerolatency -g 300",
    "AV1": "-c:v libaom-av1 -usage realtime -cpu-used 8 -lag-in-frames 0 -g 300",
}


def real_payloads(codec: str) -> list[bytes]:
    frames = encode(codec, REAL[codec], frames=5)
    payloads = [each for number, frame in enumerate(frames) for each in packetize(codec, frame, number)]
    return [*card(f"video/{codec}"), *payloads]


def check(codec: str, payloads: list[bytes]) -> None:
    repeater = make_repeater(f"video/{codec}")
    assert repeater is not None
    plain = make_plain(f"video/{codec}")
    for payload in payloads:
        repeater.observe(payload, marker=True, first=True)
        repeater.observe(plain(payload), marker=False, first=False)
        repeat = repeater.repeat()
        assert repeat is None or all(0 < len(each) <= 1200 for each in repeat)


@given(st.sampled_from(list(REAL)), st.lists(st.binary(max_size=80), max_size=6))
@settings(max_examples=300, deadline=None)
def test_random_bytes(codec: str, payloads: list[bytes]) -> None:
    check(codec, payloads)


@given(
    st.sampled_from(list(REAL)),
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 60), st.integers(0, 255), st.integers(0, 700)),
        min_size=1,
        max_size=12,
    ),
)
@settings(max_examples=300, deadline=None)
def test_mutated_payloads(codec: str, changes: list[tuple[int, int, int, int]]) -> None:
    payloads = real_payloads(codec)
    for number, at, value, end in changes:
        chosen = bytearray(payloads[number % len(payloads)])
        if at < len(chosen):
            chosen[at] = value
        payloads[number % len(payloads)] = bytes(chosen[: max(end, 1)])
    check(codec, payloads)
