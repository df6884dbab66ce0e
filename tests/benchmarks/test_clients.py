"""Clients' flows: all candidates compute the same, and wrong ones are noticed."""

from dataclasses import replace

import pytest
import torch

from benchmarks.clients import comparison, likelihoods
from benchmarks.clients.comparison import Aim, Errors
from benchmarks.clients.likelihoods import LIKELIHOODS, MLP, Likelihood, odenet
from benchmarks.clients.training import TRAININGS, Training
from benchmarks.common.candidates import OURS, Problem
from benchmarks.common.peers import PEERS, why_missing
from benchmarks.common.workloads import Workload
from benchmarks.peers.ffjord import FFJORD
from mvae_fast.engines import cpp

needs_diffrax = pytest.mark.skipif(
    why_missing("diffrax") is not None, reason=str(why_missing("diffrax"))
)
needs_flow_matching = pytest.mark.skipif(
    why_missing("flow_matching") is not None, reason=str(why_missing("flow_matching"))
)

TOY = Workload("toy", 2, (6, 5, 4), "concatsquash", "tanh", 40, 5, "")
WIDE = Workload("wide", 5, (9, 13), "concat", "softplus", 40, 5, "")


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


@pytest.mark.parametrize("workload", [TOY, WIDE], ids=lambda w: w.name)
@pytest.mark.parametrize("solver", ["dopri5", "euler", pytest.param("tsit5", marks=needs_diffrax)])
def test_trainings(workload, solver):
    training = Training(workload, solver, bf16=True)
    prepared = training.prepare(torch.float32, "wall")
    assert prepared.calls.keys() == prepared.evaluations.keys() == prepared.errors.keys()
    ours, theirs = prepared.evaluations[f"{OURS} {solver}"], {"diffrax", "odeint"}
    (peer,) = theirs & prepared.calls.keys()
    assert prepared.evaluations[peer] == ours and ours[0] >= 5 and ours[1] == 0
    if solver == "tsit5":
        assert isinstance(prepared.calls["diffrax"](), float)
    else:
        half = f"{OURS} {solver} bf16"
        assert (half in prepared.calls) == cpp.multiplies_bf16()
        assert prepared.evaluations["odeint_adjoint"][1] >= 5


def test_double():
    training = Training(WIDE, "dopri5", bf16=True)
    errors = training.prepare(torch.float64, "wall").errors
    assert set(errors) == {f"{OURS} dopri5", "odeint", "odeint_adjoint"}
    assert 0 < errors[f"{OURS} dopri5"].values < 1e-5


@pytest.mark.parametrize(("solver", "what"), [("dopri5", "values"), ("euler", "values")])
def test_a_wrong_flow_is_noticed(monkeypatch, solver, what):
    forward = FFJORD.forward

    def wrong(self, z, logp, probes):
        z_t, logp_t = forward(self, z, logp, probes)
        return z_t, logp_t * (1.01 if self.dynamics.net.layers[0]._layer.weight.dtype
                              == torch.float32 else 1)  # fmt: skip

    monkeypatch.setattr(FFJORD, "forward", wrong)
    with pytest.raises(AssertionError, match=f"odeint on wide, {solver}: {what} are off by"):
        Training(WIDE, solver).prepare(torch.float32, "wall")


def test_gradients_are_checked():
    with pytest.raises(AssertionError, match="who: gradients are off by nan"):
        comparison.check("who", Errors(0.0, float("nan")), Errors(1.0, 1.0))


def test_the_exact_divergence_is_autograd_s():
    net = Problem(TOY, torch.float64).net()
    peer = FFJORD(net, None, adjoint=False, exact=True)
    z, t = torch.randn(3, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    _, change = peer.dynamics(t, (z, z[:, :1]))
    for row, got in zip(z.detach(), change, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: net(t, x[None])[0], row)
        assert got.item() == pytest.approx(-jacobian.trace().item(), rel=1e-12)


def test_an_mlp_as_an_odenet():
    torch.manual_seed(0)
    mlp = MLP(3, (7, 5)).double()
    net = odenet(mlp, 3, (7, 5)).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    for t in (torch.tensor(0.0), torch.tensor(0.7)):
        torch.testing.assert_close(net(t.double(), x), mlp(x, t.double()))


SMALL = [Likelihood(3, solver, 20, (7, 5)) for solver in ("euler", "midpoint", "dopri5")]


@needs_flow_matching
@pytest.mark.parametrize("likelihood", SMALL, ids=lambda each: each.solver)
def test_likelihoods(likelihood):
    prepared = likelihood.prepare(torch.float32, "wall")
    ours, theirs = prepared.evaluations.values()
    assert list(prepared.calls) == [f"{OURS} {likelihood.solver}", "flow_matching"]
    assert ours == theirs and ours[0] >= 14
    assert prepared.calls["flow_matching"]().shape == (20,)


@needs_flow_matching
def test_another_likelihood_is_noticed(monkeypatch):
    monkeypatch.setattr(likelihoods, "log_source", lambda z: z.sum(1))
    with pytest.raises(AssertionError, match="FastCNF euler on likelihood D=3, euler: values are"):
        SMALL[0].prepare(torch.float32, "wall")


def test_rows_and_peers():
    names = [(each.name, each.peer) for each in (*TRAININGS, *LIKELIHOODS)]
    assert len(set(names)) == len(names) and {peer for _, peer in names} <= set(PEERS)
    assert [each.name for each in TRAININGS if each.quick] == ["toy, dopri5"]
    for each in TRAININGS:
        built = each.build(Problem(replace(each.workload, batch=2), torch.float32)) if (
            each.peer == "torchdiffeq"
        ) else {}  # fmt: skip
        for aim in each.aims:
            assert aim.peer in built
            assert aim.ours in built or not cpp.multiplies_bf16()


def test_table():
    row = {
        "workload": "toy, dopri5",
        "threads": 1,
        "seconds": {"FastCNF dopri5": [0.01, 0.01], "odeint_adjoint": [0.1, 0.12]},
        "aims": [Aim("FastCNF dopri5", "odeint_adjoint", 14)],
        "evaluations": {"FastCNF dopri5": (20, 0), "odeint_adjoint": (20, 26)},
        "errors": {"FastCNF dopri5": (4e-6, 2e-6), "odeint_adjoint": (4e-4, 2e-4)},
    }
    assert comparison.lines([]) == []
    assert comparison.lines([row])[2] == (
        "| toy, dopri5 | 1 | FastCNF dopri5, 10 ms | odeint_adjoint, 110 ms | 11.00x (10.50-11.50) "
        "| 14x | 20; 20 + 26 | 4e-06, 2e-06; 4e-04, 2e-04 |"
    )
    assert " | 11.00x (10.50-11.50) |  | " in comparison.lines([row | {"aims": []}])[2]
