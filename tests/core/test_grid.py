"""Integration times: refused where their order is wrong, and never at the price of a trace; and the
steps of ``step_size``, which torchdiffeq and exact fractions count."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchdiffeq import odeint

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.core import grid
from tests.oracles import distance, gradients, random_net

Z = torch.zeros(5, 3, dtype=torch.float64)
NAN = float("nan")


@pytest.mark.parametrize(
    ("times", "pair"),
    [
        ([0.0, 1.0, 0.5], "1, then 0.5"),
        ([1.0, 0.4, 0.6, 0.0], "0.4, then 0.6"),
        ([0.3, 0.3], "0.3, then 0.3"),
        ([0.0, 0.5, 0.5, 1.0], "0.5, then 0.5"),
        ([0.0, NAN, 1.0], "0, then nan"),
        ([0.0, 1.0, NAN], "1, then nan"),
        ([0.0, math.inf], "0, then inf"),
    ],
)
def test_the_first_times_out_of_order_are_named(times, pair):
    message = f"integration_times: got {pair}, expected all to increase or all to decrease"
    given = torch.tensor(times, dtype=torch.float64)
    for call in (lambda: grid.check_times(given, Z), lambda: grid.stepped(given, 0.1)):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("solver", ["euler", "dopri5"])
@pytest.mark.parametrize("options", [{}, {"step_size": 0.1}])
@pytest.mark.parametrize("reverse", [False, True])
def test_flows_refuse_them(solver, options, reverse):
    flow = FastCNF(ODEfunc(random_net((7,), 3)), solver=solver).double()
    flow.solver_options.update(options)
    with pytest.raises(ValueError, match="integration_times: got 1, then 0.5"):
        flow(Z, integration_times=torch.tensor([0.0, 1.0, 0.5]), reverse=reverse)


@pytest.mark.slow
def test_values_that_cannot_be_read_are_taken_as_they_are():
    flow = FastCNF(ODEfunc(random_net((7,), 3)), engine="reference").double()
    many = torch.tensor([[0.0, 0.3, 1.0], [1.0, 0.7, 0.0]], dtype=torch.float64)
    expected = torch.stack([flow(Z, integration_times=times) for times in many])

    def solve(times):
        return flow(Z, integration_times=times)

    compiled = torch.compile(solve, fullgraph=True, backend="eager")
    torch.testing.assert_close(torch.stack([compiled(times) for times in many]), expected)
    torch.testing.assert_close(torch.func.vmap(solve)(many), expected)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert grid.check_times(mode.from_tensor(many[0]), mode.from_tensor(Z)).shape == (3,)
    meta = grid.check_times(many[0].to("meta"), Z.to("meta"))
    assert meta.shape == (3,)


def test_gradients_reach_the_times():
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    flow = FastCNF(ODEfunc(random_net((7,), 3)), n_steps=2).double()
    assert torch.autograd.gradcheck(lambda t: flow(Z, integration_times=t), times)


# Decimals, of which a half of the quotients is whole, and none of those exactly so in binary.
SPANS = ("0.1", "0.3", "0.6", "0.7", "0.9", "1.1", "1.2", "2.3")
STEP_SIZES = ("0.1", "0.05", "0.3", "0.15", "0.7")
EVALUATIONS = {"euler": 1, "midpoint": 2, "heun3": 3, "rk4": 4}


def steps_flow(solver="euler", **settings):
    torch.manual_seed(0)
    net = random_net((7,), 3, "concatsquash", "tanh")
    return FastCNF(ODEfunc(net), solver=solver, trace="exact", **settings).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("start", [0.0, 2.0])
def test_counts_are_those_of_exact_fractions(dtype, reverse, start):
    for span, step_size in itertools.product((*SPANS, "25.6", "100"), STEP_SIZES):
        times = torch.tensor([start, start + float(span)], dtype=dtype)
        steps = grid.stepped(times.flip(0) if reverse else times, float(step_size))
        assert len(steps.h) == math.ceil(Fraction(span) / Fraction(step_size))
        ahead = -steps.h if reverse else steps.h
        assert (ahead[:-1] == torch.tensor(float(step_size), dtype=dtype)).all()
        # Of the times, and of their sums: what rounding leaves of a step that is no multiple.
        rounding = 4 * torch.finfo(dtype).eps * times[-1]
        assert (ahead[-1] > rounding) and ahead[-1] < float(step_size) + rounding
        torch.testing.assert_close(steps.t[-1] + steps.h[-1], times[0 if reverse else 1])


@pytest.mark.parametrize(
    "solver",
    [
        "euler",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in [*EVALUATIONS, "explicit_adams"]
            if name != "euler"
        ),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.slow
def test_step_size_gives_torchdiffeqs_values_and_gradients(solver, reverse):
    flow = steps_flow(solver)
    net = flow.odefunc.diffeq
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    inputs = [z, *net.parameters()]
    for span, step_size in itertools.product(SPANS, STEP_SIZES):
        times = torch.tensor([0.0, 0.33, 0.5, 1.0], dtype=torch.float64) * float(span)
        times = times.flip(0) if reverse else times
        flow.solver_options["step_size"] = float(step_size)
        got = flow(z, integration_times=times)
        expected = odeint(net, z, times, method=solver, options=flow.solver_options)
        assert distance(got, expected) < 1e-12
        if solver in EVALUATIONS:
            count = math.ceil(Fraction(span) / Fraction(step_size))
            assert flow.num_evals() == EVALUATIONS[solver] * count
        if span == "1.1":
            for a, b in zip(gradients([got], inputs), gradients([expected], inputs), strict=True):
                assert distance(a, b) < 1e-11


@pytest.mark.parametrize("solver", ["euler", "rk4"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.slow
def test_no_rest_of_rounding_makes_nan_in_single_precision(solver, reverse):
    flow = steps_flow(solver)
    z = torch.randn(4, 3, dtype=torch.float64)
    for span, step_size in itertools.product(SPANS, STEP_SIZES):
        times = torch.tensor([0.0, 0.33, 0.5, 1.0], dtype=torch.float64) * float(span)
        times = times.flip(0) if reverse else times
        flow.solver_options["step_size"] = float(step_size)
        with torch.no_grad():
            expected = flow.double()(z, integration_times=times)
            got = flow.float()(z.float(), integration_times=times.float())
        # 92 evaluations at most, each of which rounds a few times: 1e-5 is 84 eps.
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_steps_below_the_resolution_of_the_times_are_finite():
    flow = steps_flow(engine="reference").bfloat16()
    flow.solver_options["step_size"] = 0.001
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16)
    assert flow(torch.ones(4, 3, dtype=torch.bfloat16), integration_times=times).isfinite().all()


@pytest.mark.parametrize("interp", [{}, {"interp": "linear"}], ids=["fused", "torchdiffeq"])
@pytest.mark.parametrize(
    ("end", "steps"),
    # 0.5014 is where training takes 0.5; 0.5016 is more than a sixteenth of a step beyond it.
    [(0.5, 20), (0.5014, 20), (0.4986, 20), (0.5016, 21), (0.512, 21), (0.001, 1), (0.026, 1)],
)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.slow
def test_a_learned_end_time_adds_no_tiny_step(interp, end, steps, reverse):
    flow = steps_flow(T=end, train_T=True)
    flow.solver_options = {"step_size": 0.025, **interp}
    z = torch.randn(4, 3, dtype=torch.float64)
    z_t, _ = flow(z, z.new_zeros(4, 1), reverse=reverse)
    assert flow.num_evals() == steps
    # Euler by hand, over steps of 0.025 and a last one of what is left.
    root = flow.sqrt_end_time.detach().clone().requires_grad_()
    t, expected = (root * root if reverse else root * 0), z
    for k in range(steps):
        h = 0.025 if k + 1 < steps else root * root - 0.025 * (steps - 1)
        h = -h if reverse else h
        t, expected = t + h, expected + h * flow.odefunc.diffeq(t, expected)
    assert distance(z_t, expected) < 1e-12
    (got,) = gradients([z_t], [flow.sqrt_end_time])
    assert distance(got, gradients([expected], [root])[0]) < 1e-11


@pytest.mark.parametrize("interp", [{}, {"interp": "linear"}], ids=["fused", "torchdiffeq"])
def test_a_fixed_end_time_has_the_grid_of_torchdiffeq(interp):
    flow = steps_flow(T=0.5014)
    flow.solver_options = {"step_size": 0.025, **interp}
    z = torch.randn(4, 3, dtype=torch.float64)
    times = torch.stack((torch.zeros_like(flow.sqrt_end_time), flow.sqrt_end_time.square()))
    expected = odeint(flow.odefunc.diffeq, z, times, method="euler", options={"step_size": 0.025})
    assert distance(flow(z), expected[1]) < 1e-12
    assert flow.num_evals() == 21


def test_the_gradient_of_a_functional_call_is_on_the_same_grid():
    flow = steps_flow(T=0.5014, train_T=True)
    flow.solver_options["step_size"] = 0.025
    z = torch.randn(4, 3, dtype=torch.float64)
    (expected,) = torch.autograd.grad(flow(z).sum(), flow.sqrt_end_time)

    def moved(root):
        return torch.func.functional_call(flow, {"sqrt_end_time": root}, (z,)).sum()

    got = torch.func.grad(moved)(flow.sqrt_end_time.detach())
    assert flow.num_evals() == 20
    assert distance(got, expected) < 1e-12


@pytest.mark.slow
def test_step_size_under_the_compiler():
    flow = steps_flow(T=0.5, train_T=True)
    flow.solver_options["step_size"] = 0.1
    z = torch.randn(4, 3, dtype=torch.float64)
    compiled = torch.compile(flow, backend="eager")
    for end in (0.5, 1.0):  # the count is that of the present end time
        torch.nn.init.constant_(flow.sqrt_end_time, math.sqrt(end))
        torch.testing.assert_close(compiled(z), flow(z))
    remedy = "the number of steps depends on the values of the times.*; remedy: n_steps"
    torch._dynamo.reset()  # else the code with the break is found and taken
    with pytest.raises(torch._dynamo.exc.Unsupported, match=remedy):
        torch.compile(flow, fullgraph=True, backend="eager")(z)
    with pytest.raises(ValueError, match=remedy):
        torch.export.export(flow, (z,))
