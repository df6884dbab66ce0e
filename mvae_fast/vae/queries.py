"""What a trained model answers about rows of data: what is missing, where they lie, how likely
they are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from mvae_fast.checks import boolean, integer, near
from mvae_fast.flows import has_exact_log_det

if TYPE_CHECKING:
    from mvae_fast.vae.mvae import MVAE

SAMPLES_AT_ONCE = 64
"""Samples of z_0 a row that `Queries.score` holds at the same time."""


class Imputed(NamedTuple):
    """Rows without gaps, by modality.

    Attributes:
        values: Data ``(B, ...)``: what a row has as it is, else the predictive mean, of a label the
            most likely class.
        uncertainty: Predictive standard deviation ``(B, ...)``, of a label the probability of its
            class; 0 and 1 where a row has the modality.
        filled: Rows that lacked it, boolean ``(B,)``.
    """

    values: dict[str, Tensor]
    uncertainty: dict[str, Tensor]
    filled: dict[str, Tensor]


class Score(NamedTuple):
    """Estimates of log-likelihoods.

    Attributes:
        log_prob: In nats, ``(B,)``; NaN for a row that has nothing to score.
        effective_samples: Effective sample size of the importance weights, ``(B,)``, of
            ``n_samples``.
    """

    log_prob: Tensor
    effective_samples: Tensor


class Queries:
    """The methods of an `MVAE` that answer about rows. They run in evaluation mode, and leave each
    module in the mode it had."""

    @torch.no_grad()
    def impute(
        self,
        x: Mapping[str, Any],
        mask: Mapping[str, Any] | None = None,
        n_samples: int = 100,
        *,
        weighted: bool = False,
        generator: torch.Generator | None = None,
    ) -> Imputed:
        r"""Fill what rows lack, by the posterior predictive given what they have.

        With :math:`z^k` samples of the posterior of z_T, a missing modality gets the mean of
        :math:`\sum_k w_k\, p(x_i | z^k)`, and the standard deviation of that mixture: the decoder's
        own and that between samples. The weights are 1/K, as good as the posterior is; or those of
        importance sampling, :math:`w_k \propto p(X, z^k) / q(z^k | X)`, right for many samples
        whatever the posterior is. They need as many as `score` does.

        Args:
            x: Data by modality, ``(B, ...)`` each, as of `MVAE.forward`; a modality that is left
                out is missing in all rows.
            mask: Which rows have a modality, as of `MVAE.forward`.
            n_samples: Number K of samples a row.
            weighted: Weigh the samples.
            generator: Source of the noise.

        Raises:
            ValueError: If data or masks do not fit, or ``n_samples`` is no positive integer.
            TypeError: If data or masks have the wrong type.

        Example:
            >>> from mvae_fast.vae import MVAE, label_modality, mlp_modality
            >>> model = MVAE({"x": mlp_modality(3, 2), "label": label_modality(4, 2)}, 2)
            >>> done = model.impute({"x": torch.rand(5, 3)})
            >>> done.values["label"].shape, done.filled["label"].all()
            (torch.Size([5]), tensor(True))
        """
        model = cast("MVAE", self)
        n_samples = integer("n_samples", n_samples, 1)
        with evaluation_mode(model):
            data, present = _prepared(model, x, mask)
            missing = [name for i, name in enumerate(model.modalities) if not present[:, i].all()]
            first: dict[str, Tensor] = {}
            second: dict[str, Tensor] = {}
            posterior = model.posterior(data, present)
            # Samples first: they are few numbers, and weights are relative to one another.
            drawn = [
                posterior.rsample_and_log_prob(generator=generator, trace="exact")
                for _ in range(n_samples if missing else 0)
            ]
            weights = [1 / n_samples] * len(drawn)
            if boolean("weighted", weighted) and drawn:
                each = torch.stack([_log_weight(model, data, present, *pair) for pair in drawn])
                weights = list(each.softmax(dim=0))
            for (z, _), weight in zip(drawn, weights, strict=True):
                for name in missing:
                    distribution = model.modalities[name].decode(z)
                    base = getattr(distribution, "base_dist", distribution)
                    if isinstance(base, Categorical):
                        first[name] = first.get(name, 0) + _times(weight, base.probs)
                        continue
                    mean, variance = distribution.mean, distribution.variance
                    first[name] = first.get(name, 0) + _times(weight, mean)
                    squares = _times(weight, variance + mean.square())
                    second[name] = second.get(name, 0) + squares
            done = Imputed({}, {}, {})
            for i, name in enumerate(model.modalities):
                filled = ~present[:, i]
                if name in second:
                    value = first[name]
                    spread, known = (second[name] - value.square()).clamp(min=0).sqrt(), 0.0
                elif name in first:
                    (spread, value), known = first[name].max(dim=-1), 1.0
                else:
                    label = not data[name].is_floating_point()
                    value = data[name]
                    spread = torch.full_like(value, float(label), dtype=posterior.loc.dtype)
                done.values[name], done.uncertainty[name] = value, spread
                if name in data and name in first:
                    rows = filled.to(value.device).view(-1, *[1] * (value.dim() - 1))
                    done.values[name] = torch.where(rows, value, data[name])
                    done.uncertainty[name] = torch.where(rows, spread, known)
                done.filled[name] = filled
        return done

    @torch.no_grad()
    def embed(self, x: Mapping[str, Any], mask: Mapping[str, Any] | None = None) -> Tensor:
        """Latents of rows: the posterior's mean given whatever each row has.

        With a flow it is the point that the flow makes of the mean of z_0, as where
        ``reconstruct(at="mean")`` decodes; the mean of z_T itself is that of samples of `encode`.

        Args:
            x, mask: As of `impute`.

        Returns:
            ``(B, D)``, without noise.

        Example:
            >>> from mvae_fast.vae import MVAE, mlp_modality
            >>> MVAE({"x": mlp_modality(3, 2)}, latent_dim=2).embed({"x": torch.rand(5, 3)}).shape
            torch.Size([5, 2])
        """
        model = cast("MVAE", self)
        with evaluation_mode(model):
            posterior = model.posterior(*_prepared(model, x, mask))
            return posterior.transport(posterior.loc, trace="exact")[0]

    @torch.no_grad()
    def score(
        self,
        x: Mapping[str, Any],
        mask: Mapping[str, Any] | None = None,
        *,
        of: str | Sequence[str] | None = None,
        given: str | Sequence[str] | None = None,
        n_samples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Score:
        r"""Log-likelihood of each row, by importance sampling from the posterior.

        .. math:: \log p(X) \approx \log \tfrac1K \sum_k w_k , \qquad
                  w_k = \frac{p(X | z^k)\, p(z^k)}{q(z^k | X)} ,

        a lower bound on average; given other modalities :math:`\log p(A | B) = \log p(A, B) - \log
        p(B)`, the difference of two such estimates and no bound. A row is scored by what it has.
        The effective sample size is :math:`(\sum_k w_k)^2 / \sum_k w_k^2` of the joint estimate:
        where it is small, the estimate is too low.

        A CNF's weights have integrated traces, and where it has an exact log-determinant a row is
        corrected by that of its first sample, as by `evaluate`.

        Args:
            x, mask: As of `impute`.
            of: Modalities to score, one or several; None: all but ``given``.
            given: Modalities to condition on; None: nothing.
            n_samples: Number K of samples a row.
            generator: Source of the noise.

        Raises:
            ValueError: If a modality is unknown or in both, data or masks do not fit, or
                ``n_samples`` is no positive integer.
            TypeError: If data or masks have the wrong type.

        References:
            Burda et al., Importance weighted autoencoders, 2016, eq. 8.

        Example:
            >>> from mvae_fast.vae import MVAE, label_modality, mlp_modality
            >>> model = MVAE({"x": mlp_modality(3, 2), "label": label_modality(4, 2)}, 2)
            >>> rows = {"x": torch.rand(5, 3), "label": [0, 1, 2, 3, 0]}
            >>> model.score(rows, of="label", given="x", n_samples=8).log_prob.shape
            torch.Size([5])
        """
        model = cast("MVAE", self)
        n_samples = integer("n_samples", n_samples, 1)
        condition = _names("given", given, model)
        rest = [name for name in model.modalities if name not in condition]
        scored = rest if of is None else _names("of", of, model)
        if both := sorted(set(scored) & set(condition)):
            raise ValueError(f"of: got {both}, expected modalities that are not in given")
        if not scored:
            raise ValueError(f"given: got all of {condition}, expected to leave some to score")
        subsets = [[name in {*scored, *condition} for name in model.modalities]]
        subsets += [[name in condition for name in model.modalities]] if condition else []
        with evaluation_mode(model):
            data, present = _prepared(model, x, mask)
            exact = model.flow is not None and has_exact_log_det(model.flow)
            total, squares, error = [], [], torch.zeros(())
            for start in range(0, n_samples, SAMPLES_AT_ONCE):
                terms = model.terms(
                    data,
                    present,
                    subsets,
                    every_row=True,
                    n_samples=min(SAMPLES_AT_ONCE, n_samples - start),
                    log_det_error=exact and start == 0,
                    trace="exact",
                    generator=generator,
                )
                weights = terms.elbo()
                total.append(weights.logsumexp(dim=0))
                squares.append((2 * weights).logsumexp(dim=0))
                if terms.log_det_error is not None:
                    error = terms.log_det_error
        summed = torch.stack(total).logsumexp(dim=0)
        log_prob = summed - math.log(n_samples) - error.to(summed.device)
        effective = (2 * summed[0] - torch.stack(squares).logsumexp(dim=0)[0]).exp()
        result = log_prob[0]
        if condition:
            has = _any(present, condition, model).to(result.device)
            result = result - torch.where(has, log_prob[1], 0.0)
        has = _any(present, scored, model).to(result.device)
        return Score(torch.where(has, result, torch.nan), effective)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while. Each module by itself: a part that is frozen may be in it while
    others train."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _prepared(model: "MVAE", x: Any, mask: Any) -> tuple[dict[str, Tensor], Tensor]:
    """What `MVAE.prepare` gives, on the model's device."""
    data, present = model.prepare(x, mask)
    device = next(model.parameters()).device
    return {name: rows.to(device) for name, rows in data.items()}, present


def _log_weight(
    model: "MVAE", data: dict[str, Tensor], present: Tensor, z: Tensor, log_q: Tensor
) -> Tensor:
    """log p(x, z) - log q(z | x) of what each row has, ``(B,)``."""
    log_weight = -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=-1) - log_q
    for i, (name, modality) in enumerate(model.items()):
        rows = present[:, i].nonzero().squeeze(1).to(z.device)
        if len(rows):
            log_prob = modality.decode(z[rows]).log_prob(data[name][rows])
            log_weight = log_weight.index_add(0, rows, log_prob.to(log_weight.dtype))
    return log_weight


def _times(weight: float | Tensor, values: Tensor) -> Tensor:
    """Rows ``(B, ...)`` by the weight of each."""
    if isinstance(weight, float):
        return weight * values
    return weight.view(-1, *[1] * (values.dim() - 1)) * values


def _names(argument: str, names: str | Sequence[str] | None, model: "MVAE") -> list[str]:
    """The modalities that an argument names."""
    chosen = [] if names is None else [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in model.modalities:
            raise ValueError(
                f"{argument}: got {name!r}, expected modalities of {list(model.modalities)}"
                f"{near(str(name), model.modalities)}"
            )
    return chosen


def _any(present: Tensor, names: Sequence[str], model: "MVAE") -> Tensor:
    """Rows that have one of some modalities."""
    return present[:, [name in names for name in model.modalities]].any(dim=1)
