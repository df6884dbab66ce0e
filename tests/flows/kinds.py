"""Every flow in every mode, small, and what they are compared with."""

import torch

from mvae_fast.flows import IAF, PlanarFlow, SylvesterFlow

COND = 4


def sylvester(variant, **sizes):
    return lambda dim, cond_dim: SylvesterFlow(dim, 3, cond_dim, variant=variant, **sizes)


#: name -> builder (dim, cond_dim) of flows whose log-determinant is that of their map.
DISCRETE = {
    "planar": lambda dim, cond_dim: PlanarFlow(dim, 5, cond_dim),
    "orthogonal": sylvester("orthogonal"),
    "householder": sylvester("householder", n_householder=3),
    "triangular": sylvester("triangular"),
    "iaf": lambda dim, cond_dim: IAF(dim, 3, cond_dim, hidden=(13, 11)),
}


def make(kind, dim, cond_dim=0, scale=1.5, kinds=DISCRETE):
    """A flow in float64 whose parameters are far from where they start."""
    flow = kinds[kind](dim, cond_dim).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(scale)
    return flow


def inputs(dim, cond_dim=0, rows=6):
    """z, logp, and the keyword ``cond`` where it is wanted."""
    z = torch.randn(rows, dim, dtype=torch.float64)
    logp = torch.randn(rows, 1, dtype=torch.float64)
    cond = {"cond": torch.randn(rows, cond_dim, dtype=torch.float64)} if cond_dim else {}
    return z, logp, cond


def log_det(flow, z, cond):
    """log|det| (B,) of the map, row by row, by autograd's whole Jacobian."""
    jacobians = []
    for i, row in enumerate(z):
        one = {name: value[i : i + 1] for name, value in cond.items()}

        def through(x, one=one):
            return flow(x[None], **one)[0]

        jacobians.append(torch.autograd.functional.jacobian(through, row))
    return torch.linalg.slogdet(torch.stack(jacobians)).logabsdet
