"""``mvae-fast evaluate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvae_fast.data import DATASETS, MultimodalDataset, load_dataset, read_data
from mvae_fast.experiments.checks import check_data
from mvae_fast.experiments.commands.options import Parser, add_data, add_quiet
from mvae_fast.experiments.config import check_seed, title
from mvae_fast.experiments.devices import resolve_device
from mvae_fast.experiments.evaluation import SAMPLES, entries, evaluation, legend, log_det_notes
from mvae_fast.experiments.folders.checkpoints import load_checkpoint
from mvae_fast.experiments.folders.files import make_folder
from mvae_fast.experiments.folders.folder import read_recipe
from mvae_fast.experiments.own import described
from mvae_fast.experiments.report import Report
from mvae_fast.experiments.usage import usage
from mvae_fast.vae import MVAE


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "evaluate",
        "Evaluate a trained model on the test split of a data set, or on a file of your own.",
        (
            "evaluate runs/digits/mvae_cnf/model.pt",
            "evaluate model.pt --dataset mnist --data-dir data --out results",
            "evaluate runs/people/mvae/model.pt --data others.csv",
        ),
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="model.pt or a .ckpt")
    add("--dataset", choices=list(DATASETS), help="default: that of the run of the checkpoint")
    add("--data", metavar="FILE", help="file or folder of your own, all of whose rows are taken")
    add_data(parser)
    add("--seed", type=int, help="of the noise; default: that of the run, or 0")
    add("--out", metavar="FOLDER", help="for evaluation.csv, .json and .md; default: none")
    add_quiet(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """``mvae-fast evaluate CHECKPOINT``: the test split's numbers in all conventions.

    On the data set of the run that the checkpoint belongs to, the options of the data set, the
    numbers of samples and the seed are those of the run, too, and on the same
    device so are the numbers.
    """
    args = parser().parse_args(argv)
    with usage():
        device = resolve_device(args.device)
        if args.seed is not None:
            check_seed(args.seed, "--seed")
        model = load_checkpoint(args.checkpoint)
        if args.data is not None and args.dataset is not None:
            raise ValueError(f"--data: got {args.data} and a data set, expected one of them")
        recipe = _recipe(Path(args.checkpoint), args.dataset or args.data)
        dataset, options = recipe["dataset"], recipe["dataset_options"]
        if args.data is not None:
            test = read_data(args.data).dataset(described(model))
        elif recipe.get("data") is not None:
            test = read_data(recipe["data"]).splits(recipe["modalities"], recipe["split"]).test
        else:
            test = load_dataset(dataset, args.data_dir, download=args.download, **options).test
        _check(model, "--dataset" if args.data is None else "--data", dataset, test)
        out = None if args.out is None else make_folder(args.out, "--out")
    samples = {name: recipe.get(f"{name}_samples", n) for name, n in SAMPLES.items()}
    seed = recipe["seed"] if args.seed is None else args.seed
    names = list(model.modalities)
    metrics = evaluation(model.to(device), test, seed, samples=samples, quiet=args.quiet)
    column = title(Path(args.checkpoint).resolve().parent.name)
    chosen = "".join(f", {key} {value}" for key, value in options.items())
    rows = "test rows" if args.data is None else "rows"
    report = Report(
        f"{args.checkpoint} on the {len(test)} {rows} of {dataset}{chosen}",
        list(entries(dataset, column, names, [metrics])),
        [*legend(names, samples), *log_det_notes(column, [metrics])],
        {"dataset_options": options, "samples": samples, "seed": seed},
    )
    print(report.text())
    if out is not None:
        written = report.write(out, "evaluation")
        if not args.quiet:
            print("\nWritten: " + ", ".join(map(str, written)))


def _check(model: MVAE, what: str, dataset: str, test: MultimodalDataset) -> None:
    """Raise if the model cannot score the data."""
    names, there = list(model.modalities), list(test.arrays)
    if set(names) != set(there):
        raise ValueError(f"{what} {dataset} must have the model's modalities {names}, got {there}")
    try:
        check_data(model, test)
    except ValueError as error:
        raise ValueError(f"{what} {dataset} does not fit the model: {error}") from error


def _recipe(checkpoint: Path, dataset: str | None) -> dict[str, Any]:
    """What the run of a checkpoint was evaluated on and how, or for another data set the defaults;
    a data set of None is the run's.

    Raises:
        ValueError: If no data set is named, here or by the run, or the run's file is damaged.
    """
    path = checkpoint.resolve().parent.parent / "config.yaml"
    try:
        saved = read_recipe(path)
    except FileNotFoundError:
        if dataset is None:
            raise ValueError(
                f"--dataset is needed: there is no {path} of a run that names it"
            ) from None
        saved = {}
    default: dict[str, Any] = {"dataset": dataset, "dataset_options": {}, "seed": 0}
    return {**default, **saved} if dataset in (None, saved.get("dataset")) else default
