r"""An `ODEnet` as data.

Layer types are known here alone. Those of FFJORD are columns of their parameters over the features
1 and t; blend and hyper, whose weights depend on time, and PointFlow's, whose gates are no
sigmoids, are tables. A new one needs one entry in
``_LAYERS`` or ``_TABLES``, and one in `mvae_fast.nets.recognise`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast.core.field import Column, Field, Layer, Structure
from mvae_fast.core.tables import Tables
from mvae_fast.nets import layers
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.nets.readable import Readable
from mvae_fast.nets.recognise import refresh, weight_and_bias

# The modules of a layer whose weights and biases are its numbers, in this order, and where these
# are: from the index of the first one and the inputs of the layer.
_LAYERS: dict[type[nn.Module], tuple[tuple[str, ...], Callable[[int, int], Layer]]] = {
    layers.IgnoreLinear: (("_layer",), lambda i, m: Layer(Column(i, 0, m), (Column(i + 1),))),
    # Time is the first input: column 0 of the weight.
    layers.ConcatLinear: (
        ("_layer",),
        lambda i, m: Layer(Column(i, 1, m + 1), (Column(i + 1), Column(i, 0, m + 1))),
    ),
    layers.ConcatLinear_v2: (
        ("_layer", "_hyper_bias"),
        lambda i, m: Layer(Column(i, 0, m), (Column(i + 1), Column(i + 2))),
    ),
    layers.SquashLinear: (
        ("_layer", "_hyper"),
        lambda i, m: Layer(Column(i, 0, m), (Column(i + 1),), (Column(i + 3), Column(i + 2))),
    ),
    layers.ConcatSquashLinear: (
        ("_layer", "_hyper_bias", "_hyper_gate"),
        lambda i, m: Layer(
            Column(i, 0, m), (Column(i + 1),), (Column(i + 4), Column(i + 3)), (None, Column(i + 2))
        ),
    ),
}


def field_of(
    net: ODEnet | Readable, t: Tensor, context: Tensor | None = None, *, residual: bool = False
) -> Field | Tables:
    """The velocity of a net at the times of a solve, differentiable in all that it is made of.

    Args:
        net: One that is readable (`mvae_fast.nets.recognise`).
        t: (E,), the times of the evaluations.
        context: (B, C), for a net with a context.
        residual: Whether the velocity is ``f(t, z) - z``.

    Example:
        >>> import torch
        >>> tables = field_of(ODEnet((5,), (2,), layer_type="squash"), torch.zeros(3)).tables()
        >>> tuple(tables.weight.shape), tuple(tables.bias.shape)
        ((1, 20), (3, 7))
    """
    if isinstance(net, Readable):
        net.check_context(context)
        return net.field(t, context, residual)
    rows = net.rows_of(context)
    kind: Any = type(net._modules["layers"][0])  # type: ignore[index]  # see below
    field: Field | Tables
    if kind in _TABLES:
        for module in net.layers.modules():
            refresh(module)
        weight, gate, bias = _TABLES[kind](list(net.layers), t)
        name = _name(net.nonlinearity)
        field = Tables(weight, gate, bias, net.widths, name, residual, rows)
    else:
        tensors = _tensors(net, _LAYERS[kind][0])
        structure = _structure(kind, net.widths, net.nonlinearity)
        field = Field(structure, tensors, t, rows, (), residual)
    if net.nonlinearity == "swish" and len(net.layers) > 1:
        return _fold_swish(net, field.tables())
    return field


def _name(nonlinearity: str) -> str:
    return "silu" if nonlinearity == "swish" else nonlinearity


def _structure(kind: Any, widths: tuple[int, ...], nonlinearity: str) -> Structure:
    # torch.compile warns of every cache that it looks through.
    if torch.compiler.is_compiling():
        return _make_structure(kind, widths, nonlinearity)
    return _cached_structure(kind, widths, nonlinearity)


def _make_structure(kind: type[nn.Module], widths: tuple[int, ...], nonlinearity: str) -> Structure:
    names, layer = _LAYERS[kind]
    # Every linear module has a weight and, but for the slopes of biases in time, a bias.
    each = 2 * len(names) - ("_hyper_bias" in names)
    placed = (layer(i * each, m) for i, m in enumerate(widths[:-1]))
    return Structure(widths, tuple(placed), _name(nonlinearity))


_cached_structure = cache(_make_structure)


def _tensors(net: ODEnet, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    # By the dictionaries of modules: an attribute takes half a microsecond, and there are many.
    tensors = []
    for layer in net._modules["layers"]._modules.values():  # type: ignore[union-attr]
        modules = layer._modules  # type: ignore[union-attr]
        for name in names:
            weight, bias = weight_and_bias(modules[name])
            tensors.append(weight)
            if bias is not None:
                tensors.append(bias)
    return tuple(tensors)


def _flat(matrices: Sequence[Tensor]) -> Tensor:
    return torch.cat([matrix.reshape(1, -1) for matrix in matrices], dim=1)


# Weight, gate and bias at times.
_Made = tuple[Tensor, Tensor | None, Tensor]


def _scale(net: Sequence[Any], t: Tensor) -> _Made:
    gate = torch.cat([layer._hyper(t.unsqueeze(1)) for layer in net], dim=1)
    return _flat([layer._layer.weight for layer in net]), gate, gate * _biases(net)


def _concat_scale(net: Sequence[Any], t: Tensor) -> _Made:
    column = t.unsqueeze(1)
    gate, moved = (
        torch.cat([getattr(layer, name)(column) for layer in net], dim=1)
        for name in ("_hyper_gate", "_hyper_bias")
    )
    weight = _flat([layer._layer.weight for layer in net])
    return weight, gate, torch.addcmul(moved, gate, _biases(net))


def _biases(net: Sequence[Any]) -> Tensor:
    return torch.cat([layer._layer.bias for layer in net])


def _blend(net: Sequence[Any], t: Tensor) -> _Made:
    share = t.unsqueeze(1)
    ends = [[getattr(layer, name) for layer in net] for name in ("_layer0", "_layer1")]
    w_0, w_1 = (_flat([linear.weight for linear in end]) for end in ends)
    b_0, b_1 = (_flat([linear.bias for linear in end]) for end in ends)
    return torch.lerp(w_0, w_1, share), None, torch.lerp(b_0, b_1, share)


def _hyper(net: Sequence[Any], t: Tensor) -> _Made:
    parameters = [layer._hypernet(t.unsqueeze(1)) for layer in net]
    pairs = [
        p.tensor_split((layer.dim_out,), dim=1) for p, layer in zip(parameters, net, strict=True)
    ]
    weight = torch.cat([matrix for _, matrix in pairs], dim=1)
    return weight, None, torch.cat([bias for bias, _ in pairs], dim=1)


_TABLES: dict[type[nn.Module], Callable[[Sequence[Any], Tensor], _Made]] = {
    layers.ScaleLinear: _scale,
    layers.ConcatScaleLinear: _concat_scale,
    layers.BlendLinear: _blend,
    layers.HyperLinear: _hyper,
}


def _fold_swish(net: ODEnet, tables: Tables) -> Tables:
    r"""Move the learned beta of swish into its neighbours, so that engines know beta = 1 only.

    With ``phi_b(a) = a sigmoid(b a) = phi_1(b a) / b``: layer l's gate and bias are scaled by
    ``b_l`` and the next weight divided by it. Not the next gate, which what context adds goes
    through, too: of what it would add to the gradient of ``b`` all would cancel.
    """
    beta = [_away_from_zero(activation.beta) for activation in net.activation_fns]  # type: ignore[arg-type]
    one, widths = beta[0].new_ones(()), net.widths
    scale = torch.cat([b.expand(m) for b, m in zip([*beta, one], widths[1:], strict=True)])
    sizes = [m_out * m_in for m_in, m_out in pairwise(widths)]
    pieces = tables.weight.split(sizes, dim=1)
    weight = torch.cat([w / b for w, b in zip(pieces, [one, *beta], strict=True)], dim=1)
    gate = scale.unsqueeze(0) if tables.gate is None else tables.gate * scale
    return replace(tables, weight=weight, gate=gate, bias=tables.bias * scale)


def _away_from_zero(beta: Tensor) -> Tensor:
    # phi_1(b a) / b is 0/0 at b = 0. |b| >= sqrt(eps) keeps both errors at the level of sqrt(eps):
    # that of the value (a^2 |b| / 4) and that of the gradient in b (cancellation, eps a / b). The
    # gradient passes straight through, so that a beta of 0 can still be learned away from.
    floor = torch.finfo(beta.dtype).eps ** 0.5
    value = beta.detach()
    return beta + (torch.copysign(value.abs().clamp(min=floor), value) - value)
