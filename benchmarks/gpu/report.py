"""Tables of GPU rows beside their times: latency, memory, and which of the aims were reached."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.common.interleave import Timings

Row = dict[str, Any]

#: The batch at which a step is all latency.
FEW_ROWS = 256
#: The row of the aims in time: training W2 at this batch.
AIMED_AT = "W2 B=1024"
TIMES_ODEINT = 60.0
TIMES_COMPILED = 5.0
TIMES_STATES = 1.2


def markdown(rows: Sequence[Row]) -> str:
    """All that there are rows for."""
    return "\n\n".join(part for part in (latency(rows), memory(rows), aims(rows)) if part)


def table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    body = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body])


def latency(rows: Sequence[Row]) -> str:
    """Microseconds of one step where a batch is small."""
    few = [row for row in rows if row["batch"] == FEW_ROWS]
    if not few:
        return ""
    names = list(dict.fromkeys(name for row in few for name in row["seconds"]))
    lines = []
    for row in few:
        cells = [row["workload"], row["mode"], row["precision"]]
        for name in names:
            samples = row["seconds"].get(name)
            cells.append(f"{1e6 * median(samples) / row['steps']:.1f}" if samples else "")
        lines.append(cells)
    times = table(["workload", "mode", "precision", *names], lines)
    return f"Latency of one step at B={FEW_ROWS}, us (median of a call over its steps):\n\n{times}"


def memory(rows: Sequence[Row]) -> str:
    """Peaks of training steps, as multiples of the states that the method has to save."""
    measured = [row for row in rows if row["memory"]]
    if not measured:
        return ""
    names = list(dict.fromkeys(name for row in measured for name in row["memory"]))
    lines = []
    for row in measured:
        size = row["sizes"]
        cells = [row["workload"], row["precision"]]
        cells += [f"{size[key] / 1e6:.1f}" for key in ("states", "packed", "outputs")]
        for name in names:
            peak = row["memory"].get(name)
            cells.append("" if peak is None else f"{peak / 1e6:.1f}{_over_states(peak, size)}")
        lines.append(cells)
    peaks = table(["workload", "precision", "states", "packed", "outputs", *names], lines)
    return (
        "Peak memory of a training step above its inputs, MB; in brackets (peak - outputs) / "
        f"states. States, packed tables and outputs are computed from the shapes:\n\n{peaks}"
    )


def _over_states(peak: int, size: dict[str, int]) -> str:
    if not size["states"]:  # a single step saves none
        return ""
    return f" ({(peak - size['outputs']) / size['states']:.2f}x)"


def aims(rows: Sequence[Row]) -> str:
    """What was aimed at, and what each of ours reached of it."""
    lines = []
    for row in rows:
        if row["mode"] != "train":
            continue
        if row["workload"] == AIMED_AT:
            timings = Timings(row["seconds"])
            compiled = [name for name in row["seconds"] if name.startswith("compile")]
            for ours in row["ours"]:
                ratio = timings.ratio("odeint", ours).median
                lines.append(_aim(row, ours, "odeint's time over it", ratio, TIMES_ODEINT))
                if compiled:
                    best = min(timings.ratio(name, ours).median for name in compiled)
                    what = "the best compiled peer's time over it"
                    lines.append(_aim(row, ours, what, best, TIMES_COMPILED))
        if row["sizes"]["states"] and row["batch"] == max(r["batch"] for r in rows):
            for ours in row["ours"]:
                if ours in row["memory"]:
                    size = row["sizes"]
                    share = (row["memory"][ours] - size["outputs"]) / size["states"]
                    what = "peak memory over saved states"
                    lines.append(_aim(row, ours, what, share, TIMES_STATES, at_most=True))
    if not lines:
        return ""
    head = ["workload", "precision", "candidate", "what", "aim", "measured", "reached"]
    return f"Aims in training:\n\n{table(head, lines)}"


def _aim(
    row: Row, name: str, what: str, value: float, aim: float, at_most: bool = False
) -> list[str]:
    reached = value <= aim if at_most else value >= aim
    sign = "<=" if at_most else ">="
    return [
        row["workload"],
        row["precision"],
        name,
        what,
        f"{sign} {aim:g}x",
        f"{value:.2f}x",
        "yes" if reached else "no",
    ]
