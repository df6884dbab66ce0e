"""Grey values that come as bytes."""

import warnings

import torch
from torch import Tensor


def grey(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes 0..255 as numbers in [0, 1], booleans as 0 and 1; anything else as it is.

    A warning says so once a process: whoever has bytes 0 and 1 gets nearly black images.

    Example:
        >>> grey(torch.tensor([True, False]), torch.float32)
        tensor([1., 0.])
    """
    if x.dtype == torch.bool:
        return x.to(dtype)
    if x.dtype != torch.uint8:
        return x
    if not torch.compiler.is_compiling():
        warnings.warn(
            "uint8 data are taken for grey values 0..255 and divided by 255; "
            "remedy: x.float() where they are not",
            stacklevel=2,
        )
    return x.to(dtype) / 255
