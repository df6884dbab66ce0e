"""mvae_fast.likelihood: velocities by every way of calling them, against closed forms."""

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal

from mvae_fast import FastCNF, ODEfunc, ODEnet, flow_matching, likelihood
from mvae_fast.flow_matching import _flow_of
from tests.density.linear import density_of, linear_flow

A = torch.tensor([[0.3, -0.5, 0.1], [0.4, 0.2, 0.0], [-0.2, 0.1, -0.6]], dtype=torch.float64)
TIGHT = {"atol": 1e-9, "rtol": 1e-9}


def wanted(x, base=None):
    """Of f(t, x) = A x (1 + t), whose map from the source to data is expm(3/2 A)."""
    z = x @ torch.linalg.matrix_exp(-1.5 * A).T
    log_p0 = Normal(0.0, 1.0).log_prob(z).sum(-1) if base is None else base.log_prob(z)
    return log_p0 - 1.5 * A.trace()


class Velocity(nn.Module):
    """The same as a module, called in any way; remembers the shapes of its times."""

    def __init__(self, call):
        super().__init__()
        self.weight = nn.Parameter(A.clone())
        self.call = call
        self.shapes = set()

    def forward(self, *given):
        if self.call == "f(cat)":
            x, t = given[0][:, :-1], given[0][:, -1:]
        else:
            t, x = given if self.call == "f(t, x)" else given[::-1]
            self.shapes.add(tuple(t.shape))
            t = t.reshape(-1, 1)
        return x @ self.weight.T * (1 + t)


@pytest.mark.parametrize("call", flow_matching.CALLS)
@pytest.mark.parametrize("time_shape", flow_matching.TIME_SHAPES)
def test_every_way_of_calling(call, time_shape):
    model, x = Velocity(call), torch.randn(4, 3, dtype=torch.float64)
    got = likelihood(model, x, call=call, time_shape=time_shape, **TIGHT)
    torch.testing.assert_close(got, wanted(x), rtol=1e-6, atol=1e-6)
    shapes = {"scalar": {()}, "rows": {(4,)}, "column": {(4, 1)}}[time_shape]
    assert model.shapes == (set() if call == "f(cat)" else shapes)


@pytest.mark.parametrize("batch", [(), (0,), (2, 3), (2, 0), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches(batch, dtype):
    x = torch.randn(*batch, 3, dtype=torch.float64)
    got = likelihood(Velocity("f(x, t)").to(dtype), x.to(dtype), call="f(x, t)")
    assert got.shape == batch and got.dtype == dtype
    torch.testing.assert_close(got.double(), wanted(x), rtol=1e-3, atol=1e-3)


def test_functions_bases_times_and_solvers():
    x = torch.randn(4, 3, dtype=torch.float64)

    def velocity(t, x):
        return x @ A.T * (1 + t)

    for settings in (TIGHT, {"solver": "rk4", "n_steps": 100}):
        torch.testing.assert_close(likelihood(velocity, x, **settings), wanted(x))
    base = Independent(Laplace(torch.zeros(3).double(), torch.ones(3).double()), 1)
    torch.testing.assert_close(likelihood(velocity, x, base=base, **TIGHT), wanted(x, base))
    # The other way around, data at 0 and noise at 1, as of diffusion models.
    back = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    z = x @ torch.linalg.matrix_exp(1.5 * A).T
    got = likelihood(velocity, x, times=(0.0, 1.0), **TIGHT)
    torch.testing.assert_close(got, back.log_prob(z) + 1.5 * A.trace())


def test_gradients_reach_data_and_parameters():
    model, x = Velocity("f(t, x)"), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    got = likelihood(model, x, **TIGHT)
    gradients = torch.autograd.grad(got.sum(), [x, model.weight])
    a = A.clone().requires_grad_()
    z = x @ torch.linalg.matrix_exp(-1.5 * a).T
    exact = -0.5 * z.square().sum() - 4 * 1.5 * a.trace()
    for ours, theirs in zip(gradients, torch.autograd.grad(exact, [x, a]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert not likelihood(model, x).requires_grad


def test_the_model_stays_as_it_is():
    model = Velocity("f(t, x)").eval()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    likelihood(model, torch.randn(4, 3, dtype=torch.float64))
    assert not model.training and model.weight.grad is None
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert list(model.state_dict()) == ["weight"]


def test_a_context_is_the_last_argument():
    x, context = torch.randn(5, 3).double(), torch.randn(2, 1, 3).double()

    def velocity(x, t, context):
        return x @ A.T + context

    got = likelihood(velocity, x, context=context, call="f(x, t)", **TIGHT)
    assert got.shape == (2, 5)
    # dx = A x + c: x_0 = expm(-A) x - A^-1 (1 - expm(-A)) c
    to_source = torch.linalg.matrix_exp(-A)
    shift = context @ torch.linalg.solve(A, torch.eye(3).double() - to_source).T
    z = x @ to_source.T - shift
    exact = Normal(0.0, 1.0).log_prob(z).sum(-1) - A.trace()
    torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-6)


def test_images():
    model, x = nn.Conv2d(1, 1, 3, padding=1).double(), torch.randn(2, 1, 3, 3).double()
    got = likelihood(lambda t, x: model(x), x, event_dim=3, **TIGHT)
    eye = torch.eye(9, dtype=torch.float64).view(9, 1, 3, 3)
    zero = model(torch.zeros_like(x[:1]))
    a = (model(eye) - zero).flatten(1).T
    b = zero.flatten()
    to_source = torch.linalg.matrix_exp(-a)
    shift = torch.linalg.solve(a, torch.eye(9).double() - to_source) @ b
    z = x.flatten(1) @ to_source.T - shift
    exact = Normal(0.0, 1.0).log_prob(z).sum(-1) - a.trace()
    torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-6)


def test_hutchinson_is_unbiased_and_follows_the_generator():
    model, x = Velocity("f(t, x)"), torch.randn(1, 3, dtype=torch.float64).expand(4000, 3)
    settings = {"trace": "hutchinson", "solver": "rk4", "n_steps": 20}
    one, two = (
        likelihood(model, x, generator=torch.Generator().manual_seed(0), **settings)
        for _ in range(2)
    )
    assert torch.equal(one, two) and one.std() > 0.1
    assert (one.mean() - wanted(x[0])).abs() < 4 * one.std() / 4000**0.5


def test_an_odenet_takes_an_engine():
    flow, a = linear_flow()
    net, x = flow.odefunc.diffeq, torch.randn(5, 3, dtype=torch.float64)
    calls = []
    net.register_forward_hook(lambda *call: calls.append(1))
    with_hook = likelihood(net, x, solver="rk4", n_steps=50)
    assert calls
    net._forward_hooks.clear()
    calls.clear()
    got = likelihood(net, x, solver="rk4", n_steps=50)
    assert not calls
    torch.testing.assert_close(got, with_hook)
    torch.testing.assert_close(got, density_of(a, reverse=True).log_prob(x))


def test_what_does_not_fit_is_named():
    x = torch.randn(4, 3)
    with pytest.raises(TypeError, match="model: got a FastCNF, expected a velocity; remedy: flow"):
        likelihood(FastCNF(ODEfunc(ODEnet((4,), (3,)))), x)
    with pytest.raises(TypeError, match="model: got a int, expected a module or function"):
        likelihood(3, x)
    with pytest.raises(ValueError, match="call: got 'xt', expected one of 'f.t, x.', 'f.x, t.'"):
        likelihood(nn.Linear(3, 3), x, call="xt")
    with pytest.raises(ValueError, match="time_shape: got 'vector', expected one of 'scalar'"):
        likelihood(nn.Linear(3, 3), x, time_shape="vector")
    with pytest.raises(ValueError, match=r"model: returned \(4, 2\) for states \(4, 3\)"):
        likelihood(lambda t, x: x[:, :2], x)
    with pytest.raises(ValueError, match=r"model: returned NoneType for states \(4, 3\)"):
        likelihood(lambda t, x: None, x)
    with pytest.raises(ValueError, match=r"call: got 'f.cat.' with a context"):
        likelihood(nn.Linear(4, 3), x, context=torch.zeros(4, 2), call="f(cat)")
    with pytest.raises(ValueError, match=r"call: got 'f.cat.' with states of shape \(1, 3\)"):
        likelihood(nn.Linear(4, 3), x[:, None], call="f(cat)", event_dim=2)
    with pytest.raises(ValueError, match=r"x: got shape \(4, 3\), expected 3 axes or more"):
        likelihood(nn.Linear(3, 3), x, event_dim=3)
    with pytest.raises(TypeError, match="x: got a list"):
        likelihood(nn.Linear(3, 3), [0.0])
    with pytest.raises(ValueError, match="integration_times: got 3"):
        likelihood(lambda t, x: x, x, times=(1.0, 0.5, 0.0))
    with pytest.raises(ValueError, match="trace: got 'none'"):
        likelihood(lambda t, x: x, x, trace="none")


class Matching(nn.Module):
    """As the examples of flow_matching have it."""

    def __init__(self):
        super().__init__()
        layers = [nn.Linear(4, 9), nn.SiLU(), nn.Linear(9, 8), nn.SiLU(), nn.Linear(8, 3)]
        self.main = nn.Sequential(*layers)

    def forward(self, x, t):
        return self.main(torch.cat((x, t.reshape(-1, 1).expand(len(x), 1)), 1))


def test_engines_read_what_they_can():
    torch.manual_seed(0)
    model, x = Matching().double(), torch.randn(6, 3, dtype=torch.float64)
    call = {"call": "f(x, t)", **TIGHT}
    assert _flow_of(model, "f(x, t)", "scalar", True).fused
    assert _flow_of(model.main, "f(cat)", "scalar", True).fused
    got = likelihood(model, x, **call)
    grads = torch.autograd.grad(got.sum(), list(model.parameters()))
    calls = []
    model.register_forward_hook(lambda *args: calls.append(1))
    assert not _flow_of(model, "f(x, t)", "scalar", True).fused
    expected = likelihood(model, x, **call)
    assert calls
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)
    wanted = torch.autograd.grad(expected.sum(), list(model.parameters()))
    torch.testing.assert_close(grads, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(likelihood(model.main, x, call="f(cat)", **TIGHT), expected)
