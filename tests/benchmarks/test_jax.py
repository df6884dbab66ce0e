"""JAX's flows compute what ours do, in a process that has as many cores as it was given."""

import os
from dataclasses import replace

import pytest
import torch

from benchmarks.common.candidates import (
    CANDIDATES,
    MODES,
    OURS,
    Problem,
    call,
    check_agreement,
    results,
)
from benchmarks.common.interleave import by_clock, interleave
from benchmarks.common.peers import PEERS, candidates_of, why_missing
from benchmarks.peers.jax_peer import Jax
from benchmarks.peers.jax_process import jax_process
from tests.benchmarks.test_peers import SMALL

pytestmark = pytest.mark.skipif(why_missing("jax") is not None, reason=str(why_missing("jax")))

ONE = SMALL[0]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workload", SMALL, ids=lambda w: w.name)
def test_values_and_gradients(workload):
    # Each step is compiled by itself: few of them.
    problem = Problem(replace(workload, steps=min(workload.steps, 2)), torch.float64)
    names = [*candidates_of("jax", workload, "train"), "jax exact"]
    modules = {name: CANDIDATES[name].build(problem) for name in names}
    check_agreement(modules, problem, "train")
    assert {"jax vjp", "jax jvp", "jax exact"} <= set(names)
    assert ("jax closed form" in names) == (len(workload.hidden) < 3)


@pytest.mark.parametrize("name", PEERS["jax"])
@pytest.mark.parametrize("mode", MODES)
def test_float32(name, mode):
    problem = Problem(ONE, torch.float32)
    module = CANDIDATES[name].build(problem)
    check_agreement({name: module}, problem, mode)
    assert all(tensor.dtype == torch.float32 for tensor in results(module, problem, mode))


def test_a_wrong_flow_is_noticed():
    problem = Problem(ONE, torch.float64)
    of_other_weights = Jax(Problem(ONE, torch.float64, seed=1), "jvp")
    with pytest.raises(AssertionError, match="jax jvp on squash"):
        check_agreement({"jax jvp": of_other_weights}, problem, "train")


def test_samples_are_those_of_the_other_process():
    problem = Problem(ONE, torch.float32)
    module = Jax(problem, "jvp")
    answered = []
    timed = call(module, problem, "train", "wall")

    def remember():
        answered.append(timed())
        return answered[-1]

    ours = call(CANDIDATES[OURS].build(problem), problem, "train", "wall")
    calls = {"jax": remember, OURS: ours}
    timings = interleave(
        calls, threads=1, budget=0, min_rounds=3, warmup=0, timer=by_clock(lambda: 0.0)
    )
    assert timings.seconds["jax"] == answered and min(answered) > 0
    assert timings.seconds[OURS] == [0.0] * 3  # by a clock that stands still


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are set on Linux only")
def test_cores():
    process = jax_process(1, False)
    assert process.ask("cores") == 1
    assert jax_process(1, False) is process


def test_errors_come_back_and_the_process_goes_on():
    process = jax_process(1, False)
    with pytest.raises(KeyError):
        process.ask("results", -1, "train")
    module = Jax(Problem(ONE, torch.float32), "vjp")
    assert module.seconds("inference", "cpu") > 0


def test_a_flow_that_is_gone_takes_no_memory_there():
    module = Jax(Problem(ONE, torch.float32), "vjp")
    process, key = module._process, module._key
    assert process.ask("results", key, "inference")
    del module
    with pytest.raises(KeyError):
        process.ask("results", key, "inference")
