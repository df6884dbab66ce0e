"""The numbers that Python and the compiled engines share: the Python side of csrc/enums.h.

The ops take numbers, since torch's stable ABI leaks the strings that it is given.
"""

from mvae_fast.core.problem import PENALTIES, PRECISIONS

#: Those that the engines for GPUs know, too.
FIRST_NONLINEARITIES: tuple[str, ...] = (
    "softplus", "tanh", "relu", "elu", "silu", "square", "identity",
)  # fmt: skip
_MORE = ("gelu", "gelu_tanh", "selu", "leaky_relu", "sigmoid", "sin")
#: ``Nonlinearity``.
NONLINEARITIES: dict[str, int] = {
    name: number for number, name in enumerate((*FIRST_NONLINEARITIES, *_MORE))
}
#: ``Operands``.
OPERANDS: dict[str, int] = {name: n for n, name in enumerate((*PRECISIONS, "tf32"))}
#: ``kMeanMagnitude`` and the others.
PENALTY_BITS: dict[str, int] = {name: 1 << n for n, name in enumerate(PENALTIES)}
#: ``Form``.
COEFFICIENTS, TABLES = 0, 1
#: ``kMostFeatures``.
MOST_FEATURES = 32
