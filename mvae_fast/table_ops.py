"""Ops that integrate tables, made differentiable and traceable.

Every compiled engine has a pair of ops with the schemas of ``mvae_fast::integrate`` and
``mvae_fast::integrate_backward`` (csrc/integrate.cpp); `TableOps` is what they all need beside
their kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mvae_fast.problem import PENALTIES, PRECISIONS, Method, Problem, Solution

__all__ = [
    "TableOps",
    "dense_gradients",
    "dense_probes",
    "fake_outputs",
    "method_arguments",
    "nonlinearity_number",
    "refuse_double_backward",
    "refuses_nonlinearity",
    "transformed",
]

# As in csrc/problem.h.
_NONLINEARITIES = {
    name: number
    for number, name in enumerate(
        (
            *("softplus", "tanh", "relu", "elu", "swish", "square", "identity"),
            *("gelu", "gelu_tanh", "selu", "leaky_relu", "sigmoid", "sin"),
        )
    )
}
_NONLINEARITIES["silu"] = _NONLINEARITIES["swish"]  # whose learned slope never gets to the ops
# What the kernels for GPUs know ends here.
_LAST_ON_GPU = _NONLINEARITIES["identity"]
_TF32 = len(PRECISIONS)


class TableOps:
    """The pair of ops ``mvae_fast::<name>`` and ``mvae_fast::<name>_backward``, once registered.

    The autograd rules serve twice: on the ops, which is what torch.compile can trace and what costs
    least in eager mode, and as autograd.Function, which torch.func needs.

    Args:
        name: Of the forward op.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._function = _functions(self._forward, self._backward)
        #: Their fake kernels by the names of the ops.
        self.fakes: dict[str, Callable[..., Any]] = {
            name: _fake_integrate,
            f"{name}_backward": _fake_integrate_backward,
        }

    def _forward(self, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return getattr(torch.ops.mvae_fast, self._name).default(*args)

    def _backward(self, *args: Any) -> tuple[Tensor, ...]:
        return getattr(torch.ops.mvae_fast, f"{self._name}_backward").default(*args)

    def register(self) -> None:
        """Give both ops their fake kernels and autograd rules; their schemas must be defined."""
        library, name = torch.library, f"mvae_fast::{self._name}"
        for op, fake in self.fakes.items():
            library.register_fake(f"mvae_fast::{op}", fake)
        library.register_autograd(
            name, self._function.backward, setup_context=self._function.setup_context
        )
        library.register_autograd(f"{name}_backward", refuse_double_backward)

    def integrate(self, problem: Problem) -> Solution:
        """Take all steps in one call of the op."""
        tables = problem.tables
        given = (problem.z, problem.h, tables.weight, tables.gate, tables.bias)
        tensors = [
            None if x is None else x.contiguous() for x in (*given, problem.trace, problem.second)
        ]
        save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
        run = self._function.apply if transformed() else self._forward
        *results, _ = run(
            *tensors,
            dense_probes(problem.probes),
            tables.widths,
            nonlinearity_number(tables.nonlinearity),
            tables.residual,
            *method_arguments(problem.method, problem.z),
            save,
        )
        return Solution(*results)


def _functions(
    forward_op: Callable[..., tuple[Tensor, ...]], backward_op: Callable[..., tuple[Tensor, ...]]
) -> type[torch.autograd.Function]:
    """The pair as an autograd.Function."""

    class IntegrateBackward(torch.autograd.Function):
        """The backward for torch.func and create_graph: refuses to go on."""

        @staticmethod
        def forward(*args: Any) -> tuple[Tensor, ...]:
            return backward_op(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            ctx.set_materialize_grads(False)

        backward = staticmethod(refuse_double_backward)
        jvp = staticmethod(refuse_forward_mode)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
            # jacrev batches its backward.
            return _vmap_by_loop(IntegrateBackward.apply, info, in_dims, args)

    class Integrate(torch.autograd.Function):
        """The forward. It refuses forward-mode AD, as it must: a bare op would give zero tangents
        silently."""

        jvp = staticmethod(refuse_forward_mode)

        @staticmethod
        def forward(*args: Any) -> tuple[Tensor, ...]:
            return forward_op(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            z, h, weight, gate, bias, trace, second, probes, *statics, save = inputs
            states = output[3]
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(states)
            ctx.save_for_backward(z, states, h, weight, gate, bias, trace, second, probes)
            ctx.statics = statics
            ctx.saved_states = save

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            z, states, h, weight, gate, bias, trace, second, probes = ctx.saved_tensors
            if not ctx.saved_states:
                raise RuntimeError("mvae_fast: backward needs the states of save=True")
            grad_outputs = dense_gradients(z, ctx.statics, grads)
            table_grads = any(ctx.needs_input_grad[2:7])
            tensors = (*grad_outputs, z, states, h, weight, gate, bias, trace, second, probes)
            # Grad mode is on in a backward only under create_graph or torch.func.
            run = IntegrateBackward.apply if torch.is_grad_enabled() else backward_op
            grad_z, grad_h, *grad_tables = run(*tensors, *ctx.statics, table_grads)
            if not table_grads:
                return grad_z, grad_h, *(None,) * 16
            tables = (weight, gate, bias, trace, second)
            given = (
                None if table is None else grad
                for table, grad in zip(tables, grad_tables, strict=True)
            )
            return grad_z, grad_h, *given, *(None,) * 11

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
            return _vmap_by_loop(Integrate.apply, info, in_dims, args)

    return Integrate


def dense_gradients(
    z: Tensor, statics: Sequence[Any], grads: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """The gradients of ``z_out``, ``logp_out`` and ``penalty_out``: contiguous, zeros for None."""
    outputs, _, penalties, _ = statics[-4:]
    count, batch, dim = len(outputs), *z.shape
    shapes = (count, batch, dim), (count, batch), (count, penalties.bit_count(), batch)
    return tuple(
        z.new_zeros(shape) if grad is None else grad.contiguous()
        for grad, shape in zip(grads, shapes, strict=False)
    )


def refuse_forward_mode(ctx: Any, *tangents: Tensor | None) -> None:
    raise NotImplementedError(
        "the compiled engines have no forward-mode derivatives (jvp, jacfwd, hessian); "
        "remedy: engine='reference', which has them"
    )


def refuse_double_backward(ctx: Any, *grads: Tensor | None) -> tuple[None, ...]:
    raise RuntimeError(
        "the compiled engines have first derivatives only, and a derivative of their backward was "
        "asked for; remedy: engine='reference', which is differentiable to any order"
    )


def _vmap_by_loop(
    apply: Callable[..., tuple[Tensor, ...]], info: Any, in_dims: tuple[Any, ...], args: Any
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    results = [
        apply(
            *(
                arg.select(dim, i).contiguous() if isinstance(dim, int) else arg
                for arg, dim in zip(args, in_dims, strict=True)
            )
        )
        for i in range(info.batch_size)
    ]
    stacked = tuple(torch.stack(pieces) for pieces in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def fake_outputs(
    z: Tensor, h: Tensor, outputs: list[int], checkpoint_every: int, penalties: int, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Empty tensors like those that the integrating ops return."""
    batch, dim = z.shape
    count = len(outputs)
    saved = (h.shape[0] - 1) // checkpoint_every if save else 0
    return (
        z.new_empty((count, batch, dim)),
        z.new_empty((count, batch)),
        z.new_empty((count, penalties.bit_count(), batch)),
        z.new_empty((saved, batch, dim)),
    )


def _fake_integrate(
    z: Tensor,
    h: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    bias: Tensor,
    trace: Tensor | None,
    second: Tensor | None,
    probes: Tensor | None,
    widths: list[int],
    nonlinearity: int,
    residual: bool,
    a: list[float],
    b: list[float],
    outputs: list[int],
    checkpoint_every: int,
    penalties: int,
    operands: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return fake_outputs(z, h, outputs, checkpoint_every, penalties, save)


def _fake_integrate_backward(
    grad_z_out: Tensor,
    grad_logp_out: Tensor,
    grad_penalty_out: Tensor,
    z: Tensor,
    states: Tensor,
    h: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    bias: Tensor,
    trace: Tensor | None,
    second: Tensor | None,
    probes: Tensor | None,
    widths: list[int],
    nonlinearity: int,
    residual: bool,
    a: list[float],
    b: list[float],
    outputs: list[int],
    checkpoint_every: int,
    penalties: int,
    operands: int,
    table_grads: bool,
) -> tuple[Tensor, ...]:
    tables = (weight, gate, bias, trace, second)
    return (
        z.new_empty(z.shape),
        h.new_empty(h.shape),
        *(
            z.new_empty((0,) if table is None or not table_grads else table.shape)
            for table in tables
        ),
    )


def dense_probes(probes: Tensor | None) -> Tensor | None:
    """Probes as the engine reads them: dense rows, at a distance of D or, when shared, of 0."""
    if probes is None:
        return None
    dim = probes.shape[2]
    dense = dim == 1 or probes.stride(2) == 1
    return probes if dense and probes.stride(1) in (0, dim) else probes.contiguous()


def nonlinearity_number(name: str) -> int:
    """A nonlinearity as the ops know it, which take no strings: torch's stable ABI leaks them."""
    return _NONLINEARITIES[name]


def refuses_nonlinearity(problem: Problem) -> str | None:
    """None when the kernels for GPUs have the problem's nonlinearity, else what they have."""
    name = problem.tables.nonlinearity
    if nonlinearity_number(name) <= _LAST_ON_GPU:
        return None
    known = (known for known, number in _NONLINEARITIES.items() if number <= _LAST_ON_GPU)
    return f"has the nonlinearities {', '.join(map(repr, known))}, got {name!r}"


def method_arguments(method: Method, z: Tensor) -> tuple[Any, ...]:
    """A method for the state ``z`` as the last static arguments of the ops."""
    bits = sum(1 << PENALTIES.index(name) for name in method.penalties)
    operands = PRECISIONS.index(method.precision)
    if method.precision == "full" and z.is_cuda and z.dtype == torch.float32 and _tf32():
        operands = _TF32
    tableau = method.tableau
    # More than the steps saves no state either, and may be more than the op's int holds.
    every = min(method.checkpoint_every, method.outputs[-1])
    return tableau.a, tableau.b, method.outputs, every, bits, operands


@torch.compiler.assume_constant_result
def _tf32() -> bool:
    """PyTorch's own switch for float32 products on a GPU, whichever way it was set."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def transformed() -> bool:
    """Whether torch.func or forward-mode AD may be looking at the tensors."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )
