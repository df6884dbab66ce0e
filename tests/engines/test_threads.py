"""The threads of the C++ engine: the same bits whoever computes, after a fork, beside others."""

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.engines import cpp as ops
from tests.oracles import gradients, random_net

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

ROWS, DIM = 300, 16


def problem():
    net = random_net((32,), DIM, "concatsquash", "tanh", torch.float32)
    flow = FastCNF(ODEfunc(net), n_steps=4, trace="exact", engine="cpp")
    return flow, torch.randn(ROWS, DIM)


def solve(flow, z):
    results = flow(z, z[:, :1])
    return [*(x.detach() for x in results), *gradients(results, list(flow.parameters()))]


def same(first, second):
    return all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_bits_do_not_depend_on_who_takes_a_share(count, threads):
    """Nor on programs that take the cores meanwhile."""
    threads(count)
    flow, z = problem()
    expected = solve(flow, z)
    with ThreadPoolExecutor(6) as callers:  # each with helpers of its own
        runs = [callers.submit(lambda: [solve(flow, z) for _ in range(30)]) for _ in range(6)]
        for run in runs:
            assert all(same(found, expected) for found in run.result(timeout=120))


def test_the_number_of_threads_may_change(threads):
    flow, z = problem()
    expected = {}
    for count in (1, 4, 2, 4, 1, 2, 3, 2, 3):
        threads(count)
        found = solve(flow, z)
        assert same(found, expected.setdefault(count, found))


def test_helpers_sleep_when_there_is_nothing_to_do(threads):
    threads(3)
    flow, z = problem()
    solve(flow, z)
    time.sleep(0.1)  # of PyTorch's own, which may spin for a while
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def _solve_in_child(given):
    flow, z, expected = given
    return same(solve(flow, z), expected)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_after_a_fork(threads):
    """Helpers do not come along; PyTorch's own threads neither, so that its work stays small."""
    threads(2)
    flow, z = problem()
    expected = solve(flow, z)
    with multiprocessing.get_context("fork").Pool(2) as children:
        results = children.map_async(_solve_in_child, [(flow, z, expected)] * 4)
        assert results.get(timeout=60) == [True] * 4
    assert same(solve(flow, z), expected)
