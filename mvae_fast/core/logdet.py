r"""The log-determinant of the steps that are applied, in place of the integral of the trace.

The trace integral is the change of log-density of the continuous flow. That of the map which the
steps apply is

.. math:: \ell = -\sum_s \log \left|\det \frac{\partial z_{s+1}}{\partial z_s}\right| , \qquad
          \log|\det(I + h J)| = h \operatorname{Tr} J - \tfrac{h^2}{2} \operatorname{Tr} J^2 + \dots

for Euler's method, and it alone makes an ELBO of few large steps a bound. Plain PyTorch, one LU
factorisation per row and step: for tests, and where gradients are wanted; else on a CPU the C++
engine has it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mvae_fast.core.tableaus import Tableau, combine


def log_det_steps(
    z: Tensor,
    h: Tensor,
    jacobian: Callable[[Tensor, int], tuple[Tensor, Tensor]],
    tableau: Tableau,
    outputs: tuple[int, ...],
    *,
    second_order: bool = False,
) -> tuple[Tensor, Tensor]:
    """All steps of a Runge-Kutta method with the Jacobian of each, of any velocity.

    Args:
        z: (B, D), the start state.
        h: (S,), the step sizes.
        jacobian: Velocity (B, D) and its Jacobian (B, D, D) at a state and the number of an
            evaluation, counted over steps and stages.
        tableau: The method.
        outputs: Ascending step counts after which to report.
        second_order: Stop the series of Euler's log-determinant after ``Tr J^2``.

    Returns:
        States (len(outputs), B, D) and log-density changes (len(outputs), B).
    """
    stages = len(tableau.b)
    identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    logp = z.new_zeros(z.shape[0])
    z_out, logp_out = [], []
    for s in range(h.shape[0]):
        velocities: list[Tensor] = []
        slopes: list[Tensor] = []  # dk_r / dz
        for r in range(stages):
            weights = tableau.a[r * stages : r * stages + r]
            stage = combine(z, h[s], weights, velocities)
            velocity, slope = jacobian(stage, s * stages + r)
            velocities.append(velocity)
            if any(weights):
                slope = slope @ combine(identity, h[s], weights, slopes)
            slopes.append(slope)
        if second_order:
            squared = (slopes[0] * slopes[0].mT).sum((1, 2))
            trace = slopes[0].diagonal(dim1=1, dim2=2).sum(1)
            logp = logp - h[s] * trace + h[s].square() / 2 * squared
        else:
            step = combine(identity, h[s], tableau.b, slopes)
            logp = logp - torch.linalg.slogdet(step).logabsdet
        z = combine(z, h[s], tableau.b, velocities)
        if s + 1 in outputs:
            z_out.append(z)
            logp_out.append(logp)
    return torch.stack(z_out), torch.stack(logp_out)
