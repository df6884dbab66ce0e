"""Memory of a training step, measured: ``python -m benchmarks.memory``.

First the most that a step holds above its inputs, each time in a fresh process, against what the
method has to hold: the saved states, with ``--memory activations`` what is kept beside them, and
the engine's packed tables. Its loss is not part of it: the gradients of the loss in the outputs are
given, as inputs are. Then the growth over many steps of a training loop.
"""

import argparse
import gc
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from benchmarks.common.candidates import CANDIDATES, OURS, Problem, kl_term
from benchmarks.common.environment import print_environment
from benchmarks.common.resident import (
    in_fresh_process,
    peak,
    reset_peak,
    resident,
    return_freed_memory,
    why_unavailable,
)
from benchmarks.common.sizes import affordable, enlarged, sizes
from benchmarks.common.workloads import Workload, select
from mvae_fast import FastCNF

PEER = "odeint"
#: Saved states of a measured step, bytes: far above what a first call of a library leaves resident.
STATES = 32_000_000
#: What the peer may be expected to take, bytes; it gets fewer rows where it would take more.
PEER_LIMIT = 3_000_000_000

HEAD = (
    "| workload | B | states | kept | packed | outputs | peak | ratio "
    f"| {PEER} B | {PEER} peak | {PEER} per row |\n{'|---' * 11}|"
)
LEGEND = (
    "Sizes are in MB, 10^6 bytes. Peak: measured, above what was there with the inputs. The others "
    "are computed from\nthe shapes; ratio: (peak - outputs) / (states + kept + packed). A single "
    "step saves no states: there B\nis such that one state takes as much. Per row: (peak - "
    f"outputs) for one row, as a multiple of {OURS}'s."
)


def step_peak(name: str, workload: Workload, threads: int, memory: str = "states") -> int:
    """Bytes that a training step holds at most above its inputs; for a fresh process."""
    return_freed_memory()
    torch.set_num_threads(threads)
    # The libraries load on a problem too small for the engine to keep its scratch memory.
    small = replace(workload, dim=8, hidden=(8,) * len(workload.hidden), batch=4, steps=2)
    warm = Problem(small, torch.float32)
    forward_backward(CANDIDATES[name].build(warm), warm, *output_gradients(small))
    problem = Problem(workload, torch.float32)
    module = CANDIDATES[name].build(problem)
    for flow in module.modules():
        if isinstance(flow, FastCNF):
            flow.memory = memory
    gradients = output_gradients(workload)
    gc.collect()
    reset_peak()
    before = resident()
    forward_backward(module, problem, *gradients)
    return peak() - before


def output_gradients(workload: Workload, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Those of a loss in the end states and log-densities."""
    rows = workload.batch
    return torch.randn(rows, workload.dim, device=device), torch.ones(rows, 1, device=device)


def forward_backward(
    module: nn.Module, problem: Problem, grad_z: torch.Tensor, grad_logp: torch.Tensor
) -> None:
    """A training step but for its loss, whose gradients are given."""
    outputs = module(problem.z, problem.logp, problem.probes)
    torch.autograd.grad(outputs, (problem.z, *module.parameters()), (grad_z, grad_logp))


def training_growth(workload: Workload, steps: Sequence[int], threads: int) -> list[int]:
    """Bytes resident after these steps of a training loop with Adam; for a fresh process."""
    torch.set_num_threads(threads)
    flow = Problem(workload, torch.float32).flow("exact")
    optimizer = torch.optim.Adam(flow.parameters())
    after = {}
    for step in range(1, max(steps) + 1):
        optimizer.zero_grad()
        z = torch.randn(workload.batch, workload.dim)
        kl_term(*flow(z, torch.zeros(workload.batch, 1))).backward()
        optimizer.step()
        if step in steps:
            gc.collect()  # cycles that wait for the collector are not growth
            after[step] = resident()
    return [after[step] for step in steps]


def row(workload: Workload, threads: int, states: int, peer_limit: int, memory: str) -> str:
    """One line of the table."""
    ours = enlarged(workload, states)
    peer = affordable(ours, peer_limit)
    size = sizes(ours, memory)
    our_peak = in_fresh_process(step_peak, OURS, ours, threads, memory)
    peer_peak = in_fresh_process(step_peak, PEER, peer, threads)
    our_share = our_peak - size.outputs
    peer_share = peer_peak - sizes(peer).outputs
    per_row = (peer_share / peer.batch) / (our_share / ours.batch)
    megabytes = (size.states, size.kept, size.packed, size.outputs, our_peak)
    cells = [workload.name, ours.batch, *(f"{n / 1e6:.1f}" for n in megabytes)]
    cells += [f"{our_share / size.held:.2f}", peer.batch, f"{peer_peak / 1e6:.0f}"]
    return f"| {' | '.join(map(str, [*cells, f'{per_row:.0f}x']))} |"


def growth(steps: int, threads: int) -> str:
    """What a training loop on W1 has gathered between a tenth of its steps and its end."""
    (workload,) = select(["W1"])
    early, late = in_fresh_process(training_growth, workload, (steps // 10, steps), threads)
    return (
        f"Training {workload.name} with Adam: {early / 1024:.0f} KiB resident after {steps // 10} "
        f"steps, {late / 1024:.0f} KiB after {steps}: {(late - early) / 1024:+.0f} KiB"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and the growth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--workloads", default="W1,W2,W3,W4,W5,W6,W7")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--states", type=int, default=STATES, help="bytes of saved states")
    parser.add_argument("--steps", type=int, default=1000, help="of the training loop")
    parser.add_argument("--memory", choices=("states", "activations"), default="states")
    options = parser.parse_args(arguments)
    reason = why_unavailable()
    if reason is not None:
        parser.exit(1, f"{reason}\n")
    print_environment()
    print(f"\n{HEAD}")
    for workload in select(options.workloads.split(",")):
        line = row(workload, options.threads, options.states, PEER_LIMIT, options.memory)
        print(line, flush=True)
    print(f"\n{LEGEND}\n")
    print(growth(options.steps, options.threads))


if __name__ == "__main__":
    main()
