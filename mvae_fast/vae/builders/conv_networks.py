"""The paper's convolutional encoder and decoder, for images."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from mvae_fast.checks import integer
from mvae_fast.vae.builders.batch_norm import BatchNorm2d
from mvae_fast.vae.builders.networks import GaussianHead, mlp
from mvae_fast.vae.sizes import sizes

# Kernel, stride and padding. Three layers halve the image; the last one takes 3 off.
_HALVE = (4, 2, 1)
_SHRINK = (4, 1, 0)
_LAYERS = (_HALVE, _HALVE, _HALVE, _SHRINK)


class ConvEncoder(nn.Module):
    """Four times convolution, batch norm and Swish; a Gaussian head on all their features.

    Kernels, strides and channels are those of the MVAE's CelebA nets: at 64 x 64 pixels 32, 64, 128
    and 256 channels of 32 x 32, 16 x 16, 8 x 8 and 5 x 5. As the paper has it, and unlike those
    nets, the first convolution has batch norm too and the features go straight to the head;
    ``hidden=(512,)`` puts the layer between that they have there, less its dropout: the noise of
    the posterior's sample regularises already, and a term's dropped units would be a second source
    of noise in its gradient.

    Args:
        shape: ``(C, H, W)`` of an image; H and W at least 8. What is no multiple of 8, or less than
            32, is padded with 0 inside.
        latent_dim: Latent size D.
        hidden: Widths of fully connected layers between convolutions and head.
        channels: Of the first convolution; each further one has twice as many.

    Raises:
        ValueError: If ``shape`` does not fit.

    References:
        Nedelkoski, Bogojeski, Kao 2020, section 4 (CelebA: 4 x [conv, batch norm], 196 latent
        units); Wu and Goodman 2018, section 5.2 and their code.

    Example:
        >>> import torch
        >>> mean, logvar = ConvEncoder((3, 64, 64), latent_dim=196)(torch.zeros(2, 3, 64, 64))
        >>> mean.shape
        torch.Size([2, 196])
    """

    def __init__(
        self,
        shape: Sequence[int] | int,
        latent_dim: int,
        hidden: Sequence[int] | int = (),
        channels: int = 32,
    ) -> None:
        super().__init__()
        widths, size, margins = _plan(shape, channels)
        layers: list[nn.Module] = [nn.ZeroPad2d(margins)] if any(margins) else []
        for fan_in, fan_out, how in zip(widths, widths[1:], _LAYERS, strict=False):
            # The batch norm's shift makes a bias of the convolution redundant.
            layers += [nn.Conv2d(fan_in, fan_out, *how, bias=False), BatchNorm2d(fan_out)]
            layers += [nn.SiLU()]
        features = [math.prod(size), *sizes("hidden", hidden, at_least=0)]
        self.net = nn.Sequential(
            *layers, nn.Flatten(), mlp(features), GaussianHead(features[-1], latent_dim)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, ``(B, D)`` each, from images ``(B, C, H, W)``."""
        return self.net(x)


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`: a linear layer with Swish, three times transposed
    convolution, batch norm and Swish, and a transposed convolution to the output.

    Args:
        latent_dim: Latent size D.
        shape: ``(C, H, W)`` of an image; H and W at least 8. What is no multiple of 8, or less than
            32, is padded with 0 inside.
        hidden: Widths of fully connected layers before the convolutions.
        channels: Into the last convolution; each one before has twice as many.

    Raises:
        ValueError: If ``shape`` does not fit.

    Example:
        >>> import torch
        >>> ConvDecoder(196, (3, 64, 64))(torch.zeros(2, 196)).shape
        torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int] | int,
        hidden: Sequence[int] | int = (),
        channels: int = 32,
    ) -> None:
        super().__init__()
        latent_dim = integer("latent_dim", latent_dim, 1)
        widths, size, margins = _plan(shape, channels)
        layers: list[nn.Module] = []
        for fan_out, fan_in, how in reversed(list(zip(widths, widths[1:], _LAYERS, strict=False))):
            layers += [nn.ConvTranspose2d(fan_in, fan_out, *how, bias=False)]
            layers += [BatchNorm2d(fan_out), nn.SiLU()]
        # The output has no batch norm, hence a bias of its own.
        layers[-3:] = [nn.ConvTranspose2d(widths[1], widths[0], *_HALVE)]
        if any(margins):
            left, right, top, bottom = margins
            layers.append(nn.ZeroPad2d((-left, -right, -top, -bottom)))  # crops
        self.net = nn.Sequential(
            mlp([latent_dim, *sizes("hidden", hidden, at_least=0), math.prod(size)]),
            nn.Unflatten(-1, size),
            *layers,
        )

    def forward(self, z: Tensor) -> Tensor:
        """Likelihood parameters ``(B, C, H, W)`` from latents ``(B, D)``."""
        return self.net(z)


def _plan(
    shape: Sequence[int] | int, channels: int
) -> tuple[list[int], tuple[int, int, int], tuple[int, int, int, int]]:
    """Channels from the image on, the shape of the features, and by how much the image is padded:
    left, right, top, bottom."""
    shape = sizes("shape", shape)
    if len(shape) != 3 or any(side < 8 for side in shape[1:]):
        raise ValueError(f"shape: got {shape}, expected (C, H, W) with H and W at least 8")
    channels = integer("channels", channels, 1)
    widths = [shape[0], channels, 2 * channels, 4 * channels, 8 * channels]
    height, width = (max(32, -(-side // 8) * 8) for side in shape[1:])
    left, top = (width - shape[2]) // 2, (height - shape[1]) // 2
    margins = (left, width - shape[2] - left, top, height - shape[1] - top)
    return widths, (widths[-1], height // 8 - 3, width // 8 - 3), margins
