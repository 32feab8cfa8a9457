"""Dependency descriptors: the AV1 RTP specification's examples, Chromium's bytes, and every field by a writer apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dependency_writer import L1T3, L2T1, L3T3, SYMBOLS, Structure, Template, descriptor, packed
from trio_sfu.wire.dependency_descriptor import (
    DependencyDescriptor,
    DependencyStructure,
    FrameTemplate,
    parse_dependency_descriptor,
    with_active_decode_targets,
    with_frame_number,
)
from trio_sfu.wire.errors import BadPacket

EXAMPLES = {"L1T3": L1T3, "L2T1": L2T1, "L3T3": L3T3}


def with_steps(steps: str) -> bytes:
    """A structure with next_layer_idc as given, one decode target and nothing else."""
    return packed("11" + "0" * 22 + "10000" + "0" * 11 + steps + "11" + "0" * 300)


def symbols(dtis: tuple[int, ...]) -> str:
    return "".join(SYMBOLS[dti] for dti in dtis)


def read_structure(structure: Structure) -> DependencyStructure:
    found = parse_dependency_descriptor(descriptor(structure.offset, 0, structure=structure), None).structure
    assert found is not None
    return found


def assert_same(found: DependencyStructure, structure: Structure) -> None:
    assert found.template_id_offset == structure.offset
    assert found.decode_target_count == structure.targets
    assert found.chain_count == structure.chains
    assert found.resolutions == tuple(structure.resolutions)
    assert [Template(t[0], t[1], symbols(t.dtis), t.frame_diffs, t.chain_diffs) for t in found.templates] == [
        replace(t, fdiffs=tuple(t.fdiffs), chains=tuple(t.chains)) for t in structure.templates
    ]
    assert found.protected_by == tuple(structure.protected_by)


def test_a_structure_from_chromium() -> None:
    # As mediasoup's test has it, from https://issues.webrtc.org/issues/42225660: three temporal layers.
    read = parse_dependency_descriptor(bytes.fromhex("80012f80 0214eaa8 60414d14 10208426"), None)
    assert (read.start_of_frame, read.end_of_frame, read.template_id, read.frame_number) == (True, False, 0, 303)
    assert read.structure == DependencyStructure(
        template_id_offset=0,
        decode_target_count=3,
        chain_count=1,
        templates=(
            FrameTemplate(0, 0, (2, 2, 2), (), (0,)),
            FrameTemplate(0, 0, (2, 2, 2), (4,), (4,)),
            FrameTemplate(0, 1, (0, 1, 2), (2,), (2,)),
            FrameTemplate(0, 2, (0, 0, 1), (1,), (1,)),
            FrameTemplate(0, 2, (0, 0, 1), (1,), (3,)),
        ),
        protected_by=(0, 0, 0),
        resolutions=(),
        targets=((0, 0), (0, 1), (0, 2)),
        spatial_layers=1,
        temporal_layers=3,
    )
    assert read.active_decode_targets == 0b111


def test_another_one_with_resolutions_and_a_descriptor_after_it() -> None:
    structure = parse_dependency_descriptor(bytes.fromhex("8000e880 011ea851 41010c13 fc0b3c"), None).structure
    assert structure is not None
    assert [t.dtis for t in structure.templates] == [(2, 2), (2, 2), (0, 1)]
    assert [t.frame_diffs for t in structure.templates] == [(), (2,), (1,)]
    assert structure.resolutions == ((1280, 720),)
    assert parse_dependency_descriptor(bytes.fromhex("0000e8"), structure) == DependencyDescriptor(
        start_of_frame=False,
        end_of_frame=False,
        template_id=0,
        frame_number=232,
        spatial_layer=0,
        temporal_layer=0,
        dtis=(2, 2),
        frame_diffs=(),
        chain_diffs=(0,),
        structure=None,
        active_decode_targets=None,
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_specifications_structures(name: str) -> None:
    assert_same(read_structure(EXAMPLES[name]), EXAMPLES[name])


def test_layers_of_decode_targets() -> None:
    l1, l2, l3 = (read_structure(each) for each in EXAMPLES.values())
    assert l1.targets == ((0, 2), (0, 1), (0, 0))
    assert l2.targets == ((1, 0), (0, 0))
    assert l3.targets == ((2, 2), (2, 1), (2, 0), (1, 2), (1, 1), (1, 0), (0, 2), (0, 1), (0, 0))
    assert [(each.spatial_layers, each.temporal_layers) for each in (l1, l2, l3)] == [(1, 3), (2, 1), (3, 3)]


@pytest.mark.parametrize(
    ("layers", "mask"),
    [((0, 0), 0b100000000), ((0, 2), 0b111000000), ((1, 1), 0b110110000), ((2, 0), 0b100100100), ((2, 2), 0b111111111)],
)
def test_the_mask_of_some_layers(layers: tuple[int, int], mask: int) -> None:
    assert read_structure(L3T3).targets_up_to(*layers) == mask


def test_chains_of_decode_targets() -> None:
    assert [read_structure(each).protected_by for each in EXAMPLES.values()] == [
        (0, 0, 0),
        (1, 0),
        (2, 2, 2, 1, 1, 1, 0, 0, 0),
    ]
    without = read_structure(Structure((Template(0, 0, "SS"),)))
    assert (without.chain_count, without.protected_by) == (0, ())


def test_a_decode_target_without_frames() -> None:
    structure = Structure((Template(0, 0, "S-"), Template(0, 1, "D-")))
    assert read_structure(structure).targets == ((0, 1), (0, 0))


@pytest.mark.parametrize("name", EXAMPLES)
def test_frames_by_each_template(name: str) -> None:
    written = EXAMPLES[name]
    structure = read_structure(written)
    for index, template in enumerate(written.templates):
        template_id = (written.offset + index) % 64
        data = descriptor(template_id, 0xFFFF, start=index % 2 == 0, end=index % 3 == 0)
        assert len(data) == 3
        read = parse_dependency_descriptor(data, structure)
        assert (read.start_of_frame, read.end_of_frame) == (index % 2 == 0, index % 3 == 0)
        assert (read.template_id, read.frame_number) == (template_id, 0xFFFF)
        assert (read.spatial_layer, read.temporal_layer) == (template.spatial, template.temporal)
        assert symbols(read.dtis) == template.dtis
        assert (read.frame_diffs, read.chain_diffs) == (tuple(template.fdiffs), tuple(template.chains))
        assert (read.structure, read.active_decode_targets) == (None, None)
        assert parse_dependency_descriptor(memoryview(data), structure) == read


def test_custom_fields_replace_the_templates() -> None:
    structure = read_structure(L2T1)
    data = descriptor(0, 7, custom_dtis="DR", custom_fdiffs=(1, 16, 17, 256, 257, 4096), custom_chains=(255, 0))
    read = parse_dependency_descriptor(data, structure)
    assert (read.spatial_layer, read.temporal_layer) == (1, 0)
    assert symbols(read.dtis) == "DR"
    assert read.frame_diffs == (1, 16, 17, 256, 257, 4096)
    assert read.chain_diffs == (255, 0)
    read = parse_dependency_descriptor(descriptor(61, 7, custom_fdiffs=()), structure)
    assert (symbols(read.dtis), read.frame_diffs, read.chain_diffs) == ("RS", (), (2, 1))


@pytest.mark.parametrize(
    ("steps", "size"), [("10" * 3, (4, 4, 1)), ("01" * 7, (8, 1, 8)), ("00" * 63, (64, 1, 1)), ("", (1, 1, 1))]
)
def test_the_largest_structures(steps: str, size: tuple[int, int, int]) -> None:
    structure = parse_dependency_descriptor(with_steps(steps), None).structure
    assert structure is not None
    assert (len(structure.templates), structure.spatial_layers, structure.temporal_layers) == size


def test_active_decode_targets() -> None:
    structure = read_structure(L1T3)
    assert parse_dependency_descriptor(descriptor(1, 7, active="110"), structure).active_decode_targets == 0b110
    assert parse_dependency_descriptor(descriptor(1, 7, custom_fdiffs=()), structure).active_decode_targets is None
    data = descriptor(0, 7, structure=L1T3, active="001")
    assert parse_dependency_descriptor(data, None).active_decode_targets == 0b001


def test_a_new_structure_is_in_force_at_once() -> None:
    read = parse_dependency_descriptor(descriptor(63, 7, structure=L2T1), read_structure(L1T3))
    assert (read.spatial_layer, read.structure) == (1, read_structure(L2T1))


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xc0", b"\xc0\x00"),
        descriptor(5, 0),  # no such template
        descriptor(63, 0, custom_fdiffs=(1,)),
        descriptor(5, 0, structure=L1T3),
        descriptor(0, 0, structure=L1T3)[:-1],
        descriptor(0, 0, custom_fdiffs=(4096, 4096))[:-2],
        with_steps("10" * 4),  # five spatial layers
        with_steps("01" * 8),  # nine temporal ones
        with_steps("00" * 64),  # 65 templates
    ],
)
def test_what_is_refused(data: bytes) -> None:
    structure = read_structure(L1T3)
    with pytest.raises(BadPacket):
        parse_dependency_descriptor(data, structure)
    with pytest.raises(BadPacket):
        with_active_decode_targets(data, structure, 1)


@pytest.mark.parametrize("data", [descriptor(0, 7), descriptor(0, 7, active="1"), descriptor(0, 7, custom_fdiffs=())])
def test_a_structure_that_is_missing(data: bytes) -> None:
    with pytest.raises(BadPacket):
        parse_dependency_descriptor(data, None)
    with pytest.raises(BadPacket):
        with_active_decode_targets(data, None, 1)


@pytest.mark.parametrize("number", [0, 1, 255, 256, 0x7FFF, 0xFFFF, 0x10000, -1])
def test_another_frame_number(number: int) -> None:
    for extra in ({}, {"custom_fdiffs": (3, 300)}, {"active": "101"}):
        before, after = (descriptor(1, each, **extra) for each in (0x1234, number & 0xFFFF))
        assert with_frame_number(before, number) == after
    with pytest.raises(BadPacket):
        with_frame_number(b"\x00\x00", number)


def test_other_active_decode_targets_grow_a_short_descriptor() -> None:
    rewritten = with_active_decode_targets(descriptor(1, 7, start=False), read_structure(L1T3), 0b110)
    assert rewritten == descriptor(1, 7, start=False, active="110")
    assert len(rewritten) == 4
    rewritten = with_active_decode_targets(descriptor(3, 7), read_structure(L3T3), 0b100110000)
    assert rewritten == descriptor(3, 7, active="100110000")
    assert len(rewritten) == 5


def test_a_mask_is_cut_to_the_decode_targets() -> None:
    assert with_active_decode_targets(descriptor(1, 7), read_structure(L1T3), -1) == descriptor(1, 7, active="111")


# Structures as a sender may make them, and descriptors with any of their fields.


@st.composite
def structures(draw: st.DrawFn) -> Structure:
    layers = [(0, 0)]
    for step in draw(st.lists(st.sampled_from("stn"), max_size=12)):
        spatial, temporal = layers[-1]
        following = {"s": (spatial + 1, 0), "t": (spatial, temporal + 1), "n": (spatial, temporal)}[step]
        if following[0] <= 3 and following[1] <= 7:
            layers.append(following)
    targets = draw(st.integers(1, 32))
    chains = draw(st.integers(0, min(targets, 5)))
    templates = tuple(
        Template(
            *layer,
            draw(st.text(SYMBOLS, min_size=targets, max_size=targets)),
            tuple(draw(st.lists(st.integers(1, 16), max_size=3))),
            tuple(draw(st.lists(st.integers(0, 15), min_size=chains, max_size=chains))),
        )
        for layer in layers
    )
    protected = st.lists(st.integers(0, max(chains - 1, 0)), min_size=targets, max_size=targets)
    sizes = st.tuples(st.integers(1, 0x10000), st.integers(1, 0x10000))
    resolutions = draw(st.lists(sizes, min_size=layers[-1][0] + 1, max_size=layers[-1][0] + 1) | st.just([]))
    return Structure(templates, tuple(draw(protected)) if chains else (), draw(st.integers(0, 63)), tuple(resolutions))


@st.composite
def descriptions(draw: st.DrawFn, structure: Structure) -> dict[str, object]:
    """What :func:`descriptor` takes beside the numbers; each part may be missing."""
    targets, chains = structure.targets, structure.chains
    parts = {
        "active": st.text("01", min_size=targets, max_size=targets),
        "custom_dtis": st.text(SYMBOLS, min_size=targets, max_size=targets),
        "custom_fdiffs": st.lists(st.integers(1, 4096), max_size=4).map(tuple),
        "custom_chains": st.lists(st.integers(0, 255), min_size=chains, max_size=chains).map(tuple),
        "structure": st.just(structure),
    }
    return {name: draw(part) for name, part in parts.items() if draw(st.booleans())}


@given(st.data())
def test_what_is_written_is_read_and_rewritten(data: st.DataObject) -> None:
    """Any structure and any descriptor come back as they were written, with another mask and number too."""
    written = data.draw(structures())
    structure = read_structure(written)
    assert_same(structure, written)
    index = data.draw(st.integers(0, len(written.templates) - 1))
    number, other = data.draw(st.integers(0, 0xFFFF)), data.draw(st.integers(0, 0xFFFF))
    parts = data.draw(descriptions(written))
    template_id = (written.offset + index) % 64
    before = descriptor(template_id, number, **parts)  # type: ignore[arg-type]
    read = parse_dependency_descriptor(before, structure)
    template = written.templates[index]
    active = parts.get("active", "1" * written.targets if "structure" in parts else None)
    assert read == DependencyDescriptor(
        start_of_frame=True,
        end_of_frame=True,
        template_id=template_id,
        frame_number=number,
        spatial_layer=template.spatial,
        temporal_layer=template.temporal,
        dtis=tuple(SYMBOLS.index(symbol) for symbol in str(parts.get("custom_dtis", template.dtis))),
        frame_diffs=parts.get("custom_fdiffs", template.fdiffs),  # type: ignore[arg-type]
        chain_diffs=parts.get("custom_chains", template.chains),  # type: ignore[arg-type]
        structure=structure if "structure" in parts else None,
        active_decode_targets=None if active is None else int(str(active), 2),
    )
    mask = data.draw(st.text("01", min_size=written.targets, max_size=written.targets))
    after = with_frame_number(with_active_decode_targets(before, structure, int(mask, 2)), other)
    assert after == descriptor(template_id, other, **{**parts, "active": mask})  # type: ignore[arg-type]


@given(st.binary(max_size=40), st.sampled_from([None, *EXAMPLES.values()]), st.integers(0, 0xFFFFFFFF))
def test_any_bytes(data: bytes, written: Structure | None, mask: int) -> None:
    """Only BadPacket comes out, of parsing and of rewriting alike, and a rewrite changes the mask alone."""
    structure = None if written is None else read_structure(written)
    try:
        read = parse_dependency_descriptor(data, structure)
    except BadPacket:
        with pytest.raises(BadPacket):
            with_active_decode_targets(data, structure, mask)
        return
    in_force = read.structure or structure
    assert in_force is not None
    again = parse_dependency_descriptor(with_active_decode_targets(data, structure, mask), structure)
    assert again == read._replace(active_decode_targets=mask & (1 << in_force.decode_target_count) - 1)


@given(st.sampled_from(list(EXAMPLES.values())), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255))))
def test_mutated_structures(written: Structure, changes: list[tuple[int, int]]) -> None:
    """Only BadPacket comes out, and what a broken structure leads to stays within bounds."""
    data = bytearray(descriptor(written.offset, 7, structure=written, custom_fdiffs=(1,)))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        read = parse_dependency_descriptor(bytes(data), None)
    except BadPacket:
        return
    assert read.spatial_layer <= 3
    assert read.temporal_layer <= 7
    if read.structure is not None:
        assert len(read.structure.templates) <= 64
        assert all(chain < read.structure.chain_count for chain in read.structure.protected_by)
