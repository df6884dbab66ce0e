"""Modalities by name: the paper's encoders and decoders, put together."""

from collections.abc import Callable, Sequence

from mvae_fast.checks import integer, one_of
from mvae_fast.vae.builders.conv_networks import ConvDecoder, ConvEncoder
from mvae_fast.vae.builders.networks import EmbeddingEncoder, MLPDecoder, MLPEncoder
from mvae_fast.vae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Likelihood,
    NormalLikelihood,
)
from mvae_fast.vae.modality import Modality
from mvae_fast.vae.sizes import sizes

LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "normal": NormalLikelihood,
}


def mlp_modality(
    shape: Sequence[int] | int,
    latent_dim: int,
    *,
    hidden: int = 512,
    likelihood: str = "bernoulli",
    weight: float = 1.0,
) -> Modality:
    """An image or any other array, with the paper's fully connected encoder and decoder.

    Of the paper's data these are the images of the MNIST family, and Flickr's descriptors: 3857
    numbers of an image, standardised, with ``likelihood="normal"``, and 2000 tags of 0 or 1.

    Args:
        shape: Shape of one row; an integer for rows of that many numbers.
        latent_dim: Latent size D.
        hidden: Width of the hidden layers: two in the encoder, three in the decoder.
        likelihood: ``"bernoulli"`` for data in [0, 1], ``"normal"`` for anything else.
        weight: lambda of this modality.

    Raises:
        ValueError: If the likelihood is unknown, or a size is no positive integer.

    Example:
        >>> mlp_modality((28, 28), latent_dim=128).shape
        (28, 28)
    """
    shape = sizes("shape", shape)
    return Modality(
        MLPEncoder(shape, latent_dim, [hidden] * 2),
        MLPDecoder(latent_dim, shape, [hidden] * 3),
        LIKELIHOODS[one_of("likelihood", likelihood, list(LIKELIHOODS))](),
        weight=weight,
        shape=shape,
    )


def label_modality(
    num_classes: int, latent_dim: int, *, hidden: int = 512, weight: float = 1.0
) -> Modality:
    """A class label, with the paper's embedding encoder and fully connected decoder.

    Args:
        num_classes: Number of classes; labels are integers in 0..num_classes-1.
        latent_dim: Latent size D.
        hidden: Width of the embedding and of the hidden layers.
        weight: lambda of this modality.

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


def conv_modality(
    shape: Sequence[int] | int,
    latent_dim: int,
    *,
    hidden: int | None = None,
    channels: int = 32,
    likelihood: str = "bernoulli",
    weight: float = 1.0,
) -> Modality:
    """An image, with the paper's convolutional encoder and decoder for CelebA.

    Args:
        shape: ``(C, H, W)`` of an image; H and W multiples of 8, at least 32.
        latent_dim: Latent size D; the paper's is 196.
        hidden: Width of a fully connected layer between convolutions and latents, on both sides;
            None, as in the paper, for no such layer.
        channels: Of the convolution next to the image; see `ConvEncoder`.
        likelihood: ``"bernoulli"`` for data in [0, 1], ``"normal"`` for anything else.
        weight: lambda of this modality.

    Raises:
        ValueError: If the likelihood is unknown, or ``shape`` does not fit.

    Example:
        >>> conv_modality((3, 64, 64), latent_dim=196).shape
        (3, 64, 64)
    """
    shape = sizes("shape", shape)
    layers = () if hidden is None else (hidden,)
    return Modality(
        ConvEncoder(shape, latent_dim, layers, channels),
        ConvDecoder(latent_dim, shape, layers, channels),
        LIKELIHOODS[one_of("likelihood", likelihood, list(LIKELIHOODS))](),
        weight=weight,
        shape=shape,
    )


def attribute_modality(latent_dim: int, *, hidden: int = 512, weight: float = 1.0) -> Modality:
    """One binary attribute, an integer 0 or 1, as one of CelebA's 18 in the experiment with 19
    modalities.

    A label of two classes: the softmax of two logits is the sigmoid of their difference, so this is
    the Bernoulli of the MVAE's single logit, and a sample of it is again an integer that the
    encoder's embedding takes.

    Args:
        latent_dim: Latent size D.
        hidden: Width of the embedding and of the hidden layers.
        weight: lambda of this modality.

    References:
        Wu and Goodman 2018, section 5.2.

    Example:
        >>> import torch
        >>> smiling = attribute_modality(latent_dim=100, weight=10.0)
        >>> smiling.decode(torch.zeros(5, 100)).base_dist.probs.shape
        torch.Size([5, 2])
    """
    return label_modality(2, latent_dim, hidden=hidden, weight=weight)


def attributes_modality(
    n: int, latent_dim: int, *, hidden: int = 512, weight: float = 1.0
) -> Modality:
    """Binary attributes that are one modality together, numbers in [0, 1], as CelebA's 18 beside
    the image.

    Fully connected layers with batch norm and Swish, and a Bernoulli each.

    Args:
        n: Number of attributes.
        latent_dim: Latent size D.
        hidden: Width of the hidden layers: two in the encoder, three in the decoder.
        weight: lambda of this modality.

    References:
        Wu and Goodman 2018, section 5.2 and their code.

    Example:
        >>> attributes_modality(18, latent_dim=100, weight=10.0).shape
        (18,)
    """
    n = integer("n", n, 1)
    return Modality(
        MLPEncoder((n,), latent_dim, [hidden] * 2, batch_norm=True),
        MLPDecoder(latent_dim, (n,), [hidden] * 3, batch_norm=True),
        BernoulliLikelihood(),
        weight=weight,
        shape=(n,),
    )


#: Builders by the ``type`` that `build_mvae` reads.
MODALITIES: dict[str, Callable[..., Modality]] = {
    "attribute": attribute_modality,
    "attributes": attributes_modality,
    "conv": conv_modality,
    "label": label_modality,
    "mlp": mlp_modality,
}
