"""Likelihoods of real numbers: a location from the decoder, and a scale."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace, Normal, StudentT

from mvae_fast.checks import positive
from mvae_fast.vae.likelihoods.base import Likelihood, check_floats, of_rows
from mvae_fast.vae.likelihoods.spread import PositiveParameter, Spread


class _LocationScale(nn.Module, Likelihood):
    def __init__(self, scale: Spread = 1.0, shape: Sequence[int] | int | None = None) -> None:
        super().__init__()
        self.spread = PositiveParameter("scale", scale, shape)
        self.n_outputs = 1 + self.spread.n_outputs

    @property
    def scale(self) -> Spread:
        """The scale, as it was given."""
        return self.spread.value

    def forward(self, output: Tensor) -> Distribution:
        """The distribution around a decoder's output; the event is the whole row.

        Args:
            output: ``(B, *shape)``; with ``scale="predicted"`` ``(B, 2, *shape)``, locations and
                what softplus makes scales of.
        """
        location, *predicted = self.split(output)
        return of_rows(self._around(location, self.spread(location, *predicted)))

    @abstractmethod
    def _around(self, location: Tensor, scale: Tensor) -> Distribution: ...

    def check(self, x: Tensor) -> None:
        """Data must be floating point and finite."""
        check_floats(type(self).__name__.removesuffix("Likelihood"), x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.scale!r})"


class NormalLikelihood(_LocationScale):
    """Normal likelihood around the decoder's output.

    Args:
        scale: Standard deviation: a number; ``"learned"``, one parameter a dimension that begins at
            1; or ``"predicted"`` by the decoder for each row and dimension. Learned and predicted
            ones stay above 1e-3.
        shape: Of a row of data, where the scale is learned.

    Raises:
        ValueError: If ``scale`` is something else, or the shape is missing.

    Example:
        >>> NormalLikelihood(2.0)(torch.zeros(1, 3)).stddev
        tensor([[2., 2., 2.]])
        >>> NormalLikelihood("predicted")(torch.zeros(1, 2, 3)).stddev
        tensor([[0.6941, 0.6941, 0.6941]])
    """

    def _around(self, location: Tensor, scale: Tensor) -> Distribution:
        return Normal(location, scale, validate_args=False)


class LaplaceLikelihood(_LocationScale):
    """Laplace likelihood around the decoder's output, for data with outliers.

    Args:
        scale: Mean absolute deviation, as of `NormalLikelihood`.
        shape: Of a row of data, where the scale is learned.

    Example:
        >>> LaplaceLikelihood()(torch.zeros(1, 2)).log_prob(torch.zeros(1, 2))  # 2 log(1/2)
        tensor([-1.3863])
    """

    def _around(self, location: Tensor, scale: Tensor) -> Distribution:
        return Laplace(location, scale, validate_args=False)


class StudentTLikelihood(_LocationScale):
    """Student's t likelihood around the decoder's output, for data with heavy tails.

    Args:
        df: Degrees of freedom; above 2 the variance is finite.
        scale: As of `NormalLikelihood`.
        shape: Of a row of data, where the scale is learned.

    Example:
        >>> StudentTLikelihood(df=4.0)(torch.zeros(1, 3)).variance
        tensor([[2., 2., 2.]])
    """

    def __init__(
        self,
        df: float = 4.0,
        scale: Spread = 1.0,
        shape: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__(scale, shape)
        self.df = positive("df", df)

    def _around(self, location: Tensor, scale: Tensor) -> Distribution:
        return StudentT(torch.full_like(location, self.df), location, scale, validate_args=False)

    def __repr__(self) -> str:
        return f"StudentTLikelihood(df={self.df:g}, scale={self.scale!r})"
