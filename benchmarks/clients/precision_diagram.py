"""Accuracy against time: ``python -m benchmarks.clients.precision_diagram``.

Three flows, FFJORD's toy, one of a tabular shape and its VAE's, are trained for some seconds on
data that come with scikit-learn: two moons; breast cancer, 30 measurements, standardised; digits,
64 pixels with noise that makes them continuous, standardised. Then each solver moves the same rows
with the exact trace in a series of steps or tolerances, in turns, without gradients. The error is
that against a solution in float64 with a tolerance of 1e-11. The figure has all of it; the table,
for some errors, the fastest setting of each solver that comes as near.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.clients.comparison import worst_error
from benchmarks.common.environment import ROOT, print_environment
from benchmarks.common.interleave import interleave
from benchmarks.common.workloads import Workload
from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.ode.settings import Settings

FIXED = {
    "euler": (4, 8, 16, 32, 64, 128),
    "midpoint": (2, 4, 8, 16, 32, 64),
    "rk4": (1, 2, 4, 8, 16, 32),
}
ADAPTIVE = dict.fromkeys(("dopri5", "tsit5"), (0.01, 0.001, 0.0001, 1e-05, 1e-06))
FINE = 1e-11
#: Errors of both states and log-densities that the table asks for.
WANTED = (1e-2, 1e-3, 1e-4)
FIGURE = ROOT / "docs" / "figures" / "work_precision.png"


def _moons() -> Any:
    from sklearn.datasets import make_moons

    return make_moons(2000, noise=0.05, random_state=0)[0]


def _cancer() -> Any:
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer().data


def _digits() -> Any:
    from sklearn.datasets import load_digits

    data = torch.tensor(load_digits().data)
    return data + torch.rand(data.shape, dtype=data.dtype)


@dataclass(frozen=True)
class Trained:
    """A flow and what it is trained on.

    Args:
        workload: Its batch is that of training and of the measurement.
        data: Makes the rows, from PyTorch's generator.
        iterations: Of Adam.
    """

    workload: Workload
    data: Callable[[], Any]
    iterations: int

    def train(self) -> tuple[FastCNF, Tensor]:
        """The flow, in eval mode with the exact trace, and a batch of the data."""
        w = self.workload
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rows = torch.as_tensor(self.data(), dtype=torch.float32)
            rows = (rows - rows.mean(0)) / (rows.std(0) + 0.01)
            net = ODEnet(w.hidden, (w.dim,), layer_type=w.layer_type, nonlinearity=w.nonlinearity)
            trace = "exact" if w.dim == 2 else "hutchinson"
            flow = FastCNF(ODEfunc(net), solver="dopri5", trace=trace)
            optimizer = torch.optim.Adam(flow.parameters(), 5e-3 if w.dim == 2 else 1e-3)
            for _ in range(self.iterations):
                z, change = move(flow, rows[torch.randint(len(rows), (w.batch,))])
                optimizer.zero_grad()
                (change + z.square().sum(1) / 2).mean().backward()
                optimizer.step()
        flow.trace = "exact"
        return flow.eval(), rows[torch.linspace(0, len(rows) - 1, w.batch).long()]


FLOWS = (
    Trained(Workload("toy", 2, (64, 64, 64), "concatsquash", "tanh", 256, 0, ""), _moons, 300),
    Trained(
        Workload("tabular", 30, (300, 300), "concatsquash", "softplus", 256, 0, ""), _cancer, 80
    ),
    Trained(Workload("VAE", 64, (512, 512), "concat", "softplus", 256, 0, ""), _digits, 60),
)


def move(flow: FastCNF, rows: Tensor, settings: Settings | None = None) -> tuple[Tensor, Tensor]:
    """z_T (B, D), and by how much the log-density changed (B,)."""
    return flow(rows, rows.new_zeros(len(rows)), settings=settings)


class Point(NamedTuple):
    """One setting of one solver.

    Args:
        solver: By name.
        setting: Steps, or the tolerance.
        evaluations: Of the velocity.
        seconds: The median.
        state_error: Of z_T, relative in the norm.
        density_error: Of the change of the log-density, as well.
    """

    solver: str
    setting: float
    evaluations: int
    seconds: float
    state_error: float
    density_error: float


def points(flow: FastCNF, rows: Tensor, budget: float) -> list[Point]:
    """All settings on one flow, timed in turns on one thread for about so many seconds."""
    fine = copy.deepcopy(flow).double()
    with torch.no_grad():
        true = move(fine, rows.double(), Settings("dopri5", FINE, FINE, trace="exact"))
        calls, found = {}, {}
        for solver, settings in {**FIXED, **ADAPTIVE}.items():
            for setting in settings:
                given = Settings(solver, trace="exact", n_steps=int(setting))
                if solver in ADAPTIVE:
                    given = Settings(solver, setting, setting, trace="exact")
                call = calls[f"{solver} {setting:g}"] = partial(move, flow, rows, given)
                errors = [worst_error([got], [t]) for got, t in zip(call(), true, strict=True)]
                found[f"{solver} {setting:g}"] = solver, setting, flow.num_evals(), errors
        timings = interleave(calls, threads=1, budget=budget, min_rounds=5, warmup=1)
    return [
        Point(*facts, timings.time(name).median, *errors)
        for name, (*facts, errors) in found.items()
    ]


def table(measured: dict[str, list[Point]]) -> str:
    """Markdown: for each flow and error, the fastest setting of each solver that comes as near."""
    solvers = [*FIXED, *ADAPTIVE]
    lines = [
        f"| flow | error | {' | '.join(solvers)} |",
        "|---" * (2 + len(solvers)) + "|",
    ]
    for flow, found in measured.items():
        for error in WANTED:
            cells = [flow, f"{error:.0e}"]
            for solver in solvers:
                near = [p for p in found if p.solver == solver and max(p[-2:]) <= error]
                best = min(near, key=lambda p: p.seconds, default=None)
                cells.append(
                    "" if best is None else f"{best.seconds * 1e3:.3g} ms, {best.evaluations}"
                )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(measured: dict[str, list[Point]], path: Path) -> None:
    """The figure: a column for each flow, errors of the states above those of the log-density."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(3.4 * len(measured), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(measured), sharex="col", squeeze=False)
    for column, (flow, found) in enumerate(measured.items()):
        for row, (field, label) in enumerate(
            (("state_error", "error of $z_T$"), ("density_error", "error of $\\log p$"))
        ):
            ax = axes[row][column]
            for solver in (*FIXED, *ADAPTIVE):
                of_solver = [p for p in found if p.solver == solver]
                ax.loglog(
                    [p.seconds * 1e3 for p in of_solver],
                    [getattr(p, field) for p in of_solver],
                    "o-" if solver in ADAPTIVE else "s--",
                    markersize=3.5,
                    linewidth=1.2,
                    label=solver,
                )
            ax.grid(alpha=0.3)
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
            if column == 0:
                ax.set_ylabel(label)
        axes[0][column].set_title(flow, fontsize=10)
        axes[1][column].set_xlabel("ms")
    axes[0][-1].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None, flows: Sequence[Trained] = FLOWS) -> None:
    """Train, measure, print the table and write the figure."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clients.precision_diagram", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing, for each flow")
    parser.add_argument("--out", type=Path, default=FIGURE, help="the figure")
    options = parser.parse_args(arguments)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    print_environment()
    try:
        measured = {
            f"{each.workload.name}, D={each.workload.dim}": points(*each.train(), options.seconds)
            for each in flows
        }
    finally:
        torch.set_num_threads(threads_before)
    print(f"\n{table(measured)}")
    draw(measured, options.out)


if __name__ == "__main__":
    main()
