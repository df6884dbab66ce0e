"""Multimodal variational autoencoders with product-of-experts inference and flow posteriors."""

from mvae_fast.vae.annealing import ANNEALING, jump_annealing, linear_annealing
from mvae_fast.vae.builders.batch_norm import BatchNorm1d, BatchNorm2d
from mvae_fast.vae.builders.build import build_mvae
from mvae_fast.vae.builders.conv_networks import ConvDecoder, ConvEncoder
from mvae_fast.vae.builders.modalities import (
    attribute_modality,
    attributes_modality,
    conv_modality,
    label_modality,
    mlp_modality,
)
from mvae_fast.vae.builders.networks import EmbeddingEncoder, MLPDecoder, MLPEncoder
from mvae_fast.vae.builders.posteriors import (
    FLOWS,
    cnf_bias_posterior,
    cnf_posterior,
    cnf_rank_posterior,
    iaf_posterior,
    planar_posterior,
    sylvester_posterior,
)
from mvae_fast.vae.builders.saved import load_mvae, save_mvae
from mvae_fast.vae.elbo import ElboTerms, elbo_terms, gaussian_kl
from mvae_fast.vae.evaluation import evaluate
from mvae_fast.vae.inference.aggregation import (
    Aggregation,
    GeneralizedProductOfExperts,
    MixtureOfExperts,
    MixtureOfProducts,
    ProductOfExperts,
)
from mvae_fast.vae.inference.experts import product_of_experts
from mvae_fast.vae.inference.mixtures import MixturePosterior
from mvae_fast.vae.inference.subsets import joint_and_unimodal, random_subsets
from mvae_fast.vae.likelihoods import (
    BernoulliLikelihood,
    BetaLikelihood,
    CategoricalLevelsLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    LaplaceLikelihood,
    Likelihood,
    LogisticLevelsLikelihood,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    OrdinalLikelihood,
    PoissonLikelihood,
    StudentTLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from mvae_fast.vae.likelihoods.registry import LIKELIHOODS
from mvae_fast.vae.modality import Modality
from mvae_fast.vae.mvae import MVAE, Objective
from mvae_fast.vae.queries import Imputed, Score

__all__ = [
    "ANNEALING", "FLOWS", "LIKELIHOODS", "MVAE", "Aggregation", "BatchNorm1d", "BatchNorm2d",
    "BernoulliLikelihood", "BetaLikelihood", "CategoricalLevelsLikelihood",
    "CategoricalLikelihood", "ContinuousBernoulliLikelihood", "ConvDecoder", "ConvEncoder",
    "ElboTerms", "EmbeddingEncoder", "GeneralizedProductOfExperts", "Imputed", "LaplaceLikelihood",
    "Likelihood", "LogisticLevelsLikelihood", "MLPDecoder", "MLPEncoder", "MixtureOfExperts",
    "MixtureOfProducts", "MixturePosterior", "Modality", "NegativeBinomialLikelihood",
    "NormalLikelihood", "Objective", "OrdinalLikelihood", "PoissonLikelihood", "ProductOfExperts",
    "Score", "StudentTLikelihood", "ZeroInflatedNegativeBinomialLikelihood", "attribute_modality",
    "attributes_modality", "build_mvae", "cnf_bias_posterior", "cnf_posterior",
    "cnf_rank_posterior", "conv_modality", "elbo_terms", "evaluate", "gaussian_kl",
    "iaf_posterior", "joint_and_unimodal", "jump_annealing", "label_modality", "linear_annealing",
    "load_mvae", "mlp_modality", "planar_posterior", "product_of_experts", "random_subsets",
    "save_mvae", "sylvester_posterior",
]  # fmt: skip
