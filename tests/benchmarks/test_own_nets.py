"""Peers with nets of their own: the same flow as ours, which is no less exact than theirs."""

from dataclasses import replace

import pytest
import torch

from benchmarks.common.candidates import MODES
from benchmarks.common.peers import why_missing
from benchmarks.peers.hypernet import hypernet_problem
from benchmarks.peers.own_nets import OURS
from benchmarks.peers.zuko_flow import zuko_problem

needs_zuko = pytest.mark.skipif(why_missing("zuko") is not None, reason=str(why_missing("zuko")))
problems = pytest.mark.parametrize(
    ("make", "dim", "adaptive"),
    [
        pytest.param(zuko_problem, 2, "zuko", marks=needs_zuko),
        pytest.param(zuko_problem, 16, "zuko", marks=needs_zuko),
        (hypernet_problem, 2, "odeint_adjoint dopri5"),
    ],
)


@problems
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_all_compute_the_same(make, dim, adaptive, dtype, mode):
    problem = make(dim, 256, dtype)
    assert next(iter(problem.flows)) == OURS and adaptive in problem.flows
    assert problem.tolerance.keys() == problem.flows.keys() - {OURS}
    problem.check(mode)


@problems
def test_a_wrong_flow_is_noticed(make, dim, adaptive):
    problem = make(dim, 32, torch.float64)
    backwards = replace(
        problem, flows=problem.flows | {adaptive: lambda z: (z, problem.flows[OURS](z)[1])}
    )
    with pytest.raises(AssertionError, match=f"{adaptive}: error"):
        backwards.check("inference")


@problems
def test_ours_is_nearer_to_the_true_flow(make, dim, adaptive):
    """In end states, log-densities and gradients; the truth: 200 steps in float64."""
    problem, fine = make(dim, 256, torch.float32), make(dim, 256, torch.float64)
    with torch.no_grad():
        fine.z.copy_(problem.z)
        for weight, rounded in zip(fine.weights, problem.weights, strict=True):
            weight.copy_(rounded)
    fine.flows[OURS].steps = 200
    true = fine.train(OURS)
    ours, theirs = (problem.train(name) for name in (OURS, adaptive))
    for got, peers, wanted in zip(ours, theirs, true, strict=True):
        assert 0 < (got - wanted).norm() < (peers - wanted).norm()


def test_the_hypernet_s_weights_really_depend_on_time():
    problem = hypernet_problem(2, 4, torch.float64)
    tables = problem.flows[OURS].tables(torch.tensor([0.0, 5.0], dtype=torch.float64))
    assert (tables.weight[0] - tables.weight[1]).norm() > 0.01 * tables.weight[0].norm()
