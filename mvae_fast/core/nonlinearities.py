"""The seven nonlinearities of FFJORD: value and first derivative."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NONLINEARITIES", "Swish", "derivative", "make_activation", "value"]


def _softplus(a: Tensor) -> Tensor:
    # F.softplus turns into the identity above 20; logsigmoid is exact everywhere and
    # differentiable to any order.
    return -F.logsigmoid(-a)


def _elu_derivative(a: Tensor) -> Tensor:
    # exp of the clamped value: an unclamped exp would overflow where the branch is not taken, and
    # its inf would turn the second derivative into nan.
    return torch.where(a > 0, torch.ones_like(a), a.clamp(max=0).exp())


def _swish_derivative(a: Tensor) -> Tensor:
    s = torch.sigmoid(a)
    return s * (1 + a * (1 - s))


_FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "softplus": (_softplus, torch.sigmoid),
    "tanh": (torch.tanh, lambda a: 1 - torch.tanh(a).square()),
    "relu": (torch.relu, lambda a: (a > 0).to(a.dtype)),
    "elu": (F.elu, _elu_derivative),
    "swish": (F.silu, _swish_derivative),
    "silu": (F.silu, _swish_derivative),
    "square": (torch.square, lambda a: 2 * a),
    "identity": (lambda a: a, torch.ones_like),
}

#: Names that ``ODEnet(nonlinearity=...)`` takes.
NONLINEARITIES: tuple[str, ...] = tuple(_FUNCTIONS)


def value(name: str, a: Tensor) -> Tensor:
    """``phi(a)``; swish with beta = 1."""
    return _FUNCTIONS[name][0](a)


def derivative(name: str, a: Tensor) -> Tensor:
    """``phi'(a)``; swish with beta = 1."""
    return _FUNCTIONS[name][1](a)


class Swish(nn.Module):
    r"""``x * sigmoid(beta * x)`` with a learned ``beta``, one for every use.

    FFJORD shares one ``beta`` between all layers of all nets of a process; here each layer owns
    its own, under the same state_dict key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the nonlinearity elementwise."""
        return x * torch.sigmoid(self.beta * x)


class Pointwise(nn.Module):
    """A nonlinearity without parameters, by name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Apply the nonlinearity elementwise."""
        return value(self.name, x)

    def extra_repr(self) -> str:
        return self.name


def make_activation(name: str) -> nn.Module:
    """A new module for the nonlinearity called ``name``."""
    if name not in _FUNCTIONS:
        raise ValueError(
            f"nonlinearity: got {name!r}, expected one of {', '.join(map(repr, NONLINEARITIES))}"
        )
    return Swish() if name == "swish" else Pointwise(name)
