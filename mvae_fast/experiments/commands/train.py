"""``mvae-fast train``."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from mvae_fast.data.registry import DATASETS
from mvae_fast.experiments.commands.options import Parser, add_settings
from mvae_fast.experiments.config import TrainConfig, chosen_dataset, configured, fits, type_name
from mvae_fast.experiments.folders.files import read_yaml
from mvae_fast.experiments.own import named_data, own_settings
from mvae_fast.experiments.usage import usage


def main(argv: Sequence[str]) -> None:
    """``mvae-fast train``: see `mvae_fast.experiments.run.run`."""
    args, found = _arguments(argv)
    config = _config(args)  # before Lightning, whose import takes seconds
    if found and not (config.quiet or args.print_config):
        print("\n".join(found), flush=True)
    if args.print_config:
        print(yaml.safe_dump(config.settings(), sort_keys=False), end="")
        return
    from mvae_fast.experiments.run import run

    run(config)


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "train",
        "Train MVAE and MVAE-CNF, print the paper's Table 1 on the held-out split, and draw\n"
        "samples. Without options: scikit-learn's digits, about 75 seconds on one core.",
        (
            "train --models mvae --epochs 5 --out runs/short",
            "train --dataset fashion_mnist --download --set flows.mvae_cnf.n_steps=20",
            "train --print-config > mine.yaml",
            "train --config mine.yaml --resume",
            "train --data people.csv --out runs/people",
        ),
    )
    add_settings(parser)
    hints = get_type_hints(TrainConfig)
    for option in fields(TrainConfig):
        flag = "--" + option.name.replace("_", "-")
        parser.add_argument(flag, help=option.metadata["help"], **_reading(option, hints))
    return parser


def parse(argv: Sequence[str]) -> TrainConfig:
    """Settings from the command line: the data set's packaged configuration, then ``--config``
    files, then ``--set``, then options.

    Example:
        >>> parse(["--epochs", "3", "--latent-dim", "16", "--models", "mvae"]).models
        ['mvae']
    """
    return _config(_arguments(argv)[0])


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """All options, with what they default to, which depends on the data; and what was found in
    data of the user's own."""
    sources = Parser("train", add_help=False)
    add_settings(sources)
    sources.add_argument("--dataset")
    sources.add_argument("--data")
    sources.add_argument("--split", type=value(dict[str, Any]))
    first, _ = sources.parse_known_args(argv)
    options = parser()
    found: list[str] = []
    with usage():
        data = first.data or named_data(first.config, first.set)
        if data is not None and first.dataset:
            raise ValueError(f"--dataset: got {first.dataset!r} with the data {data}, expected one")
        if data is not None:
            settings, found = own_settings(data, first.config, first.set, first.split)
        else:
            dataset = first.dataset or chosen_dataset(first.config, first.set)
            settings = configured(dataset, first.config, first.set)
        options.set_defaults(**TrainConfig.defaults() | settings)
    return options.parse_args(argv), found


def _config(args: argparse.Namespace) -> TrainConfig:
    with usage():
        return TrainConfig(
            **{option.name: getattr(args, option.name) for option in fields(TrainConfig)}
        )


def _reading(option: "Field[Any]", hints: dict[str, Any]) -> dict[str, Any]:
    """How argparse reads a setting."""
    hint = hints[option.name]
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    special: dict[str, dict[str, Any]] = {
        "dataset": {"choices": list(DATASETS)},
        "models": {"nargs": "+", "metavar": "MODEL"},
        "out": {"metavar": "FOLDER"},
        "data_dir": {"metavar": "FOLDER"},
        "data": {"metavar": "FILE", "type": os.path.abspath},
    }
    text = str in (hint, *get_args(hint)) and get_origin(hint) is not dict
    return special.get(option.name, {}) if text else {"type": value(hint)}


def value(hint: Any) -> Callable[[str], Any]:
    """The reader of a YAML value of a type."""

    def read(text: str) -> Any:
        try:
            found = read_yaml(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if not fits(found, hint):
            raise argparse.ArgumentTypeError(f"expected {type_name(hint)}, got {text!r}")
        return found

    return read
