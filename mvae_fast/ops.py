"""The C++ engine: loads the extension and makes its two ops differentiable and traceable.

The schemas of ``mvae_fast::integrate`` and ``mvae_fast::integrate_backward`` are defined in
``csrc/integrate.cpp``. `net_ops` has the ops that take a net's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvae_fast.problem import PENALTIES, Method, Problem, Solution

__all__ = [
    "capabilities",
    "capability",
    "dense_gradients",
    "dense_probes",
    "fake_outputs",
    "integrate",
    "method_arguments",
    "nonlinearity_number",
    "peak",
    "refuse_double_backward",
    "set_capability",
    "transformed",
    "why_missing",
]

_PACKAGE = Path(__file__).parent


def _load() -> str | None:
    """Load the extension; the reason, with the remedy, when it cannot be."""
    files = sorted(_PACKAGE.glob("_C*.so"))
    if not files:
        log = _PACKAGE / "_build_error.txt"
        if log.exists():
            # The build names what it lacked: a compiler, a torch, or what the compiler said.
            reason = f"the C++ extension failed to build: {log.read_text().strip()}"
            return f"{reason}; remedy: mend that and run `pip install .` again"
        return (
            "the C++ extension is not built; remedy: have a C++17 compiler (g++) and run "
            "`pip install .` again"
        )
    try:
        torch.ops.load_library(files[0])
    except OSError as error:
        return (
            f"the C++ extension {files[0].name} does not load: {error}; remedy: have torch >= 2.10 "
            "and run `pip install .` again"
        )
    return None


_LOAD_ERROR = _load()

# As in csrc/problem.h.
_NONLINEARITIES = {
    name: number
    for number, name in enumerate(
        ("softplus", "tanh", "relu", "elu", "swish", "square", "identity")
    )
}


def why_missing() -> str | None:
    """None when the extension is loaded, else the reason and the remedy."""
    return _LOAD_ERROR


def capabilities() -> tuple[str, ...]:
    """The instruction sets whose kernels this processor can run, best first; empty if missing."""
    if _LOAD_ERROR is not None:
        return ()
    return tuple(torch.ops.mvae_fast.cpu_capabilities.default().split())


# Kept here as well: torch.compile cannot trace an op that returns a string.
_capability: str | None = (
    None if _LOAD_ERROR is not None else torch.ops.mvae_fast.cpu_capability.default()
)


def capability() -> str | None:
    """The instruction set whose kernels run: the best one, unless `set_capability` chose."""
    return _capability


def set_capability(name: str) -> None:
    """Run the kernels of the instruction set ``name`` in the whole process, to test or compare.

    Raises:
        RuntimeError: If ``name`` is not one of `capabilities`.
    """
    global _capability
    torch.ops.mvae_fast.set_cpu_capability.default(name)
    _capability = name


def peak(repeats: int) -> int:
    """Run the float32 register tile of the products on every thread, on operands in cache.

    Args:
        repeats: How many times; one takes about a microsecond.

    Returns:
        The multiply-adds that were done; over the time it took, the machine's peak.
    """
    return torch.ops.mvae_fast.cpu_peak.default(repeats)


def _integrate_op(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.ops.mvae_fast.integrate.default(*args)


def _integrate_backward_op(*args: Any) -> tuple[Tensor, ...]:
    return torch.ops.mvae_fast.integrate_backward.default(*args)


# The autograd rules below serve twice: registered on the ops, which is what torch.compile can trace
# and what costs least in eager mode, and as autograd.Function, which torch.func needs.


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, h, weight, gate, bias, trace, second, probes, *statics, save = inputs
    states = output[3]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(states)
    ctx.save_for_backward(z, states, h, weight, gate, bias, trace, second, probes)
    ctx.statics = statics
    ctx.saved_states = save


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    z, states, h, weight, gate, bias, trace, second, probes = ctx.saved_tensors
    if not ctx.saved_states:
        raise RuntimeError("mvae_fast::integrate: backward needs the states of save=True")
    grad_outputs = dense_gradients(z, ctx.statics, grads)
    table_grads = any(ctx.needs_input_grad[2:7])
    tensors = (*grad_outputs, z, states, h, weight, gate, bias, trace, second, probes)
    args = (*tensors, *ctx.statics, table_grads)
    # Grad mode is on in a backward only under create_graph or torch.func.
    run = _IntegrateBackward.apply if torch.is_grad_enabled() else _integrate_backward_op
    grad_z, grad_h, grad_weight, grad_gate, grad_bias, grad_trace, grad_second = run(*args)
    if not table_grads:
        return grad_z, grad_h, *(None,) * 16
    return (
        grad_z,
        grad_h,
        grad_weight,
        None if gate is None else grad_gate,
        grad_bias,
        None if trace is None else grad_trace,
        None if second is None else grad_second,
        *(None,) * 11,
    )


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


def refuse_double_backward(ctx: Any, *grads: Tensor | None) -> tuple[None, ...]:
    raise RuntimeError(
        "engine 'cpp' has first derivatives only, and a derivative of its backward was asked for; "
        "remedy: engine='reference', which is differentiable to any order"
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


class _IntegrateBackward(torch.autograd.Function):
    """`mvae_fast::integrate_backward` for torch.func and create_graph: refuses to go on."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return _integrate_backward_op(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)

    backward = staticmethod(refuse_double_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        # jacrev batches its backward.
        return _vmap_by_loop(_IntegrateBackward.apply, info, in_dims, args)


class _Integrate(torch.autograd.Function):
    """`mvae_fast::integrate` for torch.func and forward-mode AD. Having no jvp it raises for the
    latter, as it must: a bare op would give zero tangents silently."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _integrate_op(*args)

    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_by_loop(_Integrate.apply, info, in_dims, args)


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
    bf16: bool,
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
    bf16: bool,
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


def _register() -> None:
    library = torch.library
    library.register_fake("mvae_fast::integrate", _fake_integrate)
    library.register_fake("mvae_fast::integrate_backward", _fake_integrate_backward)
    library.register_autograd("mvae_fast::integrate", _backward, setup_context=_setup_context)
    library.register_autograd("mvae_fast::integrate_backward", refuse_double_backward)


if _LOAD_ERROR is None:
    _register()


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


def method_arguments(method: Method) -> tuple[Any, ...]:
    """A method as the last static arguments of the ops."""
    bits = sum(1 << PENALTIES.index(name) for name in method.penalties)
    tableau = method.tableau
    return tableau.a, tableau.b, method.outputs, method.checkpoint_every, bits, method.bf16


def transformed() -> bool:
    """Whether torch.func or forward-mode AD may be looking at the tensors."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def integrate(problem: Problem) -> Solution:
    """Take all steps in C++."""
    tables = problem.tables
    given = (problem.z, problem.h, tables.weight, tables.gate, tables.bias)
    tensors = [
        None if x is None else x.contiguous() for x in (*given, problem.trace, problem.second)
    ]
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    run = _Integrate.apply if transformed() else _integrate_op
    *results, _ = run(
        *tensors,
        dense_probes(problem.probes),
        tables.widths,
        nonlinearity_number(tables.nonlinearity),
        tables.residual,
        *method_arguments(problem.method),
        save,
    )
    return Solution(*results)
