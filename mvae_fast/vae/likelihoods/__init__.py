"""Likelihoods: what a decoder's output says about the data, as a torch.distributions object."""

from mvae_fast.vae.likelihoods.base import Likelihood
from mvae_fast.vae.likelihoods.binary import BernoulliLikelihood, ContinuousBernoulliLikelihood
from mvae_fast.vae.likelihoods.classes import CategoricalLikelihood, OrdinalLikelihood
from mvae_fast.vae.likelihoods.counts import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from mvae_fast.vae.likelihoods.levels import CategoricalLevelsLikelihood, LogisticLevelsLikelihood
from mvae_fast.vae.likelihoods.real import LaplaceLikelihood, NormalLikelihood, StudentTLikelihood
from mvae_fast.vae.likelihoods.unit import BetaLikelihood

__all__ = [
    "BernoulliLikelihood", "BetaLikelihood", "CategoricalLevelsLikelihood",
    "CategoricalLikelihood", "ContinuousBernoulliLikelihood", "LaplaceLikelihood", "Likelihood",
    "LogisticLevelsLikelihood", "NegativeBinomialLikelihood", "NormalLikelihood",
    "OrdinalLikelihood", "PoissonLikelihood", "StudentTLikelihood",
    "ZeroInflatedNegativeBinomialLikelihood",
]  # fmt: skip
