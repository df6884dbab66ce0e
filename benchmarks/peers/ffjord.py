r"""FFJORD's scheme on torchdiffeq, written from its description.

The velocity is an eager PyTorch net; its divergence is Hutchinson's estimate in reverse mode,

.. math:: \operatorname{Tr} J \approx (\varepsilon^T J) \cdot \varepsilon

by ``torch.autograd.grad(..., create_graph=True)`` with one noise for the whole solve; torchdiffeq
integrates the tuple ``(z, logp)``. Of what FFJORD does besides, only the count of evaluations and
the gradient of time are left out: both would cost time and change no result.

References:
    FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models
    (Grathwohl et al., 2019), https://arxiv.org/abs/1810.01367
"""

from collections.abc import Callable

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


class _Dynamics(nn.Module):
    """``(z, logp) -> (f, -Tr J)`` in the form that torchdiffeq calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.noise: Tensor | None = None

    def forward(self, t: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z = states[0]
        # Grad mode is on also where the caller's is off: the divergence needs a graph of its own.
        with torch.enable_grad():
            z.requires_grad_(True)
            velocity = self.net(t, z)
            (product,) = torch.autograd.grad(velocity, z, self.noise, create_graph=True)
            assert self.noise is not None
            divergence = (product * self.noise).sum(1, keepdim=True)
        return velocity, -divergence


class FFJORD(nn.Module):
    """FFJORD's flow with Euler's method.

    Args:
        adjoint: Gradients by `odeint_adjoint`, as FFJORD does, instead of through the steps. They
            are those of the continuous adjoint, which Euler's method approximates to first order.
    """

    def __init__(self, net: nn.Module, steps: int, adjoint: bool) -> None:
        super().__init__()
        self.dynamics = _Dynamics(net)
        self.steps = steps
        self.integrator = odeint_adjoint if adjoint else odeint

    def forward(self, z: Tensor, logp: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
        """Move ``z`` (B, D) and ``logp`` (B, 1) along the flow with the noise ``probes`` (B, D)."""
        self.dynamics.noise = probes
        times = torch.tensor([0.0, 1.0], dtype=z.dtype, device=z.device)
        z_path, logp_path = self.integrator(
            self.dynamics, (z, logp), times, method="euler", options={"step_size": 1 / self.steps}
        )
        return z_path[-1], logp_path[-1]
