"""Whether engines may read a net's weights in place of calling its modules.

Engines read an `ODEnet` and call nothing inside of it. That is the same only while every inner
module is exactly one that this library put there. A wrapper (LoRA, quantisation, sharding), a hook,
a ``forward`` of its own, or a weight that is no plain tensor makes it a net that must be called.

Some hooks only compute a weight before a call: pruning, ``weight_norm``, and ``spectral_norm`` in
eval mode. They do not stand in the way, `refresh` runs them. In training ``spectral_norm`` changes
with every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.modules.module as every_module
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mvae_fast import layers
from mvae_fast.nonlinearities import Pointwise, Swish
from mvae_fast.odenet import ODEnet

__all__ = ["altered", "refresh", "unreadable"]

# Under torch.compile and torch.export parameters are fake.
_PLAIN = (Tensor, nn.Parameter, FakeTensor)

_PARAMETRIZATIONS = (
    nn.ModuleDict,
    ParametrizationList,
    parametrizations._WeightNorm,
    parametrizations._Orthogonal,
)

# The linear modules inside of a layer m -> n: inputs, outputs, whether there is a bias.
Linears = Mapping[str, tuple[int, int, bool]]
_LINEARS: dict[type[nn.Module], Callable[[int, int], Linears]] = {
    layers.IgnoreLinear: lambda m, n: {"_layer": (m, n, True)},
    layers.ConcatLinear: lambda m, n: {"_layer": (m + 1, n, True)},
    layers.ConcatLinear_v2: lambda m, n: {"_layer": (m, n, True), "_hyper_bias": (1, n, False)},
    layers.SquashLinear: lambda m, n: {"_layer": (m, n, True), "_hyper": (1, n, True)},
    layers.ConcatSquashLinear: lambda m, n: {
        "_layer": (m, n, True),
        "_hyper_bias": (1, n, False),
        "_hyper_gate": (1, n, True),
    },
    layers.BlendLinear: lambda m, n: {"_layer0": (m, n, True), "_layer1": (m, n, True)},
    layers.HyperLinear: lambda m, n: {
        "0": (1, layers.HYPERNET_WIDTH, True),
        "2": (layers.HYPERNET_WIDTH, m * n + n, True),
    },
}

# As they are when this library is imported: a class can be patched as well as an instance.
_FORWARD: dict[type[nn.Module], Any] = {
    kind: kind.forward  # type: ignore[attr-defined]  # of every nn.Module
    for kind in (ODEnet, nn.Linear, nn.Sequential, nn.Tanh, Pointwise, Swish, *_LINEARS)
}


def unreadable(net: nn.Module, name: str = "net") -> str | None:
    """Why ``net`` must be called, or None where engines may read its weights instead.

    Args:
        net: The velocity.
        name: What to call it in the answer.

    Returns:
        The module, and what about it is foreign.

    Example:
        >>> from torch import nn
        >>> net = ODEnet((8,), (2,))
        >>> unreadable(net) is None
        True
        >>> net.layers[0]._layer = nn.Identity()
        >>> unreadable(net)
        'net.layers.0._layer is Identity, not Linear'
    """
    if not isinstance(net, ODEnet):
        return f"{name} is {type(net).__name__}, not ODEnet"
    chain = list(net.layers)
    kind = type(chain[0])
    if kind not in _LINEARS:
        return f"{name}.layers.0 is {kind.__name__}, not a linear layer of ODEnet"
    if len(chain) != len(net.widths) - 1:
        return f"{name} has {len(chain)} layers, not the {len(net.widths) - 1} it was built with"
    if len(net.activation_fns) != len(chain) - 1:
        return f"{name} has {len(net.activation_fns)} activation_fns, not {len(chain) - 1}"
    if (
        every_module._global_forward_hooks
        or every_module._global_forward_pre_hooks
        or every_module._global_backward_hooks
        or every_module._global_backward_pre_hooks
    ):
        return "every module has hooks (torch.nn.modules.module.register_module_...)"
    found = altered(net, name, _FORWARD[ODEnet])
    for i, layer in enumerate(chain):
        found = found or _layer(layer, f"{name}.layers.{i}", kind, net.widths[i : i + 2])
    kind = Swish if net.nonlinearity == "swish" else Pointwise
    for i, phi in enumerate(net.activation_fns):
        found = found or _other(phi, f"{name}.activation_fns.{i}", kind)
        if found is None and isinstance(phi, Pointwise) and phi.name != net.nonlinearity:
            found = f"{name}.activation_fns.{i} is {phi.name}, not {net.nonlinearity}"
    return found


def refresh(net: ODEnet) -> None:
    """Let the weight hooks inside of a readable net compute the weights that are about to be read.

    PyTorch runs them when a module is called, and engines call none.
    """
    for layer in net.layers:
        for linear in layer._modules.values():
            assert linear is not None
            for hook in linear._forward_pre_hooks.values():
                hook(linear, ())


def altered(module: nn.Module, name: str, forward: Any, weight_hooks: bool = False) -> str | None:
    """What makes a call of ``module`` more than one of ``forward``, or None.

    Args:
        module: Any module.
        name: What to call it in the answer.
        forward: The function that its calls should come to.
        weight_hooks: Allow those that `refresh` runs.
    """
    kind = type(module)
    if "forward" in module.__dict__ or kind.forward is not forward:
        return f"{name} has a forward of its own"
    if kind.__call__ is not nn.Module.__call__:
        return f"{name} has a __call__ of its own"
    before = module._forward_pre_hooks
    if before and not (weight_hooks and all(_computes(hook, module) for hook in before.values())):
        return f"{name} has forward pre-hooks"
    if module._forward_hooks:
        return f"{name} has forward hooks"
    if module._backward_pre_hooks or module._backward_hooks:
        return f"{name} has backward hooks"
    return None


def _computes(hook: Any, module: nn.Module) -> bool:
    """Whether a hook does nothing but compute a weight, the same one at every call."""
    if isinstance(hook, SpectralNorm):
        return not module.training
    return type(hook) is WeightNorm or (
        isinstance(hook, BasePruningMethod) and type(hook).__call__ is BasePruningMethod.__call__
    )


def _parametrizes(part: nn.Module) -> bool:
    """As `_computes`, for the newer parametrizations, which reading a weight runs."""
    if isinstance(part, parametrizations._SpectralNorm):
        return not part.training
    return isinstance(part, _PARAMETRIZATIONS)


def _other(module: nn.Module | None, name: str, kind: type[nn.Module]) -> str | None:
    if type(module) is not kind:
        return f"{name} is {type(module).__name__}, not {kind.__name__}"
    return altered(module, name, _FORWARD[kind])


def _layer(
    layer: nn.Module, name: str, kind: type[nn.Module], widths: tuple[int, ...]
) -> str | None:
    found = _other(layer, name, kind)
    if found is not None:
        return found
    linears, holder = _LINEARS[kind](*widths), layer
    if kind is layers.HyperLinear:
        hypernet, name = layer._modules.get("_hypernet"), f"{name}._hypernet"
        found = _other(hypernet, name, nn.Sequential)
        if found is not None:
            return found
        assert hypernet is not None
        holder = hypernet
        found = _other(holder._modules.get("1"), f"{name}.1", nn.Tanh)
        if len(holder._modules) != 3:
            found = f"{name} has {len(holder._modules)} modules, not 3"
    for child, shape in linears.items():
        found = found or _linear(holder._modules.get(child), f"{name}.{child}", *shape)
    return found


def _linear(module: nn.Module | None, name: str, m_in: int, m_out: int, biased: bool) -> str | None:
    kind = type(module)
    # Asked for the type first: where there is no parametrization, the answer takes 3 us.
    parametrized = kind is not nn.Linear and module is not None and is_parametrized(module)
    if module is None or (kind.__base__ if parametrized else kind) is not nn.Linear:
        return f"{name} is {kind.__name__}, not Linear"
    found = altered(module, name, _FORWARD[nn.Linear], weight_hooks=True)
    if found is not None:
        return found
    if parametrized:
        # Its weight keeps the shape, and would be computed if it were looked at.
        for part in module.get_submodule("parametrizations").modules():
            if not _parametrizes(part):
                return f"{name} has the parametrization {type(part).__name__}"
        return None
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None:
        # A weight hook put it there.
        weight = module.__dict__.get("weight")
    if bias is None:
        bias = module.__dict__.get("bias")
    for tensor, shape in ((weight, (m_out, m_in)), (bias, (m_out,) if biased else None)):
        if tensor is None or shape is None:
            if tensor is not shape:
                return f"{name} has {'no bias' if biased else 'a bias'}"
        elif type(tensor) not in _PLAIN:
            return f"{name} has a {type(tensor).__name__} for a parameter"
        elif tensor.shape != shape:
            return f"{name} has a parameter {tuple(tensor.shape)}, not {shape}"
    return None
