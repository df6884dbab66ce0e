"""FFJORD's time-conditioned convolutions, called as ``layer(t, x)`` with images (B, C, H, W).

No engine knows them: a net of them is integrated step by step through torchdiffeq. Most are a layer
of `mvae_fast.nets.layers` with a convolution for its matrix. Parameter names, shapes and values are
those of FFJORD, so that its checkpoints load. Two of FFJORD's layers cannot
run: ``concat_v2`` has a wrong call of ``super``, ``squash`` an input channel too many. Here they
do.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae_fast.nets import layers

#: Strides and what they mean: kernel, stride, and whether the image grows.
STRIDES: dict[int, tuple[int, int, bool]] = {1: (3, 1, False), 2: (4, 2, False), -2: (4, 2, True)}


def _convolution(dim_in: int, dim_out: int, stride: int) -> nn.Conv2d | nn.ConvTranspose2d:
    kernel, step, grows = STRIDES[stride]
    kind = nn.ConvTranspose2d if grows else nn.Conv2d
    return kind(dim_in, dim_out, kernel, step, padding=1)


class TimedConvolution(layers.TimedLayer):
    """What makes a layer with a matrix one with a convolution: its units are channels."""

    affine = staticmethod(_convolution)

    def of_time(self, linear: nn.Module, t: Tensor) -> Tensor:
        return super().of_time(linear, t).view(-1, 1, 1)


class IgnoreConv2d(TimedConvolution, layers.IgnoreLinear):
    """``W * x + b``: time is ignored."""


class ConcatConv2d(nn.Module):
    """``W * [t; x] + b``: time is the first channel."""

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        super().__init__()
        self._layer = _convolution(dim_in + 1, dim_out, stride)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` (B, dim_in, H, W) at time ``t`` (0-dim)."""
        time = t.to(x.dtype).expand(x.shape[0], 1, *x.shape[2:])
        return self._layer(torch.cat((time, x), dim=1))


class ConcatCoordConv2d(nn.Module):
    """``W * [x; t; i; j] + b``: time, row and column are channels."""

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        super().__init__()
        self._layer = _convolution(dim_in + 3, dim_out, stride)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` (B, dim_in, H, W) at time ``t`` (0-dim)."""
        batch, _, height, width = x.shape
        rows = torch.arange(height, dtype=x.dtype, device=x.device).view(height, 1)
        columns = torch.arange(width, dtype=x.dtype, device=x.device)
        more = (axis.expand(batch, 1, height, width) for axis in (t.to(x.dtype), rows, columns))
        return self._layer(torch.cat((x, *more), dim=1))


class ConcatConv2d_v2(TimedConvolution, layers.ConcatLinear_v2):
    """``W * x + b + u t``: time moves the bias."""


class SquashConv2d(TimedConvolution, layers.SquashLinear):
    """``(W * x + b) sigmoid(a t + c)``: time gates every channel."""


class ConcatSquashConv2d(TimedConvolution, layers.ConcatSquashLinear):
    """``(W * x + b) sigmoid(a t + c) + u t``: time gates every channel and moves its bias."""


class ScaleConv2d(TimedConvolution, layers.ScaleLinear):
    """``(W * x + b) (a t + c)``: time scales every channel."""


class ConcatScaleConv2d(TimedConvolution, layers.ConcatScaleLinear):
    """``(W * x + b) (a t + c) + u t``: time scales every channel and moves its bias."""


class BlendConv2d(TimedConvolution, layers.BlendLinear):
    """``(1 - t) L_0(x) + t L_1(x)``: two convolutions, blended linearly in time."""


class HyperConv2d(nn.Module):
    """Weight and bias are affine in time.

    As in FFJORD the bias is the first ``dim_out`` entries of the weight: both are read from the
    start of the parameters, whose last ``dim_out`` entries nothing reads.
    """

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        super().__init__()
        kernel, self.stride, self.grows = STRIDES[stride]
        pair = (dim_in, dim_out) if self.grows else (dim_out, dim_in)
        self.shape = (*pair, kernel, kernel)
        self.dim_out = dim_out
        self._hypernet = nn.Linear(1, dim_in * dim_out * kernel**2 + dim_out)
        nn.init.zeros_(self._hypernet.weight)
        nn.init.normal_(self._hypernet.bias, 0.0, 0.01)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` (B, dim_in, H, W) at time ``t`` (0-dim)."""
        parameters = self._hypernet(t.reshape(1))
        bias = parameters[: self.dim_out]
        weight = parameters[: -self.dim_out].view(self.shape)
        convolve = F.conv_transpose2d if self.grows else F.conv2d
        return convolve(x, weight, bias, stride=self.stride, padding=1)


#: ``ODEnet(conv=True, layer_type=...)`` -> layer class.
CONV_LAYERS: dict[layers.LayerType, Callable[[int, int, int], nn.Module]] = {
    "ignore": IgnoreConv2d,
    "hyper": HyperConv2d,
    "squash": SquashConv2d,
    "concat": ConcatConv2d,
    "concat_v2": ConcatConv2d_v2,
    "concatsquash": ConcatSquashConv2d,
    "scale": ScaleConv2d,
    "concatscale": ConcatScaleConv2d,
    "blend": BlendConv2d,
    "concatcoord": ConcatCoordConv2d,
}
