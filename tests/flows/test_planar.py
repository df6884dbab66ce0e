import pytest
import torch

from mvae_fast.flows import PlanarFlow


def single(u, w, b=0.0):
    flow = PlanarFlow(len(u), 1).double()
    with torch.no_grad():
        flow.theta.free.copy_(torch.tensor([*u, *w, b], dtype=torch.float64))
    return flow


def test_it_is_the_papers_equation_where_nothing_is_constrained():
    u, w = torch.tensor([0.4, -0.2, 0.9]).double(), torch.tensor([1.0, 2.0, -2.0]).double()
    z = torch.randn(5, 3, dtype=torch.float64)
    wu = w @ u
    u_hat = u + (-1 + torch.log1p(wu.exp()) - wu) * w / (w @ w)
    expected = z + u_hat * torch.tanh(z @ w + 0.3).unsqueeze(1)
    torch.testing.assert_close(single(u, w, 0.3)(z), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_the_constraint_divides_by_the_squared_norm(scale):
    # w.u_hat = m(w.u) for every |w|; with |w| in place of |w|^2 for |w| = 1 only.
    w = scale * torch.tensor([3.0, 4.0]).double() / 5
    u = -5 * w / scale**2
    flow = single(u, w)
    z = torch.randn(4, 2, dtype=torch.float64)
    shift = (flow(z) - z) @ w / torch.tanh(z @ w)
    m = -1 + torch.log1p(torch.tensor(-5.0).double().exp())
    torch.testing.assert_close(shift, m.expand(4), rtol=1e-9, atol=0)


def test_a_zero_w_is_a_shift():
    flow = single([1.0, 2.0], [0.0, 0.0], b=0.5)
    z, logp = flow(torch.zeros(3, 2).double(), torch.zeros(3, 1).double())
    expected = torch.tensor([[1.0, 2.0]]).double() * torch.tensor(0.5).double().tanh()
    torch.testing.assert_close(z, expected.expand(3, 2))
    assert not logp.any()


def test_density_integrates_to_one_through_the_inverse():
    flow = PlanarFlow(1, 4).double()
    grid = torch.linspace(-15, 15, 20_001, dtype=torch.float64).unsqueeze(1)
    z, change = flow(grid, torch.zeros_like(grid), reverse=True)
    density = (torch.distributions.Normal(0.0, 1.0).log_prob(z) - change).exp()
    assert torch.trapezoid(density[:, 0], grid[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_number_of_flows_is_checked():
    with pytest.raises(ValueError, match="n_flows: got 0, expected an integer >= 1"):
        PlanarFlow(3, 0)
