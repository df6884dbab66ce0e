"""Likelihoods: what a decoder's output says about the data, as a torch.distributions object."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from mvae_fast.checks import integer, positive


class Likelihood(ABC):
    """Maps decoder outputs to a distribution over the data of each row.

    Any callable ``output -> torch.distributions.Distribution`` whose ``log_prob`` gives one number
    a row may stand in for it; a `Likelihood` also knows which data it can score (`check`).
    """

    @abstractmethod
    def __call__(self, output: Tensor) -> Distribution:
        """Distribution with batch shape ``(B,)`` from a decoder output ``(B, ...)``."""

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Raise a ValueError or TypeError that says why the data ``x`` (B, ...) cannot be
        scored."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class BernoulliLikelihood(Likelihood):
    r"""Bernoulli likelihood with logits; the targets may be anything in [0, 1].

    For grey values the log-likelihood is minus the binary cross-entropy
    :math:`-\sum_j [\max(l_j, 0) - l_j x_j + \log(1 + e^{-|l_j|})]`, summed over the row, as in the
    paper.

    Example:
        >>> BernoulliLikelihood()(torch.zeros(2, 8, 8)).log_prob(torch.full((2, 8, 8), 0.3)) / 64
        tensor([-0.6931, -0.6931])
    """

    def __call__(self, output: Tensor) -> Distribution:
        """Bernoulli with logits ``output`` (B, ...); the event is the whole row."""
        return Independent(
            Bernoulli(logits=output, validate_args=False), output.dim() - 1, validate_args=False
        )

    def check(self, x: Tensor) -> None:
        """Data must be floating point and lie in [0, 1]."""
        if not x.is_floating_point():
            raise TypeError(f"a Bernoulli likelihood needs floating-point data, got {x.dtype}")
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError(
                "a Bernoulli likelihood needs data in [0, 1], "
                # All digits: what a resizing leaves above 1 is 1.0000001.
                f"got values from {x.min().item():.17g} to {x.max().item():.17g}; remedy: scale "
                "the data, or x.clamp(0, 1) where it is rounding only"
            )


class CategoricalLikelihood(Likelihood):
    """Categorical likelihood with logits over the last axis of the decoder's output.

    Args:
        num_classes: Number of classes C; the data are integers in 0..C-1.

    Raises:
        ValueError: If ``num_classes`` is not an integer of at least 2.

    Example:
        >>> CategoricalLikelihood(10)(torch.zeros(2, 10)).log_prob(torch.tensor([3, 9]))
        tensor([-2.3026, -2.3026])
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = integer("num_classes", num_classes, 2)

    def __call__(self, output: Tensor) -> Distribution:
        """Categorical with logits ``output`` (B, ..., C); the event is the whole row."""
        if output.shape[-1] != self.num_classes:
            raise ValueError(
                f"a Categorical likelihood of {self.num_classes} classes needs as many logits, "
                f"the decoder gave {output.shape[-1]}"
            )
        categorical = Categorical(logits=output, validate_args=False)
        return Independent(categorical, output.dim() - 2, validate_args=False)

    def check(self, x: Tensor) -> None:
        """Data must be int64 in 0..C-1."""
        if x.dtype != torch.int64:
            raise TypeError(f"a Categorical likelihood needs int64 data, got {x.dtype}")
        if not ((x >= 0) & (x < self.num_classes)).all():
            raise ValueError(
                f"a Categorical likelihood of {self.num_classes} classes needs data in "
                f"0..{self.num_classes - 1}, got values from {x.min().item()} to {x.max().item()}"
            )

    def __repr__(self) -> str:
        return f"CategoricalLikelihood({self.num_classes})"


class NormalLikelihood(Likelihood):
    """Normal likelihood around the decoder's output, with one fixed standard deviation.

    Args:
        scale: Standard deviation.

    Raises:
        ValueError: If ``scale`` is not positive and finite.

    Example:
        >>> NormalLikelihood(2.0)(torch.zeros(1, 3)).stddev
        tensor([[2., 2., 2.]])
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = positive("scale", scale)

    def __call__(self, output: Tensor) -> Distribution:
        """Normal with mean ``output`` (B, ...); the event is the whole row."""
        normal = Normal(output, self.scale, validate_args=False)
        return Independent(normal, output.dim() - 1, validate_args=False)

    def check(self, x: Tensor) -> None:
        """Data must be floating point and finite."""
        if not x.is_floating_point():
            raise TypeError(f"a Normal likelihood needs floating-point data, got {x.dtype}")
        if not x.isfinite().all():
            raise ValueError("a Normal likelihood needs finite data, got NaN or infinity")

    def __repr__(self) -> str:
        return f"NormalLikelihood({self.scale})"
