"""The options of ``mvae-fast train``, made from `TrainConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import get_type_hints

import jsonargparse

from mvae_fast.experiments.config import TrainConfig

__all__ = ["parse"]


def parse(argv: Sequence[str]) -> TrainConfig:
    """Settings from the command line: the packaged configuration, then ``--config`` files, then
    options.

    Args:
        argv: arguments behind ``mvae-fast train``.

    Returns:
        The settings.

    Example:
        >>> parse(["--epochs", "3", "--latent-dim", "16", "--models", "mvae"]).models
        ['mvae']
    """
    parser = jsonargparse.ArgumentParser(
        prog="mvae-fast train",
        description="Train MVAE and MVAE-CNF, print the paper's Table 1 on the held-out split, and "
        "draw samples. Without options: scikit-learn's digits, about a minute on two cores.",
        default_env=False,
    )
    parser.add_argument(
        "--config", action="config", metavar="FILE", help="YAML file of any of these options"
    )
    hints = get_type_hints(TrainConfig)
    for option in fields(TrainConfig):
        flag = "--" + option.name.replace("_", "-")
        help = option.metadata["help"]
        if option.name == "resume":
            parser.add_argument(flag, action="store_true", help=help)
        elif option.name == "models":
            parser.add_argument(flag, nargs="+", type=str, help=help)
        else:
            parser.add_argument(flag, type=hints[option.name], help=help)
    parser.set_defaults(TrainConfig.packaged("digits"))
    values = parser.parse_args(list(argv)).as_dict()
    try:
        return TrainConfig(**{name: values[name] for name in hints})
    except ValueError as error:
        parser.error(str(error))
