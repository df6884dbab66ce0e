"""Flows whose density is known: f = A z takes x to expm(A) x, so that data are Gaussian."""

import torch
from torch.distributions import MultivariateNormal

from mvae_fast import FastCNF, ODEfunc, ODEnet


def linear_flow(dim=3, dtype=torch.float64, **settings):
    """A flow with f = A z, and A."""
    net = ODEnet((), (dim,), layer_type="ignore").double()
    generator = torch.Generator().manual_seed(dim)
    # Of a norm of about 1: 100 steps of rk4 have an error of |A|^5 100^-4 / 120 = 1e-10.
    a = torch.randn(dim, dim, generator=generator, dtype=torch.float64) / (2 * dim**0.5)
    with torch.no_grad():
        net.layers[0]._layer.weight.copy_(a)
        net.layers[0]._layer.bias.zero_()
    settings = {"solver": "rk4", "n_steps": 100, "trace": "exact", **settings}
    flow = FastCNF(ODEfunc(net), **settings).to(dtype)
    return flow, a


def density_of(a, reverse=False):
    """Of x where expm(A) x is N(0, I); with the flow reversed, where expm(-A) x is."""
    to_data = torch.linalg.matrix_exp(a if reverse else -a)
    return MultivariateNormal(
        torch.zeros(len(a), dtype=a.dtype), scale_tril=torch.linalg.cholesky(to_data @ to_data.T)
    )
