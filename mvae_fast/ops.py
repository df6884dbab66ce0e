"""The C++ engine: loads the extension and makes its two ops differentiable and traceable.

The only file that touches ``torch.ops``. The schemas of ``mvae_fast::integrate`` and
``mvae_fast::integrate_backward`` are defined in ``csrc/ops.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvae_fast.tableaus import Tableau
from mvae_fast.tables import Tables

__all__ = ["capabilities", "capability", "integrate", "peak", "set_capability", "why_missing"]

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


def why_missing() -> str | None:
    """None when the extension is loaded, else the reason and the remedy."""
    return _LOAD_ERROR


def capabilities() -> tuple[str, ...]:
    """The instruction sets whose kernels this processor can run, best first; empty if missing."""
    if _LOAD_ERROR is not None:
        return ()
    return tuple(torch.ops.mvae_fast.cpu_capabilities.default().split())


def capability() -> str | None:
    """The instruction set whose kernels run: the best one, unless `set_capability` chose."""
    return None if _LOAD_ERROR is not None else torch.ops.mvae_fast.cpu_capability.default()


def set_capability(name: str) -> None:
    """Run the kernels of the instruction set ``name`` in the whole process, to test or compare.

    Raises:
        RuntimeError: If ``name`` is not one of `capabilities`.
    """
    torch.ops.mvae_fast.set_cpu_capability.default(name)


def peak(repeats: int) -> int:
    """Run the float32 register tile of the products on every thread, on operands in cache.

    Args:
        repeats: How many times; one takes about a microsecond.

    Returns:
        The multiply-adds that were done; over the time it took, the machine's peak.
    """
    return torch.ops.mvae_fast.cpu_peak.default(repeats)


def _integrate_op(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.mvae_fast.integrate.default(*args)


def _integrate_backward_op(*args: Any) -> tuple[Tensor, ...]:
    return torch.ops.mvae_fast.integrate_backward.default(*args)


# The autograd rules below serve twice: registered on the ops, which is what torch.compile can trace
# and what costs least in eager mode, and as autograd.Function, which torch.func needs.


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, h, weight, gate, bias, trace, second, probes, *statics, save = inputs
    states = output[2]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(states)
    ctx.save_for_backward(z, states, h, weight, gate, bias, trace, second, probes)
    ctx.statics = statics
    ctx.saved_states = save


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    z, states, h, weight, gate, bias, trace, second, probes = ctx.saved_tensors
    if not ctx.saved_states:
        raise RuntimeError("mvae_fast::integrate: backward needs the states of save=True")
    outputs = ctx.statics[-2]
    grad_z_out, grad_logp_out = grads[:2]
    if grad_z_out is None:
        grad_z_out = z.new_zeros((len(outputs), *z.shape))
    if grad_logp_out is None:
        grad_logp_out = z.new_zeros((len(outputs), z.shape[0]))
    table_grads = any(ctx.needs_input_grad[2:7])
    tensors = (grad_z_out.contiguous(), grad_logp_out.contiguous(), z, states, h, weight, gate)
    args = (*tensors, bias, trace, second, probes, *ctx.statics, table_grads)
    # Grad mode is on in a backward only under create_graph or torch.func.
    run = _IntegrateBackward.apply if torch.is_grad_enabled() else _integrate_backward_op
    grad_z, grad_h, grad_weight, grad_gate, grad_bias, grad_trace, grad_second = run(*args)
    if not table_grads:
        return grad_z, grad_h, *(None,) * 14
    return (
        grad_z,
        grad_h,
        grad_weight,
        None if gate is None else grad_gate,
        grad_bias,
        None if trace is None else grad_trace,
        None if second is None else grad_second,
        *(None,) * 9,
    )


def _refuse_double_backward(ctx: Any, *grads: Tensor | None) -> tuple[None, ...]:
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

    backward = staticmethod(_refuse_double_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        # jacrev batches its backward.
        return _vmap_by_loop(_IntegrateBackward.apply, info, in_dims, args)


class _Integrate(torch.autograd.Function):
    """`mvae_fast::integrate` for torch.func and forward-mode AD. Having no jvp it raises for the
    latter, as it must: a bare op would give zero tangents silently."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        return _integrate_op(*args)

    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_by_loop(_Integrate.apply, info, in_dims, args)


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
    nonlinearity: str,
    residual: bool,
    a: list[float],
    b: list[float],
    outputs: list[int],
    checkpoint_every: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, dim = z.shape
    count = len(outputs)
    saved = (h.shape[0] - 1) // checkpoint_every if save else 0
    return (
        z.new_empty((count, batch, dim)),
        z.new_empty((count, batch)),
        z.new_empty((saved, batch, dim)),
    )


def _fake_integrate_backward(
    grad_z_out: Tensor,
    grad_logp_out: Tensor,
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
    nonlinearity: str,
    residual: bool,
    a: list[float],
    b: list[float],
    outputs: list[int],
    checkpoint_every: int,
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
    library.register_autograd("mvae_fast::integrate_backward", _refuse_double_backward)


if _LOAD_ERROR is None:
    _register()


def _with_dense_rows(probes: Tensor) -> Tensor:
    """Probes as the engine reads them: dense rows, at a distance of D or, when shared, of 0."""
    dim = probes.shape[2]
    dense = dim == 1 or probes.stride(2) == 1
    return probes if dense and probes.stride(1) in (0, dim) else probes.contiguous()


def _transformed() -> bool:
    """Whether torch.func or forward-mode AD may be looking at the tensors."""
    return (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def integrate(
    z: Tensor,
    h: Tensor,
    tables: Tables,
    trace: Tensor | None,
    probes: Tensor | None,
    second: Tensor | None,
    tableau: Tableau,
    outputs: tuple[int, ...],
    checkpoint_every: int,
) -> tuple[Tensor, Tensor]:
    """Take all steps in C++; arguments and result as in `mvae_fast.integrate.integrate`."""
    gate = tables.gate
    tensors = (
        z.contiguous(),
        h.contiguous(),
        tables.weight.contiguous(),
        None if gate is None else gate.contiguous(),
        tables.bias.contiguous(),
        None if trace is None else trace.contiguous(),
        None if second is None else second.contiguous(),
    )
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    plain = torch.compiler.is_compiling() or not _transformed()
    run = _integrate_op if plain else _Integrate.apply
    z_out, logp_out, _ = run(
        *tensors,
        None if probes is None else _with_dense_rows(probes),
        tables.widths,
        tables.nonlinearity,
        tables.residual,
        tableau.a,
        tableau.b,
        outputs,
        checkpoint_every,
        save,
    )
    return z_out, logp_out
