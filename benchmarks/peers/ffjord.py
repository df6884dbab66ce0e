r"""FFJORD's scheme on torchdiffeq, written from its description.

The velocity is an eager PyTorch net; its divergence is Hutchinson's estimate in reverse mode,

.. math:: \operatorname{Tr} J \approx (\varepsilon^T J) \cdot \varepsilon

by ``torch.autograd.grad(..., create_graph=True)`` with one noise for the whole solve; torchdiffeq
integrates the tuple ``(z, logp)``. FFJORD's solver is dopri5, and its toy densities have the exact
divergence, a derivative a dimension. Of what FFJORD does besides, only the count of
evaluations and the gradient of time are left out: both would cost time and change no result.

References:
    FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models
    (Grathwohl et al., 2019), https://arxiv.org/abs/1810.01367
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from benchmarks.common.workloads import Workload


class Concat(nn.Module):
    """``W [t; x] + b``."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self._layer = nn.Linear(dim_in + 1, dim_out)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        time = torch.ones_like(x[:, :1]) * t
        return self._layer(torch.cat((time, x), 1))


class Squash(nn.Module):
    """``(W x + b) * sigmoid(a t + c)``."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self._layer = nn.Linear(dim_in, dim_out)
        self._hyper = nn.Linear(1, dim_out)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self._layer(x) * torch.sigmoid(self._hyper(t.view(1, 1)))


class ConcatSquash(nn.Module):
    """``(W x + b) * sigmoid(a t + c) + u t``."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self._layer = nn.Linear(dim_in, dim_out)
        self._hyper_bias = nn.Linear(1, dim_out, bias=False)
        self._hyper_gate = nn.Linear(1, dim_out)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        time = t.view(1, 1)
        return self._layer(x) * torch.sigmoid(self._hyper_gate(time)) + self._hyper_bias(time)


_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "concat": Concat,
    "squash": Squash,
    "concatsquash": ConcatSquash,
}
_NONLINEARITIES: dict[str, Callable[[], nn.Module]] = {"softplus": nn.Softplus, "tanh": nn.Tanh}


class Net(nn.Module):
    """The velocity ``f(t, z)`` of a workload; loads the state_dict of an `mvae_fast.ODEnet`."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.widths = (workload.dim, *workload.hidden, workload.dim)
        self.layer_type = workload.layer_type
        self.nonlinearity = workload.nonlinearity
        layer = _LAYERS[workload.layer_type]
        self.layers = nn.ModuleList(
            layer(m_in, m_out)
            for m_in, m_out in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.activation = _NONLINEARITIES[workload.nonlinearity]()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The velocity (B, D) at time ``t`` (0-dim) and state ``y`` (B, D)."""
        for index, layer in enumerate(self.layers):
            if index > 0:
                y = self.activation(y)
            y = layer(t, y)
        return y


class Dynamics(nn.Module):
    """``(z, logp) -> (f, -Tr J)`` in the form that torchdiffeq calls.

    Args:
        exact: The divergence by a derivative a dimension instead of Hutchinson's estimate.
    """

    def __init__(self, net: nn.Module, exact: bool = False) -> None:
        super().__init__()
        self.net = net
        self.exact = exact
        self.noise: Tensor | None = None

    def forward(self, t: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z = states[0]
        # Grad mode is on also where the caller's is off: the divergence needs a graph of its own.
        with torch.enable_grad():
            z.requires_grad_(True)
            velocity = self.net(t, z)
            divergence = self._exact(velocity, z) if self.exact else self._estimate(velocity, z)
        return velocity, -divergence

    def _estimate(self, velocity: Tensor, z: Tensor) -> Tensor:
        assert self.noise is not None
        (product,) = torch.autograd.grad(velocity, z, self.noise, create_graph=True)
        return (product * self.noise).sum(1, keepdim=True)

    def _exact(self, velocity: Tensor, z: Tensor) -> Tensor:
        slopes = (
            torch.autograd.grad(velocity[:, i].sum(), z, create_graph=True)[0][:, i]
            for i in range(z.shape[1])
        )
        return torch.stack(tuple(slopes), 1).sum(1, keepdim=True)


class FFJORD(nn.Module):
    """FFJORD's flow.

    Args:
        steps: Of Euler's method; None for dopri5, FFJORD's default.
        adjoint: Gradients by `odeint_adjoint`, as FFJORD does, instead of through the steps. They
            are those of the continuous adjoint, which Euler's method approximates to first order.
        exact: As of `Dynamics`.
        tolerance: Absolute and relative one of dopri5.
    """

    def __init__(
        self,
        net: nn.Module,
        steps: int | None,
        adjoint: bool,
        exact: bool = False,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__()
        self.dynamics = Dynamics(net, exact)
        self.steps = steps
        self.integrator = odeint_adjoint if adjoint else odeint
        self.solver: dict[str, Any] = {"method": "dopri5", "rtol": tolerance, "atol": tolerance}
        if steps is not None:
            self.solver = {"method": "euler", "options": {"step_size": 1 / steps}}

    def forward(self, z: Tensor, logp: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
        """Move ``z`` (B, D) and ``logp`` (B, 1) along the flow with the noise ``probes`` (B, D)."""
        self.dynamics.noise = probes
        times = torch.tensor([0.0, 1.0], dtype=z.dtype, device=z.device)
        z_path, logp_path = self.integrator(self.dynamics, (z, logp), times, **self.solver)
        return z_path[-1], logp_path[-1]
