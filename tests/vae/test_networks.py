import torch
from torch import nn

from mvae_fast.vae import BatchNorm1d, EmbeddingEncoder, MLPDecoder, MLPEncoder


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


def test_label_encoder_runs_once_a_class_and_its_gradients_are_those_of_the_rows():
    encoder = EmbeddingEncoder(4, 3, [6, 5]).double()
    seen = []
    encoder.net.register_forward_hook(lambda module, args, y: seen.append(len(args[0])))
    labels = torch.tensor([3, 0, 3, 3, 1, 0])  # no row of class 2
    weight = torch.randn(2, 6, 3, dtype=torch.float64)

    def gradients(expert):
        loss = (torch.stack(expert).square() * weight).sum()
        return torch.autograd.grad(loss, list(encoder.parameters()))

    once, direct = encoder(labels), encoder.net(labels)
    assert seen == [4, 6]
    torch.testing.assert_close(once, direct, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradients(once), gradients(direct), rtol=1e-12, atol=1e-13)
    encoder(labels[:4])
    assert seen[2:] == [4]  # the rows themselves: no more of them than classes


def test_label_encoder_keeps_to_deterministic_algorithms():
    encoder = EmbeddingEncoder(3, 2, [8, 8])
    labels = torch.randint(0, 3, (500,))
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (
            torch.autograd.grad(torch.cat(encoder(labels)).exp().sum(), list(encoder.parameters()))
            for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(before)
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


def test_batch_norm_comes_before_each_swish():
    for net in (MLPEncoder((4,), 2, [3, 3], True), MLPDecoder(2, (4,), [3, 3], True)):
        layers = [type(m) for m in net.modules() if not list(m.children())]
        assert layers.count(BatchNorm1d) == 2
        for i, kind in enumerate(layers):
            if kind is BatchNorm1d:
                assert layers[i - 1] is nn.Linear and layers[i + 1] is nn.SiLU
