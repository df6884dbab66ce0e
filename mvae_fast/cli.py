"""The ``mvae-fast`` command."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from mvae_fast import __version__

#: Each but ``info`` is a module of `mvae_fast.experiments.commands` with a function ``main``.
COMMANDS = {
    "info": "versions, and the engines available",
    "train": "train MVAE and MVAE-CNF on a data set, print the paper's Table 1",
    "reproduce": "tables and figures of the paper, ours beside the paper's",
    "evaluate": "evaluate a trained model on a test split",
    "sample": "draw samples from a trained model",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mvae-fast``.

    ``info`` needs nothing beyond the core's own dependencies; the other commands need the extra
    ``[train]`` and say so.

    Args:
        argv: Arguments; default: those of the process.

    Returns:
        The exit status: 0, 1 where a package is missing or a run had to stop, 2 for bad arguments
        or data, 130 after an interruption.

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
    for name, help in COMMANDS.items():
        commands.add_parser(name, help=help, add_help=False)  # each parses its own options
    args, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    if args.command == "info":
        return _info(rest)
    try:
        return _run(args.command, rest)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mvae_fast"):
            raise
        print(
            f"mvae-fast {args.command} needs {error.name}: pip install 'mvae_fast[train]'",
            file=sys.stderr,
        )
        return 1


def _run(command: str, argv: Sequence[str]) -> int:
    from mvae_fast.experiments.usage import RunError, UsageError

    try:
        # Only now: the command's own imports take seconds.
        importlib.import_module(f"mvae_fast.experiments.commands.{command}").main(argv)
    except (UsageError, RunError) as error:
        print(f"mvae-fast {command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as interrupt:
        print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
        return 130
    return 0


def _info(argv: Sequence[str]) -> int:
    from mvae_fast.info import environment_report

    argparse.ArgumentParser(
        prog="mvae-fast info",
        description="Versions, and the engines: for each missing one, the reason and the remedy.",
    ).parse_args(argv)
    print(environment_report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
