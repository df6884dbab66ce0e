"""The C++ engine: fused kernels for the CPU, and what they run on."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from mvae_fast.core.adaptive import Control, Found
from mvae_fast.core.field import Field
from mvae_fast.core.problem import Problem
from mvae_fast.core.tableaus import Embedded
from mvae_fast.engines import memory, ops
from mvae_fast.engines.enums import COEFFICIENTS, MOST_FEATURES, NONLINEARITIES

_LOAD_ERROR = ops.load("_C", "_build_error.txt", "the C++ extension", "a C++17 compiler (g++)")
_LOAD_ERROR = _LOAD_ERROR or ops.check_version()

# Kept here as well: torch.compile cannot trace an op that returns a string.
_CAPABILITIES = () if _LOAD_ERROR else tuple(ops.cpu_capabilities().split())
_CAPABILITY = _CAPABILITIES[0] if _CAPABILITIES else None


def why_missing() -> str | None:
    """None when the extension is loaded, else the reason and the remedy."""
    return _LOAD_ERROR


def velocity(problem: Problem) -> ops.Velocity:
    """A field's coefficients, where it has some, else tables."""
    field = problem.field
    # Of Tr J^2 the kernels know the table only.
    if not isinstance(field, Field) or problem.log_det != "trace":
        return ops.tables(problem)
    structure = field.structure
    layout = [COEFFICIENTS, len(field.tensors), structure.features, *structure.numbers]
    if not field.context:
        tensors: tuple[Tensor, ...] = (*field.tensors, field.time)
        layout += [-1] * len(structure.layers)
    else:
        present = [u for u in field.context if u is not None]
        tensors = (*field.tensors, field.time, *present)
        free = iter(range(len(field.tensors) + 1, len(tensors)))
        layout += [-1 if u is None else next(free) for u in field.context]
    return tensors, layout, problem.closed


solve = partial(ops.solve, "solve", velocity, memory.save_level)
log_det = partial(ops.log_det, velocity)


def search(
    problem: Problem, times: Sequence[float], method: Embedded, control: Control, budget: int
) -> Found:
    """The steps of an embedded pair; arguments as of `ops.search`."""
    return ops.search(velocity(problem), problem, times, method, control, budget)


def refuses(problem: Problem) -> str | None:
    """None when the kernels take a problem, else what of it they have not."""
    field = problem.field
    if field.nonlinearity not in NONLINEARITIES:
        return f"has no nonlinearity {field.nonlinearity!r}"
    if field.gate_context:
        return "has no gates by row (gate_context)"
    if isinstance(field, Field) and field.structure.features > MOST_FEATURES:
        return f"takes at most {MOST_FEATURES} features of time, got {field.structure.features}"
    return None


def searches(problem: Problem) -> bool:
    """Whether the kernels find the steps of an embedded pair: of a velocity over 1 and t."""
    return isinstance(problem.field, Field) and problem.field.time.ndim == 1


def capabilities() -> tuple[str, ...]:
    """The instruction sets whose kernels this processor can run, best first; empty if missing."""
    return _CAPABILITIES[1:]


def capability() -> str | None:
    """The instruction set whose kernels run: the best one, unless `set_capability` chose."""
    return _CAPABILITY


def multiplies_bf16() -> bool:
    """Whether the kernels that run have products of bfloat16; others take float32 for them."""
    return _CAPABILITY == "avx512_bf16"


def set_capability(name: str) -> None:
    """Run the kernels of the instruction set ``name`` in the whole process, to test or compare.

    Raises:
        RuntimeError: If ``name`` is not one of `capabilities`.
    """
    global _CAPABILITY
    ops.cpu_capabilities(name)
    _CAPABILITY = name


def peak(repeats: int) -> int:
    """Run the float32 register tile of the products on every thread, on operands in cache.

    Args:
        repeats: How many times; one takes about a microsecond.

    Returns:
        The multiply-adds that were done; over the time it took, the machine's peak.
    """
    return ops.cpu_peak(repeats)
