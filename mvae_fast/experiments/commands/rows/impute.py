"""``mvae-fast impute``."""

from collections.abc import Sequence

import torch

from mvae_fast.data.own.archives import write_archive
from mvae_fast.data.own.filling import Fill, filled_arrays, filled_table
from mvae_fast.data.own.tables import write_table
from mvae_fast.experiments.commands.options import Parser
from mvae_fast.experiments.commands.rows.asking import add_rows, opened
from mvae_fast.experiments.usage import usage


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "impute",
        "Fill what is missing in a file, given what each row has. Beside each column that was\n"
        "filled comes NAME_std, the standard deviation, or NAME_probability, that of the class.",
        (
            "impute runs/people/mvae/model.pt --data people.csv --out filled.csv",
            "impute runs/people/mvae/model.pt --data people.csv --out filled.npz --samples 500",
        ),
    )
    add_rows(parser, samples=100)
    parser.add_argument(
        "--weighted",
        action="store_true",
        help="weigh samples by their importance; needs many samples, as score does",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """``mvae-fast impute CHECKPOINT --data FILE --out FILE``: see `mvae_fast.vae.MVAE.impute`."""
    args = parser().parse_args(argv)
    asked = opened(args, "impute")
    parts: dict[str, list[tuple[torch.Tensor, ...]]] = {name: [] for name in asked.modalities}
    for x, mask in asked.batches(1):
        done = asked.model.impute(
            x, mask, args.samples, weighted=args.weighted, generator=asked.generator
        )
        for name in parts:
            here = (done.values[name], done.uncertainty[name], done.filled[name])
            parts[name].append(tuple(part.cpu() for part in here))
    fills = {
        name: Fill(*(torch.cat(part).numpy() for part in zip(*rows, strict=True)))
        for name, rows in parts.items()
    }
    with usage():
        if asked.out.suffix == ".npz":
            write_archive(asked.out, filled_arrays(asked.data, asked.modalities, fills))
        else:
            write_table(asked.out, filled_table(asked.data, asked.modalities, fills))
    if not args.quiet:
        counts = ", ".join(f"{name} {fill.filled.sum()}" for name, fill in fills.items())
        print(f"Rows that were filled, of {len(asked.dataset)}: {counts}\nWritten: {asked.out}")
