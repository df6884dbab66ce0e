"""Peers whose nets are of no workload, each beside FastCNF's engines with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.core.tables import Tables
from mvae_fast.integrate import integrate

OURS = "FastCNF rk4"
#: A flow: end states (B, D) and the change of the log-density (B,).
Flow = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class OwnNet:
    """One such problem.

    Args:
        shape: What it is, in words.
        z: (B, D), start states.
        weights: Parameters, whose gradients are part of a training step.
        flows: By candidate; the first is ours.
        tolerance: Of each candidate's results, relative to ours in the norm: that of its solver.
    """

    shape: str
    z: Tensor
    weights: tuple[Tensor, ...]
    flows: dict[str, Flow]
    tolerance: dict[str, float]

    def train(self, name: str) -> tuple[Tensor, ...]:
        """End states, log-densities and, in a row, the gradients of the negative log-likelihood."""
        z_t, change = self.flows[name](self.z)
        log_likelihood = -z_t.square().sum(1) / 2 - change
        gradients = torch.autograd.grad(-log_likelihood.mean(), self.weights)
        return z_t, change, torch.cat([gradient.flatten() for gradient in gradients])

    def inference(self, name: str) -> tuple[Tensor, ...]:
        """End states and log-densities."""
        with torch.no_grad():
            return self.flows[name](self.z)

    def check(self, mode: str) -> None:
        """Raise AssertionError unless all compute what ours does, to their solvers' tolerances."""
        run = getattr(self, mode)
        expected = run(OURS)
        for name, tolerance in self.tolerance.items():
            for index, (got, ours) in enumerate(zip(run(name), expected, strict=True)):
                error, size = (got - ours).norm().item(), ours.norm().item()
                assert error <= tolerance * size, (
                    f"{name}: error {error:.1e} of {size:.1e}, {index}"
                )


class ByTables(nn.Module):
    """The engine on a velocity that is given by its tables, with the classical number of stages.

    Args:
        tables: Makes them from the times of the evaluations.
        start: t_0.
        end: t_1, before or after it.
        steps: Of the 3/8 rule of fourth order.
    """

    def __init__(
        self, tables: Callable[[Tensor], Tables], start: float, end: float, steps: int
    ) -> None:
        super().__init__()
        self.tables = tables
        self.start, self.end, self.steps = start, end, steps

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """As `Flow`."""
        tableau = TABLEAUS["rk4"]
        h = (self.end - self.start) / self.steps
        shares = torch.tensor(tableau.c, dtype=z.dtype)
        times = self.start + h * (torch.arange(self.steps, dtype=z.dtype)[:, None] + shares)
        solution = integrate(
            z, z.new_full((self.steps,), h), self.tables(times.flatten()),
            trace="exact", tableau=tableau,
        )  # fmt: skip
        return solution.z[-1], solution.logp[-1]
