"""``mvae-fast init``."""

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from mvae_fast.experiments.commands.options import (
    Parser,
    add_overwrite,
    add_quiet,
    new_file,
)
from mvae_fast.experiments.commands.train import value
from mvae_fast.experiments.folders.files import write_text
from mvae_fast.experiments.own import own_settings
from mvae_fast.experiments.usage import usage

#: What the file has, in this order; the rest is as in ``configs/own.yaml``.
SHOWN = ("split", "modalities", "models", "latent_dim", "epochs", "batch_size", "lr", "seed")


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "init",
        "Look at data of your own, and write the settings that a training starts from.",
        (
            "init --data people.csv --out people.yaml",
            "init --data people.csv --split '{column: fold}'",
        ),
    )
    add = parser.add_argument
    add("--data", required=True, metavar="FILE", help=".npz, .csv or .parquet file, or a folder")
    add("--out", metavar="FILE", help="YAML file to write; default: print it")
    add(
        "--split",
        type=value(dict[str, Any]),
        metavar="YAML",
        help="fractions and a seed, or a column; default: {validation: 0.1, test: 0.1, seed: 0}",
    )
    add_overwrite(parser)
    add_quiet(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """``mvae-fast init --data FILE``: settings, with what was found as comments."""
    args = parser().parse_args(argv)
    with usage():
        out = None if args.out is None else new_file(args.out, args.overwrite, (".yaml", ".yml"))
        settings, found = own_settings(args.data, split=args.split)
    shown = {"data": args.data, **{name: settings[name] for name in SHOWN}}
    train = f"mvae-fast train --config {shlex.quote(args.out or 'FILE')}"
    notes = [f"Written by mvae-fast init. To train: {train}", *found]
    text = "".join(f"# {line}\n" for line in notes)
    text += yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, allow_unicode=True)
    if out is None:
        print(text, end="")
        return
    write_text(out, text)
    if not args.quiet:
        print("\n".join(found))
        print(f"\nWritten: {out}. Then: {train}")
