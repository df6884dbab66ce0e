"""Likelihoods of velocities that flow matching trained."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from mvae_fast.checks import integer, one_of, tensor
from mvae_fast.cnf import FastCNF
from mvae_fast.core.problem import Trace
from mvae_fast.nets.declared import CALLS, Call, Declared, TimePlace
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.nets.readable import Readable
from mvae_fast.ode.odefunc import ODEfunc
from mvae_fast.ode.settings import Settings, Solver

#: What a velocity gets for its time: of shape (), (B,) or (B, 1).
TimeShape = Literal["scalar", "rows", "column"]
TIME_SHAPES: tuple[TimeShape, ...] = get_args(TimeShape)


def likelihood(
    model: Callable[..., Tensor],
    x: Tensor,
    *,
    context: Tensor | None = None,
    call: Call = "f(t, x)",
    time_shape: TimeShape = "scalar",
    times: Sequence[float] | Tensor = (1.0, 0.0),
    base: Distribution | None = None,
    event_dim: int = 1,
    trace: Trace = "exact",
    n_probes: int = 1,
    solver: Solver = "dopri5",
    atol: float = 1e-5,
    rtol: float = 1e-5,
    n_steps: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The log-likelihood of data under a trained velocity.

    .. math:: \frac{dx_t}{dt} = f(t, x_t), \qquad \log p_1(x_1) = \log p_0(x_0) - \int_0^1
              \operatorname{Tr} \frac{\partial f}{\partial x}\, dt

    The source p_0 is N(0, I) at t = 0, data are at t = 1, as in torchcfm and flow_matching: the
    solve goes from 1 to 0. It is differentiable in ``x``, ``context`` and the model's parameters,
    by the gradient of the steps, so that one may also train with it. The model stays as it is, and
    in the mode that it is in: call ``model.eval()`` before where that matters.

    Engines do the solve of an `ODEnet`, and of an ``nn.Sequential`` of linear layers and
    activations over state and time, alone or as the only child of a module: see
    `FastCNF.from_module`, which also makes of a model a flow for many calls. Every other model is
    called.

    Args:
        model: The velocity f: any module or function. What a function needs beside time and state,
            such as labels, it may hold itself.
        x: (*, D); (*, C, H, W) with ``event_dim=3``.
        context: (*, C), handed on as the model's last argument; its batch is broadcast with x's.
        call: ``"f(t, x)"``; ``"f(x, t)"``; or ``"f(cat)"``, one tensor (B, D + 1) of state and
            time, as torchcfm's MLP.
        time_shape: What the model gets for t: ``"scalar"``, as from the solvers of those libraries;
            ``"rows"``, (B,); or ``"column"``, (B, 1).
        times: Of data and of the source.
        base: The source, with the event shape of x; None for N(0, I).
        event_dim: Axes of one datum.
        trace: ``"exact"`` (for a module that has to be called D gradients an evaluation), or
            ``"hutchinson"``, an unbiased estimate for large D.
        n_probes: Probes that Hutchinson's estimator averages.
        solver: One of `mvae_fast.FastCNF`.
        atol: Absolute tolerance of adaptive solvers.
        rtol: Relative tolerance of adaptive solvers.
        n_steps: Steps of a fixed-step solver; None for 20.
        generator: Source of Hutchinson's noise.

    Returns:
        log p(x) in nats, (*).

    Raises:
        TypeError: If an argument is none.
        ValueError: If a shape or a name does not fit, or the velocity is of another shape than x.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), appendix C,
        https://arxiv.org/abs/2210.02747

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 64), nn.SELU(), nn.Linear(64, 2))
        >>> likelihood(model, torch.randn(5, 2), call="f(cat)").shape
        torch.Size([5])
    """
    integer("event_dim", event_dim, 1)
    tensor("x", x, "(*, D)")
    if x.ndim < event_dim:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected {event_dim} axes or more")
    if base is None:
        zeros = x.new_zeros(x.shape[x.ndim - event_dim :])
        normal = Normal(zeros, torch.ones_like(zeros), validate_args=False)
        base = Independent(normal, event_dim)
    flow = _flow_of(model, call, time_shape, event_dim == 1 and context is None)
    flow.sqrt_end_time = flow.sqrt_end_time.to(x)  # not flow.to: the model stays as it is
    return flow.log_prob(
        x,
        context,
        base,
        integration_times=times,
        generator=generator,
        settings=Settings(solver, atol, rtol, n_steps, trace, n_probes),
    )


def _flow_of(
    model: Callable[..., Tensor], call: Call, time_shape: TimeShape, plain: bool
) -> FastCNF:
    """A velocity of any calling convention as a flow: read, if it can be, or called.

    ``plain``: states are (B, D), without a context.
    """
    one_of("call", call, CALLS)
    one_of("time_shape", time_shape, TIME_SHAPES)
    if isinstance(model, FastCNF):
        raise TypeError("model: got a FastCNF, expected a velocity; remedy: flow.log_prob(x)")
    if not callable(model):
        raise TypeError(f"model: got a {type(model).__name__}, expected a module or function")
    if isinstance(model, ODEnet | Readable) and (call, time_shape) == ("f(t, x)", "scalar"):
        return FastCNF(ODEfunc(model))
    if isinstance(model, nn.Module) and plain:
        places: tuple[TimePlace, ...] = ("last", "first", "none")
        for time in places[:1] if call == "f(cat)" else places:
            try:
                declared = Declared(model, call, time)
            except ValueError:  # it is not what this declares
                continue
            if declared.unreadable("model") is None:
                return FastCNF(ODEfunc(declared))
    return FastCNF(ODEfunc(_Velocity(model, call, time_shape)))


class _Velocity(nn.Module):
    """A model as `ODEfunc` calls it."""

    def __init__(self, model: Callable[..., Tensor], call: Call, time_shape: TimeShape) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.time_shape = time_shape

    def forward(self, t: Tensor, x: Tensor, *context: Tensor) -> Tensor:
        """The velocity (B, ...) at time t, 0-dim, and states (B, ...)."""
        if self.call == "f(cat)":
            if x.ndim != 2 or context:
                what = "a context" if context else f"states of shape {tuple(x.shape[1:])}"
                raise ValueError(
                    f"call: got 'f(cat)' with {what}, expected states (D,) alone; remedy: a "
                    "function of t and x that puts its input together"
                )
            velocity = self.model(torch.cat((x, t.expand(len(x), 1)), 1))
        else:
            shape: Any = {"scalar": (), "rows": (len(x),), "column": (len(x), 1)}[self.time_shape]
            t = t.expand(shape)
            velocity = self.model(*((t, x) if self.call == "f(t, x)" else (x, t)), *context)
        if not isinstance(velocity, Tensor) or velocity.shape != x.shape:
            got = tuple(velocity.shape) if isinstance(velocity, Tensor) else type(velocity).__name__
            raise ValueError(
                f"model: returned {got} for states {tuple(x.shape)}, expected that shape"
            )
        return velocity
