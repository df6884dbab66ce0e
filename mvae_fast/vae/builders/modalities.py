"""Modalities by name: the paper's encoders and decoders, put together."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor, nn

from mvae_fast.checks import boolean, integer
from mvae_fast.vae.builders.conv_networks import ConvDecoder, ConvEncoder
from mvae_fast.vae.builders.networks import EmbeddingEncoder, MLPDecoder, MLPEncoder
from mvae_fast.vae.builders.standardize import Standardize, StandardizedLikelihood
from mvae_fast.vae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Likelihood,
    OrdinalLikelihood,
)
from mvae_fast.vae.likelihoods.counts import CountLikelihood
from mvae_fast.vae.likelihoods.registry import make_likelihood
from mvae_fast.vae.modality import Modality
from mvae_fast.vae.sizes import sizes

Named = str | Mapping[str, Any] | Likelihood


def mlp_modality(
    shape: Sequence[int] | int,
    latent_dim: int,
    *,
    hidden: int | Sequence[int] = 512,
    likelihood: Named = "bernoulli",
    weight: float = 1.0,
    standardize: Mapping[str, Any] | None = None,
) -> Modality:
    """An image or any other array, with the paper's fully connected encoder and decoder.

    Of the paper's data these are the images of the MNIST family, and Flickr's descriptors: 3857
    numbers of an image, standardised, with ``likelihood="normal"``, and 2000 tags of 0 or 1.

    Args:
        shape: Shape of one row; an integer for rows of that many numbers.
        latent_dim: Latent size D.
        hidden: Width of the hidden layers: two in the encoder, three in the decoder; or the widths
            of each of the encoder's, which the decoder has in reverse.
        likelihood: A name of `LIKELIHOODS`, such as ``"bernoulli"`` for data in [0, 1] and
            ``"normal"`` for any real numbers; a mapping with ``name`` and arguments, such as
            ``{"name": "normal", "scale": 0.3}``; or a `Likelihood`. Of counts the encoder sees
            log(1 + x).
        weight: lambda of this modality.
        standardize: ``{"mean": ..., "std": ...}`` of real numbers, a number each or one for each
            number of a row: nets and likelihood then see (x - mean) / std, while data, samples and
            densities stay in the data's own units.

    Raises:
        ValueError: If the likelihood is unknown, or not of real numbers that are to be
            standardised, or a size is no positive integer.

    Example:
        >>> mlp_modality((28, 28), latent_dim=128).shape
        (28, 28)
        >>> mlp_modality(5, 2, hidden=[64, 32], likelihood="poisson").likelihood
        PoissonLikelihood()
    """
    shape = sizes("shape", shape)
    scored = make_likelihood(likelihood, shape)
    encoder: nn.Module = MLPEncoder(shape, latent_dim, _widths(hidden, 2))
    if isinstance(scored, CountLikelihood):
        encoder = nn.Sequential(Log1p(), encoder)
    encoder, scored = _in_units(encoder, scored, shape, standardize)
    return Modality(
        encoder,
        MLPDecoder(latent_dim, _outputs(scored, shape), _widths(hidden, 3)[::-1]),
        scored,
        weight=weight,
        shape=shape,
    )


def label_modality(
    num_classes: int,
    latent_dim: int,
    *,
    hidden: int | Sequence[int] = 512,
    classes: Sequence[str] | None = None,
    ordered: bool = False,
    weight: float = 1.0,
) -> Modality:
    """A class label, with the paper's embedding encoder and fully connected decoder.

    Args:
        num_classes: Number of classes; labels are integers in 0..num_classes-1.
        latent_dim: Latent size D.
        hidden: Width of the embedding and of the hidden layers; or the widths of each of the
            encoder's, which the decoder has in reverse.
        classes: Names of the classes in the order of their numbers; data may then be names.
        ordered: The classes have an order, as grades have: an `OrdinalLikelihood`.
        weight: lambda of this modality.

    Example:
        >>> label_modality(10, latent_dim=128, weight=50.0).weight
        50.0
    """
    # The encoder first: a seed must go on to give the weights that it gave.
    encoder = EmbeddingEncoder(num_classes, latent_dim, _widths(hidden, 2))
    decoder: nn.Module
    if boolean("ordered", ordered):
        likelihood: Likelihood = OrdinalLikelihood(num_classes, classes)
        one = MLPDecoder(latent_dim, (1,), _widths(hidden, 3)[::-1])
        decoder = nn.Sequential(one, nn.Flatten(0))
    else:
        likelihood = CategoricalLikelihood(num_classes, classes)
        decoder = MLPDecoder(latent_dim, (num_classes,), _widths(hidden, 3)[::-1])
    return Modality(encoder, decoder, likelihood, weight=weight, shape=())


def conv_modality(
    shape: Sequence[int] | int,
    latent_dim: int,
    *,
    hidden: int | None = None,
    channels: int = 32,
    likelihood: Named = "bernoulli",
    weight: float = 1.0,
    standardize: Mapping[str, Any] | None = None,
) -> Modality:
    """An image, with the paper's convolutional encoder and decoder for CelebA.

    Args:
        shape: ``(C, H, W)`` of an image; H and W at least 8. What is no multiple of 8, or less than
            32, is padded with 0 inside.
        latent_dim: Latent size D; the paper's is 196.
        hidden: Width of a fully connected layer between convolutions and latents, on both sides;
            None, as in the paper, for no such layer.
        channels: Of the convolution next to the image; see `ConvEncoder`.
        likelihood: As of `mlp_modality`.
        weight: lambda of this modality.
        standardize: As of `mlp_modality`.

    Raises:
        ValueError: If the likelihood is unknown, or ``shape`` does not fit.

    Example:
        >>> conv_modality((3, 64, 64), latent_dim=196).shape
        (3, 64, 64)
    """
    shape = sizes("shape", shape)
    layers = () if hidden is None else (hidden,)
    scored = make_likelihood(likelihood, shape)
    outputs = _outputs(scored, shape)
    encoder: nn.Module = ConvEncoder(shape, latent_dim, layers, channels)
    decoder: nn.Module = ConvDecoder(
        latent_dim, (math.prod(outputs[:-2]), *shape[1:]), layers, channels
    )
    if outputs != shape:
        decoder = nn.Sequential(decoder, nn.Unflatten(1, outputs[:2]))
    encoder, scored = _in_units(encoder, scored, shape, standardize)
    return Modality(encoder, decoder, scored, weight=weight, shape=shape)


def attribute_modality(
    latent_dim: int, *, hidden: int | Sequence[int] = 512, weight: float = 1.0
) -> Modality:
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
    n: int, latent_dim: int, *, hidden: int | Sequence[int] = 512, weight: float = 1.0
) -> Modality:
    """Binary attributes that are one modality together, numbers in [0, 1], as CelebA's 18 beside
    the image.

    Fully connected layers with batch norm and Swish, and a Bernoulli each.

    Args:
        n: Number of attributes.
        latent_dim: Latent size D.
        hidden: As of `mlp_modality`.
        weight: lambda of this modality.

    References:
        Wu and Goodman 2018, section 5.2 and their code.

    Example:
        >>> attributes_modality(18, latent_dim=100, weight=10.0).shape
        (18,)
    """
    n = integer("n", n, 1)
    return Modality(
        MLPEncoder((n,), latent_dim, _widths(hidden, 2), batch_norm=True),
        MLPDecoder(latent_dim, (n,), _widths(hidden, 3)[::-1], batch_norm=True),
        BernoulliLikelihood(),
        weight=weight,
        shape=(n,),
    )


class Log1p(nn.Module):
    """log(1 + x) of counts, which span orders of magnitude."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return x.log1p()


def _in_units(
    encoder: nn.Module,
    likelihood: Likelihood,
    shape: tuple[int, ...],
    standardize: Mapping[str, Any] | None,
) -> tuple[nn.Module, Likelihood]:
    """Encoder and likelihood of data whose standardised form they are made for."""
    if standardize is None:
        return encoder, likelihood
    units = Standardize(standardize, shape)
    return nn.Sequential(units, encoder), StandardizedLikelihood(likelihood, units)


def _widths(hidden: int | Sequence[int], depth: int) -> list[int]:
    """Widths of an encoder's layers: ``depth`` times a single number, or those of a sequence."""
    if isinstance(hidden, Integral):
        return [integer("hidden", hidden, 1)] * depth
    return list(sizes("hidden", hidden))


def _outputs(likelihood: Likelihood, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what a decoder gives for a row."""
    return shape if likelihood.n_outputs == 1 else (likelihood.n_outputs, *shape)


#: Builders by the ``type`` that `build_mvae` reads.
MODALITIES: dict[str, Callable[..., Modality]] = {
    "attribute": attribute_modality,
    "attributes": attributes_modality,
    "conv": conv_modality,
    "label": label_modality,
    "mlp": mlp_modality,
}
