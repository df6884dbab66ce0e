"""Nets that see standardised data, and densities of the data themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from mvae_fast.vae.likelihoods import Likelihood
from mvae_fast.vae.likelihoods.real import LaplaceLikelihood, NormalLikelihood, StudentTLikelihood

REAL = (NormalLikelihood, LaplaceLikelihood, StudentTLikelihood)


class Standardize(nn.Module):
    r""":math:`(x - m) / s`, with m and s that are no parameters: the description has them.

    Args:
        standardize: ``mean`` and ``std``: a number each, or one for each number of a row.
        shape: Of a row.

    Raises:
        ValueError: If they are something else, or a standard deviation is not positive.

    Example:
        >>> Standardize({"mean": 5.0, "std": [1.0, 2.0]}, (2,))(torch.tensor([[6.0, 9.0]]))
        tensor([[1., 2.]])
    """

    def __init__(self, standardize: Mapping[str, Any], shape: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(standardize, Mapping) or set(standardize) != {"mean", "std"}:
            raise ValueError(
                f"standardize: got {standardize!r}, expected a mapping of mean and std; remedy: "
                "mvae_fast.data.standardized finds them"
            )
        for name, value in standardize.items():
            try:  # by NumPy: the outline of a model that is loaded has no numbers
                numbers = np.broadcast_to(np.asarray(value, dtype=np.float64), tuple(shape))
            except (TypeError, ValueError):
                numbers = np.array(np.nan)
            if not np.isfinite(numbers).all() or (name == "std" and not (numbers > 0).all()):
                sign = "positive " if name == "std" else ""
                raise ValueError(
                    f"standardize.{name}: got {value!r:.80}, expected {sign}numbers of the shape "
                    f"{tuple(shape)}, or one"
                )
            buffer = torch.tensor(numbers.tolist(), dtype=torch.get_default_dtype())
            self.register_buffer(name, buffer, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return (x - self.mean) / self.std


class StandardizedLikelihood(nn.Module, Likelihood):
    r"""A likelihood of real numbers in units of their own, about data in theirs:

    .. math:: \log p(x) = \log p_y\Big(\frac{x - m}{s}\Big) - \sum_d \log s_d .

    Args:
        likelihood: That of :math:`y = (x - m) / s`.
        units: m and s.

    Raises:
        ValueError: If the likelihood is not of real numbers.
    """

    def __init__(self, likelihood: Likelihood, units: Standardize) -> None:
        super().__init__()
        if not isinstance(likelihood, REAL):
            raise ValueError(
                f"standardize: got the likelihood {likelihood!r}, expected normal, laplace or "
                "student_t"
            )
        self.likelihood = likelihood
        self.units = units
        self.n_outputs = likelihood.n_outputs

    def forward(self, output: Tensor) -> Distribution:
        """The distribution in the data's own units; the event is the whole row."""
        return Rescaled(self.likelihood(output), self.units.mean, self.units.std)

    def check(self, x: Tensor) -> None:
        """Data must be floating point and finite."""
        self.likelihood.check(x)

    def cast(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Integers as floats."""
        return x if x.is_floating_point() or x.is_complex() else x.to(dtype)

    def __repr__(self) -> str:
        return f"StandardizedLikelihood({self.likelihood!r})"


class Rescaled(Distribution):
    """m + s y, for y of a distribution of whole rows.

    Args:
        base: Of y, with batch shape ``(B,)``.
        mean: m, of the shape of a row.
        std: s, likewise.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, base: Distribution, mean: Tensor, std: Tensor) -> None:
        self.base, self._shift, self._scale = base, mean, std
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, ``(B, *shape)``."""
        return self._shift + self._scale * self.base.mean

    @property
    def variance(self) -> Tensor:
        """The variances, ``(B, *shape)``."""
        return self._scale.square() * self.base.variance

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        """Rows, ``(*sample_shape, B, *shape)``."""
        return self._shift + self._scale * self.base.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of rows, ``(B,)``."""
        return self.base.log_prob((value - self._shift) / self._scale) - self._scale.log().sum()
