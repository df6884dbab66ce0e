"""What a solve keeps for its backward beside the states, and when.

The backward needs what the forward had: the products ``W_l y`` of every evaluation and, of the
trace, ``M phi'(a_1)`` or the tangents. Kept, they save a third of a net's second pass. They take
memory, once written and once read, and so are kept while they fit.
"""

from collections.abc import Sequence

from mvae_fast.core.problem import Problem

#: Bytes that ``memory="auto"`` keeps at most.
BUDGET = 2**28
#: Multiply-adds that a number must save for ``"auto"`` to keep it: 60 take as long as its way to
#: memory and back.
WORTH = 60
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


def save_level(problem: Problem) -> int:
    """What the forward of an engine that can keep both is to save: `STATES` or `ACTIVATIONS`."""
    memory = problem.memory
    if problem.checkpoint_every > 1 or memory == "states":
        return STATES
    if memory == "activations":
        return ACTIVATIONS
    stages = len(problem.tableau.b)
    probes = 0 if problem.probes is None else problem.probes.shape[0]
    pieces = kept_pieces(problem.field.widths, problem.closed, probes, stages)
    if memory == "auto":
        memory = BUDGET
        if max(problem.field.widths) < WORTH or sum(m * saved for m, saved in pieces) < WORTH * sum(
            m for m, _ in pieces
        ):
            return STATES
    itemsize = problem.z.element_size()
    row = itemsize * sum(padded(m, itemsize) for m, _ in pieces)
    kept = row * problem.z.shape[0] * problem.h.shape[0] * stages
    return ACTIVATIONS if kept <= int(memory) else STATES
