"""``mvae-fast embed``."""

from collections.abc import Sequence

import torch

from mvae_fast.data.own.archives import write_archive
from mvae_fast.data.own.tables import cells_of, write_table
from mvae_fast.experiments.commands.options import Parser
from mvae_fast.experiments.commands.rows.asking import add_rows, opened


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "embed",
        "Write the latents of a file's rows: the posterior's mean given what each row has.",
        (
            "embed runs/people/mvae/model.pt --data people.csv --out latents.csv",
            "embed runs/people/mvae/model.pt --data people.csv --out latents.npz",
        ),
    )
    add_rows(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """``mvae-fast embed CHECKPOINT --data FILE --out FILE``: see `mvae_fast.vae.MVAE.embed`."""
    args = parser().parse_args(argv)
    asked = opened(args, "embed")
    z = torch.cat([asked.model.embed(x, mask).cpu() for x, mask in asked.batches(1)]).numpy()
    if asked.out.suffix == ".npz":
        write_archive(asked.out, {"z": z})
    else:
        write_table(asked.out, {f"z_{place}": cells_of(row) for place, row in enumerate(z.T)})
    if not args.quiet:
        print(f"{len(z)} rows of {z.shape[1]} latents. Written: {asked.out}")
