"""Flows by name, for the posterior of an `MVAE`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import nn

from mvae_fast.checks import boolean, integer
from mvae_fast.cnf import FastCNF
from mvae_fast.core.nonlinearities import Nonlinearity
from mvae_fast.flows import IAF, AmortizedCNF, PlanarFlow, SequentialFlow, SylvesterFlow
from mvae_fast.nets.layers import LayerType
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.ode.odefunc import ODEfunc
from mvae_fast.ode.settings import Settings
from mvae_fast.vae.sizes import sizes

Block = TypeVar("Block", bound=nn.Module)


def cnf_posterior(
    latent_dim: int,
    *,
    hidden: Sequence[int] | int = (256,),
    layer_type: LayerType = "squash",
    nonlinearity: Nonlinearity = "softplus",
    T: float = 1.0,
    n_blocks: int = 1,
    **options: Any,
) -> FastCNF | SequentialFlow:
    """The paper's CNF posterior: 256 squash units, softplus, Euler, not conditioned on the data.

    The paper gives neither T nor the number of steps (its code takes one step to T = 0.5), nor how
    the trace is computed when it trains. The exact trace is as cheap as an estimate here and has no
    noise.

    Args:
        latent_dim: Latent size D.
        hidden: Widths of the ODE net's hidden layers.
        layer_type: How the layers depend on time.
        nonlinearity: Between the layers.
        T: integration time, of each block.
        n_blocks: Flows one after the other, each with a net of its own.
        options: How each block is solved, as of `mvae_fast.FastCNF`: ``solver``, ``n_steps`` (10
            by default), ``trace`` (``"exact"`` by default), ``n_probes``, ``log_det``,
            ``adjoint``, ``engine`` and so on.

    Returns:
        The flow; a chain of them where there are several blocks.

    References:
        Nedelkoski, Bogojeski, Kao 2020, section 4.

    Example:
        >>> sum(p.numel() for p in cnf_posterior(128).parameters())
        66688
    """
    widths = sizes("hidden", hidden, at_least=0)
    settings = Settings(**{"n_steps": 10, "trace": "exact", **options})

    def block() -> FastCNF:
        net = ODEnet(widths, (latent_dim,), layer_type=layer_type, nonlinearity=nonlinearity)
        flow = FastCNF(ODEfunc(net), T=T)
        flow.settings = settings
        flow.check_settings()
        return flow

    return _chain(block, n_blocks)


def planar_posterior(latent_dim: int, *, n_flows: int = 16, amortized: bool = True) -> PlanarFlow:
    """Planar flows.

    Sixteen of them: one has a single hidden unit, and where other flows come by fours the
    literature takes more of these.

    Args:
        latent_dim: Latent size D.
        n_flows: Number of flows.
        amortized: Parameters of each row's own, from mean and log-variance of z_0.

    References:
        Rezende and Mohamed 2015; van den Berg et al. 2018, section 6.

    Example:
        >>> planar_posterior(8).cond_dim, planar_posterior(8, amortized=False).cond_dim
        (16, 0)
    """
    return PlanarFlow(latent_dim, n_flows, _cond_dim(latent_dim, amortized))


def sylvester_posterior(
    latent_dim: int,
    *,
    variant: str = "orthogonal",
    n_flows: int = 4,
    n_ortho: int | None = None,
    n_householder: int = 8,
    amortized: bool = True,
) -> SylvesterFlow:
    """Sylvester flows; the defaults are those of the authors' published examples: four flows, eight
    orthonormal columns or eight reflections.

    Args:
        latent_dim: Latent size D.
        variant: ``"orthogonal"``, ``"householder"`` or ``"triangular"``.
        n_flows: Number of flows.
        n_ortho: Columns of Q for ``"orthogonal"``; None for 8, or D if that is smaller.
        n_householder: Reflections for ``"householder"``.
        amortized: Parameters of each row's own, from mean and log-variance of z_0.

    References:
        van den Berg et al. 2018.

    Example:
        >>> sylvester_posterior(16, variant="householder").width
        16
    """
    return SylvesterFlow(
        latent_dim,
        n_flows,
        _cond_dim(latent_dim, amortized),
        variant=variant,
        n_ortho=n_ortho,
        n_householder=n_householder,
    )


def iaf_posterior(
    latent_dim: int,
    *,
    n_flows: int = 4,
    hidden: Sequence[int] | int = (320, 320),
    amortized: bool = True,
) -> IAF:
    """Inverse autoregressive flows; four with networks of 320 units, as in van den Berg et al.

    Args:
        latent_dim: Latent size D.
        n_flows: Number of flows.
        hidden: Widths of the hidden layers of each network.
        amortized: The networks also see mean and log-variance of z_0.

    References:
        Kingma et al. 2016; van den Berg et al. 2018, section 6.

    Example:
        >>> iaf_posterior(8).cond_dim
        16
    """
    return IAF(
        latent_dim,
        n_flows,
        _cond_dim(latent_dim, amortized),
        hidden=sizes("hidden", hidden, at_least=0),
    )


def cnf_bias_posterior(latent_dim: int, **options: Any) -> AmortizedCNF | SequentialFlow:
    """The paper's CNF with biases of each row's own, from mean and log-variance of z_0.

    All defaults are those of `cnf_posterior`, so that a comparison with it shows what amortisation
    does.

    Args:
        latent_dim: Latent size D.
        options: Those of `cnf_posterior` that `AmortizedCNF` has: all but ``adjoint`` and
            ``engine``; ``log_det`` is ``"trace"`` or ``"exact"``.

    References:
        Grathwohl et al., FFJORD, 2019, section 4.2.

    Example:
        >>> cnf_bias_posterior(8).cond_dim
        16
    """
    return _amortized_cnf(latent_dim, "bias", 1, **options)


def cnf_rank_posterior(
    latent_dim: int, *, rank: int = 1, **options: Any
) -> AmortizedCNF | SequentialFlow:
    """As `cnf_bias_posterior`, with a low-rank update of the weights of each row's own too.

    Args:
        latent_dim: Latent size D.
        rank: Of the update of every weight matrix; FFJORD's script has 1, its best results 64.
        options: As of `cnf_bias_posterior`.

    Example:
        >>> cnf_rank_posterior(8, rank=2).net.rank
        2
    """
    return _amortized_cnf(latent_dim, "rank", rank, **options)


def _amortized_cnf(
    latent_dim: int,
    kind: str,
    rank: int,
    /,
    *,
    hidden: Sequence[int] | int = (256,),
    n_blocks: int = 1,
    **options: Any,
) -> AmortizedCNF | SequentialFlow:
    widths = sizes("hidden", hidden, at_least=0)
    options = {"layer_type": "squash", "n_steps": 10, **options}

    def block() -> AmortizedCNF:
        return AmortizedCNF(latent_dim, 2 * latent_dim, widths, kind=kind, rank=rank, **options)

    return _chain(block, n_blocks)


def _chain(block: Callable[[], Block], n_blocks: int) -> Block | SequentialFlow:
    """One flow as it is, so that its state_dict keys stay; several as a chain."""
    integer("n_blocks", n_blocks, 1)
    return block() if n_blocks == 1 else SequentialFlow(block() for _ in range(n_blocks))


def _cond_dim(latent_dim: int, amortized: bool) -> int:
    return 2 * latent_dim if boolean("amortized", amortized) else 0


#: Builders by the ``type`` that `build_mvae` reads.
FLOWS: dict[str, Callable[..., nn.Module]] = {
    "cnf": cnf_posterior,
    "planar": planar_posterior,
    "sylvester": sylvester_posterior,
    "iaf": iaf_posterior,
    "cnf_bias": cnf_bias_posterior,
    "cnf_rank": cnf_rank_posterior,
}
