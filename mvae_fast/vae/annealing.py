"""Annealing of the KL term."""

from collections.abc import Callable


def linear_annealing(step: int, n_steps: int, steps_per_epoch: int = 1) -> float:
    """Weight beta of the KL term at mini-batch ``step`` (counted from 0): linear, 1 from step
    ``n_steps``-1 on.

    The first mini-batch already sees ``1 / n_steps``, the last one of the annealing sees exactly 1,
    so that beta does not jump where the annealing ends.

    Args:
        step: Mini-batches done so far.
        n_steps: Length of the annealing in mini-batches; 0 means none.
        steps_per_epoch: Mini-batches an epoch; makes no difference here.

    Returns:
        beta in (0, 1].

    Raises:
        ValueError: If ``step`` or ``n_steps`` is negative, or ``steps_per_epoch`` not positive.

    References:
        Bowman et al., Generating sentences from a continuous space, 2016, section 3.1.

    Example:
        >>> [linear_annealing(step, 4) for step in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    _check(step, n_steps, steps_per_epoch)
    return min(1.0, (step + 1) / n_steps) if n_steps else 1.0


def jump_annealing(step: int, n_steps: int, steps_per_epoch: int = 1) -> float:
    """Weight beta of the KL term as in the MVAE's and the paper's code: linear, but 1 already from
    the annealing's last epoch on.

    With E epochs of annealing beta rises to (E-1)/E in the first E-1 of them, then jumps to 1; a
    single epoch of annealing is none. `linear_annealing` rises in that last epoch, too.

    Args:
        step: Mini-batches done so far.
        n_steps: Length E of the annealing in mini-batches; 0 means none.
        steps_per_epoch: Mini-batches an epoch.

    Returns:
        beta in (0, 1].

    Raises:
        ValueError: If ``step`` or ``n_steps`` is negative, or ``steps_per_epoch`` not positive.

    References:
        The code of Wu and Goodman 2018 and of Nedelkoski, Bogojeski, Kao 2020.

    Example:
        >>> [round(jump_annealing(step, 6, steps_per_epoch=2), 3) for step in range(6)]
        [0.167, 0.333, 0.5, 0.667, 1.0, 1.0]
    """
    _check(step, n_steps, steps_per_epoch)
    return (step + 1) / n_steps if step < n_steps - steps_per_epoch else 1.0


def _check(step: int, n_steps: int, steps_per_epoch: int) -> None:
    if step < 0 or n_steps < 0:
        raise ValueError(f"step and n_steps must not be negative, got {step} and {n_steps}")
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be positive, got {steps_per_epoch}")


#: Schedules by name, all called ``schedule(step, n_steps, steps_per_epoch)``; for E epochs of
#: annealing ``n_steps`` is ``E * steps_per_epoch``.
ANNEALING: dict[str, Callable[[int, int, int], float]] = {
    "linear": linear_annealing,
    "jump": jump_annealing,
}
