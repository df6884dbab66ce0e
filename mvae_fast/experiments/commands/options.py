"""Options that several commands of ``mvae-fast`` have."""

import argparse
from typing import Any

import jsonargparse


def command_parser(name: str, description: str, **options: Any) -> jsonargparse.ArgumentParser:
    """The parser of a command, without options so far."""
    return jsonargparse.ArgumentParser(
        prog=f"mvae-fast {name}", description=description, default_env=False, **options
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add where data sets are and where models are evaluated."""
    add = parser.add_argument
    add("--data-dir", type=str, help="folder of data sets; default: $MVAE_FAST_DATA")
    add("--download", action="store_true", help="fetch data sets that are not there")
    add("--device", type=str, default="auto", help="auto (a GPU if there is one), cpu, cuda[:n]")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the sources of settings, as `mvae_fast.experiments.config.configured` takes them."""
    add = parser.add_argument
    add("--config", action="append", default=[], metavar="FILE", help="YAML file of settings")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting; dots go down, as in flows.mvae_cnf.T=0.5",
    )
