"""Table 1: reconstruction and negative ELBO on the MNIST-like data sets."""

from collections.abc import Sequence

from mvae_fast.experiments.config import title
from mvae_fast.experiments.evaluation import entries, legend, log_det_notes
from mvae_fast.experiments.report import Entry, Report
from mvae_fast.experiments.reproduce import published
from mvae_fast.experiments.reproduce.laboratory import Laboratory


def table1(laboratory: Laboratory, datasets: Sequence[str], models: Sequence[str]) -> Report:
    """Train, evaluate in all conventions, and set beside the paper."""
    runs = laboratory.grid(datasets, models)
    table: list[Entry] = []
    notes: list[str] = []
    for (dataset, model), group in runs.items():
        modalities = list(group[0].config.modalities)
        results = laboratory.metrics(group)
        table += (e for e in published.table1(dataset) if e.column == title(model))
        table += entries(dataset, title(model), modalities, results)
        if not notes:
            notes = legend(modalities, group[0].config.samples)
        notes += log_det_notes(f"{dataset}, {title(model)}", results)
    notes += laboratory.about(runs.values())
    return Report("Table 1: MNIST-like data sets", table, notes)
