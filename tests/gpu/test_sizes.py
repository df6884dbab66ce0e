"""Offsets beyond 32 bits, and peak memory."""

from dataclasses import replace

import pytest
import torch

from benchmarks.common.candidates import Ours, Problem
from benchmarks.common.sizes import sizes
from benchmarks.common.workloads import select
from benchmarks.gpu.row import peak_bytes
from benchmarks.memory import forward_backward, output_gradients
from tests.gpu.flows import Step
from tests.gpu.places import GPU, every
from tests.oracles import distance

DIM = 64
LAST = 7  # rows that are solved once more by themselves
FEW = 1000  # elements where all that is tested is this test
MANY = 2**31


def skip_unless_free(place, n_bytes):
    if place.device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        if free < n_bytes:
            pytest.skip(f"needs {n_bytes / 2**30:.0f} GiB of GPU memory, {free / 2**30:.0f} free")


def elements(place):
    return MANY if place.device == "cuda" else FEW


def flow_on(place, **settings):
    return Step(place, hidden=(16,), batch=1, dim=DIM, **settings).flow


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("place", every())
def test_more_elements_than_32_bits_count_in_the_state(place, trace):
    count = elements(place)
    batch = count // DIM + LAST
    skip_unless_free(place, 5 * 4 * count)
    flow = flow_on(place, n_steps=1, trace=trace)
    torch.manual_seed(3)

    def rows():
        """The same in all rows but the last."""
        x = torch.randn(1, DIM, device=place.device).expand(batch, DIM).contiguous()
        x[-LAST:] = torch.randn(LAST, DIM, device=place.device)
        return x

    z, noise = rows(), rows() if trace == "hutchinson" else None
    logp = torch.zeros(batch, 1, device=place.device)
    last = None if noise is None else noise[-LAST:].clone()
    with torch.no_grad():
        whole = [x[-LAST:] for x in flow(z, logp, probes=noise)]
        alone = flow(z[-LAST:].clone(), logp[-LAST:].clone(), probes=last)
    for got, expected in zip(whole, alone, strict=True):
        assert distance(got, expected) < 1e-5


@pytest.mark.parametrize("place", every())
def test_more_elements_than_32_bits_count_in_the_saved_states(place):
    count, steps = elements(place), 40
    batch = count // (DIM * (steps - 1)) + LAST + 1
    skip_unless_free(place, 2 * 4 * count)
    flow = flow_on(place, n_steps=steps)
    torch.manual_seed(3)
    z = torch.randn(batch, DIM, device=place.device, requires_grad=True)

    def gradient(rows):
        z_t, logp_t = flow(rows, rows.new_zeros(rows.shape[0], 1))
        loss = z_t[-LAST:].square().sum() + logp_t[-LAST:].sum()
        return torch.autograd.grad(loss, rows)[0][-LAST:]

    alone = gradient(z.detach()[-LAST:].clone().requires_grad_())
    assert distance(gradient(z), alone) < 1e-5


@pytest.mark.parametrize("place", every(GPU))
@pytest.mark.parametrize("name", ["W2", "W3"])
def test_peak_memory_is_little_more_than_the_states(place, name):
    """PyTorch counts the memory of GPUs only; tests/benchmarks/test_memory.py has the CPU."""
    (workload,) = select([name])
    problem = Problem(replace(workload, batch=16384), torch.float32, device=place.device)
    module = Ours(problem, "exact", engine=place.engine)
    gradients = output_gradients(problem.workload, place.device)
    forward_backward(module, problem, *gradients)  # what a first call leaves behind
    size = sizes(problem.workload)
    peak = peak_bytes(lambda: forward_backward(module, problem, *gradients))
    assert size.states <= peak <= 1.2 * size.states + size.outputs
