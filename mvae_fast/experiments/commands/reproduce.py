"""``mvae-fast reproduce``."""

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml

from mvae_fast import __version__
from mvae_fast.data import DATASETS
from mvae_fast.experiments.commands.options import Parser, add_data, add_quiet, add_settings
from mvae_fast.experiments.config import configured
from mvae_fast.experiments.devices import processor
from mvae_fast.experiments.report import Report
from mvae_fast.experiments.reproduce.decisions import DECISIONS, decisions
from mvae_fast.experiments.reproduce.figures import figure3, figure4, figure5
from mvae_fast.experiments.reproduce.laboratory import OWN, Laboratory
from mvae_fast.experiments.reproduce.table1 import table1
from mvae_fast.experiments.reproduce.table2 import table2
from mvae_fast.experiments.reproduce.table3 import table3
from mvae_fast.experiments.reproduce.table4 import PAIRS, table4
from mvae_fast.experiments.usage import going_on, usage

#: The experiments: what each is, and the data set it takes where none is named. Each is called with
#: a `Laboratory`, data sets, models and options of its own, and gives a `Report` with a section for
#: each data set, or the files that it wrote.
EXPERIMENTS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "table1": (table1, "digits", "reconstruction and ELBO on MNIST-like data sets"),
    "table2": (table2, "digits", "label-conditioned samples, judged by a classifier"),
    "table3": (table3, "digits", "learning with a fraction of paired examples"),
    "table4": (table4, "photos", "image transformations: gray, edge, mask"),
    "figure3": (figure3, "digits", "samples given the label"),
    "figure4": (figure4, "digits", "unconditional samples"),
    "figure5": (figure5, "photos", "image transformations in both directions"),
    "decisions": (decisions, "digits", "what the decisions that the paper leaves open change"),
}


def parser() -> Parser:
    """The command's parser."""
    kinds = "\n".join(f"  {name:<10} {what}" for name, (_, _, what) in EXPERIMENTS.items())
    parser = Parser(
        "reproduce",
        "Train what is missing, evaluate, and print ours beside the paper's.\n"
        f"Interrupted, it goes on where it stopped.\n\n{kinds}",
        (
            "reproduce table1 --dataset mnist --download --jobs 2",
            "reproduce figure3 --seeds 0 --set epochs=5 --out short",
        ),
    )
    add = parser.add_argument
    add("experiment", choices=list(EXPERIMENTS), help="table or figure")
    add(
        "--dataset",
        nargs="+",
        choices=[*DATASETS, *PAIRS],
        help="data sets; default: one that needs no files",
    )
    add("--models", nargs="+", default=["mvae", "mvae_cnf"], metavar="MODEL", help="models")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="a run of each model for each")
    add("--jobs", type=int, default=1, help="runs at the same time, each on its own threads")
    add("--out", default="reproduction", metavar="FOLDER", help="for everything written")
    add_data(parser)
    add_settings(parser)
    add_quiet(parser)
    add("--fractions", nargs="+", type=float, default=[], help="table3: fractions that stay paired")
    add("--decisions", nargs="+", choices=list(DECISIONS)[1:], default=[], help="default: all")
    add(
        "--through-flow", action="store_true", help="figure4: N(0, I) through the flow, as the code"
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Run an experiment.

    Raises:
        UsageError: If a setting or a data file is faulty or missing, or another command uses the
            folder.
        RunError: If a training cannot go on, or the file system takes no more.
        KeyboardInterrupt: If the user stopped it; the same command goes on.
    """
    args = parser().parse_args(argv)
    if args.print_config:
        _print_config(args)
        return
    with ExitStack() as locks, going_on("The same command goes on from the last epoch."):
        _reproduce(args, list(argv), locks)


def _print_config(args: argparse.Namespace) -> None:
    """Print what all runs have in common, a YAML document for each data set."""
    with usage():
        named = [each for name in _datasets(args) for each in PAIRS.get(name, (name,))]
        for dataset in named:
            shared = configured(dataset, args.config, args.set)
            own = set(OWN) - {"dataset"}
            values = {key: value for key, value in shared.items() if key not in own}
            print(yaml.safe_dump(values, sort_keys=False, explicit_start=True), end="")


def _datasets(args: argparse.Namespace) -> list[str]:
    return args.dataset or [EXPERIMENTS[args.experiment][1]]


def _reproduce(args: argparse.Namespace, argv: list[str], locks: ExitStack) -> None:
    """Run an experiment, holding its folders to the end."""
    start = time.perf_counter()
    experiment, datasets = EXPERIMENTS[args.experiment][0], _datasets(args)
    with usage():
        data = (args.data_dir, args.download, args.device)
        settings = (args.config, args.set)
        laboratory = Laboratory(
            Path(args.out), args.seeds, args.jobs, *data, *settings, locks, quiet=args.quiet
        )
    own: dict[str, Any] = {
        "table3": {"fractions": args.fractions},
        "decisions": {"names": args.decisions},
        "figure4": {"through_flow": args.through_flow},
    }.get(args.experiment, {})
    if experiment is not decisions:
        own["models"] = args.models
    result: Report | list[Path] = experiment(laboratory, datasets, **own)
    if isinstance(result, Report):
        machine = _machine()
        result.about = {"command": argv, **machine, "runs": laboratory.recipes}
        result.notes.append(", ".join(f"{key} {value}" for key, value in machine.items()))
        print(f"\n{result.text()}" if not args.quiet else result.text())
        result = result.write(laboratory.out, "_".join([args.experiment, *datasets]))
    if not args.quiet:
        print(f"\n{time.perf_counter() - start:.0f} s. Written: " + ", ".join(map(str, result)))


def _machine() -> dict[str, str]:
    """What the numbers were computed with."""
    return {
        "machine": f"{processor()} ({os.cpu_count()} cores)",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mvae_fast": __version__,
    }
