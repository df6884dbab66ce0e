"""Solves by the Triton kernels: packs the tables, sizes the launches, adds up the shares."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
from mvae_fast.kernels import launch, tuning
from mvae_fast.kernels.adjoint import adjoint_kernel
from mvae_fast.kernels.forward import forward_kernel
from mvae_fast.kernels.layout import (
    Layout,
    offsets,
    pad_matrices,
    pad_vectors,
    unpad_matrices,
    unpad_vectors,
)
from mvae_fast.kernels.sweep import CONSTANT, MATRIX, NO_TRACE, PROBES, VECTOR
from mvae_fast.kernels.table_gradient import table_gradient_kernel
from torch import Tensor

__all__ = ["Net", "Plan", "backward", "forward"]

# By the ops' number: of float32 products. TF32 alone rounds operands to 10 bits; three of them
# make up for it ("ieee" would leave the tensor cores, and spills).
_FULL, _TF32 = 0, 3
_HALVES = {1: torch.bfloat16, 2: torch.float16}
_FROBENIUS = 8


@dataclass(frozen=True)
class Net:
    """A net by its tables; shapes as in `mvae_fast.integrate.integrate`."""

    weight: Tensor
    gate: Tensor | None
    bias: Tensor
    trace: Tensor | None
    second: Tensor | None
    probes: Tensor | None
    widths: tuple[int, ...]
    nonlinearity: int
    residual: bool


@dataclass(frozen=True)
class Plan:
    """How to integrate it: the static arguments of the ops."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    outputs: tuple[int, ...]
    checkpoint: int
    penalties: int
    operands: int


class _Solve:
    """What forward and backward have in common: packed tables, constants, sizes."""

    def __init__(self, z: Tensor, h: Tensor, net: Net, plan: Plan) -> None:
        self.net, self.plan = net, plan
        self.layout = layout = Layout(net.widths)
        self.z, self.h = z, h
        self.batch, self.dim = z.shape
        self.steps, self.stages = h.shape[0], len(plan.b)
        self.operand = _HALVES.get(plan.operands, z.dtype)
        self.device = _device(z.device)
        full = plan.operands == _FULL and z.dtype == torch.float32
        self.config = launch.choose(self.batch, self.operand.itemsize, self.device, full)

        padded = layout.padded
        self.features = sum(padded[1:])
        depth = len(padded) - 1
        self.trace = NO_TRACE.value if net.probes is None else PROBES.value
        if net.trace is not None:
            self.trace = (CONSTANT, VECTOR, MATRIX)[depth - 1].value
        self.slopes = self.trace == MATRIX.value or net.second is not None
        #: Widths of the extra columns of the two tapes.
        self.extra_x = padded[1] if self.slopes else 0
        self.extra_delta = 0
        if self.slopes:
            self.extra_delta = padded[2] if self.trace == MATRIX.value else padded[1]
        self.x_ld = sum(padded[:-1]) + self.extra_x
        self.delta_ld = self.features + self.extra_delta
        self.probes = 0 if net.probes is None else net.probes.shape[0]

        self.weight = pad_matrices(net.weight, layout.matrices, layout.padded_matrices).to(
            self.operand
        )
        self.bias = pad_vectors(net.bias, net.widths[1:], padded[1:])
        self.gate = self.bias
        if net.gate is not None:
            self.gate = pad_vectors(net.gate, net.widths[1:], padded[1:])
        self.trace_table = self.bias
        if net.trace is not None:
            self.trace_table = self._pad_trace(net.trace)
        self.second = self.bias
        if net.second is not None:
            self.second = pad_matrices(net.second, *self._second_shapes()).to(self.operand)

    def _second_shapes(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        m, p = self.net.widths[1], self.layout.padded[1]
        return [(m, m)], [(p, p)]

    def _matrix_shapes(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        widths, padded = self.net.widths, self.layout.padded
        return [(widths[2], widths[1])], [(padded[2], padded[1])]

    def _pad_trace(self, table: Tensor) -> Tensor:
        if self.trace == MATRIX.value:
            return pad_matrices(table, *self._matrix_shapes()).to(self.operand)
        if self.trace == VECTOR.value:
            return pad_vectors(table, self.net.widths[1:2], self.layout.padded[1:2])
        return table

    @property
    def signature(self) -> tuple[Any, ...]:
        """What the best configuration depends on; batches of about the same size share it."""
        batch = (self.batch - 1).bit_length()
        net, plan = self.net, self.plan
        kind = (net.widths, self.trace, self.probes, plan.b, plan.operands, plan.penalties)
        return (batch, *kind, self.z.dtype, str(self.z.device))

    def constants(self, **more: Any) -> dict[str, Any]:
        """The compile-time arguments that all sweeps share."""
        net, config = self.net, self.config
        return {
            "KIND": net.nonlinearity,
            "GATED": net.gate is not None,
            "RESIDUAL": net.residual,
            "TRACE": self.trace,
            "TANGENTS": self.probes > 0,
            "SECOND": net.second is not None,
            "SLOPES": self.slopes,
            "PENALTIES": self.plan.penalties,
            "BM": config.rows,
            "BN": config.columns,
            "BK": config.depth,
            "DT": _TRITON[self.z.dtype],
            "PRECISION": self.precision,
            "num_warps": config.warps,
            "num_stages": config.stages,
            **more,
        }

    @property
    def precision(self) -> str:
        """Of the products, as `tl.dot` names it."""
        if self.z.dtype == torch.float64:
            return "ieee"
        return "tf32x3" if self.plan.operands == _FULL else "tf32"

    @property
    def penalties(self) -> int:
        """Their number."""
        return self.plan.penalties.bit_count()

    def net_arguments(self) -> dict[str, Any]:
        """The tables, the probes and the distances of their rows."""
        net = self.net
        probes = self.z if net.probes is None else net.probes
        return {
            "weight": self.weight,
            "gate": self.gate,
            "bias": self.bias,
            "trace": self.trace_table,
            "second": self.second,
            "probes": probes,
            "weight_stride": _row_stride(self.weight),
            "gate_stride": _row_stride(self.gate),
            "bias_stride": _row_stride(self.bias),
            "trace_stride": _row_stride(self.trace_table),
            "second_stride": _row_stride(self.second),
            "probe_stride": 0 if net.probes is None else net.probes.stride(0),
            "probe_row_stride": 0 if net.probes is None else net.probes.stride(1),
            "widths": self.table(self.layout.padded, torch.int32),
            "a": self.table(self.plan.a, self.z.dtype),
            "b": self.table(self.plan.b, self.z.dtype),
            "B": self.batch,
            "D": self.dim,
            "K": self.probes,
            "L": len(net.widths) - 1,
            "R": self.stages,
            "x_ld": self.x_ld,
            "n_penalties": self.penalties,
        }

    def table(self, values: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        return launch.table(tuple(values), dtype, self.z.device)

    def empty(self, *shape: int) -> Tensor:
        """In the dtype of the state."""
        return self.z.new_empty(shape)

    def empty_operands(self, *shape: int) -> Tensor:
        """In the dtype of the products' operands."""
        return torch.empty(shape, dtype=self.operand, device=self.z.device)

    def reports(self) -> tuple[int, ...]:
        """For each step, which output follows it, or -1."""
        order = {step - 1: n for n, step in enumerate(self.plan.outputs)}
        return tuple(order.get(s, -1) for s in range(self.steps))

    def following(self) -> tuple[int, ...]:
        """For each step, the first output after it."""
        return tuple(sum(step <= s for step in self.plan.outputs) for s in range(self.steps))

    def run_forward(
        self,
        z: Tensor,
        first: int,
        steps: int,
        reports: tuple[int, ...],
        outputs: tuple[Tensor, Tensor, Tensor],
        states: Tensor,
        checkpoint: int,
        **constants: Any,
    ) -> None:
        """Steps ``first .. first + steps`` from ``z``; ``states`` may be empty: none are saved."""
        grid = launch.programs(self.batch, self.config, self.device)
        rows, width = self.config.rows, self.layout.padded[0]
        forward_kernel[(grid,)](
            z=z,
            h=self.h,
            **self.net_arguments(),
            z_out=outputs[0],
            logp_out=outputs[1],
            penalty_out=outputs[2],
            states=states,
            x_scratch=self.empty_operands(grid, 1 + self.probes, rows, self.x_ld),
            d_scratch=self.empty(grid, 2 + self.stages, rows, width),
            report=self.table(reports, torch.int32),
            first_step=first,
            steps=steps,
            checkpoint=checkpoint,
            **self.constants(SAVE=states.numel() > 0, **constants),
        )


def forward(
    z: Tensor, h: Tensor, net: Net, plan: Plan, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``mvae_fast::integrate``: z_out, logp_out, penalty_out and, with ``save``, the states."""
    solve = _Solve(z, h, net, plan)
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
    """``mvae_fast::integrate_backward``: gradients of z, h and the tables."""
    solve = _Solve(z, h, net, plan)
    solve.config = tuning.best(solve.signature, solve.config)
    gradients = _Gradients(solve, table_grads)
    if solve.batch:
        with _on(z.device):
            _run_backward(solve, gradients, grads, states)
    return gradients.results()


def _run_backward(
    solve: _Solve, gradients: _Gradients, grads: tuple[Tensor, Tensor, Tensor], states: Tensor
) -> None:
    grad_z_out, *rest = grads
    # What every later output sends back, ready for each step.
    later = [grad if grad.shape[0] == 1 else grad.flip(0).cumsum(0).flip(0) for grad in rest]
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
                _run_window(
                    solve,
                    gradients,
                    (grad_z_out, *later),
                    (z, segment[local:]),
                    (begin, end - begin),
                    (tile, min(height, tiles - tile)),
                )


def _segments(solve: _Solve, states: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
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
            solve.run_forward(
                start,
                first,
                last - first,
                (-1,) * steps,
                nothing,
                segment,
                1,
                TRACE=NO_TRACE.value,
                TANGENTS=False,
                SECOND=False,
                PENALTIES=0,
            )
        yield first, last, start, segment


def _run_window(
    solve: _Solve,
    gradients: _Gradients,
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
    grid = launch.programs(tiles * config.rows, config, solve.device)
    tables = gradients.wanted
    tape_rows = (tiles if tables else grid) * config.rows
    slabs = steps * stages if tables else stages
    x_tape = solve.empty_operands(slabs, 1 + solve.probes, tape_rows, solve.x_ld)
    delta_tape = solve.empty_operands(slabs, 1 + solve.probes, tape_rows, solve.delta_ld)
    sums = solve.empty(tiles if tables else 0, steps * stages, gradients.sums_ld)
    h_sums = solve.empty(tiles, steps)
    width = solve.layout.padded[0]
    adjoint_kernel[(grid,)](
        grad_z_out=grads[0],
        grad_logp=grads[1],
        grad_penalty=grads[2],
        z=z,
        states=states,
        h=solve.h,
        **solve.net_arguments(),
        z_bar_rows=gradients.z,
        h_sums=h_sums,
        sums=sums,
        x_tape=x_tape,
        delta_tape=delta_tape,
        d_scratch=solve.empty(grid, 3 + 2 * stages, config.rows, width),
        f_scratch=solve.empty(grid, 1 + solve.probes, stages, config.rows, solve.features),
        report=solve.table(solve.reports(), torch.int32),
        following=solve.table(solve.following(), torch.int32),
        first_step=first,
        steps=steps,
        first_tile=first_tile,
        tiles=tiles,
        tape_rows=tape_rows,
        delta_ld=solve.delta_ld,
        f_ld=solve.features,
        sums_ld=gradients.sums_ld,
        **solve.constants(TABLES=tables, BN=solve.config.adjoint_columns),
    )
    gradients.h[first : first + steps] += h_sums.sum(0)
    if tables:
        gradients.add(first * stages, sums.sum(0), x_tape, delta_tape)


class _Gradients:
    """The gradients while they are summed, padded as the tables are."""

    def __init__(self, solve: _Solve, wanted: bool) -> None:
        self.solve, self.wanted = solve, wanted
        net, layout = solve.net, solve.layout
        self.z = torch.zeros_like(solve.z)
        self.h = torch.zeros_like(solve.h)
        vector = 0
        if solve.trace in (CONSTANT.value, VECTOR.value):
            vector = 1 if solve.trace == CONSTANT.value else layout.padded[1]
        self.column_sizes = [solve.features, solve.features if net.gate is not None else 0, vector]
        self.sums_ld = sum(self.column_sizes)
        if not wanted:
            return
        padded = layout.padded_matrices
        self.columns = [
            None if table is None else solve.z.new_zeros((table.shape[0], size))
            for table, size in zip(
                (net.bias, net.gate, net.trace if vector else None),
                self.column_sizes,
                strict=True,
            )
        ]
        self.weight = solve.z.new_zeros((net.weight.shape[0], sum(p * q for p, q in padded)))
        lefts = offsets([p for p, _ in padded])
        rights = offsets([q for _, q in padded])
        bases = offsets([p * q for p, q in padded])
        pieces = [
            (left, right, p, q, base)
            for left, right, (p, q), base in zip(lefts, rights, padded, bases, strict=True)
        ]
        self.products = [(self.weight, pieces, True)]
        #: Of the table that multiplies phi'(a_1): M of the trace, or that of Tr J^2.
        self.matrix = None
        table = net.second if net.second is not None else net.trace
        if solve.slopes and table is not None:
            p, q = solve.extra_delta, solve.extra_x
            self.matrix = solve.z.new_zeros((table.shape[0], p * q))
            extra = [(solve.features, solve.x_ld - q, p, q, 0)]
            self.products.append((self.matrix, extra, False))

    def add(self, first: int, sums: Tensor, x_tape: Tensor, delta_tape: Tensor) -> None:
        """Take up a window that begins with evaluation ``first``."""
        for total, piece in zip(self.columns, sums.split(self.column_sizes, dim=1), strict=True):
            if total is not None:
                _add_rows(total, piece, first)
        for total, pieces, tangents in self.products:
            self._add_products(total, pieces, tangents, first, x_tape, delta_tape)

    def _add_products(
        self,
        total: Tensor,
        pieces: list[tuple[int, int, int, int, int]],
        tangents: bool,
        first: int,
        x_tape: Tensor,
        delta_tape: Tensor,
    ) -> None:
        """Add ``delta^T x`` over the window's rows; of all streams, or of the first only."""
        solve = self.solve
        evaluations, streams, rows, _ = x_tape.shape
        groups = 1 if total.shape[0] == 1 else evaluations
        taken = streams if tangents else 1
        slabs, slab_rows, stride = evaluations // groups, taken * rows, streams * rows
        if slab_rows == stride:  # no gaps: one long slab
            slabs, slab_rows, stride = 1, slabs * slab_rows, slabs * slab_rows
        block = 64 if solve.operand.itemsize == 2 else 32
        side = 32 if solve.operand.itemsize == 8 else 64
        tiles = launch.gradient_tiles(pieces, side, side)
        blocks = slabs * triton.cdiv(slab_rows, block)
        per_split = launch.blocks_per_split(blocks, len(tiles) * groups, solve.device)
        shares = solve.empty(triton.cdiv(blocks, per_split), groups, total.shape[1])
        flat = tuple(itertools.chain.from_iterable(tiles))
        table_gradient_kernel[(len(tiles), shares.shape[0], groups)](
            delta_tape,
            x_tape,
            solve.table(flat, torch.int32),
            shares,
            solve.delta_ld,
            solve.x_ld,
            slabs,
            slab_rows,
            stride,
            per_split,
            total.shape[1],
            BI=side,
            BJ=side,
            BR=block,
            DT=_TRITON[solve.z.dtype],
            PRECISION=solve.precision,
            num_warps=4,
            num_stages=solve.config.stages,
        )
        _add_rows(total, shares.sum(0), first)

    def results(self) -> tuple[Tensor, ...]:
        """As the op returns them: z, h, weight, gate, bias, trace, second."""
        solve = self.solve
        nothing = solve.empty(0)
        if not self.wanted:
            return self.z, self.h, *(nothing.clone() for _ in range(5))
        net, layout = solve.net, solve.layout
        bias, gate, vector = (nothing.clone() if x is None else x for x in self.columns)
        sizes, padded = net.widths[1:], layout.padded[1:]
        trace, second = nothing.clone(), nothing.clone()
        if net.trace is not None:
            if solve.trace == MATRIX.value:
                assert self.matrix is not None
                trace = unpad_matrices(self.matrix, *solve._matrix_shapes())
            elif solve.trace == VECTOR.value:
                trace = unpad_vectors(vector, sizes[:1], padded[:1])
            else:
                trace = vector
        if net.second is not None:
            assert self.matrix is not None
            second = unpad_matrices(self.matrix, *solve._second_shapes())
        return (
            self.z,
            self.h,
            unpad_matrices(self.weight, layout.matrices, layout.padded_matrices),
            gate if net.gate is None else unpad_vectors(gate, sizes, padded),
            unpad_vectors(bias, sizes, padded),
            trace,
            second,
        )


def _add_rows(total: Tensor, rows: Tensor, first: int) -> None:
    """Rows of evaluations from ``first`` on, to a table that has one for each, or one for all."""
    if total.shape[0] == 1:
        total += rows.sum(0, keepdim=True)
    else:
        total[first : first + rows.shape[0]] += rows


def _row_stride(table: Tensor) -> int:
    return 0 if table.shape[0] == 1 else table.shape[1]


_TRITON = {torch.float32: triton.language.float32, torch.float64: triton.language.float64}


def _device(device: torch.device) -> launch.Device:
    if device.type == "cuda":
        return launch.Device(torch.cuda.get_device_properties(device).multi_processor_count)
    return launch.Device(2)  # Triton's interpreter: enough to have several programs


def _on(device: torch.device) -> Any:
    """Triton launches on the current device, which need not be that of the tensors."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
