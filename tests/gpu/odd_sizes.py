"""Every GPU engine on a few odd sizes: ``python -m tests.gpu.odd_sizes``, for compute-sanitizer.

It checks values only loosely: the oracle's tests do that. What counts is which addresses the
kernels touch, so sizes are off every tile and the problems small: a checked kernel is slow.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import torch

from benchmarks.precision import operands, products
from tests.gpu.places import CPU, GPU, moved
from tests.oracles import distance
from tests.test_integrate import TRACES, problem, run

SHAPES = [(17, 3, (33,)), (33, 17, (5,)), (17, 5, (1, 3)), (66, 33, (65, 31)), (5, 3, (4, 17, 3))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what there is; the exit status is 0 only if some engine ran and all were right."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.odd_sizes", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = parser.parse_args(arguments).device
    ran, wrong = 0, 0
    for place in GPU if device == "cuda" else CPU:
        reason = place.why_not()
        if reason is not None:
            print(f"{place}: not run: {reason}")
            continue
        precisions = [name for name in ("full", "tf32", "bf16") if place.has(name)]
        for precision, shape, trace in itertools.product(precisions, SHAPES, TRACES):
            leaves, probes, statics = problem(shape, "squash", "softplus", trace)
            oracle = run("reference", leaves, probes, statics, torch.float64)
            there, noise, _ = moved(device, (leaves, probes, statics))
            with products(precision):
                got = run(
                    place.engine, there, noise, statics, torch.float32, None, operands(precision)
                )
            worst = max(map(distance, got, oracle))
            ran, wrong = ran + 1, wrong + (not worst < 0.1)
            print(f"{place}: {precision}, {shape}, {trace}: off by {worst:.1e}", flush=True)
    print(f"{ran} problems, {wrong} wrong")
    return 0 if ran and not wrong else 1


if __name__ == "__main__":
    raise SystemExit(main())
