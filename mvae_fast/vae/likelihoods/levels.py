"""Likelihoods of grey values of a fixed number of levels."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, constraints
from torch.nn import functional as F

from mvae_fast.checks import integer
from mvae_fast.vae.likelihoods.base import Likelihood, check_unit_interval, of_rows
from mvae_fast.vae.likelihoods.grey import grey
from mvae_fast.vae.likelihoods.sigmoids import log_interval
from mvae_fast.vae.likelihoods.spread import PositiveParameter, Spread


class Levels(Distribution):
    """Numbers 0, 1 / (L - 1), ..., 1, each with a probability.

    Args:
        logits: Of the levels, ``(..., L)``.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.categorical = Categorical(logits=logits, validate_args=False)
        self._steps = logits.shape[-1] - 1
        super().__init__(logits.shape[:-1], validate_args=False)

    @property
    def _values(self) -> Tensor:
        probs = self.categorical.probs
        return torch.arange(self._steps + 1, dtype=probs.dtype, device=probs.device) / self._steps

    @property
    def mean(self) -> Tensor:
        """The mean, ``(...)``."""
        return self.categorical.probs @ self._values

    @property
    def mode(self) -> Tensor:
        """The most likely level, ``(...)``."""
        return self.categorical.mode / self._steps

    @property
    def variance(self) -> Tensor:
        """The variance, ``(...)``."""
        return self.categorical.probs @ self._values.square() - self.mean.square()

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        """Levels, ``(*sample_shape, ...)``."""
        return self._values[self.categorical.sample(torch.Size(sample_shape))]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of the nearest level, ``(...)``."""
        return self.categorical.log_prob((value * self._steps).round().long())


class _LevelsLikelihood(nn.Module, Likelihood):
    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = integer("levels", levels, 2)

    @abstractmethod
    def _logits(self, output: Tensor) -> Tensor:
        """Logits of the levels ``(B, *shape, L)``."""

    def forward(self, output: Tensor) -> Distribution:
        """Levels from a decoder's output; the event is the whole row."""
        return of_rows(Levels(self._logits(output)))

    def check(self, x: Tensor) -> None:
        """Data must be floating point, in [0, 1] and on the levels."""
        check_unit_interval(type(self).__name__.removesuffix("Likelihood"), x)
        steps = x * (self.levels - 1)
        off = (steps - steps.round()).abs()
        # Half precision has three digits.
        if (off > max(1e-3, self.levels * torch.finfo(x.dtype).eps)).any():
            raise ValueError(
                f"{self!r} needs data on {self.levels} levels k / {self.levels - 1}, got "
                f"{x.flatten()[off.argmax()].item():g}; remedy: uint8 data, or another likelihood"
            )

    def cast(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Bytes as grey values 0..255 and booleans as 0 and 1."""
        return grey(x, dtype)


class CategoricalLevelsLikelihood(_LevelsLikelihood):
    """Any distribution over the levels of a grey value: a logit each.

    Data are k / (L - 1), or bytes where L is 256. The decoder's output is ``(B, L, *shape)``.

    Args:
        levels: Number of levels L.

    References:
        van den Oord, Kalchbrenner, Kavukcuoglu, Pixel recurrent neural networks, 2016.

    Example:
        >>> CategoricalLevelsLikelihood(4)(torch.zeros(1, 4, 2)).mean
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, levels: int = 256) -> None:
        super().__init__(levels)
        self.n_outputs = self.levels

    def _logits(self, output: Tensor) -> Tensor:
        return torch.stack(self.split(output), dim=-1)

    def __repr__(self) -> str:
        return f"CategoricalLevelsLikelihood({self.levels})"


class LogisticLevelsLikelihood(_LevelsLikelihood):
    r"""Discretised logistic likelihood of grey values.

    .. math:: p(x) = \sigma\Big(\frac{x + \Delta/2 - \mu}{s}\Big)
                   - \sigma\Big(\frac{x - \Delta/2 - \mu}{s}\Big), \qquad \Delta = \frac1{L - 1},

    with everything below in the lowest level, everything above in the highest. Data are k / (L -
    1), or bytes where L is 256.

    Args:
        levels: Number of levels L.
        scale: s: a number; ``"learned"``, one parameter a dimension; or ``"predicted"``: the
            decoder's output is ``(B, 2, *shape)``. Learned and predicted ones stay above 1e-3.
        shape: Of a row of data, where the scale is learned.

    References:
        Kingma et al., Improved variational inference with inverse autoregressive flow, 2016.

    Example:
        >>> likelihood = LogisticLevelsLikelihood(scale=0.1)
        >>> likelihood(torch.full((1, 1), 0.5)).log_prob(torch.full((1, 1), 128 / 255)).exp()
        tensor([0.0098])
    """

    def __init__(
        self,
        levels: int = 256,
        scale: Spread = "learned",
        shape: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__(levels)
        self.spread = PositiveParameter("scale", scale, shape, start=0.1)  # of the range of 1
        self.n_outputs = 1 + self.spread.n_outputs

    def _logits(self, output: Tensor) -> Tensor:
        location, *predicted = self.split(output)
        scale = self.spread(location, *predicted)
        steps = self.levels - 1
        edges = (torch.arange(steps, dtype=output.dtype, device=output.device) + 0.5) / steps
        inner = (edges - location.unsqueeze(-1)) / scale.unsqueeze(-1)
        low, high = F.pad(inner, (1, 0), value=-torch.inf), F.pad(inner, (0, 1), value=torch.inf)
        return log_interval(low, high)

    def __repr__(self) -> str:
        return f"LogisticLevelsLikelihood({self.levels}, scale={self.spread.value!r})"
