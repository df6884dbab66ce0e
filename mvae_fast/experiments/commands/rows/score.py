"""``mvae-fast score``."""

from collections.abc import Sequence

import torch

from mvae_fast.data.own.archives import write_archive
from mvae_fast.data.own.tables import cells_of, write_table
from mvae_fast.experiments.commands.options import Parser
from mvae_fast.experiments.commands.rows.asking import add_rows, opened
from mvae_fast.experiments.usage import usage
from mvae_fast.vae.queries import SAMPLES_AT_ONCE


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "score",
        "Write the log-likelihood of a file's rows in nats, by importance sampling, and the\n"
        "effective sample size: where it is small, the estimate is too low.",
        (
            "score runs/people/mvae/model.pt --data people.csv --out scores.csv",
            "score runs/people/mvae/model.pt --data people.csv --of eyes --given age --out s.csv",
        ),
    )
    add_rows(parser, samples=1000)
    add = parser.add_argument
    add("--of", nargs="+", metavar="MODALITY", help="what is scored; default: all but --given")
    add("--given", nargs="+", metavar="MODALITY", help="what is known; default: nothing")
    return parser


def main(argv: Sequence[str]) -> None:
    """``mvae-fast score CHECKPOINT --data FILE --out FILE``: see `mvae_fast.vae.MVAE.score`."""
    args = parser().parse_args(argv)
    asked = opened(args, "score")
    options = {"of": args.of, "given": args.given, "n_samples": args.samples}
    with usage():  # of one row: names that are unknown
        first, generator = asked.dataset[:1], torch.Generator(asked.generator.device)
        asked.model.score(*first, **{**options, "n_samples": 1}, generator=generator)
    scores = [
        asked.model.score(x, mask, **options, generator=asked.generator)
        for x, mask in asked.batches(min(args.samples, SAMPLES_AT_ONCE))
    ]
    log_prob, effective = (torch.cat(part).cpu() for part in zip(*scores, strict=True))
    columns = {"log_prob": log_prob.numpy(), "effective_samples": effective.numpy()}
    if asked.out.suffix == ".npz":
        write_archive(asked.out, columns)
    else:
        write_table(asked.out, {name: cells_of(values) for name, values in columns.items()})
    here = log_prob[~log_prob.isnan()]
    print(
        f"mean log p {here.mean():.3f} nats of {len(here)} of {len(log_prob)} rows; effective "
        f"sample size {effective.median():.0f} of {args.samples} (median)"
    )
    if not args.quiet:
        print(f"Written: {asked.out}")
