"""Table 3: learning with few examples whose modalities belong together."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from mvae_fast.data import MultimodalDataset
from mvae_fast.experiments.config import title
from mvae_fast.experiments.evaluation import entries, legend, log_det_notes
from mvae_fast.experiments.report import PUBLISHED, Entry, Report
from mvae_fast.experiments.reproduce import published
from mvae_fast.experiments.reproduce.laboratory import Laboratory
from mvae_fast.vae import MVAE

#: Fractions of rows that stay paired where none are asked for; the MVAE's paper goes down as far.
FRACTIONS: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)


#: What is drawn, where a data set has it: quantity and source of entries.
SHOWN: tuple[tuple[str, str], ...] = (
    ("ELBO joint", "elbo"),
    ("-log p X1 | rest", "iwae"),
    ("-log p X2 | rest", "iwae"),
    ("label right", "given X1"),
)


class Point(NamedTuple):
    """An entry's place on the curve of a model: over the fraction of the rows that stay paired."""

    model: str
    fraction: float
    entry: Entry


@torch.no_grad()
def label_accuracy(model: MVAE, dataset: MultimodalDataset) -> float:
    """How often the label that is most likely given the image alone is the right one."""
    right = 0
    for start in range(0, len(dataset), 1000):
        x, _ = dataset[start : start + 1000]
        likely = model.reconstruct({"image": x["image"]})["label"].mode
        right += int((likely == x["label"]).sum())
    return right / len(dataset)


def table3(
    laboratory: Laboratory,
    datasets: Sequence[str],
    models: Sequence[str],
    fractions: Sequence[float] = (),
) -> Report:
    """Train with a fraction of the rows paired and the others taken apart, for several fractions.

    Args:
        fractions: Default: the paper's for ``mirflickr``, else `FRACTIONS`.

    Returns:
        The table, a section for each data set, a column for each fraction and model; with the
        learning curves.
    """
    runs = {}
    for dataset in datasets:
        own = published.FLICKR_FRACTIONS if dataset == "mirflickr" else FRACTIONS
        for fraction in fractions or own:
            label = "" if fraction == 1 else f"{dataset}-paired-{fraction:g}"
            for model in models:
                key = dataset, fraction, model
                runs[key] = laboratory.runs(dataset, model, label, paired_fraction=fraction)
    laboratory.train(run for group in runs.values() for run in group)
    table: list[Entry] = []
    points: list[Point] = []
    notes: list[str] = []
    for (dataset, fraction, model), group in runs.items():
        modalities = list(group[0].config.modalities)
        column = f"{title(model)}, {100 * fraction:g} %"
        if model == "mvae_cnf":
            table += published.table3(dataset, fraction, column)
        results = laboratory.metrics(group)
        ours = list(entries(dataset, column, modalities, results))
        if modalities == ["image", "label"]:
            test = laboratory.splits(group[0].config).test
            values = tuple(label_accuracy(run.model(), test) for run in group)
            ours.append(Entry(dataset, "label right", "given X1", column, values))
        table += ours
        points += (Point(title(model), fraction, entry) for entry in ours)
        notes = notes or legend(modalities, group[0].config.samples)
        notes += log_det_notes(f"{dataset}, {column}", results)
    if any(entry.source == PUBLISHED for entry in table):
        notes.append(published.FLICKR_NOTE)
    notes += laboratory.about(runs.values())
    return Report(
        "Table 3: learning with few paired examples",
        table,
        notes,
        digits=3,
        figure=learning_curves(points),
    )


def learning_curves(points: Iterable[Point]) -> Figure:
    """Quantities against the paired fraction: means over the seeds, bars of a standard deviation.

    Args:
        points: Of any number of data sets and models; a row of panels for each data set, a curve
            for each model. Quantities that are not among `SHOWN` are left out.
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
