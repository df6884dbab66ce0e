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
