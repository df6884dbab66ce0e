"""CUDA graphs: a replay gives the bits of the call, on new inputs and with new weights."""

import pytest
import torch

from tests.gpu.flows import Step
from tests.gpu.places import every

NETS = {
    "one layer": {},
    "one layer, noise": {"trace": "hutchinson"},
    "two layers": {"hidden": (40, 33)},
    "two layers, noise": {"hidden": (40, 33), "trace": "hutchinson"},
    "three layers": {"hidden": (9, 8, 7), "dim": 5},
    "rk4": {"solver": "rk4"},
    "checkpoints": {"n_steps": 7, "checkpoint_every": 3},
}


def check_replay(replay, outputs, call):
    replay()
    replayed = [x.clone() for x in outputs]
    for got, expected in zip(replayed, call(), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("precision", ["full", "bf16"])
@pytest.mark.parametrize(("place", "name"), every(cases=[(name,) for name in NETS]))
def test_replay_of_forward_and_backward(place, name, precision):
    place.require(precision)
    step = Step(place, precision=precision, **NETS[name])
    replay, outputs = place.capture(step)
    for _ in range(2):
        with torch.no_grad():
            for leaf in step.leaves():
                leaf.add_(torch.randn_like(leaf), alpha=0.1)
        check_replay(replay, outputs, step)


@pytest.mark.parametrize("place", every())
def test_replay_of_inference(place):
    step = Step(place)

    @torch.no_grad()
    def infer():
        return step.flow(step.z, step.logp)

    replay, outputs = place.capture(infer)
    with torch.no_grad():
        step.z.neg_()
    check_replay(replay, outputs, infer)


@pytest.mark.parametrize("place", every())
def test_replay_of_training(place):
    """Forward, backward and the optimiser's update in one graph, step after step."""
    recorded = Step(place)
    eager = recorded.twin()

    def training(step):
        parameters = list(step.flow.parameters())
        optimizer = torch.optim.SGD(parameters, lr=0.01)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

        def train():
            optimizer.zero_grad(set_to_none=False)
            z, logp = step.outputs()
            loss = (z.square().sum(1) / 2 + logp[:, 0]).mean()
            loss.backward()
            optimizer.step()
            return (loss.detach(),)

        return train

    replay, (loss,) = place.capture(training(recorded))
    # The capture has trained; go back, in place, to where the other one is.
    with torch.no_grad():
        for ours, theirs in zip(recorded.leaves(), eager.leaves(), strict=True):
            ours.copy_(theirs)
    train = training(eager)
    for _ in range(3):
        replay()
        assert torch.equal(loss, train()[0])
    for ours, theirs in zip(recorded.leaves(), eager.leaves(), strict=True):
        assert torch.equal(ours, theirs)
