"""Denormal numbers: zero inside of a solve of the C++ engine, untouched outside of it."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.engines import cpp as ops
from tests.oracles import ffjord_euler, gradients, random_net

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

ROWS, DIM = 400, 16
# More than PyTorch gives to one thread.
MANY = 1_000_000
TINY = {torch.float32: 1e-40, torch.float64: 1e-310}


def linear_flow(dtype, **settings):
    """Whose states are as small as what they start from."""
    net = random_net((32,), DIM, "ignore", "tanh", dtype)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            parameter.data.zero_()
    return FastCNF(ODEfunc(net), trace="exact", engine="cpp", **settings).to(dtype)


def keeps_denormals(dtype):
    """Whether this thread, and each that PyTorch computes with, has a denormal product."""
    here = torch.full((1,), TINY[dtype], dtype=dtype)
    everywhere = torch.full((MANY,), TINY[dtype], dtype=dtype)
    return [bool((x * 0.5 != 0).all()) for x in (here, everywhere)]


@pytest.mark.parametrize("dtype", TINY)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
def test_they_are_zero_within_and_stay_what_they_are_without(dtype, count, solver, threads):
    threads(count)
    assert keeps_denormals(dtype) == [True, True]
    flow = linear_flow(dtype, solver=solver, n_steps=4)
    z = torch.full((ROWS, DIM), TINY[dtype], dtype=dtype, requires_grad=True)
    z_t, logp = flow(z, z.detach()[:, :1] * 0)
    if solver != "dopri5":  # whose relative error rules
        assert (z_t == 0).all()
    (grad,) = torch.autograd.grad(z_t, z, torch.full_like(z, TINY[dtype]))
    assert (grad == 0).all()
    assert logp.isfinite().all()
    assert keeps_denormals(dtype) == [True, True]


@pytest.mark.parametrize("dtype", TINY)
def test_what_is_lost_is_smaller_than_a_normal_number(dtype):
    flow, least = linear_flow(dtype, n_steps=4), torch.finfo(dtype).tiny
    net, end = flow.odefunc.diffeq, flow.sqrt_end_time.square()
    for size in (least / 1000, least, least * 1000):
        z = (size * torch.randn(ROWS, DIM, dtype=dtype)).requires_grad_()
        ours, theirs = flow(z, z[:, 0] * 0), ffjord_euler(net, z, end, 4)
        grads = [gradients(results, [z, *net.parameters()]) for results in (ours, theirs)]
        few = 32 * torch.finfo(dtype).eps
        far = 200 * least
        for x, y in zip([*ours, *grads[0]], [*theirs, *grads[1]], strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=(few * y.abs().max()).item() + far)


def test_an_error_leaves_them_too():
    flow = linear_flow(torch.float32, solver="dopri5")
    flow.solver_options = {"max_num_steps": 1, "first_step": 1e-6, "max_step": 1e-3}
    with pytest.raises(RuntimeError, match="max_num_steps"):
        flow(torch.randn(ROWS, DIM))
    assert keeps_denormals(torch.float32) == [True, True]


def test_a_caller_without_them_stays_so():
    if not torch.set_flush_denormal(True):
        pytest.skip("PyTorch cannot flush denormal numbers on this processor")
    try:
        linear_flow(torch.float32, n_steps=4)(torch.randn(ROWS, DIM))
        assert not (torch.full((1,), 1e-40) * 0.5 != 0).any()
    finally:
        torch.set_flush_denormal(False)
