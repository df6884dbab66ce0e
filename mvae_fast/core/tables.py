r"""Layers and grid times -> the per-step tables that the engines integrate.

At a fixed time every layer of an `ODEnet` is ``a = G * (W y) + C``. A `Tables` holds these for all
steps of a solve, so that time, hypernetworks and a trainable end time stay outside of the engines:
their gradients arrive through the tables by autograd.

A new layer type needs one entry in ``_BUILDERS``, and one in `recognise`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast.nets import layers
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.nets.recognise import refresh

__all__ = ["Tables", "build_tables"]


@dataclass(frozen=True)
class Tables:
    """What an engine needs to know of an ODE net, for S steps.

    A leading axis of 1 means: the same for every step.

    Args:
        weight: (1 or S, P), all ``W_l`` (m_l, m_{l-1}) row-major, flattened and concatenated.
        gate: (1 or S, M), all ``G_l`` concatenated, or None where no layer is gated.
        bias: (1 or S, M), all ``C_l`` concatenated.
        widths: ``(m_0, ..., m_L)`` with ``m_0 = m_L = D``.
        nonlinearity: Applied after layers 1..L-1; swish has beta = 1 here.
        residual: The velocity is ``a_L - z`` instead of ``a_L``.
    """

    weight: Tensor
    gate: Tensor | None
    bias: Tensor
    widths: tuple[int, ...]
    nonlinearity: str
    residual: bool = False


# A layer as the builders see it: one of the classes of `layers`, whose parameters they read.
Layer = Any
Builder = Callable[[Sequence[Layer], Tensor], tuple[Tensor, Tensor | None, Tensor]]


def _flat(matrices: Sequence[Tensor]) -> Tensor:
    return torch.cat([matrix.reshape(1, -1) for matrix in matrices], dim=1)


def _weight(linear_layers: Sequence[nn.Linear]) -> Tensor:
    return _flat([linear.weight for linear in linear_layers])


def _bias(linear_layers: Sequence[nn.Linear]) -> Tensor:
    return torch.cat([linear.bias for linear in linear_layers])


def _linear_in_time(t: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    """``intercept + slope * t``: (M,), (M,) and times (S,) -> (S, M)."""
    return torch.addcmul(intercept, t.unsqueeze(1), slope)


def _gate(t: Tensor, hyper: Sequence[nn.Linear]) -> Tensor:
    slope = torch.cat([linear.weight for linear in hyper]).squeeze(1)
    return torch.sigmoid(_linear_in_time(t, slope, _bias(hyper)))


def _ignore(net: Sequence[Layer], t: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    linear = [layer._layer for layer in net]
    return _weight(linear), None, _bias(linear).unsqueeze(0)


def _concat(net: Sequence[Layer], t: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    matrices = [layer._layer.weight for layer in net]
    bias = _bias([layer._layer for layer in net])
    slope = torch.cat([matrix[:, 0] for matrix in matrices])
    return _flat([matrix[:, 1:] for matrix in matrices]), None, _linear_in_time(t, slope, bias)


def _concat_v2(net: Sequence[Layer], t: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    linear = [layer._layer for layer in net]
    slope = torch.cat([layer._hyper_bias.weight for layer in net]).squeeze(1)
    return _weight(linear), None, _linear_in_time(t, slope, _bias(linear))


def _squash(net: Sequence[Layer], t: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    linear = [layer._layer for layer in net]
    gate = _gate(t, [layer._hyper for layer in net])
    return _weight(linear), gate, gate * _bias(linear)


def _concatsquash(net: Sequence[Layer], t: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    linear = [layer._layer for layer in net]
    gate = _gate(t, [layer._hyper_gate for layer in net])
    slope = torch.cat([layer._hyper_bias.weight for layer in net]).squeeze(1)
    return _weight(linear), gate, _linear_in_time(t, slope, gate * _bias(linear))


def _blend(net: Sequence[Layer], t: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    start = [layer._layer0 for layer in net]
    stop = [layer._layer1 for layer in net]
    share = t.unsqueeze(1)
    weight = torch.lerp(_weight(start), _weight(stop), share)
    return weight, None, torch.lerp(_bias(start).unsqueeze(0), _bias(stop).unsqueeze(0), share)


def _hyper(net: Sequence[Layer], t: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    parameters = [layer._hypernet(t.unsqueeze(1)) for layer in net]
    pairs = [
        p.tensor_split((layer.dim_out,), dim=1) for p, layer in zip(parameters, net, strict=True)
    ]
    weight = torch.cat([matrix for _, matrix in pairs], dim=1)
    return weight, None, torch.cat([bias for bias, _ in pairs], dim=1)


_BUILDERS: dict[type[nn.Module], Builder] = {
    layers.IgnoreLinear: _ignore,
    layers.ConcatLinear: _concat,
    layers.ConcatLinear_v2: _concat_v2,
    layers.SquashLinear: _squash,
    layers.ConcatSquashLinear: _concatsquash,
    layers.BlendLinear: _blend,
    layers.HyperLinear: _hyper,
}


def build_tables(diffeq: ODEnet, t: Tensor, residual: bool = False) -> Tables:
    """The tables of ``diffeq`` at the times ``t``, differentiable in its parameters and in ``t``.

    Args:
        diffeq: An ODE net that is readable (`mvae_fast.nets.recognise`).
        t: (S,), the time at which each step evaluates the net.
        residual: Whether the velocity is ``f(t, z) - z``.

    Returns:
        The tables; leading axes are 1 where nothing depends on time, else S.

    Example:
        >>> import torch
        >>> from mvae_fast.nets.odenet import ODEnet
        >>> tables = build_tables(ODEnet((5,), (2,), layer_type="squash"), torch.zeros(3))
        >>> tuple(tables.weight.shape), tuple(tables.bias.shape)
        ((1, 20), (3, 7))
    """
    refresh(diffeq)
    net: Sequence[Layer] = list(diffeq.layers)
    weight, gate, bias = _BUILDERS[type(net[0])](net, t)
    if diffeq.nonlinearity == "swish" and len(net) > 1:
        gate, bias = _fold_swish(diffeq, gate, bias)
    return Tables(weight, gate, bias, diffeq.widths, diffeq.nonlinearity, residual)


def _fold_swish(diffeq: ODEnet, gate: Tensor | None, bias: Tensor) -> tuple[Tensor, Tensor]:
    r"""Move the learned beta of swish into gates and biases, so that engines know beta = 1 only.

    With ``phi_b(a) = a sigmoid(b a) = phi_1(b a) / b``: layer l is scaled by ``b_l`` and the next
    one divided by it.
    """
    beta = [_away_from_zero(activation.beta) for activation in _activations(diffeq)]
    widths = diffeq.widths
    one = beta[0].new_ones(())
    outer = torch.cat([b.expand(m) for b, m in zip([*beta, one], widths[1:], strict=True)])
    inner = torch.cat([b.expand(m) for b, m in zip([one, *beta], widths[1:], strict=True)])
    scale = outer / inner
    return scale.unsqueeze(0) if gate is None else gate * scale, bias * outer


def _activations(diffeq: ODEnet) -> list[Any]:
    return list(diffeq.activation_fns)


def _away_from_zero(beta: Tensor) -> Tensor:
    # phi_1(b a) / b is 0/0 at b = 0. |b| >= sqrt(eps) keeps both errors at the level of sqrt(eps):
    # that of the value (a^2 |b| / 4) and that of the gradient in b (cancellation, eps a / b). The
    # gradient passes straight through, so that a beta of 0 can still be learned away from.
    floor = torch.finfo(beta.dtype).eps ** 0.5
    value = beta.detach()
    return beta + (torch.copysign(value.abs().clamp(min=floor), value) - value)
