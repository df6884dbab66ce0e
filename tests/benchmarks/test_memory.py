"""The memory of a step and of a training loop, measured in fresh processes."""

import gc

import pytest
import torch

from benchmarks import memory
from benchmarks.common.candidates import OURS, Problem, kl_term
from benchmarks.common.resident import in_fresh_process, resident, why_unavailable
from benchmarks.common.sizes import sizes
from benchmarks.common.workloads import Workload
from benchmarks.memory import row, step_peak, training_growth
from mvae_fast.engines import cpp as ops

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason="needs Linux's /proc")
engine = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

MIB = 2**20


@engine
def test_a_step_holds_its_states_and_outputs_and_little_more():
    workload = Workload("", 32, (32,), "squash", "softplus", 8192, 17, "")
    size = sizes(workload)
    assert size.states == 16 * MIB
    peak = in_fresh_process(step_peak, OURS, workload, 1)
    held = size.states + size.outputs
    # Below: the small ones may come out of pages that were resident before. Above: a fifth for
    # scratch memory, and what the first call of a library leaves resident.
    assert 0.95 * held <= peak <= 1.2 * size.states + size.outputs + 3 * MIB


@engine
def test_activations_are_kept_and_little_more():
    workload = Workload("", 32, (48, 80), "squash", "softplus", 4096, 17, "")
    size = sizes(workload, "activations")  # of rows that are an odd number of cache lines
    assert size.kept == 17 * 4096 * (48 + 80 + 80) * 4
    peak = in_fresh_process(step_peak, OURS, workload, 1, "activations")
    held = size.states + size.kept + size.outputs
    assert 0.95 * held <= peak <= 1.1 * (size.states + size.kept) + size.outputs + 3 * MIB


@engine
def test_training_does_not_leak():
    """One state a step, 64 KiB, kept by mistake would be 19 MiB."""
    tiny = Workload("", 16, (16,), "squash", "softplus", 1024, 4, "")
    early, late = in_fresh_process(training_growth, tiny, (50, 350), 1)
    assert late - early < 2 * MIB


def _growth_of_calls(n):
    flow = Problem(Workload("", 2, (3,), "squash", "softplus", 1, 1, ""), torch.float32).flow(
        "exact"
    )
    z, logp = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 1)
    leaves = [z, *flow.parameters()]
    seen = []
    for done in range(n + 2000):
        if done in (2000, n + 1999):
            gc.collect()
            seen.append(resident())
        torch.autograd.grad(kl_term(*flow(z, logp)), leaves)
    return seen[1] - seen[0]


@engine
def test_a_call_does_not_leak():
    """An op that takes a string leaks 50 bytes a call in torch's stable ABI: 1 MB over these."""
    assert in_fresh_process(_growth_of_calls, 10_000) < 300 * 1024


@engine
def test_row():
    small = Workload("small", 3, (5,), "squash", "softplus", 4, 2, "")
    line = row(small, 1, states=2_000_000, peer_limit=50_000_000, memory="activations")
    cells = line.strip("| ").split(" | ")
    assert cells[:3] == ["small", str(2_000_000 // 12 + 1), "2.0"]
    assert all(float(cell) >= 0 for cell in cells[1:-1]) and cells[-1].endswith("x")
    assert int(cells[8]) < int(cells[1])  # the peer got fewer rows
    assert f"|{'---|' * len(cells)}" == memory.HEAD.splitlines()[1]


def test_elsewhere_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(memory, "why_unavailable", lambda: "memory is read from somewhere")
    with pytest.raises(SystemExit) as stopped:
        memory.main([])
    assert stopped.value.code == 1
    assert "memory is read from somewhere" in capsys.readouterr().err
