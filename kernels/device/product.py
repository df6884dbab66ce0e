"""The one product of all sweeps: rows of a scratch buffer times a matrix of the tables."""

import triton
import triton.language as tl


@triton.jit
def product(
    x, x_ld, w, n0, n_out, n_in, TRANSPOSED: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Columns n0 .. n0 + BN of ``X W^T``, or with TRANSPOSED of ``X W``, as (BM, BN) sums in DT.

    X: (BM, n_in) at ``x``, rows x_ld apart. W: (n_out, n_in), or with TRANSPOSED (n_in, n_out),
    dense. Widths are multiples of 16, so a mask over columns never cuts a 16-byte load.
    """
    i = tl.arange(0, BM)[:, None]
    c = n0 + tl.arange(0, BN)[None, :]
    total = tl.zeros((BM, BN), DT)
    for k0 in range(0, n_in, BK):
        k = k0 + tl.arange(0, BK)
        left = tl.load(x + i * x_ld + k[None, :], mask=k[None, :] < n_in, other=0.0)
        inside = (k[:, None] < n_in) & (c < n_out)
        if TRANSPOSED:
            right = tl.load(w + k[:, None] * n_out + c, mask=inside, other=0.0)
        else:
            right = tl.load(w + c * n_in + k[:, None], mask=inside, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=DT)
    return total
