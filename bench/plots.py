"""Plots of results, drawn by matplotlib where it is there. Called by :mod:`bench.report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["NoPlots", "Plot", "draw"]


class NoPlots(Exception):
    """The word to say instead."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars (``bars``: label → value) or lines (``lines``: label → points (x, y)), never both; ``log``: bars of both
    hundreds and ones."""

    title: str
    y_label: str
    x_label: str = ""
    bars: Mapping[str, float] = field(default_factory=dict)
    lines: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    log: bool = False


def draw(plot: Plot, path: Path) -> None:
    """Write ``plot`` as PNG. Raises :class:`NoPlots` where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPlots("matplotlib is not installed") from None
    figure = Figure(figsize=(8, max(3.0, 0.45 * len(plot.bars) + 1.2)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(plot.title)
    if plot.bars:
        labels = list(plot.bars)
        drawn = axes.barh(labels, [plot.bars[label] for label in labels])
        axes.bar_label(drawn, fmt="%.2f", padding=3)
        axes.invert_yaxis()
        axes.set_xlabel(plot.y_label)
        axes.margins(x=0.12)
        if plot.log:
            axes.set_xscale("log")
    else:
        for label, points in plot.lines.items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3, label=label)
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        axes.set_ylim(bottom=0)
        axes.legend()
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=90)
