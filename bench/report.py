"""What a part of the benchmark hands back, and how it is written: Markdown, and plots where matplotlib is there.

Owns the layout of results and the command line that all parts share (``--quick``, ``--out``). Each part has
``options(parser)`` and ``sections(arguments)``, and runs alone through :func:`run`; :mod:`bench.__main__` runs all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import machine
from bench.plots import NoPlots, Plot, draw

__all__ = ["Cell", "Section", "markdown", "run", "shared_options", "write"]

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


def markdown(section: Section, images: Sequence[Path] = ()) -> str:
    """The section as Markdown; None is a dash, numbers get two decimals below a hundred."""
    lines = [f"## {section.title}", "", f"`{section.command}`", ""]
    if section.rows:
        lines += [
            "| " + " | ".join(section.header) + " |",
            "|" + "---|" * len(section.header),
            *("| " + " | ".join(_cell(value) for value in row) + " |" for row in section.rows),
            "",
        ]
    lines += [f"- {remark}" for remark in section.remarks]
    lines += [f"\n![{section.title}]({image.name})" for image in images]
    return "\n".join(lines).rstrip() + "\n"


def write(sections: Iterable[Section], out: Path | None) -> None:
    """Print each section as it is made; where ``out`` is given write them there too, its plots beside it."""
    head = "\n".join(f"- {name}: {value}" for name, value in machine().items()) + "\n"
    print(head, flush=True)
    text = [f"# Results\n\n{head}"]
    for section in sections:
        images = []
        if out is not None:
            for number, plot in enumerate(section.plots):
                image = out.parent / f"{section.name}{number or ''}.png"
                try:
                    draw(plot, image)
                except NoPlots as error:
                    print(f"no plot: {error}", file=sys.stderr)
                else:
                    images.append(image)
        print(markdown(section), flush=True)
        text.append(markdown(section, images))
        if out is not None:  # after each section: a run that breaks off leaves what it had
            out.write_text("\n".join(text), encoding="utf-8")


def shared_options(parser: argparse.ArgumentParser) -> None:
    """What every part takes."""
    parser.add_argument("--quick", action="store_true", help="fewer cases, shorter runs: minutes in all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write Markdown there, and PNG plots beside it")


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
    parsed = parser.parse_args(arguments)
    write(sections(parsed), parsed.out)
    return 0
