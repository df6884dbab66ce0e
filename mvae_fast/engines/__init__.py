"""Which engines exist on this machine and, for each that does not, the reason and the remedy.

An engine is a function from a problem to its solution; a new one needs one entry in ``_ENGINES``.
Which one takes a problem is decided here, once for a solve, and nowhere else.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from mvae_fast.checks import one_of
from mvae_fast.core import adaptive, finite, reference
from mvae_fast.core.adaptive import Control, Found
from mvae_fast.core.field import Field
from mvae_fast.core.problem import PRECISIONS, Problem, Solution, check_log_det, complete
from mvae_fast.core.tableaus import Embedded
from mvae_fast.core.tables import Tables
from mvae_fast.core.trace import exact_probes, trace_table
from mvae_fast.engines import cpp, cuda, memory, ops, triton
from mvae_fast.engines.ops import transformed as transformed

__all__ = [
    "ENGINES",
    "Engine",
    "EngineName",
    "available",
    "choose",
    "get",
    "search",
    "solve",
    "usual",
    "why_missing",
]


@dataclass(frozen=True)
class Engine:
    """One implementation of the integral.

    Args:
        solve: Solves a problem, differentiably; but for `complete`.
        why_missing: None when usable on this machine, else the reason and the remedy.
        devices: Device types it runs on, or None for every one.
        dtypes: Dtypes it runs in, or None for every floating one.
        precisions: Those of `mvae_fast.core.problem.PRECISIONS` that it has.
        refuses: What is too much of a problem for it, or None.
        log_det: Solves a problem with the log-determinant of the steps, if it can; but for its
            derivatives and `complete`.
        excludes: Why it cannot use a device of a type that it runs on, with the remedy, or None.
        by_name_only: Device types where it only runs when named, being no use but to test it.
    """

    solve: Callable[[Problem], Solution]
    why_missing: Callable[[], str | None]
    devices: tuple[str, ...] | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    precisions: tuple[str, ...] = PRECISIONS
    by_name_only: tuple[str, ...] = ()
    refuses: Callable[[Problem], str | None] = lambda problem: None
    log_det: Callable[[Problem], Solution] | None = None
    excludes: Callable[[torch.device], str | None] = lambda device: None

    def precisions_of(self, problem: Problem) -> tuple[str, ...]:
        """Those that it has for a problem."""
        rounds = problem.z.dtype == torch.float32 and problem.log_det == "trace"
        return self.precisions if rounds else ("full",)

    def lacks(self, problem: Problem) -> str | None:
        """What is asked of it that it has not, or None."""
        if self.solve is reference.solve:
            return None
        if _in_onnx_export():
            return "has no ONNX operator"
        if problem.jacobians and problem.trace is not None:
            return self.lacks_jacobians(problem) or self.refuses(problem)
        return self.refuses(problem)

    def lacks_jacobians(self, problem: Problem) -> str | None:
        """What it has not of a problem that takes whole Jacobians, or None."""
        if self.log_det is None or problem.log_det != "exact":
            exact = "" if self.log_det is None else ", 'exact'"
            return f"has log_det='trace'{exact}, and 'second_order' for one hidden layer"
        if problem.precision != "full" and not problem.follow:
            return f"has log_det='exact' with precision='full', got {problem.precision!r}"
        if ops.differentiable(problem) or ops.transformed():
            return "has log_det='exact' without derivatives, as under torch.no_grad()"
        return None

    def supports(self, device: torch.device, dtype: torch.dtype, precision: str) -> bool:
        """Whether it can run on tensors of this device and dtype, with products of this kind."""
        return (
            (self.devices is None or device.type in (*self.devices, *self.by_name_only))
            and (self.dtypes is None or dtype in self.dtypes)
            and precision in self.precisions
        )


def _in_onnx_export() -> bool:
    return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()


# In the order in which engine="auto" prefers them; the reference, last, runs everywhere.
_ENGINES: dict[str, Engine] = {
    "cpp": Engine(
        cpp.solve,
        cpp.why_missing,
        ("cpu",),
        (torch.float32, torch.float64),
        ("full", "bf16"),
        refuses=cpp.refuses,
        log_det=cpp.log_det,
    ),
    "cuda": Engine(
        partial(ops.solve, "solve", ops.tables, ops.states_only),
        cuda.why_missing,
        ("cuda",),
        (torch.float32,),
        refuses=cuda.refuses,
        excludes=cuda.excludes,
    ),
    "triton": Engine(
        partial(ops.solve, "triton_solve", ops.tables, ops.states_only),
        triton.why_missing,
        ("cuda",),
        (torch.float32, torch.float64),
        by_name_only=("cpu",) if triton.INTERPRETED else (),
        refuses=triton.refuses,
    ),
    "reference": Engine(reference.solve, lambda: None),
}

#: What ``FastCNF(engine=...)`` takes.
EngineName = Literal["auto", "cpp", "cuda", "triton", "reference"]

#: Every engine name that ``FastCNF(engine=...)`` takes, besides ``"auto"``.
ENGINES: tuple[str, ...] = tuple(_ENGINES)


def check_name(engine: str) -> None:
    """Raise ValueError unless ``engine`` is ``"auto"`` or one of `ENGINES`."""
    one_of("engine", engine, ("auto", *_ENGINES))


def why_missing(engine: str) -> str | None:
    """None when ``engine`` is usable on this machine, else the reason and the remedy.

    Of an engine for GPUs it is the current one that counts.
    """
    check_name(engine)
    if engine == "auto":
        return None
    chosen = _ENGINES[engine]
    reason = chosen.why_missing()
    if reason is None and chosen.devices is not None:
        reason = chosen.excludes(torch.device(chosen.devices[0]))
    return reason


def available() -> tuple[str, ...]:
    """The engines that are usable on this machine.

    Example:
        >>> "reference" in available()
        True
    """
    return tuple(name for name in _ENGINES if why_missing(name) is None)


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)


# The same for every instruction set: once a process.
_FLOAT32_TAKEN = (
    "precision: got 'bf16', set or of torch.autocast, but the C++ engine has no bf16 instructions "
    "on this CPU and takes float32 products: results and speed are those of precision='full'; set "
    "it to 'full' to have them without this warning"
)


def get(name: str) -> Engine:
    """The engine called ``name``."""
    return _ENGINES[name]


def solve(engine: str, problem: Problem, found: Found | None = None) -> Solution:
    """Let an engine solve a problem whose tensors fit together.

    Args:
        engine: A name, which is then used or refused, or ``"auto"``: the fastest that fits.
        problem: What to solve.
        found: By the search for its steps. Where nothing is to be differentiated, and nothing else
            is wanted than what it has, that is the solution.

    Raises:
        ValueError: For an unknown name, or what the problem or the named engine lacks.
        RuntimeError: When the named engine is missing on this machine, with the remedy.
        FloatingPointError: Where the solution is to be finite, and is not.
    """
    check_log_det(problem)
    if problem.check_finite:
        _check_start(problem)
        solution = solve(engine, problem._replace(check_finite=False), found)
        finite.check_end(problem, solution)
        return solution
    if found is not None and _found_all(problem) and not ops.differentiable(problem):
        penalties = problem.z.new_zeros((len(problem.outputs), 0, problem.z.shape[0]))
        return complete(problem, Solution(found.z, found.logp, penalties))
    if problem.trace == "exact" and not problem.closed and not problem.jacobians:
        problem = problem._replace(probes=exact_probes(problem.z))
    name = choose(engine, problem)
    chosen = _ENGINES[name]
    if problem.follow and problem.precision not in chosen.precisions_of(problem):
        problem = problem._replace(precision="full")
    if name == "cpp" and problem.precision == "bf16" and not torch.compiler.is_compiling():
        # The kernels decide (csrc/cpu/net/layout.h): a graph may run on another machine.
        if not cpp.multiplies_bf16():
            _warn_once(_FLOAT32_TAKEN)
    if found is not None and found.saved is not None and _found_all(problem):
        return complete(problem, cpp.solve(problem, found))
    exact = problem.log_det == "exact" and problem.trace is not None
    run = (exact and chosen.log_det) or chosen.solve
    return complete(problem, run(problem))


def _check_start(problem: Problem) -> None:
    if transformed() or torch.compiler.is_compiling():
        raise ValueError(
            "check_finite: got True, but torch.func and torch.compile hide the values that it "
            "looks at, expected False"
        )
    finite.check_start(problem)


def _found_all(problem: Problem) -> bool:
    """Whether a search finds all that is wanted of a problem."""
    trace = problem.trace is None or problem.log_det == "trace"
    return trace and not problem.penalties and problem.checkpoint_every == 1


def search(
    engine: str,
    problem: Problem,
    field_at: Callable[[torch.Tensor], Field | Tables],
    times: Sequence[float],
    method: Embedded,
    control: Control,
) -> Found:
    """Find the steps that an embedded pair takes; they have no gradient.

    With products in full precision, whatever the problem's: rounded to bfloat16 they are further
    off than any useful tolerance, and no step would be small enough.

    Args:
        engine: As of `solve`: that which is to take the steps. The C++ engine finds them, too; for
            every other one plain PyTorch does.
        problem: One attempt: ``h`` (1,), the stages of ``method.tableau`` at any times.
        field_at: The velocity at times (E,).
        times: n + 1 of them, all ascending or all descending.
        method: What it attempts.
        control: What decides about the steps.

    Raises:
        RuntimeError: If ``max_num_steps`` are too few, or no step is small enough.
    """
    if problem.check_finite:
        _check_start(problem)
    saves = _found_all(problem) and problem.precision == "full" and ops.differentiable(problem)
    problem = problem._replace(
        log_det="trace", penalties=(), checkpoint_every=1, precision="full", follow=False
    )
    if problem.trace is None:  # probes are for a penalty
        problem = problem._replace(probes=None)
    elif problem.trace == "exact":
        probes = None if problem.closed else exact_probes(problem.z)
        problem = problem._replace(probes=probes)
    with torch.no_grad():
        if choose(engine, problem) == "cpp" and cpp.searches(problem):
            budget = memory.budget(problem) if saves else -1
            return cpp.search(problem, times, method, control, budget)

        def evaluate(z: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            tables = field_at(t.view(1)).tables()
            table = trace_table(tables) if problem.closed else None
            given = (tables, 0, table, problem.probes, problem.precision)
            velocity, tau, _ = reference.dynamics(z, *given)
            return velocity, tau

        return adaptive.search(evaluate, problem.z, times, method, control)


def choose(engine: str, problem: Problem) -> str:
    """The engine that solves a problem; arguments and errors as of `solve`.

    ``"auto"`` warns once, if for want of another engine the reference takes a problem.
    """
    device, dtype = problem.z.device, problem.z.dtype
    precision = "full" if problem.follow else problem.precision
    name, missing = _first(engine, device, dtype, precision, problem)
    if name is not None:
        if name == "reference" and missing and not torch.compiler.is_compiling():
            _warn_once(  # in a graph it would be a break
                f"engine: 'auto' takes the slow 'reference' on {device.type}: {'; '.join(missing)};"
                " or name it, engine='reference', to have it without this warning"
            )
        return name
    chosen = _ENGINES[engine]
    reason = chosen.why_missing()
    if reason is not None:
        raise RuntimeError(f"engine: {engine!r} is not available: {reason}")
    if precision not in chosen.precisions:
        names = ", ".join(map(repr, chosen.precisions))
        raise ValueError(f"precision: engine {engine!r} has {names}, got {precision!r}")
    if not chosen.supports(device, dtype, precision):
        dtypes = ", ".join(str(d).removeprefix("torch.") for d in chosen.dtypes or ())
        raise ValueError(
            f"engine: {engine!r} got a {dtype} state on {device}, but supports "
            f"{dtypes or 'every float dtype'} on {', '.join(chosen.devices or ('every device',))}; "
            "remedy: engine='auto' or 'reference'"
        )
    reason = chosen.excludes(device)
    if reason is not None:
        raise RuntimeError(f"engine: {engine!r} is not available: {reason}")
    raise ValueError(f"engine: {engine!r} {chosen.lacks(problem)}; remedy: engine='auto'")


def usual(engine: str, device: torch.device, dtype: torch.dtype) -> str:
    """The engine that takes most problems on a device.

    Example:
        >>> usual("auto", torch.device("cpu"), torch.bfloat16)
        'reference'
    """
    return _first(engine, device, dtype, "full", None)[0] or engine


def _first(
    engine: str, device: torch.device, dtype: torch.dtype, precision: str, problem: Problem | None
) -> tuple[str | None, list[str]]:
    """The engine that fits, or None, and why others that would fit are missing here."""
    check_name(engine)
    missing: list[str] = []
    for name in _ENGINES if engine == "auto" else (engine,):
        candidate = _ENGINES[name]
        if not candidate.supports(device, dtype, precision):
            continue
        if problem is not None and candidate.lacks(problem) is not None:
            continue
        if engine == "auto" and device.type in candidate.by_name_only:
            continue
        reason = candidate.why_missing() or candidate.excludes(device)
        if reason is None:
            return name, missing
        missing.append(reason)
    return None, missing
