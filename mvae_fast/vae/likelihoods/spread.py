"""A scale or dispersion that is fixed, learned or predicted."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvae_fast.checks import positive
from mvae_fast.vae.sizes import sizes

#: A number, one parameter a dimension, or a further output of the decoder.
Spread = float | Literal["learned", "predicted"]

#: Below it nothing learned or predicted goes: the density of a constant pixel has no bound.
SMALLEST = 1e-3


class PositiveParameter(nn.Module):
    """A number above 0 for each number of the data: softplus of what is learned or predicted, and
    1e-3 more.

    Args:
        name: Of the argument that it is made from, for the messages.
        value: A number; ``"learned"``: a parameter a dimension; ``"predicted"``: by the decoder.
        shape: Of a row of data, where it is learned.
        start: Where what is learned begins.

    Raises:
        ValueError: If ``value`` is something else, or the shape is missing.

    Example:
        >>> PositiveParameter("scale", "learned", (2,))(torch.zeros(1, 2)).detach()
        tensor([[1.0000, 1.0000]])
    """

    def __init__(
        self,
        name: str,
        value: Spread,
        shape: Sequence[int] | int | None = None,
        start: float = 1.0,
    ) -> None:
        super().__init__()
        self.value: Spread
        if not isinstance(value, str):
            self.value = positive(name, value)
        elif value in ("learned", "predicted"):
            self.value = value
        else:
            raise ValueError(
                f"{name}: got {value!r}, expected a number > 0, 'learned' or 'predicted'"
            )
        if value == "learned":
            if shape is None:
                raise ValueError(f"shape: got None, expected that of a row for {name}='learned'")
            raw = math.log(math.expm1(start - SMALLEST))
            self.raw = nn.Parameter(torch.full(sizes("shape", shape), raw))

    @property
    def n_outputs(self) -> int:
        """Numbers of the decoder's that it takes for each number of the data."""
        return int(self.value == "predicted")

    def forward(self, location: Tensor, *predicted: Tensor) -> Tensor:
        """Its values, of the shape of ``location``; ``predicted``: what the decoder says of it."""
        if isinstance(self.value, float):
            return torch.full_like(location, self.value)
        raw = predicted[0] if predicted else self.raw.to(location.dtype)
        return (F.softplus(raw) + SMALLEST).expand_as(location)

    def extra_repr(self) -> str:
        """The value, for ``print(model)``."""
        return f"{self.value}"
