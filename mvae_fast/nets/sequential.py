r"""An ``nn.Sequential`` of linear layers and activations as data.

.. math:: a_1 = W_1 [x; \psi(t); c] + b_1, \quad a_l = W_l \phi(a_{l-1}) + b_l, \quad f = a_L

The columns of :math:`W_1` that time and context meet are only further columns of the user's own
tensor: nothing is copied. What is read is what is there at the time of the call, module by module;
anything that is not known to be a linear layer or an activation is a reason to call the whole.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mvae_fast.core import nonlinearities
from mvae_fast.core.field import Column, Field, Layer, Structure
from mvae_fast.nets.activations import Pointwise
from mvae_fast.nets.recognise import altered, is_not, unreadable_linear, weight_and_bias

_BY_CLASS = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.SELU: "selu",
    nn.Sigmoid: "sigmoid",
}
# What a module with arguments is, or None where nothing here is the same.
_BY_ARGUMENT: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.ELU: lambda m: "elu" if m.alpha == 1 else None,
    nn.CELU: lambda m: "elu" if m.alpha == 1 else None,
    nn.LeakyReLU: lambda m: "leaky_relu" if m.negative_slope == 0.01 else None,
    nn.GELU: lambda m: {"none": "gelu", "tanh": "gelu_tanh"}.get(m.approximate),
    # From a threshold of 20 on torch's is the identity, which is exact to 2e-9.
    nn.Softplus: lambda m: "softplus" if m.beta == 1 and m.threshold >= 20 else None,
    Pointwise: lambda m: m.name,
}
_DROPOUTS = (nn.Dropout, nn.AlphaDropout)
# As they are when this library is imported: a class can be patched as well as an instance.
_FORWARD: dict[type[nn.Module], Any] = {
    kind: kind.forward  # type: ignore[attr-defined]  # of every nn.Module
    for kind in (nn.Sequential, nn.Identity, *_DROPOUTS, *_BY_CLASS, *_BY_ARGUMENT)
}
_ITERATES = nn.Sequential.__iter__
_LINEAR: tuple[tuple[type[nn.Module], Any], ...] = ((nn.Linear, nn.Linear.forward),)


class Own(NamedTuple):
    """A user's class of activations.

    Args:
        forward: Of the class, when its values were compared.
        attributes: As of `attributes_of`.
        name: The nonlinearity of the same values.
    """

    forward: Any
    attributes: tuple[tuple[str, Any], ...]
    name: str


class Reading(NamedTuple):
    """What an ``nn.Sequential`` is made of at present.

    Args:
        linears: In their order.
        widths: Inputs of the first one, then the outputs of each.
        nonlinearity: Between them.
    """

    linears: tuple[nn.Module, ...]
    widths: tuple[int, ...]
    nonlinearity: str

    def field(self, t: Tensor, inputs: "Inputs", context: Tensor | None, residual: bool) -> Field:
        """The velocity of the state ``x`` where these are the layers of ``[x; psi(t); c]``.

        Args:
            t: (E,) for the features 1 and t, or (E, F) the features with 1 the first.
            inputs: Where in the first layer's inputs they come.
            context: (B, C) or None.
            residual: As of `mvae_fast.core.field.Field`.
        """
        tensors: list[Tensor] = []
        biased: list[bool] = []
        for linear in self.linears:
            weight, bias = weight_and_bias(linear)
            tensors.append(weight)
            biased.append(bias is not None)
            if bias is not None:
                tensors.append(bias)
        # torch.compile warns of every cache that it looks through.
        make = _make_structure if torch.compiler.is_compiling() else _cached_structure
        structure = make(self.widths, tuple(biased), self.nonlinearity, inputs)
        rows: tuple[Tensor | None, ...] = ()
        if context is not None:
            columns = tensors[0][:, inputs.context_at : inputs.context_at + context.shape[1]]
            rows = (nn.functional.linear(context, columns), *[None] * (len(self.linears) - 1))
        return Field(structure, tuple(tensors), t, rows, (), residual)


class Inputs(NamedTuple):
    """Where the inputs of the first layer come from.

    Args:
        state_at: The first one of the state.
        time_at: The first one of the features of time.
        times: How many these are, without the constant.
        context_at: The first one of the context.
        context_dim: How many these are.
    """

    state_at: int
    time_at: int
    times: int
    context_at: int = 0
    context_dim: int = 0


def _make_structure(
    widths: tuple[int, ...], biased: tuple[bool, ...], nonlinearity: str, inputs: Inputs
) -> Structure:
    every, state = widths[0], widths[-1]
    layers, tensor = [], 0
    for i, has_bias in enumerate(biased):
        bias: tuple[Column | None, ...] = (Column(tensor + 1) if has_bias else None,)
        if i == 0:
            weight = Column(tensor, inputs.state_at, every)
            slopes = (Column(tensor, inputs.time_at + k, every) for k in range(inputs.times))
            bias = (*bias, *slopes)
        else:
            weight = Column(tensor, 0, widths[i])
        layers.append(Layer(weight, bias))
        tensor += 1 + has_bias
    features = max(2, 1 + inputs.times)
    return Structure((state, *widths[1:]), tuple(layers), nonlinearity, features)


_cached_structure = cache(_make_structure)


def read(
    sequential: Any,
    name: str,
    linear: tuple[tuple[type[nn.Module], Any], ...] = _LINEAR,
    own: Mapping[type[nn.Module], Own] | None = None,
) -> Reading | str:
    """What an ``nn.Sequential`` is made of at present, or why it must be called.

    Args:
        sequential: The module.
        name: What to call it in the answer.
        linear: The classes of its linear layers, each with the ``forward`` that it should have.
        own: The user's own classes of activations.

    Example:
        >>> read(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), "net")[1:]
        ((3, 8, 2), 'tanh')
        >>> read(nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8)), "net")
        'net.1 is LayerNorm, which is no linear layer and no activation that engines have'
    """
    parts: list[tuple[str, str, Any]] = []
    found = _flatten(sequential, name, parts)
    if found is not None:
        return found
    linears: list[nn.Module] = []
    widths: list[int] = []
    between, gap = [], ""
    # The names of modules are put together only where something is wrong: this runs every solve.
    for prefix, key, module in parts:
        if "in_features" in module.__dict__:
            found, last = _linear(module, linear), widths[-1] if widths else module.in_features
            if found is None and module.in_features != last:
                found = f" takes {module.in_features} inputs, but is given {last}"
            if found is not None:
                return f"{prefix}.{key}{found}"
            if not linears:
                widths.append(module.in_features)
            else:
                between.append(gap or "identity")
            linears.append(module)
            widths.append(module.out_features)
            gap = ""
            continue
        phi, found = _activation(module, own)
        if found is None and phi and (gap or not linears):
            found = " comes after another activation" if gap else " comes before any linear layer"
        if found is not None:
            return f"{prefix}.{key}{found}"
        gap = phi or gap
    if not linears or gap:
        return f"{name} does not end with a linear layer"
    kinds = dict.fromkeys(between)
    if len(kinds) > 1:
        return f"{name} has several kinds of activations: {', '.join(kinds)}"
    return Reading(tuple(linears), tuple(widths), between[0] if between else "identity")


def _flatten(sequential: Any, name: str, parts: list[tuple[str, str, Any]]) -> str | None:
    """Append what a ``nn.Sequential`` calls, those inside of it included."""
    kind = type(sequential)
    found = altered(sequential, _FORWARD[nn.Sequential])
    if found is None and kind.__iter__ is not _ITERATES:
        found = " has an __iter__ of its own"
    if found is not None:
        return f"{name}{found}"
    for key, module in sequential._modules.items():
        if isinstance(module, nn.Sequential):
            found = _flatten(module, f"{name}.{key}", parts)
            if found is not None:
                return found
        else:
            parts.append((name, key, module))
    return None


def _linear(module: Any, kinds: tuple[tuple[type[nn.Module], Any], ...]) -> str | None:
    kind, forward = kinds[0]
    for other, its_forward in kinds[1:]:
        if isinstance(module, other):
            kind, forward = other, its_forward
    m_in, m_out = module.in_features, module.out_features
    return unreadable_linear(module, m_in, m_out, None, kind, forward)


def _activation(module: Any, own: Mapping[type[nn.Module], Own] | None) -> tuple[str, str | None]:
    """The name of a nonlinearity, empty for the identity; or the rest of a sentence why not."""
    kind = type(module)
    forward = _FORWARD.get(kind)
    if forward is not None:
        found = altered(module, forward)
        if found is not None:
            return "", found
        name = _BY_CLASS.get(kind)
        if name is not None:
            return name, None
        if kind is nn.Identity:
            return "", None
        if kind in _DROPOUTS:
            return "", f" is {kind.__name__} in training" if module.training and module.p else None
        name = _BY_ARGUMENT[kind](module)
        if name in nonlinearities.NONLINEARITIES and name != "swish":
            return "" if name == "identity" else name, None
        return "", f" is {module}, which engines do not have"
    if own is not None and kind in own:
        forward, attributes, name = own[kind]
        found = altered(module, forward)
        if found is None and attributes_of(module) != attributes:
            found = " has other attributes than when it was declared"
        return name, found
    if isinstance(module, nn.Linear):
        return "", is_not(module, nn.Linear)
    return "", f" is {kind.__name__}, which is no linear layer and no activation that engines have"


_ATTRIBUTES_OF_MODULES = frozenset(vars(nn.Module()))
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, type)
_FUNCTION = type(lambda: None)
_CONTAINERS = (tuple, list, set, frozenset, torch.Size)


def frozen(value: Any) -> Any:
    """A copy of an attribute that compares equal as long as it is the same; else TypeError."""
    if isinstance(value, (*_PLAIN, _FUNCTION)) or callable(value) and type(value) is type(len):
        return value
    if isinstance(value, dict):
        return tuple((frozen(key), frozen(x)) for key, x in value.items())
    if isinstance(value, _CONTAINERS):
        return type(value).__name__, tuple(frozen(x) for x in value)
    raise TypeError(type(value).__name__)


def attributes_of(module: nn.Module) -> tuple[tuple[str, Any], ...] | str:
    """The attributes that a user's class has besides those of every module, to compare later.

    Returns:
        Names and copies; or, if the changes of one could not be seen, the rest of a sentence.
    """
    found = []
    for name, value in module.__dict__.items():
        if name not in _ATTRIBUTES_OF_MODULES:
            try:
                found.append((name, frozen(value)))
            except TypeError as error:
                return f" has the attribute {name}, of type {error}, whose changes are not seen"
    return tuple(found)


def own_activations(sequential: nn.Module) -> dict[type[nn.Module], Own]:
    """The classes inside of a module that are not known, but have the values of a nonlinearity."""
    found = {}
    for module in sequential.modules():
        kind = type(module)
        if kind in _FORWARD or kind in found or "in_features" in module.__dict__:
            continue
        name, attributes = nonlinearity_of(module), attributes_of(module)
        if name is not None and not isinstance(attributes, str):
            found[kind] = Own(kind.forward, attributes, name)
    return found


def nonlinearity_of(module: nn.Module) -> str | None:
    """Which nonlinearity a user's activation is, by its values and slopes; None for none.

    Args:
        module: Of a class that is not known. It is called in both modes.

    Example:
        >>> class Swish(nn.Module):
        ...     def forward(self, x):
        ...         return torch.sigmoid(x) * x
        >>> nonlinearity_of(Swish())
        'silu'
    """
    if any(True for _ in (*module.parameters(), *module.buffers(), *module.children())):
        return None
    modes, inner = (True, False), torch.linspace(-17.9, 18.1, 144, dtype=torch.float64)
    ends = torch.tensor([-40.0, -30.0, -25.0, 25.0, 30.0, 40.0], dtype=torch.float64)
    x = torch.cat((inner, ends)).view(15, 10).requires_grad_()
    before = module.training
    results = []
    try:
        for mode in modes:
            module.train(mode)
            with torch.enable_grad():
                y = module(x.clone())
                results.append((y.detach(), torch.autograd.grad(y.sum(), x)[0]))
    except Exception:  # of the user's code, which may do anything
        return None
    finally:
        module.train(before)
    x = x.detach()
    for name in nonlinearities.NONLINEARITIES:
        if name in ("swish", "identity"):
            continue
        expected = nonlinearities.value(name, x), nonlinearities.derivative(name, x)
        if all(_same(a, b) for pair in results for a, b in zip(pair, expected, strict=True)):
            return name
    return None


def _same(got: Tensor, expected: Tensor) -> bool:
    return got.shape == expected.shape and bool(
        ((got - expected).abs() <= 1e-10 * (1 + expected.abs())).all()
    )
