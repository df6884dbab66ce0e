"""The products of a solve, counted (docs/math.md, section 5), and told to PyTorch's counter.

Multiply-adds of the products that every row takes, as the C++ engine takes them. Nonlinearities,
gates and sums are none, as in `torch.utils.flop_counter.FlopCounterMode`; nor is what does not grow
with the rows: tables, and products of probes that all rows share.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from mvae_fast.engines.enums import COEFFICIENTS, PENALTY_BITS


class Trace(NamedTuple):
    """What a solve takes beside the velocity.

    Args:
        closed: The exact trace in closed form.
        probes: K, D where unit vectors give an exact trace without a closed form.
        second_order: Tr J^2 of one hidden layer, too.
        frobenius: A penalty of the probes.
        penalties: Of the velocity itself.
    """

    closed: bool = False
    probes: int = 0
    second_order: bool = False
    frobenius: bool = False
    penalties: bool = False


def multiply_adds(widths: Sequence[int]) -> tuple[int, int]:
    """Multiply-adds of one row and step of Euler's method, exact trace: forward and backward.

    Example:
        >>> multiply_adds((128, 256, 128))  # 2 D m and 5 D m
        (65536, 163840)
    """
    closed = len(widths) <= 4
    trace = Trace(closed, 0 if closed else widths[0])
    return (
        _velocity(widths) + _forward_trace(widths, trace),
        _backward(widths, trace) + _backward_trace(widths, trace),
    )


def _products(widths: Sequence[int]) -> list[int]:
    return [m_in * m_out for m_in, m_out in pairwise(widths)]


def _velocity(widths: Sequence[int]) -> int:
    return sum(_products(widths))


def _forward_trace(widths: Sequence[int], trace: Trace) -> int:
    """Of one evaluation that counts: beside the velocity."""
    products = _products(widths)
    inner = sum(products[1:-1])  # with two hidden layers as much as M phi' takes
    return (
        inner * trace.closed
        + widths[1] ** 2 * trace.second_order
        + trace.probes * (inner + products[-1] * trace.frobenius)
    )


def _backward(widths: Sequence[int], trace: Trace, kept: bool = False, weights: bool = True) -> int:
    """Of one evaluation: the main stream, recomputed unless it is kept, and its adjoint."""
    products = _products(widths)
    again = sum(products[:-1]) * (not kept) + products[-1] * trace.penalties
    return again + sum(products) * (1 + weights)


def _backward_trace(
    widths: Sequence[int], trace: Trace, kept: bool = False, weights: bool = True
) -> int:
    """Of one evaluation that counts: the trace's part, recomputed unless it is kept."""
    products = _products(widths)
    passes = 1 + (not kept) + weights  # with those of the adjoint
    inner = sum(products[1:-1]) * passes
    tangents = inner + products[-1] * (weights + 2 * trace.frobenius)
    return (
        inner * trace.closed
        + widths[1] ** 2 * (1 + weights) * trace.second_order
        + trace.probes * tangents
    )


def _of_probes(call: "_Call", count: int) -> int:
    """A solve's ``W_1 eps`` and ``W_L' (G_L eps)``, as often as weights and gates change."""
    products, trace = _products(call.widths), call.trace
    first = products[0] * (len(products) > 1) * (count if call.weights_vary else 1)
    last = products[-1] * (count if call.weights_vary or call.gated else 1) * (not trace.closed)
    return trace.probes * (first + last) * (not call.shared)


class _Call(NamedTuple):
    """The arguments that both ops have."""

    z: Tensor
    h: Tensor
    probes: Tensor | None
    tensors: Sequence[Tensor]
    widths: Sequence[int]
    layout: Sequence[int]
    nonlinearity: int
    residual: bool
    exact: bool
    a: Sequence[float]
    b: Sequence[float]
    outputs: Sequence[int]
    checkpoint_every: int
    penalty_bits: int
    operands: int

    @property
    def trace(self) -> Trace:
        frobenius = self.penalty_bits & PENALTY_BITS["frobenius"]
        return Trace(
            self.exact,
            0 if self.probes is None else self.probes.shape[0],
            self.layout[0] != COEFFICIENTS and self.layout[5] >= 0,
            bool(frobenius),
            self.penalty_bits != frobenius,
        )

    @property
    def shared(self) -> bool:
        """Whether all rows have the same probes."""
        return self.probes is not None and self.probes.stride(1) == 0

    @property
    def counts(self) -> tuple[int, int]:
        """Evaluations, and those with a part in the log-density."""
        steps = self.h.shape[0]
        return steps * len(self.b), steps * sum(weight != 0 for weight in self.b)

    @property
    def weights_vary(self) -> bool:
        return self.layout[0] != COEFFICIENTS and self.tensors[self.layout[1]].shape[0] > 1

    @property
    def gated(self) -> bool:
        """Whether there are gates that change from one evaluation to the next."""
        if self.layout[0] != COEFFICIENTS:
            index = self.layout[2]
            return index >= 0 and self.tensors[index].shape[0] > 1
        features, at = self.layout[2], 3
        for _ in self.widths[1:]:
            at += 3  # of the weight
            for kind in ("bias", "gate", "late bias"):
                for _ in range(features):
                    there = self.layout[at] >= 0
                    if there and kind == "gate":
                        return True
                    at += 3 if there else 1
        return False


def forward_flops(*arguments: Any, out_val: Any = None) -> int:
    """Operations of ``mvae_fast::solve``, two for each multiply-add."""
    call = _Call(*arguments[:-1])
    evaluations, traced = call.counts
    row = evaluations * _velocity(call.widths) + traced * _forward_trace(call.widths, call.trace)
    return 2 * call.z.shape[0] * (row + _of_probes(call, traced))


def search_flops(*arguments: Any, out_val: Any) -> int:
    """Operations of ``mvae_fast::search``, of all evaluations that it says it has made."""
    evaluations = int(out_val[4][-2])
    call = _Call._make((*arguments[:11], (1,), 1, 0, arguments[11]))
    row = evaluations * (_velocity(call.widths) + _forward_trace(call.widths, call.trace))
    return 2 * call.z.shape[0] * (row + _of_probes(call, evaluations))


def log_det_flops(*arguments: Any, out_val: Any = None) -> int:
    """Operations of ``mvae_fast::log_det``: velocities, Jacobians and their factorisations, as if
    no factor of a Jacobian had zeros."""
    z, h, _, widths, *_, b, _ = arguments
    dim, stages, products = widths[0], len(b), _products(widths)
    # The first Jacobian of a step is that times unit vectors: W_1 is there.
    jacobians = stages * sum(products) - products[0]
    row = stages * _velocity(widths) + dim * jacobians + dim**3 // 3
    return 2 * z.shape[0] * h.shape[0] * row


def backward_flops(*arguments: Any, out_val: Any = None) -> int:
    """Operations of ``mvae_fast::solve_backward``: with what it computes again."""
    saved, call, weights = arguments[3], _Call(*arguments[4:-1]), bool(arguments[-1])
    widths, trace, (evaluations, traced) = call.widths, call.trace, call.counts
    steps, stages, every = call.h.shape[0], len(call.b), call.checkpoint_every
    kept = saved.numel() > (steps - 1) // every * call.z.numel()
    row = evaluations * _backward(widths, trace, kept, weights)
    row += traced * _backward_trace(widths, trace, kept, weights)
    # States between checkpoints, and the arguments of stages.
    again = (steps - -(-steps // every)) * stages + steps * (stages - 1) * (not kept)
    row += again * _velocity(widths) + _of_probes(call, traced)
    if weights and len(widths) > 2:  # the probes' part of the first one's gradient
        once = traced if call.weights_vary else 1
        row += trace.probes * widths[0] * widths[1] * once * (not call.shared)
    return 2 * call.z.shape[0] * row


def announce(formulas: Mapping[Any, Callable[..., int]]) -> None:
    """Tell PyTorch's counter, if it was ever imported, and every one that is counting now.

    At the first call under a dispatch mode, not at import: `torch.utils.flop_counter` imports
    triton, which takes a tenth of a second.

    Args:
        formulas: By op.
    """
    counting = sys.modules.get("torch.utils.flop_counter")
    if counting is None:
        return
    for op, formula in formulas.items():
        if op not in counting.flop_registry:
            counting.register_flop_formula(op, get_raw=True)(formula)
    for mode in _get_current_dispatch_mode_stack():
        counter = getattr(mode, "counter", None)
        if isinstance(counter, counting.FlopCounterMode):
            for op, formula in formulas.items():
                counter.flop_registry.setdefault(op, formula)
