"""FastCNF: its scheme against FFJORD's by autograd, times, noise and traces."""

import itertools

import pytest
import torch

from tests.oracles import (
    LAYER_TYPES,
    NONLINEARITIES,
    cnf,
    distance,
    ffjord_euler,
    gradients,
    pairwise,
    states,
)

DEPTHS = [(5,), (5, 4), (4, 5, 3), (3, 4, 2, 5)]


@pytest.mark.parametrize(
    ("layer_type", "nonlinearity", "hidden"),
    pairwise(LAYER_TYPES, NONLINEARITIES, DEPTHS),
)
@pytest.mark.slow
def test_scheme_and_gradients_are_those_of_autograd(engine, layer_type, nonlinearity, hidden):
    for residual, hutchinson in itertools.product((False, True), (False, True)):
        flow = cnf(
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
    flow = cnf(train_T=True, engine=engine)
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
    flow = cnf(engine=engine)
    z, logp = states()
    z_t, column = flow(z, logp)
    z_flat, flat = flow(z, logp.squeeze(1))
    assert column.shape == (5, 1) and flat.shape == (5,)
    assert torch.equal(column.squeeze(1), flat)
    assert torch.equal(flow(z), z_t) and torch.equal(z_flat, z_t)


def test_logp_decreases_by_the_trace(engine):
    flow = cnf(engine=engine, n_steps=1)
    z, logp = states()
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda row: flow.odefunc.diffeq(torch.zeros(()).double(), row))
    )(z)
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    end = flow.sqrt_end_time.square()
    torch.testing.assert_close(flow(z, logp)[1], logp - end * trace, rtol=1e-12, atol=1e-12)


def test_integration_times(engine):
    flow = cnf(engine=engine, n_steps=3)
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
    flow = cnf(T=0.6, engine=engine)
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
    flow = cnf(layer_type="concatsquash", residual=True, engine=engine).train(training)
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
    flow = cnf(engine=engine)
    z, logp = states()
    for options in ({}, {"step_size": 0.3}):
        flow.solver_options = options
        trained = flow.train()(z, logp)
        assert all(torch.equal(a, b) for a, b in zip(trained, flow.eval()(z, logp), strict=True))


def test_num_evals_counts_steps(engine):
    flow = cnf(engine=engine, n_steps=7)
    z, _ = states()
    assert flow.num_evals() == 0
    flow(z)
    flow(z)
    assert flow.num_evals() == 7 == flow.odefunc.num_evals()


def test_noise_is_injectable_and_averaged(engine):
    flow = cnf(engine=engine, trace="hutchinson")
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
    flow = cnf(hidden, layer_type=layer_type, engine=engine, trace="hutchinson", **settings)
    probes = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match=r"probes: got a tensor that requires grad, .*detach\(\)"):
        flow(*states(), probes=probes)
    assert flow.num_evals() == 0  # before any work
    flow(*states(), probes=probes.detach())


@pytest.mark.parametrize("hidden", [(7,), (8, 7)])
@pytest.mark.parametrize("shape", [(0, 3), (1, 0, 3), (2, 0, 3)])
def test_no_rows_with_noise_and_penalties(engine, hidden, shape):
    flow = cnf(
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
    flow = cnf(engine=engine, trace="hutchinson", n_probes=2)
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
    flow = cnf((), layer_type="ignore", engine=engine, trace="hutchinson")
    z, logp = states()
    estimates = []
    for flow.n_steps in (1, 8):
        estimates.append(flow(z, logp, generator=torch.Generator().manual_seed(0))[1])
    torch.testing.assert_close(*estimates)


def test_same_seed_same_noise_on_every_engine():
    results = []
    for name in ("reference", "auto"):
        torch.manual_seed(0)
        flow = cnf(engine=name, trace="hutchinson")
        results.append(flow(*states(), generator=torch.Generator().manual_seed(5))[1])
    torch.testing.assert_close(*results)


def test_trace_follows_the_odefunc():
    flow = cnf(trace=None)
    z, logp = states()
    flow.odefunc.divergence_fn = "brute_force"
    exact = flow(z, logp)[1]
    assert torch.equal(exact, flow(z, logp)[1])
    flow.odefunc.divergence_fn = "approximate"
    assert not torch.equal(exact, flow(z, logp)[1])
    assert flow.odefunc.divergence_fn == "approximate"


def test_two_dimensions_in_eval_mode_are_exact_as_in_ffjord():
    flow = cnf(dim=2, trace=None)
    z, logp = states(dim=2)
    exact = cnf(dim=2, trace="exact")
    exact.load_state_dict(flow.state_dict())
    assert not torch.equal(flow.train()(z, logp)[1], exact(z, logp)[1])
    assert torch.equal(flow.eval()(z, logp)[1], exact(z, logp)[1])
    flow.trace = "hutchinson"
    assert not torch.equal(flow(z, logp)[1], exact(z, logp)[1])


def test_double_backward(engine):
    flow = cnf(engine=engine)
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
