"""Each layer against its formula, written out by hand."""

import numpy as np
import pytest
import torch

from mvae_fast import ODEnet
from mvae_fast.nets import layers
from tests.oracles import LAYER_TYPES, random_net

T = torch.tensor(0.37, dtype=torch.float64)


def one_layer(layer_type, dim_in=3, dim_out=5):
    layer = layers.LINEAR_LAYERS[layer_type](dim_in, dim_out).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer, dict(layer.named_parameters()), torch.randn(7, dim_in, dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def test_ignore():
    layer, p, x = one_layer("ignore")
    expected = x @ p["_layer.weight"].T + p["_layer.bias"]
    torch.testing.assert_close(layer(T, x), expected)


@pytest.mark.parametrize("layer_type", ["concat", "concatcoord"])
def test_concat_takes_time_as_first_input(layer_type):
    layer, p, x = one_layer(layer_type)
    weight = p["_layer.weight"]
    expected = x @ weight[:, 1:].T + weight[:, 0] * T + p["_layer.bias"]
    torch.testing.assert_close(layer(T, x), expected)


def test_concat_v2():
    layer, p, x = one_layer("concat_v2")
    expected = x @ p["_layer.weight"].T + p["_layer.bias"] + p["_hyper_bias.weight"][:, 0] * T
    torch.testing.assert_close(layer(T, x), expected)


def test_squash():
    layer, p, x = one_layer("squash")
    gate = sigmoid(p["_hyper.weight"][:, 0] * T + p["_hyper.bias"])
    expected = (x @ p["_layer.weight"].T + p["_layer.bias"]) * gate
    torch.testing.assert_close(layer(T, x), expected)


def test_concatsquash():
    layer, p, x = one_layer("concatsquash")
    gate = sigmoid(p["_hyper_gate.weight"][:, 0] * T + p["_hyper_gate.bias"])
    affine = x @ p["_layer.weight"].T + p["_layer.bias"]
    torch.testing.assert_close(layer(T, x), affine * gate + p["_hyper_bias.weight"][:, 0] * T)


def test_scale():
    layer, p, x = one_layer("scale")
    gate = p["_hyper.weight"][:, 0] * T + p["_hyper.bias"]
    expected = (x @ p["_layer.weight"].T + p["_layer.bias"]) * gate
    torch.testing.assert_close(layer(T, x), expected)


def test_concatscale():
    layer, p, x = one_layer("concatscale")
    gate = p["_hyper_gate.weight"][:, 0] * T + p["_hyper_gate.bias"]
    affine = x @ p["_layer.weight"].T + p["_layer.bias"]
    torch.testing.assert_close(layer(T, x), affine * gate + p["_hyper_bias.weight"][:, 0] * T)


def test_blend():
    layer, p, x = one_layer("blend")
    start = x @ p["_layer0.weight"].T + p["_layer0.bias"]
    stop = x @ p["_layer1.weight"].T + p["_layer1.bias"]
    torch.testing.assert_close(layer(T, x), (1 - T) * start + T * stop)


def test_hyper_takes_the_bias_first():
    layer, p, x = one_layer("hyper")
    hidden = torch.tanh(p["_hypernet.0.weight"][:, 0] * T + p["_hypernet.0.bias"])
    parameters = p["_hypernet.2.weight"] @ hidden + p["_hypernet.2.bias"]
    expected = x @ parameters[5:].reshape(5, 3).T + parameters[:5]
    torch.testing.assert_close(layer(T, x), expected)


def test_hyper_starts_constant_in_time():
    layer = layers.HyperLinear(3, 5)
    x = torch.randn(4, 3)
    assert torch.equal(layer(torch.tensor(0.0), x), layer(torch.tensor(0.9), x))
    assert layer(torch.tensor(0.0), x).abs().max() > 0


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_net_applies_nonlinearity_between_layers_only(layer_type):
    net = random_net((4, 6), 3, layer_type, "tanh")
    z = torch.randn(5, 3, dtype=torch.float64)
    y = z
    for index, layer in enumerate(net.layers):
        y = layer(T, torch.tanh(y) if index else y)
    torch.testing.assert_close(net(T, z), y)


def test_swish_has_its_own_beta_in_every_layer():
    net = ODEnet((4, 6), (3,), nonlinearity="swish")
    betas = {n: p for n, p in net.named_parameters() if n.endswith("beta")}
    assert list(betas) == ["activation_fns.0.beta", "activation_fns.1.beta"]
    first, second = betas.values()
    assert first is not second and first.ndim == 0 and first.item() == 1
    x = torch.randn(9)
    with torch.no_grad():
        first.fill_(0.3)
    torch.testing.assert_close(net.activation_fns[0](x), x * sigmoid(0.3 * x))
    torch.testing.assert_close(net.activation_fns[1](x), x * sigmoid(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_type": "film"}, "layer_type: got 'film', expected one of 'ignore'"),
        ({"nonlinearity": "mish"}, "nonlinearity: got 'mish', expected one of 'softplus'"),
        ({"input_shape": (3, 8, 8)}, r"input_shape: got \(3, 8, 8\), expected \(D,\)"),
        ({"hidden_dims": (4, 0)}, "hidden_dims: got 0, expected an integer >= 1"),
        ({"input_shape": (3.0,)}, "input_shape: got 3.0, expected an integer >= 1"),
        ({"num_squeeze": 1}, "num_squeeze: got 1, expected 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ODEnet(**{"hidden_dims": (4,), "input_shape": (3,), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, (2,)), r"hidden_dims: got 8, expected a sequence of integers >= 1; remedy: \(8,\)"),
        (((8,), 2), r"input_shape: got 2, expected a sequence of integers >= 1; remedy: \(2,\)"),
        (("8", (2,)), r"hidden_dims: got '8', expected a sequence of integers"),
    ],
)
def test_numbers_for_sequences_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ODEnet(*arguments)


def test_widths_may_be_of_other_libraries():
    assert ODEnet(np.array([5, 4]), torch.Size((3,))).widths == (3, 5, 4, 3)
