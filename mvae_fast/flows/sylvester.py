"""Sylvester flows: many hidden tanh units each, with a determinant of linear cost."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mvae_fast.checks import integer, one_of
from mvae_fast.flows import monotone
from mvae_fast.flows.base import Flow
from mvae_fast.flows.orthogonal import orthonormal, reflect
from mvae_fast.flows.parameters import Parameters

VARIANTS = ("orthogonal", "householder", "triangular")

#: z (B, D) -> Q^T z (B, M), and its transpose.
Rotation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


class SylvesterFlow(Flow):
    r"""K Sylvester flows, one after the other.

    .. math:: z' = z + Q R \tanh(\tilde R Q^T z + b), \qquad Q^T Q = I

    with upper triangular :math:`R, \tilde R` (M, M). With :math:`h = \tanh(\tilde R Q^T z + b)` the
    determinant is :math:`\prod_i 1 + (1 - h_i^2)\, r_{ii} \tilde r_{ii}`: exact, at cost O(M). The
    diagonals are tanh of a parameter, hence :math:`r_{ii} \tilde r_{ii} > -1`, and each flow is
    invertible. The inverse has no closed form, but is a back substitution of M monotone scalar
    equations, which bisection solves; its first three derivatives are exact.

    Args:
        dim: Size D of the state.
        n_flows: K.
        cond_dim: 0 for free parameters; else they are linear functions of ``cond`` (B, cond_dim).
        variant: What Q is: ``"orthogonal"``, M orthonormal columns; ``"householder"``, M = D, a
            product of reflections; ``"triangular"``, M = D, the identity and the reversal in turn.
        n_ortho: M for ``"orthogonal"``; None for 8, or D if that is smaller.
        n_householder: Reflections for ``"householder"``.

    Raises:
        ValueError: If an argument does not fit.

    References:
        Sylvester Normalizing Flows for Variational Inference (van den Berg et al., 2018),
        theorems 1 and 2 and section 3, https://arxiv.org/abs/1803.05649

    Example:
        >>> flow = SylvesterFlow(3, n_flows=2, variant="householder")
        >>> z, logp = flow(torch.zeros(5, 3), torch.zeros(5, 1))
        >>> torch.allclose(flow(z, reverse=True), torch.zeros(5, 3), atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        n_flows: int = 4,
        cond_dim: int = 0,
        *,
        variant: str = "orthogonal",
        n_ortho: int | None = None,
        n_householder: int = 8,
    ) -> None:
        super().__init__(dim, cond_dim)
        dim, cond_dim = self.dim, self.cond_dim
        n_flows = integer("n_flows", n_flows, 1)
        n_householder = integer("n_householder", n_householder, 1)
        one_of("variant", variant, VARIANTS)
        if n_ortho is not None and variant != "orthogonal":
            raise ValueError(f"n_ortho: given, but variant={variant!r} has as many units as dim")
        width = dim
        if variant == "orthogonal":
            width = integer("n_ortho", min(8, dim) if n_ortho is None else n_ortho, 1)
            if width > dim:
                raise ValueError(f"n_ortho: got {width}, expected at most dim = {dim}")
        self.n_flows = n_flows
        self.variant = variant
        self.width = width
        shapes: dict[str, tuple[int, ...]] = {
            "triangles": (width, width),
            "diagonal_1": (width,),
            "diagonal_2": (width,),
            "b": (width,),
        }
        if variant == "orthogonal":
            shapes["q"] = (dim, width)
        elif variant == "householder":
            shapes["q"] = (n_householder, dim)
        bounds = dict.fromkeys(shapes, dim**-0.5)
        self.flows = nn.ModuleList(Parameters(shapes, cond_dim, bounds) for _ in range(n_flows))

    def _move(self, z: Tensor, cond: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
        change = z.new_zeros(z.shape[0])
        order = range(self.n_flows)
        for k in reversed(order) if reverse else order:
            values = self.flows[k](cond)
            into, back = self._rotation(values, flip=k % 2 == 1)
            # The tanh of a large number is 1: that the product of two stays above -1 needs more.
            r_1, r_2 = (
                torch.tanh(values[name]) * (1 - torch.finfo(z.dtype).eps)
                for name in ("diagonal_1", "diagonal_2")
            )
            upper_1 = values["triangles"].triu(1) + torch.diag_embed(r_1)
            upper_2 = values["triangles"].mT.triu(1) + torch.diag_embed(r_2)
            y, b = into(z), values["b"]
            h = self._units(y, upper_1, upper_2, b) if reverse else _times(upper_2, y).add(b).tanh()
            shift = back(_times(upper_1, h))
            log_det = (h.square() + (1 - h.square()) * (1 + r_1 * r_2)).log().sum(1)
            z, change = (z - shift, change + log_det) if reverse else (z + shift, change - log_det)
        return z, change

    def _rotation(self, values: dict[str, Tensor], flip: bool) -> Rotation:
        if self.variant == "orthogonal":
            q = orthonormal(values["q"])
            return lambda z: _times(q.mT, z), lambda y: _times(q, y)
        if self.variant == "householder":
            normals = list(values["q"].unbind(1))
            return lambda z: reflect(z, normals), lambda y: reflect(y, normals[::-1])
        if flip:
            return lambda z: z.flip(1), lambda y: y.flip(1)
        return lambda z: z, lambda y: y

    def _units(self, y: Tensor, upper_1: Tensor, upper_2: Tensor, b: Tensor) -> Tensor:
        """The tanh units h (B, M) of the y that is mapped to ``y``, the last first."""
        before: list[Tensor] = []
        units: list[Tensor] = []
        for i in reversed(range(self.width)):
            known, right = b[:, i].expand(y.shape[0]), y[:, i]
            if units:
                # Lists grow from the last component down to i + 1.
                columns = slice(i + 1, self.width)
                known = known + (upper_2[:, i, columns] * torch.stack(before[::-1], 1)).sum(1)
                right = right - (upper_1[:, i, columns] * torch.stack(units[::-1], 1)).sum(1)
            a = monotone.solve(right, upper_1[:, i, i], upper_2[:, i, i], known)
            before.append(a)
            units.append(torch.tanh(upper_2[:, i, i] * a + known))
        return torch.stack(units[::-1], 1)

    def extra_repr(self) -> str:
        return (
            f"dim={self.dim}, n_flows={self.n_flows}, cond_dim={self.cond_dim}, "
            f"variant={self.variant}, width={self.width}"
        )


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """Rows ``A x`` (B, n) of a matrix (1, n, m) for all rows, or (B, n, m) of one for each."""
    if matrix.shape[0] == 1:
        return x @ matrix[0].mT
    return (matrix @ x.unsqueeze(2)).squeeze(2)
