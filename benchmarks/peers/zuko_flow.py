"""Zuko's CNF as it is installed, and the same net in FastCNF's engine.

Its velocity is an MLP with ELU of x, cos(k pi t) and sin(k pi t), k = 1, 2, 3; its trace exact, of
D products with the Jacobian; its solver an adaptive Dormand-Prince 5(4) with tolerances of 1e-6 and
1e-5, its gradient that of the accepted steps. The engine gets the net as tables, in which the
features of time have become biases, and takes fixed steps of fourth order, as many as bring it
nearer to the true solution than zuko comes (tests/benchmarks/test_own_nets.py).

References:
    Zuko (Rozet et al., 2022), https://github.com/probabilists/zuko
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.own_nets import OURS, ByTables, OwnNet
from mvae_fast.core.field import fourier
from mvae_fast.core.tables import Tables

STEPS = 10
_FREQUENCIES = tuple(k * math.pi for k in (1, 2, 3))


def zuko_problem(dim: int, batch: int, dtype: torch.dtype) -> OwnNet:
    """The CNF with zuko's default net, 64-64, on random states."""
    import zuko

    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = zuko.flows.CNF(dim).to(dtype)
        z = torch.randn(batch, dim, dtype=dtype)

    def theirs(x: Tensor) -> tuple[Tensor, Tensor]:
        transform: Any = flow.transform()
        z_t, log_det = transform.call_and_ladj(x)
        return z_t, -log_det  # of zuko's sign

    linears = [layer for layer in flow.transform.ode if hasattr(layer, "weight")]
    ours = ByTables(partial(tables, linears), 0.0, 1.0, STEPS)
    return OwnNet(
        f"zuko.flows.CNF({dim}): ELU, 64-64, B={batch}, its adaptive solver; FastCNF with {STEPS} "
        "steps of rk4; exact traces",
        z,
        tuple(flow.transform.ode.parameters()),
        {OURS: ours, "zuko": theirs},
        {"zuko": 1e-2},  # its log-densities and gradients are that far off
    )


def tables(linears: list[Any], t: Tensor) -> Tables:
    """The net at times ``t`` (E,)."""
    features = fourier(t, _FREQUENCIES)[:, 1:]
    first, *others = linears
    of_time = features.shape[1]
    widths = (first.weight.shape[1] - of_time, *(layer.weight.shape[0] for layer in linears))
    biases = [
        features @ first.weight[:, :of_time].T + first.bias,
        *(layer.bias.expand(len(t), -1) for layer in others),
    ]
    weights = [first.weight[:, of_time:], *(layer.weight for layer in others)]
    flat = torch.cat([weight.flatten() for weight in weights])
    return Tables(flat[None], None, torch.cat(biases, 1), widths, "elu")
