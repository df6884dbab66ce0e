"""Tables of saved measurements: ``python -m benchmarks.report FILE`` prints Markdown.

With ``--page`` FILE is a page, such as docs/benchmarks.md: it gets the tables of the runs that are
saved in benchmarks/results/, each between ``<!-- run NAME -->`` and ``<!-- end -->``.

A saved run is JSON: ``environment``, ``command``, ``clock`` and ``rows``, each row with
``workload``, ``shape``, ``mode``, ``dtype`` and ``seconds`` (every sample of every candidate). Rows
of a CPU have ``threads``, too, and those of clients what `benchmarks.clients.comparison` shows;
rows of a GPU, ``precision`` and what `benchmarks.gpu.report` shows.
"""

import argparse
import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.clients import comparison
from benchmarks.common.estimators import estimators
from benchmarks.common.interleave import Quartiles, Timings
from benchmarks.common.summary import summary
from benchmarks.gpu import report as gpu_report

Row = dict[str, Any]

RESULTS = Path(__file__).parent / "results"
"""Saved runs."""

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
    head = [*keys, base, *(f"{peer}: slower by" for peer in peers), "rounds"]
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


def tables(run: dict[str, Any]) -> list[str]:
    """Lines of Markdown: the tables of a run, each with how it is read, and what they say."""
    rows = run["rows"]
    of_clients = [row for row in rows if "aims" in row]
    on_cpu = [row for row in rows if "threads" in row and "aims" not in row]
    on_gpu = [row for row in rows if "threads" not in row]
    lines: list[str] = []
    # Where one engine lacks a precision the first candidate is another, and so is the table.
    groups: dict[tuple[bool, str], list[Row]] = {}
    for row in [*on_cpu, *on_gpu]:
        groups.setdefault(("threads" in row, _base(row)), []).append(row)
    for (_, base), group in groups.items():
        lines += [
            table(group),
            "",
            f"Slower by: how many times longer than {base} (median of the rounds' "
            "ratios, quartiles in brackets), then the median time of a call.",
            "",
        ]
    lines += estimators(on_cpu)
    lines += comparison.lines(of_clients)
    if on_gpu:
        lines += [gpu_report.markdown(on_gpu), ""]
    if told := summary([*on_cpu, *on_gpu]):
        lines += ["In short, how long each takes:", "", *told, ""]
    return lines


def markdown(run: dict[str, Any]) -> str:
    """Where and how the run was measured, its tables and what the workloads are."""
    rows = run["rows"]
    shapes = {row["workload"]: row["shape"] for row in rows}
    dtypes = ", ".join(sorted({row["dtype"] for row in rows}))
    on_host = any("threads" in row for row in rows)
    on_device = any("threads" not in row for row in rows)
    clock = ", ".join([_CLOCKS[run["clock"]]] * on_host + [_DEVICE_TIME] * on_device)
    facts = [f"- {name}: {value}" for name, value in run["environment"].items()]
    return "\n".join(
        [
            f"Command: `{run['command']}`, {dtypes}, {clock}",
            "",
            *facts,
            "",
            *tables(run),
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


def on_page(page: str) -> str:
    """A page with the tables of saved runs between its marks."""

    def filled(mark: re.Match[str]) -> str:
        run = json.loads((RESULTS / f"{mark[1]}.json").read_text())
        return "\n".join([f"<!-- run {mark[1]} -->", "", *tables(run), "<!-- end -->"])

    return re.sub(r"<!-- run (\S+) -->\n.*?<!-- end -->", filled, page, flags=re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``python -m benchmarks.report``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument(
        "file", type=Path, help="what pytest benchmarks/ --out FILE wrote, or a page"
    )
    parser.add_argument("--csv", action="store_true", help="comma-separated instead of Markdown")
    parser.add_argument("--page", action="store_true", help="FILE is a page to write tables into")
    options = parser.parse_args(arguments)
    if options.page:
        options.file.write_text(on_page(options.file.read_text()))
        return
    run = json.loads(options.file.read_text())
    print(to_csv(run) if options.csv else markdown(run))


if __name__ == "__main__":
    main()
