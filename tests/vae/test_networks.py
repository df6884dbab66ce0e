import torch
from torch import nn

from mvae_fast.vae import EmbeddingEncoder, MLPDecoder, MLPEncoder


def widths(network):
    return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]


def test_the_papers_shapes():
    assert widths(MLPEncoder((28, 28), 128)) == [(784, 512), (512, 512), (512, 256)]
    assert widths(MLPDecoder(128, (28, 28))) == [(128, 512), (512, 512), (512, 512), (512, 784)]
    label = EmbeddingEncoder(10, 128)
    assert widths(label) == [(512, 512), (512, 256)]
    assert [m.weight.shape for m in label.modules() if isinstance(m, nn.Embedding)] == [(10, 512)]


def test_every_hidden_layer_is_followed_by_swish_and_heads_are_linear():
    encoder = MLPEncoder((4,), 2, [3])
    x = torch.randn(5, 4)
    first, head = (m for m in encoder.modules() if isinstance(m, nn.Linear))
    hidden = first(x)
    wanted = head(hidden * hidden.sigmoid())
    mean, logvar = encoder(x)
    torch.testing.assert_close(torch.cat([mean, logvar], 1), wanted)


def test_label_encoder_is_embedding_swish_linear_swish_heads():
    encoder = EmbeddingEncoder(4, 2, [3, 5])
    embedding = next(m for m in encoder.modules() if isinstance(m, nn.Embedding))
    hidden, head = (m for m in encoder.modules() if isinstance(m, nn.Linear))
    labels = torch.tensor([3, 0])
    silu = nn.functional.silu
    wanted = head(silu(hidden(silu(embedding(labels)))))
    torch.testing.assert_close(torch.cat(encoder(labels), 1), wanted)


def test_no_rows_are_welcome():
    assert MLPEncoder((3, 4), 2)(torch.zeros(0, 3, 4))[0].shape == (0, 2)
    assert EmbeddingEncoder(4, 2)(torch.zeros(0, dtype=torch.long))[0].shape == (0, 2)
    assert MLPDecoder(2, (3, 4))(torch.zeros(0, 2)).shape == (0, 3, 4)
