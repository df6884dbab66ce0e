"""Independent ways to the same numbers, and how near an engine has to come to them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from mvae_fast import FastCNF, ODEfunc, ODEnet, engines

A, B, C = TypeVar("A"), TypeVar("B"), TypeVar("C")

LAYER_TYPES = (
    "ignore",
    "hyper",
    "squash",
    "concat",
    "concat_v2",
    "concatsquash",
    "blend",
    "concatcoord",
    "scale",
    "concatscale",
)
#: Those of the engines for GPUs.
GPU_NONLINEARITIES = ("softplus", "tanh", "relu", "elu", "swish", "square", "identity")
NONLINEARITIES = (
    *GPU_NONLINEARITIES,
    *("gelu", "gelu_tanh", "selu", "leaky_relu", "sigmoid", "sin", "silu"),
)


def engines_on(device: str, dtype: torch.dtype = torch.float64) -> list[str]:
    """The engines that can run here on such tensors: on a GPU machine not all of them on a CPU.

    Without Triton's interpreter, a thousand times as slow as any: tests/kernels is for it.
    """
    place = torch.device(device)
    return [
        name
        for name in engines.available()
        if (engine := engines.get(name)).supports(place, dtype, "full")
        and device not in engine.by_name_only
    ]


def pairwise(first: Sequence[A], second: Sequence[B], third: Sequence[C]) -> list[tuple[A, B, C]]:
    """Every pair of ``first`` and ``second``, with ``third`` going round over both.

    Where ``first`` and ``second`` are at least as long as ``third``, all its pairs occur as well.
    """
    return [
        (a, b, third[(i + j) % len(third)])
        for i, a in enumerate(first)
        for j, b in enumerate(second)
    ]


def random_net(
    hidden: tuple[int, ...],
    dim: int,
    layer_type: str = "concatsquash",
    nonlinearity: str = "softplus",
    dtype: torch.dtype = torch.float64,
) -> ODEnet:
    """A net all of whose parameters matter: the default zeros and ones would hide errors."""
    net = ODEnet(hidden, (dim,), layer_type=layer_type, nonlinearity=nonlinearity).to(dtype)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("beta"):
                parameter.uniform_(0.5, 1.5)
            else:
                # Rows of unit scale keep `square`, which can blow up, in bounds at every width.
                fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
                parameter.normal_(0, 0.6 / fan_in**0.5)
    return net


def autograd_trace(net: torch.nn.Module, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Velocity, and the trace as FFJORD's brute force finds it: one gradient per dimension."""
    velocity = net(t, z)
    trace = torch.zeros_like(z[:, 0])
    for i in range(z.shape[1]):
        (row,) = torch.autograd.grad(
            velocity[:, i].sum(), z, create_graph=True, materialize_grads=True
        )
        trace = trace + row[:, i]
    return velocity, trace


def autograd_hutchinson(
    net: torch.nn.Module, t: Tensor, z: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Velocity, and the trace as FFJORD estimates it: noise times a vector-Jacobian product."""
    velocity = net(t, z)
    (product,) = torch.autograd.grad(velocity, z, noise, create_graph=True, materialize_grads=True)
    return velocity, (product * noise).sum(1)


def ffjord_euler(
    net: torch.nn.Module,
    z: Tensor,
    end: Tensor,
    n_steps: int,
    noise: Tensor | None = None,
    residual: bool = False,
) -> tuple[Tensor, Tensor]:
    """FFJORD's scheme by hand: Euler's method over the net's own forward, trace by autograd.

    Knows nothing of tables. ``noise`` (B, D) estimates the trace; without it the trace is exact.
    """
    if not z.requires_grad:
        z = z.detach().requires_grad_()
    h = end / n_steps
    logp = torch.zeros_like(z[:, 0])
    for step in range(n_steps):
        t = h * step
        if noise is None:
            velocity, trace = autograd_trace(net, t, z)
        else:
            velocity, trace = autograd_hutchinson(net, t, z, noise)
        if residual:
            velocity, trace = velocity - z, trace - z.shape[1]
        z = z + h * velocity
        logp = logp - h * trace
    return z, logp


def cnf(
    hidden: Sequence[int] = (7,),
    dim: int = 3,
    layer_type: str = "squash",
    nonlinearity: str = "tanh",
    residual: bool = False,
    **settings: Any,
) -> FastCNF:
    """A small flow in float64, of four steps and the exact trace unless the settings say more."""
    odefunc = ODEfunc(random_net(hidden, dim, layer_type, nonlinearity), residual=residual)
    return FastCNF(odefunc, **{"n_steps": 4, "trace": "exact", **settings}).double()


def states(batch: int = 5, dim: int = 3) -> tuple[Tensor, Tensor]:
    """States and log-densities for it."""
    z = torch.randn(batch, dim, dtype=torch.float64)
    return z, torch.randn(batch, 1, dtype=torch.float64)


def gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of one fixed generic functional of the outputs, 0 where there is no dependence."""
    total = sum(
        (
            output
            * torch.linspace(
                0.5, 1.5, output.numel(), dtype=output.dtype, device=output.device
            ).view_as(output)
        ).sum()
        for output in outputs
    )
    return list(torch.autograd.grad(total, inputs, materialize_grads=True))


def distance(actual: Tensor, oracle: Tensor) -> float:
    """Euclidean distance to a float64 oracle, in units of its norm (at least 1)."""
    oracle = oracle.detach().double()
    difference = torch.linalg.vector_norm(actual.detach().to(oracle) - oracle)
    return (difference / torch.linalg.vector_norm(oracle).clamp(min=1)).item()
