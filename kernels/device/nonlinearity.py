"""phi, phi' and phi'' of a preactivation; KIND is the number of csrc/problem.h.

Only exp, log and arithmetic: the rest of libdevice is not there in Triton's interpreter. NaN has to
come through all of them: on a GPU the larger of NaN and 0 is 0, hence tl.where in relu and elu.
"""

import triton
import triton.language as tl

SOFTPLUS = tl.constexpr(0)
TANH = tl.constexpr(1)
RELU = tl.constexpr(2)
ELU = tl.constexpr(3)
SWISH = tl.constexpr(4)
SQUARE = tl.constexpr(5)


@triton.jit
def _sigmoid(a):
    # exp of a negative number only: it cannot overflow.
    e = tl.exp(-tl.abs(a))
    return tl.where(a >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _tanh(a):
    e = tl.exp(-2.0 * tl.abs(a))
    t = (1.0 - e) / (1.0 + e)
    return tl.where(a >= 0, t, -t)


@triton.jit
def value(a, KIND: tl.constexpr):
    """``phi(a)``."""
    if KIND == SOFTPLUS:
        e = tl.exp(-tl.abs(a))
        u = 1.0 + e
        # log1p(e) as log(u) * e / (u - 1), in which the roundings of u cancel (Kahan).
        log1p = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
        return tl.maximum(a, 0.0) + log1p
    elif KIND == TANH:
        return _tanh(a)
    elif KIND == RELU:
        return tl.where(a < 0, 0.0, a)
    elif KIND == ELU:
        return tl.where(a > 0, a, tl.exp(tl.where(a > 0, 0.0, a)) - 1.0)
    elif KIND == SWISH:
        return a * _sigmoid(a)
    elif KIND == SQUARE:
        return a * a
    else:
        return a


@triton.jit
def slopes(a, KIND: tl.constexpr):
    """``phi'(a)`` and ``phi''(a)``."""
    zero = tl.zeros_like(a)
    if KIND == SOFTPLUS:
        s = _sigmoid(a)
        return s, s * (1.0 - s)
    elif KIND == TANH:
        t = _tanh(a)
        return 1.0 - t * t, -2.0 * t * (1.0 - t * t)
    elif KIND == RELU:
        return tl.where(a > 0, zero + 1.0, zero), zero
    elif KIND == ELU:
        e = tl.exp(tl.where(a > 0, 0.0, a))
        return tl.where(a > 0, zero + 1.0, e), tl.where(a > 0, zero, e)
    elif KIND == SWISH:
        s = _sigmoid(a)
        t = s * (1.0 - s)
        return s + a * t, t * (2.0 + a * (1.0 - 2.0 * s))
    elif KIND == SQUARE:
        return 2.0 * a, zero + 2.0
    else:
        return zero + 1.0, zero
