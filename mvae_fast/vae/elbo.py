"""The evidence lower bounds of many subsets of modalities, in one pass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mvae_fast.checks import boolean, integer, one_of
from mvae_fast.core.problem import Trace
from mvae_fast.distributions import FlowPosterior
from mvae_fast.vae.compiled import harmless, places, places_of_terms
from mvae_fast.vae.inference.aggregation import Aggregation, ProductOfExperts
from mvae_fast.vae.modality import Modality

Objective = Literal["elbo", "iwae"]


@dataclass(frozen=True)
class ElboTerms:
    """What the ELBOs of S subsets of N modalities are made of, for B rows and K samples of z_0.

    Attributes:
        subsets: Which modalities each term conditions on and scores, boolean ``(S, N)``.
        active: Which rows have the term, boolean ``(S, B)``; elsewhere all entries are 0.
        nll: For each modality ``-log p(x_i | z_T)``, ``(K, S, B)``; 0 where the term does not score
            it, and of a modality that no row has.
        kl: The KL divergence, or its one-sample estimates, ``(K, S, B)``.
        log_det_error: Integrated trace minus exact log-determinant for the first sample, ``(S,
            B)``; None where it was not asked for. The density of z_T is that much higher than the
            trace says, and so is the KL term.
    """

    subsets: Tensor
    active: Tensor
    nll: dict[str, Tensor]
    kl: Tensor
    log_det_error: Tensor | None = None

    def loss(
        self, weights: Mapping[str, float], beta: float = 1.0, objective: Objective = "elbo"
    ) -> Tensor:
        r"""The training objective: the terms' :math:`\ell = \sum_i \lambda_i\,\mathrm{nll}_i +
        \beta\,\mathrm{KL}`, summed over subsets, averaged over samples and rows; or, with
        ``"iwae"``, :math:`-\log \tfrac1K \sum_k e^{-\ell_k}` in place of the average over samples.

        Args:
            weights: lambda of each modality.
            beta: Weight of the KL term.
            objective: ``"elbo"`` or ``"iwae"``; of one sample they are the same.

        References:
            Burda et al., Importance weighted autoencoders, 2016, eq. 8.
        """
        if one_of("objective", objective, get_args(Objective)) == "iwae":
            each = beta * self.kl + sum(weights[name] * nll for name, nll in self.nll.items())
            bound = (-each).logsumexp(dim=0) - math.log(len(each))
            return -bound.sum() / bound.shape[-1]
        total = beta * self.kl.sum()
        for name, nll in self.nll.items():
            total = total + weights[name] * nll.sum()
        samples, _, rows = self.kl.shape
        return total / (samples * rows)

    def elbo(self) -> Tensor:
        """The ELBOs in nats with all lambda and beta 1, ``(K, S, B)``."""
        return -torch.stack([self.kl, *self.nll.values()]).sum(dim=0)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    r"""KL divergence of a diagonal Gaussian from N(0, I), in closed form.

    .. math:: \tfrac12 \sum_d \left(\mu_d^2 + \sigma_d^2 - 1 - \log\sigma_d^2\right)

    Args:
        mean: ``(..., D)``.
        logvar: ``(..., D)``.

    Returns:
        ``(...)``.

    Example:
        >>> gaussian_kl(torch.ones(1, 4), torch.zeros(1, 4))
        tensor([2.])
    """
    # expm1: sigma^2 - 1 near sigma = 1, where an annealed posterior starts, without cancellation.
    return 0.5 * (mean.square() + logvar.expm1() - logvar).sum(dim=-1)


def posteriors(
    experts: tuple[Tensor, Tensor],
    flow: nn.Module | None,
    present: Tensor,
    subsets: Tensor,
    *,
    aggregation: Aggregation | None = None,
    every_row: bool = False,
) -> tuple[FlowPosterior, Tensor, Tensor]:
    """The posteriors of z_T given several subsets of modalities: one aggregation of experts.

    Returns:
        The posterior of the R pairs of subset and row that there are, their places in ``(S, B)``
        laid flat, ``(R,)``, and which pairs they are, boolean ``(S, B)``.
    """
    subsets = subsets.to(present.device)
    scored = subsets[:, None] & present
    active = scored.sum(-1) >= subsets.sum(-1, keepdim=True).clamp(max=2)
    if every_row:
        active = torch.ones_like(active)

    rows = places(active.flatten())
    pairs = rows if len(rows) < active.numel() else None
    aggregate = ProductOfExperts() if aggregation is None else aggregation
    return aggregate(*experts, scored, flow, pairs), rows, active


def elbo_terms(
    experts: tuple[Tensor, Tensor],
    modalities: Mapping[str, Modality],
    flow: nn.Module | None,
    x: Mapping[str, Tensor],
    present: Tensor,
    subsets: Tensor | Sequence[Sequence[bool]],
    *,
    aggregation: Aggregation | None = None,
    every_row: bool = False,
    at: Literal["sample", "mean"] = "sample",
    kl: Literal["sample", "closed_form"] = "sample",
    n_samples: int = 1,
    log_det_error: bool = False,
    trace: Trace | None = None,
    generator: torch.Generator | None = None,
) -> ElboTerms:
    r"""The ELBO terms of several subsets of modalities, in one pass.

    The posteriors of all subsets are one aggregation and one call of the flow. Each decoder
    runs once, on exactly the rows that score it: a term scores the modalities that it conditions
    on. With :math:`z_T` the flow's image of :math:`z_0`

    .. math:: \mathrm{KL} \approx \log q_0(z_0 | X) - \int_0^T \mathrm{Tr}\,\frac{\partial
    f}{\partial z}\,dt
              - \log p(z_T) .

    A row contributes a unimodal term where it has the modality, and a term of several modalities
    where it has at least two of them: with one left, that term would only repeat the unimodal one.

    Args:
        experts: The unimodal experts of N modalities, means and log-variances, ``(B, N, D)`` each;
            see `MVAE.experts`.
        modalities: The modalities by name.
        flow: That of the posterior, or None.
        x: Data, ``(B, ...)`` each; what ``present`` denies may hold anything, NaN too.
        present: Which rows have which modality, boolean ``(B, N)``.
        subsets: Boolean ``(S, N)``, a tensor or lists; compiled code knows only what lists hold.
        aggregation: How experts become a posterior; None for their product.
        every_row: Keep every row in every term, also those that lack most or all of its modalities.
        at: Where z_0 is taken: ``"sample"`` draws it from q_0, ``"mean"`` puts it at q_0's mean,
            which gives the number that the paper's code reports, not a bound. There is no noise
            then: a CNF integrates the exact trace, whatever its setting.
        kl: ``"sample"`` estimates the KL divergence with the z_0 that is decoded (eq. 11);
            ``"closed_form"`` is exact and needs a model without a flow and a Gaussian aggregation.
        n_samples: Number K of samples of z_0 a row.
        log_det_error: Also find how far the integrated trace is from the log-determinant of the
            flow's steps, for the first sample of each row.
        trace: ``"exact"``: no estimate of a trace, whatever the flow's setting; None as it is set.
        generator: Source of all noise, on the model's device.

    Raises:
        ValueError: If ``at`` or ``kl`` is unknown, ``kl="closed_form"`` is asked of a model with a
            flow, ``n_samples`` is not positive or exceeds 1 at the mean, ``log_det_error`` is asked
            of a flow that has no exact log-determinant, or a likelihood does not give one number a
            row.

    References:
        Nedelkoski, Bogojeski, Kao 2020, eq. 4, 10 and 11.
    """
    one_of("at", at, ("sample", "mean"))
    one_of("kl", kl, ("sample", "closed_form"))
    boolean("every_row", every_row)
    boolean("log_det_error", log_det_error)
    if kl == "closed_form" and flow is not None:
        raise ValueError('kl="closed_form" needs a model without a flow; use kl="sample"')
    if kl == "closed_form" and aggregation is not None and not aggregation.gaussian:
        raise ValueError('kl="closed_form" needs a Gaussian posterior; use kl="sample"')
    n_samples = integer("n_samples", n_samples, 1)
    if at == "mean" and n_samples > 1:
        raise ValueError(
            f'n_samples: got {n_samples} with at="mean", expected 1: there is no noise'
        )
    batch = len(present)
    compiling = torch.compiler.is_compiling()
    masks = torch.as_tensor(subsets)
    posterior, rows, active = posteriors(
        experts, flow, present, masks, aggregation=aggregation, every_row=every_row
    )
    mean, logvar = posterior.loc, posterior.logvar
    if at == "mean":
        noise = posterior.mean_noise().unsqueeze(0)
        z, log_q = posterior.transport_noise(noise, trace="exact")
    else:
        noise = posterior.draw_noise((n_samples,), generator=generator)
        z, log_q = posterior.transport_noise(noise, generator=generator, trace=trace)
    if kl == "closed_form":
        divergence = gaussian_kl(mean, logvar).expand_as(log_q)
    else:
        divergence = log_q + 0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=-1)
    if compiling:
        divergence = torch.where(active.flatten().to(z.device), divergence, 0.0)

    def scatter(values: Tensor, at_rows: Tensor) -> Tensor:
        full = values.new_zeros(len(values), active.numel())
        return full.index_copy(1, at_rows.to(values.device), values).view(-1, *active.shape)

    nll = {}
    scored = masks.to(present.device)[:, None] & present
    of_rows = (scored & active[..., None]).flatten(0, 1)[rows]
    for i, (name, modality) in enumerate(modalities.items()):
        here = (
            places_of_terms(subsets, i, batch) if compiling else of_rows[:, i].nonzero().squeeze(1)
        )
        if name not in x or not len(here):
            idle = modality.idle(modality.decoder)
            nll[name] = divergence.new_zeros(n_samples, *active.shape) + idle
            continue
        distribution = modality.decode(z.index_select(1, here.to(z.device)).flatten(0, 1))
        values = harmless(x[name], present[:, i]) if compiling else x[name]
        target = values[(rows[here] % batch).to(values.device)]
        target = target.expand(n_samples, *target.shape).flatten(0, 1)  # one sample: not copied
        log_prob = distribution.log_prob(target)
        if log_prob.shape != (n_samples * len(here),):
            raise ValueError(
                f"modality {name!r}: the likelihood must give one log_prob for each of "
                f"{n_samples * len(here)} rows, got shape {tuple(log_prob.shape)}"
            )
        if compiling:
            scores = of_rows[here, i].to(z.device).expand(n_samples, -1).flatten()
            log_prob = torch.where(scores, log_prob, 0.0)
        nll[name] = scatter(-log_prob.view(n_samples, -1), rows[here])
    error = None
    if log_det_error:
        exact = posterior.transport_noise(noise[:1], log_det="exact")[1]
        error = scatter(exact - log_q[:1], rows).squeeze(0)
    return ElboTerms(masks.to(present.device), active, nll, scatter(divergence, rows), error)
