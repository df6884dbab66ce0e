"""Tables of saved measurements: ``python -m benchmarks.report FILE`` prints Markdown.

A saved run is JSON: ``environment``, ``command``, ``clock`` and ``rows``, each row with
``workload``, ``shape``, ``mode``, ``dtype`` and ``seconds`` (every sample of every candidate). Rows
of a CPU have ``threads``, too, and those of clients what `benchmarks.clients.comparison` shows;
rows of a GPU, ``precision`` and what `benchmarks.gpu.report` shows.
"""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.clients import comparison
from benchmarks.common.estimators import estimators
from benchmarks.common.interleave import Quartiles, Timings
from benchmarks.gpu import report as gpu_report

Row = dict[str, Any]

_CLOCKS = {"wall": "wall time", "cpu": "CPU time"}
_DEVICE_TIME = "device time between events, the L2 cache flushed before each call"


def _base(row: Row) -> str:
    """The candidate that the others are divided by: the first that was timed."""
    return next(iter(row["seconds"]))


def _keys(rows: Sequence[Row]) -> list[str]:
    """What tells the rows apart."""
    either = (key for key in ("threads", "precision") if any(key in row for row in rows))
    return ["workload", "mode", *either]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of the rows: our time, then each peer's ratio to it and its time."""
    base, keys = _base(rows[0]), _keys(rows)
    names = dict.fromkeys(name for row in rows for name in row["seconds"])
    peers = [name for name in names if name != base]
    head = [*keys, base, *peers, "rounds"]
    lines = []
    for row in rows:
        timings = Timings(row["seconds"])
        cells = [*(row[key] for key in keys), timings.time(base).as_time()]
        for peer in peers:
            if peer not in row["seconds"]:
                cells.append("")
                continue
            ratio, time = timings.ratio(peer, base), timings.time(peer)
            cells.append(f"{ratio.as_ratio()}, {time.as_time()}")
        lines.append([*cells, timings.rounds])
    return gpu_report.table(head, lines)


def markdown(run: dict[str, Any]) -> str:
    """Where and how the run was measured, its tables and what the workloads are."""
    rows = run["rows"]
    shapes = {row["workload"]: row["shape"] for row in rows}
    dtypes = ", ".join(sorted({row["dtype"] for row in rows}))
    of_clients = [row for row in rows if "aims" in row]
    on_cpu = [row for row in rows if "threads" in row and "aims" not in row]
    on_gpu = [row for row in rows if "threads" not in row]
    clock = ", ".join(
        [_CLOCKS[run["clock"]]] * bool(on_cpu or of_clients) + [_DEVICE_TIME] * bool(on_gpu)
    )
    facts = [f"- {name}: {value}" for name, value in run["environment"].items()]
    tables = []
    # Where one engine lacks a precision the first candidate is another, and so is the table.
    groups: dict[tuple[bool, str], list[Row]] = {}
    for row in [*on_cpu, *on_gpu]:
        groups.setdefault(("threads" in row, _base(row)), []).append(row)
    for (_, base), group in groups.items():
        tables += [
            table(group),
            "",
            f"Each peer: how many times longer than {base} (median of the rounds' "
            "ratios, quartiles in brackets), then the median time of a call.",
            "",
        ]
    tables += estimators(on_cpu)
    tables += comparison.lines(of_clients)
    if on_gpu:
        tables += [gpu_report.markdown(on_gpu), ""]
    return "\n".join(
        [
            f"Command: `{run['command']}`, {dtypes}, {clock}",
            "",
            *facts,
            "",
            *tables,
            *(f"- not measured: {reason}" for reason in run.get("missing", [])),
            *(f"- {name}: {shape}" for name, shape in shapes.items()),
        ]
    )


def to_csv(run: dict[str, Any]) -> str:
    """One line for each candidate of each row, times in milliseconds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = [*_keys(run["rows"]), "dtype"]
    measured = [f"{what}_{q}" for what in ("ms", "ratio") for q in Quartiles._fields]
    writer.writerow([*keys, "candidate", *measured, "rounds"])
    for row in run["rows"]:
        timings = Timings(row["seconds"])
        for name in row["seconds"]:
            cells = [f"{q * 1e3:.4f}" for q in timings.time(name)]
            cells += [f"{q:.3f}" for q in timings.ratio(name, _base(row))]
            writer.writerow([*(row.get(key, "") for key in keys), name, *cells, timings.rounds])
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
