"""The C++ engine for a net given by its layers' parameters: no tables in between.

``mvae_fast::integrate_net`` makes the tables of the common layer types inside and returns the
gradients of the parameters themselves. For one step, or a few rows, that saves most of the time of
a solve, which is PyTorch's dispatches. Its schema is defined in ``csrc/integrate_net.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast.core.problem import Method, Solution
from mvae_fast.engines import cpp as ops
from mvae_fast.engines import table_ops
from mvae_fast.nets import layers
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.nets.recognise import refresh

__all__ = ["applies", "integrate"]

# Number in the op, and the modules of a layer whose weights and biases are its parameters there, in
# this order.
_LAYERS: dict[type[nn.Module], tuple[int, tuple[str, ...]]] = {
    layers.IgnoreLinear: (0, ("_layer",)),
    layers.ConcatLinear: (1, ("_layer",)),
    layers.ConcatLinear_v2: (2, ("_layer", "_hyper_bias")),
    layers.SquashLinear: (3, ("_layer", "_hyper")),
    layers.ConcatSquashLinear: (4, ("_layer", "_hyper_bias", "_hyper_gate")),
}


def applies(net: ODEnet) -> bool:
    """Whether `integrate` knows the layers of ``net``, one for which tables can be built.

    Not under torch.func and forward-mode AD, which the op of the tables is made for; nor with the
    learned slope of swish, which the tables take up.
    """
    known = type(net.layers[0]) in _LAYERS and not (
        net.nonlinearity == "swish" and len(net.layers) > 1
    )
    return known and ops.why_missing() is None and not table_ops.transformed()


def integrate(
    z: Tensor,
    t: Tensor,
    h: Tensor,
    net: ODEnet,
    method: Method,
    *,
    residual: bool = False,
    exact: bool = False,
    probes: Tensor | None = None,
) -> Solution:
    """Take all steps in C++.

    Args:
        z: (B, D), the start state.
        t: (S * R,), the times of the evaluations, R a step.
        h: (S,), the step sizes.
        net: One that `applies`.
        method: How to integrate it.
        residual: The velocity is ``f - z``.
        exact: The exact trace, of up to two hidden layers.
        probes: (K, B, D), or None; with ``exact`` for the penalty ``"frobenius"`` only.

    Returns:
        As `mvae_fast.integrate.integrate`.
    """
    refresh(net)
    number, names = _LAYERS[type(net.layers[0])]
    linears = [getattr(layer, name) for layer in net.layers for name in names]
    parameters = [x for linear in linears for x in (linear.weight, linear.bias) if x is not None]
    statics = (
        net.widths,
        number,
        exact,
        table_ops.nonlinearity_number(net.nonlinearity),
        residual,
        *table_ops.method_arguments(method, z),
    )
    tensors = [x.contiguous() for x in (z, t, h)]
    parameters = [parameter.contiguous() for parameter in parameters]
    probes = table_ops.dense_probes(probes)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (*tensors, *parameters)):
        return Solution(*_IntegrateNet.apply(*tensors, probes, statics, *parameters))
    *results, _ = _integrate_net(*tensors, parameters, probes, *statics, False)
    return Solution(*results)


def _integrate_net(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.ops.mvae_fast.integrate_net.default(*args)


def _integrate_net_backward(*args: Any) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    return torch.ops.mvae_fast.integrate_net_backward.default(*args)


class _IntegrateNet(torch.autograd.Function):
    """The gradient of the op. Registered on it, PyTorch would flatten and rebuild the list of
    parameters on every call: 250 us, when the whole step need take no more."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        t: Tensor,
        h: Tensor,
        probes: Tensor | None,
        statics: tuple[Any, ...],
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        *results, states = _integrate_net(z, t, h, list(parameters), probes, *statics, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, states, t, h, probes, *parameters)
        ctx.statics = statics
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        z, states, t, h, probes, *parameters = ctx.saved_tensors
        needed = ctx.needs_input_grad
        parameter_grads = needed[1] or any(needed[5:])
        grad_outputs = table_ops.dense_gradients(z, ctx.statics, grads)
        settings = (ctx.statics, parameter_grads)
        args: tuple[Any, ...] = (*grad_outputs, z, states, t, h, probes, settings, *parameters)
        # Grad mode is on in a backward only under create_graph.
        run = _IntegrateNetBackward.apply if torch.is_grad_enabled() else _flat_backward
        grad_z, grad_t, grad_h, *grad_parameters = run(*args)
        if not parameter_grads:
            return grad_z, None, grad_h, None, None, *(None,) * len(parameters)
        return grad_z, grad_t, grad_h, None, None, *grad_parameters


def _flat_backward(
    grad_z_out: Tensor,
    grad_logp_out: Tensor,
    grad_penalty_out: Tensor,
    z: Tensor,
    states: Tensor,
    t: Tensor,
    h: Tensor,
    probes: Tensor | None,
    settings: tuple[tuple[Any, ...], bool],
    *parameters: Tensor,
) -> tuple[Tensor, ...]:
    """The backward op without its lists: autograd looks for no tensors in a list, and would take
    the gradients for constants where only parameters need any."""
    statics, parameter_grads = settings
    grad_outputs = (grad_z_out, grad_logp_out, grad_penalty_out)
    args = (*grad_outputs, z, states, t, h, list(parameters), probes, *statics, parameter_grads)
    *grads, grad_parameters = _integrate_net_backward(*args)
    return *grads, *grad_parameters


class _IntegrateNetBackward(torch.autograd.Function):
    """The backward under create_graph: refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _flat_backward(*args)

    backward = staticmethod(table_ops.refuse_double_backward)


def _fake_integrate_net(
    z: Tensor,
    t: Tensor,
    h: Tensor,
    parameters: Sequence[Tensor],
    probes: Tensor | None,
    widths: list[int],
    layer: int,
    exact: bool,
    nonlinearity: int,
    residual: bool,
    a: list[float],
    b: list[float],
    outputs: list[int],
    checkpoint_every: int,
    penalties: int,
    operands: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return table_ops.fake_outputs(z, h, outputs, checkpoint_every, penalties, save)


def _fake_integrate_net_backward(
    grad_z_out: Tensor,
    grad_logp_out: Tensor,
    grad_penalty_out: Tensor,
    z: Tensor,
    states: Tensor,
    t: Tensor,
    h: Tensor,
    parameters: Sequence[Tensor],
    probes: Tensor | None,
    widths: list[int],
    layer: int,
    exact: bool,
    nonlinearity: int,
    residual: bool,
    a: list[float],
    b: list[float],
    outputs: list[int],
    checkpoint_every: int,
    penalties: int,
    operands: int,
    parameter_grads: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    wanted = list(parameters) if parameter_grads else []
    return (
        z.new_empty(z.shape),
        t.new_empty(t.shape if parameter_grads else (0,)),
        h.new_empty(h.shape),
        [parameter.new_empty(parameter.shape) for parameter in wanted],
    )


_FAKES: dict[str, Callable[..., Any]] = {
    "integrate_net": _fake_integrate_net,
    "integrate_net_backward": _fake_integrate_net_backward,
}
if ops.has(**_FAKES):
    for _name, _fake in _FAKES.items():
        torch.library.register_fake(f"mvae_fast::{_name}", _fake)
