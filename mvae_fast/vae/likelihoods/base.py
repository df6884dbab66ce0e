"""What every likelihood is."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent


class Likelihood(ABC):
    """Maps decoder outputs to a distribution over the data of each row.

    Any callable ``output -> torch.distributions.Distribution`` whose ``log_prob`` gives one number
    a row may stand in for it; a `Likelihood` also knows which data it can score (`check`). One that
    learns parameters is a ``torch.nn.Module``, too.
    """

    n_outputs: int = 1
    """Numbers that a decoder gives for each number of the data. Where it is k > 1 the decoder's
    output is ``(B, k, *shape)``, else ``(B, *shape)``."""

    @abstractmethod
    def __call__(self, output: Tensor) -> Distribution:
        """Distribution with batch shape ``(B,)`` from a decoder output ``(B, ...)``."""

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Raise a ValueError or TypeError that says why the data ``x`` (B, ...) cannot be
        scored."""

    def read(self, x: Any) -> Any:
        """What a user has for data that are no tensor yet, such as names of classes, as numbers.

        Raises:
            ValueError: If they cannot be read.
        """
        return x

    def cast(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The data as encoders and `log_prob` take them, where another form is beyond doubt.

        Args:
            x: ``(B, ...)``, as a user has them.
            dtype: That of the model.
        """
        return x

    def split(self, output: Tensor) -> tuple[Tensor, ...]:
        """The `n_outputs` parts of a decoder's output, ``(B, *shape)`` each.

        Raises:
            ValueError: If there are not that many.
        """
        if self.n_outputs == 1:
            return (output,)
        if output.dim() < 2 or output.shape[1] != self.n_outputs:
            raise ValueError(
                f"{self!r} needs a decoder's output (B, {self.n_outputs}, ...), "
                f"got {tuple(output.shape)}"
            )
        return output.unbind(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def of_rows(distribution: Distribution) -> Independent:
    """A distribution of single numbers ``(B, ...)`` as one of whole rows ``(B,)``."""
    axes = len(distribution.batch_shape) - 1
    return Independent(distribution, axes, validate_args=False)


def check_floats(what: str, x: Tensor) -> None:
    """Raise unless ``x`` holds finite floating-point numbers."""
    if not x.is_floating_point():
        raise TypeError(f"a {what} likelihood needs floating-point data, got {x.dtype}")
    if not x.isfinite().all():
        raise ValueError(f"a {what} likelihood needs finite data, got NaN or infinity")


def check_unit_interval(what: str, x: Tensor) -> None:
    """Raise unless ``x`` holds floating-point numbers in [0, 1]."""
    if not x.is_floating_point():
        raise TypeError(f"a {what} likelihood needs floating-point data, got {x.dtype}")
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError(
            f"a {what} likelihood needs data in [0, 1], "
            # All digits: what a resizing leaves above 1 is 1.0000001.
            f"got values from {x.min().item():.17g} to {x.max().item():.17g}; remedy: scale "
            "the data, or x.clamp(0, 1) where it is rounding only"
        )
