"""The paper's Table 1: reconstruction losses and negative ELBOs, side by side."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvae_fast.vae.evaluation import CONVENTIONS, Convention

__all__ = ["Table1"]

Metrics = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Table1:
    """Table 1 of one data set.

    X1 BCE, X2 BCE are the reconstruction terms of the joint negative ELBO; the paper does not say
    whether its own are, or are averages with those of the unimodal terms, as in its code.

    Args:
        modalities: names, in the paper's order X1, X2, ...
        results: for each model, by the name it is shown under, and each convention, what
            `mvae_fast.vae.evaluate` gave.
        notes: lines below the table.
        about: anything that belongs into ``table.json``, such as the settings of the run.
    """

    modalities: list[str]
    results: Mapping[str, Mapping[Convention, Metrics]]
    notes: list[str]
    about: Mapping[str, Any]

    @property
    def quantities(self) -> dict[str, str]:
        """Keys of `evaluate` by the name of the paper's column."""
        numbered = list(enumerate(self.modalities, 1))
        return {
            **{f"X{i} BCE": f"nll/joint/{name}" for i, name in numbered},
            "ELBO joint": "elbo/joint",
            **{f"ELBO X{i}": f"elbo/{name}" for i, name in numbered},
        }

    @property
    def conventions(self) -> list[Convention]:
        """The conventions, in the order of the columns."""
        return list(next(iter(self.results.values())))

    def rows(self) -> list[list[str]]:
        """The paper's columns as rows: a name, then a number for each convention and model."""
        return [
            [title]
            + [
                f"{self.results[model][convention][key][0]:.4f}"
                for convention in self.conventions
                for model in self.results
            ]
            for title, key in self.quantities.items()
        ]

    def text(self) -> str:
        """The table for a terminal of 80 columns."""
        models = list(self.results)
        width = max(11, *(len(model) + 2 for model in models))
        first = max(len(title) for title in self.quantities)
        group = width * len(models)
        lines = [
            " " * first
            + "".join(f"  {f' {convention} ':─^{group}}" for convention in self.conventions),
            " " * first
            + "".join("  " + "".join(f"{m:>{width}}" for m in models) for _ in self.conventions),
        ]
        for title, *cells in self.rows():
            groups = [cells[i : i + len(models)] for i in range(0, len(cells), len(models))]
            lines.append(
                f"{title:<{first}}"
                + "".join("  " + "".join(f"{cell:>{width}}" for cell in g) for g in groups)
            )
        return "\n".join([*lines, "", *self._legend(), *self.notes])

    def markdown(self) -> str:
        """The table in Markdown."""
        models = list(self.results)
        head = [""] + [f"{m} ({c})" for c in self.conventions for m in models]
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *self.rows()]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([table, *self._legend(), *self.notes]) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``table.csv``, ``table.json`` and ``table.md``; return their paths."""
        paths = [folder / f"table.{suffix}" for suffix in ("csv", "json", "md")]
        with paths[0].open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["model", "convention", "quantity", "value", "standard_error"])
            for model, conventions in self.results.items():
                for convention, metrics in conventions.items():
                    for title, key in self.quantities.items():
                        writer.writerow([model, convention, title, *metrics[key]])
        paths[1].write_text(
            json.dumps({**self.about, "results": self.results, "notes": self.notes}, indent=2)
        )
        paths[2].write_text(self.markdown())
        return paths

    def _legend(self) -> list[str]:
        named = ", ".join(f"X{i} = {name}" for i, name in enumerate(self.modalities, 1))
        return [
            f"{named}; BCE: the joint term's; ELBO: negative; nats, lambda = beta = 1",
            *(f"{c}: {CONVENTIONS[c]}" for c in self.conventions),
        ]
