"""FastCNF and its peers on one workload: the same weights, the same states, the same noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.precision import products
from benchmarks.common.workloads import Workload
from benchmarks.peers.compiled import compiled
from benchmarks.peers.ffjord import FFJORD, Net
from benchmarks.peers.jax_peer import Jax
from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.core import grid
from mvae_fast.core.field import Field
from mvae_fast.core.tables import Tables
from mvae_fast.nets.fields import field_of

#: The candidate that ratios are relative to.
OURS = "FastCNF"


class Problem:
    """Weights, states and noise of one workload, made from a seed.

    Args:
        seed: Of everything; the numbers are the same on every device.
    """

    def __init__(
        self, workload: Workload, dtype: torch.dtype, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.workload = workload
        self.dtype = dtype
        self.seed = seed
        self.device = device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.weights = self._odenet().state_dict()
            shape = workload.batch, workload.dim
            self.z = torch.randn(shape, dtype=dtype).to(device).requires_grad_()
            self.probes = torch.randn(shape, dtype=dtype).to(device)
        self.logp = torch.zeros(workload.batch, 1, dtype=dtype, device=device)

    def _odenet(self) -> ODEnet:
        w = self.workload
        return ODEnet(w.hidden, (w.dim,), layer_type=w.layer_type, nonlinearity=w.nonlinearity)

    def flow(self, trace: str) -> FastCNF:
        """FastCNF with these weights."""
        net = self._odenet()
        net.load_state_dict(self.weights)
        flow = FastCNF(ODEfunc(net), n_steps=self.workload.steps, trace=trace)
        return flow.to(self.device, self.dtype)

    def field(self) -> tuple[Field | Tables, Tensor]:
        """What an engine is given: the velocity and the step sizes."""
        net = self.flow("exact").odefunc.diffeq
        assert isinstance(net, ODEnet)
        end = torch.ones((), dtype=self.dtype, device=self.device)
        steps = grid.from_zero(end, self.workload.steps, False)
        return field_of(net, steps.t), steps.h.contiguous()

    def net(self) -> Net:
        """The peers' velocity with these weights."""
        net = Net(self.workload)
        net.load_state_dict(self.weights)
        return net.to(self.device, self.dtype)


class Ours(nn.Module):
    """FastCNF called like a peer.

    Args:
        tolerance: Absolute and relative one of an adaptive solver.
    """

    def __init__(
        self,
        problem: Problem,
        trace: str,
        precision: str = "full",
        engine: str = "auto",
        solver: str = "euler",
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__()
        self.flow = problem.flow(trace)
        self.flow.precision = precision
        self.flow.engine = engine
        self.flow.solver = solver
        self.flow.atol = self.flow.rtol = tolerance

    def forward(self, z: Tensor, logp: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
        given = probes if self.flow.trace == "hutchinson" else None
        z_t, logp_t = self.flow(z, logp, probes=given)
        return z_t, logp_t


@dataclass(frozen=True)
class Candidate:
    """One way to run a workload.

    Args:
        build: Makes the module ``(z, logp, probes) -> (z_T, logp_T)``, or one of JAX's flows.
        trace: ``"exact"`` or ``"hutchinson"``, hence which others it must agree with.
        discrete_gradient: Whether its gradient is that of the discrete steps.
        precision: One of `benchmarks.common.precision.PRECISIONS`, that of its products; all but
            ``"full"`` need a float32 problem.
    """

    build: Callable[[Problem], Any]
    trace: str
    discrete_gradient: bool = True
    precision: str = "full"


CANDIDATES: dict[str, Candidate] = {
    OURS: Candidate(lambda p: Ours(p, "exact"), "exact"),
    f"{OURS} hutchinson": Candidate(lambda p: Ours(p, "hutchinson"), "hutchinson"),
    f"{OURS} bf16": Candidate(lambda p: Ours(p, "exact", "bf16"), "exact", precision="bf16"),
    "odeint": Candidate(lambda p: FFJORD(p.net(), p.workload.steps, adjoint=False), "hutchinson"),
    "odeint_adjoint": Candidate(
        lambda p: FFJORD(p.net(), p.workload.steps, adjoint=True),
        "hutchinson",
        discrete_gradient=False,
    ),
    "compile exact": Candidate(
        lambda p: compiled(p.net(), p.workload.steps, hutchinson=False), "exact"
    ),
    "compile hutchinson": Candidate(
        lambda p: compiled(p.net(), p.workload.steps, hutchinson=True), "hutchinson"
    ),
    "jax vjp": Candidate(lambda p: Jax(p, "vjp"), "hutchinson"),
    "jax jvp": Candidate(lambda p: Jax(p, "jvp"), "hutchinson"),
    "jax exact": Candidate(lambda p: Jax(p, "exact"), "exact"),
    "jax closed form": Candidate(lambda p: Jax(p, "closed form"), "exact"),
}


def kl_term(z_t: Tensor, logp_t: Tensor) -> Tensor:
    """The flow's KL term (eq. 11 of the paper, less constants), mean over the rows."""
    return (logp_t.squeeze(1) + z_t.square().sum(1) / 2).mean()


def training_step(module: nn.Module, problem: Problem) -> tuple[Tensor, ...]:
    """The flow's KL term, forward and backward.

    Returns:
        States and log-densities at the end, then the gradients of ``z`` and of every parameter.
    """
    z_t, logp_t = module(problem.z, problem.logp, problem.probes)
    gradients = torch.autograd.grad(kl_term(z_t, logp_t), (problem.z, *module.parameters()))
    return z_t.detach(), logp_t.detach(), *gradients


def inference(module: nn.Module, problem: Problem) -> tuple[Tensor, ...]:
    """States and log-densities at the end, without gradients."""
    with torch.no_grad():
        z_t, logp_t = module(problem.z, problem.logp, problem.probes)
    return z_t, logp_t


#: What is timed.
MODES: dict[str, Callable[[nn.Module, Problem], tuple[Tensor, ...]]] = {
    "train": training_step,
    "inference": inference,
}


def results(module: nn.Module | Jax, problem: Problem, mode: str) -> tuple[Tensor, ...]:
    """What the mode gives for a candidate that was built."""
    return module.results(mode) if isinstance(module, Jax) else MODES[mode](module, problem)


def call(
    module: nn.Module | Jax, problem: Problem, mode: str, clock: str
) -> Callable[[], float | tuple[Tensor, ...]]:
    """What is timed. That of a flow of JAX's answers with its seconds by this clock."""
    if isinstance(module, Jax):
        return partial(module.seconds, mode, clock)
    return partial(MODES[mode], module, problem)


_TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
_BF16 = 0.05  # eager PyTorch under autocast is as far off; tests/engines/test_bf16.py compares them
# Three more bits than bfloat16, less the one that goes where hardware truncates to TF32.
_ROUNDED = {"bf16": _BF16, "tf32": _BF16 / 4, "fp16": _BF16 / 4}


def check_agreement(
    modules: Mapping[str, nn.Module | Jax],
    problem: Problem,
    mode: str,
    candidates: Mapping[str, Candidate] = CANDIDATES,
    engine: str = "auto",
) -> None:
    """Raise AssertionError unless the candidates compute the same thing.

    Each is compared with FastCNF under the same kind of trace, in the norm relative to the whole
    tensor: the end states, the log-densities and, where its gradient is that of the discrete steps,
    the gradients of ``z`` and of every parameter.

    Args:
        candidates: What is known of the modules, by the same names.
        engine: That of the FastCNF which they are compared with, in full precision.
    """
    expected: dict[str, tuple[Tensor, ...]] = {}
    for name, module in modules.items():
        candidate = candidates[name]
        if candidate.trace not in expected:
            with products("full"):
                oracle = Ours(problem, candidate.trace, engine=engine)
                expected[candidate.trace] = results(oracle, problem, mode)
        found, wanted = results(module, problem, mode), expected[candidate.trace]
        assert len(found) == len(wanted)
        compared = len(wanted) if candidate.discrete_gradient else 2
        tolerance = _ROUNDED.get(candidate.precision, _TOLERANCE[problem.dtype])
        for index, (got, ours) in enumerate(zip(found[:compared], wanted, strict=False)):
            error, size = (got - ours).norm().item(), ours.norm().item()
            assert error <= tolerance * size, (
                f"{name} on {problem.workload.name}: error {error:.1e} of {size:.1e} in result "
                f"{index} (z_T, logp_T, gradient of z, gradients of the parameters)"
            )
