"""Convolutional nets: FFJORD's keys, shapes and values, written out by hand."""

import pytest
import torch
import torch.nn.functional as F

from mvae_fast import FastCNF, ODEfunc, ODEnet
from tests.oracles import LAYER_TYPES

# state_dict of the second of FFJORD's layers, 5 -> 6 channels with stride 2 (kernel 4), literally.
KEYS = {
    "ignore": {"_layer.weight": (6, 5, 4, 4), "_layer.bias": (6,)},
    "hyper": {"_hypernet.weight": (486, 1), "_hypernet.bias": (486,)},
    "squash": {
        "_layer.weight": (6, 5, 4, 4),
        "_layer.bias": (6,),
        "_hyper.weight": (6, 1),
        "_hyper.bias": (6,),
    },
    "concat": {"_layer.weight": (6, 6, 4, 4), "_layer.bias": (6,)},
    "concat_v2": {"_layer.weight": (6, 5, 4, 4), "_layer.bias": (6,), "_hyper_bias.weight": (6, 1)},
    "concatsquash": {
        "_layer.weight": (6, 5, 4, 4),
        "_layer.bias": (6,),
        "_hyper_gate.weight": (6, 1),
        "_hyper_gate.bias": (6,),
        "_hyper_bias.weight": (6, 1),
    },
    "scale": {
        "_layer.weight": (6, 5, 4, 4),
        "_layer.bias": (6,),
        "_hyper.weight": (6, 1),
        "_hyper.bias": (6,),
    },
    "concatscale": {
        "_layer.weight": (6, 5, 4, 4),
        "_layer.bias": (6,),
        "_hyper_gate.weight": (6, 1),
        "_hyper_gate.bias": (6,),
        "_hyper_bias.weight": (6, 1),
    },
    "blend": {
        "_layer0.weight": (6, 5, 4, 4),
        "_layer0.bias": (6,),
        "_layer1.weight": (6, 5, 4, 4),
        "_layer1.bias": (6,),
    },
    "concatcoord": {"_layer.weight": (6, 8, 4, 4), "_layer.bias": (6,)},
}


def random_conv(layer_type, strides=(1, 2, -2), shape=(2, 4, 4), num_squeeze=0):
    torch.manual_seed(0)
    net = ODEnet((5, 6), shape, strides, True, layer_type, "tanh", num_squeeze).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return net


def convolve(x, weight, bias, stride):
    if stride == -2:
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    return F.conv2d(x, weight, bias, stride=stride, padding=1)


def by_hand(layer_type, p, t, x, stride):
    """One layer at the time t, from its parameters."""
    b, _, h, w = x.shape

    def hyper(key):
        return (p[f"{key}.weight"][:, 0] * t + p.get(f"{key}.bias", 0)).view(-1, 1, 1)

    if layer_type == "hyper":
        parameters = p["_hypernet.weight"][:, 0] * t + p["_hypernet.bias"]
        kernel = 3 if stride == 1 else 4
        c = x.shape[1]
        out = len(parameters) // (c * kernel**2 + 1)
        shape = (c, out, kernel, kernel) if stride == -2 else (out, c, kernel, kernel)
        # FFJORD reads the bias from where the weight starts.
        weight = parameters[: c * out * kernel**2].view(shape)
        return convolve(x, weight, parameters[:out], stride)
    if layer_type == "concat":
        x = torch.cat((x.new_full((b, 1, h, w), t), x), 1)
    if layer_type == "concatcoord":
        grid = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        planes = [x.new_full((b, 1, h, w), t), *(axis.double().expand(b, 1, h, w) for axis in grid)]
        x = torch.cat((x, *planes), 1)
    if layer_type == "blend":
        first = convolve(x, p["_layer0.weight"], p["_layer0.bias"], stride)
        return (1 - t) * first + t * convolve(x, p["_layer1.weight"], p["_layer1.bias"], stride)
    y = convolve(x, p["_layer.weight"], p["_layer.bias"], stride)
    if layer_type == "concat_v2":
        return y + hyper("_hyper_bias")
    if layer_type == "squash":
        return y * torch.sigmoid(hyper("_hyper"))
    if layer_type == "scale":
        return y * hyper("_hyper")
    if layer_type == "concatscale":
        return y * hyper("_hyper_gate") + hyper("_hyper_bias")
    if layer_type == "concatsquash":
        return y * torch.sigmoid(hyper("_hyper_gate")) + hyper("_hyper_bias")
    return y


def squeezed(x):
    """(B, C, 2 H, 2 W) -> (B, 4 C, H, W): pixel by pixel."""
    return torch.cat(
        [x[:, c : c + 1, i::2, j::2] for c in range(x.shape[1]) for i in (0, 1) for j in (0, 1)], 1
    )


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("num_squeeze", [0, 1])
def test_values_are_those_of_ffjord(layer_type, num_squeeze):
    strides = (1, 1, 1) if num_squeeze else (1, 2, -2)
    net = random_conv(layer_type, strides, (8, 2, 2) if num_squeeze else (2, 4, 4), num_squeeze)
    z = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    t = 0.3
    y = squeezed(z) if num_squeeze else z
    for i, stride in enumerate(strides):
        parameters = {
            k.removeprefix(f"layers.{i}."): v
            for k, v in net.state_dict().items()
            if k.startswith(f"layers.{i}.")
        }
        y = by_hand(layer_type, parameters, t, y, stride)
        y = torch.tanh(y) if i < 2 else y
    got = net(torch.tensor(t, dtype=torch.float64), z)
    got = squeezed(got) if num_squeeze else got
    torch.testing.assert_close(got, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_keys_are_those_of_ffjord(layer_type):
    state = ODEnet((5, 6), (2, 4, 4), (1, 2, -2), True, layer_type).layers[1].state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == KEYS[layer_type]


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["euler", "dopri5"])
def test_a_flow_of_images(solver):
    # The trace by the Jacobian of each row, and one Euler step by hand.
    net = random_conv("concatsquash")
    odefunc = ODEfunc(net, "brute_force")
    flow = FastCNF(odefunc, n_steps=1, solver=solver, atol=1e-9, rtol=1e-9).double()
    z, zero = torch.randn(2, 2, 4, 4, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    z_t, logp = flow(z, zero)
    if solver == "euler":
        start = torch.tensor(0.0, dtype=torch.float64)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x: net(start, x[None])[0].flatten()))(z)
        tau = jacobian.flatten(2).diagonal(dim1=1, dim2=2).sum(1)
        torch.testing.assert_close(z_t, z + net(start, z), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(logp[:, 0], -tau, rtol=1e-12, atol=1e-12)
    back, change = flow(z_t, logp, reverse=True)
    if solver == "dopri5":
        # The tolerance bounds the error of one step, and there are tens of them, there and back.
        torch.testing.assert_close((back, change), (z, zero), rtol=1e-7, atol=1e-7)
        (z_t.sum() + logp.sum()).backward()
        assert all(p.grad.abs().sum() > 0 for p in net.parameters())
    assert "torchdiffeq: odefunc.diffeq.layers.0 is ConcatSquashConv2d" in repr(flow)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strides": None}, "strides: got None, expected 3, one for every layer, of 1, 2 and -2"),
        ({"strides": (1, 1)}, r"strides: got \(1, 1\), expected 3"),
        ({"strides": (1, 3, 1)}, r"strides: got \(1, 3, 1\), expected 3"),
        ({"input_shape": (8,)}, r"input_shape: got \(8,\), expected \(C, H, W\)"),
        ({"conv": "False"}, "conv: got 'False', expected True or False"),
        ({"num_squeeze": -1}, "num_squeeze: got -1, expected an integer >= 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    given = {"input_shape": (2, 4, 4), "strides": (1, 1, 1), "conv": True, **arguments}
    with pytest.raises(ValueError, match=message):
        ODEnet((5, 6), **given)
