"""Parameters of a flow that are free, or amortised: a linear function of a condition."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Parameters(nn.Module):
    r"""Named tensors :math:`\theta`, free or :math:`\theta(c) = A c + a`.

    Both come with a leading axis of rows, 1 where they are free, so that a flow is written once.

    Args:
        shapes: Shape of each tensor by name.
        cond_dim: Size C of the condition; 0 for free parameters.
        bounds: By name: free parameters start uniform in ``[-bound, bound]``, amortised ones as
            ``nn.Linear`` does times the bound, which is as large for a condition of unit size.

    Example:
        >>> shapes, bounds = {"w": (4, 3), "b": (4,)}, {"w": 0.1, "b": 0.0}
        >>> Parameters(shapes, 0, bounds)(None)["w"].shape
        torch.Size([1, 4, 3])
        >>> Parameters(shapes, 7, bounds)(torch.zeros(5, 7))["w"].shape
        torch.Size([5, 4, 3])
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], cond_dim: int, bounds: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.shapes = dict(shapes)
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        scale = torch.cat(
            [torch.full(shape, float(bounds[k])).flatten() for k, shape in shapes.items()]
        )
        if cond_dim:
            self.linear = nn.Linear(cond_dim, len(scale))
            with torch.no_grad():
                self.linear.weight.mul_(scale.unsqueeze(1))
                self.linear.bias.mul_(scale)
        else:
            self.free = nn.Parameter(torch.empty(len(scale)).uniform_(-1, 1) * scale)

    def forward(self, cond: Tensor | None) -> dict[str, Tensor]:
        """The tensors, (1, *shape) each, or (B, *shape) of ``cond`` (B, C)."""
        flat = self.free.unsqueeze(0) if cond is None else self.linear(cond)
        parts = flat.split(self.sizes, dim=1)
        return {
            name: part.view(len(flat), *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
