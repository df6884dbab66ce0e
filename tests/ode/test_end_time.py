"""The end time, and the steps that are kept from call to call."""

import torch

from mvae_fast import FastCNF, ODEfunc
from tests.oracles import random_net


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
