"""Every flow in every mode, small, and what they are compared with."""

import torch

from mvae_fast.flows import IAF, PlanarFlow, SylvesterFlow

COND = 4


def sylvester(variant, **sizes):
    return lambda dim, cond_dim, n_flows: SylvesterFlow(
        dim, n_flows, cond_dim, variant=variant, **sizes
    )


#: name -> builder (dim, cond_dim, n_flows) of flows whose log-determinant is that of their map.
DISCRETE = {
    "planar": lambda dim, cond_dim, n_flows: PlanarFlow(dim, n_flows, cond_dim),
    "orthogonal": sylvester("orthogonal"),
    "householder": sylvester("householder", n_householder=3),
    "triangular": sylvester("triangular"),
    "iaf": lambda dim, cond_dim, n_flows: IAF(dim, n_flows, cond_dim, hidden=(13, 11)),
}


def make(kind, dim, cond_dim=0, scale=1.5, n_flows=3):
    """A flow in float64 whose parameters are far from where they start."""
    flow = DISCRETE[kind](dim, cond_dim, n_flows).double()
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


def jacobians(flow, z, cond):
    """The whole Jacobian (B, D, D) of the map, row by row, by autograd."""
    rows = []
    for i, row in enumerate(z):
        one = {name: value[i : i + 1] for name, value in cond.items()}

        def through(x, one=one):
            return flow(x[None], **one)[0]

        rows.append(torch.autograd.functional.jacobian(through, row))
    return torch.stack(rows)


def log_det(flow, z, cond):
    """log|det| (B,) of the map."""
    return torch.linalg.slogdet(jacobians(flow, z, cond)).logabsdet
