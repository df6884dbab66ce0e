"""Tables of saved measurements: ``python -m benchmarks.report FILE`` prints Markdown.

A saved run is JSON: ``environment``, ``command``, ``clock`` and ``rows``, each row with
``workload``, ``shape``, ``mode``, ``threads``, ``dtype`` and ``seconds`` (every sample of every
candidate).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.interleave import Quartiles, Timings

__all__ = ["main", "markdown", "to_csv"]

Row = dict[str, Any]

_CLOCKS = {"wall": "wall time", "cpu": "CPU time"}


def _base(row: Row) -> str:
    """The candidate that the others are divided by: the first that was timed."""
    return next(iter(row["seconds"]))


def _candidates(rows: Sequence[Row]) -> list[str]:
    """All others, in the order of first appearance."""
    names = {name: None for row in rows for name in row["seconds"] if name != _base(row)}
    return list(names)


def _ratio(ratio: Quartiles) -> str:
    return f"{ratio.median:.2f}x ({ratio.lower:.2f}-{ratio.upper:.2f})"


def _milliseconds(time: Quartiles) -> str:
    return f"{time.median * 1e3:.3g} ms"


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of the rows: our time, then each peer's ratio to it and its time."""
    peers = _candidates(rows)
    head = ["workload", "mode", "threads", _base(rows[0]), *peers, "rounds"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        timings = Timings(row["seconds"])
        base = _base(row)
        cells = [row["workload"], row["mode"], row["threads"], _milliseconds(timings.time(base))]
        for peer in peers:
            if peer not in row["seconds"]:
                cells.append("")
                continue
            ratio, time = timings.ratio(peer, base), timings.time(peer)
            cells.append(f"{_ratio(ratio)}, {_milliseconds(time)}")
        cells.append(timings.rounds)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def markdown(run: dict[str, Any]) -> str:
    """Where and how the run was measured, its table and what the workloads are."""
    rows = run["rows"]
    shapes = {row["workload"]: row["shape"] for row in rows}
    dtypes = ", ".join(sorted({row["dtype"] for row in rows}))
    facts = [f"- {name}: {value}" for name, value in run["environment"].items()]
    return "\n".join(
        [
            f"Command: `{run['command']}`, {dtypes}, {_CLOCKS[run['clock']]}",
            "",
            *facts,
            "",
            table(rows),
            "",
            f"Each peer: how many times longer than {_base(rows[0])} (median of the rounds' "
            "ratios, quartiles in brackets), then the median time of a call.",
            "",
            *(f"- {name}: {shape}" for name, shape in shapes.items()),
        ]
    )


def to_csv(run: dict[str, Any]) -> str:
    """One line for each candidate of each row, times in milliseconds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = ["workload", "mode", "threads", "dtype"]
    quartiles = ["lower", "median", "upper"]
    writer.writerow(
        [*keys, "candidate", *(f"ms_{q}" for q in quartiles), *(f"ratio_{q}" for q in quartiles)]
        + ["rounds"]
    )
    for row in run["rows"]:
        timings = Timings(row["seconds"])
        for name in row["seconds"]:
            time, ratio = timings.time(name), timings.ratio(name, _base(row))
            writer.writerow(
                [*(row[key] for key in keys), name]
                + [f"{getattr(time, q) * 1e3:.4f}" for q in quartiles]
                + [f"{getattr(ratio, q):.3f}" for q in quartiles]
                + [timings.rounds]
            )
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``python -m benchmarks.report``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("file", type=Path, help="what pytest benchmarks/ --out FILE wrote")
    parser.add_argument("--csv", action="store_true", help="comma-separated instead of Markdown")
    options = parser.parse_args(arguments)
    run = json.loads(options.file.read_text())
    print(to_csv(run) if options.csv else markdown(run))


if __name__ == "__main__":
    main()
