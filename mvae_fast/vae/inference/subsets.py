"""The subsets of modalities that the objective sums over."""

import math

import torch
from torch import Tensor


def joint_and_unimodal(n: int) -> Tensor:
    """The subset of all ``n`` modalities, then each alone, as rows of a boolean mask.

    Args:
        n: Number of modalities.

    Returns:
        ``(n + 1, n)``, or ``(1, 1)`` for a single modality, whose two terms are one.

    Example:
        >>> joint_and_unimodal(2).int()
        tensor([[1, 1],
                [1, 0],
                [0, 1]], dtype=torch.int32)
    """
    return torch.tensor(joint_and_alone(n))


def joint_and_alone(n: int) -> list[list[bool]]:
    """`joint_and_unimodal` as lists, whose content compiled code knows."""
    alone = [[i == j for j in range(n)] for i in range(n)]
    return alone if n == 1 else [[True] * n, *alone]


def all_but_one(n: int) -> Tensor:
    """Each subset of ``n`` modalities that lacks one of them, as rows of a boolean mask ``(n, n)``.

    Example:
        >>> all_but_one(3).int()
        tensor([[0, 1, 1],
                [1, 0, 1],
                [1, 1, 0]], dtype=torch.int32)
    """
    return ~torch.eye(n, dtype=torch.bool)


def random_subsets(n: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    """``k`` different subsets of ``n`` modalities that are neither joint nor unimodal.

    As in the MVAE's 19-modality experiment: first a cardinality, uniform in 2..n-1, then a subset
    of that cardinality, uniform among those not drawn yet.

    Args:
        n: Number of modalities.
        k: Number of subsets.
        generator: Source of randomness, on the CPU.

    Returns:
        Boolean ``(k, n)``.

    Raises:
        ValueError: If there are fewer than ``k`` such subsets.

    References:
        Wu and Goodman 2018, section 5.2 and eq. 5.

    Example:
        >>> random_subsets(3, 3, torch.Generator().manual_seed(0)).sum(dim=1)
        tensor([2, 2, 2])
    """
    available = {c: math.comb(n, c) for c in range(2, n)}
    if not 0 <= k <= sum(available.values()):
        raise ValueError(
            f"k must be in 0..{sum(available.values())}, the number of subsets of {n} modalities "
            f"that are neither joint nor unimodal, got {k}"
        )
    # On the CPU, also where another device is the default.
    drawn: list[tuple[int, ...]] = []
    while len(drawn) < k:
        cardinality = int(torch.randint(2, n, (), generator=generator, device="cpu"))
        if not available[cardinality]:
            continue
        available[cardinality] -= 1
        while True:
            members = (
                torch.randperm(n, generator=generator, device="cpu")[:cardinality].sort().values
            )
            if (subset := tuple(members.tolist())) not in drawn:
                break
        drawn.append(subset)
    masks = torch.zeros(k, n, dtype=torch.bool, device="cpu")
    for mask, subset in zip(masks, drawn, strict=True):
        mask[list(subset)] = True
    return masks
