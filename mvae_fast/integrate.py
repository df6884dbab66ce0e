r"""The core as a function: a velocity as data over given steps."""

from typing import Any

from torch import Tensor

from mvae_fast import engines
from mvae_fast.core.field import Field
from mvae_fast.core.problem import Problem, Solution
from mvae_fast.core.tables import Tables


def integrate(
    z: Tensor,
    h: Tensor,
    field: Field | Tables,
    *,
    outputs: tuple[int, ...] | None = None,
    engine: engines.EngineName = "auto",
    **settings: Any,
) -> Solution:
    r"""Integrate state and log-density change over S steps of an explicit Runge-Kutta method.

    .. math:: z_{s+1} = z_s + h_s f_s(z_s), \qquad \ell_{s+1} = \ell_s - h_s \tau_s

    for Euler's method (`mvae_fast.core.tableaus` has the general step), with ``tau_s`` the trace of
    the Jacobian of ``f_s``, or ``sum_k probes_k . J_s probes_k``, or 0.

    Args:
        z: (B, D), the start state.
        h: (S,), the step sizes; may be negative.
        field: The velocity at its S * R evaluations, R a step.
        outputs: Ascending step counts in 1..S, ending in S, after which to report; default
            ``(S,)``.
        engine: ``"auto"`` or one of `mvae_fast.engines.ENGINES`.
        settings: The rest of a `mvae_fast.core.problem.Problem`: trace, probes, log_det, tableau,
            checkpoint_every, penalties, precision, check_finite.

    Returns:
        States (len(outputs), B, D), log-density changes (len(outputs), B) and penalties
        (len(outputs), len(penalties), B).

    Raises:
        ValueError: If a shape, dtype, device or name does not fit.
        RuntimeError: If the named engine is missing.

    References:
        Neural Ordinary Differential Equations (Chen et al., 2018), eq. 8,
        https://arxiv.org/abs/1806.07366

    Example:
        >>> import torch
        >>> from mvae_fast import ODEnet
        >>> from mvae_fast.nets.fields import field_of
        >>> field = field_of(ODEnet((8,), (2,)), torch.zeros(4))
        >>> solution = integrate(torch.zeros(3, 2), torch.full((4,), 0.25), field, trace="exact")
        >>> solution.z.shape, solution.logp.shape
        (torch.Size([1, 3, 2]), torch.Size([1, 3]))
    """
    problem = Problem(z, h, field, (h.shape[0],) if outputs is None else outputs, **settings)
    problem.check()
    return engines.solve(engine, problem)
