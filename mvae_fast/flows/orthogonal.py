"""Matrices with orthonormal columns, from matrices and vectors without constraint."""

import torch
from torch import Tensor


def orthonormal(matrix: Tensor) -> Tensor:
    r"""The factor Q of :math:`A = Q R` whose R has a positive diagonal, (..., D, M) with D >= M.

    Householder's QR gives :math:`Q^T Q = I` to rounding in one pass of O(D M^2) and with an exact
    gradient. The iteration :math:`Q \leftarrow Q (I + (I - Q^T Q) / 2)` of van den Berg et al.
    takes dozens of products for an orthogonality of 1e-6, and more the smaller the least singular
    value is; the log-determinant of a Sylvester flow is wrong by as much.

    Example:
        >>> q = orthonormal(torch.tensor([[3.0, 1.0], [4.0, 1.0], [0.0, 2.0]]))
        >>> torch.allclose(q.mT @ q, torch.eye(2), atol=1e-6)
        True
    """
    q, r = torch.linalg.qr(matrix)
    # LAPACK's signs follow those of the entries: columns would jump as an entry passes zero.
    sign = r.diagonal(dim1=-2, dim2=-1).detach().sign()
    return q * torch.where(sign == 0, 1.0, sign).unsqueeze(-2)


def reflect(x: Tensor, normals: list[Tensor]) -> Tensor:
    r"""Reflect rows (B, D) by one Householder matrix :math:`I - 2 v v^T / \|v\|^2` after another.

    The normals v are (B, D) or (1, D). The reversed list undoes it.

    Example:
        >>> reflect(torch.tensor([[1.0, 2.0]]), [torch.tensor([[2.0, 0.0]])])
        tensor([[-1.,  2.]])
    """
    for normal in normals:
        square = normal.square().sum(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        x = x - normal * (2 * (x * normal).sum(1, keepdim=True) / square)
    return x
