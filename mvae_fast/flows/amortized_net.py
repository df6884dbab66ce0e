"""The velocity of an amortised continuous flow: shared layers, and what each row adds to them."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae_fast.checks import integer, one_of
from mvae_fast.core import nonlinearities, reference
from mvae_fast.core.field import Field, Structure
from mvae_fast.core.tables import Tables
from mvae_fast.core.trace import trace_table
from mvae_fast.flows.parameters import Parameters
from mvae_fast.nets.fields import field_of
from mvae_fast.nets.layers import LayerType
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.nets.recognise import unreadable


class AmortizedNet(nn.Module):
    r"""Layers in time whose biases, and weights up to a low rank, are each row's own.

    .. math:: y_0 = z, \quad a_l = L_l(t, y_{l-1}) + V_l(c)^T U_l(c)^T y_{l-1} + b_l(c), \quad
              y_l = \phi(a_l), \quad f = a_L

    with the layers :math:`L_l` of an `ODEnet` and :math:`U_l, V_l, b_l` linear in c. The
    nonlinearity comes between the layers, none after the last.

    Args:
        dim: Size D of the state.
        cond_dim: Size C of the condition.
        hidden: Widths of the hidden layers; may be empty.
        rank: R of U (in, r) and V (r, out); 0 for biases alone.
        layer_type: As of `mvae_fast.ODEnet`.
        nonlinearity: As of `mvae_fast.ODEnet`; swish has beta = 1.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int,
        hidden: Sequence[int],
        rank: int,
        layer_type: LayerType,
        nonlinearity: nonlinearities.Nonlinearity,
    ) -> None:
        super().__init__()
        one_of("nonlinearity", nonlinearity, nonlinearities.NONLINEARITIES)
        integer("rank", rank, 0)
        # For its layers alone: the nonlinearity that it is given here has no parameters.
        self.net = ODEnet(hidden, (dim,), layer_type=layer_type, nonlinearity="identity")
        self.nonlinearity = nonlinearity
        self.rank = rank
        shapes: dict[str, tuple[int, ...]] = {}
        bounds: dict[str, float] = {}
        widths = self.net.widths
        for layer, (m_in, m_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            shapes[f"b{layer}"] = (m_out,)
            if rank:
                shapes[f"u{layer}"] = (m_in, rank)
                shapes[f"v{layer}"] = (rank, m_out)
            # The update of the weights starts at zero and learns through V. With V random too it
            # would stretch the state by the root of its size, layer after layer and step by step.
            bounds |= {f"b{layer}": m_in**-0.5, f"u{layer}": m_in**-0.5, f"v{layer}": 0.0}
        self.theta = Parameters(shapes, cond_dim, bounds)

    def at(self, t: Tensor, own: dict[str, Tensor]) -> "Velocity":
        """The velocity at the times ``t`` (S,), of the rows' ``own = theta(cond)``."""
        return Velocity(self._shared(t).tables(), own, self.nonlinearity, self.rank)

    def field(self, t: Tensor, own: dict[str, Tensor]) -> Field | Tables | None:
        """The same as the engines take it: biases of rows are a context, without gates on them."""
        if self.rank:
            return None
        shared = self._shared(t)
        rows = tuple(own[f"b{layer}"] for layer in range(len(self.net.widths) - 1))
        name = "silu" if self.nonlinearity == "swish" else self.nonlinearity
        if isinstance(shared, Tables):
            return (
                None
                if shared.gate is not None
                else replace(shared, context=rows, nonlinearity=name)
            )
        if any(layer.gate for layer in shared.structure.layers):
            return None
        return shared._replace(structure=_structure(shared.structure, name), context=rows)

    def _shared(self, t: Tensor) -> Field | Tables:
        foreign = unreadable(self.net)
        if foreign is not None:
            raise ValueError(
                f"net: {foreign}; an amortised flow reads the weights of its net and cannot call "
                "its modules; remedy: undo that, or FastCNF"
            )
        return field_of(self.net, t)


@functools.lru_cache(maxsize=64)
def _structure(shared: Structure, nonlinearity: str) -> Structure:
    return replace(shared, nonlinearity=nonlinearity)


class Velocity:
    """What `AmortizedNet` is at S times and for B rows; the times are counted by ``s``.

    Args:
        tables: The shared layers.
        own: Biases ``b*`` (B, out), and with a rank ``u*`` (B, in, r) and ``v*`` (B, r, out).
        nonlinearity: By name.
        rank: r, or 0.
    """

    def __init__(
        self, tables: Tables, own: dict[str, Tensor], nonlinearity: str, rank: int
    ) -> None:
        self.widths = tables.widths
        self.own = own
        self.nonlinearity = nonlinearity
        self.rank = rank
        pairs = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        flat = tables.weight.split([m_out * m_in for m_in, m_out in pairs], dim=1)
        self.weights = [
            block.view(-1, m_out, m_in) for block, (m_in, m_out) in zip(flat, pairs, strict=True)
        ]
        self.biases = tables.bias.split(list(self.widths[1:]), dim=1)
        self.gates = None if tables.gate is None else tables.gate.split(list(self.widths[1:]), 1)
        self.loops: dict[int, Tensor] = {}
        self.table: Tensor | None = None
        if not rank or len(pairs) == 2:
            self.table = trace_table(tables)

    def sweep(
        self, z: Tensor, s: int, tangent: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Velocity (B, D), its products with ``tangent`` (B or 1, K, D), and phi' by layer."""
        y, slopes = z, []
        last = len(self.weights) - 1
        for layer in range(last + 1):
            y = self._affine(y.unsqueeze(1), layer, s).squeeze(1)
            y = y + _at(self.biases[layer], s) + self.own[f"b{layer}"]
            if tangent is not None:
                tangent = self._affine(tangent, layer, s)
            if layer < last:
                slopes.append(nonlinearities.derivative(self.nonlinearity, y))
                if tangent is not None:
                    tangent = tangent * slopes[-1].unsqueeze(1)
                y = nonlinearities.value(self.nonlinearity, y)
        return y, tangent, slopes

    def jacobian(self, z: Tensor, s: int) -> tuple[Tensor, Tensor]:
        """Velocity (B, D) and its Jacobian (B, D, D)."""
        unit = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        velocity, tangent, _ = self.sweep(z, s, unit.unsqueeze(0))
        assert tangent is not None
        return velocity, tangent.mT.expand(z.shape[0], -1, -1)

    def trace(self, z: Tensor, s: int, probes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Velocity (B, D) and trace (B,), estimated with ``probes`` (B, K, D) or exact."""
        if probes is not None:
            velocity, tangent, _ = self.sweep(z, s, probes)
            assert tangent is not None
            return velocity, (tangent * probes).sum((1, 2))
        if self.table is None:
            velocity, jacobian = self.jacobian(z, s)
            return velocity, jacobian.diagonal(dim1=1, dim2=2).sum(1)
        velocity, _, slopes = self.sweep(z, s)
        if self.rank:
            return velocity, (slopes[0] * self._loop(s)).sum(1)
        return velocity, reference.closed_form(_at(self.table, s), slopes, z)

    def _affine(self, y: Tensor, layer: int, s: int) -> Tensor:
        """The linear part of a layer, of rows (B or 1, K, in)."""
        product = F.linear(y, _at(self.weights[layer], s))
        if self.gates is not None:
            product = product * _at(self.gates[layer], s)
        if self.rank:
            product = product + (y @ self.own[f"u{layer}"]) @ self.own[f"v{layer}"]
        return product

    def _loop(self, s: int) -> Tensor:
        r"""The diagonal (B, m) of :math:`A_1 A_2` with each row's whole weights A of two layers.

        Then :math:`\operatorname{Tr} A_2 \operatorname{diag}(\phi') A_1` is its product with
        :math:`\phi'`. At cost O(r m D) a row, once per solve where weights do not depend on time.
        """
        assert self.table is not None
        s = 0 if self.table.shape[0] == 1 else s
        if s not in self.loops:
            first, second = (_at(weight, s) for weight in self.weights)
            if self.gates is not None:
                first = first * _at(self.gates[0], s).unsqueeze(1)
                second = second * _at(self.gates[1], s).unsqueeze(1)
            u_1, v_1, u_2, v_2 = (self.own[name] for name in ("u0", "v0", "u1", "v1"))
            mixed = u_1.mT @ second + (v_2 @ u_1).mT @ u_2.mT
            self.loops[s] = (
                _at(self.table, s) + (v_1 * mixed).sum(1) + ((v_2 @ first.mT) * u_2.mT).sum(1)
            )
        return self.loops[s]


def _at(table: Tensor, s: int) -> Tensor:
    return table[0 if table.shape[0] == 1 else s]
