"""H.264 profile-level-id: parsing, comparing, and the level to answer with.

Used by :mod:`trio_sfu.media.codec_matching` only. The semantics are those of libwebrtc's
``h264_profile_level_id`` (and of the npm package of that name, which mediasoup uses): RFC 6184
section 8.1 for the profile patterns, section 8.2.2 for offer and answer.
"""

import enum
import re
from collections.abc import Mapping
from typing import Final, NamedTuple


class Profile(enum.Enum):
    """The profiles that WebRTC tells apart."""

    CONSTRAINED_BASELINE = "constrained-baseline"
    BASELINE = "baseline"
    MAIN = "main"
    CONSTRAINED_HIGH = "constrained-high"
    HIGH = "high"
    PREDICTIVE_HIGH_444 = "predictive-high-444"


# Levels are ten times their name (3.1 is 31, as level_idc has it), except 1b, which shares its
# level_idc with 1.1 and lies between 1 and 1.1.
LEVEL_1B: Final = 0
_LEVEL_1: Final = 10
_LEVEL_1_1: Final = 11
_LEVELS: Final = frozenset({10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52})

_CONSTRAINT_SET3: Final = 0x10


class ProfileLevelId(NamedTuple):
    """A parsed profile-level-id."""

    profile: Profile
    level: int


# RFC 6184 says Baseline level 1 where the parameter is absent; every WebRTC endpoint takes
# constrained baseline 3.1 instead (crbug.com/webrtc/6337), so that is what an absent one means here.
DEFAULT: Final = ProfileLevelId(Profile.CONSTRAINED_BASELINE, 31)

# profile_idc, mask and value of profile_iop, profile: the table of RFC 6184 section 8.1.
_PATTERNS: Final = (
    (0x42, 0b0100_1111, 0b0100_0000, Profile.CONSTRAINED_BASELINE),
    (0x4D, 0b1000_1111, 0b1000_0000, Profile.CONSTRAINED_BASELINE),
    (0x58, 0b1100_1111, 0b1100_0000, Profile.CONSTRAINED_BASELINE),
    (0x42, 0b0100_1111, 0b0000_0000, Profile.BASELINE),
    (0x58, 0b1100_1111, 0b1000_0000, Profile.BASELINE),
    (0x4D, 0b1010_1111, 0b0000_0000, Profile.MAIN),
    (0x64, 0b1111_1111, 0b0000_0000, Profile.HIGH),
    (0x64, 0b1111_1111, 0b0000_1100, Profile.CONSTRAINED_HIGH),
    (0xF4, 0b1111_1111, 0b0000_0000, Profile.PREDICTIVE_HIGH_444),
)
_CANONICAL: Final = {
    Profile.CONSTRAINED_BASELINE: "42e0",
    Profile.BASELINE: "4200",
    Profile.MAIN: "4d00",
    Profile.CONSTRAINED_HIGH: "640c",
    Profile.HIGH: "6400",
    Profile.PREDICTIVE_HIGH_444: "f400",
}
_CANONICAL_1B: Final = {
    Profile.CONSTRAINED_BASELINE: "42f00b",
    Profile.BASELINE: "42100b",
    Profile.MAIN: "4d100b",
}
_SIX_HEX_DIGITS = re.compile(r"[0-9a-fA-F]{6}", re.ASCII)


def parse_profile_level_id(text: str) -> ProfileLevelId | None:
    """Parse three bytes of hex; ``None`` where they name no profile and level that is known."""
    if not _SIX_HEX_DIGITS.fullmatch(text):
        return None
    profile_idc, profile_iop, level_idc = bytes.fromhex(text)
    if level_idc not in _LEVELS:
        return None
    level = level_idc
    if level_idc == _LEVEL_1_1 and profile_iop & _CONSTRAINT_SET3:
        level = LEVEL_1B
    for idc, mask, value, profile in _PATTERNS:
        if profile_idc == idc and profile_iop & mask == value:
            return ProfileLevelId(profile, level)
    return None


def format_profile_level_id(value: ProfileLevelId) -> str | None:
    """The canonical three bytes of hex; ``None`` for level 1b of a profile that has no such level."""
    if value.level == LEVEL_1B:
        return _CANONICAL_1B.get(value.profile)
    return f"{_CANONICAL[value.profile]}{value.level:02x}"


def from_parameters(parameters: Mapping[str, str | int | float]) -> ProfileLevelId | None:
    """The profile-level-id of a codec's parameters: the default where absent, ``None`` where bad."""
    given = parameters.get("profile-level-id")
    # SDP parsers turn 640034 into a number: its decimal digits are the text that was meant.
    return parse_profile_level_id(str(given)) if given else DEFAULT


def is_same_profile(a: Mapping[str, str | int | float], b: Mapping[str, str | int | float]) -> bool:
    """Whether both have the same, valid profile. Levels may differ."""
    parsed_a, parsed_b = from_parameters(a), from_parameters(b)
    return parsed_a is not None and parsed_b is not None and parsed_a.profile is parsed_b.profile


def answer_profile_level_id(
    local: Mapping[str, str | int | float], remote: Mapping[str, str | int | float]
) -> str | None:
    """What ``local`` is to use given what ``remote`` said (RFC 6184 section 8.2.2).

    The local level where both allow asymmetric levels, else the lower of the two. ``None`` where
    neither has a profile-level-id (then the answer has none either), where a profile is invalid, or
    where the profiles differ: ask :func:`is_same_profile` first to tell these apart.
    """
    if not local.get("profile-level-id") and not remote.get("profile-level-id"):
        return None
    parsed_local, parsed_remote = from_parameters(local), from_parameters(remote)
    if parsed_local is None or parsed_remote is None or parsed_local.profile is not parsed_remote.profile:
        return None
    level = parsed_local.level
    if not (_allows_asymmetry(local) and _allows_asymmetry(remote)):
        level = _lower_level(level, parsed_remote.level)
    return format_profile_level_id(ProfileLevelId(parsed_local.profile, level))


def _allows_asymmetry(parameters: Mapping[str, str | int | float]) -> bool:
    return str(parameters.get("level-asymmetry-allowed", 0)) == "1"


def _lower_level(a: int, b: int) -> int:
    # Half a step above level 1 is where 1b belongs.
    return min(a, b, key=lambda level: _LEVEL_1 + 0.5 if level == LEVEL_1B else level)
