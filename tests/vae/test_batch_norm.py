import pytest
import torch
from torch import nn

from mvae_fast.vae import MVAE, BatchNorm1d, BatchNorm2d, attributes_modality, mlp_modality


@pytest.mark.parametrize(
    ("ours", "torchs", "shape"),
    [(BatchNorm1d, nn.BatchNorm1d, (5, 3)), (BatchNorm2d, nn.BatchNorm2d, (1, 3, 2, 1))],
)
def test_with_two_values_a_channel_it_is_that_of_torch(ours, torchs, shape):
    ours, torchs = ours(3), torchs(3)
    y = torch.randn(shape)
    assert torch.equal(ours(y), torchs(y))
    for got, want in zip(ours.buffers(), torchs.buffers(), strict=True):
        assert torch.equal(got, want)
    assert torch.equal(ours.eval()(y), torchs.eval()(y))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [(BatchNorm1d, (1, 3)), (BatchNorm1d, (0, 3)), (BatchNorm2d, (1, 3, 1, 1))],
)
def test_with_fewer_it_takes_the_running_statistics_and_leaves_them(norm, shape):
    norm = norm(3)
    norm(torch.randn(8, *shape[1:]))
    before = {name: value.clone() for name, value in norm.named_buffers()}
    y = torch.randn(shape)
    training = norm(y)
    for name, value in norm.named_buffers():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(training, norm.eval()(y))


def model():
    torch.manual_seed(0)
    return MVAE(
        {"image": mlp_modality((6,), 4, hidden=7), "attributes": attributes_modality(5, 4)}, 4
    )


def norms(part):
    return [m for m in part.modules() if isinstance(m, nn.BatchNorm1d)]


def test_one_row_with_the_modality_trains():
    x = {"image": torch.rand(6, 6), "attributes": torch.full((6, 5), torch.nan)}
    x["attributes"][2] = 1.0
    mask = {"attributes": torch.arange(6) == 2}
    net = model()
    loss = net.loss(x, mask)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    assert all(b.isfinite().all() for b in net.buffers())


def test_statistics_are_of_the_rows_that_a_network_sees():
    """An encoder's of those that have the modality; a decoder's of all terms that score it."""
    net = model()
    attributes = net.modalities["attributes"]
    seen = {}
    for part in ("encoder", "decoder"):
        norm = norms(getattr(attributes, part))[0]
        norm.momentum = 1.0
        norm.register_forward_pre_hook(
            lambda module, args, part=part: seen.setdefault(part, args[0].detach())
        )
    x = {"image": torch.rand(8, 6), "attributes": torch.rand(8, 5)}
    mask = {"attributes": torch.arange(8) < 5}
    x["attributes"][~mask["attributes"]] = torch.nan
    net.loss(x, mask)
    for part, rows in (("encoder", 5), ("decoder", 5 + 5)):
        norm = norms(getattr(attributes, part))[0]
        assert len(seen[part]) == rows
        torch.testing.assert_close(norm.running_mean, seen[part].mean(0))
        assert norm.num_batches_tracked == 1
