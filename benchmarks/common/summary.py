"""What a table says, in words: against each peer, and where ours is the slower one."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.interleave import Timings


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown, one a peer and mode; nothing where no peer was measured.

    Args:
        rows: As of `benchmarks.report`. The first candidate is ours, and ours begin with its name.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        timings, ours = Timings(row["seconds"]), next(iter(row["seconds"]))
        for name in row["seconds"]:
            if name.startswith(ours):
                continue
            ratio = timings.ratio(name, ours).median
            place = row["workload"]
            if "threads" in row:
                place += f" ({row['threads']} thread{'s' * (row['threads'] > 1)})"
            found.setdefault((name, row["mode"]), {})[place] = ratio
    return [
        f"- {name}, {mode}: {_range(list(ratios.values()))} our time{_lost(ratios)}"
        for (name, mode), ratios in found.items()
    ]


def _range(ratios: Sequence[float]) -> str:
    low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
    return f"{low} times" if low == high else f"{low} to {high} times"


def _lost(ratios: Mapping[str, float]) -> str:
    lost = [place for place, ratio in ratios.items() if ratio < 1]
    return f"; faster than ours in {', '.join(lost)}" if lost else ""
