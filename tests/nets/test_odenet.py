"""ODEnet: what a context adds to it, and its nonlinearities by name."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.core import reference
from mvae_fast.nets.fields import field_of
from tests.oracles import LAYER_TYPES, gradients

T = torch.tensor(0.3, dtype=torch.float64)


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("nonlinearity", ["tanh", "swish"])
def test_a_context_leaves_the_keys_of_ffjord_to_the_rest(layer_type, nonlinearity):
    names = {"layer_type": layer_type, "nonlinearity": nonlinearity}
    plain, net = (ODEnet((5, 4), (3,), context_dim=c, **names) for c in (0, 2))
    own = {f"context_layers.{i}.weight" for i in range(3)}
    assert net.state_dict().keys() == plain.state_dict().keys() | own
    assert [tuple(net.get_parameter(name).shape) for name in sorted(own)] == [
        (5, 2),
        (4, 2),
        (3, 2),
    ]
    # A checkpoint of FFJORD's loads into the rest.
    missing, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
    assert set(missing) == own and not unexpected
    z = torch.randn(6, 3)
    t = torch.tensor(0.3)
    torch.testing.assert_close(net(t, z, torch.zeros(6, 2)), plain(t, z))
    assert (net(t, z, torch.ones(6, 2)) - plain(t, z)).abs().max() > 1e-3


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_the_first_layer_with_a_context_is_one_of_more_inputs(layer_type):
    # V c reaches the state only through the first layer's product where there is no other.
    net = ODEnet((), (3,), layer_type=layer_type, context_dim=2).double()
    z, context = (torch.randn(6, n, dtype=torch.float64) for n in (3, 2))
    got = net(T, z, context) - net(T, z, torch.zeros_like(context))
    gate = torch.ones(3, dtype=torch.float64)
    if layer_type in ("squash", "concatsquash"):
        layer = net.layers[0]
        hyper = layer._hyper if layer_type == "squash" else layer._hyper_gate
        gate = torch.sigmoid(hyper(T.reshape(1)))
    if layer_type in ("scale", "concatscale"):
        layer = net.layers[0]
        gate = (layer._hyper if layer_type == "scale" else layer._hyper_gate)(T.reshape(1))
    expected = context @ net.context_layers[0].weight.T * gate
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("nonlinearity", ["tanh", "swish", "silu"])
@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_the_field_of_a_context_is_the_net(layer_type, nonlinearity):
    net = ODEnet(
        (5, 4), (3,), layer_type=layer_type, nonlinearity=nonlinearity, context_dim=2
    ).double()
    for activation in net.activation_fns:
        for beta in activation.parameters():
            torch.nn.init.constant_(beta, 0.7)
    z, context = (torch.randn(6, n, dtype=torch.float64, requires_grad=True) for n in (3, 2))
    zero = torch.zeros(1, dtype=torch.float64)
    velocity, *_ = reference.dynamics(z, field_of(net, T + zero, context).tables(), 0)
    expected = net(T, z, context)
    torch.testing.assert_close(velocity, expected, rtol=1e-12, atol=1e-12)
    leaves = [z, context, *net.parameters()]
    for a, b in zip(gradients((velocity,), leaves), gradients((expected,), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_contexts_that_do_not_fit():
    t, z = torch.zeros(()), torch.zeros(6, 3)
    net = ODEnet((5,), (3,), context_dim=2)
    for context, got in ((None, "None"), (z, r"shape \(6, 3\)"), (z[:, 0], r"shape \(6,\)")):
        with pytest.raises(ValueError, match=rf"^context: got {got}, expected \(B, 2\)"):
            net(t, z, context)
    with pytest.raises(ValueError, match="^context: given, expected None, as the net has context_"):
        ODEnet((5,), (3,))(t, z, z)
    with pytest.raises(ValueError, match="^context_dim: got 2, expected 0 for convolutions"):
        ODEnet((5,), (3, 4, 4), strides=(1, 1), conv=True, context_dim=2)
    for wrong in (-1, 1.5, None, "2"):
        with pytest.raises((TypeError, ValueError), match="^context_dim: got"):
            ODEnet((5,), (3,), context_dim=wrong)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("hidden", [(7,), (5, 4), (4, 3, 5)])
@pytest.mark.parametrize("layer_type", ["concatsquash", "blend"])
@pytest.mark.slow
def test_silu_is_swish_with_a_beta_of_one(engine, layer_type, hidden, trace):
    silu, swish = (
        ODEnet(hidden, (3,), layer_type=layer_type, nonlinearity=name).double()
        for name in ("silu", "swish")
    )
    assert not any("beta" in name for name, _ in silu.named_parameters())
    swish.load_state_dict(silu.state_dict(), strict=False)
    z, logp = torch.randn(5, 3, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(silu(T, z), swish(T, z), rtol=1e-14, atol=1e-14)
    results = []
    for net in (silu, swish):
        flow = FastCNF(ODEfunc(net), n_steps=3, trace=trace, engine=engine).double()
        assert flow.fused
        got = flow(z, logp, probes=torch.ones_like(z) if trace == "hutchinson" else None)
        shared = [p for name, p in net.named_parameters() if "beta" not in name]
        results.append([*got, *gradients(got, shared)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
