"""``mvae-fast info``."""

import json
from collections.abc import Sequence

from mvae_fast.experiments.commands.options import Parser


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "info",
        "Versions, and the engines: for each missing one, the reason and the remedy.",
        ("info", "info --json > environment.json"),
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def main(argv: Sequence[str]) -> None:
    """Print what a bug report needs."""
    args = parser().parse_args(argv)
    from mvae_fast.info import environment, environment_report

    print(json.dumps(environment(), indent=2) if args.json else environment_report())
