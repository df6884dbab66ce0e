"""``mvae-fast train``: train, evaluate on the held-out split, write table and figure."""

import time
from dataclasses import replace

import torch

from mvae_fast import __version__
from mvae_fast.data import Splits, load_dataset, read_data, standardized, unpair
from mvae_fast.experiments.checks import check_models
from mvae_fast.experiments.config import TrainConfig, title
from mvae_fast.experiments.devices import resolve_device
from mvae_fast.experiments.evaluation import entries, evaluation, legend, log_det_notes
from mvae_fast.experiments.figures import drawable, samples_figure
from mvae_fast.experiments.folders.folder import check_folder, open_folder
from mvae_fast.experiments.folders.lock import locked
from mvae_fast.experiments.report import Entry, Report
from mvae_fast.experiments.training import train_model
from mvae_fast.experiments.usage import going_on, usage
from mvae_fast.vae import load_mvae


def load_splits(config: TrainConfig) -> Splits:
    """The data of a run: the data set or the user's own, with the selection and the supervision
    that are asked for.

    Returns:
        The splits; the first is trained on, the second chooses the epoch, the third is reported.

    Raises:
        ValueError: If the data set is unknown or its files are faulty.
        FileNotFoundError: If its files are not there.
    """
    if config.data is not None:
        splits = read_data(config.data).splits(config.modalities, config.split)
    else:
        splits = load_dataset(
            config.dataset, config.data_dir, download=config.download, **config.dataset_options
        )
    splits = splits.select_on(config.selection)
    if config.paired_fraction < 1:
        splits = splits._replace(train=unpair(splits.train, config.paired_fraction))
    return splits


def run(config: TrainConfig) -> Report:
    """Train the models of ``config``, print and write the table of the test split and the samples.

    Raises:
        UsageError: If the data or the folder cannot be used, or another run uses it.
        RunError: If a training cannot go on, or the file system takes no more.
        KeyboardInterrupt: If the user stopped it; it says how to go on.
    """
    with usage():
        splits = load_splits(config)
        config = replace(config, modalities=standardized(config.modalities, splits.train))
        check_models(config, splits)
        check_folder(config)  # also before the lock, whose file would stay in a folder not ours
    how = f"To go on from the last epoch: --resume --out {config.folder}"
    with locked(config.folder), going_on(how):
        return _run(config, splits)


def _run(config: TrainConfig, splits: Splits) -> Report:
    """The run itself, for which the folder is locked."""
    start = time.perf_counter()
    with usage():
        open_folder(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    sizes = ", ".join(
        f"{len(part)} {name}" for name, part in zip(splits._fields, splits, strict=True)
    )
    if not config.quiet:
        print(f"{config.dataset}: {sizes} rows; seed {config.seed}", flush=True)

    trained = {name: train_model(name, config, splits) for name in config.models}
    models = {name: load_mvae(config.folder / name / "model.pt") for name in trained}
    modalities = list(config.modalities)
    table: list[Entry] = []
    notes = legend(modalities, config.samples)
    chosen = ", ".join(f"{title(name)} {t.epoch}" for name, t in trained.items())
    notes.append(
        f"seed {config.seed}; epoch chosen on the {config.selection} split, "
        f"of {config.epochs}: {chosen}"
    )
    for name, model in models.items():
        cache = config.folder / name / "evaluation.json"
        model.to(resolve_device(config.device))
        metrics = evaluation(model, splits.test, config.seed, cache, config.samples, config.quiet)
        model.cpu()
        table += entries(config.dataset, title(name), modalities, [metrics])
        notes += log_det_notes(title(name), [metrics])
    about = {
        "version": __version__,
        "torch": torch.__version__,
        "config": config.recipe(),
        "test_rows": len(splits.test),
        "chosen_epoch": {title(name): t.epoch for name, t in trained.items()},
        "training_seconds": {title(name): t.seconds for name, t in trained.items()},
    }
    heading = f"Table 1 on the {len(splits.test)} held-out rows of {config.dataset}"
    report = Report(heading, table, notes, about)
    files = report.write(config.folder, "table")
    if drawable(models.values()):
        files.append(config.folder / "samples.png")
        samples_figure({title(n): m for n, m in models.items()}, files[-1], seed=config.seed)

    if config.quiet:
        print(report.text())
        return report
    print(f"\n{report.text()}")
    print(f"\n{time.perf_counter() - start:.0f} s. Written to {config.folder}:")
    print("  " + ", ".join(path.name for path in files))
    print("  " + ", ".join(f"{name}/" for name in trained) + " (checkpoints, logs, model.pt)")
    return report
