"""Which engines exist on this machine and, for each that does not, the reason and the remedy.

An engine is a function that integrates tables; a new one needs one entry in ``_ENGINES``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mvae_fast import cuda_ops, ops, reference, table_ops, triton_ops
from mvae_fast.checks import one_of
from mvae_fast.problem import PRECISIONS, Problem, Solution

__all__ = ["ENGINES", "available", "get", "resolve", "why_missing"]


@dataclass(frozen=True)
class Engine:
    """One implementation of the integral.

    Args:
        integrate: Solves a checked problem, differentiably.
        why_missing: None when usable on this machine, else the reason and the remedy.
        devices: Device types it runs on, or None for every one.
        dtypes: Dtypes it runs in, or None for every floating one.
        precisions: Those of `mvae_fast.problem.PRECISIONS` that it has.
        refuses: What is too much of a problem for it, or None.
        excludes: Why it cannot use a device of a type that it runs on, with the remedy, or None.
        by_name_only: Device types where it only runs when named, being no use but to test it.
    """

    integrate: Callable[[Problem], Solution]
    why_missing: Callable[[], str | None]
    devices: tuple[str, ...] | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    precisions: tuple[str, ...] = PRECISIONS
    by_name_only: tuple[str, ...] = ()
    refuses: Callable[[Problem], str | None] = lambda problem: None
    excludes: Callable[[torch.device], str | None] = lambda device: None

    def supports(self, device: torch.device, dtype: torch.dtype, precision: str) -> bool:
        """Whether it can run on tensors of this device and dtype, with products of this kind."""
        return (
            (self.devices is None or device.type in (*self.devices, *self.by_name_only))
            and (self.dtypes is None or dtype in self.dtypes)
            and precision in self.precisions
        )


# In the order in which engine="auto" prefers them; the reference, last, runs everywhere.
_ENGINES: dict[str, Engine] = {
    "cpp": Engine(
        ops.integrate,
        ops.why_missing,
        ("cpu",),
        (torch.float32, torch.float64),
        ("full", "bf16"),
    ),
    "cuda": Engine(
        cuda_ops.integrate,
        cuda_ops.why_missing,
        ("cuda",),
        (torch.float32,),
        refuses=cuda_ops.refuses,
        excludes=cuda_ops.excludes,
    ),
    "triton": Engine(
        triton_ops.integrate,
        triton_ops.why_missing,
        ("cuda",),
        (torch.float32, torch.float64),
        by_name_only=("cpu",) if triton_ops.INTERPRETED else (),
        refuses=table_ops.refuses_nonlinearity,
    ),
    "reference": Engine(reference.integrate, lambda: None),
}

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
def _warn_once(device: str, missing: str) -> None:
    warnings.warn(
        f"engine: 'auto' takes the slow 'reference' on {device}: {missing}; or name it, "
        "engine='reference', to have it without this warning",
        stacklevel=3,
    )


def get(name: str) -> Engine:
    """The engine called ``name``, as given by `resolve`."""
    return _ENGINES[name]


def resolve(
    engine: str,
    device: torch.device,
    dtype: torch.dtype,
    precision: str = "full",
    problem: Problem | None = None,
) -> str:
    """The engine to use for tensors of this device and dtype.

    Args:
        engine: A name, which is then used or refused, or ``"auto"``: the fastest that fits.
        device: Where the state lives.
        dtype: Its dtype.
        precision: One of `mvae_fast.problem.PRECISIONS`.
        problem: What it is for, where that is known already. Of its solves ``"auto"`` warns once,
            if for want of another engine the reference takes them.

    Returns:
        One of `ENGINES`.

    Raises:
        ValueError: For an unknown name, or what the named engine lacks: device, dtype, precision.
        RuntimeError: When the named engine is missing on this machine, with the remedy.

    Example:
        >>> resolve("auto", torch.device("cpu"), torch.bfloat16)
        'reference'
    """
    # ONNX has none of the compiled engines' operators.
    onnx = torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()
    if engine == "auto":
        if onnx:
            return "reference"
        missing = []
        for name, candidate in _ENGINES.items():
            fits = candidate.supports(device, dtype, precision)
            fits = fits and (problem is None or candidate.refuses(problem) is None)
            fits = fits and device.type not in candidate.by_name_only
            if not fits:
                continue
            reason = candidate.why_missing() or candidate.excludes(device)
            if reason is not None:
                missing.append(reason)
                continue
            slow = name == "reference" and missing and problem is not None
            if slow and not torch.compiler.is_compiling():  # in a graph it would be a break
                _warn_once(device.type, "; ".join(missing))
            return name
    check_name(engine)
    chosen = _ENGINES[engine]
    if onnx and engine != "reference":
        raise ValueError(
            f"engine: {engine!r} has no ONNX operator; remedy: engine='auto' or 'reference'"
        )
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
    refusal = None if problem is None else chosen.refuses(problem)
    if refusal is not None:
        raise ValueError(f"engine: {engine!r} {refusal}; remedy: engine='auto'")
    return engine
