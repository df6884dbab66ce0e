"""FlowTransform in torch.distributions."""

import copy
import dataclasses

import pytest
import torch
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution
from torch.distributions.transforms import ComposeTransform

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.distributions import FlowTransform
from tests.density.linear import density_of, linear_flow
from tests.oracles import cnf


def unit(*shape):
    zeros = torch.zeros(*shape, dtype=torch.float64)
    return Independent(Normal(zeros, torch.ones_like(zeros)), 1)


def counted(flow):
    solves = []
    flow.register_forward_hook(lambda *call: solves.append(1))
    return solves


@pytest.mark.parametrize("cache_size", [0, 1])
@pytest.mark.parametrize("reverse", [False, True])
def test_both_ways_in_a_transformed_distribution(cache_size, reverse):
    flow, a = linear_flow()
    transform = FlowTransform(flow, cache_size=cache_size)
    p = TransformedDistribution(unit(3), [transform if reverse else transform.inv])
    wanted = density_of(a, reverse)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(x), wanted.log_prob(x))
    samples = p.sample((3, 2))
    assert samples.shape == (3, 2, 3) and not samples.requires_grad
    torch.testing.assert_close(p.log_prob(samples), wanted.log_prob(samples))
    assert p.rsample((2,)).requires_grad
    assert p.expand((5,)).sample().shape == (5, 3)
    assert p.support.event_dim == 1 and p.event_shape == (3,)


def test_the_log_determinant_is_that_of_the_solve():
    flow = cnf()
    solves = counted(flow)
    x = torch.randn(5, 3, dtype=torch.float64)
    for cache_size, count in ((0, 2), (1, 1)):
        t = FlowTransform(flow, cache_size=cache_size)
        solves.clear()
        z = t(x)
        ladj = t.log_abs_det_jacobian(x, z)
        assert len(solves) == count
        torch.testing.assert_close((z, ladj), t.call_and_ladj(x))
        assert ladj.requires_grad
    solves.clear()
    assert t.inv(z) is x and not solves
    torch.testing.assert_close(t.inv.log_abs_det_jacobian(z, x), -ladj)


def test_samples_go_back_to_what_they_were_made_of():
    flow = cnf(n_steps=1)  # whose steps back are another map
    solves = counted(flow)
    p = TransformedDistribution(unit(3), [FlowTransform(flow, cache_size=1).inv])
    torch.manual_seed(0)
    x = p.rsample((4,))
    logp = p.log_prob(x)
    assert len(solves) == 1
    torch.manual_seed(0)
    wanted = flow.distribution().rsample_and_log_prob((4,))
    torch.testing.assert_close((x, logp), wanted)


def test_what_is_kept_is_never_stale():
    flow = cnf()
    p = TransformedDistribution(unit(3), [FlowTransform(flow, cache_size=1).inv])
    x = torch.randn(5, 3, dtype=torch.float64)
    for _ in range(2):
        p.log_prob(x).sum().backward()  # of the same input, each with a graph of its own
    first = p.log_prob(x)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(p.log_prob(x), flow.log_prob(x))
    assert not torch.allclose(p.log_prob(x), first)
    samples = p.sample((4,))  # without a graph
    gradients = torch.autograd.grad(p.log_prob(samples).sum(), list(flow.parameters()))
    wanted = torch.autograd.grad(flow.log_prob(samples).sum(), list(flow.parameters()))
    torch.testing.assert_close(gradients, wanted)
    t = FlowTransform(flow, cache_size=1)
    z = t(x)
    with torch.no_grad():
        flow.sqrt_end_time.mul_(1.1)
    assert t.inv(z) is not x
    with torch.inference_mode():
        assert torch.equal(t(x), flow(x))


def test_with_others_and_with_a_context():
    net = ODEnet((8,), (3,), context_dim=2)
    flow = FastCNF(ODEfunc(net), trace="exact", n_steps=4).double()
    context = torch.randn(4, 2, dtype=torch.float64)
    t = FlowTransform(flow, context)
    shift = AffineTransform(torch.ones(3).double(), 2 * torch.ones(3).double(), event_dim=1)
    p = TransformedDistribution(unit(3), [t.inv, shift])
    assert p.batch_shape == (4,) and p.sample((5,)).shape == (5, 4, 3)
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    wanted = flow.log_prob((x - 1) / 2, context) - 3 * torch.tensor(2.0).double().log()
    torch.testing.assert_close(p.log_prob(x), wanted)
    both = ComposeTransform([t, t.inv])
    assert both.domain.event_dim == 1
    got = FlowTransform(flow, context[:1])(x)
    torch.testing.assert_close(
        got, flow(x.flatten(0, 1), context=context[:1].expand(20, 2)).view(5, 4, 3)
    )


def test_arguments_of_the_flow_hold_in_every_call():
    flow = cnf(trace="hutchinson")
    x, probes = torch.randn(2, 5, 3, dtype=torch.float64)
    settings = dataclasses.replace(flow.settings, n_steps=9)
    t = FlowTransform(flow, probes=probes, settings=settings, integration_times=(0.2, 0.7))
    given = {"settings": settings, "integration_times": (0.2, 0.7)}
    z, change = flow(x, torch.zeros(5).double(), probes=probes, **given)
    assert torch.equal(t(x), z) and torch.equal(t.log_abs_det_jacobian(x, z), -change)
    assert torch.equal(t.inv(z), flow(z, reverse=True, **given))


def test_faces_of_a_transform():
    flow = cnf()
    t = FlowTransform(flow)
    assert t.bijective and t.inv.inv is t and t.domain.event_dim == t.codomain.event_dim == 1
    assert t.with_cache(0) is t and t.with_cache()._cache_size == 1
    assert t == t and t != FlowTransform(flow)
    assert t.forward_shape((5, 3)) == t.inverse_shape((5, 3)) == (5, 3)
    assert repr(t) == "FlowTransform(FastCNF)"
    cached = FlowTransform(flow, cache_size=1)
    x = torch.randn(5, 3, dtype=torch.float64)
    z = cached(x)
    torch.testing.assert_close(copy.deepcopy(cached)(x), z)
    with pytest.raises(TypeError, match="flow: got a function, expected a FastCNF"):
        FlowTransform(lambda x: x)
    with pytest.raises(ValueError, match="cache_size must be 0 or 1"):
        FlowTransform(flow, cache_size=2)
    with pytest.raises(ValueError, match=r"z: got shape \(5, 2\), expected \(\*, 3\)"):
        t.inv(torch.zeros(5, 2).double())
