r"""A user's own module, whose calling convention is declared.

What a ``forward`` in Python does cannot be read. It can be declared, ``net(cat(x, t))`` for one,
and the declaration compared with calls. What of it could change later is looked at in every solve.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mvae_fast.checks import one_of
from mvae_fast.core.field import Field
from mvae_fast.nets import comparison
from mvae_fast.nets.readable import Readable
from mvae_fast.nets.recognise import altered, weight_and_bias
from mvae_fast.nets.sequential import Inputs, Own, Reading, attributes_of, own_activations, read

#: How a module is called, and where time stands among the inputs of its layers.
Call = Literal["f(t, x)", "f(x, t)", "f(cat)"]
TimePlace = Literal["first", "last", "none"]
CALLS: tuple[Call, ...] = get_args(Call)
TIMES: tuple[TimePlace, ...] = get_args(TimePlace)

# What a user's forward may want its time to be, in the order in which they are tried.
_SHAPES: tuple[tuple[int, ...], ...] = ((), (-1,), (-1, 1))
# Exact in float32: a module that rounds its times is the same there.
_COARSE = (0.3125, 1.75, -0.6875)
_FINE = (1 / 3, 0.7137)


class _Seen(NamedTuple):
    """What a module around the ``nn.Sequential`` was when it was declared."""

    kind: type[nn.Module]
    forward: Any
    attributes: tuple[tuple[str, Any], ...] | str
    members: tuple[str, ...]


class Declared(Readable):
    r"""A user's module as a velocity ``f(t, z)``, by a declaration of how it is called.

    .. math:: f(t, z) = \mathrm{net}([z; t]), \quad \mathrm{net}([t; z]) \quad\text{or}\quad
              \mathrm{net}(z)

    with ``net`` an ``nn.Sequential`` of linear layers and activations inside of it. The parameters
    stay the module's own. The declaration is compared, once, with calls of a copy of the module
    whose weights are random: values and gradients, in float64, in both modes. Where the module
    holds what cannot be read (layer norm, dropout in training, hooks, parameters besides ``net``),
    or comes to hold it later, it is called instead, and `unreadable` says why. What it takes from
    outside of itself, such as a global variable, is seen by the comparison only.

    Args:
        module: The module.
        call: ``"f(t, x)"``, ``"f(x, t)"`` or ``"f(cat)"``, which hands over state and time in one
            tensor; None for the last if it is itself an ``nn.Sequential``, else for the first. Time
            is handed over as a number (0-dim) or, if that is not what it takes, as (B,) or (B, 1).
        time: Where it stands among the inputs of ``net``: ``"first"``, ``"last"`` or ``"none"``.
        net: The name of the ``nn.Sequential``, with dots; None for the module itself or its only
            child.

    Raises:
        TypeError: If ``module`` is no module.
        ValueError: If an argument is none of the above, or if the module, called as declared, fails
            or does something else: with what differs.

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.main = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 2))
        ...     def forward(self, x, t):
        ...         return self.main(torch.cat((x, t.expand(len(x), 1)), 1))
        >>> velocity = Declared(Net(), "f(x, t)")
        >>> velocity.unreadable("net") is None
        True
        >>> Declared(Net(), "f(x, t)", time="first")
        Traceback (most recent call last):
        ValueError: module: Net, called as f(x, t), is not main(cat(t, x)), but main(cat(x, t)): ...
    """

    def __init__(
        self,
        module: nn.Module,
        call: Call | None = None,
        time: TimePlace = "last",
        net: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"module: got {module!r}, expected an nn.Module")
        if call is None:
            whole = isinstance(module, nn.Sequential) and net is None
            call = "f(cat)" if whole else "f(t, x)"
        one_of("call", call, CALLS)
        one_of("time", time, TIMES)
        self.call = call
        self.time = time
        self.module = module
        self._path = _path(module, net)
        self._shape: tuple[int, ...] = ()
        self._own: dict[type[nn.Module], Own] = {}
        self._seen: tuple[_Seen, ...] = ()
        # Where it is not what was declared: a dtype that its times are rounded in, a mode.
        self._not_in: tuple[torch.dtype | str, ...] = ()
        with comparison.undisturbed():
            self._never = self._compare()

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The velocity at time ``t`` (0-dim) and states ``z`` (B, D), by a call of the module."""
        return self._call_of(self.module, t, z, self._shape)

    def _call_of(self, module: Any, t: Tensor, z: Tensor, shape: tuple[int, ...]) -> Tensor:
        t = t.to(z.dtype)
        if self.call == "f(cat)":
            column = t.expand(z.shape[0], 1)
            pair = {"first": (column, z), "last": (z, column), "none": (z,)}[self.time]
            return module(torch.cat(pair, 1))
        if shape:
            t = t.expand(z.shape[0]).view(shape)
        return module(t, z) if self.call == "f(t, x)" else module(z, t)

    @property
    def state_dim(self) -> int | None:
        """D, the outputs of the last layer; None of a module that is called."""
        reading = self._read(self._modules["module"], "module")
        return reading.widths[-1] if isinstance(reading, Reading) else None

    def unreadable(self, name: str) -> str | None:
        found = altered(self, _FORWARD)
        if found is not None:
            return f"{name}{found}"
        # The names of modules are put together only where something is wrong, but for this one.
        reading = self._read(self._modules["module"], f"{name}.module")
        if isinstance(reading, str):
            return reading
        wrong = self._never or self._wrong_sizes(reading)
        if wrong is not None:
            return f"{name}.module{wrong}"
        for module, seen in zip(
            _walk(self._modules["module"], self._path or ()), self._seen, strict=False
        ):
            found = _changed(module, seen)
            if found is None and "training" in self._not_in and module.training:
                found = " is not as declared in training"
            if found is not None:
                return f"{name}.module{found}"
        if self._not_in and weight_and_bias(reading.linears[0])[0].dtype in self._not_in:
            return f"{name}.module is not as declared in this dtype"
        return None

    def field(self, t: Tensor, context: Tensor | None, residual: bool) -> Field:
        reading = self._read(self._modules["module"], "module")
        assert isinstance(reading, Reading), reading
        return self._field(reading, self.time, t, residual)

    def _field(self, reading: Reading, time: str, t: Tensor, residual: bool = False) -> Field:
        state = reading.widths[-1]
        inputs = {"first": Inputs(1, 0, 1), "last": Inputs(0, state, 1), "none": Inputs(0, 0, 0)}
        return reading.field(t, inputs[time], None, residual)

    def _read(self, module: Any, name: str) -> Reading | str:
        """The layers of a module of this class at present, or why they are not to be read."""
        inner, inside = module, name
        if self._path is None:
            return f"{name} has no only child that is an nn.Sequential; remedy: net="
        for part in self._path:
            inner, inside = inner._modules.get(part), f"{inside}.{part}"
        if not isinstance(inner, nn.Sequential):
            return f"{inside} is {type(inner).__name__}, not Sequential"
        return read(inner, inside, own=self._own)

    def _wrong_sizes(self, reading: Reading) -> str | None:
        m_in, m_out = reading.widths[0], reading.widths[-1]
        if m_in == m_out + (self.time != "none"):
            return None
        expected = "as many inputs as outputs" if self.time == "none" else "one input more"
        return f" maps {m_in} inputs to {m_out}, but time={self.time!r} expects {expected}"

    def _compare(self) -> str | None:
        """Compare the declaration with the module; the rest of a sentence why it cannot be read
        then or later, or None.

        Raises:
            ValueError: If they differ.
        """
        if self._path is None:
            return None  # which `_read` says
        try:
            twin = copy.deepcopy(self.module).cpu().eval()
        except Exception as error:  # of the user's code, or of tensors with a graph
            return f"{_BEFORE}no copy of it can be made ({error})"
        inner = _inner(twin, self._path)
        self._own = own_activations(inner)
        self._seen = tuple(map(_see, _walk(self.module, self._path)))
        reading = self._read(twin, "module")
        if isinstance(reading, str):
            return f"{_BEFORE}{reading}"
        wrong = self._wrong_sizes(reading)
        if wrong is not None:
            raise ValueError(f"module: {'.'.join(self._path) or 'it'}{wrong}")
        for module, seen in zip(_walk(self.module, self._path), self._seen, strict=True):
            found = _changed(module, seen)
            if found is not None:
                return f"{_BEFORE}{type(module).__name__}{found}"
        found = self._agreement(twin, inner)
        return None if found is None else f"{_BEFORE}{found}"

    def _agreement(self, twin: nn.Module, inner: nn.Module) -> str | None:
        """Find the shape of the time, and where the module is not what was declared.

        Returns:
            What else it is made of, of which a declaration says nothing, or None.

        Raises:
            ValueError: If it fails, or is not what was declared in eval mode.
        """
        title = f"module: {type(twin).__name__}, called as {self.call},"
        outside = comparison.Outside(twin, inner, list(_walk(twin, self._path or ())))
        twin.double()
        comparison.randomise(inner, torch.Generator().manual_seed(0))
        first: Exception | None = None
        # Of float32 for a module that makes tensors of that by itself.
        for dtype in (torch.float64, torch.float32):
            twin.to(dtype)
            for shape in _SHAPES if self.call != "f(cat)" else _SHAPES[:1]:
                self._shape = shape
                try:
                    found = self._difference(twin, inner, self.time, _COARSE, outside)
                except Exception as error:
                    first = first or error
                    continue
                if outside.reason is not None:
                    return outside.reason
                if found is not None:
                    raise ValueError(f"{title} is not {self._instead(twin, inner)}: {found}")
                self._not_in = self._exceptions(twin, inner, dtype)
                return None
        raise ValueError(f"{title} raises {first!r}") from first

    def _difference(
        self,
        twin: nn.Module,
        inner: nn.Module,
        time: str,
        times: tuple[float, ...],
        outside: comparison.Outside | None = None,
    ) -> str | None:
        """How the module differs from what is declared at the times, or None."""
        reading = read(inner, "it", own=self._own)
        if isinstance(reading, str):  # as with dropout in training, where it is called
            return None
        generator = torch.Generator().manual_seed(1)
        dtype = next(inner.parameters()).dtype
        for value in times:
            t, (z,) = comparison.sample(value, reading.widths[-1:], dtype, generator)
            velocity = self._call_of(twin, t, z, self._shape)
            if outside is not None:
                outside.look(velocity)
            named = {"x": z, "t": t, **dict(inner.named_parameters())}
            field = self._field(reading, time, t.reshape(1))
            found = comparison.difference(velocity, field, named, times is _COARSE)
            if found is not None:
                return f"{found} (at t = {value:.4g})"
        return None

    def _exceptions(
        self, twin: nn.Module, inner: nn.Module, dtype: torch.dtype
    ) -> tuple[torch.dtype | str, ...]:
        """In which mode and dtype the module is not what was declared."""
        found: list[torch.dtype | str] = []
        if dtype != torch.float64 or self._difference(twin, inner, self.time, _FINE):
            found.append(torch.float64)
        if self._difference(twin.train(), inner, self.time, _COARSE):
            found.append("training")
        return tuple(found)

    def _instead(self, twin: nn.Module, inner: nn.Module) -> str:
        names = {"first": "cat(t, x)", "last": "cat(x, t)", "none": "x"}
        net = ".".join(self._path or ()) or "its layers"
        declared = f"{net}({names[self.time]})"
        if self.time != "none" and self.call != "f(cat)":
            other = "first" if self.time == "last" else "last"
            if self._difference(twin, inner, other, _COARSE) is None:
                return f"{declared}, but {net}({names[other]})"
        return declared

    def extra_repr(self) -> str:
        return f"call={self.call!r}, time={self.time!r}"


_FORWARD = Declared.forward
_BEFORE = " could not be read or compared when it was declared: "


def _path(module: nn.Module, net: str | None) -> tuple[str, ...] | None:
    """Where the ``nn.Sequential`` is; None if there is none to be found."""
    if net is not None:
        parts = tuple(net.split("."))
        if not isinstance(_inner(module, parts), nn.Sequential):
            names = ", ".join(name for name, _ in module.named_children())
            raise ValueError(
                f"net: got {net!r}, expected the name of an nn.Sequential; the children of "
                f"{type(module).__name__} are: {names or 'none'}"
            )
        return parts
    if isinstance(module, nn.Sequential):
        return ()
    children = [name for name, child in module.named_children()]
    only = len(children) == 1 and isinstance(_inner(module, children), nn.Sequential)
    return tuple(children) if only else None


def _walk(module: Any, path: Sequence[str]) -> Iterator[Any]:
    """A module and those on the way to the end of a path, without that."""
    for part in path:
        yield module
        module = None if module is None else module._modules.get(part)


def _inner(module: Any, path: Sequence[str]) -> Any:
    """What is at the end of a path, or None."""
    for part in path:
        module = None if module is None else module._modules.get(part)
    return module


def _see(module: Any) -> _Seen:
    kind = type(module)
    return _Seen(kind, kind.forward, attributes_of(module), _members(module))


def _members(module: nn.Module) -> tuple[str, ...]:
    """What a module has of its own: parameters, buffers and children."""
    everything: Any = (module._parameters, module._buffers, module._modules)
    return tuple(name for some in everything for name, x in some.items() if x is not None)


def _changed(module: Any, seen: _Seen) -> str | None:
    """How a module is no longer as it was seen: the rest of a sentence, or None."""
    if type(module) is not seen.kind:
        return f" has become {type(module).__name__}"
    found = altered(module, seen.forward)
    if found is not None:
        return found
    attributes = attributes_of(module)
    if isinstance(attributes, str):
        return attributes
    if attributes != seen.attributes or _members(module) != seen.members:
        return " has other attributes than when it was declared"
    return None
