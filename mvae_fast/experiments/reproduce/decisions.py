"""What the decisions that the paper leaves open change."""

import math
from collections.abc import Sequence

from mvae_fast.experiments.evaluation import entries, legend, log_det_notes
from mvae_fast.experiments.report import Entry, Report
from mvae_fast.experiments.reproduce.laboratory import Laboratory
from mvae_fast.experiments.usage import UsageError

_FLOW = "flows.mvae_cnf."
_CODE = (_FLOW + "T=0.5", _FLOW + "n_steps=1")

#: Settings of MVAE-CNF that differ from the packaged ones, by the name that ``--decisions`` takes:
#: what the row is called, and the settings.
DECISIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "": ("as packaged", ()),
    "one-step": ("one step", (_FLOW + "n_steps=1",)),
    "code": ("one step, T = 0.5", _CODE),
    "code-exact": ("one step, T = 0.5, exact log-det", (*_CODE, _FLOW + "log_det=exact")),
    "second-order": ("second-order log-det", (_FLOW + "log_det=second_order",)),
    "hutchinson": ("Hutchinson", (_FLOW + "trace=hutchinson",)),
    "two-layers": ("two hidden layers", (_FLOW + "hidden=[256, 256]",)),
    "adjoint": ("adjoint gradient", (_FLOW + "adjoint=true",)),
    "code-adjoint": ("one step, T = 0.5, adjoint gradient", (*_CODE, _FLOW + "adjoint=true")),
    "jump": ("annealing that jumps", ("annealing_schedule=jump",)),
    "test-selection": ("epoch chosen on test", ("selection=test",)),
}


def decisions(laboratory: Laboratory, datasets: Sequence[str], names: Sequence[str] = ()) -> Report:
    """Train MVAE-CNF with each decision made otherwise, and MVAE as it is.

    Args:
        names: Some of `DECISIONS`; default: all.

    Returns:
        The table, transposed: a section for each decision, as there are more of them than columns
        fit.
    """
    if unknown := set(names) - set(DECISIONS):
        raise UsageError(f"decisions must be among {list(DECISIONS)[1:]}, got {sorted(unknown)}")
    chosen = ["", *names] if names else list(DECISIONS)
    runs = {}
    for dataset in datasets:
        runs[dataset, "MVAE"] = laboratory.runs(dataset, "mvae")
        for name in chosen:
            column, changes = DECISIONS[name]
            label = f"{dataset}-{name}" if name else ""
            runs[dataset, column] = laboratory.runs(dataset, "mvae_cnf", label, changes)
    laboratory.train(run for group in runs.values() for run in group)
    table: list[Entry] = []
    meaning: list[str] = []
    notes: list[str] = []
    for (dataset, column), group in runs.items():
        modalities = list(group[0].config.modalities)
        results = laboratory.metrics(group)
        for e in entries(dataset, column, modalities, results):
            if e.row == "ELBO joint" or e.row.startswith("-log p") and "|" not in e.row:
                table.append(Entry(dataset, column, "", f"{e.row} ({e.source})", e.values))
        minutes = tuple(run.trained.seconds / 60 for run in group)
        errors = tuple(r["elbo"].get("log_det_error", (math.nan,))[0] for r in results)
        if not any(map(math.isnan, errors)):
            table.append(Entry(dataset, column, "", "trace - log-det", errors))
        else:
            notes += log_det_notes(f"{dataset}, {column}", results)
        table.append(Entry(dataset, column, "", "minutes", minutes))
        meaning = meaning or legend(modalities, group[0].config.samples)
    return Report("Decisions that the paper leaves open: MVAE-CNF", table, [*meaning, *notes])
