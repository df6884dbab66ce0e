"""Nonlinearities as modules of an `ODEnet`."""

import torch
from torch import Tensor, nn

from mvae_fast.checks import one_of
from mvae_fast.core.nonlinearities import NONLINEARITIES, value


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
    one_of("nonlinearity", name, NONLINEARITIES)
    return Swish() if name == "swish" else Pointwise(name)
