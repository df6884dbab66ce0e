"""Likelihoods of class labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent
from torch.nn import functional as F

from mvae_fast.checks import integer
from mvae_fast.vae.likelihoods.base import Likelihood, of_rows
from mvae_fast.vae.likelihoods.sigmoids import log_interval


class _Labels(Likelihood):
    """Labels 0..C-1, whatever type their integers have."""

    num_classes: int
    classes: tuple[str, ...] | None
    what: str

    def read(self, x: Any) -> Any:
        """Names of classes as their numbers; anything else as it is.

        Raises:
            ValueError: If a name is unknown, or the classes have no names.
        """
        names = np.asarray(x)
        if not _are_names(names):
            return x
        if self.classes is None:
            raise ValueError(
                f"got names of classes such as {str(names.flat[0])!r}, but the classes have none; "
                "remedy: classes=[...] in the order of their numbers"
            )
        numbers = {name: number for number, name in enumerate(self.classes)}
        if unknown := sorted({str(name) for name in names.flat} - set(numbers)):
            raise ValueError(f"got the unknown classes {unknown}, expected some of {self.classes}")
        found = [numbers[str(name)] for name in names.flat]
        return np.array(found, dtype=np.int64).reshape(names.shape)

    def check(self, x: Tensor) -> None:
        """Data must be int64 in 0..C-1."""
        if x.dtype != torch.int64:
            raise TypeError(f"{self.what} likelihood needs int64 data, got {x.dtype}")
        if not ((x >= 0) & (x < self.num_classes)).all():
            raise ValueError(
                f"{self.what} likelihood of {self.num_classes} classes needs data in "
                f"0..{self.num_classes - 1}, got values from {x.min().item()} to {x.max().item()}"
            )

    def cast(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Integers of any type, booleans, a column ``(B, 1)``, and one-hot rows ``(B, C)``."""
        if x.dim() == 2 and x.shape[1] == self.num_classes and not torch.compiler.is_compiling():
            hot = (x == 1).sum(1) == 1
            if (hot & ((x != 0).sum(1) == 1)).all():
                return x.argmax(1)
        if x.dim() == 2 and x.shape[1] == 1:
            x = x.squeeze(1)
        return x if x.is_floating_point() or x.is_complex() else x.long()


class CategoricalLikelihood(_Labels):
    """Categorical likelihood with logits over the last axis of the decoder's output.

    Args:
        num_classes: Number of classes C; the data are integers in 0..C-1.
        classes: Their names, which data may be in place of numbers.

    Raises:
        ValueError: If ``num_classes`` is not an integer of at least 2, or there are not as many
            different names.

    Example:
        >>> CategoricalLikelihood(10)(torch.zeros(2, 10)).log_prob(torch.tensor([3, 9]))
        tensor([-2.3026, -2.3026])
    """

    what = "a Categorical"

    def __init__(self, num_classes: int, classes: Sequence[str] | None = None) -> None:
        self.num_classes = integer("num_classes", num_classes, 2)
        self.classes = _names(self.num_classes, classes)

    def __call__(self, output: Tensor) -> Distribution:
        """Categorical with logits ``output`` (B, ..., C); the event is the whole row."""
        if output.shape[-1] != self.num_classes:
            raise ValueError(
                f"a Categorical likelihood of {self.num_classes} classes needs as many logits, "
                f"the decoder gave {output.shape[-1]}"
            )
        return of_rows(Categorical(logits=output, validate_args=False))

    def __repr__(self) -> str:
        return f"CategoricalLikelihood({self.num_classes})"


class OrdinalLikelihood(nn.Module, _Labels):
    r"""Ordered classes, by the cumulative (proportional odds) model with learned thresholds.

    .. math:: P(y \le k) = \sigma(c_k - \eta), \qquad c_0 < c_1 < \ldots < c_{C-2},

    with :math:`\eta` the decoder's output, one number a label. All classes begin equally likely at
    :math:`\eta = 0`.

    Args:
        num_classes: Number of classes C; the data are integers in 0..C-1.
        classes: Their names, which data may be in place of numbers.

    Raises:
        ValueError: If ``num_classes`` is not an integer of at least 2, or there are not as many
            different names.

    References:
        McCullagh, Regression models for ordinal data, 1980.

    Example:
        >>> OrdinalLikelihood(4)(torch.zeros(1)).base_dist.probs.detach()
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    what = "an ordinal"

    def __init__(self, num_classes: int, classes: Sequence[str] | None = None) -> None:
        super().__init__()
        self.num_classes = integer("num_classes", num_classes, 2)
        self.classes = _names(self.num_classes, classes)
        start = torch.arange(1, num_classes, dtype=torch.float64).div(num_classes).logit()
        # Gaps by softplus, so that the thresholds stay in order.
        self.first = nn.Parameter(start[:1].to(torch.get_default_dtype()))
        self.gaps = nn.Parameter(start.diff().expm1().log().to(torch.get_default_dtype()))

    @property
    def thresholds(self) -> Tensor:
        """The thresholds c, ``(C - 1,)``, in increasing order."""
        return torch.cat([self.first, self.first + F.softplus(self.gaps).cumsum(0)])

    def forward(self, output: Tensor) -> Distribution:
        """Ordered classes around ``output`` (B, ...); the event is the whole row."""
        below = self.thresholds - output.unsqueeze(-1)
        low, high = F.pad(below, (1, 0), value=-torch.inf), F.pad(below, (0, 1), value=torch.inf)
        categorical = Categorical(logits=log_interval(low, high), validate_args=False)
        return Independent(categorical, output.dim() - 1, validate_args=False)

    def __repr__(self) -> str:
        return f"OrdinalLikelihood({self.num_classes})"


def _are_names(values: np.ndarray) -> bool:
    return values.size > 0 and (
        values.dtype.kind in "US"
        or (values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat))
    )


def _names(num_classes: int, classes: Sequence[str] | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    names = tuple(map(str, classes))
    if len(set(names)) != num_classes or len(names) != num_classes:
        raise ValueError(f"classes: got {names}, expected {num_classes} different names")
    return names
