"""The table of nonlinearities: against PyTorch's own, and to the second derivative."""

import pytest
import torch
import torch.nn.functional as F

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.core.nonlinearities import NONLINEARITIES, derivative, value
from mvae_fast.nets.activations import Pointwise, make_activation
from tests import oracles

OF_TORCH = {
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": F.elu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda a: F.gelu(a, approximate="tanh"),
    "selu": F.selu,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "silu": F.silu,
}
# Off the kinks, where a difference quotient is none.
POINTS = torch.cat([x * torch.logspace(-2, 1, 40, dtype=torch.float64) for x in (-1, 1)])


def test_the_tests_know_all_of_them():
    assert {*oracles.NONLINEARITIES} == {*NONLINEARITIES}


@pytest.mark.parametrize("name", OF_TORCH)
def test_as_in_torch(name):
    for dtype, bound in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        a = POINTS.to(dtype).requires_grad_()
        expected = OF_TORCH[name](a)
        (slope,) = torch.autograd.grad(expected.sum(), a)
        # F.softplus is the identity from 20 on, which its slope is not there yet.
        torch.testing.assert_close(value(name, a), expected, rtol=bound, atol=bound)
        torch.testing.assert_close(derivative(name, a), slope, rtol=bound, atol=bound)


@pytest.mark.parametrize("name", NONLINEARITIES)
@pytest.mark.slow
def test_gradients(name):
    a = POINTS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: value(name, x), a)
    assert torch.autograd.gradgradcheck(lambda x: value(name, x), a)
    if derivative(name, a).requires_grad:  # else it is constant
        assert torch.autograd.gradcheck(lambda x: derivative(name, x), a)
        assert torch.autograd.gradgradcheck(lambda x: derivative(name, x), a)
    (slope,) = torch.autograd.grad(value(name, a).sum(), a)
    torch.testing.assert_close(derivative(name, a), slope, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NONLINEARITIES)
def test_no_nan_at_large_numbers(name, dtype):
    largest = torch.finfo(dtype).max ** 0.45
    sizes = torch.tensor([0.0, 1.0, 20.0, 40.0, 90.0, 710.0, 1e4, 1e9, largest], dtype=dtype)
    a = torch.cat([-sizes, sizes]).requires_grad_()
    for result in (value(name, a), derivative(name, a)):
        for _ in range(2):
            assert result.isfinite().all()
            if result.requires_grad:  # else it is constant
                (result,) = torch.autograd.grad(
                    result.sum(), a, create_graph=True, materialize_grads=True
                )
        assert result.isfinite().all()


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_nan_propagates(name):
    a = torch.tensor([float("nan"), 0.5])
    assert value(name, a).isnan().tolist() == [True, False]


def test_limits_of_the_newer_ones():
    infinity = torch.tensor([-torch.inf, torch.inf], dtype=torch.float64)
    edge = torch.tensor([-1e300, 1e300], dtype=torch.float64)
    for name, limits, slopes in (
        ("gelu", [0.0, torch.inf], [0.0, 1.0]),
        ("gelu_tanh", [0.0, torch.inf], [0.0, 1.0]),
        ("selu", [-1.7580993408473766, torch.inf], [0.0, 1.0507009873554805]),
        ("leaky_relu", [-torch.inf, torch.inf], [0.01, 1.0]),
        ("sigmoid", [0.0, 1.0], [0.0, 0.0]),
    ):
        torch.testing.assert_close(value(name, infinity), infinity.new_tensor(limits))
        for a in (infinity, edge):
            torch.testing.assert_close(derivative(name, a), infinity.new_tensor(slopes))


def test_gelu_does_not_cancel():
    # mpmath to 50 digits.
    a = torch.tensor([-3.0, -8.0, -20.0], dtype=torch.float64)
    expected = {
        "gelu": [-0.00404969409489028358, -4.9767684594174272988e-15, -5.5072482372124673902e-88],
        "gelu_tanh": [
            -0.0036373920817730188378,
            -3.107782937501111218e-21,
            -3.3754509563109673197e-261,
        ],
    }
    for name, values in expected.items():
        torch.testing.assert_close(value(name, a), a.new_tensor(values), rtol=1e-12, atol=0)


def test_silu_is_swish_without_a_parameter():
    swish, silu = (ODEnet((5,), (3,), nonlinearity=name) for name in ("swish", "silu"))
    assert {*swish.state_dict()} - {*silu.state_dict()} == {"activation_fns.0.beta"}
    swish.load_state_dict(silu.state_dict(), strict=False)
    z = torch.randn(4, 3)
    flows = [FastCNF(ODEfunc(net), n_steps=3, trace="exact") for net in (swish, silu)]
    for x, y in zip(*(flow(z, z[:, :1]) for flow in flows), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("name", [name for name in NONLINEARITIES if name != "swish"])
def test_a_module_by_name(name):
    module = make_activation(name)
    assert type(module) is Pointwise and not list(module.parameters())
    assert torch.equal(module(POINTS), value(name, POINTS))


def test_unknown_name():
    with pytest.raises(ValueError, match=r"nonlinearity: got 'mish', expected one of .*'silu'"):
        ODEnet((5,), (3,), nonlinearity="mish")
