"""Flows of zuko on these engines, against zuko itself."""

import copy

import pytest
import torch
from torch import nn

from mvae_fast.convert import from_zuko
from tests.oracles import autograd_trace, distance, gradients

zuko = pytest.importorskip("zuko", reason="zuko is not installed: pip install zuko")

DIM, COND, ROWS = 3, 4, 5


def zuko_flow(context=COND, dtype=torch.float64, **options):
    torch.manual_seed(0)
    flow = zuko.flows.CNF(DIM, context, **{"activation": nn.SiLU, **options}).to(dtype)
    return flow


def inputs(context=COND, dtype=torch.float64):
    torch.manual_seed(1)
    x = torch.randn(ROWS, DIM, dtype=dtype)
    return x, torch.randn(ROWS, context, dtype=dtype) if context else None


def trained(flow):
    """Some steps of zuko's own training."""
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    x, c = inputs(dtype=next(flow.parameters()).dtype)
    for _ in range(3):
        optimizer.zero_grad()
        (-flow(c).log_prob(x).mean()).backward()
        optimizer.step()
    return flow


@pytest.mark.parametrize("context", [0, COND])
def test_a_trained_flow_gives_zukos_numbers(context):
    flow = zuko_flow(context, hidden_features=(16, 16))
    flow = trained(flow) if context else flow
    flow.transform.atol = flow.transform.rtol = 1e-12
    x, c = inputs(context)
    ours = from_zuko(flow, solver="rk4", n_steps=400)
    assert ours.cnf.fused
    torch.testing.assert_close(ours(c).log_prob(x), flow(c).log_prob(x), rtol=1e-10, atol=1e-10)
    for name in ("sample", "rsample_and_log_prob"):
        torch.manual_seed(3)
        got = getattr(ours(c), name)((7,))
        torch.manual_seed(3)
        expected = getattr(flow(c), name)((7,))
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_float32():
    flow = trained(zuko_flow(dtype=torch.float32))
    x, c = inputs()
    wide = copy.deepcopy(flow).double()
    wide.transform.atol = wide.transform.rtol = 1e-9
    ours = from_zuko(flow, solver="rk4", n_steps=50)
    got, expected = ours(c.float()).log_prob(x.float()), wide(c).log_prob(x)
    assert got.dtype == torch.float32 and ours.cnf.fused
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_solver_and_tolerances_are_zukos():
    flow = zuko_flow(atol=1e-9, rtol=1e-8, hidden_features=(8,))
    ours = from_zuko(flow)
    assert (ours.cnf.solver, ours.cnf.atol, ours.cnf.rtol) == ("dopri5", 1e-9, 1e-8)
    x, c = inputs()
    torch.testing.assert_close(ours(c).log_prob(x), flow(c).log_prob(x), rtol=1e-7, atol=1e-7)
    assert from_zuko(zuko_flow(exact=False)).cnf.trace == "hutchinson"


@pytest.mark.parametrize(
    "activation",
    [nn.ELU, nn.Tanh, nn.ReLU, nn.GELU, nn.SELU, nn.Softplus, nn.Sigmoid, nn.LeakyReLU, nn.Mish],
)
@pytest.mark.parametrize("freqs", [0, 1, 3, 20])
def test_one_step_is_that_of_f_whatever_the_activation(activation, freqs):
    flow = zuko_flow(activation=activation, freqs=freqs, hidden_features=(8, 7))
    ours = from_zuko(flow, solver="euler", n_steps=1)
    assert ours.cnf.fused == (activation is not nn.Mish)
    x, c = inputs()
    x.requires_grad_()
    c.requires_grad_()
    zero = torch.zeros((), dtype=x.dtype)
    f, trace = autograd_trace(lambda t, z: flow.transform.f(t, z, c), zero, x)
    expected = flow.base().log_prob(x + f) + trace
    leaves = [x, c, *flow.parameters()]
    got = ours(c).log_prob(x)
    assert distance(got, expected) < 1e-12
    pairs = zip(gradients((got,), leaves), gradients((expected,), leaves), strict=True)
    for a, b in pairs:
        assert distance(a, b) < 1e-11


def test_shapes_go_together_as_zukos():
    flow = zuko_flow(hidden_features=(8,), atol=1e-10, rtol=1e-10)
    ours = from_zuko(flow, solver="rk4", n_steps=60)
    x, c = inputs()
    for values, context in ((x, c[0]), (x.expand(2, ROWS, DIM), c), (x[0], c[0])):
        got, expected = ours(context).log_prob(values), flow(context).log_prob(values)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    same = x[0].expand(ROWS, DIM)  # which zuko does not do by itself
    torch.testing.assert_close(ours(c).log_prob(x[0]), ours(c).log_prob(same))
    assert ours(c).sample((2, 3)).shape == flow(c).sample((2, 3)).shape == (2, 3, ROWS, DIM)
    assert ours(c).batch_shape == flow(c).batch_shape
    assert not ours(c).sample().requires_grad and ours(c).rsample().requires_grad


def test_parameters_are_zukos_and_train():
    flow = zuko_flow(hidden_features=(8,))
    ours = from_zuko(flow, solver="rk4", n_steps=4)
    assert {id(p) for p in ours.parameters()} == {id(p) for p in flow.parameters()}
    keys = {f"cnf.odefunc.diffeq.{name}" for name in flow.state_dict() if "ode" in name}
    assert keys <= set(ours.state_dict())
    x, c = inputs()
    before = flow.transform.ode[0].weight.detach().clone()
    optimizer = torch.optim.SGD(ours.parameters(), 0.1)
    (-ours(c).log_prob(x).mean()).backward()
    optimizer.step()
    assert not torch.equal(before, flow.transform.ode[0].weight)


def change_f(flow):
    flow.transform.f = lambda t, x, c=None: -type(flow.transform).f(flow.transform, t, x, c)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda flow: flow.transform.ode[0].register_forward_hook(lambda m, i, o: 2 * o), "hooks"),
        (lambda flow: flow.transform.ode.insert(1, nn.Dropout(0.5)), "is Dropout in training"),
        (lambda flow: flow.transform.ode.insert(1, zuko.nn.LayerNorm()), "is LayerNorm"),
        (change_f, "transform has an f of its own"),
    ],
)
def test_what_is_changed_later_is_called(change, reason):
    flow = zuko_flow(hidden_features=(8,))
    ours = from_zuko(flow, solver="euler", n_steps=1)
    assert ours.cnf.fused
    change(flow)
    assert not ours.cnf.fused and reason in repr(ours)
    x, c = inputs()
    x.requires_grad_()
    torch.manual_seed(4)
    got = ours(c).log_prob(x)
    torch.manual_seed(4)
    f, trace = autograd_trace(
        lambda t, z: flow.transform.f(t, z, c), torch.zeros((), dtype=x.dtype), x
    )
    assert distance(got, flow.base().log_prob(x + f) + trace) < 1e-12


def test_layer_norm_is_called_from_the_start():
    ours = from_zuko(zuko_flow(normalize=True), solver="rk4", n_steps=2)
    assert not ours.cnf.fused and "LayerNorm" in repr(ours)
    x, c = inputs()
    assert ours(c).log_prob(x).shape == (ROWS,)


def test_what_is_no_continuous_flow_of_zuko_is_refused():
    with pytest.raises(TypeError, match="flow: got a Linear, expected a zuko"):
        from_zuko(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="flow: got a MAF with a LazyComposedTransform"):
        from_zuko(zuko.flows.MAF(2))
    flow = zuko_flow()
    flow.register_forward_hook(lambda *args: None)
    with pytest.raises(ValueError, match="flow has forward hooks"):
        from_zuko(flow)


def test_a_patched_class(monkeypatch):
    flow = zuko_flow(hidden_features=(8,))
    ours = from_zuko(flow, solver="euler", n_steps=1)
    forward = zuko.nn.Linear.forward
    monkeypatch.setattr(zuko.nn.Linear, "forward", lambda self, x: 2 * forward(self, x))
    assert not ours.cnf.fused
