"""``mvae-fast train``: train, evaluate on the held-out split, write table and figure."""

from __future__ import annotations

import time
from typing import Any

import torch
import yaml

from mvae_fast import __version__
from mvae_fast.data import MultimodalDataset, Splits, load_dataset
from mvae_fast.experiments.config import MODELS, TrainConfig
from mvae_fast.experiments.figures import samples_figure
from mvae_fast.experiments.table1 import Table1
from mvae_fast.experiments.training import Trained, train_model
from mvae_fast.vae import MVAE, evaluate, exact_log_abs_det_jacobian
from mvae_fast.vae.evaluation import CONVENTIONS

__all__ = ["log_det_gap", "prepare", "run"]

EVALUATION_BATCH = 500
"""Rows a batch in evaluation: 16 samples of three terms of them fit in a few hundred megabytes."""


def prepare(config: TrainConfig) -> Splits:
    """Read the data and open the folder of a run: what can be wrong with its settings shows here.

    Args:
        config: settings of the run.

    Returns:
        The data.

    Raises:
        ValueError: if the data set is unknown, or ``config.resume`` finds other settings.
    """
    splits = load_dataset(config.dataset, config.data_dir)
    config.folder.mkdir(parents=True, exist_ok=True)
    path = config.folder / "config.yaml"
    if config.resume and path.exists():
        differences = config.differences(yaml.safe_load(path.read_text()))
        if differences:
            raise ValueError(
                f"resume: the run in {config.folder} has other settings: {'; '.join(differences)}"
            )
    path.write_text(yaml.safe_dump(config.recipe(), sort_keys=False))
    return splits


def run(config: TrainConfig, splits: Splits) -> Table1:
    """Train the models of ``config``, print and write the table of the test split and the samples.

    Args:
        config: settings of the run.
        splits: what `prepare` gave.

    Returns:
        The table.
    """
    start = time.perf_counter()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    sizes = ", ".join(
        f"{len(part)} {name}" for name, part in zip(splits._fields, splits, strict=True)
    )
    print(f"{config.dataset}: {sizes} rows; seed {config.seed}", flush=True)

    trained = {name: train_model(name, config, splits) for name in config.models}
    table = _table(config, splits, trained)
    files = table.write(config.folder)
    if {"image", "label"} <= set(config.modalities):
        files.append(config.folder / "samples.png")
        samples_figure(
            {MODELS[n]: t.model for n, t in trained.items()}, files[-1], seed=config.seed
        )

    print(f"\nTable 1 on the {len(splits.test)} held-out rows of {config.dataset}\n")
    print(table.text())
    print(f"\n{time.perf_counter() - start:.0f} s. Written to {config.folder}:")
    print("  " + ", ".join(path.name for path in files))
    print("  " + ", ".join(f"{name}/" for name in trained) + " (checkpoints, logs, model.pt)")
    return table


def log_det_gap(model: MVAE, dataset: MultimodalDataset, rows: int = 64, seed: int = 0) -> float:
    """By how much the flow's integrated trace differs from the log-determinant of the map it
    applies, in nats.

    Positive means that the negative ELBOs are reported too low by as much.

    Args:
        model: a model with a flow.
        dataset: data whose joint posteriors z_0 is sampled from.
        rows: rows to average over.
        seed: of the samples.

    Returns:
        Mean difference.
    """
    assert model.flow is not None
    with torch.no_grad():
        base = model.encode(*dataset[:rows])
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(base.loc.shape, generator=generator)
        z0 = base.loc + base.scale * noise
        extra = {} if base.cond is None else {"cond": base.cond}
        _, change = model.flow(z0, z0.new_zeros(len(z0), 1), **extra)
    # log q_T falls by the log-determinant; the flow lets it fall by the integrated trace, -change.
    exact = exact_log_abs_det_jacobian(model.flow, z0, base.cond)
    return float((-change.squeeze(1) - exact).mean())


def _table(config: TrainConfig, splits: Splits, trained: dict[str, Trained]) -> Table1:
    test = splits.test
    chunks = [test[i : i + EVALUATION_BATCH] for i in range(0, len(test), EVALUATION_BATCH)]
    results = {
        MODELS[name]: {c: evaluate(t.model, chunks, c, seed=config.seed) for c in CONVENTIONS}
        for name, t in trained.items()
    }
    epochs = ", ".join(f"{MODELS[name]} {t.epoch}" for name, t in trained.items())
    notes = [
        f"seed {config.seed}; epoch chosen on the validation split, of {config.epochs}: {epochs}"
    ]
    about: dict[str, Any] = {
        "version": __version__,
        "torch": torch.__version__,
        "config": config.recipe(),
        "test_rows": len(test),
        "conventions": dict(CONVENTIONS),
        "chosen_epoch": {MODELS[name]: t.epoch for name, t in trained.items()},
        "training_seconds": {MODELS[name]: t.seconds for name, t in trained.items()},
    }
    for name, t in trained.items():
        if t.model.flow is not None:
            gap = log_det_gap(t.model, test)
            about.setdefault("log_det_gap", {})[MODELS[name]] = gap
            notes.append(
                f"{MODELS[name]}: {config.n_steps} Euler steps to T = {config.T:g}; "
                f"integrated trace - exact log-determinant of the steps: {gap:+.3f} nats"
            )
    return Table1(list(config.modalities), results, notes, about)
