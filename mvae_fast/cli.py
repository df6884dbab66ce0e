"""The ``mvae-fast`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mvae_fast import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mvae-fast``.

    ``info`` needs nothing beyond the core's own dependencies; ``train`` needs the extra ``[train]``
    and says so.

    Args:
        argv: arguments; default: those of the process.

    Returns:
        The exit status.

    Example:
        >>> main(["--version"])
        Traceback (most recent call last):
        SystemExit: 0
    """
    parser = argparse.ArgumentParser(
        prog="mvae-fast",
        description="Fast continuous normalizing flows, and multimodal VAEs on top of them.",
    )
    parser.add_argument("--version", action="version", version=f"mvae_fast {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Each command parses its own options; those of `train` come from its settings.
    commands.add_parser("info", help="versions, and the engines available", add_help=False)
    commands.add_parser(
        "train", help="train MVAE and MVAE-CNF, print the paper's Table 1", add_help=False
    )
    args, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    return _info(rest) if args.command == "info" else _train(rest)


def _info(argv: Sequence[str]) -> int:
    from mvae_fast.info import environment_report

    argparse.ArgumentParser(
        prog="mvae-fast info",
        description="Versions, and the engines: for each missing one, the reason and the remedy.",
    ).parse_args(argv)
    print(environment_report())
    return 0


def _train(argv: Sequence[str]) -> int:
    try:
        from mvae_fast.experiments.options import parse

        config = parse(argv)  # before Lightning, whose import takes seconds: --help should not
        from mvae_fast.experiments.run import prepare, run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mvae_fast"):
            raise
        print(
            f"mvae-fast train needs {error.name}: pip install 'mvae_fast[train]'", file=sys.stderr
        )
        return 1

    try:
        splits = prepare(config)
    except ValueError as error:
        print(f"mvae-fast train: {error}", file=sys.stderr)
        return 2
    try:
        run(config, splits)
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. To go on from the last epoch: --resume --out {config.folder}",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
