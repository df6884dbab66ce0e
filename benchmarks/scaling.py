"""How a training step's time grows with rows and steps: ``python -m benchmarks.scaling``.

FastCNF's time is measured over a series of rows B at the workload's number of steps, and of steps S
at its number of rows, all sizes of a series in turns. A line through each, ``fixed + slope n``,
tells what a call costs before its first row or step, what each of them adds, and how far the times
are from a line.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import log

import numpy as np
import torch

from benchmarks.common.candidates import CANDIDATES, OURS, Problem, training_step
from benchmarks.common.environment import print_environment
from benchmarks.common.interleave import interleave
from benchmarks.common.workloads import Workload, select

HEAD = (
    "| workload | threads | sizes | ms | fixed | one row and step | largest deviation | exponent "
    f"|\n{'|---' * 8}|"
)
LEGEND = (
    "ms: medians, size by size. Fixed, one row and step: of the line through them. Largest "
    "deviation: of the line\nfrom any of the times, relative to that time. Exponent: slope between "
    "the two largest sizes in the log-log plot."
)


@dataclass(frozen=True)
class Line:
    """``seconds = fixed + slope * size``.

    Args:
        fixed: Seconds at size 0.
        slope: Seconds for one more.
        deviation: Of the fit, ``|line / seconds - 1|`` at its worst size.
    """

    fixed: float
    slope: float
    deviation: float


def fit_line(sizes: Sequence[int], seconds: Sequence[float]) -> Line:
    """The line of the least squares of the *relative* residuals ``line / seconds - 1``.

    Noise is a share of the time that it hits, so that this weighs a short time like a long one.

    Example:
        >>> line = fit_line([10, 20, 40], [0.7, 1.2, 2.2])
        >>> round(line.fixed, 6), round(line.slope, 6), round(line.deviation, 6)
        (0.2, 0.05, 0.0)
    """
    n, t = np.asarray(sizes, dtype=float), np.asarray(seconds, dtype=float)
    relative = np.stack((1 / t, n / t), axis=1)
    (fixed, slope), *_ = np.linalg.lstsq(relative, np.ones_like(t))
    deviation = np.abs(relative @ (fixed, slope) - 1).max()
    return Line(float(fixed), float(slope), float(deviation))


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """``p`` in ``seconds ~ size^p`` between the two largest sizes.

    Example:
        >>> exponent([1, 2, 4], [5.0, 1.0, 4.0])
        2.0
    """
    (n, t), (larger, longer) = sorted(zip(sizes, seconds, strict=True))[-2:]
    return log(longer / t) / log(larger / n)


def call(workload: Workload, axis: str, size: int) -> Callable[[], object]:
    """FastCNF's training step on the workload with ``size`` along ``axis``."""
    by_rows, by_steps = replace(workload, batch=size), replace(workload, steps=size)
    problem = Problem(by_rows if axis == "batch" else by_steps, torch.float32)
    return partial(training_step, CANDIDATES[OURS].build(problem), problem)


def row(workload: Workload, axis: str, sizes: Sequence[int], threads: int, seconds: float) -> str:
    """One line of the table.

    Args:
        axis: ``"batch"`` or ``"steps"``: the field of the workload that takes the ``sizes``.
        sizes: Ascending.
        seconds: To spend, or as many as five rounds take.
    """
    calls = {str(size): call(workload, axis, size) for size in sizes}
    timings = interleave(calls, threads=threads, budget=seconds, min_rounds=5, warmup=1)
    times = [timings.time(name).median for name in calls]
    line = fit_line(sizes, times)
    swept, other = ("B", "S") if axis == "batch" else ("S", "B")
    constant = workload.steps if axis == "batch" else workload.batch
    cells = [
        workload.name,
        str(threads),
        f"{swept} = {', '.join(calls)}, {other} = {constant}",
        ", ".join(f"{1e3 * time:.3g}" for time in times),
        f"{1e3 * line.fixed:.2f} ms",
        f"{1e6 * line.slope / constant:.2f} us",
        f"{100 * line.deviation:.0f} %",
        f"{exponent(sizes, times):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def ascending(text: str) -> tuple[int, ...]:
    """Sizes from the command line."""
    sizes = tuple(int(size) for size in text.split(","))
    if len(sizes) < 3 or sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
        # Two points are always on a line.
        raise argparse.ArgumentTypeError(f"got {text}, expected three or more ascending sizes")
    return sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--workloads", default="W2")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row of the table")
    parser.add_argument("--rows", type=ascending, default="64,128,256,512,1024,2048")
    parser.add_argument("--steps", type=ascending, default="5,10,20,40,80,160")
    options = parser.parse_args(arguments)
    print_environment()
    print(f"\n{HEAD}")
    for workload in select(options.workloads.split(",")):
        for threads in map(int, options.threads.split(",")):
            for axis, sizes in (("batch", options.rows), ("steps", options.steps)):
                print(row(workload, axis, sizes, threads, options.seconds), flush=True)
    print(f"\n{LEGEND}")


if __name__ == "__main__":
    main()
