"""``mvae-fast train``."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import get_type_hints

from mvae_fast.experiments.commands.options import add_settings, command_parser
from mvae_fast.experiments.config import TrainConfig, chosen_dataset, configured


def main(argv: Sequence[str]) -> None:
    """``mvae-fast train``: see `mvae_fast.experiments.run.run`."""
    config = parse(argv)  # before Lightning, whose import takes seconds: --help should not
    from mvae_fast.experiments.run import run

    run(config)


def parse(argv: Sequence[str]) -> TrainConfig:
    """Settings from the command line: the data set's packaged configuration, then ``--config``
    files, then ``--set``, then options.

    Example:
        >>> parse(["--epochs", "3", "--latent-dim", "16", "--models", "mvae"]).models
        ['mvae']
    """
    parser = command_parser(
        "train",
        "Train MVAE and MVAE-CNF, print the paper's Table 1 on the held-out split, and draw "
        "samples. Without options: scikit-learn's digits, about 75 seconds on one core.",
    )
    add_settings(parser)
    hints = get_type_hints(TrainConfig)
    for option in fields(TrainConfig):
        flag = "--" + option.name.replace("_", "-")
        help = option.metadata["help"]
        if option.name in ("resume", "overwrite", "download"):
            parser.add_argument(flag, action="store_true", help=help)
        elif option.name == "models":
            parser.add_argument(flag, nargs="+", type=str, help=help)
        else:
            parser.add_argument(flag, type=hints[option.name], help=help)
    try:
        # What the other options default to depends on the data set.
        sources = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        add_settings(sources)
        sources.add_argument("--dataset")
        first, _ = sources.parse_known_args(argv)
        dataset = first.dataset or chosen_dataset(first.config, first.set)
        parser.set_defaults(TrainConfig.defaults() | configured(dataset, first.config, first.set))
        values = parser.parse_args(list(argv)).as_dict()
        return TrainConfig(**{name: values[name] for name in hints})
    except ValueError as error:
        parser.error(str(error))
