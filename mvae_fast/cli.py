"""The ``mvae-fast`` command."""

import sys
from collections.abc import Sequence

from mvae_fast.experiments.commands import COMMANDS, module
from mvae_fast.experiments.commands.options import program
from mvae_fast.experiments.usage import RunError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mvae-fast``.

    ``info`` and ``bench`` need nothing beyond the core's own dependencies; the other commands need
    the extra ``[train]`` and say so.

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
    name = "mvae-fast"
    parser, commands = program()
    for command, help in COMMANDS.items():
        commands.add_parser(command, help=help, add_help=False)  # each parses its own options
    try:
        args, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
        name += f" {args.command}"
        # Only now: the command's own imports take seconds.
        module(args.command).main(rest)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mvae_fast"):
            raise
        print(f"{name} needs {error.name}: pip install 'mvae_fast[train]'", file=sys.stderr)
        return 1
    except (UsageError, RunError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as interrupt:
        print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
