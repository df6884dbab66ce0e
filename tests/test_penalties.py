"""The regularisers that the engines integrate: against their definitions, and engine by engine."""

import itertools

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.core.problem import PENALTIES
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.core.tables import Tables
from mvae_fast.integrate import integrate
from mvae_fast.ode.regularization import FUSED_PENALTIES, REGULARIZATION_FNS
from mvae_fast.ode.torchdiffeq import SolverConfig, solve
from tests.oracles import distance, engines_on, gradients, random_net
from tests.test_integrate import SHAPES, problem

NAMES = tuple(name for name, fn in REGULARIZATION_FNS.items() if fn in FUSED_PENALTIES)
compiled_engines = [name for name in engines_on("cpu") if name != "reference"]


def run(engine, leaves, probes, statics, dtype, penalties=PENALTIES, method="euler"):
    leaves = [None if x is None else x.detach().to(dtype).requires_grad_() for x in leaves]
    z, h, weight, gate, bias, table = leaves
    solution = integrate(
        z,
        h,
        Tables(weight, gate, bias, *statics),
        trace=table,
        probes=probes.to(dtype),
        penalties=penalties,
        tableau=TABLEAUS[method],
        outputs=(1, h.shape[0]),
        engine=engine,
    )
    return [*solution, *gradients(solution, [x for x in leaves if x is not None])]


@pytest.mark.parametrize("compiled", compiled_engines)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["ignore", "squash", "all"])
def test_values_and_gradients(capability, compiled, shape, layout):
    errors, eagers = [], []
    for trace, residual in itertools.product(("exact", "hutchinson"), (False, True)):
        if trace == "exact" and len(shape[2]) > 2:
            continue
        leaves, _, statics = problem(shape, layout, "tanh", trace, residual)
        probes = torch.randn(2, *shape[:2], dtype=torch.float64)
        oracle = run("reference", leaves, probes, statics, torch.float64)
        assert oracle[2].shape == (2, len(PENALTIES), shape[0])
        got = run(compiled, leaves, probes, statics, torch.float64)
        single = run(compiled, leaves, probes, statics, torch.float32)
        eager = run("reference", leaves, probes, statics, torch.float32)
        for ours, expected in zip(got, oracle, strict=True):
            assert distance(ours, expected) < 1e-13, (trace, residual)
        errors += [distance(x, y) for x, y in zip(single, oracle, strict=True)]
        eagers += [distance(x, y) for x, y in zip(eager, oracle, strict=True)]
    assert sum(errors) <= 2 * sum(eagers)


@pytest.mark.parametrize("compiled", compiled_engines)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("method", ["euler", "heun3", "rk4"])
def test_each_by_itself(capability, compiled, penalty, method):
    leaves, _, statics = problem((5, 3, (7, 4)), "concat", "softplus", "exact", steps=12)
    leaves[4] = leaves[4].expand(12, -1)
    leaves[1] = leaves[1].abs()
    rows = 12 // len(TABLEAUS[method].b)
    leaves[1] = leaves[1][:rows]
    probes = torch.randn(1, 5, 3, dtype=torch.float64)
    if penalty != "frobenius":
        leaves[5] = None  # the trace is the probes', beside a penalty that has none
    oracle, got = (
        run(name, leaves, probes, statics, torch.float64, (penalty,), method)
        for name in ("reference", compiled)
    )
    for ours, expected in zip(got, oracle, strict=True):
        assert distance(ours, expected) < 1e-13


def test_gradcheck(engine):
    leaves, _, statics = problem((2, 3, (4, 3)), "all", "tanh", "exact", steps=2)
    probes = torch.randn(2, 2, 3, dtype=torch.float64)

    def function(z, h, weight, gate, bias, table):
        tables = Tables(weight, gate, bias, *statics)
        return integrate(
            z, h, tables, trace=table, probes=probes, penalties=PENALTIES, engine=engine
        )

    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in leaves])


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (5, 4), (3, 4, 5)])
def test_flow_equals_torchdiffeq(engine, residual, hidden):
    net = random_net(hidden, 3, "concatsquash")
    names = ("kinetic_energy", "l1int", "l2int")
    flow = FastCNF(
        ODEfunc(net, residual=residual),
        regularization_fns=names,
        n_steps=4,
        trace="exact",
        engine=engine,
    ).double()
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    logp = torch.zeros(5, 1, dtype=torch.float64)
    results = [*flow(z, logp), *flow.get_regularization_states()]
    solution = solve(
        flow.odefunc.odefunc,
        z,
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        SolverConfig("euler", n_steps=4, atol=0.0, rtol=0.0),
        trace="exact",
        regularization_fns=flow.regularization_fns,
    )
    expected = [solution.z[-1], solution.logp[-1].view(5, 1), *(p[-1] for p in solution.penalties)]
    leaves = [z, *net.parameters()]
    for ours, theirs in zip(
        [*results, *gradients(results, leaves)],
        [*expected, *gradients(expected, leaves)],
        strict=True,
    ):
        assert distance(ours, theirs) < 1e-12


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_jacobian_norm_of_given_probes(engine, trace):
    net = random_net((7,), 3, "squash")
    flow = FastCNF(
        ODEfunc(net), regularization_fns=("jacobian_norm",), n_steps=1, trace=trace, engine=engine
    ).double()
    z = torch.randn(5, 3, dtype=torch.float64)
    noise = torch.randn(2, 5, 3, dtype=torch.float64)
    zero = torch.tensor(0.0, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: net(zero, row)))(z)
    flow(z, z[:, 0], probes=noise)
    products = torch.einsum("bij,kbj->kbi", jacobian, noise)
    expected = products.square().sum(2).mean()
    torch.testing.assert_close(flow.get_regularization_states()[0], expected)


def test_times_and_order_of_the_integrals(engine):
    flow = FastCNF(
        ODEfunc(random_net((7,), 3)), regularization_fns=NAMES[::-1], n_steps=3, engine=engine
    ).double()
    z, times = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0.0, 0.5, 1.0]).double()
    noise = torch.randn(5, 3, dtype=torch.float64)
    flow(z, z[:, 0], times, probes=noise)
    path = flow.get_regularization_states()
    assert [p.shape for p in path] == [(3,)] * len(NAMES) and not any(p[0] for p in path)
    flow(z, z[:, 0], times[:2], probes=noise)
    for middle, whole in zip(flow.get_regularization_states(), path, strict=True):
        torch.testing.assert_close(middle, whole[1])
    alone = FastCNF(
        flow.odefunc.odefunc, regularization_fns=NAMES[:1], n_steps=3, engine=engine
    ).double()
    alone(z, z[:, 0], times[:2], probes=noise)
    torch.testing.assert_close(alone.get_regularization_states()[0], path[-1][1])
    flow.eval()(z, z[:, 0], probes=noise)
    assert flow.get_regularization_states() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalties": ("frobenius",)}, "penalties: 'frobenius' needs probes"),
        ({"penalties": ("kinetic_energy", "mean_magnitude")}, "penalties: got .* in this order"),
        ({"penalties": ("speed",)}, "penalties: got"),
        ({"precision": "bf16"}, "precision: 'bf16' needs a float32 z"),
    ],
)
def test_bad_settings_are_named(engine, settings, message):
    leaves, _, statics = problem((5, 3, (7,)), "squash", "tanh", "exact")
    z, h, weight, gate, bias, table = leaves
    with pytest.raises(ValueError, match=message):
        integrate(
            z, h, Tables(weight, gate, bias, *statics), trace=table, engine=engine, **settings
        )
