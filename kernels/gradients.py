"""The gradients of a solve while its windows are summed, padded as the tables are."""

import itertools

import torch
import triton
from torch import Tensor

from . import launch
from .device.sweep import CONSTANT, VECTOR
from .layout import cut, offsets, padded
from .packed import TRITON_TYPES, Solve
from .table_gradient import table_gradient_kernel


class Gradients:
    """The gradients while they are summed, padded as the tables are."""

    def __init__(self, solve: Solve, wanted: bool) -> None:
        self.solve, self.wanted = solve, wanted
        net = solve.net
        self.z = torch.zeros_like(solve.z)
        self.h = torch.zeros_like(solve.h)
        vector = 0
        if solve.trace in (CONSTANT.value, VECTOR.value):
            vector = 1 if solve.trace == CONSTANT.value else solve.widths[1]
        self.column_sizes = [solve.features, solve.features if net.gate is not None else 0, vector]
        self.sums_ld = sum(self.column_sizes)
        if not wanted:
            return
        shapes = [padded(shape) for shape in solve.matrices]
        tables = (net.bias, net.gate, net.trace if vector else None)
        self.columns = [
            None if table is None else solve.z.new_zeros((table.shape[0], size))
            for table, size in zip(tables, self.column_sizes, strict=True)
        ]
        self.weight = solve.z.new_zeros((net.weight.shape[0], sum(p * q for p, q in shapes)))
        lefts = offsets([p for p, _ in shapes])
        rights = offsets([q for _, q in shapes])
        bases = offsets([p * q for p, q in shapes])
        pieces = [
            (left, right, p, q, base)
            for left, right, (p, q), base in zip(lefts, rights, shapes, bases, strict=True)
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
        per_split = launch.blocks_per_split(blocks, len(tiles) * groups, solve.processors)
        shares = solve.empty(triton.cdiv(blocks, per_split), groups, total.shape[1])
        flat = tuple(itertools.chain.from_iterable(tiles))
        table_gradient_kernel[(len(tiles), shares.shape[0], groups)](
            delta_tape, x_tape, solve.table(flat, torch.int32), shares,
            solve.delta_ld, solve.x_ld, slabs, slab_rows, stride, per_split, total.shape[1],
            BI=side, BJ=side, BR=block, DT=TRITON_TYPES[solve.z.dtype], PRECISION=solve.precision,
            num_warps=4, num_stages=solve.config.stages,
        )  # fmt: skip
        _add_rows(total, shares.sum(0), first)

    def results(self) -> tuple[Tensor, ...]:
        """As the op returns them: z, h, weight, gate, bias, trace, second."""
        solve = self.solve
        nothing = solve.empty(0)
        if not self.wanted:
            return self.z, self.h, *(nothing.clone() for _ in range(5))
        net, vectors = solve.net, solve.vectors
        bias, gate, vector = (nothing.clone() if x is None else x for x in self.columns)
        trace, second = vector, nothing.clone()
        if solve.trace == VECTOR.value:
            trace = cut(vector, solve.trace_shapes)
        if self.matrix is not None and net.second is None:
            trace = cut(self.matrix, solve.trace_shapes)
        elif self.matrix is not None:
            second = cut(self.matrix, solve.second_shapes)
        weight = cut(self.weight, solve.matrices)
        gate = gate if net.gate is None else cut(gate, vectors)
        return self.z, self.h, weight, gate, cut(bias, vectors), trace, second


def _add_rows(total: Tensor, rows: Tensor, first: int) -> None:
    """Rows of evaluations from ``first`` on, to a table that has one for each, or one for all."""
    if total.shape[0] == 1:
        total += rows.sum(0, keepdim=True)
    else:
        total[first : first + rows.shape[0]] += rows
