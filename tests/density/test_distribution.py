"""FlowDistribution as a Distribution."""

import copy

import pytest
import torch
from torch.distributions import Independent, Normal

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.distributions import FlowDistribution
from tests.density.linear import density_of, linear_flow
from tests.oracles import cnf


def conditional(rows=4, **settings):
    net = ODEnet((8,), (3,), context_dim=2)
    flow = FastCNF(ODEfunc(net), **{"trace": "exact", "n_steps": 4, **settings}).double()
    return flow, torch.randn(rows, 2, dtype=torch.float64)


def test_shapes_come_from_base_and_context():
    flow, context = conditional()
    p = flow.distribution(context)
    assert (p.batch_shape, p.event_shape) == ((4,), (3,))
    assert p.sample((5, 6)).shape == (5, 6, 4, 3)
    assert p.log_prob(torch.zeros(3).double()).shape == (4,)
    base = Independent(Normal(torch.zeros(7, 1, 3).double(), 1.0), 1)
    q = flow.distribution(context, base)
    assert q.batch_shape == (7, 4) and q.base.batch_shape == (7, 4)
    assert q.log_prob(q.sample()).shape == (7, 4)


def test_no_rows():
    flow, context = conditional(0)
    p = flow.distribution(context)
    x, logp = p.rsample_and_log_prob((5,))
    assert x.shape == (5, 0, 3) and logp.shape == p.log_prob(x).shape == (5, 0)
    q = cnf().distribution()
    assert q.log_prob(q.sample((2, 0))).shape == (2, 0)


def test_expand_is_the_same_distribution():
    flow, context = conditional()
    p = flow.distribution(context)
    q = p.expand((6, 4))
    assert q.batch_shape == (6, 4) and q.event_shape == (3,) and isinstance(q, FlowDistribution)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(x), p.log_prob(x))
    assert q.sample((2,)).shape == (2, 6, 4, 3)
    assert cnf().distribution().expand((5,)).sample().shape == (5, 3)


def test_samples_and_their_density_come_from_one_solve():
    flow, a = linear_flow()
    solves = []
    flow.register_forward_hook(lambda *call: solves.append(1))
    p = flow.distribution()
    x, logp = p.rsample_and_log_prob((4, 5))
    assert len(solves) == 1 and x.shape == (4, 5, 3) and logp.shape == (4, 5)
    torch.testing.assert_close(logp, density_of(a).log_prob(x))
    torch.testing.assert_close(p.log_prob(x), logp)
    assert len(solves) == 2


def test_log_prob_of_samples_with_many_steps():
    p = cnf(n_steps=200, solver="rk4").distribution()
    x, logp = p.rsample_and_log_prob((50,))
    torch.testing.assert_close(p.log_prob(x), logp, rtol=1e-8, atol=1e-8)


def test_sample_has_no_gradient_and_rsample_has():
    flow, context = conditional()
    p = flow.distribution(context.requires_grad_())
    assert p.has_rsample and not p.sample((2,)).requires_grad
    gradients = torch.autograd.grad(p.rsample((2,)).sum(), [context, *flow.parameters()])
    assert all(x.abs().max() > 0 for x in gradients)


def test_the_generator_decides():
    p = cnf().distribution()
    for draw in (p.sample, p.rsample, lambda *a, **k: p.rsample_and_log_prob(*a, **k)[1]):
        one, two, three = (
            draw((4,), generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
        )
        assert torch.equal(one, two) and not torch.equal(one, three)


def test_it_follows_the_flow_as_it_learns():
    flow = cnf()
    p, x = flow.distribution(), torch.randn(5, 3, dtype=torch.float64)
    optimizer = torch.optim.Adam(flow.parameters(), 0.05)
    first = -p.log_prob(x).mean()
    for _ in range(20):
        optimizer.zero_grad()
        loss = -p.log_prob(x).mean()
        loss.backward()
        optimizer.step()
    assert loss < first - 0.1


def test_values_are_validated():
    # Asked for: an import of zuko turns torch's default off.
    p, bad = (
        cnf().distribution(validate_args=True),
        torch.full((2, 3), float("nan"), dtype=torch.float64),
    )
    with pytest.raises(ValueError, match="support"):
        p.log_prob(bad)
    assert cnf().distribution(validate_args=False).log_prob(bad).isnan().all()
    assert p.support.event_dim == 1 and not p.support.check(bad).any()
    with pytest.raises(TypeError, match="value: got a list"):
        p.log_prob([0.0])


def test_in_other_distributions():
    flow, context = conditional()
    p = Independent(flow.distribution(context), 1)
    assert p.batch_shape == () and p.log_prob(p.sample((7,))).shape == (7,)


def test_copies():
    flow = cnf()
    p = flow.distribution()
    q = copy.deepcopy(p)
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(p.log_prob(x), q.log_prob(x)) and q.transform.flow is not flow


def test_repr():
    assert repr(cnf().distribution()) == "FlowDistribution(FastCNF, batch=(), event=(3,))"
