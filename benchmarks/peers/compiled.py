"""FastCNF's own algorithm in plain PyTorch, to be run under ``torch.compile``.

What a PyTorch user gets from the mathematics alone, without our engines: time is taken out of the
loop into per-step tables, the trace is exact in closed form (or Hutchinson's in forward mode, with
nothing saved for an inner backward), all Euler steps are unrolled into one graph.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.ffjord import Net

# Weight (m_out, m_in), gate (S, m_out) or None, bias (S, m_out).
_Layer = tuple[Tensor, Tensor | None, Tensor]


class PlainEuler(nn.Module):
    """Euler's method on ``z`` and ``logp``, unrolled.

    Args:
        net: Its parameters are read; its ``forward`` is not used.
        steps: Euler steps over [0, 1].
        hutchinson: Estimate the trace with the probes instead of computing it.
    """

    def __init__(self, net: Net, steps: int, hutchinson: bool) -> None:
        super().__init__()
        self.net = net
        self.steps = steps
        self.hutchinson = hutchinson

    def forward(self, z: Tensor, logp: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
        """Move ``z`` (B, D) and ``logp`` (B, 1) along the flow with the noise ``probes`` (B, D)."""
        t = torch.arange(self.steps, dtype=z.dtype, device=z.device).unsqueeze(1) / self.steps
        layers = [_tables(self.net.layer_type, layer, t) for layer in self.net.layers]
        table = None
        if self.hutchinson:
            probes = probes.unsqueeze(0)
        elif len(layers) <= 3:
            table = _trace_table(layers)
        else:
            dim = z.shape[1]
            eye = torch.eye(dim, dtype=z.dtype, device=z.device)
            probes = eye.unsqueeze(1).expand(dim, *z.shape)

        change = torch.zeros_like(logp[:, 0])
        for s in range(self.steps):
            tangent = probes if table is None else None
            velocity, slopes, tangent = self._sweep(layers, s, z, tangent)
            if tangent is not None:
                tau = (probes * tangent).sum((0, 2))
            else:
                assert table is not None
                tau = _closed_form(table[min(s, table.shape[0] - 1)], slopes)
            z = z + velocity / self.steps
            change = change - tau / self.steps
        return z, logp + change.unsqueeze(1)

    def _sweep(
        self, layers: list[_Layer], s: int, y: Tensor, tangent: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        slopes = []
        for index, (weight, gate, bias) in enumerate(layers):
            if index > 0:
                y, slope = self._activate(y)
                slopes.append(slope)
                tangent = None if tangent is None else tangent * slope
            y = F.linear(y, weight)
            y = y + bias[s] if gate is None else y * gate[s] + bias[s]
            if tangent is not None:
                tangent = F.linear(tangent, weight)
                tangent = tangent if gate is None else tangent * gate[s]
        return y, slopes, tangent

    def _activate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        if self.net.nonlinearity == "softplus":
            return F.softplus(a), torch.sigmoid(a)
        y = torch.tanh(a)
        return y, 1 - y * y


def _tables(layer_type: str, layer: Any, t: Tensor) -> _Layer:
    weight, bias = layer._layer.weight, layer._layer.bias
    if layer_type == "concat":
        return weight[:, 1:], None, bias + t * weight[:, 0]
    if layer_type == "squash":
        gate = torch.sigmoid(layer._hyper(t))
        return weight, gate, gate * bias
    gate = torch.sigmoid(layer._hyper_gate(t))
    return weight, gate, gate * bias + layer._hyper_bias(t)


def _trace_table(layers: list[_Layer]) -> Tensor:
    """(S, m) for one hidden layer, (1 or S, m_2, m_1) for two."""
    weights = [weight for weight, _, _ in layers]
    gates = [gate for _, gate, _ in layers]
    if len(layers) == 2:
        loop = weights[0] * weights[1].T
        if gates[0] is None or gates[1] is None:
            return loop.sum(1).unsqueeze(0)
        return gates[0] * (gates[1] @ loop.T)
    if gates[0] is None or gates[1] is None or gates[2] is None:
        return (weights[1] * (weights[0] @ weights[2]).T).unsqueeze(0)
    round_trip = (weights[0] * gates[2].unsqueeze(1)) @ weights[2]
    return gates[1].unsqueeze(2) * weights[1] * round_trip.mT * gates[0].unsqueeze(1)


def _closed_form(row: Tensor, slopes: list[Tensor]) -> Tensor:
    if len(slopes) == 1:
        return slopes[0] @ row
    return (slopes[1] @ row * slopes[0]).sum(1)


def compiled(net: Net, steps: int, hutchinson: bool, mode: str | None = None) -> nn.Module:
    """`PlainEuler` as one compiled graph; ``mode`` as of ``torch.compile``."""
    plain = PlainEuler(net, steps, hutchinson)
    return torch.compile(plain, fullgraph=True, dynamic=False, mode=mode)
