"""Nonlinearities: value and first derivative. The first seven are those of FFJORD."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor


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


# Both kinds of gelu are 0 in float64 from here on, where a factor is still to be finite: the limit
# at -inf would be inf * 0, and so would be the terms of a derivative.
_GELU_END = 40.0
_GELU_TANH = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715
# Of Klambauer et al. 2017, as in torch.
_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717
_LEAK = 0.01


def _normal_cdf(a: Tensor) -> Tensor:
    # Not 1 + erf, which cancels for negative a.
    return torch.special.erfc(a * -math.sqrt(0.5)) * 0.5


def _gelu(a: Tensor) -> Tensor:
    return a.clamp(min=-_GELU_END) * _normal_cdf(a)


def _gelu_derivative(a: Tensor) -> Tensor:
    near = a.clamp(-_GELU_END, _GELU_END)
    density = torch.exp(near.square() * -0.5) / math.sqrt(2 * math.pi)
    return _normal_cdf(near) + near * density


def _gelu_tanh(a: Tensor) -> Tensor:
    # (1 + tanh(g / 2)) / 2 = sigmoid(g), without the cancellation for negative a.
    near = a.clamp(-_GELU_END, _GELU_END)
    gate = torch.sigmoid(_GELU_TANH * (near + _CUBIC * near**3))
    return a.clamp(min=-_GELU_END) * gate


def _gelu_tanh_derivative(a: Tensor) -> Tensor:
    near = a.clamp(-_GELU_END, _GELU_END)
    square = near.square()
    gate = torch.sigmoid(_GELU_TANH * near * (1 + _CUBIC * square))
    slope = _GELU_TANH * (1 + 3 * _CUBIC * square)
    return gate + near * slope * gate * (1 - gate)


def _selu_derivative(a: Tensor) -> Tensor:
    return _SELU_SCALE * torch.where(a > 0, torch.ones_like(a), _SELU_ALPHA * a.clamp(max=0).exp())


def _leaky_relu_derivative(a: Tensor) -> Tensor:
    one = torch.ones_like(a)
    return torch.where(a > 0, one, _LEAK * one)


def _sigmoid_derivative(a: Tensor) -> Tensor:
    # 1 - sigmoid(a) would cancel.
    return torch.sigmoid(a) * torch.sigmoid(-a)


_FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "softplus": (_softplus, torch.sigmoid),
    "tanh": (torch.tanh, lambda a: 1 - torch.tanh(a).square()),
    "relu": (torch.relu, lambda a: (a > 0).to(a.dtype)),
    "elu": (F.elu, _elu_derivative),
    "swish": (F.silu, _swish_derivative),
    "silu": (F.silu, _swish_derivative),
    "square": (torch.square, lambda a: 2 * a),
    "identity": (lambda a: a, torch.ones_like),
    "gelu": (_gelu, _gelu_derivative),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_derivative),
    "selu": (F.selu, _selu_derivative),
    "leaky_relu": (lambda a: F.leaky_relu(a, _LEAK), _leaky_relu_derivative),
    "sigmoid": (torch.sigmoid, _sigmoid_derivative),
    "sin": (torch.sin, torch.cos),
}

#: What ``ODEnet(nonlinearity=...)`` takes.
Nonlinearity = Literal[
    "softplus", "tanh", "relu", "elu", "swish", "silu", "square", "identity", "gelu", "gelu_tanh",
    "selu", "leaky_relu", "sigmoid", "sin",
]  # fmt: skip
NONLINEARITIES: tuple[Nonlinearity, ...] = get_args(Nonlinearity)


def value(name: str, a: Tensor) -> Tensor:
    """``phi(a)``; swish with beta = 1."""
    return _FUNCTIONS[name][0](a)


def derivative(name: str, a: Tensor) -> Tensor:
    """``phi'(a)``; swish with beta = 1."""
    return _FUNCTIONS[name][1](a)
