"""The learning curves of Table 3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.figure import Figure

from mvae_fast.experiments.report import Entry

__all__ = ["SHOWN", "Point", "learning_curves"]

#: What is drawn, where a data set has it: quantity and source of entries.
SHOWN: tuple[tuple[str, str], ...] = (
    ("ELBO joint", "elbo"),
    ("-log p X1 | rest", "iwae"),
    ("-log p X2 | rest", "iwae"),
    ("label right", "given X1"),
)


class Point(NamedTuple):
    """An entry's place on the curves.

    Attributes:
        model: name of the curve.
        fraction: of the rows that stay paired.
        entry: the quantity, one value a seed.
    """

    model: str
    fraction: float
    entry: Entry


def learning_curves(points: Iterable[Point]) -> Figure:
    """Quantities against the paired fraction: means over the seeds, bars of a standard deviation.

    Args:
        points: of any number of data sets and models; a row of panels for each data set, a curve
            for each model. Quantities that are not among `SHOWN` are left out.

    Returns:
        The figure.
    """
    drawn = [point for point in points if point.entry[1:3] in SHOWN]
    sections = list(dict.fromkeys(point.entry.section for point in drawn))
    models = list(dict.fromkeys(point.model for point in drawn))
    there = {point.entry[1:3] for point in drawn}
    shown = [quantity for quantity in SHOWN if quantity in there]
    figure = Figure(figsize=(3.2 * len(shown), 2.8 * len(sections)), layout="constrained")
    axes = figure.subplots(len(sections), len(shown), squeeze=False)
    for section, line in zip(sections, axes, strict=True):
        for (row, source), axis in zip(shown, line, strict=True):
            for model in models:
                curve = sorted(
                    (point.fraction, point.entry)
                    for point in drawn
                    if point.model == model and point.entry[:3] == (section, row, source)
                )
                fractions = [100 * fraction for fraction, _ in curve]
                axis.errorbar(
                    fractions,
                    [entry.mean for _, entry in curve],
                    [entry.spread for _, entry in curve],
                    marker="o",
                    capsize=3,
                    label=model,
                )
            axis.set_xscale("log")
            axis.set_title(f"{section}: {row} ({source})", fontsize=8)
            axis.set_xlabel("% of the rows paired", fontsize=8)
            axis.tick_params(labelsize=7)
        line[0].legend(fontsize=7)
    return figure
