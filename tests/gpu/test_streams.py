"""An engine works on the current stream and device, and never makes the host wait."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.gpu.flows import Step
from tests.gpu.places import GPU, Place, every, no_synchronisation
from tests.oracles import gradients

needs_two = pytest.mark.skipif(
    torch.cuda.device_count() < 2,
    reason=f"needs two GPUs: torch sees {torch.cuda.device_count()}",
)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"trace": "hutchinson"},
        {"hidden": (40, 33), "solver": "rk4"},
        {"hidden": (9, 8, 7), "dim": 5},
        {"precision": "bf16"},
        {"regularization_fns": ("kinetic_energy",)},
        {"checkpoint_every": 2},
        {"train_T": True},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
@pytest.mark.parametrize("place", every())
def test_no_host_synchronisation(place, settings):
    place.require(settings.get("precision", "full"))
    step = Step(place, **settings)
    expected = step()
    with no_synchronisation(place.device):
        got = step()
    assert all(torch.equal(ours, before) for ours, before in zip(got, expected, strict=True))


@pytest.mark.parametrize("place", every())
def test_current_stream(place):
    """The inputs come late, on a side stream: who reads them on another one is too early."""
    step = Step(place)
    expected = step()
    start = step.z.detach().clone()
    with torch.no_grad():
        step.z.zero_()
    gpu = place.device == "cuda"
    side = torch.cuda.Stream() if gpu else None
    if side is not None:
        side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side) if gpu else contextlib.nullcontext():
        if gpu:
            torch.cuda._sleep(200_000_000)  # cycles: some 0.1 s
        with torch.no_grad():
            step.z.copy_(start)
        got = step()
    if side is not None:
        side.synchronize()
    assert all(torch.equal(ours, before) for ours, before in zip(got, expected, strict=True))


@needs_two
@pytest.mark.parametrize("place", every(GPU))
def test_second_device(place):
    expected = Step(place)()
    got = Step(Place("cuda:1", place.engine))()
    assert torch.cuda.current_device() == 0
    for ours, first in zip(got, expected, strict=True):
        assert ours.device == torch.device("cuda:1")
        assert torch.equal(ours.cpu(), first.cpu())


@pytest.mark.parametrize("place", every())
def test_same_bits_every_time(place):
    for settings in ({"batch": 1029}, {"batch": 1029, "precision": "bf16"}):
        if place.has(settings.get("precision", "full")):
            step = Step(place, **settings)
            first, second = step(), step()
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("place", every())
def test_threads_that_solve_at_the_same_time(place):
    """Of one kernel, with tiles of different sizes: what a launch sets must not be another's."""
    steps = [Step(place, hidden=(width,), dim=dim) for width, dim in ((16, 2), (256, 128))]
    expected = [step() for step in steps]

    def repeat(step):
        with torch.no_grad():
            return [step.outputs() for _ in range(50)]

    with ThreadPoolExecutor(len(steps)) as pool:
        results = list(pool.map(repeat, steps))
    for many, before in zip(results, expected, strict=True):
        for got in many:
            assert all(torch.equal(x, y) for x, y in zip(got, before, strict=False))


@pytest.mark.parametrize("place", every())
def test_gradients_come_from_any_stream_and_thread(place):
    """Autograd runs a backward on the stream of its forward, in a thread of its own."""
    step = Step(place)
    expected = step()
    gpu = place.device == "cuda"
    side = torch.cuda.Stream() if gpu else None
    if side is not None:
        side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side) if gpu else contextlib.nullcontext():
        outputs = step.outputs()
    if side is not None:
        torch.cuda.current_stream().wait_stream(side)
    got = [*outputs, *gradients(outputs, step.leaves())]
    assert all(torch.equal(ours, before) for ours, before in zip(got, expected, strict=True))
