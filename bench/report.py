"""What a part of the benchmark hands back, and how it is written: Markdown, and plots where matplotlib is there.

A file of results holds what is measured between marks, a block for each section, and what people wrote around them: a
run replaces its own blocks only. Owns the layout of results and the command line that all parts share (``--quick``,
``--out``). Each part has ``options(parser)`` and ``sections(arguments)``, and runs alone through :func:`run`;
:mod:`bench.__main__` runs all.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.machine import machine
from bench.plots import NoPlots, Plot, draw

__all__ = ["Cell", "Section", "markdown", "put", "run", "shared_options", "write"]

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Section:
    """One table with what is to be said about it. ``name`` is a file name's stem: of its plots, too."""

    name: str
    title: str
    command: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    remarks: Sequence[str] = ()
    plots: Sequence[Plot] = ()


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def markdown(section: Section, images: Sequence[Path] = (), measured: str = "") -> str:
    """The section as Markdown; None is a dash, numbers get two decimals below a hundred."""
    lines = [f"## {section.title}", "", f"`{section.command}`" + (f", {measured}" if measured else ""), ""]
    if section.rows:
        lines += [
            "| " + " | ".join(section.header) + " |",
            "|" + "---|" * len(section.header),
            *("| " + " | ".join(_cell(value) for value in row) + " |" for row in section.rows),
            "",
        ]
    lines += [f"- {remark}" for remark in section.remarks]
    lines += [f"\n![{plot.title}]({image.as_posix()})" for plot, image in zip(section.plots, images, strict=False)]
    return "\n".join(lines).rstrip() + "\n"


def put(text: str, name: str, block: str) -> str:
    """``text`` with ``block`` between the marks of ``name``, in place of what is there, or at the end.

    What is written by hand between the blocks stays.
    """
    begin, end = f"<!-- {name}: measured -->", f"<!-- end of {name} -->"
    marked = f"{begin}\n{block.strip()}\n\n{end}"
    before, found, rest = text.partition(begin)
    if not found:
        return f"{text.rstrip()}\n\n{marked}\n"
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"{begin} has no {end}")
    return before + marked + after


def write(sections: Iterable[Section], out: Path | None) -> None:
    """Print each section as it is made; put it into the file ``out`` too (see :func:`put`), its plots in ``plots/``."""
    head = "\n".join(f"- {name}: {value}" for name, value in machine().items()) + "\n"
    print(head, flush=True)
    if out is not None:
        text = out.read_text(encoding="utf-8") if out.exists() else "# Results\n"
        out.write_text(put(text, "machine", head), encoding="utf-8")
    for section in sections:
        print(markdown(section), flush=True)
        if out is not None:  # after each section: a run that breaks off leaves what it had
            images = list(_draw(section, out.parent / "plots"))
            text = put(out.read_text(encoding="utf-8"), section.name, markdown(section, images, _measured()))
            out.write_text(text, encoding="utf-8")


def _draw(section: Section, folder: Path) -> Iterator[Path]:
    for number, plot in enumerate(section.plots):
        image = folder / f"{section.name}{number or ''}.png"
        folder.mkdir(exist_ok=True)
        try:
            draw(plot, image)
        except NoPlots as error:
            print(f"no plot: {error}", file=sys.stderr)
        else:
            yield image.relative_to(folder.parent)


def _measured() -> str:
    return f"ended {time.strftime('%Y-%m-%d %H:%M')}, load then {os.getloadavg()[0]:.1f}"


def shared_options(parser: argparse.ArgumentParser) -> None:
    """What every part takes."""
    parser.add_argument("--quick", action="store_true", help="fewer cases, shorter runs: minutes in all")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="put Markdown there, and PNG plots into plots/ beside it"
    )


def run(
    name: str,
    description: str,
    options: Callable[[argparse.ArgumentParser], None],
    sections: Callable[[argparse.Namespace], Iterable[Section]],
    arguments: Sequence[str] | None = None,
) -> int:
    """One part as a program of its own."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=description.splitlines()[0])
    shared_options(parser)
    options(parser)
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = parser.parse_args(given)
    command = shlex.join(["python", "-m", f"bench.{name}", *_without_out(given)])
    write((replace(section, command=command) for section in sections(parsed)), parsed.out)
    return 0


def _without_out(arguments: Sequence[str]) -> Iterator[str]:
    words = iter(arguments)
    for word in words:
        if word == "--out":
            next(words)
        elif not word.startswith("--out="):
            yield word
