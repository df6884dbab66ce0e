"""The peers that FastCNF is measured against compute what it computes."""

import shutil
from dataclasses import replace

import pytest
import torch

from benchmarks.common.candidates import (
    CANDIDATES,
    MODES,
    OURS,
    Problem,
    check_agreement,
    inference,
    training_step,
)
from benchmarks.common.workloads import Workload
from benchmarks.peers.compiled import PlainEuler
from benchmarks.peers.ffjord import FFJORD
from mvae_fast.engines import cpp

# The layer types, depths and nonlinearities of W1 to W7, smaller.
SMALL = [
    Workload("squash", 7, (11,), "squash", "softplus", 5, 4, ""),
    Workload("squash, one step", 7, (11,), "squash", "softplus", 5, 1, ""),
    Workload("squash, two layers", 6, (9, 5), "squash", "softplus", 5, 3, ""),
    Workload("concat", 6, (9,), "concat", "softplus", 5, 3, ""),
    Workload("concat, two layers", 6, (9, 13), "concat", "softplus", 5, 3, ""),
    Workload("concatsquash, two layers", 5, (9, 13), "concatsquash", "softplus", 5, 3, ""),
    Workload("concatsquash, three layers", 2, (6, 5, 4), "concatsquash", "tanh", 5, 20, ""),
]
small = pytest.mark.parametrize("workload", SMALL, ids=lambda w: w.name)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
modes = pytest.mark.parametrize("mode", MODES)


@small
@dtypes
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@modes
def test_ffjord(workload, dtype, name, mode):
    problem = Problem(workload, dtype)
    peer = CANDIDATES[name].build(problem)
    calls = []
    peer.dynamics.register_forward_hook(lambda *_: calls.append(None))
    inference(peer, problem)
    # One more would be a step of length ~0 from rounding: the same value for more time.
    assert len(calls) == workload.steps
    check_agreement({name: peer}, problem, mode)


def test_ffjord_adjoint_gradient_converges_to_ours():
    """At first order: the adjoint's gradient is that of the continuous loss, not of the steps."""
    errors = []
    for steps in (40, 80, 160):
        workload = Workload("", 5, (8,), "concatsquash", "softplus", 6, steps, "")
        problem = Problem(workload, torch.float64)
        ours = training_step(CANDIDATES[f"{OURS} hutchinson"].build(problem), problem)
        theirs = training_step(CANDIDATES["odeint_adjoint"].build(problem), problem)
        errors.append(sum((a - b).norm() for a, b in zip(theirs[2:], ours[2:], strict=True)).item())
    assert errors[0] > 0
    assert errors[1] / errors[0] == pytest.approx(0.5, abs=0.03)
    assert errors[2] / errors[1] == pytest.approx(0.5, abs=0.015)


@small
@dtypes
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@modes
def test_plain(workload, dtype, trace, mode):
    """The algorithm that is compiled, before compilation."""
    problem = Problem(workload, dtype)
    name = f"compile {trace}"
    peer = PlainEuler(problem.net(), workload.steps, hutchinson=trace == "hutchinson")
    check_agreement({name: peer}, problem, mode)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled():
    problem = Problem(Workload("", 6, (9,), "squash", "softplus", 5, 2, ""), torch.float32)
    name = "compile exact"
    check_agreement({name: CANDIDATES[name].build(problem)}, problem, "train")


@pytest.mark.skipif(not cpp.multiplies_bf16(), reason="float32 is taken for bf16")
@small
@modes
def test_bf16(workload, mode):
    problem = Problem(workload, torch.float32)
    name = f"{OURS} bf16"
    check_agreement({name: CANDIDATES[name].build(problem)}, problem, mode)
    with pytest.raises(AssertionError):  # it is not float32 under another name
        CANDIDATES["as float32"] = replace(CANDIDATES[name], precision="full")
        try:
            check_agreement({"as float32": CANDIDATES[name].build(problem)}, problem, mode)
        finally:
            del CANDIDATES["as float32"]


def test_agreement_notices_a_wrong_value():
    problem = Problem(SMALL[0], torch.float64)
    one_step_more = FFJORD(problem.net(), SMALL[0].steps + 1, adjoint=False)
    with pytest.raises(AssertionError, match="result 0"):
        check_agreement({"odeint": one_step_more}, problem, "train")


def test_agreement_notices_a_wrong_gradient():
    problem = Problem(SMALL[0], torch.float64)
    adjoint = FFJORD(problem.net(), SMALL[0].steps, adjoint=True)
    with pytest.raises(AssertionError, match="result 2"):
        check_agreement({"odeint": adjoint}, problem, "train")
