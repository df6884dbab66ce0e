"""Embedded pairs in the engines: the steps, where they lead, and their gradients."""

import copy
from itertools import pairwise

import pytest
import torch
from torchdiffeq._impl.odeint import SOLVERS

from mvae_fast import FastCNF, ODEfunc, ODEnet, cnf
from mvae_fast.core.adaptive import Control
from mvae_fast.core.tableaus import EMBEDDED
from mvae_fast.ode.end_time import searched_grid
from tests.oracles import random_net

DIM, ROWS = 3, 7
KINDS = {
    "none": ((), "concat", "tanh"),
    "one": ((9,), "squash", "softplus"),
    "two": ((8, 6), "concatsquash", "tanh"),
    "two concat": ((8, 6), "concat", "softplus"),
    "three": ((5, 4, 6), "concatsquash", "elu"),
    "tables": ((6,), "blend", "tanh"),
    "swish": ((6,), "concat", "swish"),
}


def flow_of(kind="two", dtype=torch.float64, **settings):
    hidden, layer, nonlinearity = KINDS[kind]
    torch.manual_seed(0)
    net = random_net(hidden, DIM, layer, nonlinearity)
    residual = settings.pop("residual", False)
    settings = {"solver": "dopri5", "trace": "exact", "atol": 1e-6, "rtol": 1e-6, **settings}
    return FastCNF(ODEfunc(net, residual=residual), **settings).to(dtype)


def states(dtype=torch.float64, rows=ROWS):
    torch.manual_seed(1)
    return torch.randn(rows, DIM, dtype=dtype), torch.randn(rows, 1, dtype=dtype)


def worst(got, expected):
    return max(
        ((a - b).abs().max() / (1 + b.abs().max())).item()
        for a, b in zip(got, expected, strict=True)
    )


def gradients(flow, results, *more):
    loss = sum((x * torch.linspace(0.5, 2, x.numel()).view_as(x)).sum() for x in results)
    leaves = [*more, *flow.parameters()]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]


# --- The methods


@pytest.mark.parametrize("name", EMBEDDED)
def test_order_conditions(name):
    """Those of trees up to order 5 (Hairer, Norsett and Wanner, II.2), of method and estimate."""
    method = EMBEDDED[name]
    (c, a, b), stages = method.tableau, len(method.error)
    a = torch.tensor(a, dtype=torch.float64).view(stages, stages)
    c, b, error = (torch.tensor(x, dtype=torch.float64) for x in (c, b, method.error))
    torch.testing.assert_close(a.sum(1), c)
    ac, one = a @ c, torch.ones_like(c)
    trees = {
        1: [(one, 1)],
        2: [(c, 1 / 2)],
        3: [(c**2, 1 / 3), (ac, 1 / 6)],
        4: [(c**3, 1 / 4), (c * ac, 1 / 8), (a @ c**2, 1 / 12), (a @ ac, 1 / 24)],
        5: [
            (c**4, 1 / 5), (c**2 * ac, 1 / 10), (ac**2, 1 / 20), (c * (a @ c**2), 1 / 15),
            (a @ c**3, 1 / 20), (c * (a @ ac), 1 / 30), (a @ (c * ac), 1 / 40),
            (a @ (a @ c**2), 1 / 60), (a @ (a @ ac), 1 / 120),
        ],
    }  # fmt: skip
    for order, conditions in trees.items():
        for weights, value in conditions:
            if order <= method.order:
                assert abs((b @ weights).item() - value) < 1e-14
            if order < method.order:  # the estimate is the difference to a method of this order
                assert abs((error @ weights).item()) < 1e-14
    assert any(abs((error @ w).item()) > 1e-5 for w, _ in trees[method.order])


@pytest.mark.parametrize("name", [name for name in EMBEDDED if name in SOLVERS])
def test_coefficients_are_torchdiffeqs(name):
    method, theirs = EMBEDDED[name], SOLVERS[name].tableau
    stages = len(method.error)
    for r, row in enumerate(theirs.beta, 1):
        ours = torch.tensor(method.tableau.a[r * stages : r * stages + r], dtype=torch.float64)
        torch.testing.assert_close(ours, row.double(), rtol=1e-13, atol=1e-15)
    for ours, other in ((method.tableau.b, theirs.c_sol), (method.error, theirs.c_error)):
        torch.testing.assert_close(torch.tensor(ours).double(), other.double())
    assert method.order == SOLVERS[name].order


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_accepted_steps_take_is_the_same_method(name):
    method = EMBEDDED[name]
    taken, stages = method.taken, len(method.error)
    assert method.last_is_first == (name in ("dopri5", "tsit5", "bosh3"))
    assert len(taken.b) == stages - method.last_is_first
    assert sum(taken.b) == pytest.approx(1)
    for r in range(len(taken.b)):
        row = method.tableau.a[r * stages : (r + 1) * stages]
        assert taken.a[r * len(taken.b) : (r + 1) * len(taken.b)] == row[: len(taken.b)]


# --- The engines


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EMBEDDED)
def test_engines_agree(name, kind):
    z, logp = states()
    results = []
    for engine in ("cpp", "reference"):
        flow = flow_of(kind, solver=name, engine=engine, residual=kind == "two")
        start = z.clone().requires_grad_()
        got = flow(start, logp)
        with torch.no_grad():
            assert worst(flow(z, logp), got) < 1e-13
        count = flow.num_evals()
        results.append(([*got, *gradients(flow, got, start)], count))
    (cpp, n), (reference, m) = results
    assert n == m
    assert worst(cpp, reference) < 1e-11


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("name", ["dopri5", "bosh3"])
@pytest.mark.parametrize("reverse", [False, True])
def test_steps_are_torchdiffeqs(name, trace, reverse):
    """As many evaluations, and the same solution to its tolerance."""
    z, logp = states()
    probes = torch.randn_like(z) if trace == "hutchinson" else None
    flow = flow_of(solver=name, trace=trace, atol=1e-7, rtol=1e-7)
    exact = flow_of(solver="dopri5", trace=trace, atol=1e-12, rtol=1e-12)
    theirs = copy.deepcopy(flow)
    theirs.solver_options = {"dtype": torch.float64}  # which the engines leave to torchdiffeq
    assert flow.fused and not theirs.fused
    with torch.no_grad():
        ours, other, fine = (
            f(z, logp, reverse=reverse, probes=probes) for f in (flow, theirs, exact)
        )
    assert flow.num_evals() == pytest.approx(theirs.num_evals(), rel=0.1)
    assert worst(ours, fine) < 2 * worst(other, fine) + 1e-9
    assert worst(other, fine) < 1e-4


def test_the_gradient_is_that_of_the_steps_taken(monkeypatch):
    """Against autograd through a loop over the same steps, of the net as a module."""
    flow = flow_of("two", train_T=True, T=0.8)
    z, logp = states()
    z.requires_grad_()
    net, seen = flow.odefunc.diffeq, []
    monkeypatch.setattr(
        cnf, "searched_grid", lambda *args: seen.append(searched_grid(*args)) or seen[0]
    )
    got = flow(z, logp)
    shares, method = seen[0][1].shares, EMBEDDED["dopri5"].taken
    stages = len(method.b)

    def f(t, y):
        def velocity(row):
            return net(t, row.unsqueeze(0)).squeeze(0)

        jacobian = torch.func.vmap(torch.func.jacrev(velocity))(y)
        return net(t, y), jacobian.diagonal(dim1=1, dim2=2).sum(1)

    end = flow.sqrt_end_time**2
    y, change, begun = z, torch.zeros(ROWS, dtype=z.dtype), 0.0
    for share in shares.tolist():
        h, ks, taus = end * share, [], []
        for r in range(stages):
            stage = y + h * sum(
                method.a[r * stages + q] * k for q, k in enumerate(ks) if method.a[r * stages + q]
            )
            k, tau = f(end * (begun + method.c[r] * share), stage)
            ks.append(k)
            taus.append(tau)
        y = y + h * sum(b * k for b, k in zip(method.b, ks, strict=True))
        change = change - h * sum(b * tau for b, tau in zip(method.b, taus, strict=True))
        begun += share
    expected = y, logp + change.unsqueeze(1)
    assert worst(got, expected) < 1e-12
    ours, theirs = gradients(flow, got, z), gradients(flow, expected, z)
    assert all(g.abs().max() > 0 for g in ours[:2])  # of z and of T among them
    assert worst(ours, theirs) < 1e-10


@pytest.mark.parametrize("engine", ["cpp", "reference"])
@pytest.mark.parametrize("descending", [False, True])
def test_many_times_are_met_exactly(engine, descending):
    flow = flow_of(engine=engine, atol=1e-10, rtol=1e-10)
    z, logp = states()
    times = torch.tensor([0.1, 0.25, 0.3, 0.9], dtype=torch.float64)
    times = times.flip(0) if descending else times
    path, logp_path = flow(z, logp, times)
    assert path.shape == (4, ROWS, DIM)
    assert torch.equal(path[0], z) and torch.equal(logp_path[0], logp)
    for i, (begin, end) in enumerate(pairwise(times)):
        step = flow(path[i], logp_path[i], torch.stack((begin, end)))
        assert worst(step, (path[i + 1], logp_path[i + 1])) < 1e-8
    back = flow(path[-1], logp_path[-1], times, reverse=True)
    assert worst(back[0].flip(0), path) < 1e-7 and worst(back[1].flip(0), logp_path) < 1e-7


@pytest.mark.parametrize("memory", ["states", "auto", 20_000, 2_000])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_what_is_kept_changes_nothing_but_rounding(memory, trace):
    z, logp = states(torch.float32)
    probes = torch.randn_like(z) if trace == "hutchinson" else None
    results = []
    for kept in ("activations", memory):
        flow = flow_of("two", torch.float32, memory=kept, engine="cpp", trace=trace)
        start = z.clone().requires_grad_()
        times = [0.0, 0.4, 1.0]
        got = flow(start, logp, times, probes=probes)
        results.append([*got, *gradients(flow, got, start)])
    assert all(torch.equal(a, b) for a, b in zip(results[0][:2], results[1][:2], strict=True))
    assert worst(*results) < 2e-6


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_every": 3},
        {"log_det": "exact", "engine": "auto"},
        {"precision": "bf16", "dtype": torch.float32},
    ],
)
def test_what_a_search_does_not_save_is_solved_again(change):
    dtype = change.pop("dtype", torch.float64)
    plain, other = flow_of("one", dtype), flow_of("one", dtype, **change)
    z, logp = states(dtype)
    start = z.clone().requires_grad_()
    expected, got = plain(start, logp), other(start, logp)
    tolerance = 1e-2 if "precision" in change else 1e-5 if "log_det" in change else 1e-12
    assert worst(got, expected) < tolerance
    assert worst(gradients(other, got, start), gradients(plain, expected, start)) < tolerance
    assert plain.num_evals() == other.num_evals()


def test_autocast_leaves_the_tolerance_alone():
    flow = flow_of("one", torch.float32)
    z, logp = states(torch.float32)
    expected = flow(z, logp)
    with torch.autocast("cpu", torch.bfloat16):
        assert worst(flow(z, logp), expected) == 0


@pytest.mark.parametrize("engine", ["cpp", "reference"])
def test_options(engine):
    z, logp = states()
    flow = flow_of(engine=engine)
    expected = flow(z, logp)
    usual = flow.num_evals()
    flow.solver_options = {"first_step": 0.2}
    assert worst(flow(z, logp), expected) < 1e-4
    assert flow.num_evals() != usual
    flow.solver_options = {"max_step": 0.01}
    assert worst(flow(z, logp), expected) < 1e-5
    assert flow.num_evals() >= 600
    flow.solver_options = {"min_step": 0.5, "first_step": 0.5}
    flow(z, logp)
    assert flow.num_evals() == 1 + 2 * 6
    flow.solver_options = {"max_num_steps": 1}
    with pytest.raises(RuntimeError, match="max_num_steps: 1 steps were tried from 0 and led to"):
        flow(z, logp)
    flow.solver_options = {"safety": 0.1, "max_num_steps": None}
    flow(z, logp)
    assert flow.num_evals() > usual


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"first_step": 0}, r"solver_options\['first_step'\]: got 0"),
        ({"max_num_steps": 2.5}, r"solver_options\['max_num_steps'\]: got 2.5"),
        ({"min_step": -1}, r"solver_options\['min_step'\]: got -1"),
        ({"safety": "much"}, r"solver_options\['safety'\]: got 'much'"),
    ],
)
def test_bad_options(option, message):
    flow = flow_of()
    flow.solver_options = option
    with pytest.raises((TypeError, ValueError), match=message):
        flow(*states())


@pytest.mark.parametrize("engine", ["cpp", "reference"])
def test_no_rows_and_no_trace(engine):
    flow = flow_of(engine=engine, train_T=True)
    z, logp = states(rows=0)
    z.requires_grad_()
    got = flow(z, logp, [0.0, 0.5, 1.0])
    assert got[0].shape == (3, 0, DIM) and got[1].shape == (3, 0, 1)
    assert all(g.abs().sum() == 0 for g in gradients(flow, got, z))
    z, logp = states()
    torch.testing.assert_close(flow(z), flow(z, logp)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ["cpp", "reference"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite(engine, bad):
    flow = flow_of(engine=engine)
    z, logp = states()
    z[2, 1] = bad
    with pytest.raises(RuntimeError, match="not finite"):
        flow(z, logp)


@pytest.mark.parametrize("engine", ["cpp", "reference"])
def test_context(engine):
    torch.manual_seed(0)
    net = ODEnet((8, 6), (DIM,), layer_type="concatsquash", context_dim=2).double()
    settings = {"trace": "exact", "engine": engine}
    flow = FastCNF(ODEfunc(net), solver="dopri5", atol=1e-10, rtol=1e-10, **settings).double()
    fine = FastCNF(ODEfunc(net), solver="rk4", n_steps=60, **settings).double()
    z, logp = states()
    context = torch.randn(ROWS, 2, dtype=torch.float64, requires_grad=True)
    got, expected = (f(z, logp, context=context) for f in (flow, fine))
    assert worst(got, expected) < 1e-8
    ours = gradients(flow, got, context)
    assert ours[0].abs().max() > 1e-3
    assert worst(ours, gradients(fine, expected, context)) < 1e-7


@pytest.mark.parametrize("engine", ["cpp", "reference"])
def test_penalties_ride_along(engine):
    names = ["kinetic_energy", "jacobian_norm"]
    flows = []
    for settings in ({"solver": "dopri5", "atol": 1e-10, "rtol": 1e-10}, {"solver": "rk4"}):
        flows.append(flow_of(engine=engine, regularization_fns=names, n_steps=80, **settings))
    z, logp = states()
    probes = torch.randn_like(z)
    found = []
    for flow in flows:
        flow.trace = "hutchinson"
        assert flow.fused
        flow(z, logp, probes=probes)
        found.append(flow.get_regularization_states())
    assert worst(*found) < 1e-7


def test_several_probes_and_threads():
    torch.manual_seed(0)
    flow = flow_of("three", n_probes=3, trace="hutchinson")
    z, logp = states(rows=300)
    probes = torch.randn(3, 300, DIM, dtype=torch.float64)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            got = flow(z, logp, probes=probes)
            results.append([*got, *gradients(flow, got)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert worst(other, results[0]) < 1e-11


def test_gradcheck_with_the_steps_held_fixed():
    """Through z, context-free parameters and T: min_step makes the controller take what is told."""
    flow = flow_of("one", train_T=True)
    flow.solver_options = {"min_step": 1.0, "first_step": 1.0}
    z, logp = states(rows=2)
    z.requires_grad_()
    names = [name for name, _ in flow.named_parameters()]

    def run(z, *values):
        return torch.func.functional_call(flow, dict(zip(names, values, strict=True)), (z, logp))

    assert torch.autograd.gradcheck(run, (z, *flow.parameters()), fast_mode=True)


def test_compile_breaks_once_and_export_says_why():
    flow = flow_of(engine="reference")
    z, logp = states()
    compiled = torch.compile(flow, backend="eager")
    assert worst(compiled(z, logp), flow(z, logp)) < 1e-12
    with pytest.raises(Exception, match="number of steps depends on the values"):
        torch.export.export(flow, (z, logp))


@pytest.mark.parametrize("change", [{"adjoint": True}, {"solver_options": {"norm": torch.max}}])
def test_tsit5_is_the_engines_alone(change):
    flow = flow_of(solver="tsit5")
    for name, value in change.items():
        setattr(flow, name, value)
    with pytest.raises(ValueError, match="solver: 'tsit5' is one of the engines'"):
        flow(*states())


def test_control_takes_none_as_not_given():
    options = {"first_step": None, "max_step": float("inf"), "max_num_steps": 5}
    assert Control.of(1e-3, 1e-4, options) == Control(1e-3, 1e-4, max_num_steps=5)
