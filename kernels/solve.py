"""Solves by the Triton kernels: windows and launches."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import launch, tuning
from .adjoint import adjoint_kernel
from .device.sweep import NO_TRACE
from .gradients import Gradients
from .packed import Net, Plan, Solve


def forward(
    z: Tensor, h: Tensor, net: Net, plan: Plan, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``mvae_fast::solve``: z_out, logp_out, penalty_out and, with ``save``, the states."""
    solve = Solve(z, h, net, plan)
    count = len(plan.outputs)
    outputs = (
        solve.empty(count, solve.batch, solve.dim),
        solve.empty(count, solve.batch),
        solve.empty(count, solve.penalties, solve.batch),
    )
    saved = (solve.steps - 1) // plan.checkpoint if save else 0
    states = solve.empty(saved, solve.batch, solve.dim)
    if solve.batch:

        def run() -> None:
            solve.run_forward(z, 0, solve.steps, solve.reports(), outputs, states, plan.checkpoint)

        def seconds(config: launch.Config) -> float:
            solve.config = config
            return tuning.device_seconds(run)

        with _on(z.device):
            measure = seconds if tuning.measurable(z.device) else None
            solve.config = tuning.best(solve.signature, solve.config, measure)
            run()
    return *outputs, states


def backward(
    grads: tuple[Tensor, Tensor, Tensor],
    z: Tensor,
    states: Tensor,
    h: Tensor,
    net: Net,
    plan: Plan,
    table_grads: bool,
) -> tuple[Tensor, ...]:
    """``mvae_fast::solve_backward``: gradients of z, h and the tables."""
    solve = Solve(z, h, net, plan)
    solve.config = tuning.best(solve.signature, solve.config)
    gradients = Gradients(solve, table_grads)
    if solve.batch:
        with _on(z.device):
            _run_backward(solve, gradients, grads, states)
    return gradients.results()


def _run_backward(
    solve: Solve, gradients: Gradients, grads: tuple[Tensor, Tensor, Tensor], states: Tensor
) -> None:
    grad_z_out, *rest = grads
    # What every later output sends back, ready for each step.
    later = [grad if grad.shape[0] == 1 else grad.flip(0).cumsum(0).flip(0) for grad in rest]
    sent_back = (grad_z_out, *later)
    rows = solve.config.rows
    tiles = -(-solve.batch // rows)
    tile_bytes = solve.stages * (1 + solve.probes) * rows
    tile_bytes *= (solve.x_ld + solve.delta_ld) * solve.operand.itemsize
    saved_bytes = states.numel() * states.element_size()
    window, height = launch.window(solve.steps, tiles, tile_bytes, saved_bytes)
    for first, last, segment_z, segment in _segments(solve, states):
        if not gradients.wanted:  # no tape
            window, height = last - first, tiles
        for begin in reversed(range(first, last, window)):
            local = begin - first
            z = segment_z if local == 0 else segment[local - 1]
            end = min(begin + window, last)
            for tile in range(0, tiles, height):
                starts, stripe = (z, segment[local:]), (tile, min(height, tiles - tile))
                _run_window(solve, gradients, sent_back, starts, (begin, end - begin), stripe)


def _segments(solve: Solve, states: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Stretches of steps from the last to the first: begin, end, the state before the first step
    and those before the others, computed anew where checkpoints are apart."""
    every, steps = solve.plan.checkpoint, solve.steps
    if every == 1:
        yield 0, steps, solve.z, states
        return
    for first in reversed(range(0, steps, every)):
        last = min(first + every, steps)
        start = solve.z if first == 0 else states[first // every - 1]
        segment = solve.empty(last - first - 1, solve.batch, solve.dim)
        if last - first > 1:
            nothing = (solve.z, solve.z, solve.z)
            alone = {"TRACE": NO_TRACE.value, "TANGENTS": False, "SECOND": False, "PENALTIES": 0}
            silent = (-1,) * steps
            solve.run_forward(start, first, last - first, silent, nothing, segment, 1, **alone)
        yield first, last, start, segment


def _run_window(
    solve: Solve,
    gradients: Gradients,
    grads: tuple[Tensor, ...],
    starts: tuple[Tensor, Tensor],
    window: tuple[int, int],
    stripe: tuple[int, int],
) -> None:
    """Steps of a ``window`` (first, how many) for a ``stripe`` of tiles (first, how many), from the
    states before the first step and before the others."""
    config, stages = solve.config, solve.stages
    z, states = starts
    first, steps = window
    first_tile, tiles = stripe
    grid = launch.programs(tiles * config.rows, config, solve.processors)
    tables = gradients.wanted
    tape_rows = (tiles if tables else grid) * config.rows
    slabs = steps * stages if tables else stages
    x_tape = solve.empty_operands(slabs, 1 + solve.probes, tape_rows, solve.x_ld)
    delta_tape = solve.empty_operands(slabs, 1 + solve.probes, tape_rows, solve.delta_ld)
    sums = solve.empty(tiles if tables else 0, steps * stages, gradients.sums_ld)
    h_sums = solve.empty(tiles, steps)
    adjoint_kernel[(grid,)](
        grad_z_out=grads[0], grad_logp=grads[1], grad_penalty=grads[2],
        z=z, states=states, h=solve.h, **solve.net_arguments(),
        z_bar_rows=gradients.z, h_sums=h_sums, sums=sums, x_tape=x_tape, delta_tape=delta_tape,
        d_scratch=solve.empty(grid, 3 + 2 * stages, config.rows, solve.widths[0]),
        f_scratch=solve.empty(grid, 1 + solve.probes, stages, config.rows, solve.features),
        report=solve.table(solve.reports(), torch.int32),
        following=solve.table(solve.following(), torch.int32),
        first_step=first, steps=steps, first_tile=first_tile, tiles=tiles, tape_rows=tape_rows,
        delta_ld=solve.delta_ld, f_ld=solve.features, sums_ld=gradients.sums_ld,
        **solve.constants(TABLES=tables, BN=solve.config.adjoint_columns),
    )  # fmt: skip
    gradients.h[first : first + steps] += h_sums.sum(0)
    if tables:
        gradients.add(first * stages, sums.sum(0), x_tape, delta_tape)


def _on(device: torch.device) -> Any:
    """Triton launches on the current device, which need not be that of the tensors."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
