"""How near the C++ engine comes to the machine's peak: ``python -m benchmarks.roofline``.

The peak is measured with the engine's own register tile on operands in L1, in turns with the
workloads. Only the products of docs/math.md are counted: nonlinearities, gates, sums and copies are
overhead here. The times are those of an engine's solve and of its backward; of engines that take
tables, without what PyTorch takes to make them.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.common.candidates import Problem
from benchmarks.common.environment import print_environment
from benchmarks.common.interleave import Quartiles, interleave
from benchmarks.common.workloads import WORKLOADS, Workload, select
from mvae_fast import engines
from mvae_fast.core.field import Field
from mvae_fast.core.problem import Problem as EngineProblem
from mvae_fast.engines import cpp as ops
from mvae_fast.engines.flops import multiply_adds

PEAK_REPEATS = 2000

Calls = dict[str, tuple[int, Callable[[], Any]]]


def calls(problem: Problem, engine: str, precision: str = "full") -> Calls:
    """An engine's forward and backward on a problem: multiply-adds and a call of each."""
    workload = problem.workload
    field, h = problem.field()
    z, steps = problem.z.detach(), (workload.steps,)
    if engine == "cpp" and isinstance(field, Field):
        leaves = [z, h, *field.tensors]
    else:  # without what PyTorch takes to make tables
        made = field.tables()
        weight, gate, bias = (
            None if x is None else x.detach() for x in (made.weight, made.gate, made.bias)
        )
        assert weight is not None and bias is not None
        field = replace(made, weight=weight, gate=gate, bias=bias)
        leaves = [x for x in (z, h, weight, gate, bias) if x is not None]
    wanted = [x.requires_grad_() for x in leaves]
    asked = EngineProblem(z, h, field, steps, "exact", precision=precision)
    run = partial(engines.solve, engine, asked)
    z_out, logp_out, _ = run()
    grads = (torch.randn_like(z_out), torch.randn_like(logp_out))
    backward = partial(
        torch.autograd.grad, (z_out, logp_out), wanted, grads, retain_graph=True, allow_unused=True
    )
    forward_work, backward_work = (
        n * workload.batch * workload.steps for n in multiply_adds(field.widths)
    )
    return {"forward": (forward_work, run), "backward": (backward_work, backward)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default="W1,W2,W3,W4,W5,W6,W7")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    arguments = parser.parse_args()
    print_environment()
    print("\n| workload | threads | peak GFLOP/s | forward | backward | both |")
    print("|---" * 6 + "|")
    for workload in select(arguments.workloads.split(",")):
        for threads in map(int, arguments.threads.split(",")):
            print(row(workload, threads, arguments.seconds), flush=True)
    print("\nForward, backward, both: share of the peak, medians of the rounds' own shares.")
    most = max(map(int, arguments.threads.split(",")))
    if most > 1:
        print(f"\n| workload | one to {most} threads |\n|---|---|")
        for workload in select(arguments.workloads.split(",")):
            print(f"| {workload.name} | {speedup(workload, most)} |", flush=True)
        print()
    print("\n".join(f"- {w.name}: {w.shape}" for w in WORKLOADS))


def speedup(workload: Workload, threads: int, rounds: int = 9, calls_each: int = 6) -> str:
    """How many times faster forward and backward are on ``threads`` threads than on one.

    In blocks of calls: OpenMP starts its threads anew whenever their number changes.
    """
    work = [call for _, call in calls(Problem(workload, torch.float32), "cpp").values()]
    ratios = []
    for _ in range(rounds):
        seconds = []
        for count in (1, threads):
            torch.set_num_threads(count)
            for call in work:
                call()
            began = time.perf_counter()
            for _ in range(calls_each):
                for call in work:
                    call()
            seconds.append(time.perf_counter() - began)
        ratios.append(seconds[0] / seconds[1])
    quartiles = Quartiles.of(ratios)
    return f"{quartiles.median:.2f}x ({quartiles.lower:.2f}-{quartiles.upper:.2f})"


def row(workload: Workload, threads: int, seconds: float) -> str:
    """One line of the table."""
    work = calls(Problem(workload, torch.float32), "cpp")
    callables = {name: call for name, (_, call) in work.items()}
    callables["peak"] = partial(ops.peak, PEAK_REPEATS)
    torch.set_num_threads(threads)
    peak_work = ops.peak(1) * PEAK_REPEATS
    timings = interleave(callables, threads=threads, budget=seconds, min_rounds=15)
    samples = timings.seconds
    peaks = [2e-9 * peak_work / t for t in samples["peak"]]
    shares = (f"{100 * share:.0f} %" for share in shares_of(work, samples, peaks))
    return f"| {workload.name} | {threads} | {median(peaks):.0f} | {' | '.join(shares)} |"


def shares_of(
    work: Calls, seconds: Mapping[str, Sequence[float]], peaks: Sequence[float]
) -> list[float]:
    """What forward, backward and both of `calls` reached of the peaks, GFLOP/s and one a round:
    medians of the rounds' own shares."""
    shares = []
    for names in (("forward",), ("backward",), ("forward", "backward")):
        flops = sum(work[name][0] for name in names)
        rounds = (sum(seconds[name][i] for name in names) for i in range(len(peaks)))
        shares.append(
            median([2e-9 * flops / t / peak for t, peak in zip(rounds, peaks, strict=True)])
        )
    return shares


if __name__ == "__main__":
    main()
