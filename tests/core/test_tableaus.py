"""Runge-Kutta methods in one call of an engine, against torchdiffeq step by step."""

import itertools
import math

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, engines
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.ode.settings import Settings
from mvae_fast.ode.torchdiffeq import solve
from tests.oracles import distance, engines_on, gradients, random_net

DIM = 3


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_tableaus_are_explicit_and_consistent(tableau):
    stages = len(tableau.b)
    assert len(tableau.c) == stages and len(tableau.a) == stages**2
    assert math.isclose(sum(tableau.b), 1)
    for r in range(stages):
        assert not any(tableau.a[r * stages + r : (r + 1) * stages])
        assert math.isclose(sum(tableau.a[r * stages : (r + 1) * stages]), tableau.c[r])


def flow_of(net, engine, **settings):
    return FastCNF(ODEfunc(net), T=0.8, train_T=True, n_steps=4, engine=engine, **settings).double()


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        pytest.param(name, hidden, marks=[pytest.mark.slow] * (hidden != few))
        for name, few in zip(
            TABLEAUS,
            [
                ("euler", (5, 4)),
                ("midpoint", ()),
                ("heun2", (7,)),
                ("heun3", (4, 5, 3)),
                ("rk4", (7,)),
            ],
            strict=True,
        )
        for hidden in [(), (7,), (5, 4), (4, 5, 3)]
    ],
)
@pytest.mark.parametrize("residual", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_engines_equal_torchdiffeq(capability, engine, name, hidden, residual):
    for layer_type, trace in itertools.product(("concatsquash", "blend"), ("exact", "hutchinson")):
        net = random_net(hidden, DIM, layer_type)
        flow = flow_of(net, engine, solver=name, trace=trace)
        flow.odefunc.residual = residual
        z = torch.randn(5, DIM, dtype=torch.float64, requires_grad=True)
        logp = torch.randn(5, dtype=torch.float64)
        noise = torch.randn(2, 5, DIM, dtype=torch.float64) if trace == "hutchinson" else None
        got = flow(z, logp, probes=noise)
        end = flow.sqrt_end_time.square()
        expected = solve(
            flow.odefunc,
            z,
            torch.stack((torch.zeros_like(end), end)),
            Settings(name, n_steps=4, atol=0.0, rtol=0.0),
            trace=trace,
            probes=None if noise is None else noise * 2**-0.5,
        )
        expected = (expected.z[-1], logp + expected.logp[-1])
        leaves = [z, *flow.parameters()]
        for ours, theirs in zip(
            [*got, *gradients(got, leaves)],
            [*expected, *gradients(expected, leaves)],
            strict=True,
        ):
            assert distance(ours, theirs) < 1e-12, (layer_type, trace)


@pytest.mark.parametrize("name", TABLEAUS)
@pytest.mark.slow
def test_float32_is_as_near_as_eager(capability, name):
    net = random_net((33,), 17)
    z = torch.randn(37, 17, dtype=torch.float64)

    def run(engine, dtype):
        flow = flow_of(net, engine, solver=name, trace="exact").to(dtype)
        start = z.to(dtype).requires_grad_()
        results = flow(start, torch.zeros(37, 1, dtype=dtype))
        values = [*results, *gradients(results, [start, *flow.parameters()])]
        net.double()
        return values

    oracle, eager = run("reference", torch.float64), run("reference", torch.float32)
    for compiled in set(engines_on("cpu")) - {"reference"}:
        ours = [distance(a, b) for a, b in zip(run(compiled, torch.float32), oracle, strict=True)]
        eagers = [distance(a, b) for a, b in zip(eager, oracle, strict=True)]
        floor = torch.finfo(torch.float32).eps  # a single tensor may come out exact by luck
        assert sum(ours) <= 2 * sum(eagers) + floor
        assert max(ours) <= 2 * max(eagers) + floor


def test_order_of_convergence(engine):
    orders = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
    net = random_net((9,), DIM, "squash", "tanh")
    z, logp = torch.randn(6, DIM, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)

    def run(name, n_steps):
        flow = FastCNF(ODEfunc(net), solver=name, n_steps=n_steps, trace="exact", engine=engine)
        with torch.no_grad():
            return torch.cat([x.flatten() for x in flow.double()(z, logp)])

    limit = run("rk4", 200)
    for name, order in orders.items():
        coarse, fine = (distance(run(name, n), limit) for n in (10, 20))
        assert abs(math.log2(coarse / fine) - order) < 0.3, name


@pytest.mark.parametrize("name", ["euler", "rk4"])
@pytest.mark.parametrize("every", [1, 2, 3, 7, 50])
@pytest.mark.slow
def test_checkpoints_change_memory_only(engine, name, every):
    net = random_net((7, 5), DIM)
    z = torch.randn(60, DIM, dtype=torch.float64, requires_grad=True)

    def run(checkpoint_every):
        flow = FastCNF(
            ODEfunc(net),
            solver=name,
            n_steps=7,
            trace="exact",
            engine=engine,
            checkpoint_every=checkpoint_every,
        ).double()
        results = flow(z, z[:, 0])
        return [*results, *gradients(results, [z, *flow.parameters()])]

    for ours, plain in zip(run(every), run(1), strict=True):
        assert distance(ours, plain) < 1e-13


@pytest.mark.parametrize("every", [1, 2, 3, 7, 8])
def test_states_that_are_saved(every):
    flow = FastCNF(ODEfunc(random_net((7,), DIM)), n_steps=7, trace="exact", engine="auto").double()
    flow.checkpoint_every = every
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        flow(torch.randn(60, DIM, dtype=torch.float64, requires_grad=True))
    if engines.usual("auto", torch.device("cpu"), torch.float64) == "cpp":
        assert ((7 - 1) // every * 60 * DIM,) in [x.shape for x in saved]
