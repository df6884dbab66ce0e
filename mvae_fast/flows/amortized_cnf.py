"""Continuous flows whose dynamics depend on a condition."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mvae_fast import engines
from mvae_fast.checks import integer, integers, one_of, positive
from mvae_fast.core import grid
from mvae_fast.core.logdet import log_det_steps
from mvae_fast.core.nonlinearities import Nonlinearity
from mvae_fast.core.problem import TRACES, LogDet, Problem, Trace
from mvae_fast.core.reference import steps
from mvae_fast.core.tableaus import EMBEDDED, TABLEAUS, Tableau
from mvae_fast.flows.amortized_net import AmortizedNet, Velocity
from mvae_fast.flows.base import Flow
from mvae_fast.nets.layers import LayerType
from mvae_fast.ode.end_time import searched_grid
from mvae_fast.ode.noise import draw_probes, scaled
from mvae_fast.ode.settings import Settings, Solver
from mvae_fast.ode.torchdiffeq import integrate

KINDS = ("bias", "rank")


class AmortizedCNF(Flow):
    r"""A continuous normalizing flow with biases, or low-rank weights too, of each row's own.

    .. math:: \frac{dz}{dt} = f(t, z; c), \qquad \log p_T(z_T) = \log p_0(z_0) - \int_0^T
              \operatorname{Tr} \frac{\partial f}{\partial z}\, dt

    FFJORD's ``cnf_bias`` and ``cnf_rank``; the velocity is that of
    `mvae_fast.flows.amortized_net.AmortizedNet`. Gradients are those of the steps. With
    ``kind="bias"`` and layers without gates (not squash and concatsquash), the engines integrate
    it, as they do a `mvae_fast.FastCNF`; else plain PyTorch. ``solver``, ``n_steps``, ``trace``,
    ``n_probes``, ``log_det``, ``atol``, ``rtol`` and ``engine`` are attributes that may be set at
    any time.

    Args:
        dim: Size D of the state.
        cond_dim: Size C of the condition, >= 1.
        hidden: Widths of the hidden layers.
        kind: ``"bias"``, or ``"rank"`` for biases and an update of every weight matrix.
        rank: R of that update; for ``kind="rank"``.
        layer_type: How the shared layers depend on time, as of `mvae_fast.ODEnet`.
        nonlinearity: Between the layers, as of `mvae_fast.ODEnet`; swish has beta = 1.
        T: End time, > 0.
        solver: One of `mvae_fast.core.tableaus.TABLEAUS` or any other solver of torchdiffeq.
        n_steps: Equal steps of a fixed-step solver from 0 to T.
        trace: ``"exact"`` (in closed form for one hidden layer, and for two with
            ``kind="bias"``; else from the whole Jacobian) or ``"hutchinson"``.
        n_probes: Probes that Hutchinson's estimator averages, drawn once for a call.
        log_det: ``"trace"`` or, for the solvers of `TABLEAUS`, ``"exact"``: the log-determinant of
            the steps that are applied, by LU factorisation.
        atol: Absolute tolerance of adaptive solvers.
        rtol: Relative tolerance of adaptive solvers.
        engine: As of `mvae_fast.FastCNF`, where an engine takes the flow.

    Raises:
        ValueError: If an argument does not fit.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models
        (Grathwohl et al., 2019), section 4.2, https://arxiv.org/abs/1810.01367

    Example:
        >>> flow = AmortizedCNF(3, 6, hidden=(16,), kind="rank", rank=2)
        >>> z, logp = flow(torch.zeros(5, 3), torch.zeros(5, 1), cond=torch.ones(5, 6))
        >>> z.shape, logp.shape
        (torch.Size([5, 3]), torch.Size([5, 1]))
    """

    integrates = True

    def __init__(
        self,
        dim: int,
        cond_dim: int,
        hidden: Sequence[int] = (256,),
        *,
        kind: str = "bias",
        rank: int = 1,
        layer_type: LayerType = "concat",
        nonlinearity: Nonlinearity = "softplus",
        T: float = 1.0,
        solver: Solver = "euler",
        n_steps: int = 20,
        trace: Trace = "exact",
        n_probes: int = 1,
        log_det: LogDet = "trace",
        atol: float = 1e-5,
        rtol: float = 1e-5,
        engine: engines.EngineName = "auto",
    ) -> None:
        super().__init__(dim, cond_dim)
        integer("cond_dim", cond_dim, 1)
        one_of("kind", kind, KINDS)
        own_rank = integer("rank", rank, 1) if kind == "rank" else 0
        hidden = integers("hidden", hidden, 1)
        self.T = positive("T", T)
        self.solver = solver
        self.n_steps = n_steps
        self.trace = trace
        self.n_probes = n_probes
        self.log_det = log_det
        self.atol = atol
        self.rtol = rtol
        self.engine = engine
        self.net = AmortizedNet(self.dim, self.cond_dim, hidden, own_rank, layer_type, nonlinearity)
        self.check_settings()

    def check_settings(self) -> None:
        """Raise ValueError for a setting that does not fit; done on every call."""
        integer("n_steps", self.n_steps, 1)
        one_of("trace", self.trace, TRACES)
        one_of("log_det", self.log_det, ("trace", "exact"))
        self._settings().check(training=True)
        self._check_log_det(self.log_det)

    def _settings(self) -> Settings:
        return Settings(
            *(self.solver, self.atol, self.rtol, self.n_steps, self.trace, self.n_probes),
            engine=self.engine,
            log_det=self.log_det,
        )

    def _check_log_det(self, log_det: str) -> None:
        if log_det == "exact" and self.solver not in TABLEAUS:
            names = ", ".join(TABLEAUS)
            raise ValueError(f"log_det: 'exact' is that of the steps of the solvers {names}")

    def _move(
        self,
        z: Tensor,
        cond: Tensor | None,
        reverse: bool,
        with_change: bool = True,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
        log_det: LogDet | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        self.check_settings()
        trace, log_det = trace or self.trace, log_det or self.log_det
        self._check_log_det(log_det)
        own = self.net.theta(cond)
        solution = None
        if log_det == "trace":
            wanted = trace if with_change else None
            solution = self._by_an_engine(z, own, reverse, wanted, generator)
        if solution is not None:
            return solution
        if self.engine not in ("auto", "reference"):
            raise ValueError(
                f"engine: {self.engine!r} takes biases of rows without gates, the integral of the "
                "trace, and no solver of torchdiffeq alone; remedy: engine='auto'"
            )
        if self.solver in TABLEAUS:
            tableau = TABLEAUS[self.solver]
            times = grid.from_zero(z.new_full((), self.T), self.n_steps, reverse)
            velocity = self.net.at(grid.evaluation_times(times, tableau.c), own)
            if with_change and log_det == "exact":
                path, change = log_det_steps(z, times.h, velocity.jacobian, tableau, times.outputs)
                return path[0], change[0]
            evaluate = self._evaluator(z, with_change, trace, generator)
            path, change, _ = steps(
                z, times.h, tableau, times.outputs, lambda x, e: (*evaluate(velocity, x, e), None)
            )
            return path[0], change[0]
        return self._torchdiffeq(z, own, reverse, self._evaluator(z, with_change, trace, generator))

    def _by_an_engine(
        self,
        z: Tensor,
        own: dict[str, Tensor],
        reverse: bool,
        trace: Trace | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor] | None:
        """End states and change, or None where no engine has the velocity or the solver."""
        method, tableau = EMBEDDED.get(self.solver), TABLEAUS.get(self.solver)
        if method is None and tableau is None or method is not None and engines.transformed():
            return None
        if self.net.field(z.new_zeros(1), own) is None:
            return None
        probes = None
        if trace == "hutchinson":
            probes = scaled(draw_probes(z, self.n_probes, generator=generator))

        def problem_of(taken: grid.Grid, tableau: Tableau) -> Problem:
            field = self.net.field(grid.evaluation_times(taken, tableau.c), own)
            assert field is not None
            given = (z, taken.h, field, taken.outputs, trace, probes)
            return Problem(*given, tableau=tableau)

        found = None
        if method is None:
            taken = grid.from_zero(z.new_full((), self.T), self.n_steps, reverse)
        else:
            tableau = method.taken
            times = z.new_tensor([self.T, 0.0] if reverse else [0.0, self.T])
            taken, found = searched_grid(self._settings(), times, method, problem_of)
        assert tableau is not None
        path, change, _ = engines.solve(self.engine, problem_of(taken, tableau), found)
        return path[0], change[0]

    def _evaluator(
        self, z: Tensor, with_change: bool, trace: str, generator: torch.Generator | None
    ) -> Callable[[Velocity, Tensor, int], tuple[Tensor, Tensor | None]]:
        """Velocity and, if the change is wanted, trace; with the noise of one call."""
        if not with_change:
            return lambda velocity, x, s: (velocity.sweep(x, s)[0], None)
        probes = None
        if trace == "hutchinson":
            drawn = draw_probes(z, self.n_probes, generator=generator)
            probes = scaled(drawn).transpose(0, 1)
        return lambda velocity, x, s: velocity.trace(x, s, probes)

    def _torchdiffeq(
        self,
        z: Tensor,
        own: dict[str, Tensor],
        reverse: bool,
        evaluate: Callable[[Velocity, Tensor, int], tuple[Tensor, Tensor | None]],
    ) -> tuple[Tensor, Tensor]:
        def slopes(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            velocity, tau = evaluate(self.net.at(t.to(z).reshape(1), own), state[0], 0)
            return velocity, torch.zeros_like(state[1]) if tau is None else -tau

        times = z.new_tensor([self.T, 0.0] if reverse else [0.0, self.T])
        z_path, change = integrate(slopes, (z, z.new_zeros(z.shape[0])), times, self._settings())
        return z_path[-1], change[-1]

    def extra_repr(self) -> str:
        return (
            f"dim={self.dim}, cond_dim={self.cond_dim}, rank={self.net.rank}, T={self.T}, "
            f"solver={self.solver}, n_steps={self.n_steps}, trace={self.trace}"
        )
