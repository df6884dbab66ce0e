"""Evaluation: the paper's Table 1 numbers in two conventions, and how good the flow's log-density
is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mvae_fast.vae.elbo import elbo_terms
from mvae_fast.vae.mvae import MVAE
from mvae_fast.vae.subsets import joint_and_unimodal

__all__ = ["CONVENTIONS", "Convention", "evaluate", "exact_log_abs_det_jacobian"]

Convention = Literal["elbo", "paper"]

CONVENTIONS: dict[Convention, str] = {
    "elbo": "z_0 sampled from the posterior",
    "paper": "z_0 at the posterior's mean, as in the paper's code: not a bound",
}


@torch.no_grad()
def evaluate(
    model: MVAE,
    batches: Iterable[tuple[Mapping[str, Any], Mapping[str, Tensor] | None]],
    convention: Convention = "elbo",
    *,
    n_samples: int = 16,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Negative ELBOs of all modalities together and of each alone, and what they are made of.

    The same code serves models with and without a flow: the KL term is always estimated with the
    z_0 that is decoded (eq. 11), all lambda and beta are 1. Two models of the same latent size that
    are evaluated on the same batches with the same seed see the same noise.

    Args:
        model: the model; it is evaluated in evaluation mode and left in the mode it had.
        batches: pairs of data and masks, as for ``MVAE.forward``.
        convention: ``"elbo"`` averages over ``n_samples`` samples of z_0; ``"paper"`` puts z_0 at
            its mean, which is what the paper's code reports and no bound.
        n_samples: samples of z_0 a row, for ``"elbo"``.
        seed: of the noise.

    Returns:
        Mean over the rows and its standard error, for ``"elbo/joint"``, ``"elbo/<modality>"``
        (negative ELBOs), ``"nll/joint/<modality>"``, ``"nll/<modality>"`` (its own reconstruction
        terms), ``"kl/joint"`` and ``"kl/<modality>"``. The joint entries are averages over rows
        with at least two modalities.

    Raises:
        ValueError: if the convention is unknown or there is no batch.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {sorted(CONVENTIONS)}, got {convention!r}")
    names = list(model.modalities)
    subsets = joint_and_unimodal(len(names))
    labels = names if len(names) == 1 else ["joint", *names]
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    columns: dict[str, list[Tensor]] = {}
    was_training = model.training
    model.eval()
    for x, mask in batches:
        data, present = model.prepare(x, mask)
        terms = elbo_terms(
            model,
            data,
            present,
            subsets,
            at="sample" if convention == "elbo" else "mean",
            n_samples=n_samples if convention == "elbo" else 1,
            generator=generator,
        )
        negative_elbo = -terms.elbo().mean(dim=0)
        for s, label in enumerate(labels):
            rows = terms.active[s].to(device)
            columns.setdefault(f"elbo/{label}", []).append(negative_elbo[s][rows])
            columns.setdefault(f"kl/{label}", []).append(terms.kl.mean(dim=0)[s][rows])
            for i in subsets[s].nonzero().flatten().tolist():
                if names[i] not in terms.nll:
                    continue
                name = f"nll/joint/{names[i]}" if label == "joint" else f"nll/{label}"
                scored = rows & present[:, i].to(device)
                nll = terms.nll[names[i]].mean(dim=0)[s][scored]
                columns.setdefault(name, []).append(nll)
    model.train(was_training)
    if not columns:
        raise ValueError("batches must hold at least one batch")
    result = {}
    for key, parts in columns.items():
        values = torch.cat(parts).double()
        if len(values):
            error = values.std(correction=1) / len(values) ** 0.5 if len(values) > 1 else torch.nan
            result[key] = (values.mean().item(), float(error))
    return result


def exact_log_abs_det_jacobian(flow: nn.Module, z: Tensor, cond: Tensor | None = None) -> Tensor:
    r"""log|det ∂z_T/∂z_0| of the map that a flow really applies, by D reverse sweeps and an LU
    decomposition.

    A CNF integrates the trace along with the state. Of the discrete map that its steps apply, that
    is the log-determinant only up to an error of the order of the step, and the optimiser may
    exploit the
    difference: this measures it.

    Args:
        flow: called ``flow(z, logp)``, with ``cond=cond`` where that is given.
        z: ``(B, D)``.
        cond: ``(B, C)``, for an amortised flow.

    Returns:
        ``(B,)``.
    """
    # Without gradients for the parameters the sweeps are cheaper.
    extra = {} if cond is None else {"cond": cond.detach()}
    frozen = {name: p.detach() for name, p in flow.named_parameters()}
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        zero = z.new_zeros(len(z), 1)
        z_t, _ = torch.func.functional_call(flow, frozen, (z, zero), extra)
        rows = [
            torch.autograd.grad(z_t[:, d].sum(), z, retain_graph=True)[0] for d in range(z.shape[1])
        ]
    return torch.linalg.slogdet(torch.stack(rows, dim=1)).logabsdet
