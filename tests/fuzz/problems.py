"""Random problems: everything that a solve of `FastCNF` in one call of the engine depends on."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mvae_fast import FastCNF, ODEfunc, ODEnet
from tests.oracles import LAYER_TYPES, NONLINEARITIES, random_net

SOLVERS = ("euler", "midpoint", "heun2", "heun3", "rk4")
PENALTIES = ("l1int", "l2int", "kinetic_energy", "jacobian_norm")
LAYOUTS = ("contiguous", "transposed", "every second", "expanded")
EXTREMES = (2**31, 2**62, 2**63 - 1)

# Multiply-adds of the oracle's Jacobians: what keeps a problem under a second.
WORK = 4e7


@dataclass(frozen=True)
class Problem:
    """One problem by plain values; `make` draws the tensors."""

    seed: int
    dtype: torch.dtype
    layer_type: str
    hidden: tuple[int, ...]
    dim: int
    nonlinearity: str
    solver: str
    batch: int
    n_steps: int
    times: tuple[float, ...] | None
    step_size: float | None
    end: float
    train_T: bool
    reverse: bool
    residual: bool
    trace: str | None
    n_probes: int
    shared_probes: bool
    penalties: tuple[str, ...]
    log_det: str
    checkpoint_every: int
    layout: str
    needs_grad: tuple[bool, ...]  # of z and, going round, of the context and the parameters
    context_dim: int

    def __str__(self) -> str:
        return "\n".join(f"  {x.name} = {getattr(self, x.name)}" for x in fields(self))

    @property
    def intervals(self) -> int:
        return 1 if self.times is None else len(self.times) - 1

    @property
    def stages(self) -> int:
        return {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}[self.solver]


def _width(rng: random.Random) -> int:
    return rng.choice((1, 2, 3, rng.randint(1, 9), rng.randint(1, 33), rng.randint(1, 70)))


def draw(seed: int) -> Problem:
    """The problem of a seed."""
    rng = random.Random(seed)
    hidden = tuple(_width(rng) for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))))
    dim = _width(rng)
    solver = rng.choice(("euler", "euler", "euler", *SOLVERS))
    stages = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}[solver]
    n_steps = rng.choice((1, 1, 2, 3, 4, 5, rng.randint(1, 12)))
    times = None
    if rng.random() < 0.4:
        times = tuple(sorted(rng.uniform(-0.5, 1.0) for _ in range(rng.choice((2, 2, 3, 4)))))
        times = times if rng.random() < 0.6 else times[::-1]
    # Only Euler's method is linear between its steps.
    step_size = rng.uniform(0.1, 0.6) if rng.random() < 0.1 and solver == "euler" else None
    log_det = rng.choice(("second_order", "exact")) if rng.random() < 0.12 else "trace"
    if log_det == "second_order":
        solver, stages = "euler", 1
    trace = "exact" if log_det != "trace" else rng.choice(("exact", "exact", "hutchinson", None))
    penalties: tuple[str, ...] = ()
    if log_det == "trace" and rng.random() < 0.25:
        penalties = tuple(name for name in PENALTIES if rng.random() < 0.5)
        trace = trace or "exact"
    intervals = 1 if times is None else len(times) - 1
    steps = intervals * n_steps
    widest = max((dim, *hidden))
    work = steps * stages * (len(hidden) + 1) * dim * widest * widest
    most = max(1, min(200, int(WORK / work)))
    batch = 0 if rng.random() < 0.03 else rng.choice((1, 2, 3, rng.randint(1, 50), most))
    every = rng.choice((1, 1, 1, 2, 3, steps, steps + 1, rng.choice(EXTREMES)))
    return Problem(
        seed=seed,
        dtype=rng.choice((torch.float32, torch.float64)),
        layer_type=rng.choice(LAYER_TYPES),
        hidden=hidden,
        dim=dim,
        nonlinearity=rng.choice(NONLINEARITIES),
        solver=solver,
        batch=min(batch, most),
        n_steps=n_steps,
        times=times,
        step_size=step_size,
        end=rng.choice((0.1, 0.5, 1.0)),
        train_T=rng.random() < 0.7,
        reverse=rng.random() < 0.3,
        residual=rng.random() < 0.3,
        trace=trace,
        n_probes=rng.randint(1, 3),
        shared_probes=rng.random() < 0.3,
        penalties=penalties,
        log_det=log_det,
        checkpoint_every=every,
        layout=rng.choice(LAYOUTS),
        needs_grad=(True,) if rng.random() < 0.7 else tuple(rng.random() < 0.6 for _ in range(4)),
        context_dim=rng.randint(1, 9) if rng.random() < 0.3 else 0,
    )


@dataclass
class Tensors:
    """The tensors of a problem, in one dtype."""

    net: ODEnet
    z: Tensor
    root_end: Tensor  # sqrt(T), as the flow holds it
    times: Tensor | None
    probes: Tensor | None  # (K, B, D)
    context: Tensor | None  # (B, C)

    def inputs(self, problem: Problem) -> dict[str, Tensor]:
        """What gradients are wanted of, by name."""
        wanted = problem.needs_grad
        candidates = {"z": self.z, **dict(self.net.named_parameters())}
        if self.context is not None:
            candidates["context"] = self.context
        found = {
            name: x for i, (name, x) in enumerate(candidates.items()) if wanted[i % len(wanted)]
        }
        if problem.train_T and problem.times is None:
            found["T"] = self.root_end
        return found


def with_context(net: ODEnet, context_dim: int) -> ODEnet:
    """A net with the same numbers and, behind them, those of a context."""
    names = {"layer_type": net.layer_type, "nonlinearity": net.nonlinearity}
    more = ODEnet(net.widths[1:-1], net.widths[:1], context_dim=context_dim, **names).double()
    more.load_state_dict(net.state_dict(), strict=False)
    with torch.no_grad():
        for layer in more.context_layers:
            layer.weight.normal_(0, 0.6 / context_dim**0.5)
    return more


def shaken(x: Tensor, shake: float, generator: torch.Generator) -> Tensor:
    """``x`` times 1 + shake or 1 - shake, each number by itself."""
    signs = torch.randint(0, 2, x.shape, generator=generator).to(x.dtype) * 2 - 1
    return x * (1 + shake * signs) if shake else x


def make(problem: Problem, dtype: torch.dtype, shake: float = 0.0, draw: int = 0) -> Tensors:
    """The tensors, the same numbers in every dtype: those of the problem's own.

    ``shake``: as of `shaken`, for the signs of one ``draw``.
    """
    state = torch.get_rng_state()
    torch.manual_seed(problem.seed)
    try:
        net = random_net(problem.hidden, problem.dim, problem.layer_type, problem.nonlinearity)
        z = torch.randn(problem.batch, problem.dim, dtype=torch.float64)
        rows = 1 if problem.shared_probes else problem.batch
        probes = torch.randn(problem.n_probes, rows, problem.dim, dtype=torch.float64)
        context = None
        if problem.context_dim:
            net = with_context(net, problem.context_dim)
            context = torch.randn(problem.batch, problem.context_dim, dtype=torch.float64)
    finally:
        torch.set_rng_state(state)
    own = problem.dtype
    generator = torch.Generator().manual_seed(problem.seed + 10**6 * draw)

    def number(x: Tensor) -> Tensor:
        return shaken(x.to(own).to(dtype), shake, generator)

    net = net.to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(number(parameter))
    z, probes = number(z), number(probes)
    context = None if context is None else number(context)
    if problem.layout == "expanded":
        z = z[:1].expand(z.shape)
    root_end = number(torch.tensor(problem.end).sqrt())
    times = None
    if problem.times is not None:
        times = torch.tensor(problem.times, dtype=torch.float64).to(own).to(dtype)
    probes = probes.expand(problem.n_probes, problem.batch, problem.dim)
    tensors = Tensors(net, z, root_end, times, probes, context)
    wanted = tensors.inputs(problem)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in wanted)
    for name in ("z", "T", "context"):
        if name in wanted:
            wanted[name].requires_grad_()
    return tensors


def laid_out(z: Tensor, layout: str) -> Tensor:
    """The state's values at other strides, differentiable in ``z``."""
    if layout == "transposed":
        return z.mT.contiguous().mT
    if layout == "every second":
        return torch.stack((z, z), 2).flatten(1)[:, ::2]
    return z


def flow_of(problem: Problem, tensors: Tensors, engine: str) -> FastCNF:
    """The flow under test."""
    flow = FastCNF(
        ODEfunc(tensors.net, residual=problem.residual),
        T=problem.end,
        regularization_fns=problem.penalties or None,
        solver=problem.solver,
        n_steps=problem.n_steps,
        trace=problem.trace or "exact",
        engine=engine,
        log_det=problem.log_det,
        checkpoint_every=problem.checkpoint_every,
    )
    if problem.step_size is not None:
        flow.solver_options = {"step_size": problem.step_size}
    del flow.sqrt_end_time
    flow.sqrt_end_time = tensors.root_end
    return flow
