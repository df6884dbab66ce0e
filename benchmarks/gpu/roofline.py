"""How near the GPU engines come to the card's peak: ``python -m benchmarks.gpu.roofline``.

The peak is that of one large product of PyTorch in the same precision, in turns with the engines.
Counts and times are those of `benchmarks.roofline`: the products of docs/math.md alone, solves with
the tables that they take.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from benchmarks.common.candidates import Problem
from benchmarks.common.environment import print_environment
from benchmarks.common.interleave import interleave
from benchmarks.common.precision import PRECISIONS, operands, products
from benchmarks.common.workloads import Workload, select
from benchmarks.gpu.candidates import GPU_ENGINES, usable
from benchmarks.gpu.timing import DeviceTimer, why_no_gpu
from benchmarks.roofline import calls, shares_of

#: Rows and columns of the product that is the peak: large enough for any card's.
SIDE = 8192
HEAD = "| workload | precision | engine | peak TFLOP/s | forward | backward | both |"
#: Dense TFLOP/s of datasheets, by the name that the driver gives.
DATASHEET = {
    "NVIDIA A100-SXM4-40GB": {"full": 19.5, "tf32": 156.0, "bf16": 312.0, "fp16": 312.0},
    "NVIDIA A100-SXM4-80GB": {"full": 19.5, "tf32": 156.0, "bf16": 312.0, "fp16": 312.0},
    "NVIDIA H100 80GB HBM3": {"full": 67.0, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4},
    "NVIDIA H200": {"full": 67.0, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4},
}

Timer = Callable[[Callable[[], object]], float]


def matmul(precision: str, device: str, side: int) -> Callable[[], torch.Tensor]:
    """A product of two random square matrices in this precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return partial(torch.mm, first, second)


def rows(
    workload: Workload,
    precision: str,
    ours: Sequence[str],
    *,
    device: str,
    timer: Timer,
    datasheet: float | None = None,
    seconds: float = 0.5,
    side: int = SIDE,
) -> Iterator[str]:
    """A line of the table for each engine.

    Args:
        timer: As of `benchmarks.common.interleave.interleave`.
        datasheet: The card's peak, TFLOP/s, where it is known.
        seconds: For each line.
        side: As `SIDE`.
    """
    with products(precision):
        problem = Problem(workload, torch.float32, device=device)
        product = matmul(precision, device, side)
        for engine in ours:
            work = calls(problem, engine, operands(precision))
            timings = interleave(
                {"peak": product, **{name: call for name, (_, call) in work.items()}},
                threads=torch.get_num_threads(),
                budget=seconds,
                timer=timer,
            ).seconds
            peaks = [2e-9 * side**3 / t for t in timings["peak"]]
            cells = [f"{1e-3 * median(peaks):.0f}"]
            cells += [f"{100 * x:.0f} %" for x in shares_of(work, timings, peaks)]
            if datasheet is not None:
                of_sheet = shares_of(work, timings, [1e3 * datasheet] * len(peaks))
                sheet = [f"{datasheet:g}", *(f"{100 * x:.0f} %" for x in of_sheet)]
                cells = [f"{cell} ({given})" for cell, given in zip(cells, sheet, strict=True)]
            yield f"| {' | '.join([workload.name, precision, engine, *cells])} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.roofline", description=__doc__)
    parser.add_argument("--workloads", default="W2,W3,W5,W7")
    parser.add_argument("--batches", default="1024,16384")
    parser.add_argument("--precisions", default="tf32,bf16", help=f"of {','.join(PRECISIONS)}")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each line")
    options = parser.parse_args(arguments)
    precisions = options.precisions.split(",")
    if not {*precisions} <= {*PRECISIONS}:
        parser.error(f"--precisions: got {options.precisions}, of {','.join(PRECISIONS)}")
    reason = why_no_gpu()
    if reason is not None:
        parser.exit(3, f"{reason}\n")
    print_environment()
    print(f"\n{HEAD}\n{'|---' * 7}|")
    sheet = DATASHEET.get(torch.cuda.get_device_name(), {})
    chosen = select(options.workloads.split(","))
    timer = DeviceTimer.on_gpu()
    for workload in chosen:
        for batch in map(int, options.batches.split(",")):
            sized = replace(workload, name=f"{workload.name} B={batch}", batch=batch)
            for precision in precisions:
                for line in rows(
                    sized,
                    precision,
                    usable(GPU_ENGINES, "cuda", precision),
                    device="cuda",
                    timer=timer,
                    datasheet=sheet.get(precision),
                    seconds=options.seconds,
                ):
                    print(line, flush=True)
    print(
        "\nPeak: of a product of PyTorch, in brackets the datasheet's. Forward, backward, both: "
        "shares of these two,\nmedians of the rounds' own shares.\n"
    )
    print("\n".join(f"- {w.name}: {w.shape}, but for B" for w in chosen))


if __name__ == "__main__":
    main()
