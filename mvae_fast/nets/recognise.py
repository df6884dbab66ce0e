"""Whether engines may read a net's weights in place of calling its modules.

Engines read an `ODEnet` and call nothing inside of it. That is the same only while every inner
module is exactly one that this library put there. A wrapper (LoRA, quantisation, sharding), a hook,
a ``forward`` of its own, or a weight that is no plain tensor makes it a net that must be called.

Some hooks only compute a weight before a call: pruning, ``weight_norm``, and ``spectral_norm`` in
eval mode. They do not stand in the way, `refresh` runs them. In training ``spectral_norm`` changes
with every call.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.modules.module as every_module
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils.module_tracker import ModuleTracker

from mvae_fast.nets import layers
from mvae_fast.nets.activations import Pointwise, Swish
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.nets.readable import Readable

# Under torch.compile and torch.export parameters are fake.
_PLAIN = (Tensor, nn.Parameter, FakeTensor)

_PARAMETRIZATIONS = (
    nn.ModuleDict,
    ParametrizationList,
    parametrizations._WeightNorm,
    parametrizations._Orthogonal,
)

# The linear modules inside of a layer m -> n: name, inputs, outputs, whether there is a bias.
Linears = tuple[tuple[str, int, int, bool], ...]
_LINEARS: dict[type[nn.Module], Callable[[int, int], Linears]] = {
    layers.IgnoreLinear: lambda m, n: (("_layer", m, n, True),),
    layers.ConcatLinear: lambda m, n: (("_layer", m + 1, n, True),),
    layers.ConcatLinear_v2: lambda m, n: (("_layer", m, n, True), ("_hyper_bias", 1, n, False)),
    layers.SquashLinear: lambda m, n: (("_layer", m, n, True), ("_hyper", 1, n, True)),
    layers.ConcatSquashLinear: lambda m, n: (
        ("_layer", m, n, True),
        ("_hyper_bias", 1, n, False),
        ("_hyper_gate", 1, n, True),
    ),
    layers.ScaleLinear: lambda m, n: (("_layer", m, n, True), ("_hyper", 1, n, True)),
    layers.ConcatScaleLinear: lambda m, n: (
        ("_layer", m, n, True),
        ("_hyper_bias", 1, n, False),
        ("_hyper_gate", 1, n, True),
    ),
    layers.BlendLinear: lambda m, n: (("_layer0", m, n, True), ("_layer1", m, n, True)),
    layers.HyperLinear: lambda m, n: (
        ("0", 1, layers.HYPERNET_WIDTH, True),
        ("2", layers.HYPERNET_WIDTH, m * n + n, True),
    ),
}

# As they are when this library is imported: a class can be patched as well as an instance.
_FORWARD: dict[type[nn.Module], Any] = {
    kind: kind.forward  # type: ignore[attr-defined]  # of every nn.Module
    for kind in (ODEnet, nn.Linear, nn.Sequential, nn.Tanh, Pointwise, Swish, *_LINEARS)
}

_EVERYWHERE = "every module has hooks (torch.nn.modules.module.register_module_...)"


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
    # The names of modules are put together only where something is wrong: this runs every solve.
    if not torch.compiler.is_compiling() and _plain(net):
        return None
    if isinstance(net, Readable):
        return _EVERYWHERE if _hooks_everywhere() else net.unreadable(name)
    if not isinstance(net, ODEnet):
        # What others wrote is read by a declaration: their code could do anything.
        readable = any(isinstance(part, nn.Sequential) for part in net.modules())
        remedy = " (FastCNF.from_module reads one of linear layers)" if readable else ""
        return f"{name}{is_not(net, ODEnet)}{remedy}"
    # By the dictionaries of modules: an attribute takes half a microsecond, and there are many.
    parts: Any = net._modules
    chain = list(parts["layers"]._modules.values())
    activations, widths = list(parts["activation_fns"]._modules.values()), net.widths
    kind = type(chain[0])
    if kind not in _LINEARS:
        return f"{name}.layers.0 is {kind.__name__}, not a linear layer of ODEnet"
    if len(chain) != len(widths) - 1:
        return f"{name} has {len(chain)} layers, not the {len(widths) - 1} it was built with"
    if len(activations) != len(chain) - 1:
        return f"{name} has {len(activations)} activation_fns, not {len(chain) - 1}"
    if _hooks_everywhere():
        return _EVERYWHERE
    found = altered(net, _FORWARD[ODEnet])
    if found is not None:
        return f"{name}{found}"
    for i, layer in enumerate(chain):
        found = _layer(layer, kind, widths[i], widths[i + 1])
        if found is not None:
            return f"{name}.layers.{i}{found}"
    for i, activation in enumerate(activations):
        found = _activation(activation, net.nonlinearity)
        if found is not None:
            return f"{name}.activation_fns.{i}{found}"
    return None


def _plain(net: nn.Module) -> bool:
    """Whether everything is as `ODEnet` made it, without a weight that is computed: the common
    case, in one pass that names nothing (6 us where `unreadable` takes 20)."""
    if type(net) is not ODEnet:
        return False
    parts: Any = net._modules
    layers_, activations = parts["layers"]._modules, parts["activation_fns"]._modules
    widths, nonlinearity = net.widths, net.nonlinearity
    chain, between = list(layers_.values()), list(activations.values())
    if len(chain) != len(widths) - 1 or len(between) != len(chain) - 1 or _hooks_everywhere():
        return False
    kind: Any = type(chain[0])
    phi: Any = Swish if nonlinearity == "swish" else Pointwise
    if kind not in _LINEARS or kind is layers.HyperLinear:
        return False
    call = nn.Module.__call__
    kinds: tuple[Any, ...] = (ODEnet, kind, nn.Linear, phi)
    for one in kinds:
        if one.forward is not _FORWARD[one] or one.__call__ is not call:
            return False
    for module in (net, *chain, *between):
        if _hooked(module.__dict__):
            return False
    for activation in between:
        if type(activation) is not phi or (phi is Pointwise and activation.name != nonlinearity):
            return False
    for layer, m_in, m_out in zip(chain, widths, widths[1:], strict=False):
        inside = _linears(kind, m_in, m_out)
        if type(layer) is not kind:
            return False
        for name, inputs, outputs, biased in inside:
            linear = layer._modules.get(name)
            if type(linear) is not nn.Linear or _hooked(linear.__dict__):
                return False
            weight: Any = linear._parameters.get("weight")
            bias: Any = linear._parameters.get("bias")
            if type(weight) is not nn.Parameter or weight.shape != (outputs, inputs):
                return False
            if type(bias) is not nn.Parameter if biased else bias is not None:
                return False
            if biased and bias.shape != (outputs,):
                return False
    return True


def _hooked(module: dict[str, Any]) -> bool:
    """Whether a call of a module is more than its class's forward, from the module's dictionary."""
    return bool(
        module["_forward_hooks"]
        or module["_forward_pre_hooks"]
        or module["_backward_hooks"]
        or module["_backward_pre_hooks"]
        or "forward" in module
    )


def _hooks_everywhere() -> bool:
    before, after = every_module._global_forward_pre_hooks, every_module._global_forward_hooks
    if every_module._global_backward_hooks or every_module._global_backward_pre_hooks:
        return True
    return bool(before or after) and not all(map(_looks_on, (*before.values(), *after.values())))


def _looks_on(hook: Any) -> bool:
    """Whether a hook only takes down which module runs, as those of FlopCounterMode do."""
    return type(getattr(hook, "__self__", None)) is ModuleTracker


@cache
def _linears(kind: Any, m_in: int, m_out: int) -> Linears:
    return _LINEARS[kind](m_in, m_out)


def refresh(linear: nn.Module) -> None:
    """Let the weight hooks of a module inside of a readable net compute the weights that are about
    to be read.

    PyTorch runs them when a module is called, and engines call none.
    """
    for hook in linear._forward_pre_hooks.values():
        hook(linear, ())


def is_not(module: nn.Module | None, kind: type[nn.Module]) -> str:
    """The rest of a sentence that begins with the module's name, as of `altered`."""
    found, expected = type(module).__name__, kind.__name__
    if found == expected:  # FFJORD's classes have the names of ours
        found = f"{type(module).__module__}.{found}"
        expected = f"{kind.__module__}.{expected}"
    return f" is {found}, not {expected}"


def altered(module: nn.Module, forward: Any, weight_hooks: bool = False) -> str | None:
    """What makes a call of ``module`` more than one of ``forward``, or None.

    Args:
        module: Any module.
        forward: The function that its calls should come to.
        weight_hooks: Allow those that `refresh` runs.

    Returns:
        The rest of a sentence that begins with the module's name.
    """
    kind = type(module)
    if "forward" in module.__dict__ or kind.forward is not forward:
        return " has a forward of its own"
    if kind.__call__ is not nn.Module.__call__:  # of which torch.export makes one of its own
        return " has a __call__ of its own"
    before = module._forward_pre_hooks
    if before and not (weight_hooks and all(_computes(hook, module) for hook in before.values())):
        return " has forward pre-hooks"
    if module._forward_hooks:
        return " has forward hooks"
    if module._backward_pre_hooks or module._backward_hooks:
        return " has backward hooks"
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


def _other(module: nn.Module | None, kind: type[nn.Module]) -> str | None:
    if type(module) is not kind:
        return is_not(module, kind)
    return altered(module, _FORWARD[kind])


def _activation(module: nn.Module, nonlinearity: str) -> str | None:
    found = _other(module, Swish if nonlinearity == "swish" else Pointwise)
    if found is None and isinstance(module, Pointwise) and module.name != nonlinearity:
        found = f" is {module.name}, not {nonlinearity}"
    return found


def _layer(layer: nn.Module, kind: Any, m_in: int, m_out: int) -> str | None:
    found = _other(layer, kind)
    if found is not None:
        return found
    holder, inside = layer._modules, ""
    if kind is layers.HyperLinear:
        hypernet, inside = holder.get("_hypernet"), "._hypernet"
        found = _other(hypernet, nn.Sequential)
        if found is not None:
            return f"{inside}{found}"
        assert hypernet is not None
        holder = hypernet._modules
        if len(holder) != 3:
            return f"{inside} has {len(holder)} modules, not 3"
        found = _other(holder.get("1"), nn.Tanh)
        if found is not None:
            return f"{inside}.1{found}"
    for child, inputs, outputs, biased in _LINEARS[kind](m_in, m_out):
        found = unreadable_linear(holder.get(child), inputs, outputs, biased)
        if found is not None:
            return f"{inside}.{child}{found}"
    return None


def unreadable_linear(
    module: nn.Module | None,
    m_in: int,
    m_out: int,
    biased: bool | None,
    kind: type[nn.Module] = nn.Linear,
    forward: Any = nn.Linear.forward,
) -> str | None:
    """Why the weights of a linear module must not be read in place of a call, or None.

    Args:
        module: What should be one.
        m_in: Its inputs.
        m_out: Its outputs.
        biased: Whether it has a bias; None for either.
        kind: The class that it should have.
        forward: Of that class, as it was when it was first seen.

    Returns:
        The rest of a sentence that begins with the module's name.
    """
    found_kind: Any = type(module)
    # Asked for the type first: where there is no parametrization, the answer takes 3 us.
    parametrized = found_kind is not kind and module is not None and is_parametrized(module)
    if module is None or (found_kind.__base__ if parametrized else found_kind) is not kind:
        return is_not(module, kind)
    found = altered(module, forward, weight_hooks=True)
    if found is not None:
        return found
    if parametrized:
        # Its weight keeps the shape, and would be computed if it were looked at.
        for part in module.get_submodule("parametrizations").modules():
            if not _parametrizes(part):
                return f" has the parametrization {type(part).__name__}"
        return None
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    # What is computed by a hook is an attribute.
    weight = module.__dict__.get("weight") if weight is None else weight
    bias = module.__dict__.get("bias") if bias is None else bias
    if biased is not None and (bias is not None) != biased:
        return f" has {'no' if biased else 'a'} bias"
    if type(weight) not in _PLAIN or not (bias is None or type(bias) in _PLAIN):
        return f" has a {type(weight).__name__} for a weight"
    assert isinstance(weight, Tensor)
    if weight.shape != (m_out, m_in) or not (bias is None or bias.shape == (m_out,)):
        return f" has a weight {tuple(weight.shape)}, not {(m_out, m_in)}"
    return None


def weight_and_bias(linear: Any) -> tuple[Tensor, Tensor | None]:
    """The numbers of a readable linear module, as a call of it would compute them."""
    if linear._forward_pre_hooks:
        refresh(linear)
    parameters = linear._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias")
    # A parametrization or a hook computes what is no parameter.
    bias = linear.bias if bias is None and "bias" not in parameters else bias
    return linear.weight if weight is None else weight, bias
