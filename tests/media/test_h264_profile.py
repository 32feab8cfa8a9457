"""trio_sfu.media.h264_profile, by the cases of libwebrtc's own unit tests and RFC 6184."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.media.h264_profile import (
    LEVEL_1B,
    Profile,
    ProfileLevelId,
    answer_profile_level_id,
    format_profile_level_id,
    from_parameters,
    is_same_profile,
    parse_profile_level_id,
)


@pytest.mark.parametrize(
    "text", ["", " 42e01f", "4242e01f", "e01f", "gggggg", "000000", "42e000", "٤٢e01f", "42e01f\n"]
)
def test_nonsense_is_no_profile(text: str) -> None:
    assert parse_profile_level_id(text) is None


@pytest.mark.parametrize(
    ("text", "profile", "level"),
    [
        ("42e01f", Profile.CONSTRAINED_BASELINE, 31),
        ("42E01F", Profile.CONSTRAINED_BASELINE, 31),
        ("42c02a", Profile.CONSTRAINED_BASELINE, 42),
        ("4de01f", Profile.CONSTRAINED_BASELINE, 31),
        ("58f01f", Profile.CONSTRAINED_BASELINE, 31),
        ("42a01f", Profile.BASELINE, 31),
        ("42001f", Profile.BASELINE, 31),
        ("58a01f", Profile.BASELINE, 31),
        ("4d401f", Profile.MAIN, 31),
        ("4d001f", Profile.MAIN, 31),
        ("640c1f", Profile.CONSTRAINED_HIGH, 31),
        ("64001f", Profile.HIGH, 31),
        ("640034", Profile.HIGH, 52),
        ("f4001f", Profile.PREDICTIVE_HIGH_444, 31),
        ("42e00b", Profile.CONSTRAINED_BASELINE, 11),
        ("42f00b", Profile.CONSTRAINED_BASELINE, LEVEL_1B),
        ("42100b", Profile.BASELINE, LEVEL_1B),
        ("4d100b", Profile.MAIN, LEVEL_1B),
    ],
)
def test_parse(text: str, profile: Profile, level: int) -> None:
    assert parse_profile_level_id(text) == (profile, level)


@pytest.mark.parametrize("text", ["42e11f", "58601f", "64e01f", "ff001f"])
def test_unknown_constraint_sets_are_no_profile(text: str) -> None:
    assert parse_profile_level_id(text) is None


@given(st.integers(0, 0xFFFFFF))
def test_what_parses_formats_to_something_equal(number: int) -> None:
    """Invariant: three bytes are refused, or their canonical form parses to the same value."""
    parsed = parse_profile_level_id(f"{number:06x}")
    if parsed is not None:
        text = format_profile_level_id(parsed)
        assert text is not None
        assert parse_profile_level_id(text) == parsed


def test_format() -> None:
    assert format_profile_level_id(ProfileLevelId(Profile.CONSTRAINED_HIGH, 51)) == "640c33"
    assert format_profile_level_id(ProfileLevelId(Profile.MAIN, 10)) == "4d000a"
    assert format_profile_level_id(ProfileLevelId(Profile.CONSTRAINED_BASELINE, LEVEL_1B)) == "42f00b"
    assert format_profile_level_id(ProfileLevelId(Profile.HIGH, LEVEL_1B)) is None


def test_parameters_default_to_constrained_baseline_and_numbers_are_their_digits() -> None:
    assert from_parameters({}) == (Profile.CONSTRAINED_BASELINE, 31)
    assert from_parameters({"profile-level-id": 640034}) == (Profile.HIGH, 52)
    assert from_parameters({"profile-level-id": "xyz"}) is None


def test_same_profile_whatever_the_level() -> None:
    assert is_same_profile({"foo": "foo"}, {"bar": "bar"})
    assert is_same_profile({"profile-level-id": "42e01f"}, {"profile-level-id": "42C02A"})
    assert is_same_profile({"profile-level-id": "42e01f"}, {})
    assert is_same_profile({"profile-level-id": "640c1f"}, {"profile-level-id": "640c28"})
    assert not is_same_profile({}, {"profile-level-id": "4d001f"})
    assert not is_same_profile({"profile-level-id": "42a01f"}, {"profile-level-id": "42e01f"})
    assert not is_same_profile({"profile-level-id": "bad"}, {"profile-level-id": "bad"})


def _h264(text: str, asymmetry: int | str = 0) -> dict[str, str | int | float]:
    return {"profile-level-id": text, "level-asymmetry-allowed": asymmetry}


@pytest.mark.parametrize(
    ("local", "remote", "answer"),
    [
        ({}, {}, None),
        (_h264("42e015"), _h264("42e01f"), "42e015"),
        (_h264("42e01f"), _h264("42e015"), "42e015"),
        (_h264("42e01f", 1), _h264("42e015", 1), "42e01f"),
        (_h264("42e01f", "1"), _h264("42e015", "1"), "42e01f"),
        (_h264("42e01f", 1), _h264("42e015", 0), "42e015"),
        # 1b lies between 1 and 1.1.
        (_h264("42f00b"), _h264("42e00a"), "42e00a"),
        (_h264("42f00b"), _h264("42e00b"), "42f00b"),
        (_h264("42e01f"), {}, "42e01f"),
        ({}, _h264("42e01f"), "42e01f"),
        (_h264("42e01f"), _h264("4d001f"), None),
        (_h264("bad"), _h264("42e01f"), None),
    ],
)
def test_answer(local: dict[str, str | int | float], remote: dict[str, str | int | float], answer: str | None) -> None:
    assert answer_profile_level_id(local, remote) == answer
