"""What a solve keeps for its backward beside the states, and when.

The backward needs what the forward had: the products ``W_l y`` of every evaluation and, of the
trace, ``M phi'(a_1)`` or the tangents. Kept, they save a third of a net's second pass. They take
memory, once written and once read, and so are kept while they fit.
"""

from collections.abc import Sequence

from mvae_fast.core.problem import Problem

#: What ``memory="auto"`` keeps: up to so many bytes, if a number saves so many multiply-adds on
#: average. 60 take as long as its way to memory and back, 30 as that to the cache.
AUTO = ((2**28, 60), (2**23, 30))
#: What an op's ``save`` says.
STATES, ACTIVATIONS = 1, 2


def kept_pieces(
    widths: Sequence[int], exact: bool, probes: int, stages: int
) -> list[tuple[int, int]]:
    """What is kept of a row at an evaluation, as ``kept_numbers`` of csrc/problem.h counts it.

    Args:
        widths: ``(m_0, ..., m_L)``.
        exact: Whether there is an exact trace in closed form.
        probes: K.
        stages: R.

    Returns:
        For each piece its numbers, and the multiply-adds that one of them takes.
    """
    hidden = list(zip(widths[1:-1], widths, strict=False))
    pieces = hidden + probes * hidden[1:]
    if exact and len(widths) == 4:
        pieces.append((widths[2], widths[1]))
    return pieces + [(widths[0], 0)] * (stages > 1)


def padded(numbers: int, itemsize: int) -> int:
    """A row's length in memory: an odd number of cache lines."""
    line = 64 // itemsize
    return line * (-(-numbers // line) | 1)


def budget(problem: Problem) -> int:
    """Bytes that may be kept beside the states."""
    memory = problem.memory
    if memory == "states":
        return 0
    if memory == "activations":
        return 2**62
    if memory != "auto":
        return int(memory)
    if max(problem.field.widths) < AUTO[-1][1]:  # no number saves more
        return 0
    pieces = _pieces(problem)
    numbers, saved = sum(m for m, _ in pieces), sum(m * saves for m, saves in pieces)
    return next((most for most, worth in AUTO if saved >= worth * numbers), 0)


def save_level(problem: Problem) -> int:
    """What the forward of an engine that can keep both is to save: `STATES` or `ACTIVATIONS`."""
    most = 0 if problem.checkpoint_every > 1 else budget(problem)
    if not most:
        return STATES
    itemsize = problem.z.element_size()
    row = itemsize * sum(padded(m, itemsize) for m, _ in _pieces(problem))
    kept = row * problem.z.shape[0] * problem.h.shape[0] * len(problem.tableau.b)
    return ACTIVATIONS if kept <= most else STATES


def _pieces(problem: Problem) -> list[tuple[int, int]]:
    probes = 0 if problem.probes is None else problem.probes.shape[0]
    return kept_pieces(problem.field.widths, problem.closed, probes, len(problem.tableau.b))
