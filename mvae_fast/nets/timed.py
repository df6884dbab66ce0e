"""A net whose weights a user's own module gives, as functions of time."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae_fast.checks import integers, one_of
from mvae_fast.core import nonlinearities
from mvae_fast.core.tables import Tables
from mvae_fast.nets.readable import Readable
from mvae_fast.nets.recognise import altered

# Without a parameter, swish is silu.
_NONLINEARITIES = tuple(name for name in nonlinearities.NONLINEARITIES if name != "swish")


class TimedNet(Readable):
    r"""A multilayer perceptron with weights that a module makes of time, a hypernetwork.

    .. math:: y_0 = z, \quad a_l = W_l(t)\, y_{l-1} + b_l(t), \quad y_l = \phi(a_l), \quad
              f(t, z) = a_L

    A solve calls the module once, with the times of all its evaluations, and the gradients of the
    tables go back into it: it trains like any other, whatever it is made of.

    Args:
        weights: Called as ``weights(t)`` with times (E,); gives for each layer a pair ``(W, b)``: W
            (E, m_l, m_{l-1}), b (E, m_l) or None for zeros. Without the axis E they do not depend
            on time.
        widths: ``(D, m_1, ..., D)``.
        nonlinearity: Between the layers, as of `mvae_fast.ODEnet`; no swish, but silu.

    Raises:
        TypeError: If ``weights`` is no module.
        ValueError: If another argument, or what ``weights`` gives, does not fit.

    References:
        HyperNetworks (Ha et al., 2016), https://arxiv.org/abs/1609.09106

    Example:
        >>> class Weights(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 4 * 2 + 4))
        ...         self.last = nn.Parameter(torch.randn(2, 4))
        ...     def forward(self, t):
        ...         flat = self.net(t.unsqueeze(1))
        ...         return [(flat[:, :8].view(-1, 4, 2), flat[:, 8:]), (self.last, None)]
        >>> net = TimedNet(Weights(), (2, 4, 2), "tanh")
        >>> net(torch.tensor(0.5), torch.zeros(3, 2)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        weights: nn.Module,
        widths: Sequence[int],
        nonlinearity: nonlinearities.Nonlinearity = "tanh",
    ) -> None:
        super().__init__()
        if not isinstance(weights, nn.Module):
            raise TypeError(
                f"weights: got {weights!r}, expected an nn.Module; remedy: put it in the forward "
                "of a module, which also owns its parameters"
            )
        self.widths = integers("widths", widths, 1)
        if len(self.widths) < 2 or self.widths[0] != self.widths[-1]:
            raise ValueError(f"widths: got {self.widths}, expected (D, ..., D)")
        one_of("nonlinearity", nonlinearity, _NONLINEARITIES)
        self.weights = weights
        self.nonlinearity = nonlinearity

    @property
    def state_dim(self) -> int:
        """D, the size of a state."""
        return self.widths[0]

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The velocity at time ``t`` (0-dim) and states ``z`` (B, D)."""
        y, layers = z, self._layers(t.reshape(1))
        for i, (weight, bias) in enumerate(layers):
            y = F.linear(y, weight[0], bias[0])
            if i < len(layers) - 1:
                y = nonlinearities.value(self.nonlinearity, y)
        return y

    def unreadable(self, name: str) -> str | None:
        # What is inside of `weights` is called, and may be anything.
        found = altered(self, _FORWARD)
        return None if found is None else f"{name}{found}"

    def field(self, t: Tensor, context: Tensor | None, residual: bool) -> Tables:
        pairs = zip(*self._layers(t), strict=True)
        weight, bias = (_together([x.flatten(1) for x in some]) for some in pairs)
        return Tables(weight, None, bias, self.widths, self.nonlinearity, residual)

    def _layers(self, t: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weights (1 or E, m_l, m_{l-1}) and biases (1 or E, m_l) at times (E,), checked."""
        given: Any = self.weights(t)
        pairs = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        layers = list(given) if isinstance(given, Iterable) else [given]
        if len(layers) != len(pairs) or not all(
            isinstance(x, Sequence) and len(x) == 2 for x in layers
        ):
            raise ValueError(f"weights: expected a pair (W, b) for each of {len(pairs)} layers")
        found = []
        for i, ((weight, bias), (m_in, m_out)) in enumerate(zip(layers, pairs, strict=True)):
            bias = weight.new_zeros(m_out) if bias is None else bias
            weight = _at_times(f"W of layer {i}", weight, (m_out, m_in), t.shape[0])
            found.append((weight, _at_times(f"b of layer {i}", bias, (m_out,), t.shape[0])))
        return found

    def extra_repr(self) -> str:
        return f"widths={self.widths}, {self.nonlinearity}"


_FORWARD = TimedNet.forward


def _at_times(name: str, x: Tensor, shape: tuple[int, ...], times: int) -> Tensor:
    if x.shape == shape:
        return x.unsqueeze(0)
    if x.shape[1:] != shape or x.shape[0] not in (1, times):
        raise ValueError(
            f"weights: {name} has shape {tuple(x.shape)}, expected {shape} or {(times, *shape)}"
        )
    return x


def _together(pieces: list[Tensor]) -> Tensor:
    """One table of several, those that do not depend on time repeated where others do."""
    times = max(x.shape[0] for x in pieces)
    return torch.cat([x.expand(times, -1) for x in pieces], 1)
