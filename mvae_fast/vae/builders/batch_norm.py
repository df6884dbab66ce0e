"""Batch normalisation that can do with any number of rows."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class _AnyNumberOfRows(_BatchNorm):
    # A mini-batch may have a modality in one row only, and nobody wants a long training to end
    # there: PyTorch raises where a channel has a single value to take statistics of.

    def forward(self, y: Tensor) -> Tensor:
        """Normalised by the statistics of ``y``, or by the running ones in eval mode and where a
        channel has fewer than two values."""
        if y.numel() >= 2 * self.num_features:
            return super().forward(y)
        return F.batch_norm(
            y, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class BatchNorm1d(_AnyNumberOfRows, nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` that normalises a single row by the running statistics, also in
    training, and leaves them alone.

    In the objective of an `MVAE` a batch is what a network sees in its one run. For an encoder
    these are the rows that have the modality. For a decoder they are the rows of all the terms that
    score it, pooled: the running statistics, and with them eval mode, then are of the mixture that
    training normalised by. One pass for each term, as in the MVAE's code, normalises each term by
    its own statistics in training, and all by one average of them in eval mode. The price is that
    the terms of a mini-batch depend on each other, as its rows do in any case.

    References:
        Ioffe and Szegedy, Batch normalization, 2015.

    Example:
        >>> import torch
        >>> BatchNorm1d(3)(torch.ones(1, 3)).shape
        torch.Size([1, 3])
    """


class BatchNorm2d(_AnyNumberOfRows, nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d``, with the same change as `BatchNorm1d`.

    Example:
        >>> import torch
        >>> BatchNorm2d(3)(torch.ones(0, 3, 8, 8)).shape
        torch.Size([0, 3, 8, 8])
    """
