"""Tables against the net's own forward: same values, same gradients, at every step."""

import pytest
import torch

from mvae_fast.core import reference
from mvae_fast.nets.fields import field_of
from tests.oracles import LAYER_TYPES, NONLINEARITIES, gradients, pairwise, random_net

TIMES = torch.tensor([0.0, 0.3, 0.75], dtype=torch.float64)


@pytest.mark.parametrize(
    ("layer_type", "nonlinearity", "hidden"),
    pairwise(LAYER_TYPES, NONLINEARITIES, [(), (5,), (5, 4, 7)]),
)
@pytest.mark.slow
def test_tables_give_the_net_and_its_gradients(layer_type, nonlinearity, hidden):
    net = random_net(hidden, 3, layer_type, nonlinearity)
    z = torch.randn(6, 3, dtype=torch.float64)
    t = TIMES.clone().requires_grad_()
    inputs = [t, *net.parameters()]

    tables = field_of(net, t).tables()
    by_tables = tuple(reference.dynamics(z, tables, s)[0] for s in range(3))
    by_forward = tuple(net(t[s], z) for s in range(3))

    torch.testing.assert_close(by_tables, by_forward, rtol=1e-12, atol=1e-12)
    for got, expected in zip(
        gradients(by_tables, inputs), gradients(by_forward, inputs), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("layer_type", "rows"),
    [
        ("ignore", (1, None, 1)),
        ("concat", (1, None, 3)),
        ("concat_v2", (1, None, 3)),
        ("squash", (1, 3, 3)),
        ("concatsquash", (1, 3, 3)),
        ("blend", (3, None, 3)),
        ("hyper", (3, None, 3)),
    ],
)
def test_what_does_not_vary_is_stored_once(layer_type, rows):
    tables = field_of(random_net((4,), 2, layer_type), TIMES).tables()
    gate = None if tables.gate is None else tables.gate.shape[0]
    assert (tables.weight.shape[0], gate, tables.bias.shape[0]) == rows


def test_residual_subtracts_the_state():
    net = random_net((4,), 2)
    z = torch.randn(5, 2, dtype=torch.float64)
    velocity, *_ = reference.dynamics(z, field_of(net, TIMES, residual=True).tables(), 1)
    torch.testing.assert_close(velocity, net(TIMES[1], z) - z)


@pytest.mark.parametrize("beta", [0.0, 1e-12, -1e-12, -0.7])
def test_swish_beta_near_zero(beta):
    # The fold divides by beta; |beta| < sqrt(eps) is moved to sqrt(eps), hence the tolerance.
    net = random_net((5, 4), 3, "squash", "swish")
    betas = [activation.beta for activation in net.activation_fns]
    with torch.no_grad():
        for parameter in betas:
            parameter.fill_(beta)
    z = torch.randn(6, 3, dtype=torch.float64)
    by_tables, *_ = reference.dynamics(z, field_of(net, TIMES).tables(), 1)
    by_forward = net(TIMES[1], z)
    torch.testing.assert_close(by_tables, by_forward, rtol=1e-7, atol=1e-7)
    for got, expected in zip(
        gradients((by_tables,), betas), gradients((by_forward,), betas), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_parametrized_weights_are_read_through_their_parametrization():
    net = random_net((5,), 3, "squash")
    torch.nn.utils.parametrizations.spectral_norm(net.layers[0]._layer)
    net.eval()
    z = torch.randn(4, 3, dtype=torch.float64)
    velocity, *_ = reference.dynamics(z, field_of(net, TIMES).tables(), 2)
    torch.testing.assert_close(velocity, net(TIMES[2], z))
