"""``mvae-fast sample`` and ``mvae-fast evaluate``: what to do with a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jsonargparse
import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Categorical, Distribution

from mvae_fast.data import load_dataset
from mvae_fast.experiments.config import title
from mvae_fast.experiments.evaluation import entries, evaluation, legend, log_det_notes
from mvae_fast.experiments.figures import mosaic
from mvae_fast.experiments.report import Report
from mvae_fast.experiments.usage import UsageError, usage
from mvae_fast.vae import MVAE, load_mvae
from mvae_fast.vae.build import read_saved, restore

__all__ = ["evaluate_command", "load_checkpoint", "sample_command"]


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


def sample_command(argv: Sequence[str]) -> None:
    """``mvae-fast sample CHECKPOINT``: samples of every modality, given some or none.

    Args:
        argv: arguments behind ``mvae-fast sample``.

    Raises:
        UsageError: if the checkpoint or a condition cannot be used.
    """
    parser = jsonargparse.ArgumentParser(
        prog="mvae-fast sample",
        description="Draw samples of every modality from a trained model.",
        default_env=False,
    )
    add = parser.add_argument
    add("checkpoint", type=str, help="model.pt or a .ckpt")
    add("--n", type=int, default=64, help="number of samples")
    add(
        "--given",
        action="append",
        default=[],
        metavar="MODALITY=VALUE",
        help="condition: a number, or a .npy file with one row of data; may be repeated",
    )
    add("--seed", type=int, default=0, help="of the noise")
    add("--out", type=str, default="samples", help="folder for samples.npz and a PNG an image")
    args = parser.parse_args(list(argv))
    if args.n < 1:
        raise UsageError(f"--n must be positive, got {args.n}")
    with usage():
        model = load_checkpoint(args.checkpoint)
        given = _conditions(args.given, model)
        if given:
            model.prepare(given, None)
    generator = torch.Generator().manual_seed(args.seed)
    drawn = (
        model.generate(args.n, given, generator=generator)
        if given
        else model.sample(args.n, generator=generator)
    )
    values = {name: _shown(distribution) for name, distribution in drawn.items()}
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "samples.npz"]
    np.savez(written[0], **{k: v.numpy() for k, v in values.items()})  # type: ignore[arg-type]
    for name, value in values.items():
        if value.dim() in (3, 4):
            written.append(_draw(value, folder / f"{name}.png"))
    print("Written: " + ", ".join(map(str, written)))


def _shown(distribution: Distribution) -> Tensor:
    """What stands for a distribution: the mean, or of a label the most likely one."""
    base = getattr(distribution, "base_dist", distribution)
    return distribution.mode if isinstance(base, Categorical) else distribution.mean


def _conditions(given: Sequence[str], model: MVAE) -> Mapping[str, Tensor]:
    conditions = {}
    for condition in given:
        name, equals, text = condition.partition("=")
        if not equals or name not in model.modalities:
            raise ValueError(
                f"--given {condition}: expected MODALITY=VALUE with a modality of "
                f"{list(model.modalities)}"
            )
        if text.endswith(".npy"):
            value = torch.as_tensor(np.load(text, allow_pickle=False))
            conditions[name] = value.unsqueeze(0)
        else:
            try:
                conditions[name] = torch.tensor([yaml.safe_load(text)])
            except (TypeError, ValueError, RuntimeError):
                raise ValueError(f"--given {condition}: expected a number or a .npy file") from None
    return conditions


def _dataset_of(checkpoint: Path) -> str:
    path = checkpoint.parent.parent / "config.yaml"
    if not path.exists():
        raise ValueError(f"--dataset is needed: {path}, which would name it, is not there")
    return str(yaml.safe_load(path.read_text())["dataset"])


def _draw(images: Tensor, path: Path) -> Path:
    if images.dim() == 4:
        images = images.movedim(1, -1)
        images = images.squeeze(-1) if images.shape[-1] == 1 else images
    columns = max(1, int(len(images) ** 0.5))
    rows = -(-len(images) // columns)
    tiles = np.ones((rows * columns, *images.shape[1:]))
    tiles[: len(images)] = images.numpy()
    picture = mosaic(tiles.reshape(rows, columns, *images.shape[1:]))
    figure = Figure(figsize=(6, 6 * picture.shape[0] / picture.shape[1]), layout="constrained")
    axis = figure.add_subplot()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_axis_off()
    figure.savefig(path, dpi=130)
    return path
