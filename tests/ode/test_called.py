"""ODE functions that are more than an `ODEfunc`'s parts: subclasses, hooks, and other classes."""

import pytest
import torch
from torch import nn

from mvae_fast import FastCNF, ODEfunc, ODEnet
from tests.oracles import distance, random_net

DIM, STEPS, END = 3, 4, 1.0


def states():
    torch.manual_seed(1)
    return torch.randn(4, DIM, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)


class Halved(ODEfunc):
    def forward(self, t, states):
        dz, *others = super().forward(t, states)
        return 0.5 * dz, *others


class Counted(ODEfunc):
    starts = 0

    def before_odeint(self, e=None):
        self.starts += 1
        super().before_odeint(e)


def own_odefunc_forward(odefunc):
    forward = odefunc.forward

    def halved(t, states):
        dz, *others = forward(t, states)
        return 0.5 * dz, *others

    odefunc.forward = halved


@pytest.mark.parametrize("regularization_fns", [None, ("l2int",)])
@pytest.mark.parametrize("kind", ["subclass", "own forward", "hook"])
@pytest.mark.parametrize("trace", [None, "exact", "hutchinson"])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.slow
def test_an_odefunc_that_is_more_than_its_parts_is_called(kind, regularization_fns, trace, adjoint):
    torch.manual_seed(0)
    net = random_net((5,), DIM, "squash", "tanh")
    odefunc = (Halved if kind == "subclass" else ODEfunc)(net, "brute_force")
    if kind == "own forward":
        own_odefunc_forward(odefunc)
    if kind == "hook":
        odefunc.register_forward_hook(lambda module, inputs, out: (0.5 * out[0], *out[1:]))
    flow = FastCNF(
        odefunc,
        END,
        regularization_fns=regularization_fns,
        n_steps=STEPS,
        trace=trace,
        adjoint=adjoint,
    ).double()
    z, logp = states()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    z_t, logp_t = flow(z, logp, probes=noise)
    h, expected, total = END / STEPS, z, logp[:, 0]
    for s in range(STEPS):
        t = torch.tensor(h * s, dtype=torch.float64)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row, t=t: net(t, row)))(expected)
        if noise is None:
            tau = jacobian.diagonal(dim1=1, dim2=2).sum(1)
        else:
            tau = torch.einsum("bi,bij,bj->b", noise, jacobian, noise)
        expected, total = expected + h * 0.5 * net(t, expected), total - h * tau
    assert distance(z_t, expected) < 1e-12 and distance(logp_t[:, 0], total) < 1e-12
    assert flow.num_evals() == STEPS
    z_t.sum().backward()
    assert net.layers[0]._layer.weight.grad.abs().sum() > 0
    flow.engine = "cpp"
    with pytest.raises(ValueError, match=r"engine: 'cpp' integrates.*here odefunc"):
        flow(z, logp)


def test_a_before_odeint_of_a_user_is_called():
    flow = FastCNF(Counted(ODEnet((4,), (DIM,))), n_steps=2)
    flow(torch.zeros(2, DIM), torch.zeros(2, 1))
    assert flow.odefunc.starts == 1


class Autoencoder(nn.Module):
    """To the interface of FFJORD's AutoencoderODEfunc: no ODEfunc, and no num_evals."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 3)
        self.register_buffer("_num_evals", torch.tensor(0.0))

    def before_odeint(self, e=None):
        self._e = e
        self._num_evals.fill_(0)

    def forward(self, t, y_and_logpy):
        y, _ = y_and_logpy
        self._num_evals += 1
        with torch.enable_grad():
            y.requires_grad_(True)
            dy = torch.tanh(self.net(y)) * t
            e = torch.ones_like(y) if self._e is None else self._e
            (vjp,) = torch.autograd.grad(dy, y, e, create_graph=True)
        return dy, -(vjp * e).sum(1, keepdim=True)


@pytest.mark.parametrize("noise", [None, torch.tensor([[1.0, -1.0, 1.0]]).expand(5, 3)])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("needs_grad", [False, True])
def test_ode_functions_of_others_are_called(noise, adjoint, needs_grad):
    flow = FastCNF(Autoencoder(), n_steps=2, adjoint=adjoint)
    z, logp = torch.randn(5, 3, requires_grad=needs_grad), torch.randn(5, 1)
    z_t, logp_t = flow(z, logp, probes=noise)
    e = torch.ones_like(z) if noise is None else noise
    expected, total = z, logp
    for t in (0.0, 0.5):
        value = torch.tanh(flow.odefunc.net(expected))
        jacobian = t * (1 - value.square()).unsqueeze(2) * flow.odefunc.net.weight
        total = total - 0.5 * torch.einsum("bi,bij,bj->b", e, jacobian, e).unsqueeze(1)
        expected = expected + 0.5 * t * value
    torch.testing.assert_close((z_t, logp_t), (expected, total))
    assert flow.num_evals() == 2 and z.requires_grad == needs_grad
    assert "engine=auto (torchdiffeq: odefunc is Autoencoder, not ODEfunc)" in repr(flow)
    (z_t.sum() + logp_t.sum()).backward()
    assert flow.odefunc.net.weight.grad.abs().sum() > 0
    assert flow(z).shape == z.shape
    flow.trace = "exact"
    with pytest.raises(
        ValueError, match="trace and n_probes: got 'exact' and 1, but odefunc, a Auto"
    ):
        flow(z, logp)
