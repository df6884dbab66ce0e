"""Modalities by name: the paper's encoders and decoders, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mvae_fast.vae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Likelihood,
    NormalLikelihood,
)
from mvae_fast.vae.modality import Modality
from mvae_fast.vae.networks import EmbeddingEncoder, MLPDecoder, MLPEncoder

__all__ = ["MODALITIES", "label_modality", "mlp_modality"]

LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "normal": NormalLikelihood,
}


def mlp_modality(
    shape: Sequence[int],
    latent_dim: int,
    *,
    hidden: int = 512,
    likelihood: str = "bernoulli",
    weight: float = 1.0,
) -> Modality:
    """An image or any other array, with the paper's fully connected encoder and decoder.

    Args:
        shape: shape of one row.
        latent_dim: latent size D.
        hidden: width of the hidden layers: two in the encoder, three in the decoder.
        likelihood: ``"bernoulli"`` for data in [0, 1], ``"normal"`` for anything else.
        weight: lambda of this modality.

    Returns:
        The modality.

    Raises:
        ValueError: if the likelihood is unknown.

    Example:
        >>> mlp_modality((28, 28), latent_dim=128).shape
        (28, 28)
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {sorted(LIKELIHOODS)}, got {likelihood!r}")
    return Modality(
        MLPEncoder(shape, latent_dim, [hidden] * 2),
        MLPDecoder(latent_dim, shape, [hidden] * 3),
        LIKELIHOODS[likelihood](),
        weight=weight,
        shape=tuple(shape),
    )


def label_modality(
    num_classes: int, latent_dim: int, *, hidden: int = 512, weight: float = 1.0
) -> Modality:
    """A class label, with the paper's embedding encoder and fully connected decoder.

    Args:
        num_classes: number of classes; labels are integers in 0..num_classes-1.
        latent_dim: latent size D.
        hidden: width of the embedding and of the hidden layers.
        weight: lambda of this modality.

    Returns:
        The modality.

    Example:
        >>> label_modality(10, latent_dim=128, weight=50.0).weight
        50.0
    """
    return Modality(
        EmbeddingEncoder(num_classes, latent_dim, [hidden] * 2),
        MLPDecoder(latent_dim, (num_classes,), [hidden] * 3),
        CategoricalLikelihood(num_classes),
        weight=weight,
        shape=(),
    )


#: Builders by the ``type`` that `build_mvae` reads.
MODALITIES: dict[str, Callable[..., Modality]] = {"mlp": mlp_modality, "label": label_modality}
