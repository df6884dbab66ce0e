r"""A velocity as data: what every engine integrates.

.. math:: y_0 = z, \quad
          a_l = \sigma(G_l \psi(t) + \gamma_l) \odot (W_l y_{l-1} + B_l \psi(t) + u_l)
                + H_l \psi(t), \quad y_l = \phi(a_l), \quad f(t, z) = a_L

with F features :math:`\psi` of time. `mvae_fast.nets` makes fields of modules; what a layer is
called there, no engine knows. Velocities whose weights depend on time are `Tables`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from mvae_fast.core.tables import Tables


class Column(NamedTuple):
    """Numbers of a tensor, ``stride`` apart: named, since to cut them out would cost a dispatch.

    Args:
        tensor: Index in `Field.tensors`.
        offset: The first one.
        stride: Of the weight, from row to row.
    """

    tensor: int
    offset: int = 0
    stride: int = 1


class Layer(NamedTuple):
    """Where one layer's coefficients are.

    Args:
        weight: W (m, m_in), its rows ``stride`` apart.
        bias: B, a column (m,) for each feature, None for zeros; those that are not there are zeros.
        gate: G, likewise; a layer with no such column has no gate.
        late_bias: H, likewise: what the gate does not reach.
    """

    weight: Column
    bias: tuple[Column | None, ...] = ()
    gate: tuple[Column | None, ...] = ()
    late_bias: tuple[Column | None, ...] = ()


@dataclass(frozen=True)
class Structure:
    """What a field is apart from its numbers.

    Args:
        widths: ``(m_0, ..., m_L)`` with ``m_0 = m_L = D``.
        layers: L of them.
        nonlinearity: A name of `mvae_fast.core.nonlinearities`, after layers 1..L-1.
        features: F.

    Attributes:
        numbers: The layers as the compiled engines read them (csrc/arguments.h).
    """

    widths: tuple[int, ...]
    layers: tuple[Layer, ...]
    nonlinearity: str
    features: int = 2
    # Not a cached property: torch.compile does not know the lock that one has before Python 3.12.
    numbers: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        flat: list[int] = []
        for layer in self.layers:
            flat += layer.weight
            for kind in (layer.bias, layer.gate, layer.late_bias):
                for k in range(self.features):
                    column = kind[k] if k < len(kind) else None
                    flat += (-1,) if column is None else column
        object.__setattr__(self, "numbers", tuple(flat))


class Field(NamedTuple):
    """A velocity at the evaluations of a solve.

    Args:
        structure: Which numbers are where.
        tensors: Where the numbers are; what gets the gradients.
        time: (E,), the times of the E evaluations: the features are 1 and t. Or (E, F), the
            features themselves, for example of `fourier`.
        context: u, what each row of the batch adds: for each layer (B, m_l) or None; empty for
            none.
        gate_context: gamma, likewise, in the gates: the reference has it. A layer has a gate if it
            has columns of G or a gamma.
        residual: The velocity is ``a_L - z`` instead of ``a_L``.

    Example:
        >>> structure = Structure((2, 2), (Layer(Column(0, stride=2), (Column(1),)),), "identity")
        >>> field = Field(structure, (torch.eye(2), torch.ones(2)), torch.zeros(3))
        >>> field.tables().bias
        tensor([[1., 1.]])
    """

    structure: Structure
    tensors: tuple[Tensor, ...]
    time: Tensor
    context: tuple[Tensor | None, ...] = ()
    gate_context: tuple[Tensor | None, ...] = ()
    residual: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """As of the structure."""
        return self.structure.widths

    @property
    def nonlinearity(self) -> str:
        """As of the structure."""
        return self.structure.nonlinearity

    def tables(self) -> Tables:
        """The same in PyTorch, a row for each evaluation; differentiable."""
        weight = torch.cat([self._weight(i) for i in range(len(self.structure.layers))])
        inner, gate, late = (self._total(kind) for kind in ("bias", "gate", "late_bias"))
        empty = self.time.new_zeros((1, sum(self.widths[1:])))
        gated = [any(c is not None for c in layer.gate) for layer in self.structure.layers]
        known = (self.widths, self.nonlinearity, self.residual, self.context)
        if self.gate_context:
            gate, late, inner = (empty if x is None else x for x in (gate, late, inner))
            gammas = [gamma is not None for gamma in self.gate_context]
            gated = [any(pair) for pair in zip(gated, gammas, strict=True)]
            gate = self._where(gated, gate, torch.inf)
            return Tables(weight.unsqueeze(0), gate, late, *known, self.gate_context, inner)
        if gate is not None:
            gate = self._where(gated, torch.sigmoid(gate), 1.0)
        bias = inner
        if inner is not None and gate is not None:
            bias = gate * inner
        if late is not None:
            bias = late if bias is None else bias + late
        bias = empty if bias is None else bias
        return Tables(weight.unsqueeze(0), gate, bias, *known)

    def _where(self, gated: Sequence[bool], gate: Tensor, other: float) -> Tensor:
        """``gate``, and ``other`` for the layers without one."""
        if all(gated):
            return gate
        there = [
            torch.full((m,), g, device=gate.device)
            for g, m in zip(gated, self.widths[1:], strict=True)
        ]
        return torch.where(torch.cat(there), gate, other)

    def _weight(self, layer: int) -> Tensor:
        where, (m_in, m) = self.structure.layers[layer].weight, self.widths[layer : layer + 2]
        tensor = self.tensors[where.tensor]
        if where.stride == m_in:
            return tensor.flatten()[where.offset : where.offset + m * m_in]
        first, start = divmod(where.offset, where.stride)
        if tensor.numel() % where.stride == 0 and start + m_in <= where.stride:
            # Columns of a matrix: views of less dispatch than `unfold`.
            rows = tensor.reshape(-1, where.stride)[first : first + m]
            return rows[:, start : start + m_in].flatten()
        size = (m - 1) * where.stride + m_in
        piece = tensor.flatten()[where.offset : where.offset + size]
        return piece.unfold(0, m_in, where.stride).flatten()

    def _total(self, kind: str) -> Tensor | None:
        """One kind of coefficients times the features: (1 or E, M), or None for zeros."""
        columns = [self._column(kind, k) for k in range(self.structure.features)]
        if all(column is None for column in columns):
            return None
        if self.time.ndim > 1:
            some = next(column for column in columns if column is not None)
            filled = [torch.zeros_like(some) if c is None else c for c in columns]
            return self.time @ torch.stack(filled)
        constant, slope = columns
        if slope is None:
            assert constant is not None
            return constant.unsqueeze(0)
        t = self.time.unsqueeze(1)
        return t * slope if constant is None else torch.addcmul(constant, t, slope)

    def _column(self, kind: str, feature: int) -> Tensor | None:
        """The coefficients (M,) of a feature, all layers' after each other, or None for zeros."""
        pieces, any_there = [], False
        for layer, m in zip(self.structure.layers, self.widths[1:], strict=True):
            columns = getattr(layer, kind)
            where = columns[feature] if feature < len(columns) else None
            if where is None:
                pieces.append(self.time.new_zeros(m))
                continue
            any_there = True
            tensor = self.tensors[where.tensor].flatten()
            if where.offset or where.stride > 1 or tensor.shape[0] != m:
                tensor = tensor[where.offset :: where.stride][:m]
            pieces.append(tensor)
        return torch.cat(pieces) if any_there else None


def fourier(t: Tensor, frequencies: tuple[float, ...]) -> Tensor:
    r"""The features ``1, cos(w_k t) ..., sin(w_k t) ...`` of times.

    Args:
        t: (E,).
        frequencies: w, K of them.

    Returns:
        (E, 1 + 2 K), differentiable in ``t``.

    Example:
        >>> fourier(torch.zeros(2), (1.0, 2.0))
        tensor([[1., 1., 1., 0., 0.],
                [1., 1., 1., 0., 0.]])
    """
    angles = [w * t for w in frequencies]
    waves = [*map(torch.cos, angles), *map(torch.sin, angles)]
    return torch.stack([torch.ones_like(t), *waves], 1)
