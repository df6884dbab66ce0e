"""What the commands on rows share: a model, a file of the same kind, batches of it with a bar."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mvae_fast.data import MultimodalDataset, UserData, read_data
from mvae_fast.data.optional import needed
from mvae_fast.experiments.commands.options import add_overwrite, add_quiet, new_file
from mvae_fast.experiments.config import check_seed
from mvae_fast.experiments.devices import resolve_device
from mvae_fast.experiments.evaluation import VALUES_AT_ONCE, numbers_a_row
from mvae_fast.experiments.folders.checkpoints import load_checkpoint
from mvae_fast.experiments.own import described
from mvae_fast.experiments.usage import usage
from mvae_fast.vae import MVAE

SUFFIXES = (".csv", ".npz", ".parquet")
"""Of the files that can be written."""


def add_rows(parser: ArgumentParser, samples: int | None = None) -> None:
    """Add the options that `opened` takes; ``samples``: the default of ``--samples``."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="model.pt or a .ckpt")
    add("--data", required=True, metavar="FILE", help="file or folder of the model's kind of data")
    add("--out", required=True, metavar="FILE", help="file to write: .csv, .npz or .parquet")
    if samples is not None:
        add("--samples", type=int, default=samples, help="samples a row")
    add("--seed", type=int, default=0, help="of the noise")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:<number>")
    add_overwrite(parser)
    add_quiet(parser)


@dataclass(frozen=True)
class Asked:
    """A model and the rows that it is asked about."""

    model: MVAE
    data: UserData
    modalities: dict[str, Any]
    dataset: MultimodalDataset
    out: Path
    generator: torch.Generator
    title: str
    quiet: bool

    def batches(self, samples: int) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Rows as many as fit into the memory, with so many samples each, behind a bar."""
        n, device = len(self.dataset), self.generator.device
        rows = max(1, VALUES_AT_ONCE // (samples * numbers_a_row(self.model, self.dataset)))
        # None: a bar unless stderr is no terminal.
        bar = tqdm(
            desc=self.title,
            total=n,
            unit=" rows",
            leave=False,
            disable=True if self.quiet else None,
        )
        with bar:
            for start in range(0, n, rows):
                x, mask = self.dataset[start : start + rows]
                yield (
                    {name: value.to(device) for name, value in x.items()},
                    {name: value.to(device) for name, value in mask.items()},
                )
                bar.update(min(rows, n - start))


def opened(args: Namespace, title: str) -> Asked:
    """The model and the data that options name, checked against each other.

    Raises:
        UsageError: If an option, the model or the data cannot be used.
    """
    with usage():
        out = new_file(args.out, args.overwrite, SUFFIXES)
        for path in (args.data, args.checkpoint):
            if out.exists() and Path(path).exists() and out.samefile(path):
                raise ValueError(f"--out: got {out}, which is read, expected another file")
        if out.suffix == ".parquet":
            needed("pyarrow", "--out", "tables")
        if getattr(args, "samples", 1) < 1:
            raise ValueError(f"--samples: got {args.samples}, expected a positive integer")
        check_seed(args.seed, "--seed")
        device = resolve_device(args.device)
        model = load_checkpoint(args.checkpoint).to(device)
        modalities = described(model)
        data = read_data(args.data)
        found = {name: spec for name, spec in modalities.items() if data.find(name)}
        if not found:
            raise ValueError(
                f"{args.data}: got {list(data.columns)}, expected some of the model's modalities "
                f"{list(modalities)}"
            )
        dataset = data.dataset(found)
    generator = torch.Generator(device).manual_seed(args.seed)
    return Asked(model, data, modalities, dataset, out, generator, title, args.quiet)
