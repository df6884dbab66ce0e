"""What goes through torchdiffeq: its solvers, the adjoint, and velocities without tables."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.ode.settings import ADAPTIVE, FIXED_GRID
from tests.oracles import distance, ffjord_euler, gradients, random_net

DIM = 3


class Velocity(torch.nn.Module):
    """Any module of a user: not an ODEnet, its trace only by autograd."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, t, y):
        return self.net(t, y)


def make(diffeq=None, hidden=(7,), **settings):
    diffeq = random_net(hidden, DIM, "squash", "tanh") if diffeq is None else diffeq
    return FastCNF(ODEfunc(diffeq), **{"trace": "exact", "n_steps": 5, **settings}).double()


def states(batch=4):
    z = torch.randn(batch, DIM, dtype=torch.float64)
    return z, torch.randn(batch, 1, dtype=torch.float64)


@pytest.fixture(scope="module")
def solution():
    """A flow, states, and the flow's limit: rk4 with steps so small that its error is nil."""
    torch.manual_seed(0)
    flow = make(solver="rk4", n_steps=100)
    z, logp = states()
    with torch.no_grad():
        return flow.odefunc.diffeq, z, logp, flow(z, logp)


@pytest.mark.parametrize("solver", FIXED_GRID)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.slow
def test_fixed_grid_solvers_converge_with_n_steps(solution, solver, reverse):
    net, z, logp, (z_t, logp_t) = solution
    errors = []
    for n_steps in (8, 32):
        flow = make(net, solver=solver, n_steps=n_steps)
        with torch.no_grad():
            if reverse:
                got, expected = flow(z_t, logp_t, reverse=True), (z, logp)
            else:
                got, expected = flow(z, logp), (z_t, logp_t)
        errors.append(sum(distance(a, b) for a, b in zip(got, expected, strict=True)))
    # Four times the steps divide the error by 4 at first order, by more at higher ones.
    assert errors[1] < errors[0] / 3.5 and errors[1] < 0.01


@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("dopri5", "scipy_solver")))
        for name in ADAPTIVE
    ],
)
@pytest.mark.filterwarnings("ignore:The following arguments have no effect")
def test_adaptive_solvers_converge_with_their_tolerance(solution, solver):
    net, z, logp, expected = solution
    errors, evaluations = [], []
    for tolerance in (1e-4, 1e-10):
        flow = make(net, solver=solver, atol=tolerance, rtol=tolerance)
        if solver == "scipy_solver":
            flow.solver_options["solver"] = "RK45"
        with torch.no_grad():
            got = flow(z, logp)
        errors.append(sum(distance(a, b) for a, b in zip(got, expected, strict=True)))
        evaluations.append(flow.num_evals())
    # The tolerance bounds the error of a step, not that of the solve; bosh3 ends at 1e-5.
    assert errors[1] < errors[0] / 4 and errors[1] < 2e-5
    assert evaluations[1] > evaluations[0]


def test_test_solver_and_tolerances_are_those_of_eval_mode(solution):
    net, z, _, (z_t, _) = solution
    flow = make(net, solver="euler", n_steps=2)
    flow.test_solver, flow.test_atol, flow.test_rtol = "dopri5", 1e-8, 1e-8
    with torch.no_grad():
        assert distance(flow.train()(z), z_t) > 1e-3
        assert distance(flow.eval()(z), z_t) < 1e-6


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", ["tables", "autograd"])
def test_euler_is_the_scheme_of_the_engines(trace, residual, kind):
    net = random_net((7, 5), DIM, "concatsquash", "softplus")
    flow = make(net if kind == "tables" else Velocity(net), train_T=True)
    flow.odefunc.residual, flow.trace = residual, trace
    flow.solver_options["interp"] = "linear"  # Without effect, but for torchdiffeq only.
    z, logp = states()
    z.requires_grad_()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    inputs = [z, *flow.parameters()]
    got = flow(z, logp, probes=noise)
    z_t, change = ffjord_euler(net, z, flow.sqrt_end_time.square(), 5, noise, residual)
    expected = (z_t, logp + change.unsqueeze(1))
    assert flow.num_evals() == 5
    for a, b in zip(got, expected, strict=True):
        assert distance(a, b) < 1e-12
    for a, b in zip(gradients(got, inputs), gradients(expected, inputs), strict=True):
        assert distance(a, b) < 1e-11


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
@pytest.mark.parametrize("reverse", [False, True])
def test_many_integration_times(solver, reverse):
    flow = make(solver=solver)
    z, logp = states()
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    z_path, logp_path = flow(z, logp, times, reverse)
    assert z_path.shape == (3, 4, DIM) and logp_path.shape == (3, 4, 1)
    assert torch.equal(z_path[0], z) and torch.equal(logp_path[0], logp)
    ends = times.flip(0) if reverse else times
    last = flow(z, logp, ends[[0, 2]])
    torch.testing.assert_close((z_path[2], logp_path[2]), last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
@pytest.mark.parametrize("adjoint", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_end_time_gets_its_gradient(solver, adjoint):
    flow = make(solver=solver, train_T=True, atol=1e-9, rtol=1e-9, adjoint=adjoint, n_steps=40)
    z, logp = states()
    z_t, logp_t = flow(z, logp)
    (z_t.sum() + logp_t.sum()).backward()
    # d/dT of the end state is the velocity there.
    end = flow.sqrt_end_time.detach().square()
    dz, dlogp = flow.odefunc(end, (z_t.detach(), logp_t.detach()))
    flow.odefunc.divergence_fn = "brute_force"
    dz, dlogp = flow.odefunc(end, (z_t.detach(), logp_t.detach()))
    expected = 2 * flow.sqrt_end_time.item() * (dz.sum() + dlogp.sum()).item()
    assert flow.sqrt_end_time.grad.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("trace", ["exact", pytest.param("hutchinson", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["tables", "autograd"])
@pytest.mark.slow
def test_adjoint_agrees_where_steps_are_fine(trace, kind):
    results = []
    net = random_net((7,), DIM, "squash", "tanh")
    net = net if kind == "tables" else Velocity(net)
    z, logp = states()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    for adjoint in (False, True):
        flow = make(net, solver="dopri5", atol=1e-9, rtol=1e-9, adjoint=adjoint, trace=trace)
        start = z.clone().requires_grad_()
        results.append(gradients(flow(start, logp, probes=noise), [start, *net.parameters()]))
    for direct, adjoint in zip(*results, strict=True):
        assert distance(adjoint, direct) < 1e-6


def test_adjoint_with_one_euler_step_is_not_the_gradient():
    # Why it is off by default: FFJORD's gradients at one step belong to another point and time.
    net = random_net((7,), DIM, "squash", "tanh")
    z, logp = states()
    direct, adjoint = (
        gradients(make(net, n_steps=1, adjoint=a)(z, logp), list(net.parameters()))
        for a in (False, True)
    )
    assert max(distance(a, b) for a, b in zip(adjoint, direct, strict=True)) > 0.05


def test_adjoint_keeps_the_noise_of_its_own_solve():
    # Two calls before one backward, as for several terms of one loss: in FFJORD the second call
    # replaces the noise that the backward solve of the first one needs.
    flow = make(solver="rk4", trace="hutchinson", adjoint=True)
    z, logp = states()

    def gradient(calls):
        torch.manual_seed(1)
        first = flow(z, logp)[1].sum()
        for _ in range(calls):
            flow(z, logp)
        return torch.autograd.grad(first, list(flow.parameters()))

    for a, b in zip(gradient(0), gradient(2), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_velocity_without_tables_needs_no_outer_graph(mode, trace):
    flow = make(Velocity(random_net((7,), DIM)), trace=trace)
    z, logp = states()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    expected = flow(z, logp, probes=noise)
    with mode():
        again = torch.randn(4, DIM, dtype=torch.float64).copy_(z)
        got = flow(again, logp, probes=noise)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
        assert not a.requires_grad
    assert not z.requires_grad


def test_velocity_that_ignores_the_state():
    class Constant(torch.nn.Module):
        def forward(self, t, y):
            return torch.ones_like(y)

    flow = make(Constant(), trace="exact")
    z, logp = states()
    z_t, logp_t = flow(z, logp)
    torch.testing.assert_close(z_t, z + 1)
    assert torch.equal(logp_t, logp)


def test_images(trace="exact"):
    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, t, y):
            return torch.tanh(self.conv(y)) + t

    field = Field().double()
    flow = make(field, trace="exact", n_steps=1)
    z = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    z_t, logp = flow(z, torch.zeros(3, 1, dtype=torch.float64))
    start = torch.zeros((), dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: field(start, x).flatten()))(z)
    trace = jacobian.flatten(2).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(z_t, z + field(start, z))
    torch.testing.assert_close(logp[:, 0], -trace, rtol=1e-12, atol=1e-12)


def test_subclass_with_its_own_forward_is_not_mistaken_for_its_tables():
    class Doubled(ODEnet):
        def forward(self, t, y):
            return 2 * super().forward(t, y)

    torch.manual_seed(0)
    net = Doubled((7,), (DIM,)).double()
    z, logp = states()
    got = make(net)(z, logp)
    z_t, change = ffjord_euler(net, z, torch.ones((), dtype=torch.float64), 5)
    assert distance(got[0], z_t) < 1e-12
    assert distance(got[1], logp + change.unsqueeze(1)) < 1e-12


@pytest.mark.parametrize("settings", [{"solver": "dopri8"}, {"adjoint": True}])
def test_a_named_engine_is_not_dropped_silently(settings):
    flow = make(engine="cpp", **settings)
    with pytest.raises(ValueError, match=r"engine: 'cpp' integrates an ODEnet with one of"):
        flow(*states())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bdf", r"solver: 'bdf' is gone from torchdiffeq; use 'implicit_adams'"),
        ("adams", r"solver: 'adams' is gone from torchdiffeq; use 'explicit_adams'"),
        ("rk5", r"solver: got 'rk5', expected one of 'euler'"),
    ],
)
def test_unknown_solvers(name, message):
    with pytest.raises(ValueError, match=message):
        make(solver=name)
    flow = make()
    flow.solver = name
    with pytest.raises(ValueError, match=message):
        flow(*states())
    flow.eval()
    with pytest.raises(ValueError, match=f"test_{message}"):
        flow(*states())


@pytest.mark.parametrize("solver", [*FIXED_GRID, *ADAPTIVE])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("kind", ["tables", "autograd"])
@pytest.mark.slow
def test_no_rows_have_an_empty_result_and_gradients_of_zero(solver, adjoint, kind):
    net = random_net((7,), DIM)
    flow = FastCNF(
        ODEfunc(net if kind == "tables" else Velocity(net)),
        solver=solver,
        adjoint=adjoint,
        trace="hutchinson",
        regularization_fns=("l2int", "kinetic_energy", "jacobian_norm", "JoffdiagFrobint"),
        train_T=True,
        n_steps=5,  # Adams's methods begin with three steps of another
    ).double()
    if solver == "scipy_solver":
        flow.solver_options["solver"] = "RK45"
    z = torch.zeros(0, DIM, dtype=torch.float64, requires_grad=True)
    logp = z.new_zeros(0, 1)
    z_t, logp_t = flow(z, logp, probes=z.new_zeros(0, DIM))
    penalties = flow.get_regularization_states()
    assert z_t.shape == (0, DIM) and logp_t.shape == (0, 1)
    assert [penalty.item() for penalty in penalties] == [0.0] * 4
    (z_t.sum() + logp_t.sum() + sum(penalties)).backward()
    assert all(not parameter.grad.any() for parameter in flow.parameters())
    times = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    assert flow(z, logp, times)[0].shape == (3, 0, DIM)
