"""What the products of a candidate are computed in, on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: ``"full"`` float32; TF32, PyTorch's float32 on tensor cores; operands in bfloat16 or float16.
PRECISIONS: tuple[str, ...] = ("full", "tf32", "bf16", "fp16")

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def products(precision: str) -> Iterator[None]:
    """PyTorch's own switch for float32 products set as ``precision`` says.

    Beside half-precision operands TF32 is allowed, as by whoever asks for less precision.
    """
    before = torch.get_float32_matmul_precision()
    # Not torch.backends.cuda.matmul.fp32_precision: once that is set, reading allow_tf32, which
    # torch.compile does in some versions, raises.
    torch.set_float32_matmul_precision("highest" if precision == "full" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def operands(precision: str) -> str:
    """The same as ``FastCNF(precision=...)`` names it: TF32 is ``"full"`` under `products`."""
    return precision if precision in _HALVES else "full"


class Autocast(nn.Module):
    """A peer as its user would run it in this precision: half precision by autocast."""

    def __init__(self, module: nn.Module, precision: str) -> None:
        super().__init__()
        self.module = module
        self.precision = precision

    def forward(self, z: Tensor, logp: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
        dtype = _HALVES.get(self.precision)
        with torch.autocast(z.device.type, dtype, enabled=dtype is not None):
            z_t, logp_t = self.module(z, logp, probes)
        return z_t, logp_t
