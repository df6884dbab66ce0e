"""Reading what ``mvae-fast train`` wrote, and ``mvae-fast evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import yaml

from mvae_fast.data import load_dataset
from mvae_fast.experiments.config import title
from mvae_fast.experiments.evaluation import entries, evaluation, legend, log_det_notes
from mvae_fast.experiments.report import Report
from mvae_fast.experiments.usage import UsageError, usage
from mvae_fast.vae import MVAE, load_mvae
from mvae_fast.vae.build import read_saved, restore

__all__ = ["evaluate_command", "load_checkpoint"]


def load_checkpoint(path: str | Path) -> MVAE:
    """The model of a checkpoint: a ``model.pt`` of `save_mvae`, or Lightning's ``.ckpt``.

    Args:
        path: the file.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        ValueError: if the file is neither.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    if path.suffix != ".ckpt":
        return load_mvae(path)
    saved = read_saved(path, {"hyper_parameters", "state_dict"})
    prefix = "model."
    weights = {k[len(prefix) :]: v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
    return restore(path, saved["hyper_parameters"].get("model"), weights)


def evaluate_command(argv: Sequence[str]) -> None:
    """``mvae-fast evaluate CHECKPOINT``: the test split's numbers in all conventions.

    Args:
        argv: arguments behind ``mvae-fast evaluate``.

    Raises:
        UsageError: if checkpoint or data set cannot be used.
    """
    parser = jsonargparse.ArgumentParser(
        prog="mvae-fast evaluate",
        description="Evaluate a trained model on the test split of a data set.",
        default_env=False,
    )
    add = parser.add_argument
    add("checkpoint", type=str, help="model.pt or a .ckpt")
    add("--dataset", type=str, help="default: that of the run that the checkpoint belongs to")
    add("--data-dir", type=str, help="folder of data sets; default: $MVAE_FAST_DATA")
    add("--seed", type=int, default=0, help="of the noise")
    add("--out", type=str, help="folder for evaluation.csv, .json and .md; default: none")
    args = parser.parse_args(list(argv))
    with usage():
        model = load_checkpoint(args.checkpoint)
        dataset = args.dataset or _dataset_of(Path(args.checkpoint))
        test = load_dataset(dataset, args.data_dir).test
    names = list(model.modalities)
    if missing := set(names) - set(test.arrays):
        raise UsageError(f"data set {dataset!r} lacks the model's modalities {sorted(missing)}")
    metrics = evaluation(model, test, args.seed)
    column = title(Path(args.checkpoint).parent.name)
    report = Report(
        f"{args.checkpoint} on the {len(test)} test rows of {dataset}",
        list(entries(dataset, column, names, [metrics])),
        [*legend(names), *log_det_notes(column, [metrics])],
    )
    print(report.text())
    if args.out is not None:
        print("\nWritten: " + ", ".join(map(str, report.write(Path(args.out), "evaluation"))))


def _dataset_of(checkpoint: Path) -> str:
    path = checkpoint.parent.parent / "config.yaml"
    if not path.exists():
        raise ValueError(f"--dataset is needed: {path}, which would name it, is not there")
    return str(yaml.safe_load(path.read_text())["dataset"])
