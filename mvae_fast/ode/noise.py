r"""Probes of Hutchinson's trace estimator, ``Tr J = E[eps . J eps]`` for ``Cov(eps) = I``."""

from typing import Any

import torch
from torch import Tensor


def draw_probes(
    z: Tensor,
    n_probes: int = 1,
    *,
    rademacher: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise for one solve, in the dtype and on the device of ``z``.

    Args:
        z: (B, ...), the state.
        n_probes: K, the number of probes whose estimates are averaged.
        rademacher: Signs instead of Gaussian noise.
        generator: Source of randomness on the device of ``z``; default PyTorch's own.

    Returns:
        (K, B, ...), unscaled.

    Raises:
        TypeError: If ``generator`` is none.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator: got {generator!r}, expected a torch.Generator; "
            "remedy: torch.Generator(device).manual_seed(seed)"
        )
    shape = (n_probes, *z.shape)
    # With the argument, even None, torch.compile takes fixed sizes only.
    source: dict[str, Any] = {} if generator is None else {"generator": generator}
    if not rademacher:
        return torch.randn(shape, **source, dtype=z.dtype, device=z.device)
    signs = torch.randint(0, 2, shape, **source, device=z.device)
    return signs.to(z.dtype) * 2 - 1


def as_probes(noise: Tensor, z: Tensor) -> Tensor:
    """Check the caller's noise and give it the leading axis of probes.

    Args:
        noise: (B, ...) like ``z``, or (K, B, ...) with K >= 1; constant, it gets no gradient.
        z: The state.

    Returns:
        (K, B, ...).

    Raises:
        ValueError: If shape, dtype or device differ from those of ``z``, or a gradient is expected.
    """
    shape = tuple(noise.shape)
    given = shape[: noise.ndim - z.ndim]
    if shape != (*given, *z.shape) or len(given) > 1 or given == (0,):
        expected = ", ".join(map(str, z.shape))
        raise ValueError(f"probes: got shape {shape}, expected ({expected}) or (K, {expected})")
    if noise.dtype != z.dtype or noise.device != z.device:
        raise ValueError(
            f"probes: got {noise.dtype} on {noise.device}, expected those of z, {z.dtype} on "
            f"{z.device}"
        )
    if noise.requires_grad:
        raise ValueError(
            "probes: got a tensor that requires grad, expected noise without grad; "
            "remedy: probes.detach()"
        )
    return noise if noise.ndim > z.ndim else noise.unsqueeze(0)


def scaled(probes: Tensor) -> Tensor:
    """Fold the mean over K probes into the probes: their sum of estimates becomes the average."""
    return probes if probes.shape[0] == 1 else probes * probes.shape[0] ** -0.5
