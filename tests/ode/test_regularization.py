"""FFJORD's regularisers against their definitions, by an independent Jacobian."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.ode.regularization import REGULARIZATION_FNS
from mvae_fast.ode.regularized_odefunc import RegularizedODEfunc
from tests.oracles import random_net

DIM = 3


def rms(v):
    v = v.flatten(1)
    return (v.square().sum(1).sqrt() / v.shape[1] ** 0.5).mean()


def definitions(net, t, z):
    velocity = net(t, z)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: net(t, row)))(z)
    diagonal = jacobian.diagonal(dim1=1, dim2=2)
    off = jacobian - torch.diag_embed(diagonal)
    return {
        "l1int": velocity.abs().mean(),
        "l2int": rms(velocity),
        "dl2int": rms(torch.einsum("bji,bj->bi", jacobian, velocity)),
        "JFrobint": rms(jacobian),
        "JdiagFrobint": rms(diagonal),
        "JoffdiagFrobint": (off.square().sum((1, 2)) / (DIM * (DIM - 1))).mean(),
        "kinetic_energy": velocity.square().sum(1).mean(),
        "jacobian_norm": jacobian.square().sum((1, 2)).mean(),
    }


def make(fns, **settings):
    net = random_net((7,), DIM, "concat", "tanh")
    settings = {"T": 1.0, "n_steps": 4, "trace": "exact", "regularization_fns": fns, **settings}
    return FastCNF(ODEfunc(net), **settings).double()


def states():
    return torch.randn(5, DIM, dtype=torch.float64), torch.zeros(5, 1, dtype=torch.float64)


def test_integrals_along_the_path():
    flow = make(tuple(REGULARIZATION_FNS))
    net = flow.odefunc.odefunc.diffeq
    z, logp = states()
    z_t, _ = flow(z, logp)
    integrals = flow.get_regularization_states()
    expected = dict.fromkeys(REGULARIZATION_FNS, 0.0)
    for step in range(4):
        t = torch.tensor(step / 4, dtype=torch.float64)
        for name, value in definitions(net, t, z).items():
            expected[name] = expected[name] + value / 4
        z = z + net(t, z) / 4
    torch.testing.assert_close(z_t, z, rtol=1e-12, atol=1e-12)
    for got, name in zip(integrals, REGULARIZATION_FNS, strict=True):
        assert got.shape == ()
        torch.testing.assert_close(got, expected[name], rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("needs_grad", [False, True])
def test_gradients_reach_the_parameters(adjoint, needs_grad):
    flow = make(("l2int", "JFrobint"), solver="rk4", n_steps=30, adjoint=adjoint)
    z, logp = states()
    z.requires_grad_(needs_grad)
    flow(z, logp)
    l2, frobenius = flow.get_regularization_states()
    (l2 + frobenius).backward()
    weight = flow.odefunc.odefunc.diffeq.layers[0]._layer.weight
    gradient, step = weight.grad[0, 1].item(), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 1] += sign * step
        flow(z, logp)
        values.append(sum(flow.get_regularization_states()).item())
        with torch.no_grad():
            weight[0, 1] -= sign * step
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_callables_share_a_context():
    calls = []

    def first(x, logp, dx, dlogp, context):
        context.seen = dx
        return dx.square().mean()

    def second(x, logp, dx, dlogp, context):
        assert context.seen is dx and x.requires_grad
        assert logp.shape == dlogp.shape == (5, 1)
        calls.append(dlogp)
        return dlogp.square().mean()

    flow = make((first, second))
    z, logp = states()
    flow(z, logp)
    assert len(calls) == 4 and len(flow.get_regularization_states()) == flow.nreg == 2


def test_only_in_training_and_cleared_by_reading():
    flow = make(("l2int",))
    z, logp = states()
    assert flow.get_regularization_states() is None
    trained = flow(z, logp)
    assert len(flow.get_regularization_states()) == 1
    assert flow.get_regularization_states() is None
    evaluated = flow.eval()(z, logp)
    assert flow.get_regularization_states() is None
    torch.testing.assert_close(trained, evaluated, rtol=1e-12, atol=1e-12)


def test_without_logp():
    flow = make(("l2int",))
    z, logp = states()
    torch.testing.assert_close(flow(z), flow(z, logp)[0])
    assert len(flow.get_regularization_states()) == 1


def test_no_functions_leave_the_engine_in_place(engine):
    flow = make((), engine=engine)
    z, logp = states()
    flow(z, logp)
    assert isinstance(flow.odefunc, RegularizedODEfunc) and flow.nreg == 0
    flow = make(("JFrobint",), engine=engine if engine != "reference" else "cpp")
    with pytest.raises(ValueError, match="without regularization_fns other than l1int, l2int"):
        flow(z, logp)


def test_one_dimension_has_no_off_diagonal():
    net = random_net((4,), 1)
    fns = ("JoffdiagFrobint",)
    flow = FastCNF(ODEfunc(net), regularization_fns=fns, trace="exact", n_steps=2).double()
    flow(torch.randn(5, 1, dtype=torch.float64))
    assert flow.get_regularization_states()[0] == 0


def test_wrapper_by_itself():
    flow = make(("l1int",))
    z, logp = states()
    wrapper, t = flow.odefunc, torch.tensor(0.2, dtype=torch.float64)
    wrapper.odefunc.divergence_fn = "brute_force"
    dz, dlogp, l1 = wrapper(t, (z, logp, torch.zeros(())))
    torch.testing.assert_close((dz, dlogp), wrapper(t, (z, logp)))
    torch.testing.assert_close(l1, dz.abs().mean())
    assert wrapper.num_evals() == 2
    wrapper.before_odeint(e=torch.ones_like(z))
    assert wrapper.num_evals() == 0
