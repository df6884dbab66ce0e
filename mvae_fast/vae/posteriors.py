"""Flows by name, for the posterior of an `MVAE`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from mvae_fast.cnf import FastCNF
from mvae_fast.odefunc import ODEfunc
from mvae_fast.odenet import ODEnet

__all__ = ["FLOWS", "cnf_posterior"]


def cnf_posterior(
    latent_dim: int,
    *,
    hidden: Sequence[int] = (256,),
    layer_type: str = "squash",
    nonlinearity: str = "softplus",
    T: float = 1.0,
    solver: str = "euler",
    n_steps: int = 10,
    trace: str = "exact",
    engine: str = "auto",
) -> FastCNF:
    """The paper's CNF posterior: 256 squash units, softplus, Euler, not conditioned on the data.

    The paper gives neither T nor the number of steps (its code takes one step to T = 0.5), nor how
    the trace is computed when it trains. The exact trace is as cheap as an estimate here and has no
    noise.

    Args:
        latent_dim: latent size D.
        hidden: widths of the ODE net's hidden layers.
        layer_type: how the layers depend on time.
        nonlinearity: between the layers.
        T: integration time.
        solver: ``"euler"``, or a torchdiffeq solver.
        n_steps: equal steps from 0 to T.
        trace: ``"exact"`` or ``"hutchinson"``.
        engine: which engine integrates.

    Returns:
        The flow.

    References:
        Nedelkoski, Bogojeski, Kao 2020, section 4.

    Example:
        >>> sum(p.numel() for p in cnf_posterior(128).parameters())
        66688
    """
    net = ODEnet(tuple(hidden), (latent_dim,), layer_type=layer_type, nonlinearity=nonlinearity)
    return FastCNF(ODEfunc(net), T=T, solver=solver, n_steps=n_steps, trace=trace, engine=engine)


#: Builders by the ``type`` that `build_mvae` reads.
FLOWS: dict[str, Callable[..., nn.Module]] = {"cnf": cnf_posterior}
