"""The paper's fully connected encoders and decoders, for any size."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvae_fast.checks import boolean, integer
from mvae_fast.vae.builders.batch_norm import BatchNorm1d
from mvae_fast.vae.sizes import sizes


def mlp(widths: Sequence[int], batch_norm: bool = False) -> nn.Sequential:
    """Linear layers through ``widths``, that of the input first, each followed by Swish (no learned
    beta); none for a single width.

    Args:
        batch_norm: Normalise before each Swish; see `BatchNorm1d`.

    Example:
        >>> [type(layer).__name__ for layer in mlp([64, 512, 512])]
        ['Linear', 'SiLU', 'Linear', 'SiLU']
    """
    batch_norm = boolean("batch_norm", batch_norm)
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(widths, widths[1:], strict=False):
        layers.append(nn.Linear(fan_in, fan_out))
        if batch_norm:
            layers.append(BatchNorm1d(fan_out))
        layers.append(nn.SiLU())
    return nn.Sequential(*layers)


class GaussianHead(nn.Module):
    """Linear layers for the mean and the log-variance of a diagonal Gaussian of ``latent_dim``.

    Example:
        >>> import torch
        >>> mean, logvar = GaussianHead(512, 128)(torch.zeros(3, 512))
        >>> mean.shape, logvar.shape
        (torch.Size([3, 128]), torch.Size([3, 128]))
    """

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        latent_dim = integer("latent_dim", latent_dim, 1)
        self.linear = nn.Linear(width, 2 * latent_dim)  # both heads in one matrix product

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, ``(B, D)`` each, from features ``(B, width)``."""
        mean, logvar = self.linear(y).chunk(2, dim=-1)
        return mean, logvar


class MLPEncoder(nn.Module):
    """Flatten, Swish layers, Gaussian head: the paper's image encoder.

    Args:
        shape: Shape of one row of data, for example ``(28, 28)``.
        latent_dim: Latent size D.
        hidden: Widths of the hidden layers; the paper's are two of 512.
        batch_norm: Normalise before each Swish, as the MVAE's nets for CelebA's attributes do.

    References:
        Nedelkoski, Bogojeski, Kao 2020, section 4 (512 units, Swish, heads of D units).

    Example:
        >>> import torch
        >>> mean, logvar = MLPEncoder((8, 8), latent_dim=128)(torch.zeros(3, 8, 8))
        >>> mean.shape
        torch.Size([3, 128])
    """

    def __init__(
        self,
        shape: Sequence[int] | int,
        latent_dim: int,
        hidden: Sequence[int] | int = (512, 512),
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = [math.prod(sizes("shape", shape)), *sizes("hidden", hidden, at_least=0)]
        self.net = nn.Sequential(
            nn.Flatten(), mlp(widths, batch_norm), GaussianHead(widths[-1], latent_dim)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, ``(B, D)`` each, from data ``(B, *shape)``."""
        return self.net(x)


class EmbeddingEncoder(nn.Module):
    """Embedding, Swish layers, Gaussian head: the paper's label encoder.

    There are only as many results as classes. Where a mini-batch has more rows than that the layers
    run once for each class, and the rows pick theirs.

    Args:
        num_classes: Number of classes.
        latent_dim: Latent size D.
        hidden: Width of the embedding, then of the hidden layers; the paper's are 512, 512.

    References:
        Nedelkoski, Bogojeski, Kao 2020, section 4.

    Example:
        >>> import torch
        >>> mean, logvar = EmbeddingEncoder(10, latent_dim=128)(torch.arange(10))
        >>> mean.shape
        torch.Size([10, 128])
    """

    def __init__(
        self, num_classes: int, latent_dim: int, hidden: Sequence[int] | int = (512, 512)
    ) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 1)
        hidden = sizes("hidden", hidden)
        self.num_classes = num_classes
        self.net = nn.Sequential(
            nn.Embedding(num_classes, hidden[0]),
            nn.SiLU(),
            mlp(hidden),
            GaussianHead(hidden[-1], latent_dim),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, ``(B, D)`` each, from labels ``(B,)``."""
        if len(x) <= self.num_classes:
            return self.net(x)
        expert = self.net(torch.arange(self.num_classes, device=x.device))
        # Rather than expert[0][x]: the gradient of an embedding is summed in the same order in
        # every run, on a GPU too.
        return F.embedding(x, expert[0]), F.embedding(x, expert[1])


class MLPDecoder(nn.Module):
    """Swish layers and a linear one: the paper's image decoder and, with ``shape=(C,)``, its label
    decoder.

    Args:
        latent_dim: Latent size D.
        shape: Shape of one row of output, for example ``(28, 28)`` pixels or ``(10,)`` class
            logits.
        hidden: Widths of the hidden layers; the paper's are three of 512.
        batch_norm: Normalise before each Swish, as the MVAE's nets for CelebA's attributes do.

    References:
        Nedelkoski, Bogojeski, Kao 2020, section 4.

    Example:
        >>> import torch
        >>> MLPDecoder(128, (8, 8))(torch.zeros(3, 128)).shape
        torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int] | int,
        hidden: Sequence[int] | int = (512, 512, 512),
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        shape = sizes("shape", shape)
        widths = [integer("latent_dim", latent_dim, 1), *sizes("hidden", hidden, at_least=0)]
        self.net = nn.Sequential(
            mlp(widths, batch_norm),
            nn.Linear(widths[-1], math.prod(shape)),
            nn.Unflatten(-1, shape),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Likelihood parameters ``(B, *shape)`` from latents ``(B, D)``."""
        return self.net(z)
