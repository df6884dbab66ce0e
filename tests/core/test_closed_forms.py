"""Flows whose result is known in closed form, on every engine."""

import math

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from tests.oracles import random_net

DIM = 3


def linear_flow(matrix, hidden, engine, n_steps, end=0.7):
    """``dz/dt = A z``: a product of matrices and the identity as nonlinearity."""
    widths = (DIM,) * (hidden + 2)
    net = ODEnet(widths[1:-1], (DIM,), layer_type="ignore", nonlinearity="identity").double()
    with torch.no_grad():
        for layer in net.layers:
            layer._layer.weight.copy_(torch.eye(DIM))
            layer._layer.bias.zero_()
        # A itself as a product of two factors where there are two layers.
        if hidden:
            factor = torch.randn(DIM, DIM, dtype=torch.float64)
            net.layers[0]._layer.weight.copy_(factor)
            net.layers[-1]._layer.weight.copy_(matrix @ factor.inverse())
        else:
            net.layers[0]._layer.weight.copy_(matrix)
    flow = FastCNF(ODEfunc(net), T=end, n_steps=n_steps, trace="exact", engine=engine).double()
    # T passes through a square root in float32.
    with torch.no_grad():
        flow.sqrt_end_time.copy_(torch.tensor(end, dtype=torch.float64).sqrt())
    return flow


@pytest.mark.parametrize("hidden", range(5))
def test_linear_field_is_the_product_of_euler_factors(engine, hidden):
    matrix = torch.randn(DIM, DIM, dtype=torch.float64) * 0.5
    z = torch.randn(5, DIM, dtype=torch.float64)
    flow = linear_flow(matrix, hidden, engine, n_steps=6)
    step = torch.eye(DIM, dtype=torch.float64) + 0.7 / 6 * matrix
    z_t, logp = flow(z, torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(
        z_t, z @ torch.linalg.matrix_power(step, 6).T, rtol=1e-13, atol=1e-13
    )
    torch.testing.assert_close(
        logp, torch.full_like(logp, -0.7 * matrix.trace().item()), rtol=1e-13, atol=1e-13
    )


def test_linear_field_tends_to_the_matrix_exponential_at_first_order(engine):
    matrix = torch.randn(DIM, DIM, dtype=torch.float64) * 0.5
    z = torch.randn(5, DIM, dtype=torch.float64)
    exact = z @ torch.linalg.matrix_exp(0.7 * matrix).T
    errors = [
        (linear_flow(matrix, 1, engine, n_steps=n)(z) - exact).norm().item()
        for n in (200, 400, 800)
    ]
    assert errors[0] < 0.01
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert coarse / fine == pytest.approx(2, rel=0.02)


def gaussian_logp(z, covariance):
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(DIM, dtype=torch.float64), covariance_matrix=covariance
    )
    return normal.log_prob(z)


def test_gaussian_log_density_through_a_linear_flow(engine):
    # N(0, I) becomes N(0, E E^T) with E = exp(A T).
    matrix = torch.randn(DIM, DIM, dtype=torch.float64) * 0.5
    z = torch.randn(5, DIM, dtype=torch.float64)
    exponential = torch.linalg.matrix_exp(0.7 * matrix)
    eye = torch.eye(DIM, dtype=torch.float64)
    errors = []
    for n_steps in (200, 400, 800):
        flow = linear_flow(matrix, 2, engine, n_steps)
        z_t, logp_t = flow(z, gaussian_logp(z, eye))
        errors.append((logp_t - gaussian_logp(z_t, exponential @ exponential.T)).norm().item())
    assert errors[0] < 0.02
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert coarse / fine == pytest.approx(2, rel=0.02)


def test_density_of_a_nonlinear_flow_integrates_to_one(engine):
    # In one dimension: push a grid forward, and integrate exp(logp) over where it lands.
    net = random_net((16,), 1, "concatsquash", "tanh")
    flow = FastCNF(ODEfunc(net), n_steps=100, trace="exact", engine=engine).double()
    z = torch.linspace(-8, 8, 801, dtype=torch.float64).unsqueeze(1)
    logp = -z.squeeze(1).square() / 2 - math.log(2 * math.pi) / 2
    with torch.no_grad():
        z_t, logp_t = flow(z, logp)
    mass = torch.trapezoid(logp_t.exp(), z_t.squeeze(1)).item()
    assert mass == pytest.approx(1, abs=5e-3)


def test_reverse_undoes_forward_at_first_order(engine):
    net = random_net((9,), DIM, "squash")
    z = torch.randn(5, DIM, dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    errors = []
    for n_steps in (100, 200):
        flow = FastCNF(ODEfunc(net), n_steps=n_steps, trace="exact", engine=engine).double()
        back, logp = flow(*flow(z, zero), reverse=True)
        errors.append(((back - z).norm() + logp.norm()).item())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


def test_one_euler_step_is_the_net_at_time_zero(engine):
    net = random_net((9, 5), DIM, "concat", "swish")
    flow = FastCNF(ODEfunc(net), T=0.5, n_steps=1, engine=engine).double()
    z = torch.randn(5, DIM, dtype=torch.float64)
    end = flow.sqrt_end_time**2
    expected = z + end * net(torch.zeros((), dtype=torch.float64), z)
    torch.testing.assert_close(flow(z), expected, rtol=1e-14, atol=1e-14)
