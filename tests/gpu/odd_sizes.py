"""Every GPU engine on a few odd sizes: ``python -m tests.gpu.odd_sizes``, for compute-sanitizer.

It checks values only loosely: the oracle's tests do that. What counts is which addresses the
kernels touch, so sizes are off every tile and the problems small: a checked kernel is slow.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import torch

from benchmarks.common.precision import operands, products
from tests.contract import TRACES, Case, oracle, run
from tests.gpu.places import CPU, GPU, Place
from tests.oracles import distance

#: Of values and gradients, in any precision; tests/gpu/test_oracle.py has the real limits.
NEAR_ENOUGH = 0.1
SHAPES = [(17, 3, (33,)), (129, 33, (65,)), (17, 5, (1, 3)), (5, 3, (4, 17, 3))]
PRECISIONS = ("full", "tf32", "bf16")


def solve(place: Place, precision: str) -> float:
    """How far the worst value or gradient is off; prints a line for each problem."""
    worst = 0.0
    for shape, trace in itertools.product(SHAPES, TRACES):
        case = Case(shape, nonlinearity="softplus", trace=trace)
        exact, how = oracle(case), {"precision": operands(precision)}
        with products(precision):
            got = run(place.engine, case.problem(), torch.float32, place.device, **how)
        off = max(distance(got[name], x) for name, x in exact.items())
        print(f"{place}: {precision}, {shape}, {trace}: off by {off:.1e}", flush=True)
        worst = max(worst, off)
    return worst


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what there is; the exit status is 0 only if some engine ran and all were right."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.odd_sizes", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = parser.parse_args(arguments).device
    # Kernels are chosen by rule, as in the tests that have compiled them, not by their speed here.
    torch.use_deterministic_algorithms(True, warn_only=True)
    worst = []
    for place in GPU if device == "cuda" else CPU:
        reason = place.why_not()
        if reason is not None:
            print(f"{place}: not run: {reason}")
            continue
        worst += [solve(place, precision) for precision in PRECISIONS if place.has(precision)]
    wrong = sum(not off < NEAR_ENOUGH for off in worst)
    print(f"{len(worst)} series, {wrong} wrong")
    return 0 if worst and not wrong else 1


if __name__ == "__main__":
    raise SystemExit(main())
