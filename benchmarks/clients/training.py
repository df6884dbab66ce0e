"""Training iterations at FFJORD's defaults: FastCNF, FFJORD's scheme and diffrax.

The flows are FFJORD's: its toy densities with the exact trace; a tabular one, one twice as wide
and its VAE's with Hutchinson's estimate. Tolerances are 1e-5. All have the same weights,
states and noise.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.clients.comparison import Aim, Comparison, Errors, Prepared, check, worst_error
from benchmarks.common.candidates import OURS, Ours, Problem, call, results, training_step
from benchmarks.common.workloads import Workload
from benchmarks.peers.ffjord import FFJORD
from benchmarks.peers.jax_peer import Jax
from mvae_fast.engines import cpp

TOLERANCE = 1e-5
#: Of the fine solution, which torchdiffeq computes in float64, its gradient by the adjoint.
FINE = 1e-10
#: Of the batch, so many rows are compared with the fine solution.
ROWS = 32
#: Diffrax's first step and that of FastCNF beside it; see `benchmarks.peers.diffrax_flow`.
FIRST_STEP = 0.05

TOY = Workload("toy", 2, (64, 64, 64), "concatsquash", "tanh", 100, 20, "FFJORD's toy densities")
TABULAR = Workload(
    "tabular", 43, (430, 430), "concatsquash", "softplus", 1000, 20, "FFJORD's MINIBOONE"
)
WIDE = replace(TABULAR, name="tabular, wide", hidden=(860, 860), note="FFJORD's MINIBOONE, wider")
VAE = Workload("VAE", 64, (512, 512), "concat", "softplus", 100, 20, "FFJORD's VAE")

_EXACT = Errors(100 * TOLERANCE, 100 * TOLERANCE)
# Torchdiffeq steps beyond the end and interpolates back, with an error that no tolerance controls.
_INTERPOLATED = Errors(500 * TOLERANCE, 500 * TOLERANCE)
_BF16 = Errors(0.05, 0.05)  # as of benchmarks.common.candidates
_ROUNDED = Errors(2e-5, 2e-5)


@dataclass(frozen=True)
class Training(Comparison):
    """A workload's training iteration.

    Args:
        solver: ``"dopri5"`` or, with the workload's steps, ``"euler"``, against FFJORD's scheme;
            ``"tsit5"``, against diffrax.
        bf16: Whether also with bfloat16 products, where the CPU has them.
    """

    workload: Workload
    solver: str
    aims: tuple[Aim, ...] = ()
    bf16: bool = False
    quick: bool = False
    mode = "train"

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of the row."""
        return f"{self.workload.name}, {self.solver}"

    @property
    def peer(self) -> str:  # type: ignore[override]
        """As ``--peers`` names it."""
        return "diffrax" if self.solver == "tsit5" else "torchdiffeq"

    @property
    def trace(self) -> str:
        """As FFJORD takes it."""
        return "exact" if self.workload.dim == 2 else "hutchinson"

    @property
    def shape(self) -> str:  # type: ignore[override]
        """The flow in words."""
        shape = self.workload.shape
        if self.solver != "euler":
            shape = f"{shape.rpartition(', ')[0]}, tolerance {TOLERANCE:g}"
        return f"{shape}, trace {self.trace}"

    def build(self, problem: Problem) -> dict[str, nn.Module | Jax]:
        """The candidates on a problem, ours first."""
        ours = Ours(problem, self.trace, solver=self.solver, tolerance=TOLERANCE)
        modules: dict[str, nn.Module | Jax] = {f"{OURS} {self.solver}": ours}
        if self.solver == "tsit5":
            ours.flow.solver_options = {"first_step": FIRST_STEP}
            form = "exact" if self.trace == "exact" else "vjp"
            return modules | {"diffrax": Jax(problem, form, (TOLERANCE, FIRST_STEP))}
        if self.bf16 and problem.dtype == torch.float32 and cpp.multiplies_bf16():
            modules[f"{OURS} {self.solver} bf16"] = Ours(
                problem, self.trace, "bf16", solver=self.solver, tolerance=TOLERANCE
            )
        return modules | {
            "odeint": self.scheme(problem, adjoint=False),
            "odeint_adjoint": self.scheme(problem, adjoint=True),
        }

    def scheme(self, problem: Problem, adjoint: bool, tolerance: float = TOLERANCE) -> FFJORD:
        """FFJORD's."""
        steps = self.workload.steps if self.solver == "euler" else None
        return FFJORD(problem.net(), steps, adjoint, self.trace == "exact", tolerance)

    def fine(self, problem: Problem) -> tuple[Tensor, ...]:
        """What all should compute; of Euler's steps their own values and gradients."""
        double = Problem(self.workload, torch.float64, problem.seed)
        double.z = problem.z.detach().double().requires_grad_()
        double.probes, double.logp = problem.probes.double(), problem.logp.double()
        return training_step(self.scheme(double, self.solver != "euler", FINE), double)

    def bound(self, name: str) -> Errors:
        """What a candidate may be off by."""
        if name.endswith("bf16"):
            return _BF16
        if self.solver == "euler":
            # The adjoint's gradient is another one, by O(step size).
            return _ROUNDED._replace(gradients=1.0) if name == "odeint_adjoint" else _ROUNDED
        return _INTERPOLATED if name.startswith("odeint") else _EXACT

    def check(self, problem: Problem) -> dict[str, Errors]:
        """The candidates' errors on some rows of a problem."""
        few = Problem(replace(self.workload, batch=ROWS), problem.dtype, problem.seed)
        true = self.fine(few)
        return self._compare(self.build(few), few, true)

    def _compare(
        self,
        modules: dict[str, nn.Module | Jax],
        problem: Problem,
        true: tuple[Tensor, ...],
    ) -> dict[str, Errors]:
        found = {}
        for name, module in modules.items():
            got = results(module, problem, "train")
            of_gradients = worst_error(_gradients(got), _gradients(true))
            errors = Errors(worst_error(got[:2], true[:2]), of_gradients)
            check(f"{name} on {self.name}", errors, self.bound(name))
            found[name] = errors
        return found

    def prepare(self, dtype: torch.dtype, clock: str) -> Prepared:
        """As of `Comparison`: some rows against the fine solution, and all of them against ours."""
        problem = Problem(self.workload, dtype)
        errors = self.check(problem)
        modules = self.build(problem)
        ours = results(next(iter(modules.values())), problem, "train")
        self._compare(modules, problem, ours)
        return Prepared(
            {name: call(module, problem, "train", clock) for name, module in modules.items()},
            {name: evaluations(module, problem) for name, module in modules.items()},
            errors,
        )


def _gradients(found: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Those of z, and those of all parameters in a row, since some alone have next to no norm."""
    _, _, of_z, *gradients = found
    return of_z, torch.cat([gradient.flatten() for gradient in gradients])


def evaluations(module: nn.Module | Jax, problem: Problem) -> tuple[int, int]:
    """Of a training iteration, forward and backward."""
    if isinstance(module, Jax):
        return module.evaluations(), 0
    if isinstance(module, Ours):
        training_step(module, problem)
        return module.flow.num_evals(), 0
    assert isinstance(module, FFJORD)
    counts = [0]  # so far; and at the end of the forward pass

    def count(*_: object) -> None:
        counts[0] += 1

    hooks = [
        module.dynamics.register_forward_hook(count),
        module.register_forward_hook(lambda *_: counts.append(counts[0])),
    ]
    training_step(module, problem)
    for hook in hooks:
        hook.remove()
    return counts[1], counts[0] - counts[1]


def _aims(odeint: float, adjoint: float) -> tuple[Aim, ...]:
    ours = f"{OURS} dopri5"
    return Aim(ours, "odeint", odeint), Aim(ours, "odeint_adjoint", adjoint)


TRAININGS = (
    Training(TOY, "dopri5", _aims(8, 14), quick=True),
    Training(TABULAR, "dopri5", _aims(2.5, 3.5)),
    Training(VAE, "dopri5", _aims(1.8, 4)),
    Training(
        WIDE, "dopri5", (*_aims(1, 1.6), Aim(f"{OURS} dopri5 bf16", "odeint", 1.6)), bf16=True
    ),
    Training(WIDE, "euler", (Aim(f"{OURS} euler", "odeint_adjoint", 1.15),)),
    *(Training(workload, "tsit5") for workload in (TOY, TABULAR, VAE, WIDE)),
)
