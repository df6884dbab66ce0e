"""Whether a module and its layers as data are the same function, on random inputs and weights."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast.core import reference
from mvae_fast.core.field import Field
from mvae_fast.nets.sequential import attributes_of

# Relative to the largest number. Float64's own errors are a millionth of it.
_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}


@contextmanager
def undisturbed() -> Any:
    """Calls of user's code with a graph, without a trace in the state of PyTorch's generators."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        yield


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Give every parameter values that matter: zeros and ones would hide what differs."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
            values = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(values * 0.9 / max(1, fan_in) ** 0.5)
            parameter.requires_grad_()


def sample(
    time: float, widths: Sequence[int], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """A time (0-dim), and five rows of each width; all of them inputs of a graph."""
    rows = [torch.randn(5, m, generator=generator, dtype=dtype) for m in widths]
    return torch.tensor(time, dtype=dtype).requires_grad_(), [x.requires_grad_() for x in rows]


def difference(
    velocity: Tensor, field: Field, inputs: dict[str, Tensor], rounded: bool = False
) -> str | None:
    """How the values or gradients of a velocity differ from those of a field, or None.

    Args:
        velocity: (B, D), what a call of the module gave.
        field: At one time.
        inputs: What to compare the gradients of, by name; ``"x"`` is the state, ``"t"`` the time.
        rounded: Whether the time, and so its gradient, may have gone through float32.
    """
    expected = reference.dynamics(inputs["x"], field.tables(), 0)[0]
    if not isinstance(velocity, Tensor) or velocity.shape != expected.shape:
        got = tuple(velocity.shape) if isinstance(velocity, Tensor) else type(velocity).__name__
        return f"it gives {got}, not {tuple(expected.shape)}"
    found = _apart(velocity, expected)
    if found is not None:
        return f"it differs by {found:.2g} of the largest number"
    if not velocity.requires_grad:
        return "it gives no gradients"
    weight = torch.linspace(0.5, 1.5, expected.numel(), dtype=expected.dtype).view_as(expected)
    pair = (
        torch.autograd.grad(x, list(inputs.values()), weight, materialize_grads=True)
        for x in (velocity, expected)
    )
    for name, got, wanted in zip(inputs, *pair, strict=True):
        found = _apart(got, wanted, 1e-6 if rounded and name == "t" else 0.0)
        if found is not None:
            return f"its gradient of {name} differs by {found:.2g} of the largest number"
    return None


def _apart(got: Tensor, expected: Tensor, tolerance: float = 0.0) -> float | None:
    if got.dtype != expected.dtype:
        return float("inf")
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    apart = (got - expected).abs().max().item() / scale if expected.numel() else 0.0
    return None if apart <= max(tolerance, _TOLERANCES[expected.dtype]) else apart


class Outside:
    """What a module is made of besides a part of it, seen at its calls.

    Args:
        module: The whole, of which hooks are registered.
        inner: The part.
        around: The modules that contain it.

    Attributes:
        reason: What else was found, or None: ``"it calls drop"``.
    """

    def __init__(self, module: nn.Module, inner: nn.Module, around: Sequence[nn.Module]) -> None:
        own = {*inner.parameters()}
        self.around = around
        self.tensors = {
            name: x.requires_grad_()
            for name, x in module.named_parameters()
            if x not in own and x.is_floating_point()
        }
        self.reason: str | None = None
        for owner in around:
            for name in owner._buffers:
                self.reason = f"it has the buffer {name}"
        known = {*around, *inner.modules()}
        for name, other in module.named_modules():
            if other not in known:
                other.register_forward_pre_hook(self._noting(name))
        self.attributes = self._attributes()

    def _noting(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any) -> None:
            self.reason = f"it calls {name}"

        return note

    def _attributes(self) -> list[Any]:
        return [attributes_of(module) for module in self.around]

    def look(self, output: Tensor) -> None:
        """Look at what an output of a call was made of."""
        if self._attributes() != self.attributes:
            self.reason = "it changes itself when it is called"
        if not self.tensors or not isinstance(output, Tensor) or not output.requires_grad:
            return
        grads = torch.autograd.grad(
            output.sum(), list(self.tensors.values()), allow_unused=True, retain_graph=True
        )
        for name, grad in zip(self.tensors, grads, strict=True):
            if grad is not None:
                self.reason = f"it depends on {name}"
