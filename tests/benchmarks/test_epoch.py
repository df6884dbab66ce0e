"""The two ways of training that are timed against each other compute the same loss."""

import pytest
import torch
from torch import nn

from benchmarks.peers.epoch import HALF, MNIST, OURS, PEER, Setting, models, slices
from mvae_fast import FastCNF

SMALL = Setting(
    rows=10,
    side=3,
    classes=4,
    width=7,
    latent=5,
    flow_width=6,
    batch=6,
    label_weight=50.0,
    learning_rate=1e-2,
)


class WithProbes(nn.Module):
    """Our flow with a given noise of the trace."""

    def __init__(self, flow, probes):
        super().__init__()
        self.flow, self.probes = flow, probes

    def forward(self, z, logp):
        return self.flow(z, logp, probes=self.probes)


def both(steps, adjoint, trace="hutchinson"):
    """Losses on the same data, noise and probes, in float64."""
    ours, theirs = (m.double() for m in models(SMALL, steps, adjoint=adjoint, epsilon=0.0))
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(6, 3, 3, dtype=torch.float64, generator=generator)
    label = torch.randint(0, 4, (6,), generator=generator)
    shape = 3, 6, 5
    probes = torch.randn(shape, dtype=torch.float64, generator=generator)
    if steps:
        ours.flow.trace = trace
        if trace == "hutchinson":
            ours.flow = WithProbes(ours.flow, probes.flatten(0, 1))
    loss = ours.loss({"image": image, "label": label}, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return ours, loss, theirs, theirs.loss(image, label, noise, probes)


@pytest.mark.parametrize("steps", [0, 1, 10])
@pytest.mark.parametrize("adjoint", [False, True])
def test_both_ways_have_the_same_loss(steps, adjoint):
    _, ours, _, theirs = both(steps, adjoint)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_both_ways_have_the_same_gradients(steps):
    """Where the original's flow is differentiated step by step; its adjoint's differ by O(h)."""
    ours, loss, theirs, peers_loss = both(steps, adjoint=False)
    loss.backward()
    peers_loss.backward()
    got = {}
    for part in ("encoder", "decoder"):
        for name in ("image", "label"):
            got[f"{name}_{part}"] = [
                p.grad for p in getattr(ours.modalities[name], part).parameters()
            ]
    for name, gradients in got.items():
        wanted = [p.grad for p in getattr(theirs, name).parameters()]
        if name.endswith("encoder"):
            *wanted, mean_weight, mean_bias, logvar_weight, logvar_bias = wanted
            wanted += [torch.cat([mean_weight, logvar_weight]), torch.cat([mean_bias, logvar_bias])]
        torch.testing.assert_close(gradients, wanted, rtol=1e-9, atol=1e-10)
    if steps:
        flow = [p.grad for p in ours.flow.parameters()]
        wanted = [p.grad for p in theirs.flow.parameters()]
        torch.testing.assert_close(flow, wanted, rtol=1e-9, atol=1e-10)


def test_the_exact_trace_is_a_different_number():
    """So that the test above cannot pass without the probes reaching both."""
    _, ours, _, theirs = both(10, False, trace="exact")
    assert (ours - theirs).abs() > 1e-6


def test_our_flow_is_the_one_that_users_get():
    ours, theirs = models(SMALL, 10)
    assert isinstance(ours.flow, FastCNF)
    assert (ours.flow.trace, ours.flow.n_steps, ours.flow.engine) == ("exact", 10, "auto")
    assert theirs.flow.steps == 10


def test_the_original_runs_everything_three_times():
    _, theirs = models(SMALL, 10)
    runs = {}
    for name in ("image_encoder", "label_encoder", "image_decoder", "label_decoder"):
        getattr(theirs, name).register_forward_pre_hook(
            lambda module, args, name=name: runs.setdefault(name, []).append(len(args[0]))
        )
    theirs.loss(torch.rand(6, 3, 3), torch.randint(0, 4, (6,)))
    assert {name: len(rows) for name, rows in runs.items()} == {
        "image_encoder": 2,
        "label_encoder": 2,
        "image_decoder": 3,
        "label_decoder": 3,
    }


@pytest.mark.parametrize("steps", [0, 2])
def test_slices_train_from_the_same_parameters(steps):
    calls = slices(SMALL, steps, 1, torch.float32)
    assert list(calls) == [OURS, HALF, PEER]
    first, later = {}, {}
    for name, call in calls.items():
        torch.manual_seed(3)
        first[name] = call()
        for _ in range(20):
            later[name] = call()
        assert later[name] < 0.9 * first[name]
    # Ours draw the same noise, and differ by the products' rounding alone.
    assert 0 < (first[HALF] - first[OURS]).abs() < 0.01 * first[OURS]


def test_only_float32_has_an_autocast():
    assert list(slices(SMALL, 0, 1, torch.float64)) == [OURS, PEER]


def test_an_epoch_of_mnist():
    assert MNIST.batches == 600
