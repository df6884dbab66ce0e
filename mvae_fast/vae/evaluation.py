"""Evaluation: bounds and estimates of the likelihood of the modalities, together, alone and
conditional, in three conventions."""

import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from mvae_fast.checks import integer, one_of
from mvae_fast.flows import has_exact_log_det
from mvae_fast.vae.elbo import ElboTerms
from mvae_fast.vae.inference.subsets import all_but_one, joint_and_unimodal
from mvae_fast.vae.mvae import MVAE
from mvae_fast.vae.queries import evaluation_mode

Convention = Literal["paper", "elbo", "iwae"]

#: What is reported, by name.
CONVENTIONS: dict[Convention, str] = {
    "paper": "z_0 at the posterior's mean, integrated trace, as in the paper's code: not a bound",
    "elbo": "sampled z_0, exact log-determinant of the steps: a bound",
    "iwae": "importance-sampling estimate; conditional: a difference of two estimates, no bound",
}

#: Integrated minus exact log-determinant of every row, by the modalities of a posterior.
LogDetErrors = MutableMapping[tuple[int, ...], Tensor]

Batches = Iterable[tuple[Mapping[str, Any], Mapping[str, Tensor] | None]]


@torch.no_grad()
def evaluate(
    model: MVAE,
    batches: Batches,
    convention: Convention = "elbo",
    *,
    n_samples: int = 16,
    log_det: Literal["exact", "trace", "available"] = "exact",
    log_det_errors: LogDetErrors | None = None,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    r"""Negative bounds or estimates of the log-likelihood of all modalities together and of each
    alone, and what they are made of.

    The same code serves models with and without a flow: the KL term is always estimated with the
    z_0 that is decoded (eq. 11), all lambda and beta are 1. Two models of the same latent size that
    are evaluated on the same batches with the same seed see the same noise. All of it is in
    z_0: flows integrate exact traces, also where training estimates them, because noise in the
    weights would make importance-sampled likelihoods too high. Only with ``log_det="trace"`` do
    they estimate them as they are set to.

    A CNF integrates the trace along with the state. Of the map that its steps apply, that is the
    log-determinant only up to an error of the order of the step, which an optimiser may exploit.
    ``"paper"`` takes it as it is. ``"elbo"`` averages over ``n_samples`` samples and, with
    ``log_det="exact"``, corrects each row by the difference between exact and integrated
    log-determinant of its first sample: unbiased, for one factorisation a row and step.
    ``"iwae"``,

    .. math:: \log p(X) \ge E\Big[\log \tfrac1K \sum_k
              \frac{p(X | z_T^k)\, p(z_T^k)}{q(z_T^k | X)}\Big] ,

    is such a bound, tighter than the ELBO, for weights with exact densities. With a CNF it is an
    estimate: it weighs with integrated traces and corrects by the same difference, which is right
    as far as that does not vary between samples of a row. Conditional values are differences of two
    estimates, :math:`\log p(x_i | X_{-i}) = \log p(X) - \log p(X_{-i})`, and no bounds.

    Args:
        model: The model; it is evaluated in evaluation mode, and each of its modules left in the
            mode it had.
        batches: Pairs of data and masks, as for ``MVAE.forward``.
        convention: One of `CONVENTIONS`.
        n_samples: Samples K of z_0 a row; ``"paper"`` has one, at the mean.
        log_det: ``"trace"`` leaves out the correction; ``"paper"`` has none. ``"available"`` is
            ``"exact"`` where the flow has an exact log-determinant (`mvae_fast.flows
            .has_exact_log_det`) and ``"trace"`` where not.
        log_det_errors: What an evaluation of the same model and rows in another convention has put
            there, so as not to factorise again; what it lacks is computed, and put there. Another
            convention has other samples: the correction is unbiased all the same.
        seed: Of the noise.

    Returns:
        Mean over the rows and its standard error, for ``"elbo/joint"``, ``"elbo/<modality>"``
        (negative ELBOs), ``"nll/joint/<modality>"``, ``"nll/<modality>"`` (their reconstruction
        terms), ``"kl/joint"`` and ``"kl/<modality>"``. For ``"iwae"`` it is
        ``"iwae/joint"``, ``"iwae/<modality>"`` (estimates of negative log-likelihoods) and
        ``"iwae/<modality>|rest"``. The joint entries are averages over rows with at least two
        modalities, the conditional ones over rows that have all. With a flow and the exact
        log-determinant there is also ``"log_det_error"``: integrated minus exact, for joint
        posteriors; nan with ``"available"`` and a flow that has none.

    Raises:
        ValueError: If the convention is unknown, there is no batch, ``log_det_errors`` are of
            another number of rows, or the log-determinant is to be exact and the flow has no exact
            one, as with adaptive solvers.

    References:
        Nedelkoski, Bogojeski, Kao 2020, eq. 4, 10, 11; Burda et al., Importance weighted
        autoencoders, 2016, eq. 8.
    """
    one_of("convention", convention, list(CONVENTIONS))
    one_of("log_det", log_det, ("exact", "trace", "available"))
    n_samples = integer("n_samples", n_samples, 1)
    seed = integer("seed", seed, 0)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    names = list(model.modalities)
    subsets = _subsets(len(names), convention)
    members = _members(subsets)
    kept = {} if log_det_errors is None else log_det_errors
    known = all(subset in kept for subset in members)
    fresh: list[Tensor] = []  # (S, B) of each batch
    seen = 0
    columns: dict[str, list[Tensor]] = {}
    with evaluation_mode(model):
        flow = model.flow
        correct = flow is not None and convention != "paper" and log_det != "trace"
        unknown = log_det == "available" and flow is not None and not has_exact_log_det(flow)
        for x, mask in batches:
            data, present = model.prepare(x, mask)
            terms = model.terms(
                data,
                present,
                subsets,
                at="mean" if convention == "paper" else "sample",
                n_samples=1 if convention == "paper" else n_samples,
                log_det_error=correct and not unknown and not known,
                trace=None if log_det == "trace" else "exact",
                generator=generator,
            )
            begin, seen = seen, seen + len(present)
            if terms.log_det_error is not None:
                fresh.append(terms.log_det_error)
            elif correct and known:
                errors = torch.stack([kept[subset] for subset in members])
                if seen > errors.shape[1]:
                    raise _other_rows(errors, f"at least {seen}")
                terms = replace(terms, log_det_error=errors[:, begin:seen])
            iwae = convention == "iwae"
            entries = _likelihoods(terms, names) if iwae else _bounds(terms, names, present)
            for key, values in entries:
                columns.setdefault(key, []).append(values)
    if not columns:
        raise ValueError("batches must hold at least one batch")
    if correct and known and seen < errors.shape[1]:
        raise _other_rows(errors, str(seen))
    if fresh:
        kept.update(zip(members, torch.cat(fresh, dim=1), strict=True))
    result = {}
    for key, parts in columns.items():
        values = torch.cat(parts).double()
        if len(values):
            spread = values.std(correction=1) / len(values) ** 0.5 if len(values) > 1 else math.nan
            result[key] = (values.mean().item(), float(spread))
    if correct and unknown and convention == "elbo":
        result["log_det_error"] = (math.nan, math.nan)
    return result


def _other_rows(errors: Tensor, count: str) -> ValueError:
    return ValueError(
        f"log_det_errors: got those of {errors.shape[1]} rows, but there are {count}; remedy: "
        "those of the same rows"
    )


def _subsets(n: int, convention: Convention) -> Tensor:
    """The subsets of n modalities that a convention needs, the joint one first."""
    subsets = joint_and_unimodal(n)
    # Of two modalities each alone is already all but the other.
    return torch.cat([subsets, all_but_one(n)]) if convention == "iwae" and n > 2 else subsets


def _members(subsets: Tensor) -> list[tuple[int, ...]]:
    """The modalities in each subset, by number."""
    return [tuple(subset.nonzero().flatten().tolist()) for subset in subsets]


def _label(members: tuple[int, ...], names: list[str]) -> str:
    return names[members[0]] if len(members) == 1 else "joint"


def _bounds(terms: ElboTerms, names: list[str], present: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Entries of ``"paper"`` and ``"elbo"``, for the rows that have them."""
    kl = terms.kl.mean(dim=0)
    if terms.log_det_error is not None:
        kl = kl + terms.log_det_error
        yield "log_det_error", terms.log_det_error[0][terms.active[0].to(kl.device)]
    for s, members in enumerate(_members(terms.subsets)):
        label = _label(members, names)
        rows = terms.active[s].to(kl.device)
        negative_elbo = kl[s]
        for i in members:
            nll = terms.nll[names[i]].mean(dim=0)[s]
            negative_elbo = negative_elbo + nll
            key = f"nll/{label}" if len(members) == 1 else f"nll/joint/{names[i]}"
            yield key, nll[rows & present[:, i].to(kl.device)]
        yield f"elbo/{label}", negative_elbo[rows]
        yield f"kl/{label}", kl[s][rows]


def _likelihoods(terms: ElboTerms, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Entries of ``"iwae"``, for the rows that have them."""
    samples, n = len(terms.kl), len(names)
    negative = math.log(samples) - terms.elbo().logsumexp(dim=0)
    if terms.log_det_error is not None:
        negative = negative + terms.log_det_error
    active = terms.active.to(negative.device)
    where = {members: s for s, members in enumerate(_members(terms.subsets))}
    for members, s in where.items():
        if len(members) in (1, n):
            yield f"iwae/{_label(members, names)}", negative[s][active[s]]
    if n == 1:
        return
    everything = active[[where[i,] for i in range(n)]].all(dim=0)
    for i, name in enumerate(names):
        rest = where[tuple(j for j in range(n) if j != i)]
        yield f"iwae/{name}|rest", (negative[0] - negative[rest])[everything]
