"""Exact traces and Hutchinson's estimates, ours and theirs, in one table."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.interleave import Timings

TRACES = {"exact": "exact", "hutchinson": "Hutchinson"}


def estimators(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: for each mode and thread count a table, a line for each candidate.

    Nothing where no peer has an exact trace: then all estimates are in the table of the rows.

    Args:
        rows: Of a CPU, as of `benchmarks.report`; in ``traces``, the trace of each candidate that
            is compared. The first candidate is ours, and ours begin with its name.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if "traces" in row:
            groups.setdefault((row["mode"], row["threads"]), []).append(row)
    lines: list[str] = []
    for (mode, threads), group in groups.items():
        cells = _cells(group)
        ours = next(iter(group[0]["seconds"]))
        if all(trace != "exact" or name.startswith(ours) for trace, name in cells):
            continue
        workloads = list(dict.fromkeys(row["workload"] for row in group))
        lines += [f"Trace by trace, {mode}, {threads} thread{'s' * (threads > 1)}:", ""]
        lines += [
            f"| trace | whose | {' | '.join(workloads)} |",
            "|---" * (2 + len(workloads)) + "|",
        ]
        # Stable: ours come first, then the peers in the order of the run.
        for trace, name in sorted(cells, key=lambda key: (key[0], not key[1].startswith(ours))):
            found = [cells[trace, name].get(workload, "") for workload in workloads]
            lines.append(f"| {TRACES[trace]} | {name} | {' | '.join(found)} |")
        lines += [
            "",
            f"Each: how many times longer than {ours} with the same kind of trace, median and "
            "quartiles.",
            "",
        ]
    return lines


def _cells(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, str]]:
    """By trace and candidate, for each workload ours in milliseconds or a peer's ratio to it."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        timings, ours = Timings(row["seconds"]), next(iter(row["seconds"]))
        bases: dict[str, str] = {}
        for name, trace in row["traces"].items():
            if name.startswith(ours):
                bases.setdefault(trace, name)
            if trace not in bases:
                continue  # a row without ours of this kind
            base = bases[trace]
            text = timings.time(name).as_time()
            if name != base:
                text = timings.ratio(name, base).as_ratio()
            # Of a workload in two rows, the first is the one with more rounds.
            cells.setdefault((trace, name), {}).setdefault(row["workload"], text)
    return cells
