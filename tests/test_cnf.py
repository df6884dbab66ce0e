"""FastCNF: its scheme against FFJORD's by autograd, its interface, its life as a module."""

import copy
import io
import itertools
import pickle

import numpy as np
import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from tests.oracles import (
    LAYER_TYPES,
    NONLINEARITIES,
    distance,
    ffjord_euler,
    gradients,
    pairwise,
    random_net,
)

DEPTHS = [(5,), (5, 4), (4, 5, 3), (3, 4, 2, 5)]


def make(hidden=(7,), dim=3, layer_type="squash", nonlinearity="tanh", **settings):
    net = random_net(hidden, dim, layer_type, nonlinearity)
    odefunc = ODEfunc(net, **{k: settings.pop(k) for k in ("residual",) if k in settings})
    return FastCNF(odefunc, **{"n_steps": 4, "trace": "exact", **settings}).double()


def states(batch=5, dim=3):
    z = torch.randn(batch, dim, dtype=torch.float64)
    return z, torch.randn(batch, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("layer_type", "nonlinearity", "hidden"),
    [
        pytest.param(*names, marks=[pytest.mark.slow] * (i % 5 > 0))
        for i, names in enumerate(pairwise(LAYER_TYPES, NONLINEARITIES, DEPTHS))
    ],
)
@pytest.mark.slow
def test_scheme_and_gradients_are_those_of_autograd(engine, layer_type, nonlinearity, hidden):
    for residual, hutchinson in itertools.product((False, True), (False, True)):
        flow = make(
            hidden, 3, layer_type, nonlinearity, residual=residual, train_T=True, engine=engine
        )
        flow.n_steps = 3
        z, logp = states()
        noise = torch.randn_like(z) if hutchinson else None
        flow.trace = "hutchinson" if hutchinson else "exact"
        z.requires_grad_()
        logp.requires_grad_()
        inputs = [z, logp, *flow.parameters()]

        got = flow(z, logp, probes=noise)
        end = flow.sqrt_end_time.square()
        z_t, change = ffjord_euler(flow.odefunc.diffeq, z, end, 3, noise, residual)
        expected = (z_t, logp + change.unsqueeze(1))

        for a, b in zip(got, expected, strict=True):
            assert distance(a, b) < 1e-12
        for a, b in zip(gradients(got, inputs), gradients(expected, inputs), strict=True):
            assert distance(a, b) < 1e-11


def test_end_time_gets_the_gradient_of_finite_differences(engine):
    flow = make(train_T=True, engine=engine)
    z, logp = states()
    flow(z, logp)[1].sum().backward()
    gradient = flow.sqrt_end_time.grad.item()
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            flow.sqrt_end_time += sign * step
            values.append(flow(z, logp)[1].sum().item())
            flow.sqrt_end_time -= sign * step
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-7)
    assert abs(gradient) > 1e-3


def test_logp_keeps_its_shape_and_can_be_left_out(engine):
    flow = make(engine=engine)
    z, logp = states()
    z_t, column = flow(z, logp)
    z_flat, flat = flow(z, logp.squeeze(1))
    assert column.shape == (5, 1) and flat.shape == (5,)
    assert torch.equal(column.squeeze(1), flat)
    assert torch.equal(flow(z), z_t) and torch.equal(z_flat, z_t)


def test_logp_decreases_by_the_trace(engine):
    flow = make(engine=engine, n_steps=1)
    z, logp = states()
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda row: flow.odefunc.diffeq(torch.zeros(()).double(), row))
    )(z)
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    end = flow.sqrt_end_time.square()
    torch.testing.assert_close(flow(z, logp)[1], logp - end * trace, rtol=1e-12, atol=1e-12)


def test_integration_times(engine):
    flow = make(engine=engine, n_steps=3)
    z, logp = states()
    times = torch.tensor([0.2, 0.5, 0.6, 1.4], dtype=torch.float64)
    z_path, logp_path = flow(z, logp, times)
    assert z_path.shape == (4, 5, 3) and logp_path.shape == (4, 5, 1)
    assert torch.equal(z_path[0], z) and torch.equal(logp_path[0], logp)
    for i, (start, stop) in enumerate(itertools.pairwise(times)):
        z, logp = flow(z, logp, torch.stack((start, stop)))
        torch.testing.assert_close((z, logp), (z_path[i + 1], logp_path[i + 1]))
    assert flow(states()[0], integration_times=times).shape == (4, 5, 3)


def test_default_times_are_zero_to_end(engine):
    flow = make(T=0.6, engine=engine)
    z, logp = states()
    times = torch.stack((torch.zeros((), dtype=torch.float64), flow.sqrt_end_time.square()))
    for reverse in (False, True):
        torch.testing.assert_close(
            flow(z, logp, reverse=reverse), flow(z, logp, times, reverse=reverse)
        )
    torch.testing.assert_close(flow(z, logp, reverse=True), flow(z, logp, times.flip(0)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("times", "steps"),
    [(None, 7), ([0.0, 1.0], 7), ([0.1, 0.25, 0.3, 0.95], 6), ([0.0, 0.2, 0.4], 3)],
)
@pytest.mark.slow
def test_step_size_is_that_of_torchdiffeq(engine, training, reverse, times, steps):
    # 0.15 does not divide the interval: the last step is shorter.
    flow = make(layer_type="concatsquash", residual=True, engine=engine).train(training)
    flow.solver_options["step_size"] = 0.15
    z, logp = states()
    times = None if times is None else torch.tensor(times, dtype=torch.float64)
    got = flow(z, logp, times, reverse)
    assert flow.num_evals() == steps
    # An option that Euler's method ignores sends the same flow through torchdiffeq.
    flow.engine = "auto"
    flow.solver_options["interp"] = "linear"
    torch.testing.assert_close(got, flow(z, logp, times, reverse), rtol=1e-12, atol=1e-12)


def test_train_and_eval_discretise_alike(engine):
    flow = make(engine=engine)
    z, logp = states()
    for options in ({}, {"step_size": 0.3}):
        flow.solver_options = options
        trained = flow.train()(z, logp)
        assert all(torch.equal(a, b) for a, b in zip(trained, flow.eval()(z, logp), strict=True))


def test_num_evals_counts_steps(engine):
    flow = make(engine=engine, n_steps=7)
    z, _ = states()
    assert flow.num_evals() == 0
    flow(z)
    flow(z)
    assert flow.num_evals() == 7 == flow.odefunc.num_evals()


def test_noise_is_injectable_and_averaged(engine):
    flow = make(engine=engine, trace="hutchinson")
    z, logp = states()
    probes = torch.randn(3, 5, 3, dtype=torch.float64)
    single = [flow(z, logp, probes=probe)[1] for probe in probes]
    together = flow(z, logp, probes=probes)[1]
    torch.testing.assert_close(together, torch.stack(single).mean(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hidden", [(7,), (8, 7)])
@pytest.mark.parametrize("layer_type", ["squash", "ignore"])
@pytest.mark.parametrize("settings", [{}, {"solver": "dopri5"}, {"adjoint": True}])
@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
@pytest.mark.slow
def test_noise_that_expects_a_gradient_is_refused(engine, hidden, layer_type, settings, shape):
    if settings:
        engine = "auto"
    flow = make(hidden, layer_type=layer_type, engine=engine, trace="hutchinson", **settings)
    probes = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match=r"probes: got a tensor that requires grad, .*detach\(\)"):
        flow(*states(), probes=probes)
    assert flow.num_evals() == 0  # before any work
    flow(*states(), probes=probes.detach())


@pytest.mark.parametrize("hidden", [(7,), (8, 7)])
@pytest.mark.parametrize("shape", [(0, 3), (1, 0, 3), (2, 0, 3)])
def test_no_rows_with_noise_and_penalties(engine, hidden, shape):
    flow = make(
        hidden,
        engine=engine,
        trace="hutchinson",
        train_T=True,
        regularization_fns=("l1int", "l2int", "kinetic_energy", "jacobian_norm"),
    )
    z, logp = states(batch=0)
    z_t, logp_t = flow(z, logp, probes=z.new_zeros(shape))
    penalties = flow.get_regularization_states()
    assert z_t.shape == (0, 3) and logp_t.shape == (0, 1)
    assert [penalty.item() for penalty in penalties] == [0.0] * 4
    (z_t.sum() + logp_t.sum() + sum(penalties)).backward()
    assert all(not parameter.grad.any() for parameter in flow.parameters())
    with pytest.raises(ValueError, match=r"probes: got shape \(0, 5, 3\), expected \(5, 3\) or"):
        flow(*states(), probes=z.new_zeros(0, 5, 3))


@pytest.mark.parametrize("rademacher", [False, True])
def test_noise_follows_the_generator_and_the_seed(engine, rademacher):
    flow = make(engine=engine, trace="hutchinson", n_probes=2)
    flow.odefunc.rademacher = rademacher
    z, logp = states()

    def draw(seed):
        return flow(z, logp, generator=torch.Generator().manual_seed(seed))[1]

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    torch.manual_seed(3)
    first = flow(z, logp)[1]
    torch.manual_seed(3)
    assert torch.equal(first, flow(z, logp)[1])
    assert not torch.equal(first, flow(z, logp)[1])


def test_noise_is_fixed_within_a_solve(engine):
    # An affine field with one step more or less sees the same Jacobian: any change of the estimate
    # would come from new noise.
    flow = make((), layer_type="ignore", engine=engine, trace="hutchinson")
    z, logp = states()
    estimates = []
    for flow.n_steps in (1, 8):
        estimates.append(flow(z, logp, generator=torch.Generator().manual_seed(0))[1])
    torch.testing.assert_close(*estimates)


def test_same_seed_same_noise_on_every_engine():
    results = []
    for name in ("reference", "auto"):
        torch.manual_seed(0)
        flow = make(engine=name, trace="hutchinson")
        results.append(flow(*states(), generator=torch.Generator().manual_seed(5))[1])
    torch.testing.assert_close(*results)


def test_trace_follows_the_odefunc():
    flow = make(trace=None)
    z, logp = states()
    flow.odefunc.divergence_fn = "brute_force"
    exact = flow(z, logp)[1]
    assert torch.equal(exact, flow(z, logp)[1])
    flow.odefunc.divergence_fn = "approximate"
    assert not torch.equal(exact, flow(z, logp)[1])
    assert flow.odefunc.divergence_fn == "approximate"


def test_two_dimensions_in_eval_mode_are_exact_as_in_ffjord():
    flow = make(dim=2, trace=None)
    z, logp = states(dim=2)
    exact = make(dim=2, trace="exact")
    exact.load_state_dict(flow.state_dict())
    assert not torch.equal(flow.train()(z, logp)[1], exact(z, logp)[1])
    assert torch.equal(flow.eval()(z, logp)[1], exact(z, logp)[1])
    flow.trace = "hutchinson"
    assert not torch.equal(flow(z, logp)[1], exact(z, logp)[1])


def test_double_backward(engine):
    flow = make(engine=engine)
    z, logp = states()
    (first,) = torch.autograd.grad(flow(z.requires_grad_(), logp)[1].sum(), z, create_graph=True)
    if engine == "reference":
        first.square().sum().backward()
        assert flow.odefunc.diffeq.layers[0]._layer.weight.grad.abs().max() > 0
    else:
        with pytest.raises(
            RuntimeError, match=r"the compiled engines have first derivatives only.*'reference'"
        ):
            first.square().sum().backward()


def test_state_dict_round_trip():
    flow, other = make(train_T=True), make(train_T=True)
    z, logp = states()
    flow(z, logp)
    file = io.BytesIO()
    torch.save(flow.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(flow(z, logp)[1], other(z, logp)[1])


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda flow: pickle.loads(pickle.dumps(flow))])
def test_copies(engine, copier):
    flow = make(regularization_fns=("l2int",))
    flow.test_solver = "rk4"
    z, logp = states()
    flow(z, logp)
    flow.engine = engine
    other = copier(flow).eval()
    other.test_solver = "euler"
    assert other.regularization_states is None and flow.test_solver == "rk4"
    flow.eval().test_solver = "euler"
    assert torch.equal(flow(z, logp)[1], other(z, logp)[1])
    with torch.no_grad():
        other.odefunc.odefunc.diffeq.layers[0]._layer.weight.zero_()
    assert not torch.equal(flow(z, logp)[1], other(z, logp)[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_without_gradients(engine, mode, trace):
    flow = make(engine=engine, trace=trace)
    z, logp = states()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    expected = flow(z, logp, probes=noise)
    with mode():
        got = flow(z, logp, probes=noise)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b.detach()) and not a.requires_grad


def test_partially_frozen(engine):
    flow = make(engine=engine)
    z, logp = states()
    flow(z, logp)[1].sum().backward()
    full = {name: p.grad.clone() for name, p in flow.named_parameters()}
    flow.zero_grad()
    flow.odefunc.diffeq.layers[0].requires_grad_(False)
    flow(z, logp)[1].sum().backward()
    for name, parameter in flow.named_parameters():
        if ".layers.0." in name:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, full[name], rtol=1e-13, atol=1e-13)
    flow.requires_grad_(False)
    (gradient,) = torch.autograd.grad(flow(z.requires_grad_(), logp)[1].sum(), z)
    assert gradient.abs().max() > 0
    assert not flow(z.detach(), logp)[1].requires_grad


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_every_parameter_gets_a_gradient_in_one_step(engine, layer_type):
    # At t = 0 time weights have no effect, but DDP wants every gradient: zeros, not None.
    flow = make(layer_type=layer_type, n_steps=1, engine=engine)
    flow(*states())[1].sum().backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (129, 17)])
def test_odd_shapes(engine, shape):
    flow = make((33,), shape[1], engine=engine)
    z, logp = states(*shape)
    z.requires_grad_()
    z_t, logp_t = flow(z, logp)
    assert z_t.shape == shape and logp_t.shape == (shape[0], 1)
    (z_t.sum() + logp_t.sum()).backward()
    assert z.grad.shape == shape


def test_any_layout(engine):
    flow = make(engine=engine)
    z, logp = states()
    transposed = z.mT.contiguous().mT
    assert not transposed.is_contiguous()
    torch.testing.assert_close(flow(z, logp), flow(transposed, logp))
    expanded = flow(z[:1].expand(5, 3), logp[:1].expand(5, 1))
    torch.testing.assert_close(expanded[0], flow(z, logp)[0][:1].expand(5, 3))


def test_autocast_rounds_the_operands_of_products_only(engine):
    flow = make(engine=engine).float()
    z, logp = (x.float() for x in states())
    full = flow(z, logp)
    flow.precision = "bf16"
    expected = flow(z, logp)
    flow.precision = None
    with torch.autocast("cpu", torch.bfloat16):
        got = flow(z, logp)
        coarse = flow(z.bfloat16(), logp.bfloat16())
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert not torch.equal(got[0], full[0])
    for result in (got, coarse):
        assert result[0].dtype == result[1].dtype == torch.float32
        torch.testing.assert_close(result[0], full[0], rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "full"},
        {"solver": "dopri5"},
        {"log_det": "exact", "trace": "exact"},
        {"log_det": "second_order", "trace": "exact"},
    ],
)
def test_autocast_is_off_inside_where_it_does_not_apply(settings):
    flow = make(**settings).float()
    z, logp = (x.float() for x in states())
    expected = flow(z, logp)
    with torch.autocast("cpu", torch.bfloat16):
        got = flow(z, logp)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_autocast_leaves_states_of_more_axes_alone():
    flow = make().float()
    z = torch.randn(2, 4, 3)
    expected = flow(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flow(z), expected)


def test_bf16_needs_an_engine_and_float32():
    z, logp = (x.float() for x in states())
    with pytest.raises(ValueError, match="precision: 'bf16' is for an ODEnet with one of"):
        make(solver="dopri5", precision="bf16").float()(z, logp)
    with pytest.raises(ValueError, match="precision: 'bf16' needs a float32 z, got torch.float64"):
        make(precision="bf16", engine="reference")(z.double(), logp.double())
    flow = make(precision="bf16", trace="exact", log_det="exact").float()
    with pytest.raises(ValueError, match="precision: 'bf16' does not go with log_det='exact'"):
        flow(z, logp)
    with pytest.raises(ValueError, match="precision: got 'fp8', expected one of None, 'full'"):
        make(precision="fp8")


def test_no_host_synchronisation():
    # On the meta device any read of a value raises.
    flow = make(engine="reference", train_T=True, layer_type="concatsquash").to("meta")
    z, logp = (x.to("meta") for x in states())
    times = torch.zeros(3, dtype=torch.float64, device="meta")
    assert flow(z, logp)[0].shape == (5, 3)
    assert flow(z, logp, times, reverse=True)[1].shape == (3, 5, 1)
    assert flow.eval()(z, logp)[1].shape == (5, 1)


def test_repr_says_what_runs(engine):
    flow = make(engine=engine, n_steps=7)
    assert f"engine={engine}, solver=euler, n_steps=7, trace=exact" in repr(flow)
    flow = make(trace=None)
    assert "engine=auto (" in repr(flow) and "trace=as divergence_fn=approximate" in repr(flow)
    flow.solver = "dopri5"
    assert "engine=auto (torchdiffeq), solver=dopri5" in repr(flow)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"T": 0.0}, "T: got 0.0, expected > 0"),
        ({"n_steps": 0}, "n_steps: got 0, expected an integer >= 1"),
        ({"n_steps": 2.0}, "n_steps: got 2.0, expected an integer >= 1"),
        ({"n_steps": True}, "n_steps: got True, expected an integer >= 1"),
        ({"n_steps": "2"}, "n_steps: got '2', expected an integer >= 1"),
        ({"checkpoint_every": 1.5}, "checkpoint_every: got 1.5, expected an integer >= 1"),
        ({"n_probes": 0}, "n_probes: got 0, expected an integer >= 1"),
        ({"trace": "brute_force"}, "trace: got 'brute_force', expected None, 'exact' or"),
        (
            {"engine": "tvm"},
            "engine: got 'tvm', expected one of 'auto', 'cpp', 'cuda', 'triton', 'reference'",
        ),
        ({"solver": "euler2"}, "solver: got 'euler2', expected one of 'euler', 'midpoint'"),
        ({"regularization_fns": ("l3int",)}, "regularization_fns: got 'l3int', expected a call"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FastCNF(ODEfunc(ODEnet((4,), (3,))), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"z": torch.zeros(3)}, r"z: got shape \(3,\), expected \(B, D\)"),
        ({"z": torch.zeros(5, 4)}, r"z: got shape \(5, 4\), expected \(B, 3\)"),
        (
            {"z": torch.zeros(5, 3, dtype=torch.float64)},
            "z: got torch.float64 on cpu, but the flow",
        ),
        ({"z": torch.zeros(5, 3, device="meta")}, "z: got torch.float32 on meta, but the flow"),
        ({"logpz": torch.zeros(5, 3)}, r"logpz: got shape \(5, 3\), expected \(5, 1\) or \(5,\)"),
        ({"logpz": torch.zeros(5, dtype=torch.float64)}, "logpz: got torch.float64 on cpu"),
        ({"integration_times": torch.zeros(1)}, r"integration_times: got shape \(1,\)"),
        ({"probes": torch.zeros(4, 3)}, r"probes: got shape \(4, 3\), expected \(5, 3\) or \(K, 5"),
        ({"probes": torch.zeros(5, 3).double()}, "probes: got torch.float64 on cpu"),
        ({"probes": torch.zeros(5, 3), "logpz": None}, "probes: given, but no trace is wanted"),
    ],
)
def test_bad_inputs_are_named(arguments, message):
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))))
    with pytest.raises(ValueError, match=message):
        flow(**{"z": torch.zeros(5, 3), "logpz": torch.zeros(5), **arguments})


def test_counts_may_be_integers_of_other_libraries(engine):
    flow = make(engine=engine, n_steps=2)
    z, logp = states()
    expected = flow(z, logp)
    flow.n_steps, flow.checkpoint_every = np.int64(2), np.int32(2)
    torch.testing.assert_close(flow(z.requires_grad_(), logp), expected)


def test_bad_attributes_are_named_when_they_are_used():
    flow = make()
    z, logp = states()
    with pytest.raises(ValueError, match="probes: given, but trace is exact"):
        flow(z, logp, probes=torch.zeros_like(z))
    flow.n_steps = 0
    with pytest.raises(ValueError, match="n_steps: got 0"):
        flow(z)
    flow.n_steps, flow.solver_options["step_size"] = 1, -0.1
    with pytest.raises(ValueError, match=r"solver_options\['step_size'\]: got -0.1, expected > 0"):
        flow(z)


def test_steps_are_made_anew_where_the_end_time_changes():
    """They are kept from one call to the next."""
    flow = FastCNF(ODEfunc(random_net((5,), 3)), T=1.0, n_steps=2, trace="exact").double()
    z = torch.randn(4, 3, dtype=torch.float64)

    def fresh(end, n_steps=2):
        other = FastCNF(flow.odefunc, T=1.0, n_steps=n_steps, trace="exact").double()
        other.sqrt_end_time.fill_(end**0.5)
        return other(z)

    assert torch.equal(flow(z), fresh(1.0))
    assert not torch.equal(flow(z, reverse=True), flow(z))
    flow.sqrt_end_time.fill_(0.7**0.5)  # in place, as load_state_dict does
    assert torch.equal(flow(z), fresh(0.7))
    flow.sqrt_end_time.data.fill_(0.5**0.5)
    assert torch.equal(flow(z), fresh(0.5))
    flow.n_steps = 3
    assert torch.equal(flow(z), fresh(0.5, n_steps=3))
    with torch.inference_mode():
        assert torch.equal(flow(z), fresh(0.5, n_steps=3))
    assert flow.float()(z.float()).dtype == torch.float32
    z.requires_grad_()
    flow.double()(z).sum().backward()
    assert z.grad is not None


def test_an_end_time_that_is_handed_over_has_its_gradient():
    flow = FastCNF(ODEfunc(random_net((5,), 3)), n_steps=2, trace="exact").double()
    z = torch.randn(4, 3, dtype=torch.float64)
    flow(z)  # whose steps are kept
    end = flow.sqrt_end_time.clone().requires_grad_()
    for _ in range(2):
        torch.func.functional_call(flow, {"sqrt_end_time": end}, (z,)).sum().backward()
    learned = FastCNF(flow.odefunc, n_steps=2, trace="exact", train_T=True).double()
    learned(z).sum().backward()
    torch.testing.assert_close(end.grad, 2 * learned.sqrt_end_time.grad, rtol=1e-12, atol=1e-12)


def test_a_step_size_of_none_is_none():
    flow = FastCNF(ODEfunc(random_net((5,), 3)), n_steps=2, trace="exact").double()
    z, times = torch.randn(4, 3, dtype=torch.float64), [0.0, 0.25, 1.0]
    expected = flow(z, z[:, :1], times)
    flow.solver_options = {"step_size": None}
    for got, wanted in zip(flow(z, z[:, :1], times), expected, strict=True):
        assert torch.equal(got, wanted)


def test_settings_of_another_type_are_refused():
    flow = FastCNF(ODEfunc(random_net((5,), 3)))
    with pytest.raises(TypeError, match="settings: got a dict, expected a Settings"):
        flow(torch.zeros(4, 3), settings={"n_steps": 2})
