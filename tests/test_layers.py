"""Imports point one way: server → signalling, hls → rooms → transport → media, protocols → wire."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_sfu

PACKAGE = Path(trio_sfu.__file__).parent
ROOT = "trio_sfu"

MAY_IMPORT: dict[str, set[str]] = {
    "wire": set(),
    "protocols": {"wire"},
    "media": {"wire"},
    "transport": {"wire", "protocols", "media"},
    "rooms": {"wire", "protocols", "media", "transport"},
    "hls": {"wire", "protocols", "media", "transport", "rooms"},
    "signalling": {"wire", "protocols", "media", "transport", "rooms"},
}
WITHOUT_IO = ("wire", "protocols", "media")
IO_MODULES = {"trio", "trio_websocket", "socket", "select", "selectors", "ssl", "asyncio", "threading", "subprocess"}


def layers() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, those under TYPE_CHECKING included."""
    package = [ROOT, *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files(layer: str) -> list[Path]:
    found = sorted((PACKAGE / layer).rglob("*.py"))
    assert found
    return found


def test_every_layer_is_known() -> None:
    assert set(layers()) <= set(MAY_IMPORT)


@pytest.mark.parametrize("layer", layers())
def test_imports_point_down(layer: str) -> None:
    allowed = MAY_IMPORT[layer] | {layer}
    wrong = [
        f"{path.name}: {name}"
        for path in files(layer)
        for name in imported(path)
        if name.startswith(ROOT + ".") and name.split(".")[1] not in allowed and name != f"{ROOT}.__version__"
    ]
    assert wrong == []


@pytest.mark.parametrize("layer", WITHOUT_IO)
def test_no_io(layer: str) -> None:
    wrong = [
        f"{path.name}: {name}" for path in files(layer) for name in imported(path) if name.split(".")[0] in IO_MODULES
    ]
    assert wrong == []
