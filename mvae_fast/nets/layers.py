r"""FFJORD's time-conditioned linear layers, and two of PointFlow's (Yang et al., 2019,
https://arxiv.org/abs/1906.12320), called as ``layer(t, x)`` or ``layer(t, x, u)``.

Every one of them is affine in ``x`` at a fixed time, ``a = G(t) * (W(t) x + u) + C(t)``;
`mvae_fast.nets.fields` says where in the parameters these are. ``u`` (..., dim_out) is what a row's
context adds. The ``forward`` methods here are the definition that fields are tested against.

Parameter names and shapes are theirs, so that FFJORD's checkpoints load.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Hidden units of the hypernetwork of HyperLinear: FFJORD's value, part of its state_dict shapes.
HYPERNET_WIDTH = 8


def _plus(product: Tensor, u: Tensor | None) -> Tensor:
    return product if u is None else product + u


class TimedLayer(nn.Module):
    """What layers are made of: a matrix, or in `mvae_fast.nets.conv_layers` a convolution."""

    #: Of inputs, outputs and, for a convolution, the stride.
    affine: Callable[..., nn.Module] = nn.Linear

    def of_time(self, linear: nn.Module, t: Tensor) -> Tensor:
        """What time is to each unit."""
        return linear(t.reshape(1))


class IgnoreLinear(TimedLayer):
    """``W x + b``: time is ignored."""

    def __init__(self, dim_in: int, dim_out: int, *stride: int) -> None:
        super().__init__()
        self._layer = self.affine(dim_in, dim_out, *stride)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in)."""
        return _plus(self._layer(x), u)


class ConcatLinear(nn.Module):
    """``W [t; x] + b``: time is the first input, hence weight column 0."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self._layer = nn.Linear(dim_in + 1, dim_out)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in) at time ``t`` (0-dim)."""
        time = t.to(x.dtype).expand(*x.shape[:-1], 1)
        return _plus(self._layer(torch.cat((time, x), dim=-1)), u)


class ConcatLinear_v2(TimedLayer):
    """``W x + b + u t``: time moves the bias."""

    def __init__(self, dim_in: int, dim_out: int, *stride: int) -> None:
        super().__init__()
        self._layer = self.affine(dim_in, dim_out, *stride)
        self._hyper_bias = nn.Linear(1, dim_out, bias=False)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in) at time ``t`` (0-dim)."""
        return _plus(self._layer(x), u) + self.of_time(self._hyper_bias, t)


class SquashLinear(TimedLayer):
    """``(W x + b) * sigmoid(a t + c)``: time gates every unit."""

    def __init__(self, dim_in: int, dim_out: int, *stride: int) -> None:
        super().__init__()
        self._layer = self.affine(dim_in, dim_out, *stride)
        self._hyper = nn.Linear(1, dim_out)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in) at time ``t`` (0-dim)."""
        return _plus(self._layer(x), u) * torch.sigmoid(self.of_time(self._hyper, t))


class ConcatSquashLinear(TimedLayer):
    """``(W x + b) * sigmoid(a t + c) + u t``: time gates every unit and moves its bias."""

    def __init__(self, dim_in: int, dim_out: int, *stride: int) -> None:
        super().__init__()
        self._layer = self.affine(dim_in, dim_out, *stride)
        self._hyper_bias = nn.Linear(1, dim_out, bias=False)
        self._hyper_gate = nn.Linear(1, dim_out)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in) at time ``t`` (0-dim)."""
        gate = torch.sigmoid(self.of_time(self._hyper_gate, t))
        return _plus(self._layer(x), u) * gate + self.of_time(self._hyper_bias, t)


class ScaleLinear(TimedLayer):
    """``(W x + b) * (a t + c)``: PointFlow's, time scales every unit."""

    def __init__(self, dim_in: int, dim_out: int, *stride: int) -> None:
        super().__init__()
        self._layer = self.affine(dim_in, dim_out, *stride)
        self._hyper = nn.Linear(1, dim_out)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in) at time ``t`` (0-dim)."""
        return _plus(self._layer(x), u) * self.of_time(self._hyper, t)


class ConcatScaleLinear(TimedLayer):
    """``(W x + b) * (a t + c) + u t``: PointFlow's, time scales every unit and moves its bias."""

    def __init__(self, dim_in: int, dim_out: int, *stride: int) -> None:
        super().__init__()
        self._layer = self.affine(dim_in, dim_out, *stride)
        self._hyper_bias = nn.Linear(1, dim_out, bias=False)
        self._hyper_gate = nn.Linear(1, dim_out)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in) at time ``t`` (0-dim)."""
        gate = self.of_time(self._hyper_gate, t)
        return _plus(self._layer(x), u) * gate + self.of_time(self._hyper_bias, t)


class BlendLinear(TimedLayer):
    """``(1 - t) L_0(x) + t L_1(x)``: two layers, blended linearly in time."""

    def __init__(self, dim_in: int, dim_out: int, *stride: int) -> None:
        super().__init__()
        self._layer0 = self.affine(dim_in, dim_out, *stride)
        self._layer1 = self.affine(dim_in, dim_out, *stride)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in) at time ``t`` (0-dim)."""
        return _plus((1 - t) * self._layer0(x) + t * self._layer1(x), u)


class HyperLinear(nn.Module):
    """Weight and bias are the output of a small network of time, the bias first.

    The hypernetwork starts with zero weights and small random biases (FFJORD's initialisation), so
    the layer is constant in time until it is trained.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.dim_in = dim_in
        self.dim_out = dim_out
        self._hypernet = nn.Sequential(
            nn.Linear(1, HYPERNET_WIDTH),
            nn.Tanh(),
            nn.Linear(HYPERNET_WIDTH, dim_in * dim_out + dim_out),
        )
        for module in self._hypernet:
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
                nn.init.normal_(module.bias, 0.0, 0.01)

    def forward(self, t: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Apply the layer to ``x`` (..., dim_in) at time ``t`` (0-dim)."""
        parameters = self._hypernet(t.reshape(1))
        bias = parameters[: self.dim_out]
        weight = parameters[self.dim_out :].view(self.dim_out, self.dim_in)
        return _plus(F.linear(x, weight, bias), u)


#: How a layer depends on time, ``ODEnet(layer_type=...)``.
LayerType = Literal[
    "ignore", "hyper", "squash", "concat", "concat_v2", "concatsquash", "scale", "concatscale",
    "blend", "concatcoord",
]  # fmt: skip

#: The class of each. concatcoord differs from concat for images only.
LINEAR_LAYERS: dict[LayerType, Callable[[int, int], nn.Module]] = {
    "ignore": IgnoreLinear,
    "hyper": HyperLinear,
    "squash": SquashLinear,
    "concat": ConcatLinear,
    "concat_v2": ConcatLinear_v2,
    "concatsquash": ConcatSquashLinear,
    "scale": ScaleLinear,
    "concatscale": ConcatScaleLinear,
    "blend": BlendLinear,
    "concatcoord": ConcatLinear,
}
