import pytest
import torch

from mvae_fast.flows import monotone


def test_the_root_is_found_where_the_slope_all_but_vanishes():
    n = 2000
    r = torch.randn(n, dtype=torch.float64) * 10 ** torch.linspace(-3, 3, n, dtype=torch.float64)
    s = -(1 - 1e-12) / r  # slope 1e-12 at the steepest point of tanh
    k = torch.randn(n, dtype=torch.float64)
    y = torch.randn(n, dtype=torch.float64)
    a = monotone.solve(y, r, s, k)
    error = a + r * torch.tanh(s * a + k) - y
    assert (error.abs() <= 8 * torch.finfo(torch.float64).eps * (y.abs() + r.abs())).all()


def test_float32_ends_at_its_own_precision():
    y, r, k = torch.randn(3, 500)
    a = monotone.solve(y, r.abs(), 2.0, k)
    error = a + r.abs() * torch.tanh(2 * a + k) - y
    # One rounding of a moves the left side by the slope, at most 1 + 2 |r|.
    eps = torch.finfo(torch.float32).eps
    assert (error.abs() <= 4 * eps * (1 + 2 * r.abs()) * (y.abs() + r.abs() + 1)).all()


def test_derivatives_are_those_of_the_implicit_function():
    y, r, s, k = torch.randn(4, 7, dtype=torch.float64)
    r, s = r.abs(), s.abs()
    leaves = [x.requires_grad_() for x in (y, r, s, k)]
    assert torch.autograd.gradcheck(monotone.solve, leaves)


@pytest.mark.slow
def test_higher_derivatives_are_those_of_the_implicit_function_up_to_the_third():
    y, r, s, k = torch.randn(4, 5, dtype=torch.float64)
    r, s = r.abs(), s.abs()
    leaves = [x.requires_grad_() for x in (y, r, s, k)]

    def slopes(*arguments):
        a = monotone.solve(*arguments)
        return torch.autograd.grad(a.square().sum(), arguments, create_graph=True)

    assert torch.autograd.gradgradcheck(monotone.solve, leaves)
    assert torch.autograd.gradgradcheck(slopes, leaves)


def test_derivatives_where_the_slope_all_but_vanishes():
    # y = 0 gives a = 0, where the slope is 1 + r s, and da/dy its inverse.
    r, s = torch.ones(1, dtype=torch.float64), torch.tensor([-(1 - 1e-12)], dtype=torch.float64)
    y = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(monotone.solve(y, r, s, torch.zeros_like(r)).sum(), y)
    torch.testing.assert_close(slope, 1 / (1 + r * s), rtol=1e-12, atol=0)
