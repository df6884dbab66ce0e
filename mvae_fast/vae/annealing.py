"""Annealing of the KL term."""

from __future__ import annotations

__all__ = ["linear_annealing"]


def linear_annealing(step: int, n_steps: int) -> float:
    """Weight beta of the KL term at mini-batch ``step`` (counted from 0): linear, 1 from step
    ``n_steps``-1 on.

    The first mini-batch already sees ``1 / n_steps``, the last one of the annealing sees exactly 1,
    so that beta does not jump where the annealing ends.

    Args:
        step: mini-batches done so far.
        n_steps: length of the annealing in mini-batches; 0 means none.

    Returns:
        beta in (0, 1].

    Raises:
        ValueError: if an argument is negative.

    References:
        Bowman et al., Generating sentences from a continuous space, 2016, section 3.1.

    Example:
        >>> [linear_annealing(step, 4) for step in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    if step < 0 or n_steps < 0:
        raise ValueError(f"step and n_steps must not be negative, got {step} and {n_steps}")
    return min(1.0, (step + 1) / n_steps) if n_steps else 1.0
