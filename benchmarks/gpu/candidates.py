"""The engines for GPUs and their peers, all in the same precision."""

from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.common.candidates import Candidate, Ours, Problem
from benchmarks.common.precision import Autocast, operands
from benchmarks.peers.compiled import compiled
from benchmarks.peers.ffjord import FFJORD
from mvae_fast import engines

#: The engines that are made for GPUs, whether or not they can run here.
GPU_ENGINES: tuple[str, ...] = tuple(
    name for name in engines.ENGINES if "cuda" in (engines.get(name).devices or ())
)


_TRACES = ("exact", "hutchinson")


def why_missing(name: str) -> str | None:
    """None where the engine can run on a GPU of this machine, else the reason and the remedy."""
    reason = engines.why_missing(name)
    if reason is None and name in GPU_ENGINES and engines.get(name).by_name_only:
        return "its kernels are interpreted on the CPU; remedy: TRITON_INTERPRET=0"
    return reason


def usable(names: Sequence[str], device: str, precision: str) -> tuple[str, ...]:
    """Those of the engines that can run here on this device in this precision, on float32."""
    place, rounded = torch.device(device), operands(precision)
    return tuple(
        name
        for name in names
        if why_missing(name) is None and engines.get(name).supports(place, torch.float32, rounded)
    )


def candidates(
    precision: str, ours: Sequence[str], *, hutchinson: bool = False, compile_peers: bool = False
) -> dict[str, Candidate]:
    """What is timed in one row, ours first.

    Args:
        hutchinson: Also the engines with the peers' own estimate of the trace.
        compile_peers: Also the peers of ``torch.compile``, which take minutes to compile.
    """
    found = {name: _ours(name, "exact", precision) for name in ours}
    if hutchinson:
        found |= {f"{name} hutchinson": _ours(name, "hutchinson", precision) for name in ours}
    found |= {"odeint": _ffjord(False, precision), "odeint_adjoint": _ffjord(True, precision)}
    if compile_peers:
        found |= {f"compile {trace}": _compiled(trace, precision) for trace in _TRACES}
    return found


def _ours(engine: str, trace: str, precision: str) -> Candidate:
    return Candidate(
        lambda p: Ours(p, trace, operands(precision), engine), trace, precision=precision
    )


def _ffjord(adjoint: bool, precision: str) -> Candidate:
    return Candidate(
        lambda p: Autocast(FFJORD(p.net(), p.workload.steps, adjoint), precision),
        "hutchinson",
        discrete_gradient=not adjoint,
        precision=precision,
    )


def _compiled(trace: str, precision: str) -> Candidate:
    def build(problem: Problem) -> nn.Module:
        # This mode brings CUDA graphs.
        flow = compiled(
            problem.net(), problem.workload.steps, trace == "hutchinson", mode="max-autotune"
        )
        return Autocast(flow, precision)

    return Candidate(build, trace, precision=precision)
