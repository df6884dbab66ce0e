r"""The exact trace of the Jacobian: closed forms for shallow nets, unit vectors for deep ones.

.. math:: \tau = \operatorname{Tr} \frac{\partial f}{\partial z}

With the tables of a step, ``W_l``, ``G_l`` and the derivative ``phi'(a_l)``:

* no hidden layer: :math:`\tau = \sum_i G_{1,i} W_{1,ii}`
* one hidden layer: :math:`\tau = \phi'(a_1) \cdot c`,
  :math:`c = G_1 \odot ((W_1 \odot W_2^T)\, G_2)`
* two hidden layers: :math:`\tau = \phi'(a_2)^T M \phi'(a_1)`,
  :math:`M = \operatorname{diag}(G_2) [W_2 \odot (W_1 \operatorname{diag}(G_3) W_3)^T]
  \operatorname{diag}(G_1)`
* more: the sum of ``e_i . J e_i`` over the D unit vectors, D forward sweeps.

``c`` and ``M`` hold no state: they are built once per solve and cost O(m) or one m x m product per
sample and step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mvae_fast.core.tables import Tables

#: Affine layers up to which the trace has a closed form of lower cost than D sweeps.
MAX_CLOSED_FORM_LAYERS = 3


def trace_table(tables: Tables) -> Tensor | None:
    """The table from which an engine computes the exact trace of a net of at most 3 affine layers.

    Args:
        tables: The tables of the net.

    Returns:
        (1 or S, Q) with Q = 1 for one affine layer, m_1 for two, m_2 * m_1 for three (row-major,
        m_2 first); None for deeper nets, which take `exact_probes`.
    """
    depth = len(tables.widths) - 1
    if depth > MAX_CLOSED_FORM_LAYERS:
        return None
    weights, gates = _blocks(tables)
    return (_one_layer, _two_layers, _three_layers)[depth - 1](weights, gates)


def _blocks(tables: Tables) -> tuple[list[Tensor], tuple[Tensor, ...] | None]:
    """Weights (1 or S, m_l, m_{l-1}) and gates (1 or S, m_l) by layer."""
    widths = tables.widths
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    flat = tables.weight.split([m_out * m_in for m_in, m_out in pairs], dim=1)
    weights = [
        block.view(-1, m_out, m_in) for block, (m_in, m_out) in zip(flat, pairs, strict=True)
    ]
    return weights, None if tables.gate is None else tables.gate.split(list(widths[1:]), dim=1)


def _one_layer(weights: Sequence[Tensor], gates: Sequence[Tensor] | None) -> Tensor:
    diagonal = weights[0].diagonal(dim1=1, dim2=2)
    return (diagonal if gates is None else diagonal * gates[0]).sum(1, keepdim=True)


def _two_layers(weights: Sequence[Tensor], gates: Sequence[Tensor] | None) -> Tensor:
    product = weights[0] * weights[1].mT  # (1|S, m_1, D)
    if gates is None:
        return product.sum(2)
    if product.shape[0] == 1:
        return gates[0] * (gates[1] @ product[0].T)
    return gates[0] * (product @ gates[1].unsqueeze(2)).squeeze(2)


def _three_layers(weights: Sequence[Tensor], gates: Sequence[Tensor] | None) -> Tensor:
    first, second, third = weights
    if gates is not None:
        # On the two factors: they have m D elements, their product, one a step, has m^2.
        first = first * (gates[0].unsqueeze(2) * gates[2].unsqueeze(1))
        third = third * gates[1].unsqueeze(1)
    return (second * (first @ third).mT).flatten(1)


def second_order_table(tables: Tables) -> Tensor:
    r"""The table of ``Tr J^2`` of a net with one hidden layer.

    .. math:: \operatorname{Tr} J^2 = \phi'(a_1)^T (N \odot N^T)\, \phi'(a_1), \qquad
              N = \operatorname{diag}(G_1) W_1 \operatorname{diag}(G_2) W_2

    Args:
        tables: The tables of the net, with two affine layers.

    Returns:
        (1 or S, m_1 * m_1), symmetric.
    """
    (first, second), gates = _blocks(tables)
    if gates is not None:
        first = gates[0].unsqueeze(2) * first * gates[1].unsqueeze(1)
    loop = first @ second
    return (loop * loop.mT).flatten(1)


def exact_probes(z: Tensor) -> Tensor:
    """The D unit vectors as probes (D, B, D) of the state ``z`` (B, D), without a copy per row."""
    batch, dim = z.shape
    return torch.eye(dim, dtype=z.dtype, device=z.device).unsqueeze(1).expand(dim, batch, dim)
