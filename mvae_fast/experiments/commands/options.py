"""The parsers of ``mvae-fast``, and options that several commands have.

Of the standard library alone: ``info`` and ``bench`` need nothing else, and ``--help`` no torch.
"""

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from mvae_fast import __version__
from mvae_fast.experiments.usage import UsageError


class Parser(argparse.ArgumentParser):
    """Tells of an error in one line, which names the option, and those near to an unknown one.

    Args:
        name: Of the command; "" for `mvae-fast` itself.
        description: What it does.
        examples: Command lines without ``mvae-fast``, for the end of the help.
        options: Further arguments of `argparse.ArgumentParser`.
    """

    def __init__(
        self, name: str = "", description: str = "", examples: tuple[str, ...] = (), **options: Any
    ) -> None:
        shown = "\n".join(f"  mvae-fast {line}" for line in examples)
        super().__init__(
            **{
                "prog": f"mvae-fast {name}".rstrip(),
                "description": description,
                "epilog": f"examples:\n{shown}" if shown else None,
                "formatter_class": _Formatter,
                "allow_abbrev": False,
                **options,
            }
        )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        from mvae_fast.checks import near  # loads torch, which help and --version do without

        message = " ".join(message.removeprefix("argument ").split())
        if unknown := re.match(r"unrecognized arguments: (\S+)", message):
            message = f"{unknown[1]}: unknown" + near(unknown[1], self._option_string_actions)
        elif chosen := re.match(r"(.*): invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            name, word, listed = chosen.groups()
            known = [choice.strip(" '") for choice in listed.split(",")]
            message = f"{name}: unknown {word!r}{near(word, known)}; known: {', '.join(known)}"
        raise UsageError(message)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps lines, and shows each default that says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, argparse.SUPPRESS, []) or action.default is False
        told = silent or not action.option_strings
        return action.help if told else f"{action.help} (default: %(default)s)"


def program() -> tuple[Parser, Any]:
    """The parser of `mvae-fast` itself, and where the commands are added."""
    parser = Parser(
        description="Fast continuous normalizing flows, and multimodal VAEs on top of them.",
        examples=("bench", "train --epochs 5 --out runs/short", "train --help"),
    )
    parser.add_argument("--version", action="version", version=f"mvae_fast {__version__}")
    return parser, parser.add_subparsers(dest="command", metavar="COMMAND", required=True)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add where data sets are and where models are evaluated."""
    add = parser.add_argument
    add("--data-dir", metavar="FOLDER", help="of data sets; default: $MVAE_FAST_DATA")
    add("--download", action="store_true", help="fetch data sets that are not there")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:<number>")


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
    add(
        "--print-config",
        action="store_true",
        help="print the settings as YAML that --config takes, and do nothing",
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add what leaves results, warnings and errors alone."""
    parser.add_argument("--quiet", action="store_true", help="print results only, no progress")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add what lets `new_file` take the place of a file."""
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out")


def new_file(path: str, overwrite: bool, suffixes: tuple[str, ...]) -> Path:
    """The file of ``--out``.

    Raises:
        ValueError: If it is there and may not be replaced, or has another suffix.
    """
    if Path(path).suffix not in suffixes:
        raise ValueError(f"--out: got {path}, expected a file that ends in {' or '.join(suffixes)}")
    if Path(path).exists() and not overwrite:
        raise ValueError(f"--out: {path} is there; --overwrite replaces it")
    if Path(path).is_dir():
        raise ValueError(f"--out: {path} is a folder, expected a file")
    return Path(path)
