"""Solve a problem three ways, and tell how far the engine is off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mvae_fast.engines import cpp as ops
from tests.fuzz.exact import Solver
from tests.fuzz.problems import Problem, Tensors, flow_of, laid_out, make, shaken

EPSILON = torch.finfo(torch.float32).eps
DOUBLE = 1e-10


@dataclass(frozen=True)
class Error:
    """How far one quantity is off, in units of its size (that of the oracle)."""

    name: str
    ours: float
    eager: float  # nan in float64, as the next one
    ulps: float  # what half an ulp more or less in every number of the problem makes
    parts: float = 0.0  # of swish's slope: the size of the terms that its gradient is the sum of

    @property
    def kind(self) -> str:
        """Its class: the value's name, or which parameter of a layer, whichever layer."""
        return ".".join(part for part in self.name.split(".") if not part.isdigit())


def ours(problem: Problem, tensors: Tensors) -> dict[str, Tensor]:
    """The values by the engine under test."""
    # The log-determinant to second order of deep nets, and gradients of the exact one, only the
    # reference has.
    flow = flow_of(problem, tensors, "cpp" if problem.log_det == "trace" else "auto")
    z = laid_out(tensors.z, problem.layout)
    sampled = problem.trace == "hutchinson" or "jacobian_norm" in problem.penalties
    logp = None if problem.trace is None else tensors.z[:, :1] * 0.5
    results = flow(
        z,
        logp,
        tensors.times,
        problem.reverse,
        context=tensors.context,
        probes=tensors.probes if sampled else None,
    )
    z_out, logp_out = results if isinstance(results, tuple) else (results, None)
    if problem.intervals > 1:  # the start comes with them
        z_out = z_out[1:]
        logp_out = None if logp_out is None else logp_out[1:]
    lead = (problem.intervals,)
    values = {"z": z_out.reshape(*lead, *z.shape)}
    if logp_out is not None:
        values["logp"] = logp_out.reshape(*lead, z.shape[0])
    for name, path in zip(problem.penalties, flow.get_regularization_states() or (), strict=True):
        values[name] = (path[1:] if problem.intervals > 1 else path).reshape(lead)
    return values


def theirs(problem: Problem, tensors: Tensors) -> dict[str, Tensor]:
    """The values by the independent computation."""
    return Solver(problem, tensors).solve()


def with_gradients(
    problem: Problem, tensors: Tensors, values: dict[str, Tensor], shake: float = 0.0
) -> dict[str, Tensor]:
    """The values, and gradients of one generic functional of them."""
    total = functional(problem, values, shake)
    inputs = tensors.inputs(problem)
    if not inputs or not total.requires_grad:
        return values
    grads = torch.autograd.grad(total, list(inputs.values()), materialize_grads=True)
    return {**values, **{f"d {name}": x for name, x in zip(inputs, grads, strict=True)}}


def functional(problem: Problem, values: dict[str, Tensor], shake: float = 0.0) -> Tensor:
    """One generic number made of all values."""
    generator = torch.Generator().manual_seed(problem.seed)
    total = torch.zeros((), dtype=next(iter(values.values())).dtype)
    for value in values.values():
        # The same numbers in both dtypes, which float32 holds exactly.
        weights = (torch.randint(-8, 9, value.shape, generator=generator) / 8).to(value.dtype)
        weights = shaken(weights, shake, generator)
        total = total + (value * weights).sum()
    return total


class _Split(torch.nn.Module):
    """Swish as phi_1(b a) / b, with a b of its own for each row, unit and place."""

    def __init__(self, beta: Tensor, rows: int, units: int) -> None:
        super().__init__()
        self.inner = torch.nn.Parameter(beta.detach().expand(rows, units).clone())
        self.outer = torch.nn.Parameter(self.inner.detach().clone())

    def forward(self, a: Tensor) -> Tensor:
        return torch.nn.functional.silu(self.inner * a) / self.outer


def slope_parts(problem: Problem) -> dict[str, float]:
    """The gradient of a swish's slope is the sum of what its two places give, over rows and units:
    how large these are, all in all."""
    tensors = make(problem, torch.float64)
    splits = {}
    for i, swish in enumerate(tensors.net.activation_fns):
        splits[i] = _Split(swish.beta, problem.batch, problem.hidden[i])
        tensors.net.activation_fns[i] = splits[i]
    places = [p for split in splits.values() for p in split.parameters()]
    total = functional(problem, theirs(problem, tensors))
    grads = torch.autograd.grad(total, places, materialize_grads=True)
    sizes = [grad.abs().sum().item() for grad in grads]
    return {f"d activation_fns.{i}.beta": sizes[2 * i] + sizes[2 * i + 1] for i in splits}


def size_of(oracle: Tensor) -> Tensor:
    """The oracle's norm; at least the smallest that is not noise."""
    return torch.linalg.vector_norm(oracle).clamp(min=1e-3 * max(1, oracle.numel()) ** 0.5)


def distance(actual: Tensor, oracle: Tensor) -> float:
    """Euclidean, in units of the oracle's size."""
    oracle = oracle.detach()
    difference = torch.linalg.vector_norm(actual.detach().double() - oracle)
    return (difference / size_of(oracle)).item()


def run(problem: Problem, capabilities: Sequence[str], draws: int = 1) -> dict[str, list[Error]]:
    """The errors of a problem on each instruction set; empty where the numbers blow up.

    ``draws``: how often the numbers are shaken by half ulps; the largest effect counts.
    """
    exact = make(problem, torch.float64)
    oracle = with_gradients(problem, exact, theirs(problem, exact))
    # Of no rows, the penalties are means of nothing.
    oracle = {name: x for name, x in oracle.items() if problem.batch or not x.isnan().any()}
    if not all(x.isfinite().all() and (x.abs() < 1e6).all() for x in oracle.values()):
        return {}
    eager = None
    shakes: list[dict[str, Tensor]] = []
    parts: dict[str, float] = {}
    if problem.dtype == torch.float32:
        half = EPSILON / 2
        tensors = make(problem, torch.float32)
        eager = with_gradients(problem, tensors, theirs(problem, tensors))
        for draw in range(draws):
            tensors = make(problem, torch.float64, half, draw)
            shakes.append(with_gradients(problem, tensors, theirs(problem, tensors), half))
        if problem.batch and any(name.endswith("beta") for name in oracle):
            parts = slope_parts(problem)
    errors = {}
    before = ops.capability()
    assert before is not None
    for capability in capabilities:
        ops.set_capability(capability)
        try:
            tensors = make(problem, problem.dtype)
            found = with_gradients(problem, tensors, ours(problem, tensors))
        finally:
            ops.set_capability(before)
        errors[capability] = [
            Error(
                name,
                distance(found[name], x),
                float("nan") if eager is None else distance(eager[name], x),
                max((distance(other[name], x) for other in shakes), default=float("nan")),
                parts.get(name, 0.0) / size_of(x.detach()).item(),
            )
            for name, x in oracle.items()
        ]
    return errors
