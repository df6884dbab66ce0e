"""Tables of results: ours over seeds, beside the paper's numbers; on the screen and in files."""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from mvae_fast.experiments.folders.files import write_figure, write_json, write_text

#: The source of entries that are the paper's.
PUBLISHED = "published"


class Entry(NamedTuple):
    """A number of a table.

    Attributes:
        section: Of the table: a data set.
        row: The quantity.
        source: Where it comes from: `PUBLISHED`, or the convention of ours.
        column: Of the table: a model.
        values: One for each seed.
    """

    section: str
    row: str
    source: str
    column: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; NaN for a single one, or where one is not finite."""
        known = len(self.values) > 1 and all(map(math.isfinite, self.values))
        return statistics.stdev(self.values) if known else math.nan

    def text(self, digits: int) -> str:
        """Mean, and standard deviation where there is one."""
        if self.source == PUBLISHED:
            return f"{self.mean:.4f}".rstrip("0").rstrip(".")
        spread = "" if math.isnan(self.spread) else f" ± {self.spread:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


@dataclass
class Report:
    """A table in sections, one below the other.

    Args:
        title: Of the table.
        entries: Its numbers; each section's rows and columns come in order of appearance.
        notes: Lines below it.
        about: Anything that belongs into the JSON file, such as settings and versions.
        digits: Decimal places.
        figure: A picture of the numbers.

    Example:
        >>> report = Report(
        ...     "A table",
        ...     [
        ...         Entry("digits", "ELBO joint", "elbo", "MVAE", (30.0, 31.0)),
        ...         Entry("digits", "ELBO joint", "elbo", "MVAE-CNF", (29.0, 29.5)),
        ...     ],
        ... )
        >>> print(report.text())
        A table
        <BLANKLINE>
        digits                       MVAE      MVAE-CNF
        ───────────────────────────────────────────────
        ELBO joint  elbo     30.50 ± 0.71  29.25 ± 0.35
    """

    title: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)
    about: Mapping[str, Any] = field(default_factory=dict)
    digits: int = 2
    figure: Figure | None = None

    def tables(self) -> dict[str, list[list[str]]]:
        """Cells by section: a line of column names, then quantity, source and numbers."""
        return {
            section: self._table([e for e in self.entries if e.section == section])
            for section in dict.fromkeys(e.section for e in self.entries)
        }

    def text(self) -> str:
        """For a terminal."""
        lines = [self.title]
        for section, ((_, _, *columns), *rows) in self.tables().items():
            table = [[section, "", *columns], *rows]
            widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
            widths[1] = max(widths[1], len(PUBLISHED) - 2)
            shown = [
                "  ".join(
                    f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
                    for i, (cell, width) in enumerate(zip(line, widths, strict=True))
                ).rstrip()
                for line in table
            ]
            lines += ["", shown[0], "─" * (sum(widths) + 2 * len(widths) - 2), *shown[1:]]
        return "\n".join([*lines, "", *self.notes] if self.notes else lines)

    def markdown(self) -> str:
        """For a page."""
        parts = [f"# {self.title}"]
        for section, rows in self.tables().items():
            head = rows[0]
            rule = ["---", "---", *["---:"] * (len(head) - 2)]
            lines = [
                [cell.replace("|", r"\|") for cell in line] for line in [head, rule, *rows[1:]]
            ]
            table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
            parts += [f"## {section}", table]
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write ``<name>.csv``, ``.json`` and ``.md``, with a figure also ``.png``; return their
        paths."""
        paths = [folder / f"{name}.{suffix}" for suffix in ("csv", "json", "md")]
        lines = io.StringIO()
        writer = csv.writer(lines)
        writer.writerow(["section", "quantity", "source", "column", "mean", "sd", "seeds"])
        for e in self.entries:
            writer.writerow([*e[:4], e.mean, e.spread, len(e.values)])
        entries = [e._asdict() for e in self.entries]
        content = {
            "title": self.title,
            **self.about,
            "entries": entries,
            "notes": self.notes,
            "digits": self.digits,
        }
        write_text(paths[0], lines.getvalue())
        write_json(paths[1], content)
        write_text(paths[2], self.markdown())
        if self.figure is not None:
            paths.append(folder / f"{name}.png")
            write_figure(paths[-1], self.figure)
        return paths

    def _table(self, entries: Sequence[Entry]) -> list[list[str]]:
        columns = list(dict.fromkeys(e.column for e in entries))
        rows = list(dict.fromkeys(e.row for e in entries))
        # All sources of a quantity together, so that ours stand below the paper's.
        pairs = dict.fromkeys((e.row, e.source) for e in entries)
        lines = sorted(pairs, key=lambda pair: rows.index(pair[0]))
        cells = {(e.row, e.source, e.column): e.text(self.digits) for e in entries}
        return [
            ["", "", *columns],
            *([*line, *(cells.get((*line, column), "") for column in columns)] for line in lines),
        ]
