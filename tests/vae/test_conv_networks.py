import pytest
import torch
from torch import nn

from mvae_fast.vae import ConvDecoder, ConvEncoder


def shapes(network, x):
    """Of what each convolution gives."""
    seen = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda module, args, y: seen.append(tuple(y.shape[1:])))
    network(x)
    return seen


def test_the_papers_shapes():
    encoder, decoder = ConvEncoder((3, 64, 64), 196), ConvDecoder(196, (3, 64, 64))
    wanted = [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 5, 5)]
    assert shapes(encoder, torch.zeros(1, 3, 64, 64)) == wanted
    assert shapes(decoder, torch.zeros(1, 196)) == [*reversed(wanted[:-1]), (3, 64, 64)]
    linears = [m for net in (encoder, decoder) for m in net.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(6400, 392), (196, 6400)]


def test_every_convolution_but_the_last_of_the_decoder_has_batch_norm_and_swish():
    for net, count in (
        (ConvEncoder((1, 32, 32), 2, channels=2), 4),
        (ConvDecoder(2, (1, 32, 32), channels=2), 3),
    ):
        layers = [type(m) for m in net.net]
        for i, kind in enumerate(layers):
            if kind in (nn.Conv2d, nn.ConvTranspose2d) and i < len(layers) - 1:
                assert issubclass(layers[i + 1], nn.BatchNorm2d) and layers[i + 2] is nn.SiLU
        assert sum(issubclass(kind, nn.BatchNorm2d) for kind in layers) == count
    assert net.net[-1].bias is not None  # nothing else could shift the output


# As many channels in the image as in a layer: which layer is the last must not depend on it.
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 48, 40), (2, 64, 96), (16, 32, 40)])
@pytest.mark.parametrize("hidden", [(), (9,)])
def test_other_sizes_and_a_hidden_layer(shape, hidden):
    encoder, decoder = ConvEncoder(shape, 5, hidden, 2), ConvDecoder(5, shape, hidden, 2)
    mean, logvar = encoder(torch.randn(2, *shape))
    assert mean.shape == logvar.shape == (2, 5)
    assert decoder(mean).shape == (2, *shape)


def test_one_row_and_none_are_welcome():
    for rows in (0, 1):
        assert ConvEncoder((1, 32, 32), 5)(torch.zeros(rows, 1, 32, 32))[0].shape == (rows, 5)
        assert ConvDecoder(5, (1, 32, 32))(torch.zeros(rows, 5)).shape == (rows, 1, 32, 32)


@pytest.mark.parametrize("shape", [(28, 28), (1, 7, 28), (3, 64, 4)])
@pytest.mark.parametrize("make", [lambda s: ConvEncoder(s, 2), lambda s: ConvDecoder(2, s)])
def test_sizes_that_do_not_fit_are_named(make, shape):
    with pytest.raises(ValueError, match=r"expected \(C, H, W\) with H and W at least 8") as error:
        make(shape)
    assert str(shape) in str(error.value)


def test_channels_must_be_positive():
    with pytest.raises(ValueError, match="channels: got 0, expected an integer >= 1"):
        ConvEncoder((1, 32, 32), 2, channels=0)
