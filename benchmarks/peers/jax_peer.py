"""The near end of a flow in JAX's process."""

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.peers.jax_process import jax_process

if TYPE_CHECKING:
    from benchmarks.common.candidates import Problem


class Jax:
    """A form of `benchmarks.peers.jax_flow` on as many cores as PyTorch has threads now.

    Args:
        control: None for Euler's method; else a tolerance and a first step, and diffrax solves.
    """

    def __init__(
        self, problem: "Problem", form: str, control: tuple[float, float] | None = None
    ) -> None:
        weights = {name: weight.numpy() for name, weight in problem.weights.items()}
        given = problem.z.detach(), problem.logp, problem.probes
        double = problem.dtype == torch.float64
        if double:
            weights = {name: weight.astype("float64") for name, weight in weights.items()}
        self._process = jax_process(torch.get_num_threads(), double)
        self._key = self._process.ask(
            "build",
            *(control, problem.workload, form, weights),
            *(tensor.numpy() for tensor in given),
        )
        # At exit the process ends by itself.
        weakref.finalize(self, self._process.ask, "drop", self._key).atexit = False

    def results(self, mode: str) -> tuple[Tensor, ...]:
        """As `benchmarks.common.candidates.MODES`."""
        arrays = self._process.ask("results", self._key, mode)
        # A copy, since arrays of a pipe cannot be written to.
        return tuple(torch.tensor(array) for array in arrays)

    def evaluations(self) -> int:
        """Of the velocity, in one of diffrax's solves."""
        evaluations: int = self._process.ask("evaluations", self._key)
        return evaluations

    def seconds(self, mode: str, clock: str) -> float:
        """What a call takes over there."""
        seconds: float = self._process.ask("seconds", self._key, mode, clock)
        return seconds
