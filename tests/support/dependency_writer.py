"""Writes dependency descriptors bit by bit from the AV1 RTP specification's appendix A, as texts of 0 and 1.

For tests: it shares nothing with the code that reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SYMBOLS = "-DSR"  # table A.4: not present, discardable, switch, required


@dataclass(frozen=True)
class Template:
    """``dtis`` in the specification's symbols."""

    spatial: int
    temporal: int
    dtis: str
    fdiffs: Sequence[int] = ()
    chains: Sequence[int] = ()


@dataclass(frozen=True)
class Structure:
    templates: Sequence[Template]
    protected_by: Sequence[int] = ()  # one for each decode target, or nothing without chains
    offset: int = 0
    resolutions: Sequence[tuple[int, int]] = ()

    @property
    def targets(self) -> int:
        return len(self.templates[0].dtis)

    @property
    def chains(self) -> int:
        return len(self.templates[0].chains)


def packed(bits: str) -> bytes:
    """The bytes of a text of bits, with zeros up to the byte's end."""
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


def f(width: int, value: int) -> str:
    assert 0 <= value < 1 << width
    return format(value, f"0{width}b") if width else ""


def ns(count: int, value: int) -> str:
    """The bits of one of ``count`` values: the first ones are a bit shorter."""
    width = 0
    while count >> width:
        width += 1
    shorter = (1 << width) - count
    return f(width - 1, value) if value < shorter else f(width, value + shorter)


def dtis(symbols: str) -> str:
    return "".join(f(2, SYMBOLS.index(symbol)) for symbol in symbols)


def structure_bits(structure: Structure) -> str:
    templates = structure.templates
    out = f(6, structure.offset) + f(5, structure.targets - 1)
    for before, after in pairwise(templates):
        if (after.spatial, after.temporal) == (before.spatial, before.temporal):
            out += "00"
        elif (after.spatial, after.temporal) == (before.spatial, before.temporal + 1):
            out += "01"
        else:
            assert (after.spatial, after.temporal) == (before.spatial + 1, 0)
            out += "10"
    out += "11"
    out += "".join(dtis(template.dtis) for template in templates)
    for template in templates:
        out += "".join("1" + f(4, fdiff - 1) for fdiff in template.fdiffs) + "0"
    out += ns(structure.targets + 1, structure.chains)
    if structure.chains:
        out += "".join(ns(structure.chains, chain) for chain in structure.protected_by)
        out += "".join(f(4, diff) for template in templates for diff in template.chains)
    out += "1" if structure.resolutions else "0"
    return out + "".join(f(16, width - 1) + f(16, height - 1) for width, height in structure.resolutions)


def descriptor(
    template_id: int,
    frame_number: int,
    *,
    start: bool = True,
    end: bool = True,
    structure: Structure | None = None,
    active: str | None = None,  # the mask's bits, the highest target first
    custom_dtis: str | None = None,
    custom_fdiffs: Sequence[int] | None = None,
    custom_chains: Sequence[int] | None = None,
) -> bytes:
    """One descriptor, with the extended fields where one of them is given, and zeros up to the byte's end."""
    parts = [structure, active, custom_dtis, custom_fdiffs, custom_chains]
    out = f(1, start) + f(1, end) + f(6, template_id) + f(16, frame_number)
    if any(part is not None for part in parts):
        out += "".join(f(1, part is not None) for part in parts)
    if structure is not None:
        out += structure_bits(structure)
    out += active or ""
    out += dtis(custom_dtis or "")
    if custom_fdiffs is not None:
        for fdiff in custom_fdiffs:
            size = 1 if fdiff <= 16 else 2 if fdiff <= 256 else 3
            out += f(2, size) + f(4 * size, fdiff - 1)
        out += "00"
    out += "".join(f(8, chain) for chain in custom_chains or ())
    return packed(out)


# Section A.6.1.
L1T3 = Structure(
    templates=(
        Template(0, 0, "SSS", (), (0,)),
        Template(0, 0, "SSS", (4,), (4,)),
        Template(0, 1, "SD-", (2,), (2,)),
        Template(0, 2, "D--", (1,), (1,)),
        Template(0, 2, "D--", (1,), (3,)),
    ),
    protected_by=(0, 0, 0),
)
# Section A.6.2.
L2T1 = Structure(
    templates=(
        Template(0, 0, "SS", (), (0, 0)),
        Template(0, 0, "RS", (2,), (2, 1)),
        Template(0, 0, "SS", (2,), (2, 1)),
        Template(1, 0, "S-", (1,), (1, 1)),
        Template(1, 0, "R-", (2, 1), (1, 1)),
    ),
    protected_by=(1, 0),
    offset=60,
    resolutions=((640, 360), (1280, 720)),
)
# Section A.6.3.
L3T3 = Structure(
    templates=(
        Template(0, 0, "SSSSSSSSS", (), (0, 0, 0)),
        Template(0, 0, "RRRRRRSSS", (12,), (12, 11, 10)),
        Template(0, 1, "RR-RR-SD-", (6,), (6, 5, 4)),
        Template(0, 2, "R--R--D--", (3,), (3, 2, 1)),
        Template(0, 2, "R--R--D--", (3,), (9, 8, 7)),
        Template(1, 0, "SSSSSS---", (1,), (1, 1, 1)),
        Template(1, 0, "RRRSSS---", (12, 1), (1, 1, 1)),
        Template(1, 1, "RR-SD----", (6, 1), (7, 6, 5)),
        Template(1, 2, "R--D-----", (3, 1), (4, 3, 2)),
        Template(1, 2, "R--D-----", (3, 1), (10, 9, 8)),
        Template(2, 0, "SSS------", (1,), (2, 1, 1)),
        Template(2, 0, "SSS------", (12, 1), (2, 1, 1)),
        Template(2, 1, "SD-------", (6, 1), (8, 7, 6)),
        Template(2, 2, "D--------", (3, 1), (5, 4, 3)),
        Template(2, 2, "D--------", (3, 1), (11, 10, 9)),
    ),
    protected_by=(2, 2, 2, 1, 1, 1, 0, 0, 0),
)
