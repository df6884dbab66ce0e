r"""The regularisers of FFJORD and RNODE: scalars that are integrated along the path in training.

With ``rms(v)`` the mean over the batch of ``|v_b|_2 / sqrt(elements)`` and ``J`` the Jacobian:

=================== =======================================================
name                integrand
=================== =======================================================
``l1int``           mean of ``|f|``
``l2int``           rms of ``f``
``dl2int``          rms of ``J^T f``
``JFrobint``        rms of ``J``
``JdiagFrobint``    rms of the diagonal of ``J``
``JoffdiagFrobint`` mean square of the off-diagonal elements of ``J``
``kinetic_energy``  mean over the batch of ``|f_b|_2^2``
``jacobian_norm``   mean over the batch of ``|J_b|_F^2``
=================== =======================================================

The last two are those of RNODE (Finlay et al., 2020, https://arxiv.org/abs/2002.02798). The engines
integrate them, ``l1int`` and ``l2int`` in the sweep of the flow itself. ``jacobian_norm`` is there
estimated by ``|J eps|^2`` of trace probes, which are drawn for it if the trace is exact, unless the
trace takes D sweeps: those give it exactly. Every other regulariser makes the flow go through
torchdiffeq, where it is exact, too.

In FFJORD the diagonal ones take the first column of ``J`` for its diagonal; here they take the
diagonal.
"""

import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

#: ``fn(x, logp, dx, dlogp, context) -> scalar``; ``context`` is shared by the functions of one
#: evaluation, for what is costly to compute twice.
RegularizationFn = Callable[[Tensor, Tensor, Tensor, Tensor, Any], Tensor]


def _rms(v: Tensor) -> Tensor:
    v = v.flatten(1)
    return (torch.linalg.vector_norm(v, dim=1) / v.shape[1] ** 0.5).mean()


def _jacobian(x: Tensor, dx: Tensor, context: Any) -> Tensor:
    """(B, N, N), by N vector-Jacobian products, once per evaluation."""
    if not hasattr(context, "jacobian"):
        velocity = dx.flatten(1)
        rows = [
            torch.autograd.grad(column.sum(), x, create_graph=True, materialize_grads=True)[0]
            for column in velocity.unbind(1)
        ]
        context.jacobian = torch.stack([row.flatten(1) for row in rows], dim=1)
    return context.jacobian


def _diagonal(jacobian: Tensor) -> Tensor:
    return jacobian.diagonal(dim1=1, dim2=2)


def l1_regularization_fn(
    x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor, context: Any
) -> Tensor:
    """Mean absolute velocity."""
    return dx.abs().mean()


def l2_regularization_fn(
    x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor, context: Any
) -> Tensor:
    """Root mean square of the velocity."""
    return _rms(dx)


def directional_l2_regularization_fn(
    x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor, context: Any
) -> Tensor:
    """Root mean square of ``J^T f``."""
    (product,) = torch.autograd.grad(dx, x, dx, create_graph=True, materialize_grads=True)
    return _rms(product)


def jacobian_frobenius_regularization_fn(
    x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor, context: Any
) -> Tensor:
    """Root mean square of the Jacobian."""
    return _rms(_jacobian(x, dx, context))


def jacobian_diag_frobenius_regularization_fn(
    x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor, context: Any
) -> Tensor:
    """Root mean square of the diagonal of the Jacobian."""
    return _rms(_diagonal(_jacobian(x, dx, context)))


def jacobian_offdiag_frobenius_regularization_fn(
    x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor, context: Any
) -> Tensor:
    """Mean square of the off-diagonal elements of the Jacobian."""
    jacobian = _jacobian(x, dx, context)
    n = jacobian.shape[1]
    off_diagonal = jacobian - torch.diag_embed(_diagonal(jacobian))
    # A state of one dimension has no off-diagonal element: its mean is 0, not 0/0.
    return off_diagonal.square().flatten(1).sum(1).mean() / max(1, n * (n - 1))


def kinetic_energy_regularization_fn(
    x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor, context: Any
) -> Tensor:
    """Mean squared norm of the velocity."""
    return dx.flatten(1).square().sum(1).mean()


def jacobian_norm_regularization_fn(
    x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor, context: Any
) -> Tensor:
    """Mean squared Frobenius norm of the Jacobian."""
    return _jacobian(x, dx, context).square().sum((1, 2)).mean()


#: The names of FFJORD's command-line flags, and two of RNODE.
Regularization = Literal[
    "l1int", "l2int", "dl2int", "JFrobint", "JdiagFrobint", "JoffdiagFrobint", "kinetic_energy",
    "jacobian_norm",
]  # fmt: skip

#: The function of each.
REGULARIZATION_FNS: dict[Regularization, RegularizationFn] = {
    "l1int": l1_regularization_fn,
    "l2int": l2_regularization_fn,
    "dl2int": directional_l2_regularization_fn,
    "JFrobint": jacobian_frobenius_regularization_fn,
    "JdiagFrobint": jacobian_diag_frobenius_regularization_fn,
    "JoffdiagFrobint": jacobian_offdiag_frobenius_regularization_fn,
    "kinetic_energy": kinetic_energy_regularization_fn,
    "jacobian_norm": jacobian_norm_regularization_fn,
}

# FFJORD's functions of the same meaning, under its names: scripts hand over their own.
_BY_FUNCTION: dict[str, RegularizationFn] = {
    "l1_regularzation_fn": l1_regularization_fn,
    "l2_regularzation_fn": l2_regularization_fn,
}

#: Those that an engine integrates along with the flow, by their names in `mvae_fast.core.problem`.
FUSED_PENALTIES: dict[RegularizationFn, str] = {
    l1_regularization_fn: "mean_magnitude",
    l2_regularization_fn: "root_mean_square",
    kinetic_energy_regularization_fn: "kinetic_energy",
    jacobian_norm_regularization_fn: "frobenius",
}


def resolve_regularization_fns(
    fns: Sequence[RegularizationFn | Regularization] | Regularization,
) -> tuple[RegularizationFn, ...]:
    """Look names up in `REGULARIZATION_FNS`, keep callables but FFJORD's that are ours.

    Raises:
        ValueError: For an unknown name.
        TypeError: For a callable that does not take five arguments.
    """
    if isinstance(fns, str):
        fns = (fns,)
    for fn in fns:
        if not callable(fn) and fn not in REGULARIZATION_FNS:
            raise ValueError(
                f"regularization_fns: got {fn!r}, expected a callable or one of "
                f"{', '.join(map(repr, REGULARIZATION_FNS))}"
            )
    return tuple(_of_callable(fn) if callable(fn) else REGULARIZATION_FNS[fn] for fn in fns)


def _of_callable(fn: RegularizationFn) -> RegularizationFn:
    signature = inspect.signature(fn)
    try:
        signature.bind(*range(5))
    except TypeError:
        name = getattr(fn, "__name__", type(fn).__name__)
        raise TypeError(
            f"regularization_fns: got {name}{signature}, expected a function of (x, logp, dx, "
            "dlogp, context)"
        ) from None
    return _BY_FUNCTION.get(getattr(fn, "__name__", ""), fn)


def evaluate(
    fns: Sequence[RegularizationFn], x: Tensor, logp: Tensor, dx: Tensor, dlogp: Tensor
) -> tuple[Tensor, ...]:
    """The integrands at one state, sharing what they compute.

    Args:
        fns: The regularisers.
        x: (B, ...), requires grad.
        logp: (B, 1).
        dx: Like ``x``, connected to it.
        dlogp: (B, 1).
    """
    context = SimpleNamespace()
    return tuple(fn(x, logp, dx, dlogp, context) for fn in fns)
