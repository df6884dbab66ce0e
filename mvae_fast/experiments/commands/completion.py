"""``mvae-fast completion``."""

from collections.abc import Sequence

from mvae_fast.experiments.commands import COMMANDS, module
from mvae_fast.experiments.commands.options import Parser, program

#: What completes an option, by the name of its value.
VALUES = {"FILE": "FILE", "CHECKPOINT": "FILE", "FOLDER": "DIRECTORY"}


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "completion",
        "Print a script that completes commands, options and their choices in a shell.",
        (
            "completion bash > ~/.local/share/bash-completion/completions/mvae-fast",
            "completion zsh > ~/.zfunc/_mvae-fast",
        ),
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")
    return parser


def main(argv: Sequence[str]) -> None:
    """Print the script."""
    args = parser().parse_args(argv)
    import shtab

    print(shtab.complete(whole(), shell=args.shell))


def whole() -> Parser:
    """`mvae-fast` with the options of every command."""
    import shtab

    whole, commands = program()
    for name, help in COMMANDS.items():
        parents = [module(name).parser()]
        command = commands.add_parser(name, help=help, parents=parents, add_help=False)
        for action in command._actions:
            if action.metavar in VALUES:
                action.complete = getattr(shtab, VALUES[action.metavar])
    return whole
