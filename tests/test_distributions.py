import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.distributions import FlowPosterior
from mvae_fast.vae import cnf_bias_posterior, cnf_posterior
from tests.vae.models import AffineFlow


def posterior(flow, rows=3, dim=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, rows, dim, generator=generator, dtype=dtype)
    return FlowPosterior(mean, logvar, flow)


def test_without_a_flow_it_is_a_gaussian():
    q = posterior(None)
    z, logp = q.rsample_and_log_prob((4,))
    assert z.shape == (4, 3, 5) and logp.shape == (4, 3)
    torch.testing.assert_close(logp, q.base_dist.log_prob(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q.log_prob(z), logp, rtol=1e-12, atol=1e-12)


def test_an_affine_flow_gives_the_affine_image():
    flow = AffineFlow().double()
    q = posterior(flow)
    scale = flow.log_scale.exp()
    image = Independent(Normal(q.loc * scale + flow.shift, q.scale * scale), 1)
    z, logp = q.rsample_and_log_prob((4,))
    torch.testing.assert_close(logp, image.log_prob(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q.log_prob(z), logp, rtol=1e-12, atol=1e-12)
    z, logp = q.transport(q.loc)
    torch.testing.assert_close(z, q.loc * scale + flow.shift)
    torch.testing.assert_close(logp, image.log_prob(z), rtol=1e-12, atol=1e-12)


def test_a_cnf_with_many_steps_has_the_density_of_its_map():
    torch.manual_seed(0)
    odefunc = ODEfunc(ODEnet((16,), (5,), layer_type="squash"))
    flow = FastCNF(odefunc, n_steps=2000, trace="exact").double()
    q = posterior(flow)
    z, logp = q.rsample_and_log_prob()
    # Integrating back also has an error of the order of the step.
    torch.testing.assert_close(q.log_prob(z), logp, rtol=0, atol=2e-3)


def test_the_density_integrates_to_one():
    q = FlowPosterior(torch.tensor([0.3]), torch.tensor([-0.5]), AffineFlow(1))
    grid = torch.linspace(-12, 12, 20_001).unsqueeze(1)
    assert torch.trapezoid(q.log_prob(grid).exp(), grid.squeeze(1)).item() == pytest.approx(1, 1e-4)


def test_samples_are_reparametrised_and_sample_is_not():
    q = posterior(AffineFlow().double())
    q.loc.requires_grad_()
    assert q.rsample().requires_grad
    assert not q.sample().requires_grad
    (gradient,) = torch.autograd.grad(q.rsample().sum(), q.loc)
    torch.testing.assert_close(gradient, q.flow.log_scale.exp().expand(3, 5))


def test_generator_decides_the_noise():
    q = posterior(AffineFlow().double())
    one, two = (q.rsample((2,), generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, q.rsample((2,), generator=torch.Generator().manual_seed(8)))


@pytest.mark.slow
def test_generator_reaches_the_noise_of_a_compiled_flow():
    flow = cnf_posterior(5, hidden=(7,), trace="hutchinson")
    q = posterior(flow.double())
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    wanted = q.transport(q.loc, generator=generators[0])[1]
    q.flow = torch.compile(flow, backend="eager")
    assert torch.equal(q.transport(q.loc, generator=generators[1])[1], wanted)


@pytest.mark.parametrize("make", [cnf_posterior, cnf_bias_posterior])
@pytest.mark.parametrize("n_blocks", [1, 2])
def test_generator_decides_the_noise_of_hutchinson(make, n_blocks):
    q = posterior(make(5, hidden=(7,), trace="hutchinson", n_blocks=n_blocks).double())
    z_0, z_T = q.loc + 0.1, q.loc

    def densities(seed):
        generators = [torch.Generator().manual_seed(seed) for _ in range(3)]
        return torch.stack(
            [
                q.rsample_and_log_prob(generator=generators[0])[1],
                q.transport(z_0, generator=generators[1])[1],
                q.log_prob(z_T, generator=generators[2]),
            ]
        )

    first = densities(7)
    assert torch.equal(densities(7), first)
    assert (densities(8) != first).all()


def test_tiny_variances_keep_their_density():
    q = FlowPosterior(torch.full((1, 4), 100.0), torch.full((1, 4), -60.0))
    _, logp = q.rsample_and_log_prob((10,))
    # -sum(logvar) / 2 = 120, less the noise's -0.5 * (|eps|^2 + 4 log 2 pi)
    assert ((logp > 100) & (logp < 117)).all()


@pytest.mark.parametrize("flow", [None, AffineFlow(2)], ids=["none", "affine"])
@pytest.mark.parametrize("logvar", [-60.0, -120.0, -300.0, -1000.0])
def test_a_mean_that_is_all_but_certain_has_its_density(flow, logvar):
    loc, logvar = torch.full((3, 2), 100.0), torch.full((3, 2), logvar)
    q = FlowPosterior(loc.requires_grad_(), logvar.requires_grad_(), flow)
    change = 0.0 if flow is None else flow.log_scale.sum()
    wanted = -0.5 * logvar.sum(1) - torch.tensor(2 * torch.pi).log() - change
    z, logp = q.transport(q.loc)
    torch.testing.assert_close(logp, wanted)
    if flow is None:
        torch.testing.assert_close(q.log_prob(z), wanted)
        assert (q.log_prob(z + 1) < -1e15).all()
    gradients = torch.autograd.grad(logp.sum(), [loc, logvar])
    torch.testing.assert_close(gradients[0], torch.zeros(3, 2))
    torch.testing.assert_close(gradients[1], torch.full((3, 2), -0.5))


def test_noise_is_what_samples_are_made_of():
    q = posterior(AffineFlow().double())
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    noise = q.draw_noise((4,), generator=generators[0])
    assert noise.shape == (4, 3, 5) and noise.dtype == torch.float64
    z, logp = q.transport_noise(noise)
    wanted = q.rsample_and_log_prob((4,), generator=generators[1])
    assert torch.equal(z, wanted[0]) and torch.equal(logp, wanted[1])
    torch.testing.assert_close(q.transport(q.loc + q.scale * noise)[1], logp)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 4\)"):
        FlowPosterior(torch.zeros(2, 3), torch.zeros(2, 4))


def test_repr():
    assert repr(posterior(AffineFlow())) == "FlowPosterior((3,), D=5, flow=AffineFlow)"


def test_estimates_by_samples_of_what_has_no_formula():
    torch.manual_seed(0)
    mean, logvar = torch.randn(4, 2).double(), torch.randn(4, 2).double()

    def double(z, logp):
        return 2 * z + 1, logp - 2 * math.log(2)

    with_flow = FlowPosterior(mean, logvar, double)
    known = Independent(Normal(2 * mean + 1, 2 * (0.5 * logvar).exp()), 1)
    error = 6 * known.stddev / 32
    assert ((with_flow.mean - known.mean).abs() < error).all()
    assert (with_flow.variance / known.variance).log().abs().max() < 0.4
    # Five standard errors of 1024 samples and more: 0.03 of an entropy, 2 to 4 % of a divergence
    # (of 200 estimates each).
    torch.testing.assert_close(with_flow.entropy(), known.entropy(), atol=0.2, rtol=0)
    prior = Independent(Normal(torch.zeros(2).double(), torch.ones(2).double()), 1)
    wanted = kl_divergence(known, prior)
    torch.testing.assert_close(kl_divergence(with_flow, prior), wanted, atol=0, rtol=0.2)
    plain = FlowPosterior(mean, logvar)
    assert torch.equal(plain.mean, mean) and torch.equal(plain.variance, logvar.exp())
