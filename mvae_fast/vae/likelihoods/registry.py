"""Likelihoods by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mvae_fast.checks import one_of
from mvae_fast.vae.likelihoods.base import Likelihood
from mvae_fast.vae.likelihoods.binary import BernoulliLikelihood, ContinuousBernoulliLikelihood
from mvae_fast.vae.likelihoods.counts import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from mvae_fast.vae.likelihoods.levels import CategoricalLevelsLikelihood, LogisticLevelsLikelihood
from mvae_fast.vae.likelihoods.real import LaplaceLikelihood, NormalLikelihood, StudentTLikelihood
from mvae_fast.vae.likelihoods.unit import BetaLikelihood

#: Likelihoods of arrays by the name that descriptions of models use.
LIKELIHOODS: dict[str, Callable[..., Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "beta": BetaLikelihood,
    "categorical_levels": CategoricalLevelsLikelihood,
    "continuous_bernoulli": ContinuousBernoulliLikelihood,
    "gaussian": NormalLikelihood,
    "laplace": LaplaceLikelihood,
    "logistic_levels": LogisticLevelsLikelihood,
    "negative_binomial": NegativeBinomialLikelihood,
    "normal": NormalLikelihood,
    "poisson": PoissonLikelihood,
    "student_t": StudentTLikelihood,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomialLikelihood,
}


def make_likelihood(
    likelihood: str | Mapping[str, Any] | Likelihood,
    shape: Sequence[int],
    known: Mapping[str, Callable[..., Likelihood]] = LIKELIHOODS,
) -> Likelihood:
    """A likelihood of rows of a shape, by name.

    Args:
        likelihood: A name of those that are known; a mapping with ``name`` and arguments; or a
            `Likelihood`, which is returned as it is.
        shape: Of a row of data.
        known: Likelihoods by name.

    Raises:
        ValueError: If the name or an argument is unknown.

    Example:
        >>> make_likelihood({"name": "normal", "scale": 0.3}, (8, 8))
        NormalLikelihood(0.3)
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if not isinstance(likelihood, Mapping):
        likelihood = {"name": likelihood}
    arguments = dict(likelihood)
    name = one_of("likelihood", arguments.pop("name", None), list(known))
    make = known[name]
    names = [each for each in inspect.signature(make).parameters if each != "shape"]
    if unknown := sorted(set(arguments) - set(names)):
        raise ValueError(f"likelihood: {name} has no argument {unknown}, only {names}")
    if "shape" in inspect.signature(make).parameters:
        arguments["shape"] = shape
    return make(**arguments)
