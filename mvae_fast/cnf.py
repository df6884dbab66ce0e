"""The continuous normalizing flow: FFJORD's ``CNF``, integrated by the fast engines."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from mvae_fast import engines
from mvae_fast.checks import NotScriptable, boolean, constant_when_traced, tensor
from mvae_fast.core import adaptive, grid
from mvae_fast.core.problem import PENALTIES, LogDet, Memory, Precision, Problem, Trace
from mvae_fast.core.tableaus import EMBEDDED, TABLEAUS, Tableau
from mvae_fast.density import HasDensity
from mvae_fast.nets.declared import Call, Declared, TimePlace
from mvae_fast.nets.fields import field_of
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.nets.readable import Readable
from mvae_fast.nets.recognise import unreadable
from mvae_fast.ode.called import base_of, must_be_called
from mvae_fast.ode.end_time import HasEndTime, searched_grid
from mvae_fast.ode.noise import as_probes, draw_probes, scaled
from mvae_fast.ode.odefunc import ODEfunc
from mvae_fast.ode.regularization import (
    FUSED_PENALTIES,
    REGULARIZATION_FNS,
    Regularization,
    RegularizationFn,
    resolve_regularization_fns,
)
from mvae_fast.ode.regularized_odefunc import RegularizedODEfunc, accept_both_key_forms
from mvae_fast.ode.settings import HasSettings, Settings, Solver
from mvae_fast.ode.torchdiffeq import solve

# The trace of an ODE function that is none of this library's: it takes it as it likes.
_OWN = "own"
_AUTOCAST = {torch.bfloat16: "bf16", torch.float16: "fp16"}
_FUSED = (
    f"an ODEnet with one of the solvers {', '.join((*TABLEAUS, *EMBEDDED))}, without adjoint, and "
    "without "
    "regularization_fns other than "
    + ", ".join(name for name, fn in REGULARIZATION_FNS.items() if fn in FUSED_PENALTIES)
)


@constant_when_traced
def _has_autocast(device: str) -> bool:
    # Of this call torch.compile takes the result: in torch 2.11 it cannot trace it.
    return torch.amp.is_autocast_available(device)


class FastCNF(NotScriptable, HasDensity, HasEndTime, HasSettings):
    r"""A continuous normalizing flow over a fixed time interval.

    .. math:: \frac{dz}{dt} = f(t, z), \qquad
              \log p_T(z_T) = \log p_0(z_0) - \int_0^T \operatorname{Tr}
              \frac{\partial f}{\partial z}\, dt

    A drop-in for FFJORD's ``CNF``: same constructor, ``forward``, signs and state_dict keys. With
    an `ODEnet` and one of the solvers of `mvae_fast.core.tableaus` (euler, midpoint, heun2, heun3,
    rk4; dopri5, tsit5, bosh3, adaptive_heun, fehlberg2, which choose their steps) an engine takes
    all steps, and gradients are the exact ones of the discrete steps, including that of the end
    time ``T``; every other solver, and any other velocity, goes
    through torchdiffeq. See ``docs/ffjord.md`` for what differs.

    Args:
        odefunc: The dynamics: an `ODEfunc`, or any module with FFJORD's ``forward(t, states)`` and
            ``before_odeint(e)``, which torchdiffeq's solvers then call.
        T: End time, > 0.
        train_T: Learn ``T``.
        regularization_fns: FFJORD's regularisers, by name or as callables, integrated along the
            path in training; None for none.
        solver: ``"euler"``, ``"tsit5"`` or any solver of torchdiffeq. Like ``atol``, ``rtol`` and
            the mapping ``solver_options`` an attribute that may be set from outside;
            ``test_solver``, ``test_atol`` and ``test_rtol`` replace them in eval mode where they
            are set.
        atol: Absolute tolerance of adaptive solvers.
        rtol: Relative tolerance of adaptive solvers.
        n_steps: Equal steps of a fixed-step solver in each interval between integration times,
            unless ``solver_options["step_size"]`` is set; None for 20, of which a warning tells
            once where a fixed-step solver is set from outside, as FFJORD's scripts do.
        trace: ``"exact"`` (no noise; in closed form up to two hidden layers, D sweeps beyond),
            ``"hutchinson"``, or None to follow ``odefunc.divergence_fn``.
        n_probes: Probes that Hutchinson's estimator averages.
        engine: ``"auto"``, or one of `mvae_fast.engines.ENGINES`, which is then used or refused.
        adjoint: Gradients by torchdiffeq's continuous adjoint, as FFJORD does: O(1) memory, but
            with fixed steps not the gradient of the loss.
        log_det: ``"trace"`` (the integral of the trace, as FFJORD does); ``"second_order"``, which
            adds ``h^2 / 2 Tr J^2`` in each step of Euler's method; or ``"exact"``, the
            log-determinant of the steps by LU factorisation, for evaluation: fast on a CPU where no
            gradient is wanted.
        precision: Of the products' operands: ``"full"``, that of the flow, or TF32 on a GPU where
            ``torch.set_float32_matmul_precision`` allows it; ``"bf16"`` or ``"fp16"``, with sums,
            state and log-density in float32; None to follow ``torch.autocast`` where the engine
            can, else ``"full"``. Where the CPU has no bf16 instructions, the C++ engine takes
            ``"full"`` for ``"bf16"``, and warns once.
        checkpoint_every: k: an engine saves the state of every k-th step and recomputes the
            others in the backward: 1/k of the memory for one more forward pass.
        memory: What the C++ engine keeps of each step for the backward: ``"states"``, D numbers a
            row; ``"activations"``, also the products inside of the net, which saves computing them
            again; a number of bytes up to which it keeps activations; or ``"auto"``, where that is
            faster, 256 MiB at most. With ``checkpoint_every`` above 1 states alone.
        check_finite: Raise FloatingPointError where a solve is not finite, before anything of it is
            returned, with the first step and row: to find them the reference takes the steps again.
            Where an engine solves.

    Raises:
        TypeError: If ``odefunc`` is not one.
        ValueError: If another argument does not fit.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models
        (Grathwohl et al., 2019), https://arxiv.org/abs/1810.01367

    Example:
        >>> import torch
        >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
        >>> net = ODEnet((16,), (2,), layer_type="squash")
        >>> flow = FastCNF(ODEfunc(net, divergence_fn="brute_force"), T=0.5)
        >>> z_0, logp_0 = torch.zeros(4, 2), torch.zeros(4, 1)
        >>> z_T, logp_T = flow(z_0, logp_0)
        >>> z_T.shape, logp_T.shape
        (torch.Size([4, 2]), torch.Size([4, 1]))
    """

    odefunc: nn.Module

    def __init__(
        self,
        odefunc: ODEfunc,
        T: float = 1.0,
        train_T: bool = False,
        regularization_fns: Sequence[RegularizationFn | Regularization] | None = None,
        solver: Solver = "euler",
        atol: float = 1e-5,
        rtol: float = 1e-5,
        *,
        n_steps: int | None = None,
        trace: Trace | None = None,
        n_probes: int = 1,
        engine: engines.EngineName = "auto",
        adjoint: bool = False,
        log_det: LogDet = "trace",
        checkpoint_every: int = 1,
        precision: Precision | None = None,
        memory: Memory | int = "auto",
        check_finite: bool = False,
    ) -> None:
        super().__init__(
            Settings(
                solver, atol, rtol, n_steps, trace, n_probes, engine, adjoint, log_det,
                checkpoint_every, precision, memory, check_finite=check_finite,
            )
        )  # fmt: skip
        if not (isinstance(odefunc, nn.Module) and hasattr(odefunc, "before_odeint")):
            raise TypeError(
                f"odefunc: got {type(odefunc).__name__}, expected an ODEfunc; remedy: "
                "FastCNF(ODEfunc(net)), with a net that is an nn.Module"
            )
        self._register_end_time(T, train_T)
        self.regularization_fns: tuple[RegularizationFn, ...] = ()
        self.odefunc = odefunc
        # FFJORD wraps for an empty tuple too, which decides the state_dict keys.
        if regularization_fns is not None:
            self.regularization_fns = resolve_regularization_fns(regularization_fns)
            self.odefunc = RegularizedODEfunc(odefunc, self.regularization_fns)
        self.nreg = len(self.regularization_fns)
        self.regularization_states: tuple[Tensor, ...] | None = None
        self.register_load_state_dict_pre_hook(accept_both_key_forms)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        call: Call | None = None,
        time: TimePlace = "last",
        net: str | None = None,
        **settings: Any,
    ) -> "FastCNF":
        r"""A flow along a velocity that a module of the user's own gives.

        .. math:: \frac{dz}{dt} = \mathrm{module}(t, z)

        Engines read the weights of an `ODEnet`, and of an ``nn.Sequential`` of linear layers and
        activations in a module whose calling convention is declared; see
        `mvae_fast.nets.declared.Declared`. Where that cannot be, the module is called and
        ``print(flow)`` says why. Parameters are not copied. Unlike FFJORD's, the trace is exact
        unless ``trace`` says else.

        Args:
            module: The velocity.
            call: How it is called: ``"f(t, x)"``, ``"f(x, t)"`` or ``"f(cat)"``.
            time: Where time stands among the inputs of its layers: ``"first"``, ``"last"`` or
                ``"none"``.
            net: The name of the ``nn.Sequential``, if it is not the only child.
            settings: Arguments of `FastCNF`.

        Raises:
            TypeError: If ``module`` is no module.
            ValueError: If the module is not what was declared, or an argument does not fit.

        Example:
            >>> import torch
            >>> from torch import nn
            >>> net = nn.Sequential(nn.Linear(3, 64), nn.SELU(), nn.Linear(64, 2))
            >>> flow = FastCNF.from_module(net, time="last", solver="rk4", n_steps=8)
            >>> flow.fused
            True
            >>> z, logp = flow(torch.zeros(4, 2), torch.zeros(4, 1))
        """
        velocity = module
        if not isinstance(module, ODEnet | Readable):
            velocity = Declared(module, call, time, net)
        elif (call, time, net) != (None, "last", None):
            raise ValueError(f"call, time, net: given, but a {type(module).__name__} needs none")
        flow = cls(ODEfunc(velocity, "brute_force"), **settings)
        like = next(module.parameters(), None)
        if like is not None:
            # Its own tensor alone: the module stays as it is.
            end = flow.sqrt_end_time.detach().to(like.device, like.dtype)
            learned = "sqrt_end_time" in flow._parameters
            flow.sqrt_end_time = nn.Parameter(end) if learned else end
        return flow

    @overload
    def forward(
        self,
        z: Tensor,
        logpz: None = None,
        integration_times: Tensor | Sequence[float] | None = None,
        reverse: bool = False,
        *,
        context: Tensor | None = None,
        probes: Tensor | None = None,
        generator: torch.Generator | None = None,
        settings: Settings | None = None,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        z: Tensor,
        logpz: Tensor,
        integration_times: Tensor | Sequence[float] | None = None,
        reverse: bool = False,
        *,
        context: Tensor | None = None,
        probes: Tensor | None = None,
        generator: torch.Generator | None = None,
        settings: Settings | None = None,
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        z: Tensor,
        logpz: Tensor | None = None,
        integration_times: Tensor | Sequence[float] | None = None,
        reverse: bool = False,
        *,
        context: Tensor | None = None,
        probes: Tensor | None = None,
        generator: torch.Generator | None = None,
        settings: Settings | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Move states along the flow.

        Args:
            z: (B, D), the states at the first time; under autocast taken to the dtype of the flow.
            logpz: (B, 1) or (B,), their log-density; None skips the trace.
            integration_times: (len,), all ascending or all descending, a tensor or a sequence of
                numbers; default ``[0, T]``.
            reverse: Flip the times: from ``T`` back to 0.
            context: (B, C), what each row is conditioned on, for a net with a ``context_dim``.
            probes: (B, D) or (K, B, D), noise for Hutchinson's estimator in place of drawn noise;
                constant, without a gradient.
            generator: Source of the drawn noise.
            settings: For this call, in place of the flow's own.

        Returns:
            The states at the last time, shaped like ``z``; with ``logpz`` also their log-density,
            shaped like ``logpz``. With more than two integration times both have a leading axis
            ``len``.

        Raises:
            TypeError: If an input is no dense tensor.
            ValueError: If a shape, dtype or setting does not fit.
            RuntimeError: If the named engine is missing.
            FloatingPointError: With ``check_finite``, if the solve is not finite.
        """
        if settings is None:
            self.check_settings()
            settings = self.settings
        elif not isinstance(settings, Settings):
            raise TypeError(f"settings: got a {type(settings).__name__}, expected a Settings")
        else:
            settings.check(self.training)
        tensor("z", z, "(B, D)")
        if logpz is not None:
            tensor("logpz", logpz, "(B, 1) or (B,)")
        if context is not None:
            tensor("context", context, "(B, C)")
        if probes is not None:
            tensor("probes", probes, "(B, D) or (K, B, D)")
        boolean("reverse", reverse)
        device = z.device.type
        given = (integration_times, reverse, generator, settings)
        if not (_has_autocast(device) and torch.is_autocast_enabled(device)):
            return self._solve(z, logpz, context, probes, *given, settings.precision or "full")
        # Euler adds increments of relative size 1/S: half precision would lose them, so of all of
        # the flow only the operands of its products follow autocast.
        dtype = self.sqrt_end_time.dtype
        logpz, context, probes = (
            None if x is None else x.to(dtype) for x in (logpz, context, probes)
        )
        follow = settings.precision is None and dtype == torch.float32
        precision = _AUTOCAST.get(torch.get_autocast_dtype(device), "full") if follow else "full"
        with torch.autocast(device, enabled=False):
            return self._solve(
                z.to(dtype), logpz, context, probes, *given, settings.precision or precision, follow
            )

    if TYPE_CHECKING:
        __call__ = forward  # which nn.Module calls, and of which it says Any

    def _solve(
        self,
        z: Tensor,
        logpz: Tensor | None,
        context: Tensor | None,
        probes: Tensor | None,
        integration_times: Tensor | Sequence[float] | None,
        reverse: bool,
        generator: torch.Generator | None,
        settings: Settings,
        precision: str,
        follow: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        self._check_input(z, logpz, context)
        odefunc: Any = self._modules["odefunc"]  # an attribute takes half a microsecond
        base = base_of(odefunc)
        ours = isinstance(base, ODEfunc)
        if ours:
            boolean("odefunc.residual", base.residual)
            boolean("odefunc.rademacher", base.rademacher)
        times = None
        if integration_times is not None:
            times = grid.check_times(integration_times, z)
            times = times.flip(0) if reverse else times
        fused = z.ndim == 2 and self._obstacle(settings) is None
        method = EMBEDDED.get(settings.present(self.training).solver)
        if precision != "full" and not fused and not follow:
            raise ValueError(f"precision: {precision!r} is for {_FUSED}")
        if settings.check_finite and not fused:
            raise ValueError(f"check_finite: got True, which is for {_FUSED}")
        if follow and (not fused or method is not None):
            # Steps are chosen by errors that are smaller than what autocast rounds off.
            precision, follow = "full", False
        wanted = logpz is not None or self._penalised
        trace = self._trace(base, settings, z, probes) if wanted else None
        penalties = self._penalties if fused else ()
        sampled = trace == "hutchinson" or "frobenius" in penalties
        if sampled:
            if probes is None:
                signs = ours and base.rademacher
                probes = draw_probes(z, settings.n_probes, rademacher=signs, generator=generator)
            probes = scaled(as_probes(probes, z))
        elif probes is not None and trace != _OWN:
            raise ValueError(
                f"probes: given, but {'no trace is wanted' if trace is None else 'trace is exact'}"
            )
        if trace is not None and settings.log_det != "trace" and not fused:
            raise ValueError(f"log_det: {settings.log_det!r} is that of the steps of {_FUSED}")

        change: Any  # a tensor where a trace is wanted
        if fused:
            net = base._modules["diffeq"]

            def problem_of(steps: grid.Grid, tableau: Tableau) -> Problem:
                t = grid.evaluation_times(steps, tableau.c)
                velocity = field_of(net, t, context, residual=base.residual)
                if z.shape[1] != velocity.widths[0]:
                    expected = f"(B, {velocity.widths[0]})"
                    raise ValueError(f"z: got shape {tuple(z.shape)}, expected {expected}")
                return Problem(
                    z,
                    steps.h,
                    velocity,
                    steps.outputs,
                    trace,
                    probes,
                    settings.log_det,
                    tableau,
                    int(settings.checkpoint_every),
                    penalties,
                    precision,
                    follow,
                    settings.memory,
                    settings.check_finite,
                )

            found = None
            if method is None:
                steps, times = self._grid(settings, times, reverse)
                if times is not None and times.shape[0] == 2:
                    steps = replace(steps, outputs=steps.outputs[-1:])
                tableau = TABLEAUS[settings.present(self.training).solver]
                base.__dict__["evaluations"] = steps.h.shape[0] * len(tableau.b)
            else:
                times = self._default_times(reverse) if times is None else times
                present = settings.present(self.training)
                steps, found = searched_grid(present, times, method, problem_of)
                tableau = method.taken
                base.__dict__["evaluations"] = found.evaluations
            problem = problem_of(steps, tableau)
            z_path, change, integrals = engines.solve(settings.engine, problem, found)
            stepped = settings.solver_options.get("step_size") is not None
            if stepped and times is not None and times.shape[0] > 2:
                z_path, change, integrals = (
                    grid.between(steps, times, start, path)
                    for start, path in ((z, z_path), (None, change), (None, integrals))
                )
            if self._penalised:
                self._keep_penalties(integrals, times)
        else:
            z_path, change = self._torchdiffeq(z, context, probes, times, reverse, settings, trace)

        if z_path.shape[0] == 1:
            # Views only: the backward of an index would fill a path of zeros.
            z_t = z_path.squeeze(0)
            return z_t if logpz is None else (z_t, logpz + change.view(logpz.shape))
        single = times is None or times.shape[0] == 2
        z_t = z_path[-1] if single else torch.cat((z.unsqueeze(0), z_path))
        if logpz is None:
            return z_t
        logp_t = logpz + change.view(z_path.shape[0], *logpz.shape)
        return z_t, logp_t[-1] if single else torch.cat((logpz.unsqueeze(0), logp_t))

    def _keep_penalties(self, path: Tensor, times: Tensor | None) -> None:
        """Keep the penalties (n, E, B) after the start, in the order of ``regularization_fns``."""
        # The mean over no rows would be NaN.
        path = path.mean(2) if path.shape[2] else path.sum(2)
        if times is not None and times.shape[0] > 2:
            path = torch.cat((torch.zeros_like(path[:1]), path))
        else:
            path = path[-1]
        names = self._penalties
        self.regularization_states = tuple(
            path[..., names.index(FUSED_PENALTIES[fn])] for fn in self.regularization_fns
        )

    def _torchdiffeq(
        self,
        z: Tensor,
        context: Tensor | None,
        probes: Tensor | None,
        times: Tensor | None,
        reverse: bool,
        settings: Settings,
        trace: str | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Step by step: states and log-density changes after the start."""
        # Plain PyTorch has every solver, but the reference reads nets as the other engines do.
        engine = settings.engine
        obstacle = self._foreign() if engine == "reference" else self._obstacle(settings)
        if engine != "auto" and (obstacle is not None or engine != "reference"):
            raise ValueError(
                f"engine: {engine!r} integrates {_FUSED}; here "
                f"{obstacle or f'z has shape {tuple(z.shape)}'}; remedy: engine='auto'"
            )
        penalised = self._penalised
        if context is not None and penalised and must_be_called(self.odefunc) is not None:
            raise ValueError(
                "context: an odefunc that must be called takes none with regularization_fns; here "
                f"{must_be_called(self.odefunc)}"
            )
        solution = solve(
            self.odefunc,
            z,
            self._default_times(reverse) if times is None else times,
            settings.present(self.training),
            context=context,
            joined=self._joined(times),
            trace=trace,
            probes=probes,
            regularization_fns=self.regularization_fns if penalised else (),
        )
        if penalised:
            ends_only = times is None or times.shape[0] == 2
            self.regularization_states = tuple(
                penalty[-1] if ends_only else penalty for penalty in solution.penalties
            )
        return solution.z[1:], None if solution.logp is None else solution.logp[1:]

    @property
    def _penalised(self) -> bool:
        """Whether regularisers are integrated along the path."""
        return self.training and self.nreg > 0

    @property
    def _penalties(self) -> tuple[str, ...]:
        """The regularisers that an engine integrates, if it is to integrate any."""
        if not self._penalised:
            return ()
        wanted = {FUSED_PENALTIES.get(fn) for fn in self.regularization_fns}
        return tuple(name for name in PENALTIES if name in wanted)

    @property
    def _base(self) -> Any:
        """The ODE function itself, an `ODEfunc` or foreign, out of the regularisers' wrapper."""
        return base_of(self.odefunc)

    @property
    def fused(self) -> bool:
        """Whether one call of an engine does the solve of states (B, D), in the present mode (train
        or eval); else torchdiffeq does it, step by step."""
        return self._obstacle(self.settings) is None

    def _obstacle(self, settings: Settings) -> str | None:
        """What keeps engines from the solve in the present mode, or None."""
        foreign = self._foreign()
        if foreign is not None:
            return foreign
        solver = settings.present(self.training).solver
        if solver not in TABLEAUS and solver not in EMBEDDED:
            return f"solver is {solver!r}"
        if solver in EMBEDDED and engines.transformed():
            return "torch.func hides the values that an adaptive solver needs"
        if settings.adjoint:
            return "adjoint is True"
        if self._penalised and not all(fn in FUSED_PENALTIES for fn in self.regularization_fns):
            return "no engine has all of regularization_fns"
        known = {"step_size"} if solver in TABLEAUS else adaptive.OPTIONS
        if not settings.solver_options.keys() <= known:
            return f"solver_options are {dict(settings.solver_options)}"
        return None

    def _foreign(self) -> str | None:
        """The module that has to be called because engines do not know it, or None."""
        odefunc: Any = self._modules["odefunc"]
        foreign = must_be_called(odefunc)
        if foreign is None:
            base = base_of(odefunc)
            name = "odefunc.diffeq" if base is odefunc else "odefunc.odefunc.diffeq"
            foreign = unreadable(base._modules["diffeq"], name)
        return foreign

    def _trace(self, base: Any, settings: Settings, z: Tensor, probes: Tensor | None) -> str:
        if not isinstance(base, ODEfunc):
            if settings.trace is not None or settings.n_probes != 1:
                raise ValueError(
                    f"trace and n_probes: got {settings.trace!r} and {settings.n_probes}, but "
                    f"odefunc, a {type(base).__name__}, takes the trace by itself; remedy: "
                    "trace=None"
                )
            return _OWN
        if settings.trace is not None:
            return settings.trace
        return "hutchinson" if probes is not None else base.trace_for(z)

    def _check_input(self, z: Tensor, logpz: Tensor | None, context: Tensor | None) -> None:
        end = self.sqrt_end_time
        if z.ndim < 2:
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected (B, D)")
        if z.dtype != end.dtype or z.device != end.device:
            raise ValueError(
                f"z: got {z.dtype} on {z.device}, but the flow is {end.dtype} on {end.device}; "
                "remedy: flow.to(z) or z.to(flow.sqrt_end_time)"
            )
        batch = z.shape[0]
        if logpz is not None and logpz.shape != (batch, 1) and logpz.shape != (batch,):
            rows = (
                f": each of the {batch} states has shape {tuple(z.shape[1:])} and one "
                f"log-density; remedy for states of {z.shape[-1]}: z.flatten(0, -2)"
            )
            raise ValueError(
                f"logpz: got shape {tuple(logpz.shape)}, expected ({batch}, 1) or ({batch},)"
                + rows * (z.ndim > 2)
            )
        if context is not None and (context.ndim != 2 or context.shape[0] != batch):
            raise ValueError(f"context: got shape {tuple(context.shape)}, expected ({batch}, C)")
        for name, given in (("logpz", logpz), ("context", context)):
            if given is not None and (given.dtype != z.dtype or given.device != z.device):
                raise ValueError(
                    f"{name}: got {given.dtype} on {given.device}, expected those of z, {z.dtype} "
                    f"on {z.device}"
                )
        net: Any = getattr(self._base, "diffeq", None)
        ours = isinstance(net, ODEnet) and type(net).forward is ODEnet.forward
        if ours or isinstance(net, Readable):
            net.check_context(context)

    def get_regularization_states(self) -> tuple[Tensor, ...] | None:
        """The integrals of the regularisers over the last solve in training; cleared by reading."""
        states = self.regularization_states
        self.regularization_states = None
        return states

    def num_evals(self) -> int:
        """Evaluations of the velocity in the last solve."""
        base = self._base
        return base.num_evals() if isinstance(base, ODEfunc) else int(base._num_evals.item())

    def __getstate__(self) -> dict[str, Any]:
        # The integrals hold a graph, which neither deepcopy nor pickle can take.
        return {**self.__dict__, "regularization_states": None, "_kept": None}

    def extra_repr(self) -> str:
        engine: str = self.engine
        obstacle, base = self._obstacle(self.settings), self._base
        if obstacle is not None:
            # The solver is named in any case.
            why = "" if obstacle.startswith("solver is") else f": {obstacle}"
            engine = f"{engine} (torchdiffeq{why})"
        elif engine == "auto":
            end = self.sqrt_end_time
            engine = f"auto ({engines.usual(engine, end.device, end.dtype)})"
        trace: str | None = self.trace
        if trace is None and isinstance(base, ODEfunc):
            trace = f"as divergence_fn={base.divergence_fn}"
        return (
            f"engine={engine}, solver={self.solver}, n_steps={self.n_steps}, trace={trace}, "
            f"n_probes={self.n_probes}"
        )
