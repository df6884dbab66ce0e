"""Planar flows: one hidden tanh unit each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mvae_fast.checks import integer
from mvae_fast.flows import monotone
from mvae_fast.flows.base import Flow
from mvae_fast.flows.parameters import Parameters


class PlanarFlow(Flow):
    r"""K planar flows, one after the other.

    .. math:: z' = z + \hat u \tanh(w^T z + b), \qquad
              \hat u = u + \left(m(w^T u) - w^T u\right) \frac{w}{\|w\|^2}, \qquad
              m(x) = -1 + \log(1 + e^x)

    As :math:`w^T \hat u = m(w^T u) > -1` each of them is invertible. With
    :math:`h = \tanh(w^T z + b)` the determinant is

    .. math:: 1 + (1 - h^2)\, w^T \hat u = h^2 + (1 - h^2) \log(1 + e^{w^T u}) > 0 ,

    whose right side has no cancellation. The inverse has no closed form, but is one monotone scalar
    equation for :math:`w^T z`, which bisection solves; its first three derivatives are exact.

    Args:
        dim: Size D of the state.
        n_flows: K.
        cond_dim: 0 for free u, w and b; else they are linear functions of ``cond`` (B, cond_dim).

    Raises:
        ValueError: If a size does not fit.

    References:
        Variational Inference with Normalizing Flows (Rezende and Mohamed, 2015), eq. 10-12 and
        appendix A.1, https://arxiv.org/abs/1505.05770

    Example:
        >>> flow = PlanarFlow(3, n_flows=4, cond_dim=6)
        >>> z, logp = flow(torch.zeros(5, 3), torch.zeros(5, 1), cond=torch.ones(5, 6))
        >>> z.shape, logp.shape
        (torch.Size([5, 3]), torch.Size([5, 1]))
    """

    def __init__(self, dim: int, n_flows: int = 16, cond_dim: int = 0) -> None:
        super().__init__(dim, cond_dim)
        dim, n_flows = self.dim, integer("n_flows", n_flows, 1)
        self.n_flows = n_flows
        shapes = {"u": (n_flows, dim), "w": (n_flows, dim), "b": (n_flows,)}
        self.theta = Parameters(shapes, self.cond_dim, dict.fromkeys(shapes, dim**-0.5))

    def _move(self, z: Tensor, cond: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
        u, w, b = self.theta(cond).values()
        limits = torch.finfo(z.dtype)
        wu = (w * u).sum(2)
        # 1 + w.u_hat. The softplus of a very negative number is 0, where the flow would fold.
        margin = F.softplus(wu, threshold=40.0).clamp(min=limits.eps)
        square = w.square().sum(2)
        # With w = 0 the flow is a shift and has no direction to bend u into.
        margin = torch.where(square >= limits.tiny, margin, 1 + wu)
        square = square.clamp(min=limits.tiny)
        u = u + ((margin - 1 - wu) / square).unsqueeze(2) * w

        flows = list(zip(u.unbind(1), w.unbind(1), b.unbind(1), margin.unbind(1), strict=True))
        change = z.new_zeros(z.shape[0])
        for u_k, w_k, b_k, margin_k in reversed(flows) if reverse else flows:
            along = (z * w_k).sum(1)
            if reverse:
                along = monotone.solve(along, margin_k - 1, 1.0, b_k)
            h = torch.tanh(along + b_k)
            shift = u_k * h.unsqueeze(1)
            log_det = (h.square() + (1 - h.square()) * margin_k).log()
            z, change = (z - shift, change + log_det) if reverse else (z + shift, change - log_det)
        return z, change

    def extra_repr(self) -> str:
        return f"dim={self.dim}, n_flows={self.n_flows}, cond_dim={self.cond_dim}"
