"""A velocity by what it is at each evaluation of a solve, for weights that depend on time and for
engines that take no coefficients."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tables:
    r"""``a_l = G_l * (W_l y_{l-1} + u_l) + C_l`` at E evaluations.

    A leading axis of 1 means: the same for every evaluation.

    Args:
        weight: (1 or E, P), all ``W_l`` (m_l, m_{l-1}) row-major, flattened and concatenated.
        gate: (1 or E, M), all ``G_l`` concatenated, or None where no layer is gated.
        bias: (1 or E, M), all ``C_l`` concatenated.
        widths: ``(m_0, ..., m_L)`` with ``m_0 = m_L = D``.
        nonlinearity: A name of `mvae_fast.core.nonlinearities`, after layers 1..L-1.
        residual: The velocity is ``a_L - z`` instead of ``a_L``.
        context: ``u_l``, for each layer (B, m_l) or None; empty for none.
        gate_context: For each layer (B, m_l) or None; empty for none. With it ``gate`` is the
            argument of the sigmoid, to which it is added, and ``a_l = G_l * (W_l y_{l-1} + u_l +
            inner_l) + C_l``.
        inner: (1 or E, M), with ``gate_context``.
    """

    weight: Tensor
    gate: Tensor | None
    bias: Tensor
    widths: tuple[int, ...]
    nonlinearity: str
    residual: bool = False
    context: tuple[Tensor | None, ...] = ()
    gate_context: tuple[Tensor | None, ...] = ()
    inner: Tensor | None = None

    def tables(self) -> "Tables":
        """Itself: what `mvae_fast.core.field.Field.tables` returns."""
        return self
