"""Where the tests of this folder run: every engine for GPUs on a GPU, and two on the CPU.

The CPU's rows test the tests: their bodies run on every machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from benchmarks.common.precision import operands
from benchmarks.gpu.candidates import GPU_ENGINES, why_missing
from benchmarks.gpu.timing import captured, why_no_gpu
from mvae_fast import engines

__all__ = ["CPU", "GPU", "NEAR", "Place", "every", "no_synchronisation", "rerun"]


@dataclass(frozen=True)
class Place:
    """A device and an engine."""

    device: str
    engine: str

    def __str__(self) -> str:
        return f"{self.device}-{self.engine}"

    def why_not(self) -> str | None:
        """None where the engine can run on this device of this machine, else the reason."""
        reason = why_no_gpu() if self.device == "cuda" else None
        if reason is None:
            missing = why_missing(self.engine)
            reason = missing and f"engine {self.engine!r} is not available: {missing}"
        return reason

    def has(self, precision: str = "full", dtype: torch.dtype = torch.float32) -> bool:
        """Whether the engine takes this dtype here, with products of this precision."""
        engine = engines.get(self.engine)
        return engine.supports(torch.device(self.device), dtype, operands(precision))

    def require(self, precision: str) -> None:
        """Skip the test unless the engine has this precision here."""
        if not self.has(precision):
            pytest.skip(f"engine {self.engine!r} has no {precision} on {self.device}")

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """As `benchmarks.gpu.timing.captured`, which the CPU imitates."""
        return captured(call) if self.device == "cuda" else rerun(call)


GPU: tuple[Place, ...] = tuple(Place("cuda", name) for name in GPU_ENGINES)
CPU: tuple[Place, ...] = (Place("cpu", "cpp"), Place("cpu", "reference"))
#: Whose numbers can be off: the reference is what they are compared with.
NEAR: tuple[Place, ...] = (*GPU, CPU[0])


def every(places: Sequence[Place] = (*GPU, *CPU), cases: Sequence[Any] = ((),)) -> list[Any]:
    """Parameters ``(place, *case)``, skipped with the reason where a place is not to be had."""
    return [
        pytest.param(
            place,
            *case,
            marks=pytest.mark.skipif(place.why_not() is not None, reason=str(place.why_not())),
            id="-".join(str(part).replace(" ", "") for part in (place, *case)),
        )
        for place in places
        for case in cases
    ]


def rerun(call: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
    """What a CUDA graph does, without one: a call that writes the same tensors again."""
    outputs = call()

    def replay() -> None:
        for old, new in zip(outputs, call(), strict=True):
            old.copy_(new)

    return replay, outputs


@contextlib.contextmanager
def no_synchronisation(device: str) -> Iterator[None]:
    """On a GPU an error whenever the host waits for it."""
    if device != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
